"""The charts of a sweep as PNG files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_looks import CLAIM, OPEN
from test_summary import complete, made
from test_verdict import judged, rows

from harness.analysis import results
from harness.config.one_line_errors import Attempts
from harness.report.pictures import write_pictures


def pictures(sweep: Path, verdict: dict[str, Any] | None = None) -> list[str]:
    """The names of the files that were written."""
    steps = Attempts()
    paths = write_pictures(sweep, results.read(sweep), verdict, steps)
    assert steps.failures == []
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert sorted(paths) == sorted(sweep.glob("*.png"))
    return [path.name for path in paths]


def test_a_sweep_has_a_picture_of_its_lrs_and_one_of_its_accuracies(tmp_path: Path) -> None:
    sweep = made(tmp_path / "sweep", {"1": complete(90, 91), "2": complete(91, 93)}, None)
    assert pictures(sweep) == ["lr.png", "val_acc.png"]


def test_without_an_evaluation_there_is_no_picture_of_accuracies(tmp_path: Path) -> None:
    sweep = made(tmp_path / "sweep", {"1": complete(90)}, None)
    row = {"step": 1, "epoch": 1.0, "lr": 0.1}
    (sweep / "0/history.jsonl").write_text(f"{json.dumps(row)}\n")
    assert pictures(sweep) == ["lr.png"]


def test_without_a_run_that_has_begun_there_is_no_picture(tmp_path: Path) -> None:
    assert pictures(made(tmp_path / "sweep", {"1": [("missing", 0)]}, None)) == []


@pytest.mark.slow
def test_the_path_of_a_claim_with_looks_is_a_picture(tmp_path: Path) -> None:
    sweep = made(tmp_path / "sweep", {"1": complete(90, 91), "2": complete(91, 93)}, None)
    none = judged(rows(OPEN[:3]), CLAIM)
    assert pictures(sweep, none) == ["lr.png", "val_acc.png", "verdict.png"]
    some = judged(rows(OPEN[:8]), CLAIM)
    assert pictures(sweep, some) == ["lr.png", "val_acc.png", "verdict.png", "looks.png"]
    assert pictures(sweep) == ["lr.png", "val_acc.png"], "those of an earlier verdict are gone"
