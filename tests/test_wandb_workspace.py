"""The workspace of a sweep: what is sent to W&B, read from `--json`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

import forked
import pytest
from conftest import ROOT, need

SCRIPT = ROOT / "scripts/wandb_workspace.py"

# Python tells its audit hooks of every connection, look-up and child process; none can be undone.
ALONE = """
import os, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen",
                 "os.posix_spawn", "os.exec", "os.fork"):
        os.write(2, f"refused: {event} {arguments}\\n".encode())
        os._exit(97)
sys.addaudithook(refuse)
"""
HOSTILE = '<b>t_mult</b>|a=1 & [x](http://y) *`$1$`* "q"\'s \\ ~~<2'


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms of two seeds on the digits, tracked offline."""
    folder = tmp_path_factory.mktemp("workspace")
    made = folder / "t_mult=1,2"
    done = forked.complete(
        "train.py", "-m", "scheduler=cosine_warm", "scheduler.t_mult=1,2", "seed=0,1",
        "scheduler.t_0=1", "trainer.epochs=3", "model.width=4", "tracking.mode=offline",
        f"store.dir={folder / 'store'}", f"hydra.sweep.dir='{made}'",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return made


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python, without a key for W&B."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    home = {"HOME": "/nonexistent", "NETRC": "/nonexistent/netrc"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        env=kept | home | environment,
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PYTHONPATH under which Python exits with 97 before it opens a connection."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "sitecustomize.py").write_text(ALONE)
    return f"{folder}{os.pathsep}{ROOT}"


@pytest.fixture(scope="module")
def written(sweep: Path, tmp_path_factory: pytest.TempPathFactory, alone: str) -> dict[str, Any]:
    return write(sweep, tmp_path_factory.mktemp("written") / "both.json", alone)


def write(folder: Path, file: Path, alone: str, *arguments: str) -> dict[str, Any]:
    """What --json writes of a sweep, by a process that can reach nobody."""
    has_library()
    done = run(SCRIPT, folder, "--json", file, *arguments, PYTHONPATH=alone)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{file}\n")
    document: dict[str, Any]
    (document,) = json.loads(file.read_text())
    return document


def has_library() -> None:
    need(find_spec("wandb_workspaces"), "pip install -e '.[dashboards]'")


def runset(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["workspace"]["spec"]["section"]["runSets"][0]
    return found


def sections(document: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The panels of each section of the workspace."""
    bank = document["workspace"]["spec"]["section"]["panelBankConfig"]
    return [section["panels"] for section in bank["sections"]]


def copy(sweep: Path, folder: Path) -> Path:
    shutil.copytree(sweep, folder)
    for path in folder.glob("*/result.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"group": folder.name}))
    return folder


def keep_one_swept(folder: Path, key: str, values: tuple[str, str]) -> None:
    """Rewrite the plan as if `key` had been swept instead of the factor."""
    plan = json.loads((folder / "plan.json").read_text())
    for number, arm in enumerate(plan["arms"]):
        arm["swept"] = {key: values[number // 2], "seed": arm["swept"]["seed"]}
    plan["claim"]["factor"] = key
    (folder / "plan.json").write_text(json.dumps(plan))


# --- what is drawn -------------------------------------------------------------------------------


def test_curves_are_means_and_deviations_of_the_arms_by_epoch(written: dict[str, Any]) -> None:
    curves = [panel["config"] for panel in sections(written)[0]]
    assert [curve["metrics"] for curve in curves] == [["lr"], ["val/acc"]]
    for curve in curves:
        assert curve["xAxis"] == "epoch"
        assert curve["groupBy"] == "scheduler.value.t_mult"
        assert (curve["aggregate"], curve["groupAgg"], curve["groupArea"]) == (
            True, "mean", "stddev",
        )  # fmt: skip
        assert curve["limit"] == 4, "no run is left out of its mean"
    assert runset(written)["grouping"] == [{"section": "config", "name": "scheduler.value.t_mult"}]


def test_final_accuracy_is_the_last_and_stands_against_the_factor(written: dict[str, Any]) -> None:
    bars, dots = (panel["config"] for panel in sections(written)[1])
    assert (bars["metrics"], bars["groupBy"]) == (["val/acc.last"], "scheduler.value.t_mult")
    assert (bars["groupAgg"], bars["groupArea"]) == ("mean", "stddev")
    assert (dots["xAxis"], dots["yAxis"]) == (
        "config:scheduler.value.t_mult", "summary:val/acc.last",
    )  # fmt: skip
    (parallel,) = (panel["config"] for panel in sections(written)[2])
    assert [column["accessor"] for column in parallel["columns"]] == [dots["xAxis"], dots["yAxis"]]


def test_averages_that_are_judged_have_curves_and_bars(
    sweep: Path, alone: str, tmp_path: Path
) -> None:
    folder = copy(sweep, tmp_path / "averages")
    plan = json.loads((folder / "plan.json").read_text())
    plan["claim"]["factor"] = "average"
    (folder / "plan.json").write_text(json.dumps(plan))
    for path in folder.glob("*/result.json"):
        result = json.loads(path.read_text())
        result["config"]["averages"] |= {"ema": [0.99], "tail": [0.5]}
        path.write_text(json.dumps(result))
    document = write(folder, tmp_path / "averages.json", alone)
    beside = ["val/acc@ema:0.99", "val/acc@tail:0.5"]
    assert [panel["config"]["metrics"] for panel in sections(document)[0]] == [
        ["lr"], ["val/acc", *beside],
    ]  # fmt: skip
    assert sections(document)[1][0]["config"]["metrics"] == ["val/acc.last", *beside]


def test_what_is_drawn_is_in_the_runs_on_wandb(sweep: Path, written: dict[str, Any]) -> None:
    (log,) = (sweep / "3").glob("wandb/offline-run-*/*.wandb")
    wandb = Path(sys.executable).parent / "wandb"
    printed = subprocess.run(
        [wandb, "leet", "inspect", "--json", log], capture_output=True, text=True, check=True
    )
    records = [json.loads(line) for line in printed.stdout.splitlines()]
    (begun,) = [record["run"] for record in records if record["type"] == "run"]
    logged: set[str] = set()
    summary: dict[str, Any] = {}
    for record in records:
        if record["type"] == "history":
            logged |= record["history"]["item"].keys()
        if record["type"] == "summary":
            summary |= record["summary"]["update"]
    assert {"epoch", "lr", "val/acc"} <= logged
    assert summary["val/acc"]["last"] > 0
    filters = runset(written)["filters"]["filters"]
    groups = {one["key"]["name"]: one["value"] for one in filters}
    assert begun["run_group"] == groups["group"]
    assert begun["job_type"] == "t_mult=2" != groups["jobType"]
    reported = json.loads((sweep / "3/result.json").read_text())["config"]
    assert reported["scheduler"]["t_mult"] == 2, "scheduler.value.t_mult on the server"


def test_only_the_runs_of_the_sweep_are_shown(written: dict[str, Any]) -> None:
    wanted = [
        {"key": {"section": "run", "name": "group"}, "op": "=", "value": "t_mult=1,2",
         "disabled": False},
        {"key": {"section": "run", "name": "jobType"}, "op": "!=", "value": "summary",
         "disabled": False, "connector": "AND"},
    ]  # fmt: skip
    shown = runset(written)
    assert shown["filters"] == {"filterFormat": "filterV2", "filters": wanted}
    assert "project" not in shown, "naming a project would ask the server"


def test_panels_do_not_overlap(written: dict[str, Any]) -> None:
    for panels in sections(written):
        cells = [
            {(x, y) for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])}
            for p in (panel["layout"] for panel in panels)
        ]
        assert all(cells)
        assert all(0 <= x < 24 for cell in cells for x, _ in cell)
        assert not any(one & other for one, other in combinations(cells, 2))


@pytest.mark.slow
def test_arms_that_are_no_single_value_are_told_by_the_job_type(
    sweep: Path, tmp_path: Path, alone: str
) -> None:
    folder = copy(sweep, tmp_path / "arms")
    keep_one_swept(folder, "scheduler", ("step", "cosine"))
    reported = write(folder, tmp_path / "both.json", alone)
    curves, final, (parallel,) = sections(reported)
    assert {panel["config"]["groupBy"] for panel in [*curves, *final]} == {"jobType"}
    assert runset(reported)["grouping"] == [{"section": "run", "name": "jobType"}]
    assert len(final) == 1, "no number to draw the accuracy against"
    assert parallel["config"]["columns"][0] == {"accessor": "run:jobType"}


@pytest.mark.slow
def test_several_swept_keys_make_groups_of_all(sweep: Path, tmp_path: Path, alone: str) -> None:
    folder = copy(sweep, tmp_path / "several")
    plan = json.loads((folder / "plan.json").read_text())
    for arm in plan["arms"]:
        arm["swept"] = {"optimizer.kind": "sgd", **arm["swept"]}
    (folder / "plan.json").write_text(json.dumps(plan))
    reported = write(folder, tmp_path / "both.json", alone)
    names = ["optimizer.value.kind", "scheduler.value.t_mult"]
    assert [key["name"] for key in runset(reported)["grouping"]] == names
    (_, dots), (parallel,) = sections(reported)[1:]
    assert dots["config"]["xAxis"] == "config:scheduler.value.t_mult", "the claim's factor"
    accessors = [column["accessor"] for column in parallel["config"]["columns"]]
    assert accessors == [*(f"config:{name}" for name in names), "summary:val/acc.last"]


# --- names -----------------------------------------------------------------------------------------


def test_hostile_names_stay_text(sweep: Path, tmp_path: Path, alone: str) -> None:
    name = HOSTILE.replace("/", "")
    document = write(copy(sweep, tmp_path / name), tmp_path / "workspace.json", alone)
    assert runset(document)["filters"]["filters"][0]["value"] == name, "the group as it is"


@pytest.mark.slow
def test_a_name_that_was_given_is_the_workspaces(sweep: Path, tmp_path: Path, alone: str) -> None:
    document = write(sweep, tmp_path / "workspace.json", alone, "--name", "cycles = " + "x" * 200)
    assert document["workspace"]["name"] == "cycles - " + "x" * 200, "the library refuses = there"
    assert runset(document)["filters"]["filters"][0]["value"] == "t_mult=1,2", (
        "its runs all the same"
    )


# --- the command line ----------------------------------------------------------------------------


def test_a_connection_would_have_been_noticed(alone: str) -> None:
    ask = "import socket; socket.create_connection(('127.0.0.1', 9))"
    assert run("-c", ask, PYTHONPATH=alone).returncode == 97


@pytest.mark.slow
def test_several_sweeps_are_written_one_by_one(sweep: Path, tmp_path: Path) -> None:
    has_library()
    other, file = copy(sweep, tmp_path / "other"), tmp_path / "all.json"
    assert run(SCRIPT, sweep, other, "--json", file).returncode == 0
    assert [one["workspace"]["name"] for one in json.loads(file.read_text())] == [
        "t_mult-1,2", "other",
    ]  # fmt: skip
    done = run(SCRIPT, sweep, other, "--json", file, "--name", "both")
    assert "error: --name: of several sweeps each is named after its folder" in done.stderr


def test_mistakes_end_in_one_line(sweep: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert mistake(empty) == f"{empty}: is not the folder of a sweep: it has no plan.json"
    shutil.copy(sweep / "plan.json", empty)
    assert mistake(empty) == f"{empty}: has no run with a result"
    has_library()
    assert mistake(sweep) == "W&B: No API key configured. Use `wandb login` to log in."
    untracked = copy(sweep, tmp_path / "untracked")
    for path in untracked.glob("*/result.json"):
        result = json.loads(path.read_text())
        result["config"]["tracking"] = {"kind": "none"}
        path.write_text(json.dumps(result))
    reported = f"{untracked}: its runs were not tracked; --project says where to"
    assert mistake(untracked) == reported


def mistake(folder: Path, **environment: str) -> str:
    done = run(SCRIPT, folder, **environment)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line.removeprefix("error: ")


def test_without_the_library_it_says_how_to_get_it(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys; sys.modules['wandb_workspaces.workspaces'] = None\n"
        "sys.modules['wandb_workspaces'] = None"
    )
    reported = "wandb-workspaces is not installed: pip install -e '.[dashboards]'"
    assert mistake(sweep, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}") == reported


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit: print(*sorted({'wandb', 'torch', 'polars'} & set(sys.modules)), 'end')"
    )
    assert run("-c", code).stdout.splitlines()[-1] == "end"
