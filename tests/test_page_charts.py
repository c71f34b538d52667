"""The charts of the page: colours, thinning, restarts, what is enlarged."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from test_page import ABOUT, write_sweep

from harness.analysis import results
from harness.report import charts, page_charts
from harness.report import page as report


def test_arms_have_the_colours_in_turn_then_dashes(tmp_path: Path) -> None:
    colours = page_charts.COLOURS
    arms = [f"arm {at}" for at in range(len(colours) + 2)]
    text = report.render(write_sweep(tmp_path, arms, 1), None, ABOUT)
    keys = re.findall(r'data-arm="(\d+)".*?stroke="(.*?)".*?dasharray="(.*?)".*?</svg>(.*?)<', text)
    assert [(int(number), name) for number, _, _, name in keys] == list(enumerate(arms))
    assert [colour for _, colour, _, _ in keys] == [*colours, *colours[:2]]
    assert [dashes for _, _, dashes, _ in keys] == ["none"] * len(colours) + ["7 3"] * 2


def test_the_part_worth_enlarging_is_the_second_half(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path, ["a", "b"], 2)
    overview = page_charts.overview(runs, ["a", "b"])
    assert overview
    assert overview.notes == []
    assert overview.late["x"] == [10, 20]
    late = charts.means(charts.accuracies(runs)).filter(pl.col("epoch") >= 10)
    low, high = overview.late["y"]
    lowest, highest = late.select(pl.col("low").min(), pl.col("high").max()).row(0)
    room = 0.05 * (highest - lowest)
    assert (low, high) == pytest.approx((lowest - room, highest + room))


def test_restarts_of_many_arms_are_not_marked(tmp_path: Path) -> None:
    arms = [f"arm {at}" for at in range(13)]
    overview = page_charts.overview(write_sweep(tmp_path, arms, 1), arms)
    assert overview
    assert overview.notes == ["Restarts are not marked: there are too many."]


def test_the_lr_of_an_arm_is_that_of_its_first_run_that_has_one(tmp_path: Path) -> None:
    write_sweep(tmp_path, ["a"], 3, spoiled={0: "missing"})
    np.save(tmp_path / "2/lr.npy", np.full(160, 0.7))
    overview = page_charts.overview(results.read(tmp_path), ["a"])
    assert overview
    _, panel = overview.chart["vconcat"]
    (axis,) = {json.dumps(layer["encoding"]["y"]["scale"]["domain"]) for layer in panel["layer"]
               if "y" in layer["encoding"]}  # fmt: skip
    assert json.loads(axis) == [0, 0.1]


def test_too_many_runs_are_drawn_as_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_charts, "MOST_RUNS", 3)
    runs = write_sweep(tmp_path, ["a", "b"], 2)
    overview = page_charts.overview(runs, ["a", "b"])
    assert overview
    assert not overview.singles
    assert overview.notes == ["Single runs are drawn if they are 3 at most; here are 4."]


def test_thinning_keeps_every_curves_extremes() -> None:
    epochs = np.arange(30_000)
    acc = np.where(epochs == 12_345, 1.0, 50.0 + epochs % 7)
    points = pl.DataFrame({"arm": np.repeat([0, 1], 30_000), "epoch": np.tile(epochs, 2),
                           "mean": np.concatenate([acc, acc])})  # fmt: skip
    few = page_charts._thinned(points, "arm", "mean")
    assert len(few) <= 40_000
    for _, curve in few.group_by("arm"):
        assert curve["mean"].min() == 1.0
        assert curve["epoch"].is_sorted()
