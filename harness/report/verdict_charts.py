"""Charts of a verdict for the page: the differences of its comparisons, accuracy around cycle ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from harness.analysis.sentences import comparison_label
from harness.report.charts import WIDTH
from harness.report.page_charts import COLOURS, SHOWN, colour_of, look, of_field

MOST_COMPARISONS = 24  # that are drawn


def differences(verdict: dict[str, Any], dots: bool) -> dict[str, Any]:
    """Draw each comparison's mean difference and interval against 0 and ± margin; `dots`: a dot a pair."""
    margin = verdict["claim"]["margin"]
    shown = verdict["comparisons"][:MOST_COMPARISONS]
    factor = str(verdict["claim"]["factor"]).rpartition(".")[2]
    rows = [_comparison(row, one, factor) for row, one in enumerate(shown)]
    pairs = [pair for row, one in enumerate(shown) for pair in _pairs(row, one)] if dots else []
    values = [0.0, margin, -margin, *(pair["difference"] for pair in pairs)]
    values += [row[end] for row in rows for end in ("low", "high", "mean") if row[end] is not None]
    domain = _with_room(values, 0.06, 1.0)
    x = (
        alt.X("mean:Q")
        .title("treatment − baseline (points)")
        .scale(domain=domain, nice=False)
        .axis(format="+~f", labelSeparation=8, labelExpr="datum.value ? datum.label : '0'")
    )
    y = alt.Y("row:Q").scale(domain=[-0.55, len(rows) - 0.45], reverse=True, nice=False).axis(None)
    layers = [*_references(margin, x), *_intervals(rows, x, y, verdict["claim"].get("level", 0.05))]
    if pairs:
        _stack(pairs, domain)
        layers.append(_dots(pairs, x, y))
    chart = alt.layer(*layers).properties(
        width=WIDTH,
        height=(86 if dots else 52) * len(rows),
        description="Differences between treatment and baseline, with intervals",
    )
    document: dict[str, Any] = chart.to_dict()
    return document


def _references(margin: float, x: alt.X) -> list[Any]:
    """Return ± margin as an area, and 0 as a line."""
    return [
        alt.Chart(alt.InlineData(values=[{"from": -margin, "to": margin}]))
        .mark_rect(color="gray", opacity=0.18)
        .encode(of_field("from", x), alt.X2("to:Q")),
        alt.Chart(alt.InlineData(values=[{"zero": 0}]))
        .mark_rule(color="currentColor", strokeWidth=1)
        .encode(of_field("zero", x)),
    ]


def _intervals(rows: list[dict[str, Any]], x: alt.X, y: alt.Y, level: float) -> list[Any]:
    """Return the label, interval and mean of each comparison."""
    table = alt.Chart(alt.InlineData(values=rows)).encode(y)
    tooltip = [
        alt.Tooltip("label:N", title="comparison"),
        alt.Tooltip("mean:Q", format="+.3f"),
        alt.Tooltip("low:Q", format="+.3f", title=f"{100 * (1 - level):g} % from"),
        alt.Tooltip("high:Q", format="+.3f", title="to"),
        alt.Tooltip("n:Q", title="pairs"),
        alt.Tooltip("verdict:N"),
    ]
    labels = rows if len(rows) > 1 else []  # the page's headline names a single one
    return [
        alt.Chart(alt.InlineData(values=labels)).encode(y).mark_text(
            align="left", baseline="bottom", dy=-9, fontSize=13, color="currentColor",
            limit=alt.ExprRef("width"),
        ).encode(x=alt.value(4), text="label:N"),
        table.mark_rule(color=COLOURS[0], strokeWidth=3)
        .encode(of_field("low", x), alt.X2("high:Q"), tooltip=tooltip)
        .transform_filter("isValid(datum.low)"),
        table.mark_point(color=COLOURS[0], filled=True, size=90, opacity=1)
        .encode(x, tooltip=tooltip)
        .transform_filter("isValid(datum.mean)"),
    ]  # fmt: skip


def _dots(pairs: list[dict[str, Any]], x: alt.X, y: alt.Y) -> Any:
    tooltip = [
        alt.Tooltip("seed:N"),
        alt.Tooltip("baseline:Q", format=".3f"),
        alt.Tooltip("treatment:Q", format=".3f"),
        alt.Tooltip("difference:Q", format="+.3f"),
    ]
    points = alt.Chart(alt.InlineData(values=pairs))
    return points.mark_point(color=COLOURS[1], filled=True, size=45, opacity=0.75).encode(
        of_field("difference", x), y, tooltip=tooltip
    )


def _comparison(row: int, comparison: dict[str, Any], factor: str) -> dict[str, Any]:
    low, high = comparison.get("ci95") or (None, None)
    figures = {name: comparison.get(name) for name in ("mean", "n", "verdict")}
    label = comparison_label(comparison, factor)
    return {"row": row, "label": label, "low": low, "high": high, **figures}


def _pairs(row: int, comparison: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {**pair, "row": float(row)}
        for pair in comparison.get("pairs", [])
        if pair.get("difference") is not None
    ]


def _stack(pairs: list[dict[str, Any]], domain: list[float]) -> None:
    """Put dots that would cover each other under each other, below their interval."""
    width = (domain[1] - domain[0]) / 70
    lanes: dict[tuple[float, int], int] = {}
    for pair in pairs:
        column = pair["row"], round(pair["difference"] / width)
        lane = lanes[column] = lanes.get(column, -1) + 1
        pair["row"] += 0.14 + 0.075 * (lane % 5)


def _with_room(values: list[float], share: float, least: float) -> list[float]:
    """Return the range of `values`, wider by a share of it, or by `least` where it is a point."""
    room = share * (max(values) - min(values)) or least
    return [min(values) - room, max(values) + room]


def profile(points: Sequence[dict[str, Any]], arms: Sequence[str]) -> dict[str, Any]:
    """Draw accuracy around the ends of cycles, less that at the end; 0 on the x axis is the end."""
    numbers = {arm: number for number, arm in enumerate(arms)}
    rows = [
        {"arm": numbers[point["arm"]], "name": point["arm"], "offset": point["offset_epochs"]}
        | {name: point.get(name) for name in ("mean", "low", "high")}
        for point in points
    ]
    offsets = [row["offset"] for row in rows]
    values = [row[end] for row in rows for end in ("mean", "low", "high") if row[end] is not None]
    x = (
        alt.X("offset:Q")
        .title("epochs since the end of a cycle")
        .scale(domain=[min(offsets), max(offsets)], nice=False)
    )
    y = (
        alt.Y("mean:Q")
        .title("val/acc less that at the end (points)")
        .scale(domain=_with_room(values, 0.05, 0.5), nice=False)
    )
    tooltip = [
        alt.Tooltip("name:N", title="arm"),
        alt.Tooltip("offset:Q", format="+~g", title="epochs since the end"),
        alt.Tooltip("mean:Q", format="+.2f", title="points"),
        alt.Tooltip("low:Q", format="+.2f", title="95 % from"),
        alt.Tooltip("high:Q", format="+.2f", title="to"),
    ]
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}]))
    base = alt.Chart(alt.InlineData(values=rows)).transform_filter(SHOWN)
    base = base.encode(x, colour_of(len(arms)))
    layers = [
        zero.mark_rule(color="currentColor", opacity=0.6).encode(of_field("zero", x)),
        zero.mark_rule(color="currentColor", opacity=0.3).encode(of_field("zero", y)),
        base.mark_area(opacity=0.18)
        .encode(of_field("low", y), alt.Y2("high:Q"))
        .transform_filter("isValid(datum.low)"),
        base.mark_line(strokeWidth=2).encode(y, **look(len(arms))),
        base.mark_point(filled=True, size=30, opacity=1).encode(y, tooltip=tooltip),
    ]
    chart = alt.layer(*layers).add_params(alt.param(name="hidden", value=[]))
    chart = chart.properties(
        width=WIDTH, height=260, description="Accuracy around the ends of cycles"
    )
    document: dict[str, Any] = chart.to_dict()
    return document
