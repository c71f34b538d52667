"""The charts of a verdict: intervals, pairs, and what they leave room for."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import vl_convert
from test_looks import CLAIM, GAIN, HOPELESS, OPEN, TWO, arm
from test_page import make_verdict, write_sweep
from test_scale import losses, negated
from test_verdict import around, judged, lost, rows

from harness.analysis.verdict import Claim
from harness.report import page, verdict_charts


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
    drawn = verdict_charts.forest(verdict)
    (interval, *same) = rows_of(drawn, "low")
    assert (interval["low"], interval["mean"], interval["high"]) == (0.1, 0.31, 0.52)
    assert all(one == interval for one in same)
    dots = [row for row in rows_of(drawn, "difference") if "seed" in row]
    assert [dot["difference"] for dot in dots] == [0.25, 0.25, 0.25, pytest.approx(0.3)]
    assert len({(dot["difference"], dot["row"]) for dot in dots}) == 4


def comparison(treatment: str, cell: str = "", baseline: str = "a") -> dict[str, Any]:
    return {"treatment": treatment, "baseline": baseline, "cell": cell, "mean": 0.1, "verdict": ""}


@pytest.mark.parametrize(
    ("comparisons", "heading", "labels"),
    [
        ([comparison("b")], "arm=b against a", [""]),
        ([comparison("b"), comparison("c")], "arm against a", ["b", "c"]),
        ([comparison("b", "one"), comparison("b", "two")], "arm=b against a", ["one", "two"]),
        (
            [comparison("b", "one"), comparison("c", "two", "d")],
            "arm", ["b against a at one", "c against d at two"],
        ),
        (
            [comparison("b"), comparison("word " * 40)],
            "arm against a", ["b", "word word word\n" * 2 + "word word word…"],
        ),
    ],
    ids=["one", "treatments", "cells", "all differ", "a long one"],
)  # fmt: skip
def test_rows_are_named_by_what_sets_them_apart(
    comparisons: list[dict[str, Any]], heading: str, labels: list[str]
) -> None:
    assert verdict_charts.row_labels(comparisons, "arm") == (heading, labels)


@pytest.mark.parametrize("width", [200, 720, 1100])
@pytest.mark.parametrize("scale", [0.0, 0.03, 0.7, 4.0, 95.0])
def test_zero_is_always_named_among_at_most_eight_ticks(width: int, scale: float) -> None:
    one = comparison("b") | {"mean": 0.9 * scale, "ci95": [0.8 * scale, scale]}
    chart = verdict_charts.forest(
        {"claim": {"factor": "arm", "margin": 0.2}, "comparisons": [one]}
    )  # fmt: skip
    svg = vl_convert.vegalite_to_svg(chart | {"width": width})
    labels = re.findall(
        r">([^<]+)</text>", svg.partition("role-axis-label")[2].partition("</g>")[0]
    )
    assert "0" in labels
    assert 2 <= len(labels) <= 8


def drawn_paths(verdict: dict[str, Any]) -> list[Any]:
    """The panels of the chart of looks, each with its own data."""
    chart = verdict_charts.paths(verdict)
    assert chart
    datasets = chart["datasets"]

    def with_data(node: dict[str, Any]) -> dict[str, Any]:
        return {"values": datasets[node["name"]]} if {*node} == {"name"} else node

    panels: list[Any] = json.loads(json.dumps(chart["vconcat"]), object_hook=with_data)
    return panels


def texts(panel: Any) -> list[str]:
    return [row["text"] for row in rows_of(panel, "text") if isinstance(row["text"], str)]


def test_a_comparison_with_looks_is_a_panel_with_an_interval_a_look() -> None:
    verdict = judged([*rows(OPEN), *arm("3", GAIN)], TWO)
    first, second = drawn_paths(verdict)
    path = verdict["comparisons"][0]["path"]
    looks = [row for row in rows_of(first, "low") if "verdict" in row]
    assert {look["pairs"]: (look["low"], look["high"]) for look in looks} == {
        one["pairs"]: (one["low"], one["high"]) for one in path
    }
    assert texts(first) == ["t_mult=2 against 1", "all 13 pairs: inconclusive"]
    assert texts(second) == ["t_mult=3 against 1", "decided with 6 pairs: supported"]


def test_means_that_decide_are_drawn_for_all_looks_also_those_to_come() -> None:
    verdict = judged(rows(HOPELESS), CLAIM)
    (panel,) = drawn_paths(verdict)
    own = verdict["comparisons"][0]
    sides = {(row["side"], row["pairs"]): row["mean"] for row in rows_of(panel, "side")}
    assert sides == {
        (side, one["pairs"]): one[side]
        for one in [*own["path"], *own["ahead"]]
        for side in ("above", "below")
    }
    assert len(sides) == 2 * 4
    assert texts(panel)[1] == "stopped with 6 pairs: undecidable"
    assert "shows a gain'" in str(panel)
    asked = judged(rows(HOPELESS), dataclasses.replace(CLAIM, decide="margin"))
    assert "shows a gain above the margin'" in str(drawn_paths(asked))


def test_what_took_no_look_has_no_panel() -> None:
    assert verdict_charts.paths(judged(rows(OPEN[:5]), CLAIM)) is None
    invalid = arm("3", GAIN[:6], aligned=False)
    (panel,) = drawn_paths(judged([*rows(OPEN[:6]), *invalid], TWO))
    assert texts(panel)[1] == "goes on: inconclusive so far"
    (panel,) = drawn_paths(judged(rows([0.0] * 6, images=100), CLAIM))
    assert rows_of(panel, "side") == [], "too coarse: no mean would decide"


def test_only_so_many_paths_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_charts, "MOST_PATHS", 2)
    cells = [row for cell in "abc" for row in rows(GAIN[:6], cell=cell)]
    assert [texts(panel)[0] for panel in drawn_paths(judged(cells, CLAIM))] == [
        "t_mult=2 against 1 at a", "t_mult=2 against 1 at b",
    ]  # fmt: skip


def test_where_lower_is_better_the_axes_and_the_legend_say_so() -> None:
    lower: dict[str, Any] = {"metric": "val/loss", "better": "lower", "unit": ""}
    drawn = json.dumps(
        verdict_charts.forest(judged(losses(around(-0.3)), Claim("f", "1", ("2",), **lower))),
        ensure_ascii=False,
    )
    assert '"treatment − baseline (val/loss, lower is better)"' in drawn
    verdict = judged(list(map(negated, rows(GAIN))), dataclasses.replace(CLAIM, **lower))
    paths = verdict_charts.paths(verdict)
    text = json.dumps(paths, ensure_ascii=False)
    assert '"difference (val/loss, lower is better)"' in text
    assert (
        "datum.value == 'above' ? 'a mean above rules out a gain of 0.2' : 'a mean below shows a gain'"
        in text
    )
    higher = verdict_charts.paths(judged(rows(GAIN), CLAIM))
    decided, mirrored = (
        {(row["pairs"], row["side"], abs(row["mean"])) for row in rows_of(chart, "side")}
        for chart in (higher, paths)
    )
    other = {"above": "below", "below": "above"}
    assert mirrored == {(pairs, other[side], mean) for pairs, side, mean in decided}


def test_the_chart_says_which_runs_it_does_not_show() -> None:
    arms = rows([*around(0.5), 0.5])
    headings = [row["heading"] for row in rows_of(verdict_charts.forest(judged(arms)), "heading")]
    assert headings == ["t_mult=2 against 1"]
    verdict = judged([*arms[:-1], lost(arms[-1], "diverged", 90.0)])
    said = [row["heading"] for row in rows_of(verdict_charts.forest(verdict), "heading")]
    assert said == [
        "t_mult=2 against 1", "not drawn, but counted: 1 run that diverged or could not be built",
    ]  # fmt: skip
    (own,) = page._comparisons(verdict)
    assert own["pairs_needed"] == verdict["comparisons"][0]["intention_to_treat"]["pairs_needed"]["above 0"]  # fmt: skip
