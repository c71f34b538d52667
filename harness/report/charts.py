"""Curves of runs by epoch: their data, and the LR of each arm as a picture. altair draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.analysis import results

# Okabe & Ito (2008): colours that the colour-blind tell apart, the yellow left out
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
_POINTS = 4000  # of an LR curve, at most: more than a screen has columns
WIDTH = 720  # pixels
_FACETS = 8  # arms, at most, that have a panel each
_JUMP = 0.5  # of the peak: a rise from one update to the next that is a restart
MARKS = 200  # restarts, at most, that are marked


def _colour(arms: list[str]) -> alt.Color:
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(arms))]
    scale = alt.Scale(domain=arms, range=colours)
    return alt.Color("arm:N", scale=scale, sort=arms).legend(
        orient="top", title=None, labelLimit=400, columns=3, symbolType="stroke", symbolOpacity=1
    )


alt.data_transformers.disable_max_rows()


def lr_panels(curves: pl.DataFrame, arms: list[str]) -> Any:
    """Draw `lr_curve` tables, one below the other: a panel an arm while they are few, with its restarts."""
    base = alt.Chart(curves).encode(_epochs(curves), _colour(arms))
    line = base.mark_line(strokeWidth=1.5, interpolate="step-after").encode(
        alt.Y("lr:Q").title("learning rate")
    )
    if len(arms) > _FACETS:
        return line.properties(width=WIDTH, height=300)
    marks = base.mark_rule(strokeDash=[2, 3], opacity=0.6).transform_filter("datum.restart")
    titles = alt.Header(labelOrient="top", labelAnchor="start", labelFontWeight="bold")
    return (
        alt.layer(marks.encode(_colour(arms).legend(None)), line.encode(_colour(arms).legend(None)))
        .properties(width=WIDTH, height=70)
        .facet(row=alt.Row("arm:N", sort=arms, title=None, header=titles), spacing=8)
    )


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


def stored_lr_curve(run: dict[str, Any], most: int = _POINTS) -> pl.DataFrame:
    """Return the `lr_curve` of a run's own LR plan."""
    plan = results.lr(Path(run["folder"]))
    return lr_curve(run["arm"], plan, run["updates_per_epoch"], most)


def _epochs(data: pl.DataFrame) -> alt.X:
    end: float = data.select(pl.col("epoch").max()).item()
    return alt.X("epoch:Q").title("epoch").scale(domain=[0, end], nice=False)


def thin(values: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Return the indices of at most about `most` of `values` that keep every peak and every trough visible."""
    if len(values) <= most:
        return np.arange(len(values))
    chunks = np.array_split(np.arange(len(values)), most // 2)
    extremes = {
        int(chunk[pick(values[chunk])]) for chunk in chunks for pick in (np.argmin, np.argmax)
    }
    return np.array(sorted(extremes | {0, len(values) - 1}))


def accuracies(runs: pl.DataFrame) -> pl.DataFrame:
    """Return `run` (its row in `runs`), `arm`, `epoch` and `acc` (percent) of all evaluations of `runs`."""
    frames = [
        results.history(Path(folder))
        .filter(pl.col("val/acc").is_finite())
        .select(run=pl.lit(row, pl.Int64), arm=pl.lit(arm), epoch="epoch", acc="val/acc")
        for row, (folder, arm) in enumerate(runs.select("folder", "arm").iter_rows())
    ]
    schema = {"run": pl.Int64, "arm": pl.String, "epoch": pl.Float64, "acc": pl.Float64}
    return pl.concat(frames) if frames else pl.DataFrame(schema=schema)


def means(points: pl.DataFrame) -> pl.DataFrame:
    """Return `arm`, `epoch`, `seeds`, `mean`, `sd` (0 for one seed), `low`, `high` of `accuracies`."""
    return (
        points.group_by("arm", "epoch", maintain_order=True)
        .agg(
            pl.len().alias("seeds"),
            pl.col("acc").mean().alias("mean"),
            pl.col("acc").std().fill_null(0).alias("sd"),
        )
        .with_columns(low=pl.col("mean") - pl.col("sd"), high=pl.col("mean") + pl.col("sd"))
    )
