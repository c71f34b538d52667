"""Tables and plans as charts: what is thinned keeps what is seen, and files are made one by one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import altair as alt
import numpy as np
import polars as pl
import pytest
import vl_convert

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


@pytest.mark.parametrize("width", [150, 720, 1200])
@pytest.mark.parametrize(
    ("begin", "end", "whole"), [(0, 1, True), (0, 2, True), (12, 15, True), (0, 5, True), (0, 9.5, True), (0, 12, True),
                                (0, 300, True), (0, 0.5, False), (2.25, 3, False)]
)  # fmt: skip
def test_epochs_are_whole_unless_the_run_is_shorter_than_one(
    width: int, begin: float, end: float, whole: bool
) -> None:
    rows = alt.InlineData(values=[{"epoch": begin}])
    chart = alt.Chart(rows).mark_point().encode(charts.epochs(begin, end)).properties(width=width)
    svg = vl_convert.vegalite_to_svg(chart.to_dict())
    labels = re.findall(r">([\d.,]+)</text>", svg)
    assert len(labels) >= 2
    assert all("." not in label for label in labels) == whole


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["a", "b"], ["a", "b"]),
        (["one two three", "one"], ["one two\nthree", "one"]),
        (["a word " * 9 + "b", "a word " * 9 + "c"], ["a word a\nword a… (1)", "a word a\nword a… (2)"]),
        (["x" * 12], ["xxxxxxxx\nxxxx"]),
    ],
)  # fmt: skip
def test_long_names_are_wrapped_and_stay_apart(names: list[str], shown: list[str]) -> None:
    assert charts.labels(names, 8) == shown


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["arm=a", "arm=b=1"], ["a", "b=1"]),
        (["lr=0.1", "lr=0.2"], ["lr=0.1", "lr=0.2"]),
        (["x=a", "x=0.2"], ["x=a", "x=0.2"]),
        (["x=a", "y=b"], ["x=a", "y=b"]),
        (["run", "other"], ["run", "other"]),
        (["run"], ["run"]),
    ],
)
def test_a_key_that_all_names_have_is_left_out_where_words_follow(
    names: list[str], shown: list[str]
) -> None:
    assert charts.without_key(names) == shown


@pytest.mark.parametrize(("panels", "columns"), [(5, 3), (7, 4), (8, 4), (9, 3), (30, 4), (3, 3)])
def test_the_rows_of_a_grid_are_of_like_length(panels: int, columns: int) -> None:
    assert charts.columns(panels, 4) == columns


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
    points = charts.evaluations(runs)
    assert points["run"].to_list() == [0, 0, 1, 1, 2]
    found = charts.means(points).sort("arm", "epoch").select("arm", "epoch", "seeds", "mean", "sd")
    assert found.rows() == [
        ("a", 1.0, 2, 52.0, pytest.approx(8**0.5)), ("a", 2.0, 2, 60.0, 0.0), ("b", 1.0, 1, 40.0, 0.0),
    ]  # fmt: skip


def test_a_run_without_a_whole_line_has_no_point(tmp_path: Path) -> None:
    runs = pl.DataFrame([history(tmp_path / "a0", [50.0])])
    (tmp_path / "a0/history.jsonl").write_text('{"step": 1, "epoch": 1.0, "val/a')
    assert charts.evaluations(runs).is_empty()


def test_no_runs_have_no_point() -> None:
    runs = pl.DataFrame(schema={"folder": pl.String, "arm": pl.String})
    assert charts.means(charts.evaluations(runs)).is_empty()
