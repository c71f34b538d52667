"""The charts of a verdict: intervals, pairs, and what they leave room for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_page import make_verdict, write_sweep

from harness.report import verdict_charts


def rows_of(chart: Any, field: str) -> list[dict[str, Any]]:
    """The rows with `field` that a chart draws, wherever they are in it."""
    match chart:
        case dict():
            own = [chart] if field in chart else []
            return own + [row for value in chart.values() for row in rows_of(value, field)]
        case list():
            return [row for value in chart for row in rows_of(value, field)]
    return []


def test_an_interval_is_drawn_from_low_to_high_and_each_pair_is_seen(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path, ["a", "b"], 4)
    verdict = make_verdict(runs)
    for pair in verdict["comparisons"][0]["pairs"][:3]:
        pair["difference"] = 0.25
    drawn = verdict_charts.differences(verdict, dots=True)
    (interval, *same) = rows_of(drawn, "low")
    assert (interval["low"], interval["mean"], interval["high"]) == (0.1, 0.31, 0.52)
    assert all(one == interval for one in same)
    dots = [row for row in rows_of(drawn, "difference") if "seed" in row]
    assert [dot["difference"] for dot in dots] == [0.25, 0.25, 0.25, pytest.approx(0.3)]
    assert len({(dot["difference"], dot["row"]) for dot in dots}) == 4
    assert rows_of(verdict_charts.differences(verdict, dots=False), "seed") == []
