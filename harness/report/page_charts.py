"""The charts of a sweep's curves, for the page and for `val_acc.png` or `val_NAME.png`: arms by number.

Few arms share a panel; more have a panel each, over the baseline in grey. A second chart shows the last part of
training, with an axis that sets the ends apart.

The legend is the page's own buttons, which set `hidden`: Vega's (`bind="legend"`) cannot be reached by keys, does not
wrap on a phone, and would not switch the arms of two charts at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from statistics import median
from typing import Any

import altair as alt
import polars as pl

from harness.analysis.pairing import level_key
from harness.analysis.scale import ACCURACY, Scale
from harness.report import charts, panels
from harness.report.charts import FEW, MARKS, MOST_ARMS, WIDTH
from harness.report.curves import (
    SHOWN,
    Curves,
    colour_of,
    csv,
    end_labels,
    lr_curves,
    of_field,
    restart_marks,
    thinned,
    value_range,
    value_title,
    what,
    with_room,
)

MOST_RUNS = 200  # that are drawn one by one
_MOST_POINTS = 40_000  # of each kind of curve where few arms share a panel
_MOST_EPOCHS = 3000  # that have a tooltip


@dataclass(frozen=True)
class Overview:
    """Validation accuracy, or the claim's other metric, and LR by epoch, and its last part (`ends`).

    `panels`: every arm has its own; `baselines`: over the curve of its baseline. `bands`: arms have several runs;
    `singles`: these are drawn one by one, too. `notes` say what was thinned or left out.
    """

    chart: dict[str, Any]
    ends: dict[str, Any] | None
    has_values: bool
    panels: bool
    baselines: bool
    bands: bool
    singles: bool
    notes: list[str]
    has_lr: bool
    unit: str  # of the x axis


def overview(
    runs: pl.DataFrame,
    arms: Sequence[str],
    baseline: str | None = None,
    scale: Scale = ACCURACY,
) -> Overview | None:
    """Draw the curves of `runs`; None if none has any yet, all values are final ones, or there are more than `MOST_ARMS` arms.

    `arms` are the names behind the numbers; `baseline` is the level of the claim's baseline, `scale` that
    of the claim's metric, which is drawn on the validation images.
    """
    if len(arms) > MOST_ARMS:
        return None
    numbers = {arm: number for number, arm in enumerate(arms)}
    runs = runs.with_columns(pl.col("arm").replace_strict(numbers, return_dtype=pl.Int64))
    lrs = lr_curves(runs)
    points = _of_curves(charts.evaluations(runs, scale.name), lrs)
    end = max([*points["epoch"], *lrs["epoch"]], default=0.0)
    if not end:
        return None
    few = len(arms) <= FEW
    behind = _baselines(runs, baseline) if baseline is not None and not few else {}
    mean, scale = charts.means(points), scale.drawn
    if scale.is_accuracy:
        mean = mean.with_columns(pl.col("low", "high").clip(0, 100))
    curves = Curves(
        list(arms) if few else charts.without_key(arms), runs["name"].to_list(),
        colour_of(len(arms), behind.values()), points, mean, lrs, restart_marks(runs), end, scale.on_val, charts.x_unit(runs),
    )  # fmt: skip
    bands = max(mean["seeds"], default=1) > 1
    notes: list[str] = []
    if mean.select("arm", "seeds").n_unique() > mean["arm"].n_unique():
        notes.append(
            f"A mean is over those runs of an arm that have a value at that {curves.unit}: not everywhere all of them."
        )
    singles = _singles(curves, notes) if few and bands else points.clear()
    chart = _together(curves, singles, notes) if few else panels.arm_grid(curves, behind)
    return Overview(
        chart, panels.ends(curves), len(points) > 0, not few, bool(behind), bands,
        len(singles) > 0, notes, len(lrs) > 0, curves.unit,
    )  # fmt: skip


def _of_curves(points: pl.DataFrame, lrs: pl.DataFrame) -> pl.DataFrame:
    """Return evaluations; none where no run has two, unless all are at one epoch of a curve of the LR.

    A line through the means of single values would join different runs.
    """
    several = points["run"].n_unique() < len(points)
    dots = len(lrs) > 0 and points["epoch"].n_unique() == 1
    return points if several or dots else points.clear()


def _baselines(runs: pl.DataFrame, level: str) -> dict[int, int]:
    """Return the arm of the baseline for each other arm of its cell, where the cell has one."""
    if not {"cell", "level"} <= {*runs.columns}:
        return {}
    rows = (
        runs.drop_nulls("level").select("arm", "cell", "level").unique(maintain_order=True).rows()
    )
    of_cell: dict[str, set[int]] = {}
    for arm, cell, own in rows:
        if level_key(own) == level_key(level):
            of_cell.setdefault(cell, set()).add(arm)
    alone = {cell: min(found) for cell, found in of_cell.items() if len(found) == 1}
    return {arm: alone[cell] for arm, cell, _ in rows if arm != alone.get(cell, arm)}


# --- few arms: a panel for all, above that of the LR ---------------------------------------------


def _singles(curves: Curves, notes: list[str]) -> pl.DataFrame:
    """Return the accuracies of single runs; none, and a note, where there are too many runs."""
    runs = curves.points["run"].n_unique()
    if runs <= MOST_RUNS:
        return curves.points
    notes.append(f"Single runs are drawn if they are {MOST_RUNS} at most; here are {runs}.")
    return curves.points.clear()


def _together(curves: Curves, singles: pl.DataFrame, notes: list[str]) -> dict[str, Any]:
    """Draw accuracy above LR on one x axis; add to `notes` what is left out.

    The page sets its parameters `hidden` (numbers of arms), `singles` (whether single runs are drawn) and `room`.
    """
    restarts = curves.restarts
    if len(restarts) > MARKS:
        restarts = restarts.clear()
        notes.append("Restarts are not marked: there are too many.")
    mean = thinned(curves.mean, "arm", "mean", _MOST_POINTS // FEW)
    few_singles = thinned(singles, "run", "value", _MOST_POINTS // MOST_RUNS)
    if len(mean) + len(few_singles) < len(curves.mean) + len(singles):
        notes.append("Curves are thinned; peaks and troughs stay.")
    drawn = []
    if len(mean):
        drawn.append(_accuracy_panel(curves, mean, few_singles, restarts))
    if len(curves.lrs):
        drawn.append(_lr_panel(curves, restarts))
    description = f"{what(curves.scale)} and learning rate by {curves.unit}, a colour an arm"
    chart: dict[str, Any] = (
        alt.vconcat(*drawn, spacing=18, bounds="flush", description=description)
        .resolve_scale(x="shared")
        .to_dict()
    )
    layers = [layer.get("name", "") for panel in chart["vconcat"] for layer in panel["layer"]]
    views = {name.partition("_")[0]: name for name in layers}  # altair adds the panel's number
    chart["params"] = _parameters(views)  # altair would put them into each layer of a panel
    return with_room(chart, curves.room)


def _accuracy_panel(
    curves: Curves, mean: pl.DataFrame, singles: pl.DataFrame, restarts: pl.DataFrame
) -> Any:
    below: dict[str, Any] = {"labels": False, "title": None}  # the LR's panel has both
    if curves.lrs.is_empty():
        below = {"title": curves.unit}
    x, ends = (
        charts.epochs(0, curves.end, **below),
        value_range(mean, curves.scale),
    )
    y = alt.Y("mean:Q").title(value_title(curves.scale)).scale(domain=ends, nice=False)
    names = pl.DataFrame({"arm": range(len(curves.names)), "name": curves.names})
    named = alt.LookupData(csv(names), "arm", ["name"])
    base = alt.Chart(csv(mean)).transform_filter(SHOWN).transform_lookup("arm", named).encode(x)
    tooltip = [alt.Tooltip("name:N", title="mean of")]
    line = base.mark_line(strokeWidth=2).encode(y, curves.colour, tooltip=tooltip)
    layers = [
        *_rules(curves, restarts, x),
        base.mark_area(opacity=0.18).encode(of_field("low", y), alt.Y2("high:Q"), curves.colour),
        _hover(base, x, mean["epoch"].unique().sort().to_list(), curves.scale, curves.unit),
        *_single_runs(curves, singles, x, of_field("value", y)),
        line,
        *end_labels(curves, curves.last, ends, 300),
    ]
    return alt.layer(*layers).properties(width=WIDTH, height=300)


def _single_runs(curves: Curves, points: pl.DataFrame, x: alt.X, y: alt.Y) -> list[Any]:
    """Return thin curves, of which a click picks one; none without `points`."""
    if points.is_empty():
        return []
    names = pl.DataFrame({"run": range(len(curves.run_names)), "label": curves.run_names})
    lines = (
        alt.Chart(csv(points))
        .transform_filter(f"singles && {SHOWN}")
        .transform_lookup("run", alt.LookupData(csv(names), "run", ["label"]))
        .mark_line()
        .encode(
            x, y, curves.colour,
            detail="run:N",
            opacity=alt.OpacityValue(**_if("picked", 1, 0.35)),
            strokeWidth=alt.StrokeWidthValue(**_if("picked", 2.5, 0.8)),
            tooltip=[alt.Tooltip("label:N", title="run")],
        )
    )  # fmt: skip
    return [lines.properties(name="runs")]


def _hover(base: alt.Chart, x: alt.X, epochs: list[float], scale: Scale, unit: str) -> Any:
    """Return a column an epoch, visible under the pointer; its tooltip lists the arms that are shown."""
    form = f"'.{scale.places_shown}f'"
    several = f"' ± ' + format(datum.sd, {form}) + ' (' + datum.seeds + ')'"
    arm = f"datum.name + '  ' + format(datum.mean, {form}) + (datum.seeds > 1 ? {several} : '')"
    values = alt.AggregatedFieldDef(op="values", field="text", **{"as": "arms"})
    every = ceil(len(epochs) / _MOST_EPOCHS)
    half = every * median([b - a for a, b in pairwise(epochs)] or [1.0]) / 2
    tooltip = [
        alt.Tooltip("epoch:Q", title=unit, format="~g"),
        alt.Tooltip("listed:N", title=scale.values),
    ]
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


def _lr_panel(curves: Curves, restarts: pl.DataFrame) -> Any:
    x, top = charts.epochs(0, curves.end, title=curves.unit), max(curves.lrs["lr"]) or 1.0
    y = alt.Y("lr:Q").title("LR").axis(tickCount=3).scale(domain=[0, top], nice=False)
    line = (
        alt.Chart(csv(curves.lrs))
        .transform_filter(SHOWN)
        .mark_line(strokeWidth=1.5, interpolate="step-after")
        .encode(x, y, curves.colour)
    )
    return alt.layer(*_rules(curves, restarts, x), line).properties(width=WIDTH, height=90)


def _rules(curves: Curves, restarts: pl.DataFrame, x: alt.X) -> list[Any]:
    """Return a dashed line at each restart."""
    if restarts.is_empty():
        return []
    rule = alt.Chart(csv(restarts)).transform_filter(SHOWN)
    return [rule.mark_rule(strokeDash=[3, 3], opacity=0.45).encode(x, curves.colour)]


def _parameters(views: dict[str, str]) -> list[dict[str, Any]]:
    """Return what the page sets, and the selections of those views that the chart has."""
    hover = {"type": "point", "fields": ["epoch"], "on": "pointerover", "clear": "pointerout"}
    picked = {"type": "point", "fields": ["run"]}
    selections = [("picked", picked, "runs"), ("here", hover, "columns")]
    return [
        {"name": "hidden", "value": []},
        {"name": "singles", "value": True},
        *(
            {"name": name, "select": select, "views": [views[view]]}
            for name, select, view in selections
            if view in views
        ),
    ]


def _if(parameter: str, value: float, otherwise: float) -> dict[str, Any]:
    """Return an encoding's value where the selection holds the mark, and elsewhere."""
    condition = {"param": parameter, "empty": False, "value": value}
    return {"condition": condition, "value": otherwise}
