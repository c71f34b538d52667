"""What charts of curves have in common: which LR an arm shows, thinning, labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from test_page import write_sweep
from test_page_charts import domains, drawn

from harness.analysis import results
from harness.report import curves


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ([1.0, 5.0], [1.0, 5.0]),
        ([5.0, 5.0, 4.9], [5.9, 6.9, 4.9]),
        ([9.9, 10.0], [9.0, 10.0]),
        ([10.0] * 4, [7.0, 8.0, 9.0, 10.0]),
        ([-3.0, 30.0], [0.0, 10.0]),
        ([], []),
    ],
)
def test_labels_stand_apart_in_the_order_of_their_lines(
    values: list[float], places: list[float]
) -> None:
    assert curves.spread(values, 1.0, 0.0, 10.0) == pytest.approx(places)


def test_the_lr_of_an_arm_is_that_of_its_first_run_that_has_one(tmp_path: Path) -> None:
    write_sweep(tmp_path, ["a"], 3, spoiled={0: "missing"})
    np.save(tmp_path / "2/lr.npy", np.full(160, 0.7))
    _, panel = drawn(results.read(tmp_path)).chart["vconcat"]
    assert domains(panel, "y") == {"[0, 0.1]"}


def test_thinning_keeps_every_curves_extremes() -> None:
    epochs = np.arange(30_000)
    acc = np.where(epochs == 12_345, 1.0, 50.0 + epochs % 7)
    points = pl.DataFrame({"arm": np.repeat([0, 1], 30_000), "epoch": np.tile(epochs, 2),
                           "mean": np.concatenate([acc, acc])})  # fmt: skip
    few = curves.thinned(points, "arm", "mean", 20_000)
    assert len(few) <= 40_004
    for _, curve in few.group_by("arm"):
        assert curve["mean"].min() == 1.0
        assert curve["epoch"].is_sorted()
