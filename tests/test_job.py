"""A job: found in the plan by its configuration, whatever Hydra calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
from conftest import ROOT, Main
from test_sweep_plan import S, Trained, sweep, verify  # noqa: F401


@pytest.mark.parametrize(
    ("swept", "key", "levels"),
    [
        pytest.param(
            "optimizer.lr=shuffle(0.1,1e-9)", "optimizer.lr", [0.1, 1e-9], id="two values"
        ),
        pytest.param(
            "seed=shuffle(range(0,5))",
            "seed",
            [0, 1, 2, 3, 4],
            id="a range",
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.slow
def test_shuffled_sweeps_have_their_own_names(
    sweep: Callable[..., Trained], swept: str, key: str, levels: list[float]
) -> None:
    trained = sweep(swept)
    assert trained.done.returncode == 0, trained.done.stderr
    assert trained.values(key) == levels, "the plan's order is that of the command"
    for result, level in zip(trained.results(), levels, strict=True):
        assert float(result["swept"][key]) == level
        assert float(result["name"].partition("=")[2]) == level
    again = sweep(swept)
    assert again.done.returncode == 0, again.done.stderr
    assert again.done.stderr.count("is complete") == len(levels)
    assert verify(trained.folder).returncode == 0


@pytest.mark.slow
def test_values_that_change_with_time_are_those_of_the_plan(sweep: Callable[..., Trained]) -> None:
    for _ in range(2):
        trained = sweep("seed=${now:%S%f}", "scheduler.t_mult=1,2")
        assert trained.done.returncode == 0, trained.done.stderr
        first, second = trained.values("seed")
        assert first == second, "the arms of one sweep are paired"
        assert [run["seed"] for run in trained.plan["arms"]] == [first, second]
    assert trained.done.stderr.count("is complete") == 2
    assert verify(trained.folder).returncode == 0


EDITING = """
import sys
from harness.runs import run
before = run.run
def edited(*arguments, **named):
    result = before(*arguments, **named)
    path = {path!r}
    text = open(path).read().replace("lr: 0.1", "lr: 0.0001")
    open(path, "w").write(text)
    return result
run.run = edited
sys.argv = ["train.py", *{words!r}]
import runpy
runpy.run_path({train!r}, run_name="__main__")
"""


@pytest.mark.slow
def test_a_file_that_is_edited_while_a_sweep_runs_trains_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "more/optimizer").mkdir(parents=True)
    edited = tmp_path / "more/optimizer/mine.yaml"
    edited.write_text("defaults:\n  - sgd\n  - _self_\nlr: 0.1\n")
    words = ["--config-dir", str(tmp_path / "more"), "-m", *S, "optimizer=mine", "scheduler.t_mult=1,2",
             f"hydra.sweep.dir={tmp_path / 'sweep'}", f"store.dir={tmp_path / 'store'}"]  # fmt: skip
    code = EDITING.format(path=str(edited), words=words, train=str(ROOT / "train.py"))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: optimizer.lr=0.0001 (was 0.1): is not what " in done.stderr
    assert "Traceback" not in done.stderr
    trained = Trained(tmp_path / "sweep", done)
    statuses = [
        (tmp_path / "sweep" / run["folder"] / "result.json").exists()
        for run in trained.plan["arms"]
    ]
    assert statuses == [True, False], "the second was refused"
    assert not list((tmp_path / "store").rglob("*.outcome")), "and nothing of it is remembered"

    edited.write_text("defaults:\n  - sgd\n  - _self_\nlr: 0.1\n")
    again = forked.complete("train.py", *words)
    assert again.returncode == 0, again.stderr
    assert trained.values("optimizer.lr") == [0.1, 0.1]
    assert verify(trained.folder).returncode == 0

    shown = forked.complete(ROOT / "scripts/preview.py", *words, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "t_mult=2" in shown.stdout


@pytest.mark.parametrize(
    ("subdir", "seeds"),
    [(".hydra", "0,1,2"), (".hydra", "shuffle(0,1,2)"), (".", "shuffle(0,1,2)")],
)
def test_hydras_files_stay_with_the_run_that_they_are_about(
    main: Main, tmp_path: Path, subdir: str, seeds: str
) -> None:
    """Also where the sweep's folder is given with `..`, or is the place of these files itself."""
    sweep = tmp_path / "sweep"
    where = (f"hydra.sweep.dir={os.path.relpath(sweep, ROOT)}", f"store.dir={tmp_path / 'store'}")
    done = main("-m", *S, *where, f"hydra.output_subdir={subdir}", f"seed={seeds}")
    assert done.returncode == 0, done.stderr
    for number in range(3):
        run = sweep / str(number)
        assert json.loads((run / "result.json").read_text())["status"] == "complete"
        assert (run / "history.jsonl").exists()
        overrides = run / subdir / "overrides.yaml"
        assert overrides.exists() or "shuffle" in seeds
        assert not overrides.exists() or f"seed={number}" in overrides.read_text()


def test_the_heavy_imports_are_taken_from_the_garbage_collection_once_which_goes_on() -> None:
    code = (
        "import gc; from harness.runs.job import _load, import_once; import_once(_load);"
        "frozen = gc.get_freeze_count(); import_once(_load);"
        "print(gc.isenabled(), frozen > 100_000, gc.get_freeze_count() == frozen)"
    )
    reported = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert reported.stdout == "True True True\n"
