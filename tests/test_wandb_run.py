"""Weights & Biases over the wire: real runs against a server on loopback (`wandb_server.py`)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import pytest
import wandb_server
from conftest import ROOT, Main, need
from wandb_server import KEY, Run, Server

from harness.runs import wandb_run as tracking

SWEEP = (
    *("-m", "scheduler.t_mult=1,2", "seed=0,1", "scheduler.t_0=1", "trainer.epochs=3"),
    *("tracking.tags=[one,two]", "hydra.sweep.dir=out", "store.dir=store", "averages.ema=[0.99]"),
)
SHORT = ("trainer.epochs=3", "scheduler.t_0=1", "hydra.run.dir=out", "store.dir=store")
LONG = (
    *("dataset=synthetic", "dataset.images=200", "dataset.image_size=4", "model.width=2"),
    *("trainer.batch_size=16", "trainer.epochs=155", "trainer.checkpoint_every=0.2", *SHORT[2:]),
)


@pytest.fixture
def server() -> Iterator[Server]:
    with wandb_server.serve() as running:
        yield running


def command(script: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, str(ROOT / script), *map(str, arguments)]


def environment(server: Server | None) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    return {**clean, **(server.environment() if server else {})}


def call(
    script: str, *words: str | Path, cwd: Path, server: Server | None
) -> subprocess.CompletedProcess[str]:
    return forked.complete(ROOT / script, *words, cwd=cwd, env=environment(server))


def train(cwd: Path, server: Server | None, *overrides: str) -> subprocess.CompletedProcess[str]:
    done = call("train.py", *overrides, cwd=cwd, server=server)
    assert done.returncode == 0, done.stderr
    return done


def start(cwd: Path, server: Server | None, *overrides: str) -> forked.Program:
    words = [str(ROOT / "train.py"), *overrides]
    return forked.Program(cwd / "log", *words, cwd=cwd, env=environment(server))


def sync(cwd: Path, server: Server, *folders: str) -> str:
    done = call("scripts/wandb_sync.py", *folders, cwd=cwd, server=server)
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def assert_arrived(server: Server, folder: Path) -> Run:
    """The run of `folder` is on the server: every row once, in order, to the last bit; its end."""
    result = read(folder / "result.json")
    arrived = server.runs[result["run_id"]]
    assert arrived.rows() == history(folder)
    assert arrived.steps() == [row["step"] for row in history(folder)]
    assert arrived.exit_code == 0
    assert arrived.summary["status"] == "complete"
    assert arrived.summary.items() >= result["test"].items()
    best = {"last": result["final"]["val/acc"], "max": result["best"]["val/acc"]}
    assert arrived.summary["val/acc"] == best
    return arrived


def assert_described(arrived: Run, folder: Path) -> None:
    """Name, group, tags, job type, configuration and metrics of a run of `SWEEP`."""
    result = read(folder / "result.json")
    reported = arrived.fields
    assert (reported["displayName"], reported["groupName"]) == (result["name"], "out")
    assert (reported["jobType"], reported["tags"]) == (result["arm"], ["one", "two"])
    assert arrived.config["scheduler"] == result["config"]["scheduler"]
    assert arrived.config["plan"] == result["plan"]
    assert arrived.config["overrides"] == result["overrides"]
    names = {metric.get("1") or metric.get("2") for metric in arrived.metrics}
    assert names == {"epoch", "*", "val/acc"}


def assert_published(server: Server, sweep: Path) -> None:
    """The sweep's own run: its verdict, its differences, its page."""
    (own,) = (run for run in server.runs.values() if run.fields["jobType"] == "summary")
    verdict = read(sweep / "verdict.json")
    assert (own.fields["displayName"], own.fields["groupName"]) == ("out", "out")
    assert own.summary["verdict"] == verdict["sentence"]
    (compared,) = verdict["comparisons"]
    assert own.summary["2 against 1"]["mean"] == compared["mean"]
    (table,) = (json.loads(own.files[name]) for name in own.files if "paired" in name)
    assert [row[-1] for row in table["data"]] == [pair["difference"] for pair in compared["pairs"]]
    (page,) = (a for a in server.artifacts.values() if a.fields["artifactTypeName"] == "report")
    assert page.files["report.html"] == (sweep / "report.html").read_bytes()
    assert page.committed


def assert_no_key(folder: Path, *printed: str) -> None:
    for text in printed:
        assert KEY not in text
    for path in folder.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_an_online_sweep_arrives_whole(server: Server, tmp_path: Path) -> None:
    done = subprocess.run(  # a fresh interpreter, as from a shell
        command("train.py", *SWEEP), cwd=tmp_path, env=environment(server), text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    for number in range(4):
        folder = tmp_path / "out" / str(number)
        assert_described(assert_arrived(server, folder), folder)
        assert read(folder / "result.json")["tracking"].startswith(f"{server.url}/tester/")
    assert_published(server, tmp_path / "out")
    assert f"{server.url}/tester/" in done.stdout.splitlines()[-1], "the page of the sweep's run"
    assert server.unknown == []
    shown = train(tmp_path, server, "--cfg", "all").stdout
    assert_no_key(tmp_path, done.stdout, done.stderr, shown)

    train(tmp_path, server, *SWEEP, "hydra.sweep.dir=again/out")
    for number in range(4):
        again = tmp_path / "again/out" / str(number)
        assert read(again / "result.json")["updates_trained"] == 0
        assert_arrived(server, again)
    assert len(server.runs) == 6, "four runs, and a summary of each sweep"


def wait_for_rows(cwd: Path, running: forked.Program, rows: int) -> None:
    path = cwd / "out/history.jsonl"
    running.until(lambda: path.exists() and path.read_bytes().count(b"\n") >= rows)


def killed(cwd: Path, server: Server | None, rows: int) -> None:
    """Start a run and kill it dead once it has recorded `rows` rows in this attempt."""
    (cwd / "out/history.jsonl").unlink(missing_ok=True)
    running = start(cwd, server, *LONG)
    wait_for_rows(cwd, running, rows)
    running.kill()


@pytest.mark.slow
@pytest.mark.parametrize("online", [True, False])
def test_a_run_killed_twice_is_whole_on_the_server(
    server: Server, tmp_path: Path, online: bool
) -> None:
    seen = server if online else None
    for rows in (40, 120):
        killed(tmp_path, seen, rows)
        assert not (tmp_path / "out/result.json").exists()
    if not online:
        assert "1 left out: they still run, or were killed" in sync(tmp_path, server, "out")
    train(tmp_path, seen, *LONG)
    assert read(tmp_path / "out/result.json")["updates_reused"] > 0
    assert read(tmp_path / "out/result.json")["restarts"] == 2
    if not online:
        assert len(list((tmp_path / "out/wandb").glob("replaced-offline-run-*"))) == 2
        sync(tmp_path, server, "out")
    assert_arrived(server, tmp_path / "out")


@pytest.mark.slow
def test_a_run_outlives_the_process_of_wandb(server: Server, tmp_path: Path) -> None:
    """As on Slurm, where a signal to the job ends it before the run has written its checkpoint."""
    running = start(tmp_path, None, *LONG)
    wait_for_rows(tmp_path, running, 100)
    service = f"pgrep --parent {running.pid} wandb-core | xargs --no-run-if-empty kill -9"
    subprocess.run(service, shell=True, check=True)
    assert running.wait() == 0
    assert running.said.count("warning: W&B") == 1
    assert "1 runs uploaded" in sync(tmp_path, server, "out")
    assert_arrived(server, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["500", "hang", "refused"])
def test_a_server_that_does_not_answer_is_waited_for_once(
    server: Server, tmp_path: Path, fault: str
) -> None:
    server.fault = fault
    address = server if fault != "refused" else Server("http://127.0.0.1:9")
    done = train(tmp_path, address, *SWEEP, "seed=0")
    assert done.stderr.count("warning: W&B") == 1
    assert re.search(r"python scripts/wandb_sync.py \S*/?out$", done.stderr, re.MULTILINE)
    for number in range(2):
        result = read(tmp_path / "out" / str(number) / "result.json")
        assert result["status"] == "complete"
        assert "offline-run-" in result["tracking"]
    assert_no_key(tmp_path, done.stdout, done.stderr)
    server.fault = None
    assert "3 runs uploaded" in sync(tmp_path, server, "out")
    for number in range(2):
        assert_arrived(server, tmp_path / "out" / str(number))
    assert_published(server, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["500", "hang"])
def test_a_server_lost_on_the_way_costs_nothing(server: Server, tmp_path: Path, fault: str) -> None:
    """The first run begins online; its end waits for its upload, the other three are offline."""
    server.fault_after = (8, fault)
    done = train(tmp_path, server, *SWEEP)
    assert done.stderr.count("warning: W&B") == 1
    first = read(tmp_path / "out/0/result.json")
    assert (first["status"], Path(first["tracking"]).exists()) == ("complete", True)
    server.fault = server.fault_after = None
    assert "5 runs uploaded" in sync(tmp_path, server, "out")
    for number in range(4):
        assert_arrived(server, tmp_path / "out" / str(number))


@pytest.mark.slow
def test_the_key_is_nowhere(server: Server, tmp_path: Path) -> None:
    """Where all is well, where a run fails, where W&B refuses; with tracebacks wanted."""
    own = environment(server) | {"HYDRA_FULL_ERROR": "1"}
    cases = [
        (*SHORT, "seed=0"),
        (*SHORT[:2], "hydra.run.dir=failed", "trainer.device=cuda:77"),
        (*SHORT[:2], "hydra.run.dir=refused", "tracking.project=a/b"),
    ]
    for number, overrides in enumerate(cases):
        done = forked.complete(ROOT / "train.py", *overrides, cwd=tmp_path, env=own)
        assert done.returncode == (number > 0), done.stderr
        assert_no_key(tmp_path, done.stdout, done.stderr)


@pytest.mark.slow
def test_offline_opens_no_socket(tmp_path: Path) -> None:
    need(os.access("/usr/bin/strace", os.X_OK), "strace is missing: apt-get install strace")
    traced = ["strace", "-f", "-qq", "-e", "trace=socket,connect", "-o", str(tmp_path / "calls")]
    subprocess.run(
        [*traced, *command("train.py", *SWEEP)],
        cwd=tmp_path, env=environment(None) | {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"},
        check=True, capture_output=True,
    )  # fmt: skip
    calls = (tmp_path / "calls").read_text()
    assert "AF_UNIX" in calls, "the trace has wandb's own socket to its service"
    assert not re.findall(r".*AF_INET.*", calls)


@pytest.mark.slow
def test_offline_is_chosen_where_there_is_no_key(tmp_path: Path) -> None:
    home = environment(None) | {"HOME": str(tmp_path)}
    done = subprocess.run(
        command("train.py", *SHORT),
        cwd=tmp_path, env=home, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "offline-run-" in read(tmp_path / "out/result.json")["tracking"]
    assert "warning" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("online", [True, False])
def test_a_key_in_netrc_is_for_its_server_alone(
    server: Server, tmp_path: Path, online: bool
) -> None:
    """As `wandb login` writes it and wandb reads it: with the port."""
    machine = server.url.removeprefix("http://") if online else "127.0.0.1"
    (tmp_path / "netrc").write_text(f"machine {machine}\nlogin user\npassword {KEY}\n")
    env = environment(server) | {"NETRC": str(tmp_path / "netrc"), "HOME": str(tmp_path)}
    del env["WANDB_API_KEY"]
    words = (ROOT / "train.py", *SHORT, "dataset=synthetic", "dataset.images=200")
    done = forked.complete(*words, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert len(server.runs) == online
    assert ("offline-run-" in read(tmp_path / "out/result.json")["tracking"]) != online


def test_a_mode_of_the_environment_that_disables_wandb_leaves_nothing(
    tmp_path: Path, main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    done = main("dataset=synthetic", "dataset.images=200", "trainer.epochs=1", "scheduler.t_0=1",
                f"hydra.run.dir={tmp_path}/out", f"store.dir={tmp_path}/store")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "out/result.json")["tracking"] == ""
    assert not (tmp_path / "out/wandb").exists()


NO_KEY = (
    "tracking.mode=online: there is no W&B key; run `wandb login`, or use tracking.mode=offline"
)
REFUSED: dict[str, tuple[dict[str, str], tuple[str, ...], str]] = {
    "mode": ({"WANDB_MODE": "off"}, (), "WANDB_MODE=off: must be online, offline or disabled"),
    "mode, where another is asked for": (
        {"WANDB_MODE": "off", "WANDB_API_KEY": KEY}, ("tracking.mode=online",),
        "WANDB_MODE: Input should be 'online', 'offline', 'shared', 'disabled', 'dryrun' or 'run'; "
        "change or unset it",
    ),
    "no key": ({}, ("tracking.mode=online",), NO_KEY),
    "half a key": (
        {"WANDB_API_KEY": KEY[:20]}, (),
        "WANDB_API_KEY: API key must have 40+ characters, has 20; change or unset it",
    ),
    "a number": (
        {"WANDB_INIT_TIMEOUT": "soon"}, (),
        "WANDB_INIT_TIMEOUT: Input should be a valid number, unable to parse string as a number; "
        "change or unset it",
    ),
    "a choice": (
        {"WANDB_CONSOLE": "x"}, (),
        "WANDB_CONSOLE: Input should be 'auto', 'off', 'wrap', 'redirect', 'wrap_raw' or 'wrap_emu'; "
        "change or unset it",
    ),
    "an address": (
        {"WANDB_BASE_URL": "here"}, (),
        "WANDB_BASE_URL: Input should be a valid URL, relative URL without a base; change or unset it",
    ),
    "a group": (
        {"WANDB_RUN_GROUP": "g" * 129}, (), "WANDB_RUN_GROUP: W&B takes at most 128 characters"
    ),
    "a folder": (
        {"WANDB_DATA_DIR": "/dev/null/here"}, (),
        "WANDB_DATA_DIR=/dev/null/here: cannot be written to; unset it, or name another folder",
    ),
    "a long tag": (
        {}, (f"tracking.tags=[a,{'b' * 65}]",),
        f"tracking.tags: '{'b' * 65}' must have 1 to 64 characters",
    ),
    "an empty tag": ({}, ("tracking.tags=['']",), "tracking.tags: '' must have 1 to 64 characters"),
    "a project": (
        {}, ("tracking.project=a/b",),
        "tracking.project=a/b: must have 1 to 128 characters, and none of / \\ # ? % :",
    ),
    "an entity": (
        {}, ("tracking.entity='a:b'",),
        "tracking.entity=a:b: must have 1 to 128 characters, and none of / \\ # ? % :",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_makes_no_sense_is_refused(tmp_path: Path, main: Main, mistake: str) -> None:
    variables, overrides, line = REFUSED[mistake]
    env = environment(None) | variables | {"HOME": str(tmp_path)}
    with pytest.MonkeyPatch.context() as patched:
        for name in os.environ.keys() - env.keys():
            patched.delenv(name)
        for name, value in env.items():
            patched.setenv(name, value)
        places = f"hydra.run.dir={tmp_path}/out", f"store.dir={tmp_path}/store"
        done = main(*SHORT[:2], *places, *overrides)
    assert done.returncode == 1
    assert done.stderr == f"error: {line}\n"
    assert not (tmp_path / "out/history.jsonl").exists()
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_names_of_any_length_arrive(server: Server, tmp_path: Path) -> None:
    """W&B takes 128 characters of a name or a group and 64 of a job type, and refuses the run otherwise."""
    long = "scheduler.t_mult=1,2", f"tracking.project={'p' * 120}1,{'p' * 120}2"
    folder = "s" * 140
    words = ("-m", *SHORT[:2], *long, f"hydra.sweep.dir={folder}", "store.dir=store")
    done = train(tmp_path, server, *words)
    assert "warning: W&B" not in done.stderr
    plan = read(tmp_path / folder / "plan.json")
    for number, arm in enumerate(plan["arms"]):
        result = read(tmp_path / folder / str(number) / "result.json")
        assert result["arm"] == arm["arm"]
        fields = server.runs[result["run_id"]].fields
        for name, whole, most in (("jobType", arm["arm"], 64), ("groupName", folder, 128)):
            assert len(fields[name]) <= most
            assert fields[name][: most // 2] == whole[: most // 2]
    runs = [run.fields for run in server.runs.values()]
    assert len({run["jobType"] for run in runs}) == 3, "two that stay apart, and the verdict"
    assert len({run["groupName"] for run in runs}) == 1
    shown = ("scripts/wandb_workspace.py", folder, "--json", "shown.json")
    written = call(*shown, cwd=tmp_path, server=None)
    assert written.returncode == 0, written.stderr
    assert runs[0]["groupName"] in (tmp_path / "shown.json").read_text()


def test_the_summary_tells_the_last_accuracy_from_the_best() -> None:
    result = {
        "status": "complete",
        "final": {"val/acc": 90.0},
        "best": {"val/acc": 91.5},
        "test": {},
    }
    assert tracking.summary(result)["val/acc"] == {"last": 90.0, "max": 91.5}


@pytest.mark.slow
def test_a_wandb_agent_runs_the_sweep_of_the_file(server: Server, tmp_path: Path) -> None:
    """The real `wandb sweep` and `wandb agent`; the server hands out two points of the grid."""
    text = (ROOT / "conf/wandb_sweep.yaml").read_text()
    sweep = tmp_path / "sweep.yaml"
    places = f"hydra.run.dir={tmp_path}/${{scheduler.t_mult}}", f"store.dir={tmp_path}/store"
    sweep.write_text(text + "".join(f"  - {one}\n" for one in (*places, *SHORT[:2])))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = environment(server) | {"PATH": path, "WANDB_DIR": str(tmp_path)}
    tool = str(Path(sys.executable).parent / "wandb")
    for words in (["sweep", str(sweep)], ["agent", "tester/cosine-restarts/sweep1"]):
        server.commands = [
            {
                "type": "run",
                "run_id": f"point{t_mult}",
                "program": "train.py",
                "args": {
                    "scheduler.t_mult": {"value": t_mult},
                    "seed": {"value": 1},
                },
            }
            for t_mult in (1, 2)
        ]
        done = subprocess.run(
            [tool, *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    for t_mult in (1, 2):
        arrived, folder = server.runs[f"point{t_mult}"], tmp_path / str(t_mult)
        assert arrived.rows() == history(folder)
        assert arrived.fields["sweep"] == "sweep1"
        assert arrived.config["scheduler"]["t_mult"] == t_mult
        assert (read(folder / "result.json")["config"]["seed"], arrived.exit_code) == (1, 0)
    assert server.unknown == []


@pytest.mark.slow
def test_a_workspace_is_made_once_and_updated(server: Server, tmp_path: Path) -> None:
    train(tmp_path, None, *SWEEP)
    urls = []
    for name in ("first", "second"):
        words = ("scripts/wandb_workspace.py", "out", "--name", name)
        done = call(*words, cwd=tmp_path, server=server)
        assert done.returncode == 0, done.stderr
        urls.append(done.stdout.split())
    assert urls[0][0] == urls[1][0]
    (view,) = server.views.values()
    assert (view["type"], view["displayName"]) == ("project-view", "second")
    assert server.unknown == []
