"""Sweeps on a real Ray: two nodes on this machine with GPUs that are declared, not there. What is lost, retried,
stopped or left must end like what is not, bit for bit.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import forked
import pytest
from cluster.conftest import LONG, sweep_under_way, trained
from conftest import ROOT, Main, need, verified
from hydra import compose, initialize_config_dir

from harness.config.errors import ConfigError
from harness.config.hydra_private import last_given
from harness.store.commit import program_commit
from harness.sweeps import ray_launcher

TINY = (
    "dataset=synthetic", "dataset.images=200", "dataset.classes=4", "dataset.image_size=4",
    "model.width=2", "trainer.batch_size=16", "scheduler.t_0=1", "trainer.epochs=3", "tracking=none",
)  # fmt: skip

pytestmark = pytest.mark.timeout(900)  # on a busy machine; else two minutes at the most


# --- settings, and what is handed on -------------------------------------------------------------


def launcher(*overrides: str) -> Any:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        words = ["hydra/launcher=ray", *(f"hydra.launcher.{word}" for word in overrides)]
        return compose("config", words, return_hydra_config=True).hydra.launcher


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["num_cpus=0"], "hydra.launcher.num_cpus=0: must be a number of at least 0.001"),
        (["num_cpus=two"], "hydra.launcher.num_cpus=two: must be a number of at least 0.001"),
        (["num_gpus=1.5"], "hydra.launcher.num_gpus=1.5: must be a whole number, or a share of a GPU, as 0.25"),
        (["num_gpus=-1"], "hydra.launcher.num_gpus=-1: must be a whole number, or a share of a GPU, as 0.25"),
        (["num_gpus=true"], "hydra.launcher.num_gpus=True: must be a whole number, or a share of a GPU, as 0.25"),
        (["leave=flase"], "hydra.launcher.leave=flase: must be true or false"),
        (["address=localhost"], "hydra.launcher.address=localhost: must be HOST:PORT, as in localhost:6379, or auto"),
        (["max_retries=-1"], "hydra.launcher.max_retries=-1: must be an integer of at least 0"),
        (["leave=true"], "hydra.launcher.leave=true: a Ray that this command starts ends with it; give "
         "hydra.launcher.address of one that runs"),
        (["address='ray://head:10001'"], "hydra.launcher.address=ray://head:10001: give the command on a node of "
         "the cluster, with hydra.launcher.address=auto"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_one_line(
    monkeypatch: pytest.MonkeyPatch, overrides: list[str], line: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # as if Ray were installed
    ray_launcher.check_settings(launcher())
    with pytest.raises(ConfigError) as error:
        ray_launcher.check_settings(launcher(*overrides))
    assert str(error.value) == line


def test_a_missing_ray_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"Ray is not installed; pip install -e '\.\[ray\]'$"):
        ray_launcher.check_settings(launcher())


def test_jobs_take_what_shapes_a_run_from_the_command_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [*os.environ]:
        if name.startswith(("HARNESS_", "WANDB_", "TORCH", "OMP_")):
            monkeypatch.delenv(name)
    given = {"HARNESS_DATA": "/d", "WANDB_API_KEY": "k", "AWS_SECRET_ACCESS_KEY": "s",
             "HARNESS_EXTENSIONS": "/x.py", "CUDA_VISIBLE_DEVICES": "3"}  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    commit, dirty = program_commit()
    own = {"HARNESS_COMMIT": f"{commit}{'-dirty' * bool(dirty)}"} if commit else {}
    own |= {"HARNESS_DATA": "/d", "WANDB_API_KEY": "k", "HARNESS_IN_RAY": "1"}
    own |= {"HARNESS_PROJECT": str(ROOT)}
    with_gpu = ray_launcher.environment(launcher("num_cpus=2.5", "num_gpus=1"))
    assert with_gpu == own | {"OMP_NUM_THREADS": "2"}
    without = ray_launcher.environment(launcher("num_cpus=0.5", "num_gpus=0"))
    assert without == own | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert ray_launcher.environment(launcher("num_gpus=1"))["OMP_NUM_THREADS"] == "7"


def test_the_code_is_copied_and_nothing_beside_it(tmp_path: Path) -> None:
    ray_launcher.copy_code(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"harness", "conf"}
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {
        ".py", ".yaml", ".j2"
    }  # fmt: skip
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 5e6


# --- two nodes -----------------------------------------------------------------------------------


class Nodes(NamedTuple):
    address: str
    lose: Callable[[], None]  # kills the second node, and starts another in its place
    alive: Callable[[], int]  # how many nodes are


_STARTS = 3  # of the nodes, at most


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A head and a second node, each with two CPUs and two declared GPUs: 0 and 1, 2 and 3."""
    need(importlib.util.find_spec("ray"), "Ray is not installed: pip install -e '.[ray]'")
    folder = tempfile.mkdtemp(dir="/tmp", prefix="ray")  # short, for the paths of sockets
    before = dict(os.environ)
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_TOKEN": "of-the-tests" * 4}
    os.environ.pop("OMP_NUM_THREADS", None)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.cluster_utils import Cluster

        def add(devices: str, **own: Any) -> Any:
            os.environ["CUDA_VISIBLE_DEVICES"] = devices
            node = cluster.add_node(num_cpus=2, num_gpus=2, object_store_memory=80 * 2**20, **own)
            del os.environ["CUDA_VISIBLE_DEVICES"]
            return node

        def lose() -> None:
            cluster.remove_node(second.pop(), allow_graceful=False)
            second.append(add("2,3"))

        quick = {"health_check_period_ms": 1000, "health_check_failure_threshold": 10}
        for left in reversed(range(_STARTS)):
            cluster = Cluster()
            try:
                add("0,1", include_dashboard=False, temp_dir=folder, _system_config=quick)
                second = [add("2,3")]
                break
            except Exception:  # Ray gives a node 30 s, of which a busy machine may take more
                cluster.shutdown()
                if not left:
                    raise
        yield Nodes(cluster.address, lose, lambda: len(cluster.global_state._live_node_ids()))
        cluster.shutdown()
    os.environ.clear()
    os.environ.update(before)
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Sweep:
    """A sweep that is under way, and what its runs have left so far."""

    folder: Path
    process: subprocess.Popen[str]

    def result(self, number: int) -> dict[str, Any]:
        path = self.folder / f"{number}/result.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def ended(self, number: int) -> tuple[str, bytes]:
        return self.result(number)["weights_sha256"], self.rows(number)

    def rows(self, number: int) -> bytes:
        path = self.folder / f"{number}/history.jsonl"
        return path.read_bytes() if path.exists() else b""

    def starts(self, number: int) -> int:
        return len((self.folder / f"{number}/starts.txt").read_text().splitlines())

    def log(self, number: int) -> str:
        return (self.folder / f"{number}/job.log").read_text()

    def jobs(self) -> list[Job]:
        return [job for path in self.folder.glob("*/job.log") for job in Job.read(path)]

    def wait_for_rows(self, *numbers: int, rows: int = 100) -> None:
        for number in numbers:
            self.until(lambda: self.rows(number).count(b"\n") > rows)  # noqa: B023

    def until(self, condition: Callable[[], object], seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, [
                path.read_text() for path in self.folder.glob("*/job.log")
            ]
            time.sleep(0.1)

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=480)
        return self.process.returncode, out, err


class Job(NamedTuple):
    """One start of a run, as its job.log says."""

    number: str
    process: int
    device: str
    threads: str
    begin: float
    end: float

    @classmethod
    def read(cls, path: Path) -> Iterator[Job]:
        line = r"^(\S+) (begin|end): \S+, process (\d+), CUDA_VISIBLE_DEVICES=(\S*), OMP_NUM_THREADS=(\d+)$"
        open_: Job | None = None
        for time_, what, process, device, threads in re.findall(line, path.read_text(), re.M):
            now = datetime.fromisoformat(time_).timestamp()
            if what == "begin":
                if open_:  # which was killed at an instant that the log does not know
                    yield open_
                open_ = cls(path.parent.name, int(process), device, threads, now, float("inf"))
            elif open_:
                yield open_._replace(end=now)
                open_ = None
        if open_:
            yield open_


def most_at_once(jobs: list[Job]) -> int:
    """How many jobs share a GPU at the most."""
    return max(
        sum(job.device == other.device and job.begin <= other.begin < job.end for job in jobs)
        for other in jobs
    )


Launch = Callable[..., Sweep]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start `train.py -m hydra/launcher=ray …` in a folder of the test's."""
    started: list[subprocess.Popen[str]] = []

    def start(*overrides: str) -> Sweep:
        started.append(sweep_under_way(tmp_path, "hydra/launcher=ray", *overrides))
        return Sweep(tmp_path / "out", started[-1])

    yield start
    for process in started:
        process.kill()
        process.communicate()


def on(nodes: Nodes, **settings: object) -> list[str]:
    given = {"address": nodes.address, "num_gpus": 1} | settings
    return [f"hydra.launcher.{key}={value}" for key, value in given.items()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """Weights and history of the long run without a break."""
    return trained(tmp_path_factory.mktemp("whole"), *LONG)


def judged(sweep: Path) -> dict[str, Any]:
    """The verdict without what depends on time and place."""
    verdict = json.loads((sweep / "verdict.json").read_text())
    if verdict.get("looks"):
        verdict["looks"].pop("seconds")
    return {key: value for key, value in verdict.items() if key != "provenance"}


@pytest.mark.slow
def test_sixteen_runs_use_four_gpus_survive_a_lost_node_and_end_as_with_the_basic_launcher(
    nodes: Nodes, launch: Launch, tmp_path: Path, main: Main
) -> None:
    words = [*TINY, "trainer.epochs=63", "trainer.checkpoint_every=0.3", "store.keep=last", "scheduler.t_mult=1,2",
             "seed=range(0,8)"]  # fmt: skip
    sweep = launch(*words, *on(nodes))

    def second_node_trains() -> bool:
        runs = {int(job.number) for job in sweep.jobs() if job.device in ("2", "3")}
        return any(sweep.rows(n).count(b"\n") > 20 and not sweep.result(n) for n in runs)

    sweep.until(second_node_trains)
    lost_at = time.time()
    nodes.lose()
    code, out, err = sweep.end()
    assert code == 0, err
    assert re.findall(r"^(t_mult=\d) +(\d+) ", out, re.M) == [("t_mult=1", "8"), ("t_mult=2", "8")]
    jobs = [job if job.end < float("inf") else job._replace(end=lost_at) for job in sweep.jobs()]
    assert {job.device for job in jobs} == {"0", "1", "2", "3"}
    assert most_at_once(jobs) == 1
    assert {job.threads for job in jobs} == {"1"}
    assert {sweep.result(number)["numerics"]["threads"] for number in range(16)} == {1}
    lost = [number for number in range(16) if sweep.starts(number) > 1]
    assert lost
    assert any(sweep.result(number)["updates_reused"] > 0 for number in lost)
    assert len({job.process for job in jobs}) == len(jobs), "a process each, which frees its GPU"

    where = [f"hydra.sweep.dir={tmp_path / 'basic'}", f"store.dir={tmp_path / 'other'}"]
    assert main("-m", *last_given([*words, *where])).returncode == 0
    basic = forked.ends(tmp_path / "basic")
    assert forked.ends(sweep.folder) == basic
    assert judged(sweep.folder) == judged(tmp_path / "basic")
    assert {sweep.result(0)[key] for key in ("commit",)} == {program_commit().commit}
    assert verified(sweep.folder)


@pytest.mark.slow
def test_runs_share_gpus_by_fractions(nodes: Nodes, launch: Launch) -> None:
    sweep = launch(*LONG, "trainer.epochs=200", "tracking=none", "seed=range(0,4)",
                   *on(nodes, num_gpus=0.5, num_cpus=0.5))  # fmt: skip
    code, _, err = sweep.end()
    assert code == 0, err
    assert most_at_once(sweep.jobs()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "to go"])
def test_a_run_whose_process_is_lost_goes_on_in_another(
    nodes: Nodes, launch: Launch, whole: tuple[str, bytes], number: signal.Signals
) -> None:
    sweep = launch(*LONG, "tracking=none", *on(nodes))
    sweep.wait_for_rows(0)
    os.kill(sweep.jobs()[0].process, number)
    code, _, err = sweep.end()
    assert code == 0, err
    assert sweep.result(0)["restarts"] == 1
    assert sweep.result(0)["updates_reused"] > 0
    assert sweep.ended(0) == whole
    if number == signal.SIGTERM:
        assert "stopped by SIGTERM" in sweep.log(0)


@pytest.mark.slow
def test_a_run_that_is_lost_too_often_is_missing_and_the_others_are_reported(
    nodes: Nodes, launch: Launch
) -> None:
    sweep = launch(*LONG, "tracking=none", "seed=0,1", *on(nodes, max_retries=0))
    sweep.wait_for_rows(0)
    os.kill(next(job.process for job in sweep.jobs() if job.number == "0"), signal.SIGKILL)
    code, _, err = sweep.end()
    assert code == 1
    assert "a run was lost more often than hydra.launcher.max_retries allows (" in err
    assert "1 of 2 runs failed: seed=0: " in err
    assert f"(logs in {sweep.folder}/*/job.log)" in err
    assert sweep.result(1)["status"] == "complete"


@pytest.mark.slow
def test_a_stopped_sweep_leaves_checkpoints_and_goes_on(
    nodes: Nodes, launch: Launch, whole: tuple[str, bytes]
) -> None:
    words = [*LONG, "tracking=none", "trainer.checkpoint_every=1000", *on(nodes)]
    sweep = launch(*words)
    sweep.wait_for_rows(0)
    sweep.process.send_signal(signal.SIGINT)
    code, _, err = sweep.end()
    assert code == 130
    assert "runs write their checkpoints" in err
    assert "the sweep has stopped; the same command goes on from there" in err
    assert sweep.result(0)["status"] == "interrupted"
    assert sweep.result(0)["updates_trained"] > 0
    sweep = launch(*words)
    code, _, err = sweep.end()
    assert code == 0, err
    assert sweep.result(0)["updates_reused"] > 0
    assert sweep.ended(0) == whole


@pytest.mark.slow
@pytest.mark.parametrize("leave", [False, True], ids=["stopped", "left"])
def test_what_a_killed_command_does_to_its_jobs(
    nodes: Nodes, launch: Launch, whole: tuple[str, bytes], leave: bool
) -> None:
    words = [*LONG, "tracking=none", *on(nodes, leave=leave)]
    sweep = launch(*words)
    sweep.wait_for_rows(0)
    sweep.process.kill()
    sweep.process.wait()
    process = Path(f"/proc/{sweep.jobs()[0].process}")
    if not leave:
        until(lambda: not process.exists())
    again = launch(*words)
    code, _, err = again.end()
    assert code == 0, err
    assert again.starts(0) == (1 if leave else 2)
    assert again.ended(0) == whole


@pytest.mark.slow
def test_jobs_that_were_left_are_stopped_by_the_command_that_does_not_leave_them(
    nodes: Nodes, launch: Launch
) -> None:
    words = [*LONG, "trainer.epochs=100000", "tracking=none"]
    sweep = launch(*words, *on(nodes, leave=True))
    sweep.wait_for_rows(0)
    sweep.process.send_signal(signal.SIGINT)
    code, _, err = sweep.end()
    assert code == 130
    assert (
        "the jobs go on; the same command waits for them, and with hydra.launcher.leave=false its Ctrl-C stops them; "
        in err
    )
    assert not sweep.result(0)
    rows = sweep.rows(0).count(b"\n")
    sweep = launch(*words, *on(nodes))
    sweep.wait_for_rows(0, rows=rows + 100)
    assert sweep.process.stderr
    assert any("jobs that an earlier command left go on" in line for line in sweep.process.stderr)
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.end()[0] == 130
    assert sweep.result(0)["status"] == "interrupted"
    assert sweep.starts(0) == 1


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_a_claim_goes_on_until_decided_as_with_the_basic_launcher(
    nodes: Nodes, launch: Launch, tmp_path: Path, main: Main
) -> None:
    words = [*TINY, "claim.until=decided", "claim.most=8", "optimizer.lr=1e-06,0.1"]
    sweep = launch(*words, *on(nodes, num_gpus=0))
    code, _, err = sweep.end()
    assert code == 0, err
    assert "decided with 6 pairs" in err
    assert {job.device for job in sweep.jobs()} == {""}, "no GPU for runs that ask for none"
    assert len({job.process for job in sweep.jobs()}) < 12, "processes are used again"
    where = [f"hydra.sweep.dir={tmp_path / 'basic'}", f"store.dir={tmp_path / 'other'}"]
    assert main("-m", *last_given([*words, *where])).returncode == 0
    assert forked.ends(sweep.folder) == forked.ends(tmp_path / "basic")
    assert len(forked.ends(sweep.folder)) == 12
    assert judged(sweep.folder) == judged(tmp_path / "basic")


@pytest.mark.slow
@pytest.mark.parametrize("here", [False, True], ids=["a cluster", "Ray of the command's own"])
def test_code_of_ones_own_is_shipped_with_that_of_the_program(
    nodes: Nodes, launch: Launch, tmp_path: Path, here: bool
) -> None:
    """Two files of one folder, of which one imports the other, and one is a link."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/helper.py").write_text("WIDTH = 8\n")
    (tmp_path / "mine/own.py").write_text(
        "import helper, harness\nfrom torch import nn\nfrom harness.extend import *\n"
        '@register("own")\nclass Own(Model):\n'
        "    def build(self, shape):\n"
        "        print('code in', __file__, helper.__file__, harness.__file__)\n"
        "        pixels = shape.channels * shape.image_size**2\n"
        "        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, helper.WIDTH), nn.Linear(helper.WIDTH, shape.classes))\n"
    )
    (tmp_path / "mine/other.py").write_text(
        "import own\nfrom harness.extend import *\n"
        '@register("other")\nclass Other(own.Own):\n    pass\n'
    )
    (tmp_path / "mine/linked.py").symlink_to(tmp_path / "mine/other.py")
    (tmp_path / "conf/arm").mkdir(parents=True)
    (tmp_path / "conf/arm/mine.yaml").write_text("# @package _global_\nseed: 7\n")
    words = [word for word in TINY if not word.startswith("model.")]
    sweep = launch("--config-dir", str(tmp_path / "conf"), f"extensions=[{tmp_path}/mine/own.py,{tmp_path}/mine/linked.py]",
                   "model=other", *words, "arm=mine", *([] if here else on(nodes)))  # fmt: skip
    code, _, err = sweep.end()
    assert code == 0, err + sweep.log(0)
    assert sweep.result(0)["config"]["seed"] == 7
    files = " ".join(re.findall(r"^code in (.*)$", sweep.log(0), re.M)).split()
    assert files
    assert all("/working_dir_files/" in file for file in files), files
    assert (sweep.folder / "0/extensions/helper.py").read_text() == "WIDTH = 8\n"


@pytest.mark.slow
def test_a_node_that_does_not_see_the_sweep_stops_it_in_one_line(
    nodes: Nodes, launch: Launch, tmp_path: Path
) -> None:
    need(os.geteuid() == 0, "hiding a folder from a node takes root")
    hidden = f'mount -t tmpfs tmpfs {tmp_path} && exec "$@"'
    ray = Path(sys.executable).with_name("ray")
    start = [
        str(ray),
        "start",
        f"--address={nodes.address}",
        "--num-cpus=1",
        "--num-gpus=0",
        "--block",
    ]
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", hidden, "sh", *start],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as node:  # fmt: skip
        until(lambda: nodes.alive() == 3)
        sweep = launch(*TINY, "seed=0,1", *on(nodes))
        code, _, err = sweep.end()
        node.terminate()
    until(lambda: nodes.alive() == 2)
    assert code == 1
    assert re.search(
        rf"error: hydra/launcher=ray: node \S+ does not see {sweep.folder}; give the command in",
        err,
    )
    assert "Traceback" not in err
    assert not (sweep.folder / "0").exists()


@pytest.mark.slow
def test_ray_that_the_sweep_starts_ends_with_it(launch: Launch) -> None:
    need(importlib.util.find_spec("ray"), "Ray is not installed: pip install -e '.[ray]'")
    sweep = launch(*TINY, "seed=0,1", "hydra.launcher.num_gpus=8")
    code, _, err = sweep.end()
    assert code == 1
    assert re.search(
        r"error: hydra.launcher.num_cpus=1, num_gpus=8: no node has as many \(\d+ CPUs, \d+ GPUs\)",
        err,
    )
    shutil.rmtree(sweep.folder)
    sweep = launch(*TINY, "seed=0,1")
    code, _, err = sweep.end()
    assert code == 0, err
    until(lambda: not Path(f"/proc/{sweep.jobs()[0].process}").exists())
    assert verified(sweep.folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name
)
def test_a_signal_to_all_processes_leaves_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """As from a terminal that is closed: Ray must not be among them. It needs no home folder."""
    need(importlib.util.find_spec("ray"), "Ray is not installed: pip install -e '.[ray]'")
    monkeypatch.setenv("HOME", "/proc/none")
    words = [*LONG, "trainer.epochs=100000", "tracking=none", f"hydra.sweep.dir={tmp_path / 'out'}",
             f"store.dir={tmp_path / 'store'}", "trainer.checkpoint_every=1000"]  # fmt: skip
    command = [sys.executable, str(ROOT / "train.py"), "-m", "hydra/launcher=ray"]
    process = subprocess.Popen(
        last_given([*command, *words]), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    sweep = Sweep(tmp_path / "out", process)
    sweep.wait_for_rows(0)
    ray = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert ray
    assert process.pid not in {os.getpgid(int(child)) for child in ray}
    os.killpg(process.pid, number)
    code, _, err = sweep.end()
    assert code == 128 + number, err
    assert "the sweep has stopped; the same command goes on from there" in err
    assert sweep.result(0)["status"] == "interrupted"
    assert [*(tmp_path / "store").rglob("*.pt")]


@pytest.mark.slow
def test_a_cluster_with_a_token_takes_that_in_the_home_folder_with_its_mode(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray looks there by itself for `auto` alone."""
    need(importlib.util.find_spec("ray"), "Ray is not installed: pip install -e '.[ray]'")
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    folder = tempfile.mkdtemp(dir="/tmp", prefix="ray")  # short, for the paths of sockets
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("of-the-tests" * 4)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    ray = Path(sys.executable).with_name("ray")
    start = [str(ray), "start", "--head", "--block", f"--port={address.partition(':')[2]}", "--num-cpus=1",
             "--include-dashboard=false", f"--temp-dir={folder}", f"--object-store-memory={80 * 2**20}"]  # fmt: skip
    head = subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert head.stdout
        assert any("Ray runtime started" in line for line in head.stdout)
        lost, _, why = launch(*TINY, "seed=0,1", f"hydra.launcher.address={address}").end()
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        code, _, err = launch(*TINY, "seed=0,1", f"hydra.launcher.address={address}").end()
    finally:
        head.terminate()
        head.communicate()
        shutil.rmtree(folder, ignore_errors=True)
    assert lost == 1
    assert (
        "; a cluster with a token takes RAY_AUTH_MODE=token, and ~/.ray/auth_token of its head"
        in why
    )
    assert code == 0, err
    assert re.search(r"^Ray \S+:\d+: 1 node, 1 CPUs, 0 GPUs; ", err, re.M)
    ends = re.findall(r"^(\d/2) seed=\d: val/acc .* \(3 epochs trained, ", err, re.M)
    assert sorted(ends) == ["1/2", "2/2"]


@pytest.mark.slow
def test_no_cluster_there_is_one_line(launch: Launch) -> None:
    need(importlib.util.find_spec("ray"), "Ray is not installed: pip install -e '.[ray]'")
    code, _, err = launch(*TINY, "seed=0,1", "hydra.launcher.address=127.0.0.1:1").end()
    assert code == 1
    assert "Traceback" not in err
    assert (
        "error: hydra.launcher.address=127.0.0.1:1: no Ray answers there (" in err.splitlines()[-1]
    )
