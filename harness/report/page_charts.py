"""Charts for the page of `report`: in the page's text colour, arms by number.

Vega-lite puts titles into its expressions without escaping them: no text of a user's is a title
here, names come in as data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl

from harness.analysis import results
from harness.report import charts
from harness.report.charts import MARKS, WIDTH, accuracies, means, stored_lr_curve, thin

COLOURS = [*charts.COLOURS[:-1], "currentColor"]  # on a page: black on white, white on black
DASHES = [[1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 4]]  # where colours come again
_TOLD = 12  # arms, at most, whose accuracies are told all at once, and whose restarts are marked
MOST_RUNS = 200  # that an overview draws one by one
_MOST_POINTS = 40_000  # of each kind of curve in an overview
_MOST_HOVERED = 3000  # points


@dataclass(frozen=True)
class Overview:
    """Validation accuracy above LR, by epoch, on one x axis; `notes` say what was thinned or left out.

    `bands`: arms have several runs; `singles`: these are drawn one by one, too.
    `late` is the part worth enlarging: the second half of the epochs, and where its accuracies lie.
    """

    chart: dict[str, Any]
    bands: bool
    singles: bool
    notes: list[str]
    late: dict[str, list[float]]


def overview(runs: pl.DataFrame, arms: Sequence[str]) -> Overview | None:
    """The curves of `runs`; None if none has any yet. `arms` are the names behind the numbers.

    Its parameters: `hidden` (numbers of arms), `singles` (single runs, too), `zoom_x`, `zoom_y`.
    """
    number = {arm: at for at, arm in enumerate(arms)}
    points = accuracies(runs)
    lrs, marks = _lr_curves(runs, number), _restart_marks(runs, number)
    end = max([*points["epoch"], *lrs["epoch"]], default=0.0)
    if not end:
        return None
    mean, single = (
        frame.with_columns(pl.col("arm").replace_strict(number, return_dtype=pl.Int64))
        for frame in (means(points), points)
    )
    notes = []
    if len(marks) > MARKS or (len(marks) and len(number) > _TOLD):
        marks = marks.clear()
        notes.append("Restarts are not marked: there are too many.")
    drawn, several = points["run"].n_unique(), max(mean["seeds"], default=1) > 1
    if drawn > MOST_RUNS and several:
        notes.append(f"Single runs are drawn if they are {MOST_RUNS} at most; here are {drawn}.")
    if drawn > MOST_RUNS or not several:
        single = single.clear()
    thinned = _thinned(mean, "arm", "mean"), _thinned(single, "run", "acc")
    if any(len(few) < len(all_) for few, all_ in zip(thinned, (mean, single), strict=True)):
        notes.append("Curves are thinned; peaks and troughs stay.")
    names = pl.DataFrame({"arm": range(len(arms)), "name": list(arms)})
    labels = pl.DataFrame({"run": range(len(runs)), "label": runs["name"]})
    accuracy = _accuracy_panel(*thinned, marks, (names, labels), end)
    panels = [accuracy] if len(points) else []
    if len(lrs):
        panels.append(_lr_panel(lrs, marks, end))
    description = "Validation accuracy and learning rate by epoch, a colour an arm"
    chart: dict[str, Any] = (
        alt.vconcat(*panels, spacing=18, bounds="flush", description=description)
        .resolve_scale(x="shared")
        .to_dict()
    )
    layers = [layer.get("name", "") for panel in chart["vconcat"] for layer in panel["layer"]]
    views = {name.partition("_")[0]: name for name in layers}  # altair adds the panel's number
    chart["params"] = _parameters(views)  # altair would put them into each layer of a panel
    return Overview(chart, several, bool(len(single)), notes, _late(mean, end))


def _lr_curves(runs: pl.DataFrame, number: dict[str, int]) -> pl.DataFrame:
    """`arm`, `epoch`, `lr`: one curve an arm, of its first run that has a plan."""
    begun = [run for run in runs.to_dicts() if _has_plan(run)]
    first = {run["arm"]: run for run in reversed(begun)}
    most = max(60, min(2000, _MOST_POINTS // max(1, len(first))))
    curves = [
        stored_lr_curve(run, most).with_columns(arm=pl.lit(number[arm], pl.Int64))
        for arm, run in first.items()
    ]
    schema = {"epoch": pl.Float64, "lr": pl.Float64, "arm": pl.Int64}
    return pl.concat(curves) if curves else pl.DataFrame(schema=schema)


def _has_plan(run: dict[str, Any]) -> bool:
    return bool(run["updates_per_epoch"]) and (Path(run["folder"]) / "lr.npy").exists()


def _restart_marks(runs: pl.DataFrame, number: dict[str, int]) -> pl.DataFrame:
    """`arm` and `epoch` of the restarts that its first run with a result tells of."""
    schema = {"arm": pl.Int64, "epoch": pl.Float64}
    begun = runs.filter(pl.col("restarts") > 0).unique("arm", keep="first", maintain_order=True)
    rows = [
        (number[arm], float(epoch))
        for arm, folder in begun.select("arm", "folder").iter_rows()
        for epoch in _restart_epochs(Path(folder))
    ]
    return pl.DataFrame(rows, schema=schema, orient="row")


def _restart_epochs(folder: Path) -> Iterable[float]:
    epochs: list[float] = (results.result(folder).get("plan") or {}).get("restart_epochs", [])
    return epochs


def _thinned(points: pl.DataFrame, curve: str, value: str) -> pl.DataFrame:
    """`points`, fewer where there are too many to draw; each `curve` keeps its extremes."""
    curves = points[curve].n_unique()
    if len(points) <= _MOST_POINTS:
        return points
    most = max(40, _MOST_POINTS // curves)
    return pl.concat(
        [group[thin(group[value].to_numpy(), most)] for _, group in points.group_by(curve)]
    )


def _late(mean: pl.DataFrame, end: float) -> dict[str, list[float]]:
    second = mean.filter(pl.col("epoch") >= end / 2)
    if second.is_empty():
        return {}
    low, high = second.select(pl.col("low").min(), pl.col("high").max()).row(0)
    room = 0.05 * (high - low) or 0.5
    return {"x": [end / 2, end], "y": [low - room, high + room]}


def _accuracy_panel(
    mean: pl.DataFrame,
    single: pl.DataFrame,
    marks: pl.DataFrame,
    labels: tuple[pl.DataFrame, pl.DataFrame],
    end: float,
) -> Any:
    if mean.is_empty():
        return None
    names, runs = labels
    arms = len(names)
    x = alt.X("epoch:Q").scale(domain=[0, end], nice=False).axis(labels=False, title=None)
    lowest, highest = mean.select(pl.col("low").min(), pl.col("high").max()).row(0)
    tens = [max(0, 10 * floor(lowest / 10)), min(100, 10 * ceil(highest / 10))]
    y = alt.Y("mean:Q").title("validation accuracy (%)").scale(domain=tens, nice=False)
    base = alt.Chart(_csv(mean)).transform_filter(_SHOWN).encode(x, _colour_of(arms))
    band = base.mark_area(opacity=0.18, clip=True).encode(_of("low", y), alt.Y2("high:Q"))
    line = (
        base.mark_line(strokeWidth=2, clip=True).encode(y, **_look(arms)).properties(name="means")
    )
    line = line.transform_lookup("arm", alt.LookupData(_csv(names), "arm", ["name"])).encode(
        tooltip=[alt.Tooltip("name:N", title="mean of")]
    )
    one = (
        alt.Chart(_csv(single))
        .transform_filter(f"singles && {_SHOWN}")
        .transform_lookup("run", alt.LookupData(_csv(runs), "run", ["label"]))
        .mark_line(clip=True)
        .encode(
            x,
            _of("acc", y),
            detail="run:N",
            opacity=alt.OpacityValue(**_if("picked", 1, 0.35)),
            strokeWidth=alt.StrokeWidthValue(**_if("picked", 2.5, 0.8)),
            tooltip=[alt.Tooltip("label:N", title="run")],
            **_look(arms),
        )
        .properties(name="runs")
    )
    layers = [
        _rules(marks, x, arms),
        band,
        _told(mean, names, x),
        one if len(single) else None,
        line,
    ]
    return alt.layer(*(layer for layer in layers if layer is not None)).properties(
        width=WIDTH, height=300
    )


def _lr_panel(curves: pl.DataFrame, marks: pl.DataFrame, end: float) -> Any:
    arms = max(curves["arm"]) + 1
    x = alt.X("epoch:Q").title("epoch").scale(domain=[0, end], nice=False)
    top = max(curves["lr"]) or 1.0
    y = alt.Y("lr:Q").title("LR").axis(tickCount=3).scale(domain=[0, top], nice=False)
    line = (
        alt.Chart(_csv(curves))
        .transform_filter(_SHOWN)
        .mark_line(strokeWidth=1.5, interpolate="step-after", clip=True)
        .encode(x, y, **_look(arms))
        .properties(name="lr")
    )
    layers = [layer for layer in (_rules(marks, x, arms), line) if layer is not None]
    return alt.layer(*layers).properties(width=WIDTH, height=90)


_SHOWN = "indexof(hidden, datum.arm) < 0"


def _look(arms: int) -> dict[str, Any]:
    """Colour by arm, then dashes; the page's configuration holds the colours."""
    look: dict[str, Any] = {"color": _colour_of(arms)}
    if arms > len(COLOURS):
        numbers = list(range(arms))
        dashes = [DASHES[at // len(COLOURS) % len(DASHES)] for at in numbers]
        scale = alt.Scale(domain=numbers, range=dashes)
        look["strokeDash"] = alt.StrokeDash("arm:N").scale(scale).legend(None)
    return look


def _colour_of(arms: int) -> alt.Color:
    return alt.Color("arm:N").scale(domain=list(range(arms))).legend(None)


def _rules(marks: pl.DataFrame, x: alt.X, arms: int) -> Any:
    """A dashed line at each restart."""
    if marks.is_empty():
        return None
    rule = alt.Chart(_csv(marks)).transform_filter(_SHOWN)
    return rule.mark_rule(strokeDash=[3, 3], opacity=0.45, clip=True).encode(x, _colour_of(arms))


def _told(mean: pl.DataFrame, names: pl.DataFrame, x: alt.X) -> Any:
    """A column an epoch, seen and telling every arm's accuracy when the pointer is in it."""
    if len(names) > _TOLD:
        return None
    text = [
        f"{acc:.2f}" + (f" ± {sd:.2f} ({seeds})" if seeds > 1 else "")
        for acc, sd, seeds in mean.select("mean", "sd", "seeds").iter_rows()
    ]
    table = (
        mean.with_columns(text=pl.Series(text))
        .pivot("arm", index="epoch", values="text")
        .sort("epoch")
    )
    if len(table) > _MOST_HOVERED:
        table = table.gather_every(ceil(len(table) / _MOST_HOVERED))
    epochs = table["epoch"]
    half = epochs.diff().shift(-1).fill_null(epochs.diff().median() or 1.0) / 2
    before = half.shift(1).fill_null(half[0])
    table = table.with_columns(begin=epochs - before, end=epochs + half).rename(
        {str(at): f"a{at}" for at in names["arm"] if str(at) in table.columns}
    )
    # vega's expressions hold titles, and not safely: the page puts the names in the numbers' place
    told = [alt.Tooltip(f"a{at}:N", title=f"arm {at}") for at in names["arm"] if f"a{at}" in table]
    return (
        alt.Chart(_csv(table))
        .mark_rect(color="gray", clip=True)
        .encode(
            _of("begin", x),
            alt.X2("end:Q"),
            opacity=alt.OpacityValue(**_if("here", 0.25, 0)),
            tooltip=[alt.Tooltip("epoch:Q", format="~g"), *told],
        )
        .properties(name="columns")
    )


def _of(field: str, channel: alt.X | alt.Y) -> Any:
    """`channel`, of another field."""
    other = channel.copy()
    other.shorthand = f"{field}:Q"
    return other


def _parameters(views: dict[str, str]) -> list[dict[str, Any]]:
    """What the page sets, and what is picked, told and zoomed in which views."""
    zoom = {"type": "interval", "zoom": "wheel![event.ctrlKey || event.metaKey]"}
    told = {"type": "point", "fields": ["epoch"], "on": "pointerover", "clear": "pointerout"}
    selections: list[dict[str, Any]] = [
        {"name": "zoom_x", "select": zoom | {"encodings": ["x"]}, "bind": "scales",
         "views": ["means", "lr"]},
        {"name": "zoom_y", "select": zoom | {"encodings": ["y"]}, "bind": "scales",
         "views": ["means"]},
        {"name": "picked", "select": {"type": "point", "fields": ["run"]}, "views": ["runs"]},
        {"name": "here", "select": told, "views": ["columns"]},
    ]  # fmt: skip
    within = [
        one | {"views": [views[view] for view in one["views"] if view in views]}
        for one in selections
    ]
    return [
        {"name": "hidden", "value": []},
        {"name": "singles", "value": True},
        *(one for one in within if one["views"]),
    ]


def _if(parameter: str, value: float, otherwise: float) -> dict[str, Any]:
    """An encoding's value where the selection holds the mark."""
    condition = {"param": parameter, "empty": False, "value": value}
    return {"condition": condition, "value": otherwise}


def _csv(frame: pl.DataFrame) -> alt.InlineData:
    """`frame` to be written into a page in few characters."""
    parse = {
        name: "number" if dtype.is_numeric() else "string" for name, dtype in frame.schema.items()
    }
    floats = pl.selectors.float()
    text = frame.with_columns(floats.round_sig_figs(6)).write_csv()
    return alt.InlineData(values=text, format=alt.CsvDataFormat(type="csv", parse=parse))


_MOST_COMPARISONS = 24  # that are drawn


def differences(verdict: dict[str, Any], dots: bool) -> dict[str, Any]:
    """Each comparison's mean difference and 95 % interval against 0 and ± margin; `dots`: a dot a pair."""
    margin = verdict["claim"]["margin"]
    shown = verdict["comparisons"][:_MOST_COMPARISONS]
    factor = str(verdict["claim"]["factor"]).rpartition(".")[2]
    share = f"{100 * (1 - verdict['claim'].get('level', 0.05)):g} %"
    rows = [_comparison(at, one, factor) for at, one in enumerate(shown)]
    pairs = [row for at, one in enumerate(shown) for row in _pairs(at, one)] if dots else []
    values = [0.0, margin, -margin, *(pair["difference"] for pair in pairs)]
    values += [row[end] for row in rows for end in ("low", "high", "mean") if row[end] is not None]
    room = 0.06 * (max(values) - min(values)) or 1.0
    domain = [min(values) - room, max(values) + room]
    _stack(pairs, domain)
    x = (
        alt.X("mean:Q")
        .title("treatment − baseline (points)")
        .scale(domain=domain, nice=False)
        .axis(format="+~f", labelSeparation=8, labelExpr="datum.value ? datum.label : '0'")
    )
    y = alt.Y("row:Q").scale(domain=[-0.55, len(rows) - 0.45], reverse=True, nice=False).axis(None)
    table = alt.Chart(alt.InlineData(values=rows)).encode(y)
    told = [
        alt.Tooltip("label:N", title="comparison"),
        alt.Tooltip("mean:Q", format="+.3f"),
        alt.Tooltip("low:Q", format="+.3f", title=f"{share} from"),
        alt.Tooltip("high:Q", format="+.3f", title="to"),
        alt.Tooltip("n:Q", title="pairs"),
        alt.Tooltip("verdict:N"),
    ]
    labels = rows if len(rows) > 1 else []  # the page's headline names a single one
    layers = [
        alt.Chart(alt.InlineData(values=[{"from": -margin, "to": margin}]))
        .mark_rect(color="gray", opacity=0.18)
        .encode(_of("from", x), alt.X2("to:Q")),
        alt.Chart(alt.InlineData(values=[{"zero": 0}]))
        .mark_rule(color="currentColor", strokeWidth=1)
        .encode(_of("zero", x)),
        alt.Chart(alt.InlineData(values=labels)).encode(y).mark_text(
            align="left", baseline="bottom", dy=-9, fontSize=13, color="currentColor",
            limit=alt.ExprRef("width"),
        ).encode(x=alt.value(4), text="label:N"),
        table.mark_rule(color=COLOURS[0], strokeWidth=3)
        .encode(_of("low", x), alt.X2("high:Q"), tooltip=told)
        .transform_filter("isValid(datum.low)"),
        table.mark_point(color=COLOURS[0], filled=True, size=90, opacity=1)
        .encode(x, tooltip=told)
        .transform_filter("isValid(datum.mean)"),
    ]  # fmt: skip
    if pairs:
        layers.append(
            alt.Chart(alt.InlineData(values=pairs))
            .mark_point(color=COLOURS[1], filled=True, size=45, opacity=0.75)
            .encode(
                _of("difference", x),
                y,
                tooltip=[
                    alt.Tooltip("seed:N"),
                    alt.Tooltip("baseline:Q", format=".3f"),
                    alt.Tooltip("treatment:Q", format=".3f"),
                    alt.Tooltip("difference:Q", format="+.3f"),
                ],
            )
        )
    chart = alt.layer(*layers).properties(
        width=WIDTH,
        height=(86 if dots else 52) * len(rows),
        description="Differences between treatment and baseline, with intervals",
    )
    document: dict[str, Any] = chart.to_dict()
    return document


def comparison_label(comparison: dict[str, Any], factor: str) -> str:
    """`factor=treatment against baseline`, and the cell if there is one."""
    label = f"{factor}={comparison['treatment']} against {comparison['baseline']}"
    return f"{label}, {comparison['cell']}" if comparison.get("cell") else label


def _comparison(row: int, comparison: dict[str, Any], factor: str) -> dict[str, Any]:
    low, high = comparison.get("ci95") or (None, None)
    return {
        "row": row,
        "label": comparison_label(comparison, factor),
        "mean": comparison.get("mean"),
        "low": low,
        "high": high,
        "n": comparison.get("n"),
        "verdict": comparison.get("verdict"),
    }


def _pairs(row: int, comparison: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {**pair, "row": float(row)}
        for pair in comparison.get("pairs", [])
        if pair.get("difference") is not None
    ]


def _stack(pairs: list[dict[str, Any]], domain: list[float]) -> None:
    """Lay dots that would cover each other under each other, below their interval."""
    width = (domain[1] - domain[0]) / 70
    lanes: dict[tuple[float, int], int] = {}
    for pair in pairs:
        place = pair["row"], round(pair["difference"] / width)
        lane = lanes[place] = lanes.get(place, -1) + 1
        pair["row"] += 0.14 + 0.075 * (lane % 5)


def profile(points: Sequence[dict[str, Any]], arms: Sequence[str]) -> dict[str, Any]:
    """Accuracy around the ends of cycles, less that at the end; 0 on the x axis is the end."""
    number = {arm: at for at, arm in enumerate(arms)}
    rows = [
        {
            "arm": number[point["arm"]],
            "name": point["arm"],
            "offset": point["offset_epochs"],
            "mean": point.get("mean", point.get("delta_points_mean")),
            "low": point.get("low"),
            "high": point.get("high"),
        }
        for point in points
    ]
    offsets = [row["offset"] for row in rows]
    values = [row[end] for row in rows for end in ("mean", "low", "high") if row[end] is not None]
    room = 0.05 * (max(values) - min(values)) or 0.5
    x = (
        alt.X("offset:Q")
        .title("epochs since the end of a cycle")
        .scale(domain=[min(offsets), max(offsets)], nice=False)
    )
    y = (
        alt.Y("mean:Q")
        .title("val/acc less that at the end (points)")
        .scale(domain=[min(values) - room, max(values) + room], nice=False)
    )
    base = (
        alt.Chart(alt.InlineData(values=rows))
        .transform_filter(_SHOWN)
        .encode(x, _colour_of(len(arms)))
    )
    told = [
        alt.Tooltip("name:N", title="arm"),
        alt.Tooltip("offset:Q", format="+~g", title="epochs since the end"),
        alt.Tooltip("mean:Q", format="+.2f", title="points"),
        alt.Tooltip("low:Q", format="+.2f", title="95 % from"),
        alt.Tooltip("high:Q", format="+.2f", title="to"),
    ]
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}]))
    chart = (
        alt.layer(
            zero.mark_rule(color="currentColor", opacity=0.6).encode(_of("zero", x)),
            zero.mark_rule(color="currentColor", opacity=0.3).encode(_of("zero", y)),
            base.mark_area(opacity=0.18)
            .encode(_of("low", y), alt.Y2("high:Q"))
            .transform_filter("isValid(datum.low)"),
            base.mark_line(strokeWidth=2).encode(y, **_look(len(arms))),
            base.mark_point(filled=True, size=30, opacity=1).encode(y, tooltip=told),
        )
        .add_params(alt.param(name="hidden", value=[]))
        .properties(width=WIDTH, height=260, description="Accuracy around the ends of cycles")
    )
    document: dict[str, Any] = chart.to_dict()
    return document
