"""What a study costs, said before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import make_config
from test_speeds import HERE

from harness.config.study import load
from harness.config.values import to_dict
from harness.sweeps.study_cost import study_cost

SMALL = (
    "seeds={wide: 4}", "cells.wide=[model.width=1]", "claim.tuning_seeds=2", "claim.until=null", "claim.grid=[0.1,0.2]",
    "sweeps.longer.seeds={wide: 3}",
)  # fmt: skip
UNKNOWN = "hours unknown: no run like those of wide is recorded on this device"


@pytest.fixture(autouse=True)
def _without_sweeps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def cost(folder: Path, *words: str) -> str:
    return study_cost(load(["study=quick", *SMALL, f"folder={folder / 'mine'}", *words]))


def test_runs_and_epochs_of_each_sweep(tmp_path: Path) -> None:
    said = cost(tmp_path).splitlines()
    assert [line.split() for line in said[3:]] == [
        ["wide", "claim", "tuning", "8", "80"],
        ["wide", "claim", "8", "80"],
        ["wide", "longer", "6", "120"],
        said[-1].split(),
    ]
    assert said[-1].startswith("at most 22 runs, 280 epochs, 250 to train since beginnings are")
    assert "more where a best value is at the edge of its grid" in said[-1]
    assert said[-1].endswith(UNKNOWN)
    assert not list(tmp_path.iterdir())


def test_runs_that_are_evaluated_more_often_share_nothing_with_others(tmp_path: Path) -> None:
    said = cost(tmp_path, "sweeps.longer.settings=[trainer.evals_per_epoch=2]")  # fmt: skip
    assert "22 runs, 280 epochs, more where" in said


def test_hours_come_from_the_median_run_of_the_same_work(tmp_path: Path) -> None:
    same = to_dict(make_config("dataset=digits", "model.width=1", "seed=7", "optimizer.lr=0.3"))
    wider = to_dict(make_config("dataset=digits", "model.width=2"))
    runs: list[dict[str, Any]] = [
        {"config": same, "updates_trained": 90, "seconds": {"fit": total}} for total in (60, 72, 900)
    ]  # fmt: skip
    runs += [{"config": same, "updates_trained": 0, "seconds": {"fit": 5}}]
    runs += [{"config": wider, "updates_trained": 90, "seconds": {"fit": 1e6}}]
    for number, run in enumerate(runs):
        path = tmp_path / f"other/claim/{number}/result.json"
        path.parent.mkdir(parents=True)
        shape = {"plan": {"updates_per_epoch": 9}, "status": "complete", "numerics": HERE}
        path.write_text(json.dumps(shape | run))
    (tmp_path / "other/claim/0/result.json").with_name("damaged").mkdir()
    (tmp_path / "other/claim/0/damaged/result.json").write_text("{")
    assert cost(tmp_path).endswith("about 0.5 hours, one run at a time")  # 250 epochs of 7.2 s
    more_often = "sweeps.longer.settings=[trainer.evals_per_epoch=2]"
    assert cost(tmp_path, more_often).endswith(UNKNOWN)


def test_arms_of_the_study_are_planned_before_they_are_written(tmp_path: Path) -> None:
    own = ("arms={a: [scheduler=wsd], b: [scheduler=linear]}", "claim.baseline=a", "claim.treatments=[b]")  # fmt: skip
    assert "at most 22 runs" in cost(tmp_path, *own)


def test_a_run_that_cannot_be_trained_is_an_error_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cost(tmp_path, "sweeps.longer.settings=[trainer.precision=fp17]")
    assert "trainer.precision=fp17: did you mean fp16?" in capsys.readouterr().err
