"""The chart of a sweep's curves for the page and for `val_acc.png`: colours of the page, arms by number.

Vega-lite puts titles into its expressions without escaping them: no text of a user's is a title
here, names come in as data. The legend is the page's own buttons, which set `hidden`: Vega's (`bind="legend"`)
cannot be reached by keys, does not wrap on a phone, and would not switch the arms of two charts at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor
from pathlib import Path
from statistics import median
from typing import Any

import altair as alt
import polars as pl

from harness.analysis import results
from harness.report import charts
from harness.report.charts import MARKS, WIDTH, accuracies, means, stored_lr_curve, thin

COLOURS = [*charts.COLOURS[:-1], "currentColor"]  # on a page: black on white, white on black
DASHES = [[1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 4]]  # where colours come again
SHOWN = "indexof(hidden, datum.arm) < 0"
MOST_RUNS = 200  # that an overview draws one by one
_MOST_ARMS = 12  # whose accuracies one tooltip lists, and whose restarts are marked
_MOST_POINTS = 40_000  # of each kind of curve in an overview
_MOST_EPOCHS = 3000  # that have a tooltip


@dataclass(frozen=True)
class Overview:
    """Validation accuracy above LR, by epoch, on one x axis; `notes` say what was thinned or left out.

    `bands`: arms have several runs; `singles`: these are drawn one by one, too.
    `late` is the part worth enlarging: the second half of the epochs, and the range of its accuracies.
    """

    chart: dict[str, Any]
    has_accuracy: bool
    bands: bool
    singles: bool
    notes: list[str]
    late: dict[str, list[float]]


def overview(runs: pl.DataFrame, arms: Sequence[str]) -> Overview | None:
    """Draw the curves of `runs`; None if none has any yet. `arms` are the names behind the numbers.

    Its parameters: `hidden` (numbers of arms), `singles` (single runs, too), `zoom_x`, `zoom_y`.
    """
    numbers = {arm: number for number, arm in enumerate(arms)}
    runs = runs.with_columns(pl.col("arm").replace_strict(numbers, return_dtype=pl.Int64))
    points, lrs, marks = accuracies(runs), _lr_curves(runs), _restart_marks(runs)
    end = max([*points["epoch"], *lrs["epoch"]], default=0.0)
    if not end:
        return None
    mean = means(points).with_columns(pl.col("low", "high").clip(0, 100))
    notes = []
    if len(marks) > MARKS or (len(marks) and len(arms) > _MOST_ARMS):
        marks = marks.clear()
        notes.append("Restarts are not marked: there are too many.")
    drawn, several = points["run"].n_unique(), max(mean["seeds"], default=1) > 1
    if drawn > MOST_RUNS and several:
        notes.append(f"Single runs are drawn if they are {MOST_RUNS} at most; here are {drawn}.")
    single = points.clear() if drawn > MOST_RUNS or not several else points
    thinned = _thinned(mean, "arm", "mean"), _thinned(single, "run", "acc")
    if sum(map(len, thinned)) < len(mean) + len(single):
        notes.append("Curves are thinned; peaks and troughs stay.")
    names = pl.DataFrame({"arm": range(len(arms)), "name": list(arms)})
    labels = pl.DataFrame({"run": range(len(runs)), "label": runs["name"]})
    panels = []
    if len(points):
        single_runs = _single_runs(thinned[1], labels, len(arms))
        panels.append(_accuracy_panel(thinned[0], single_runs, marks, names, end))
    if len(lrs):
        panels.append(_lr_panel(lrs, marks, end))
    return Overview(
        _on_one_axis(panels), len(points) > 0, several, len(single) > 0, notes, _late(mean, end)
    )


def _on_one_axis(panels: list[Any]) -> dict[str, Any]:
    description = "Validation accuracy and learning rate by epoch, a colour an arm"
    chart: dict[str, Any] = (
        alt.vconcat(*panels, spacing=18, bounds="flush", description=description)
        .resolve_scale(x="shared")
        .to_dict()
    )
    layers = [layer.get("name", "") for panel in chart["vconcat"] for layer in panel["layer"]]
    views = {name.partition("_")[0]: name for name in layers}  # altair adds the panel's number
    chart["params"] = _parameters(views)  # altair would put them into each layer of a panel
    return chart


def _lr_curves(runs: pl.DataFrame) -> pl.DataFrame:
    """Return `arm`, `epoch`, `lr`: one curve an arm, of its first run that has a plan."""
    planned = [
        run
        for run in runs.to_dicts()
        if run["updates_per_epoch"] and (Path(run["folder"]) / "lr.npy").exists()
    ]
    first = {run["arm"]: run for run in reversed(planned)}
    most = max(60, min(2000, _MOST_POINTS // max(1, len(first))))
    curves = [stored_lr_curve(run, most) for run in first.values()]
    schema = {"epoch": pl.Float64, "lr": pl.Float64, "arm": pl.Int64}
    return pl.concat(curves) if curves else pl.DataFrame(schema=schema)


def _restart_marks(runs: pl.DataFrame) -> pl.DataFrame:
    """Return `arm` and `epoch` of the restarts in the plan of its first run with a result."""
    begun = runs.filter(pl.col("restarts") > 0).unique("arm", keep="first", maintain_order=True)
    rows = [
        (arm, float(epoch))
        for arm, folder in begun.select("arm", "folder").iter_rows()
        for epoch in (results.result(Path(folder)).get("plan") or {}).get("restart_epochs", [])
    ]
    return pl.DataFrame(rows, schema={"arm": pl.Int64, "epoch": pl.Float64}, orient="row")


def _thinned(points: pl.DataFrame, curve: str, value: str) -> pl.DataFrame:
    """Return `points`, fewer where there are too many to draw; each `curve` keeps its extremes."""
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
    mean: pl.DataFrame, single_runs: Any, marks: pl.DataFrame, names: pl.DataFrame, end: float
) -> Any:
    x = alt.X("epoch:Q").scale(domain=[0, end], nice=False).axis(labels=False, title=None)
    lowest, highest = mean.select(pl.col("low").min(), pl.col("high").max()).row(0)
    tens = [max(0, 10 * floor(lowest / 10)), min(100, 10 * ceil(highest / 10))]
    y = alt.Y("mean:Q").title("validation accuracy (%)").scale(domain=tens, nice=False)
    named = alt.LookupData(_csv(names), "arm", ["name"])
    base = alt.Chart(_csv(mean)).transform_filter(SHOWN).transform_lookup("arm", named).encode(x)
    band = base.mark_area(opacity=0.18, clip=True).encode(
        of_field("low", y), alt.Y2("high:Q"), colour_of(len(names))
    )
    line = (
        base.mark_line(strokeWidth=2, clip=True)
        .encode(y, **look(len(names)), tooltip=[alt.Tooltip("name:N", title="mean of")])
        .properties(name="means")
    )
    layers = [_rules(marks, x, len(names)), band]
    if len(names) <= _MOST_ARMS:
        layers.append(_hover(base, x, mean["epoch"].unique().sort().to_list()))
    if single_runs:
        layers.append(single_runs.encode(x, of_field("acc", y)))
    layers = [layer for layer in [*layers, line] if layer is not None]
    return alt.layer(*layers).properties(width=WIDTH, height=300)


def _single_runs(points: pl.DataFrame, labels: pl.DataFrame, arms: int) -> Any:
    """Return thin curves, of which a click picks one; None without `points`."""
    if points.is_empty():
        return None
    return (
        alt.Chart(_csv(points))
        .transform_filter(f"singles && {SHOWN}")
        .transform_lookup("run", alt.LookupData(_csv(labels), "run", ["label"]))
        .mark_line(clip=True)
        .encode(
            detail="run:N",
            opacity=alt.OpacityValue(**_if("picked", 1, 0.35)),
            strokeWidth=alt.StrokeWidthValue(**_if("picked", 2.5, 0.8)),
            tooltip=[alt.Tooltip("label:N", title="run")],
            **look(arms),
        )
        .properties(name="runs")
    )


def _hover(base: alt.Chart, x: alt.X, epochs: list[float]) -> Any:
    """Return a column an epoch, visible under the pointer; its tooltip lists the arms that are shown."""
    several = "' ± ' + format(datum.sd, '.2f') + ' (' + datum.seeds + ')'"
    arm = f"datum.name + '  ' + format(datum.mean, '.2f') + (datum.seeds > 1 ? {several} : '')"
    values = alt.AggregatedFieldDef(op="values", field="text", **{"as": "arms"})
    every = ceil(len(epochs) / _MOST_EPOCHS)
    half = every * median([b - a for a, b in pairwise(epochs)] or [1.0]) / 2
    tooltip = [alt.Tooltip("epoch:Q", format="~g"), alt.Tooltip("listed:N", title="val/acc (%)")]
    return (
        base.transform_calculate(text=arm)
        .transform_aggregate([values], ["epoch"])
        .transform_window(row="row_number()", sort=[alt.SortField("epoch")])
        .transform_filter(f"datum.row % {every} == 0")
        .transform_calculate(
            listed=r"join(pluck(datum.arms, 'text'), '\n')",
            begin=f"datum.epoch - {half}",
            end=f"datum.epoch + {half}",
        )
        .mark_rect(color="gray", clip=True)
        .encode(
            of_field("begin", x),
            alt.X2("end:Q"),
            opacity=alt.OpacityValue(**_if("here", 0.25, 0)),
            tooltip=tooltip,
        )
        .properties(name="columns")
    )


def _lr_panel(curves: pl.DataFrame, marks: pl.DataFrame, end: float) -> Any:
    arms = max(curves["arm"]) + 1
    x = alt.X("epoch:Q").title("epoch").scale(domain=[0, end], nice=False)
    top = max(curves["lr"]) or 1.0
    y = alt.Y("lr:Q").title("LR").axis(tickCount=3).scale(domain=[0, top], nice=False)
    line = (
        alt.Chart(_csv(curves))
        .transform_filter(SHOWN)
        .mark_line(strokeWidth=1.5, interpolate="step-after", clip=True)
        .encode(x, y, **look(arms))
        .properties(name="lr")
    )
    layers = [layer for layer in (_rules(marks, x, arms), line) if layer is not None]
    return alt.layer(*layers).properties(width=WIDTH, height=90)


def look(arms: int) -> dict[str, Any]:
    """Return an arm's encodings: colour, then dashes; the page's configuration holds the colours."""
    encodings: dict[str, Any] = {"color": colour_of(arms)}
    if arms > len(COLOURS):
        numbers = list(range(arms))
        dashes = [DASHES[at // len(COLOURS) % len(DASHES)] for at in numbers]
        scale = alt.Scale(domain=numbers, range=dashes)
        encodings["strokeDash"] = alt.StrokeDash("arm:N").scale(scale).legend(None)
    return encodings


def colour_of(arms: int) -> alt.Color:
    return alt.Color("arm:N").scale(domain=list(range(arms))).legend(None)


def _rules(marks: pl.DataFrame, x: alt.X, arms: int) -> Any:
    """Return a dashed line at each restart; None without any."""
    if marks.is_empty():
        return None
    rule = alt.Chart(_csv(marks)).transform_filter(SHOWN)
    return rule.mark_rule(strokeDash=[3, 3], opacity=0.45, clip=True).encode(x, colour_of(arms))


def of_field(field: str, channel: alt.X | alt.Y) -> Any:
    """Return a copy of `channel` for another field."""
    other = channel.copy()
    other.shorthand = f"{field}:Q"
    return other


def _parameters(views: dict[str, str]) -> list[dict[str, Any]]:
    """Return what the page sets, and the selections of those views that the chart has."""
    zoom = {"type": "interval", "zoom": "wheel![event.ctrlKey || event.metaKey]"}
    hover = {"type": "point", "fields": ["epoch"], "on": "pointerover", "clear": "pointerout"}
    selections: list[dict[str, Any]] = [
        {"name": "zoom_x", "select": zoom | {"encodings": ["x"]}, "bind": "scales",
         "views": ["means", "lr"]},
        {"name": "zoom_y", "select": zoom | {"encodings": ["y"]}, "bind": "scales",
         "views": ["means"]},
        {"name": "picked", "select": {"type": "point", "fields": ["run"]}, "views": ["runs"]},
        {"name": "here", "select": hover, "views": ["columns"]},
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
    """Return an encoding's value where the selection holds the mark, and elsewhere."""
    condition = {"param": parameter, "empty": False, "value": value}
    return {"condition": condition, "value": otherwise}


def _csv(frame: pl.DataFrame) -> alt.InlineData:
    """Return `frame` to be written into a page in few characters."""
    parse = {
        name: "number" if dtype.is_numeric() else "string" for name, dtype in frame.schema.items()
    }
    floats = pl.selectors.float()
    text = frame.with_columns(floats.round_sig_figs(6)).write_csv()
    return alt.InlineData(values=text, format=alt.CsvDataFormat(type="csv", parse=parse))
