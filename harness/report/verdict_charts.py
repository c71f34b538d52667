"""Charts of a verdict for the page: the differences of its comparisons, by look too, accuracy around cycle ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from harness.analysis import looks
from harness.analysis.scale import Scale
from harness.analysis.sentences import broken, comparison_label, counted, interval_kind
from harness.report.charts import COLOURS, FEW, WIDTH, epochs, wrapped
from harness.report.curves import LETTER, LINE, SHOWN, colour_of, of_field, with_room
from harness.report.panels import grid

MOST_COMPARISONS = 24  # that are drawn
MOST_PATHS = 12
_ROW = 46  # pixels: the height of a comparison
_LANES = 5  # of dots, under an interval


def forest(verdict: dict[str, Any]) -> dict[str, Any]:
    """Draw each comparison in a row: mean difference, interval, and a dot a pair, if any, against 0 and ± margin.

    The axis says the unit, and whether lower is better.
    """
    scale = Scale.of(verdict["claim"]).drawn
    margin = scale.margin
    shown = verdict["comparisons"][:MOST_COMPARISONS]
    heading, labels = row_labels(shown, str(verdict["claim"]["factor"]).rpartition(".")[2])
    heading += ", not preregistered" * (not verdict["claim"].get("planned", True))
    rows = [
        _comparison(row, one) | {"label": label}
        for row, (one, label) in enumerate(zip(shown, labels, strict=True))
    ]
    pairs = [pair for row, one in enumerate(shown) for pair in _pairs(row, one)]
    values = [0.0, margin, -margin, *(pair["difference"] for pair in pairs)]
    values += [row[end] for row in rows for end in ("low", "high", "mean") if row[end] is not None]
    domain = _with_room(values, 0.06, 1.0 if scale.unit == "%" else margin or 1.0)
    _stack(pairs, domain)
    x = (
        alt.X("mean:Q")
        .title(f"treatment − baseline ({scale.title})")
        .scale(domain=domain, nice=False)
        .axis(format="+~f", labelExpr="datum.value ? datum.label : '0'", labelOverlap=False,
              tickCount=alt.ExprRef("clamp(width / 80, 2, 5)"))
    )  # fmt: skip
    y = alt.Y("row:Q").scale(domain=[-0.5, len(rows) - 0.5], reverse=True, nice=False).axis(None)
    layers = [
        *_references(margin, x),
        *_intervals(rows, x, y, interval_kind(verdict["claim"]), _form(scale)),
        *([_dots(pairs, x, y, _form(scale))] if pairs else []),
        _text(rows, "label", "room - 6", "normal").encode(y),
        *_headings([heading, *_not_drawn(verdict["claim"], shown)]),
    ]
    longest = max(len(line) for label in labels for line in [*label.split("\n"), ""])
    chart = alt.layer(*layers).properties(
        width=WIDTH,
        height=_ROW * max(1.5, len(rows)),
        description=f"Differences between treatment and baseline, with intervals{' and pairs' * bool(pairs)}",
    )
    return with_room(chart.to_dict(), LETTER * longest + 20 * bool(longest))


def row_labels(comparisons: Sequence[dict[str, Any]], factor: str) -> tuple[str, list[str]]:
    """Return what all comparisons share, `factor=treatment against baseline at cell`, and what sets each apart."""
    columns = []
    for one in comparisons:
        treatment, against, baseline = comparison_label(one | {"cell": ""}).partition(" against ")
        columns.append(
            (treatment, against + baseline, f" at {one['cell']}" if one.get("cell") else "")
        )
    common = [set(values) for values in zip(*columns, strict=True)]
    heading = [min(values) if len(values) == 1 else "" for values in common]
    own = [
        "".join(part for part, values in zip(parts, common, strict=True) if len(values) > 1)
        for parts in columns
    ]  # fmt: skip
    equals = "=" if heading[0] else ""
    labels = [wrapped(label.strip().removeprefix("at "), 18, 3) for label in own]
    return f"{factor}{equals}{''.join(heading)}", labels


def _text(rows: list[dict[str, Any]], field: str, room: str, weight: Any) -> Any:
    """Return text that begins in the column left of a chart, and is cut off after `room` pixels (an expression)."""
    text = alt.Chart(alt.InlineData(values=rows)).mark_text(
        align="left", baseline="middle", fontSize=12, fontWeight=weight, lineBreak="\n", color="currentColor",
        limit=alt.ExprRef(room),
    )  # fmt: skip
    return text.encode(x=alt.value(alt.ExprRef("-room")), text=f"{field}:N")


def _headings(lines: Sequence[str]) -> list[Any]:
    """Return lines above a chart, the first one bold."""
    return [
        _text(
            [{"heading": line}], "heading", "room + width", "normal" if number else "bold"
        ).encode(y=alt.value(-14 - LINE * (len(lines) - 1 - number)))
        for number, line in enumerate(lines)
    ]


def _not_drawn(claim: dict[str, Any], comparisons: Sequence[dict[str, Any]]) -> list[str]:
    """Return what the verdict counts and the chart does not show."""
    filled = [(one.get("intention_to_treat") or {}).get("filled", []) for one in comparisons]
    number = len({run["name"] for runs in filled for run in runs})
    return (
        [f"not drawn, but counted: {number} run{'s' * (number > 1)} that {broken(claim)}"]
        if number
        else []
    )


def _references(margin: float, axis: alt.X | alt.Y) -> list[Any]:
    """Return ± margin as an area, and 0 as a line."""
    end = alt.X2("to:Q") if isinstance(axis, alt.X) else alt.Y2("to:Q")
    return [
        alt.Chart(alt.InlineData(values=[{"from": -margin, "to": margin}]))
        .mark_rect(color="gray", opacity=0.18)
        .encode(of_field("from", axis), end),
        alt.Chart(alt.InlineData(values=[{"zero": 0}]))
        .mark_rule(color="currentColor", strokeWidth=1)
        .encode(of_field("zero", axis)),
    ]


def _form(scale: Scale) -> str:
    """Return how a tooltip writes numbers: with one place more than tables."""
    return f".{scale.places_shown + 1}f"


def _intervals(rows: list[dict[str, Any]], x: alt.X, y: alt.Y, kind: str, form: str) -> list[Any]:
    """Return the interval and the mean of each comparison."""
    table = alt.Chart(alt.InlineData(values=rows)).encode(y)
    tooltip = [
        alt.Tooltip("comparison:N"),
        alt.Tooltip("mean:Q", format=f"+{form}"),
        alt.Tooltip("low:Q", format=f"+{form}", title=f"{kind} from"),
        alt.Tooltip("high:Q", format=f"+{form}", title="to"),
        alt.Tooltip("counted:N", title="of"),
        alt.Tooltip("verdict:N"),
    ]
    return [
        table.mark_rule(color=COLOURS[0], strokeWidth=3)
        .encode(of_field("low", x), alt.X2("high:Q"), tooltip=tooltip)
        .transform_filter("isValid(datum.low)"),
        table.mark_point(color=COLOURS[0], filled=True, size=90, opacity=1)
        .encode(x, tooltip=tooltip)
        .transform_filter("isValid(datum.mean)"),
    ]


def _dots(pairs: list[dict[str, Any]], x: alt.X, y: alt.Y, form: str) -> Any:
    tooltip = [
        alt.Tooltip("seed:N"),
        alt.Tooltip("baseline:Q", format=form),
        alt.Tooltip("treatment:Q", format=form),
        alt.Tooltip("difference:Q", format=f"+{form}"),
    ]
    points = alt.Chart(alt.InlineData(values=pairs))
    return points.mark_point(color=COLOURS[1], filled=True, size=22, opacity=0.75).encode(
        of_field("difference", x), y, tooltip=tooltip
    )


def _comparison(row: int, comparison: dict[str, Any]) -> dict[str, Any]:
    low, high = comparison.get("ci95") or (None, None)
    figures = {name: comparison.get(name) for name in ("mean", "verdict")}
    return {
        "row": row,
        "comparison": comparison_label(comparison),
        "low": low,
        "high": high,
        "counted": counted(comparison) if "n" in comparison else "",
        **figures,
    }


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
        pair["row"] += 0.17 + 0.07 * (lane % _LANES)


def _with_room(values: list[float], share: float, least: float) -> list[float]:
    """Return the range of `values`, wider by a share of it, or by `least` where it is a point."""
    room = share * (max(values) - min(values)) or least
    return [min(values) - room, max(values) + room]


def paths(verdict: dict[str, Any]) -> dict[str, Any] | None:
    """Draw what comparisons came to look by look, a panel each: mean, repeated interval, and which means decide.

    None where no look was taken.
    """
    taken = [one for one in verdict["comparisons"] if one.get("path")][:MOST_PATHS]
    if not taken:
        return None
    panels = [_path(verdict, one, len(taken) > 1, one is taken[-1]) for one in taken]
    description = "Mean differences and their repeated intervals, look by look"
    chart = alt.vconcat(*panels, spacing=44, bounds="flush", description=description)
    document: dict[str, Any] = chart.resolve_scale(color="shared").to_dict()
    return document


def _path(verdict: dict[str, Any], own: dict[str, Any], several: bool, last: bool) -> Any:
    claim, planned = verdict["claim"], verdict["looks"]["pairs"]
    scale = Scale.of(claim)
    x = (
        alt.X("pairs:Q")
        .title(f"pairs, at most {planned[-1]}" if last else None)
        .scale(domain=[planned[0] - 1, planned[-1] + 1], nice=False)
        .axis(values=planned, format="d", grid=True, labels=last)
    )
    decides = _decides(own)
    ends = [one[end] for one in own["path"] for end in ("low", "high")]
    values = [0.0, claim["margin"], -claim["margin"], *ends, *(one["mean"] for one in decides)]
    y = (
        alt.Y("mean:Q")
        .title(f"difference ({scale.title})")
        .scale(
            domain=_with_room(values, 0.1, 1.0 if scale.unit == "%" else scale.margin or 1.0),
            nice=False,
        )
        .axis(
            format="+~f", tickCount=4 if several else 7, labelExpr="datum.value ? datum.label : '0'"
        )
    )
    layers = [
        *_references(claim["margin"], y),
        _thresholds(decides, claim, x, y),
        *_looks(own["path"], x, y, _form(scale)),
    ]
    label = comparison_label(own, str(claim["factor"]).rpartition(".")[2])
    lines = [{"text": label, "y": -23}, {"text": _ended(own, planned[-1]), "y": -8}]
    for line in lines:
        text = alt.Chart(alt.InlineData(values=[line])).mark_text(
            align="left", fontSize=13, color="currentColor", limit=alt.ExprRef("width")
        )
        layers.append(text.encode(x=alt.value(0), y=alt.value(line["y"]), text="text:N"))
    return alt.layer(*layers).properties(width=WIDTH, height=160 if several else 260)


def _decides(own: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the means that each look decides, and those that later ones would."""
    return [
        {"pairs": one["pairs"], "mean": one[side], "side": side}
        for one in [*own["path"], *own["ahead"]]
        for side in ("above", "below")
        if one[side] is not None
    ]


def _thresholds(decides: list[dict[str, Any]], claim: dict[str, Any], x: alt.X, y: alt.Y) -> Any:
    """Return which means decide at each look: a line and a legend for each side."""
    scale = Scale.of(claim)
    words = {
        scale.side("above"): f"a mean {scale.side('above')} shows {_QUESTION[claim['decide']]}",
        scale.side(
            "below"
        ): f"a mean {scale.side('below')} rules out a gain of {claim['margin']:g}",
    }
    gain, none = COLOURS[2], COLOURS[1]
    colours = {scale.side("above"): gain, scale.side("below"): none}
    legend = alt.Legend(
        title=None, orient="top", columns=1, labelLimit=400, labelColor="currentColor", labelFontSize=12, symbolType="stroke",
        labelExpr=f"datum.value == 'above' ? '{words['above']}' : '{words['below']}'",
    )  # fmt: skip
    sides = alt.Scale(domain=["above", "below"], range=[colours["above"], colours["below"]])
    title = scale.unit_of_differences or scale.metric
    tooltip = [
        alt.Tooltip("pairs:Q"),
        alt.Tooltip("mean:Q", format=f"+{_form(scale)}", title=title),
    ]
    base = alt.Chart(alt.InlineData(values=decides)).encode(x, y)
    colour = alt.Color("side:N").scale(sides).legend(legend)
    return base.mark_line(strokeDash=[5, 3], strokeWidth=1.5).encode(colour) + base.mark_tick(
        orient="horizontal", size=16, thickness=3, opacity=1
    ).encode(colour, tooltip=tooltip)


_QUESTION = {"zero": "a gain", "margin": "a gain above the margin"}


def _looks(rows: list[dict[str, Any]], x: alt.X, y: alt.Y, form: str) -> list[Any]:
    """Return the mean and interval of each look, the last one with a ring."""
    table = alt.Chart(alt.InlineData(values=rows)).encode(x)
    tooltip = [
        alt.Tooltip("pairs:Q"),
        alt.Tooltip("mean:Q", format=f"+{form}"),
        alt.Tooltip("low:Q", format=f"+{form}", title="repeated interval from"),
        alt.Tooltip("high:Q", format=f"+{form}", title="to"),
        alt.Tooltip("verdict:N"),
    ]
    return [
        table.mark_line(color=COLOURS[0], strokeWidth=1.5, opacity=0.6).encode(y),
        table.mark_rule(color=COLOURS[0], strokeWidth=3).encode(
            of_field("low", y), alt.Y2("high:Q"), tooltip=tooltip
        ),
        table.mark_point(color=COLOURS[0], filled=True, size=80, opacity=1).encode(
            y, tooltip=tooltip
        ),
        alt.Chart(alt.InlineData(values=rows[-1:]))
        .mark_point(color=COLOURS[0], filled=False, size=300, strokeWidth=2)
        .encode(x, y),
    ]


def _ended(own: dict[str, Any], most: int) -> str:
    pairs, verdict = own["path"][-1]["pairs"], own["path"][-1]["verdict"]
    match own["stopped"]:
        case looks.DECIDED:
            return f"decided with {pairs} pairs: {verdict}"
        case looks.UNDECIDABLE:
            return f"stopped with {pairs} pairs: undecidable"
    return f"all {pairs} pairs: {verdict}" if pairs == most else f"goes on: {verdict} so far"


def profile(points: Sequence[dict[str, Any]], arms: Sequence[str]) -> dict[str, Any]:
    """Draw accuracy around the ends of cycles, less that at the end; 0 on the x axis is the end.

    Few arms share a panel; more have one each.
    """
    few, numbers = len(arms) <= FEW, {arm: number for number, arm in enumerate(arms)}
    rows = [
        {"arm": numbers[point["arm"]], "panel": numbers[point["arm"]], "name": point["arm"]}
        | {"offset": point["offset_epochs"]}
        | {name: point.get(name) for name in ("mean", "low", "high")}
        for point in points
    ]
    offsets = [row["offset"] for row in rows]
    values = [row[end] for row in rows for end in ("mean", "low", "high") if row[end] is not None]
    title = "epochs since the end of a cycle" if few else "epochs"
    x = of_field("offset", epochs(min(offsets), max(offsets), title=title))
    y = (
        alt.Y("mean:Q")
        .title("val/acc less that at the end (points)" if few else "points")
        .scale(domain=_with_room(values, 0.05, 0.5), nice=False)
    )
    layers = _profile_layers(x, y, len(arms), few)
    if not few:
        floats = dict.fromkeys(("offset", "mean", "low", "high"), pl.Float64)
        return grid(layers, pl.DataFrame(rows, schema_overrides=floats), arms, 90)
    chart = alt.layer(*layers, data=alt.InlineData(values=rows))
    chart = chart.add_params(alt.param(name="hidden", value=[]))
    chart = chart.properties(
        width=WIDTH, height=260, description="Accuracy around the ends of cycles"
    )
    document: dict[str, Any] = chart.to_dict()
    return document


def _profile_layers(x: alt.X, y: alt.Y, arms: int, few: bool) -> list[Any]:
    """Return the layers of a `profile` without their data: the lines at 0, bands, means."""
    tooltip = [
        alt.Tooltip("name:N", title="arm"),
        alt.Tooltip("offset:Q", format="+~g", title="epochs since the end"),
        alt.Tooltip("mean:Q", format="+.2f", title="points"),
        alt.Tooltip("low:Q", format="+.2f", title="95 % from"),
        alt.Tooltip("high:Q", format="+.2f", title="to"),
    ]
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}]))
    base = alt.Chart().transform_filter(SHOWN if few else "true").encode(x, colour_of(arms))
    return [
        zero.mark_rule(color="currentColor", opacity=0.6).encode(of_field("zero", x)),
        zero.mark_rule(color="currentColor", opacity=0.3).encode(of_field("zero", y)),
        base.mark_area(opacity=0.18)
        .encode(of_field("low", y), alt.Y2("high:Q"))
        .transform_filter("isValid(datum.low)"),
        base.mark_line(strokeWidth=2).encode(y),
        base.mark_point(filled=True, size=30 if few else 12, opacity=1).encode(y, tooltip=tooltip),
    ]
