"""Tables and plans as charts: what is thinned keeps what is seen, and files are made one by one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from harness.report import charts


def test_thinning_keeps_ends_peaks_and_troughs() -> None:
    values = np.full(100_000, 0.5)
    values[[12_345, 70_001]] = 1.0, 0.0
    kept = charts.thin(values, 400)
    assert len(kept) <= 402
    assert {0, 12_345, 70_001, 99_999} <= set(kept.tolist())
    assert (np.diff(kept) > 0).all()
    assert charts.thin(values[:400], 400).tolist() == list(range(400))


@pytest.mark.parametrize(
    ("cycles", "restarts"), [([4, 8], [1.0]), ([2, 2, 2], [0.5, 1.0]), ([10], [])]
)
def test_an_lr_curve_has_its_restarts_and_lasts_to_the_end(
    cycles: list[int], restarts: list[float]
) -> None:
    plan = np.concatenate([np.linspace(0.1, 0.01, length) for length in cycles])
    curve = charts.lr_curve("arm", plan, updates_per_epoch=4)
    assert curve.filter("restart")["epoch"].to_list() == restarts
    assert curve["lr"].to_list() == [*plan, plan[-1]]
    assert curve["epoch"][-1] == len(plan) / 4
    assert set(curve["arm"]) == {"arm"}


def history(folder: Path, accuracies: list[float]) -> dict[str, object]:
    folder.mkdir()
    rows = [{"step": n, "epoch": float(n), "val/acc": acc} for n, acc in enumerate(accuracies, 1)]
    (folder / "history.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return {"folder": str(folder), "arm": folder.name[0]}


def test_accuracies_are_averaged_by_arm_and_epoch(tmp_path: Path) -> None:
    runs = pl.DataFrame([
        history(tmp_path / "a0", [50.0, 60.0]), history(tmp_path / "a1", [54.0, 60.0]),
        history(tmp_path / "b0", [40.0]),
    ])  # fmt: skip
    points = charts.accuracies(runs)
    assert points["run"].to_list() == [0, 0, 1, 1, 2]
    found = charts.means(points).sort("arm", "epoch").select("arm", "epoch", "seeds", "mean", "sd")
    assert found.rows() == [
        ("a", 1.0, 2, 52.0, pytest.approx(8**0.5)), ("a", 2.0, 2, 60.0, 0.0), ("b", 1.0, 1, 40.0, 0.0),
    ]  # fmt: skip


def test_a_run_without_a_whole_line_has_no_point(tmp_path: Path) -> None:
    runs = pl.DataFrame([history(tmp_path / "a0", [50.0])])
    (tmp_path / "a0/history.jsonl").write_text('{"step": 1, "epoch": 1.0, "val/a')
    assert charts.accuracies(runs).is_empty()


def test_no_runs_have_no_point() -> None:
    runs = pl.DataFrame(schema={"folder": pl.String, "arm": pl.String})
    assert charts.means(charts.accuracies(runs)).is_empty()
