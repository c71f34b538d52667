"""How long a sweep takes, said before it is trained: from recorded runs, or measured."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_config

from harness.config.values import to_dict
from harness.sweeps.prefix_tree import PlannedRun, prefix_trees
from harness.sweeps.speeds import measure_epoch, recorded_speeds, time_to_train
from harness.training import device, schedules
from harness.training.loop import Precision

TINY = (
    "dataset=synthetic", "dataset.images=200", "dataset.classes=4", "dataset.image_size=4",
    "trainer.batch_size=16", "scheduler.t_0=5", "trainer.epochs=15",
)  # fmt: skip

CPU = torch.device("cpu")
HERE = device.numerics(make_config(*TINY), CPU, Precision("fp32", CPU))


def planned(*words: str) -> PlannedRun:
    config = make_config(*TINY, *words)
    return PlannedRun(", ".join(words), "", config, schedules.lr_plan(config, 8))


def record(folder: Path, seconds: float, *words: str, **changes: Any) -> None:
    folder.mkdir(parents=True)
    document = {
        "status": "complete", "updates_trained": 120, "plan": {"updates_per_epoch": 8},
        "seconds": {"fit": seconds}, "config": to_dict(make_config(*TINY, *words)), "numerics": HERE,
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(document | changes))


@pytest.mark.parametrize(
    ("arms", "seeds", "said"),
    [
        # 15 epochs of 2 s each; what t_mult=2 shares, 5 epochs and an update, counts once
        ([("scheduler.t_mult=1",)], 1, "30 seconds"),
        ([("scheduler.t_mult=1",), ("scheduler.t_mult=2",)], 1, "50 seconds"),
        ([("scheduler.t_mult=1", "reuse=false"), ("scheduler.t_mult=2", "reuse=false")], 1, "60 seconds"),
        ([("scheduler.t_mult=1",)], 10, "5 minutes"),
        ([("scheduler.t_mult=1",)], 480, "4 hours"),
    ],
)  # fmt: skip
def test_the_time_is_that_of_recorded_runs_of_the_same_work(
    tmp_path: Path, arms: list[tuple[str, ...]], seeds: int, said: str
) -> None:
    for number, seconds in enumerate((30, 24, 600)):
        record(
            tmp_path / f"sweeps/2026/{number}", seconds, "model.width=1", "seed=7", "optimizer.lr=1"
        )
    record(tmp_path / "sweeps/2026/3", 1e6, "model.width=2")
    record(tmp_path / "sweeps/2026/4", 1e6, "model.width=1", status="failed")
    record(tmp_path / "sweeps/2026/5", 1e6, "model.width=1", plan={"updates_per_epoch": 0})
    record(tmp_path / "sweeps/2026/6", 1e6, "model.width=1", "trainer.evals_per_epoch=2")
    other = {"device": "NVIDIA H100", "precision": "bf16", "processes": 2, "compile": "default"}
    for name, value in other.items():
        folder = tmp_path / f"sweeps/2026/{name}"
        record(folder, 1e6, "model.width=1", numerics=HERE | {name: value})
    (tmp_path / "sweeps/2026/4/damaged").mkdir()
    (tmp_path / "sweeps/2026/4/damaged/result.json").write_text("{")
    speeds = recorded_speeds(tmp_path / "sweeps", tmp_path / "nowhere")
    first = [planned("model.width=1", *words) for words in arms]
    runs = [replace(run, config=replace(run.config, seed=n)) for run in first for n in range(seeds)]
    roots = prefix_trees(runs)
    line = time_to_train(roots, speeds, measure=True)
    assert line == f"time: about {said}, one run at a time (from 3 recorded runs)"


def test_without_a_run_it_is_unknown_or_measured() -> None:
    roots = prefix_trees([planned("model.width=1"), planned("model.width=2")])
    assert time_to_train(roots, {}, measure=False) == (
        "time: unknown, no run of 2 of 2 combinations of model, data set, batch size, evaluations and precision on "
        "this device is recorded; with --time a few updates are measured"
    )
    assert "no run of this model, data set" in time_to_train(roots[:1], {}, False)
    line = time_to_train(roots, {}, measure=True)
    number = r"[\d.e-]+ s an epoch"
    measured = rf"\(from a few updates, measured now: {number}, {number}\)"
    assert re.fullmatch(rf"time: about \d+ seconds, one run at a time {measured}", line)


def test_a_plan_for_a_gpu_that_is_not_here_takes_no_speed_from_runs_here(tmp_path: Path) -> None:
    record(tmp_path / "sweeps/1", 30, "model.width=1")
    roots = prefix_trees([planned("model.width=1", "trainer.device=cuda:99")])
    speeds = recorded_speeds(tmp_path / "sweeps")
    assert speeds
    assert time_to_train(roots, speeds, measure=False).startswith("time: unknown")


@pytest.mark.parametrize("epochs", [0.125, 15])  # one update; more than the measure's 3 seconds
def test_a_measurement_stores_nothing(tmp_path: Path, epochs: float) -> None:
    config = make_config(
        *TINY, "scheduler.t_0=0.125", f"trainer.epochs={epochs}", f"store.dir={tmp_path}/store", "model.width=1",
    )  # fmt: skip
    assert 0 < measure_epoch(config) < 60
    assert not list(tmp_path.iterdir())
