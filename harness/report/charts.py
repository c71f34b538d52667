"""Curves of runs by epoch: their data, and the LR of each arm as a picture. altair draws."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.analysis import averages, measured, packed, results

# After Okabe & Ito (2008), whom the colour-blind can follow; all of a brightness that stands out from white paper
# (3:1 or more) and from the page's dark paper (4.5:1 or more)
COLOURS = ["#1F88D9", "#D55E00", "#009E73", "#CC79A7", "#9A6FE0", "#8A8A00"]
GREY = "#858585"  # what stands behind: a baseline
FEW = 4  # arms, at most, that share a panel
MOST_ARMS = 30  # that have curves
_POINTS = 4000  # of an LR curve, at most: more than a screen has columns
WIDTH = 720  # pixels
COLUMNS = 4  # of a grid of panels, a panel an arm
PANEL = 190  # pixels: the width of a panel in a grid
_JUMP = 0.5  # of the peak: a rise from one update to the next that is a restart
MARKS = 200  # restarts, at most, that are marked

alt.data_transformers.disable_max_rows()


def lr_panels(curves: pl.DataFrame, arms: list[str], unit: str = "epoch") -> Any:
    """Draw `lr_curve` tables, by epoch or another `unit`, a panel an arm, with its restarts: one below the other, or in a grid."""
    few = len(arms) <= FEW
    names = labels(arms, 90) if few else labels(without_key(arms), 24)
    curves = curves.with_columns(pl.col("arm").replace_strict(dict(zip(arms, names, strict=True))))
    title = {"title": unit if few else None}
    base = alt.Chart().encode(epochs(0, curves.select(pl.col("epoch").max()).item(), **title))
    line = base.mark_line(strokeWidth=1.5, interpolate="step-after", color=COLOURS[0])
    marks = base.mark_rule(strokeDash=[2, 3], opacity=0.6, color=COLOURS[0])
    y = alt.Y("lr:Q").title("learning rate" if few else f"LR by {unit}").axis(tickCount=3)
    layers = alt.layer(marks.transform_filter("datum.restart"), line.encode(y))
    panels = layers.properties(width=WIDTH if few else PANEL, height=70)
    grid = panels.facet(
        alt.Facet("arm:N", sort=names, header=panel_titles(WIDTH if few else PANEL)),
        data=curves,
        columns=1 if few else columns(len(arms), COLUMNS),
        spacing=12,
    )
    return grid if few else grid.resolve_axis(x="independent")


def panel_titles(width: int) -> alt.Header:
    """Return how panels of `width` pixels are named: by their field, at the top left, in `wrapped` lines."""
    return alt.Header(
        title=None, labelAnchor="start", labelFontWeight="bold", labelFontSize=12, labelPadding=4,
        labelExpr="split(datum.value, '\\n')", labelLimit=width,
    )  # fmt: skip


def columns(panels: int, most: int) -> int:
    """Return in how many columns, at most `most`, the rows of a grid are of like length."""
    return math.ceil(panels / math.ceil(panels / most))


def wrapped(name: str, width: int, lines: int = 2) -> str:
    """Return `name` in at most `lines` lines of `width` characters; an ellipsis stands for what is left out."""
    every = textwrap.wrap(name, width)
    if len(every) > lines:
        every[lines - 1] = f"{every[lines - 1][: width - 1]}…"
    return "\n".join(every[:lines])


def without_key(names: Sequence[str]) -> list[str]:
    """Return `names` without the `KEY=` with which all begin, if words, and no numbers, follow it."""
    keys, _, values = zip(*(name.partition("=") for name in names), strict=True)
    words = len({*keys}) == 1 and all(value[:1].isalpha() for value in values)
    return list(values if words else names)


def labels(names: Sequence[str], width: int) -> list[str]:
    """Return `names`, wrapped; those that then look alike have their numbers."""
    short = [wrapped(name, width) for name in names]
    return [
        f"{one} ({number})" if short.count(one) > 1 else one for number, one in enumerate(short, 1)
    ]


def x_unit(runs: pl.DataFrame) -> str:
    """Return what the curves of `runs` are drawn by: epoch, or step where another program recorded no epochs."""
    by_step = "budget_unit" in runs.columns and "steps" in runs["budget_unit"]
    return "step" if by_step else "epoch"


def epochs(begin: float, end: float, **axis: Any) -> alt.X:
    """Return the axis of epochs from `begin` to `end`; its ticks are whole ones, unless it is shorter than one."""
    ticks: dict[str, Any] = {"tickMinStep": 1}
    if end - begin < 10:  # where Vega may put some between
        whole = list(range(math.ceil(begin), math.floor(end) + 1))
        ticks = {"values": whole, "format": "d"} if len(whole) > 1 else {}
    x = alt.X("epoch:Q").scale(domain=[begin, end], nice=False)
    return x.axis(**({"title": "epoch"} | ticks | axis))


def lr_curve(
    arm: str, plan: NDArray[np.float64], updates_per_epoch: int, most: int = _POINTS
) -> pl.DataFrame:
    """Return epoch and LR of each update of a plan, thinned; the last LR lasts to the end.

    `restart` marks the first update after a jump of the LR, where there are few enough to show.
    """
    kept = thin(plan, most)
    rising = np.flatnonzero(np.diff(plan) > _JUMP * plan.max()) + 1
    restarts = np.isin(kept, rising if len(rising) <= MARKS else [])
    epochs = [*kept / updates_per_epoch, len(plan) / updates_per_epoch]
    lrs = [*plan[kept], plan[-1]]
    columns = {"epoch": epochs, "lr": lrs, "restart": [*restarts.tolist(), False]}
    return pl.DataFrame(columns).with_columns(arm=pl.lit(arm))


def has_lr(run: dict[str, Any]) -> bool:
    """Return whether it is known what LRs a run had or will have."""
    folder = Path(run["folder"])
    if packed.is_packed(folder):
        return run["restarts"] is not None and not _recorded_lrs(folder).is_empty()
    return bool(run["updates_per_epoch"]) and (folder / "lr.npy").exists()


def first_with_lr(runs: pl.DataFrame) -> dict[Any, dict[str, Any]]:
    """Return the first run of each arm of which the LRs are known."""
    first: dict[Any, dict[str, Any]] = {}
    for run in runs.to_dicts():
        if run["arm"] not in first and has_lr(run):
            first[run["arm"]] = run
    return first


def stored_lr_curve(run: dict[str, Any], most: int = _POINTS) -> pl.DataFrame:
    """Return the `lr_curve` of a run's own LR plan, or the LRs that it recorded."""
    folder = Path(run["folder"])
    if packed.is_packed(folder):
        rows = _recorded_lrs(folder)
        lrs = rows["lr"].to_numpy()
        kept = rows[thin(lrs, most)]
        rises = pl.col("lr").diff().fill_null(0) > _JUMP * lrs.max(initial=0)
        return kept.select("epoch", "lr", restart=rises, arm=pl.lit(run["arm"]))
    plan = results.lr(folder)
    return lr_curve(run["arm"], plan, run["updates_per_epoch"], most)


def _recorded_lrs(folder: Path) -> pl.DataFrame:
    """Return the rows of a packed run of which LR and epoch are known."""
    return results.history(folder).filter(pl.all_horizontal(pl.col("epoch", "lr").is_finite()))


def thin(values: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Return the indices of at most about `most` of `values` that keep every peak and every trough visible."""
    if len(values) <= most:
        return np.arange(len(values))
    chunks = np.array_split(np.arange(len(values)), most // 2)
    extremes = {
        int(chunk[pick(values[chunk])]) for chunk in chunks for pick in (np.argmin, np.argmax)
    }
    return np.array(sorted(extremes | {0, len(values) - 1}))


def evaluations(runs: pl.DataFrame, name: str = "acc") -> pl.DataFrame:
    """Return `run` (its row in `runs`), `arm`, `epoch` and `value` (of the metric `name`) of all evaluations of `runs`."""
    metric = f"val/{name}"
    frames = [
        results.history(Path(folder), average, measured.own_names([name]))
        .filter(pl.col(metric).is_finite())
        .select(run=pl.lit(row, pl.Int64), arm=pl.lit(arm), epoch="epoch", value=metric)
        for row, (folder, arm, average) in enumerate(
            zip(runs["folder"], runs["arm"], averages.of_table(runs), strict=True)
        )
    ]
    schema = {"run": pl.Int64, "arm": pl.String, "epoch": pl.Float64, "value": pl.Float64}
    return pl.concat(frames) if frames else pl.DataFrame(schema=schema)


def means(points: pl.DataFrame) -> pl.DataFrame:
    """Return `arm`, `epoch`, `seeds`, `mean`, `sd` (0 for one seed), `low`, `high` of `evaluations`."""
    return (
        points.group_by("arm", "epoch", maintain_order=True)
        .agg(
            pl.len().alias("seeds"),
            pl.col("value").mean().alias("mean"),
            pl.col("value").std().fill_null(0).alias("sd"),
        )
        .with_columns(low=pl.col("mean") - pl.col("sd"), high=pl.col("mean") + pl.col("sd"))
    )
