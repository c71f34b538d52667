"""The charts of a sweep's curves, for the page and for `val_acc.png`: arms by number.

Few arms share a panel; more have a panel each, over the baseline in grey. A second chart shows the last part of
training, with an axis that sets the ends apart.

Vega-lite puts titles into its expressions without escaping them: no text of a user's is a title
here, names come in as data. The legend is the page's own buttons, which set `hidden`: Vega's (`bind="legend"`)
cannot be reached by keys, does not wrap on a phone, and would not switch the arms of two charts at once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor
from pathlib import Path
from statistics import median
from typing import Any

import altair as alt
import polars as pl

from harness.analysis import results
from harness.analysis.pairing import level_key
from harness.report import charts
from harness.report.charts import COLOURS, COLUMNS, FEW, GREY, MARKS, MOST_ARMS, PANEL, WIDTH

SHOWN = "indexof(hidden, datum.arm) < 0"
MOST_RUNS = 200  # that are drawn one by one
_MOST_POINTS = 40_000  # of each kind of curve where few arms share a panel
_MOST_PANEL_POINTS = 150  # of a curve in a panel of its own
_MOST_EPOCHS = 3000  # that have a tooltip
AXIS = 78  # pixels: what the y axis of a chart takes, and some room at the right
LETTER = 7  # pixels: the width of a letter of a label
_LINE = 15  # pixels: from one label to the next
_MOST_ROOM = 420  # pixels: for the names of arms beside a chart
_LR_SHARE = 0.25  # of a panel's height: for its LR
_FAR = 4  # how many times as far from the best end as the median an end may be that the last part shows


@dataclass(frozen=True)
class Overview:
    """Validation accuracy and LR by epoch, and its last part (`ends`).

    `panels`: every arm has its own; `baselines`: over the curve of its baseline. `bands`: arms have several runs;
    `singles`: these are drawn one by one, too. `notes` say what was thinned or left out.
    """

    chart: dict[str, Any]
    ends: dict[str, Any] | None
    has_accuracy: bool
    panels: bool
    baselines: bool
    bands: bool
    singles: bool
    notes: list[str]


@dataclass(frozen=True)
class _Curves:
    """The curves of a sweep by the number of the arm: accuracies of runs, their means, LRs, restarts."""

    names: list[str]
    run_names: list[str]
    colour: alt.Color
    points: pl.DataFrame
    mean: pl.DataFrame
    lrs: pl.DataFrame
    restarts: pl.DataFrame
    end: float

    @property
    def few(self) -> bool:
        return len(self.names) <= FEW

    @property
    def last(self) -> pl.DataFrame:
        """The last mean of each arm, with a label that says where that was if not at the end."""
        last = self.mean.sort("epoch").unique("arm", keep="last", maintain_order=True).sort("arm")
        labels = [
            f"{mean:.2f} {self.names[arm]}{f' (epoch {epoch:g})' if epoch < self.end else ''}"
            for arm, mean, epoch in last.select("arm", "mean", "epoch").iter_rows()
        ]
        return last.with_columns(label=pl.Series(labels, dtype=pl.String))

    @property
    def room(self) -> int:
        """The pixels that labels take beside a chart."""
        return min(_MOST_ROOM, 20 + LETTER * max(map(len, self.last["label"]), default=0))


def overview(
    runs: pl.DataFrame, arms: Sequence[str], baseline: str | None = None
) -> Overview | None:
    """Draw the curves of `runs`; None if none has any yet, or there are more than `MOST_ARMS` arms.

    `arms` are the names behind the numbers; `baseline` is the level of the claim's baseline.
    """
    if len(arms) > MOST_ARMS:
        return None
    numbers = {arm: number for number, arm in enumerate(arms)}
    runs = runs.with_columns(pl.col("arm").replace_strict(numbers, return_dtype=pl.Int64))
    points, lrs = charts.accuracies(runs), _lr_curves(runs)
    end = max([*points["epoch"], *lrs["epoch"]], default=0.0)
    if not end:
        return None
    few = len(arms) <= FEW
    behind = _baselines(runs, baseline) if baseline is not None and not few else {}
    mean = charts.means(points).with_columns(pl.col("low", "high").clip(0, 100))
    curves = _Curves(
        list(arms) if few else charts.without_key(arms), runs["name"].to_list(),
        colour_of(len(arms), behind.values()), points, mean, lrs, _restart_marks(runs), end,
    )  # fmt: skip
    bands = max(mean["seeds"], default=1) > 1
    notes: list[str] = []
    singles = _singles(curves, notes) if few and bands else points.clear()
    chart = _together(curves, singles, notes) if few else _grid(curves, behind)
    return Overview(
        chart, _ends(curves), len(points) > 0, not few, bool(behind), bands,
        len(singles) > 0, notes,
    )  # fmt: skip


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


def _lr_curves(runs: pl.DataFrame) -> pl.DataFrame:
    """Return `arm`, `epoch`, `lr`: one curve an arm, of its first run that has a plan."""
    planned = [
        run
        for run in runs.to_dicts()
        if run["updates_per_epoch"] and (Path(run["folder"]) / "lr.npy").exists()
    ]
    first = {run["arm"]: run for run in reversed(planned)}
    most = 2000 if len(first) <= FEW else _MOST_PANEL_POINTS
    curves = [charts.stored_lr_curve(run, most) for run in first.values()]
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


def _thinned(points: pl.DataFrame, curve: str, value: str, most: int) -> pl.DataFrame:
    """Return `points`, fewer where a `curve` has more than `most`; each keeps its extremes."""
    return pl.concat(
        [points.clear()]
        + [
            group[charts.thin(group[value].to_numpy(), most)]
            for _, group in points.group_by(curve, maintain_order=True)
        ]
    )


def _tens(mean: pl.DataFrame) -> list[int]:
    """Return the range of accuracies, from ten to ten percent."""
    if mean.is_empty():
        return [0, 100]
    lowest, highest = mean.select(pl.col("low").min(), pl.col("high").max()).row(0)
    return [max(0, 10 * floor(lowest / 10)), min(100, 10 * ceil(highest / 10))]


# --- few arms: a panel for all, above that of the LR ---------------------------------------------


def _singles(curves: _Curves, notes: list[str]) -> pl.DataFrame:
    """Return the accuracies of single runs; none, and a note, where there are too many runs."""
    runs = curves.points["run"].n_unique()
    if runs <= MOST_RUNS:
        return curves.points
    notes.append(f"Single runs are drawn if they are {MOST_RUNS} at most; here are {runs}.")
    return curves.points.clear()


def _together(curves: _Curves, singles: pl.DataFrame, notes: list[str]) -> dict[str, Any]:
    """Draw accuracy above LR on one x axis; add to `notes` what is left out.

    The page sets its parameters `hidden` (numbers of arms), `singles` (whether single runs are drawn) and `room`.
    """
    restarts = curves.restarts
    if len(restarts) > MARKS:
        restarts = restarts.clear()
        notes.append("Restarts are not marked: there are too many.")
    mean = _thinned(curves.mean, "arm", "mean", _MOST_POINTS // FEW)
    few_singles = _thinned(singles, "run", "acc", _MOST_POINTS // MOST_RUNS)
    if len(mean) + len(few_singles) < len(curves.mean) + len(singles):
        notes.append("Curves are thinned; peaks and troughs stay.")
    panels = []
    if len(mean):
        panels.append(_accuracy_panel(curves, mean, few_singles, restarts))
    if len(curves.lrs):
        panels.append(_lr_panel(curves, restarts))
    description = "Validation accuracy and learning rate by epoch, a colour an arm"
    chart: dict[str, Any] = (
        alt.vconcat(*panels, spacing=18, bounds="flush", description=description)
        .resolve_scale(x="shared")
        .to_dict()
    )
    layers = [layer.get("name", "") for panel in chart["vconcat"] for layer in panel["layer"]]
    views = {name.partition("_")[0]: name for name in layers}  # altair adds the panel's number
    chart["params"] = _parameters(views)  # altair would put them into each layer of a panel
    return with_room(chart, curves.room)


def _accuracy_panel(
    curves: _Curves, mean: pl.DataFrame, singles: pl.DataFrame, restarts: pl.DataFrame
) -> Any:
    x, tens = charts.epochs(0, curves.end, labels=False, title=None), _tens(mean)
    y = alt.Y("mean:Q").title("validation accuracy (%)").scale(domain=tens, nice=False)
    names = pl.DataFrame({"arm": range(len(curves.names)), "name": curves.names})
    named = alt.LookupData(csv(names), "arm", ["name"])
    base = alt.Chart(csv(mean)).transform_filter(SHOWN).transform_lookup("arm", named).encode(x)
    tooltip = [alt.Tooltip("name:N", title="mean of")]
    line = base.mark_line(strokeWidth=2).encode(y, curves.colour, tooltip=tooltip)
    layers = [
        *_rules(curves, restarts, x),
        base.mark_area(opacity=0.18).encode(of_field("low", y), alt.Y2("high:Q"), curves.colour),
        _hover(base, x, mean["epoch"].unique().sort().to_list()),
        *_single_runs(curves, singles, x, of_field("acc", y)),
        line,
        *_labels(curves, curves.last, tens, 300),
    ]
    return alt.layer(*layers).properties(width=WIDTH, height=300)


def _single_runs(curves: _Curves, points: pl.DataFrame, x: alt.X, y: alt.Y) -> list[Any]:
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


def _lr_panel(curves: _Curves, restarts: pl.DataFrame) -> Any:
    x, top = charts.epochs(0, curves.end), max(curves.lrs["lr"]) or 1.0
    y = alt.Y("lr:Q").title("LR").axis(tickCount=3).scale(domain=[0, top], nice=False)
    line = (
        alt.Chart(csv(curves.lrs))
        .transform_filter(SHOWN)
        .mark_line(strokeWidth=1.5, interpolate="step-after")
        .encode(x, y, curves.colour)
    )
    return alt.layer(*_rules(curves, restarts, x), line).properties(width=WIDTH, height=90)


def _rules(curves: _Curves, restarts: pl.DataFrame, x: alt.X) -> list[Any]:
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


# --- more arms: a panel each ---------------------------------------------------------------------


def _grid(curves: _Curves, behind: dict[int, int]) -> dict[str, Any]:
    """Draw each arm in a panel: its mean over the one `behind` it (else over all) and, at the bottom, its LR."""
    low, high = _tens(curves.mean)
    mean = _thinned(curves.mean, "arm", "mean", _MOST_PANEL_POINTS)
    own = mean.select("arm", "epoch", "mean", "low", "high", panel="arm", kind=pl.lit("own"))
    share = _LR_SHARE * (high - low) / (max(curves.lrs["lr"], default=0) or 1.0)
    lrs = {"mean": low + share * pl.col("lr"), "low": pl.lit(low), "high": pl.lit(low)}
    rows = [
        own,
        curves.last.select("arm", "epoch", "mean", "low", "high", panel="arm", kind=pl.lit("end")),
        curves.lrs.select("arm", "epoch", **lrs, panel="arm", kind=pl.lit("lr")),
        *(
            own.filter(arm=base).with_columns(panel=pl.lit(arm), kind=pl.lit("behind"))
            for arm, base in behind.items()
        ),
    ]
    x = charts.epochs(0, curves.end, title=None)
    y = alt.Y("mean:Q").title("val/acc (%) by epoch").axis(tickCount=4)
    y = y.scale(domain=[low, high], nice=False)

    def of_kind(kind: str) -> alt.Chart:
        return alt.Chart().transform_filter(f"datum.kind == '{kind}'").encode(x, y)

    grey = of_kind("behind").mark_line(color=GREY, strokeWidth=1.5)
    if not behind:
        every = alt.Chart(csv(own.select("arm", "epoch", "mean"))).encode(x, y, detail="arm:N")
        grey = every.mark_line(color=GREY, strokeWidth=0.7, opacity=0.6)
    layers = [
        of_kind("lr").mark_area(color="gray", opacity=0.3, interpolate="step-after")
        .encode(alt.Y2("low:Q")),
        grey,
        of_kind("own").mark_area(opacity=0.25)
        .encode(of_field("low", y), alt.Y2("high:Q"), curves.colour),
        of_kind("own").mark_line(strokeWidth=2).encode(curves.colour),
        of_kind("end").mark_point(filled=True, size=40, opacity=1).encode(curves.colour),
    ]  # fmt: skip
    return grid(layers, pl.concat(rows, how="vertical_relaxed"), curves.names, 110)


def grid(
    layers: Sequence[Any], rows: pl.DataFrame, names: Sequence[str], height: int
) -> dict[str, Any]:
    """Draw `layers` for each `panel` of `rows`, the number of a name; the page sets width and columns."""
    short = charts.labels(charts.without_key(names), 24)
    titles = pl.DataFrame({"panel": range(len(names)), "title": short})
    panels = rows["panel"].n_unique()
    order = alt.EncodingSortField(field="panel", op="min")
    panel = alt.Facet("title:N", sort=order, header=charts.panel_titles(PANEL))
    chart: dict[str, Any] = (
        alt.layer(*layers)
        .properties(width=PANEL, height=height)
        .facet(panel, data=csv(rows), columns=charts.columns(panels, COLUMNS), spacing=14)
        .resolve_axis(x="independent")
        .properties(description="A panel an arm")
        .to_dict()
    )
    found = alt.LookupData(csv(titles), "panel", ["title"]).to_dict()
    transform = [{"lookup": "panel", "from": found}]
    return chart | {"transform": transform, "usermeta": {"panels": panels}}


# --- the ends ------------------------------------------------------------------------------------


def _last_part(curves: _Curves) -> float:
    """Return the last epoch at which a cycle begins; without cycles, or if that is early, two thirds of all."""
    last = max((epoch for epoch in curves.restarts["epoch"] if epoch < curves.end), default=0.0)
    return last if last >= curves.end / 2 else 2 * curves.end / 3


def _ends(curves: _Curves) -> dict[str, Any] | None:
    """Draw the means of the last part, with an axis that sets the ends apart, and the arms' names beside it.

    None without two arms and two evaluations. Ends far below the others are left out.
    """
    begin = _last_part(curves)
    evaluated = curves.mean.filter(pl.col("epoch") >= begin)["epoch"]
    if len(curves.names) < 2 or evaluated.n_unique() < 2:
        return None
    reached = curves.last.filter(pl.col("epoch") == evaluated.max())
    best, middle = max(reached["mean"]), median(reached["mean"])
    near = reached.filter(pl.col("mean") >= best - _FAR * max(best - middle, 1.0))
    room = max((best - min(near["mean"])) / 3, median(near["sd"]), 0.1)
    low, high = min(near["mean"]) - room, min(100.0, best + room)
    height = max(240, _LINE * (len(near) + 2))
    late = _from(curves.mean, begin, low)
    x = charts.epochs(floor(late.select(pl.col("epoch").min()).item()), curves.end)
    y = alt.Y("mean:Q").title("validation accuracy (%)").scale(domain=[low, high], nice=False)
    line = alt.Chart(csv(late.with_columns(pl.col("mean").clip(low, high)))).mark_line(
        strokeWidth=2
    )
    if curves.few:
        line = line.transform_filter(SHOWN)
    layers = [line.encode(x, y, curves.colour), *_labels(curves, near, [low, high], height)]
    description = "Validation accuracy in the last part of training"
    chart: dict[str, Any] = (
        alt.layer(*layers).properties(width=WIDTH, height=height, description=description).to_dict()
    )
    chart["params"] = [{"name": "hidden", "value": []}]
    return with_room(chart, curves.room)


def _from(mean: pl.DataFrame, begin: float, low: float) -> pl.DataFrame:
    """Return `arm`, `epoch`, `mean` of each curve from where it is past epoch `begin` and stays above `low`."""
    parts: list[tuple[Any, float, float]] = []
    for (arm,), curve in mean.sort("epoch").group_by("arm", maintain_order=True):
        points = list(curve.select("epoch", "mean").iter_rows())
        outside = [at for at, (epoch, own) in enumerate(points) if epoch < begin or own < low]
        part = points[outside[-1] + 1 if outside else 0 :]
        if outside and part:
            (x, y), (to_x, to_y) = points[outside[-1]], part[0]
            edges = ((x, begin, to_x), (y, low, to_y))
            share = max((edge - one) / (other - one) for one, edge, other in edges if one < edge)
            part.insert(0, (x + share * (to_x - x), y + share * (to_y - y)))
        parts += [(arm, *point) for point in part]
    schema = {"arm": pl.Int64, "epoch": pl.Float64, "mean": pl.Float64}
    return pl.DataFrame(parts, schema=schema, orient="row")


def _labels(curves: _Curves, last: pl.DataFrame, domain: Sequence[float], height: int) -> list[Any]:
    """Return the name of each arm right of a chart, level with its `last` mean as far as there is room."""
    gap = _LINE * (domain[1] - domain[0]) / height
    places = spread(last["mean"].to_list(), gap, domain[0], domain[1])
    place = pl.Series(places, dtype=pl.Float64)
    base = alt.Chart(csv(last.select("arm", "epoch", "mean", "label", place=place)))
    if curves.few:
        base = base.transform_filter(SHOWN)
    y, edge = alt.Y("mean:Q"), alt.value("width")
    leader = base.transform_filter(f"datum.epoch >= {curves.end}").mark_rule(x2Offset=12)
    text = base.mark_text(
        align="left", dx=15, fontSize=12, color="currentColor", limit=alt.ExprRef("room - 15")
    )
    return [
        base.mark_point(filled=True, size=45, opacity=1).encode(y, curves.colour, x="epoch:Q"),
        leader.encode(y, alt.Y2("place:Q"), curves.colour, x=edge, x2=edge),
        text.encode(of_field("place", y), x=edge, text="label:N"),
    ]


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return a place for each value, near it and in the same order: at least `gap` apart, from `low` to `high`."""
    order = sorted(range(len(values)), key=values.__getitem__)
    places: list[float] = []
    for number in order:
        own = min(max(values[number], low), high)
        places.append(max(own, places[-1] + gap) if places else own)
    ceiling = high
    for at in reversed(range(len(places))):
        places[at] = min(places[at], ceiling)
        ceiling = places[at] - gap
    return [place for _, place in sorted(zip(order, places, strict=True))]


# --- what charts have in common ------------------------------------------------------------------


def with_room(chart: dict[str, Any], room: int) -> dict[str, Any]:
    """Return a chart that has `room` pixels beside it for labels; the page makes it less on a narrow screen."""
    params = [*chart.get("params", []), {"name": "room", "value": room}]
    return chart | {"params": params, "usermeta": {"room": room}}


def colour_of(arms: int, grey: Collection[int] = ()) -> alt.Color:
    scale = [GREY if arm in grey else COLOURS[arm % len(COLOURS)] for arm in range(arms)]
    return alt.Color("arm:N").scale(domain=list(range(arms)), range=scale).legend(None)


def of_field(field: str, channel: alt.X | alt.Y) -> Any:
    """Return a copy of `channel` for another field."""
    other = channel.copy()
    other.shorthand = f"{field}:Q"
    return other


def csv(frame: pl.DataFrame) -> alt.InlineData:
    """Return `frame` to be written into a page in few characters."""
    parse = {
        name: "number" if dtype.is_numeric() else "string" for name, dtype in frame.schema.items()
    }
    floats = pl.selectors.float()
    text = frame.with_columns(floats.round_sig_figs(6)).write_csv()
    return alt.InlineData(values=text, format=alt.CsvDataFormat(type="csv", parse=parse))
