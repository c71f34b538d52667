"""Pictures of a sweep: LR and validation accuracy by epoch, one colour an arm. altair draws them."""

from __future__ import annotations

from math import ceil, floor
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness import results

# Okabe & Ito (2008): colours that the colour-blind tell apart, the yellow left out
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
_POINTS = 4000  # of an LR curve, at most: more than a screen has columns
_WIDTH = 720  # pixels
_FACETS = 8  # arms, at most, that have a panel each


def write(sweep: Path, runs: pl.DataFrame) -> list[Path]:
    """`lr` and `val_acc`, as .png and .html, in the sweep's folder; the paths of the pictures.

    Arms without any evaluation are left out of `val_acc`; a sweep without runs has no pictures.
    """
    begun = runs.filter(pl.col("restarts").is_not_null())
    if begun.is_empty():
        return []
    arms = begun["arm"].unique(maintain_order=True).to_list()
    charts = {"lr": lr(begun, arms), "val_acc": val_acc(begun, arms)}
    paths = []
    for name, chart in charts.items():
        if chart is None:
            continue
        for suffix in ("png", "html"):
            path = sweep / f"{name}.{suffix}"
            options = {"scale_factor": 2} if suffix == "png" else {"inline": True}
            chart.save(path, **options)
            paths.append(path)
    return paths


def _colour(arms: list[str]) -> alt.Color:
    colours = [_COLOURS[i % len(_COLOURS)] for i in range(len(arms))]
    scale = alt.Scale(domain=arms, range=colours)
    return alt.Color("arm:N", scale=scale, sort=arms).legend(
        orient="top", title=None, labelLimit=400, columns=3, symbolType="stroke", symbolOpacity=1
    )


def lr(runs: pl.DataFrame, arms: list[str]) -> Any:
    """The LR that every update used, by epoch; one curve an arm (its seeds share it)."""
    first = runs.unique("arm", keep="first", maintain_order=True)
    curve = pl.concat([_lr_curve(run) for run in first.to_dicts()])
    chart = (
        alt.Chart(curve)
        .mark_line(strokeWidth=1.5, interpolate="step-after")
        .encode(_epochs(curve), alt.Y("lr:Q").title("learning rate"), _colour(arms))
    )
    if len(arms) > _FACETS:
        return chart.properties(width=_WIDTH, height=300)
    titles = alt.Header(labelOrient="top", labelAnchor="start", labelFontWeight="bold")
    return (
        chart.encode(_colour(arms).legend(None))
        .properties(width=_WIDTH, height=70)
        .facet(row=alt.Row("arm:N", sort=arms, title=None, header=titles), spacing=8)
    )


def _lr_curve(run: dict[str, Any]) -> pl.DataFrame:
    """Epoch and LR of each update of a run's plan, thinned; the last LR lasts to the end."""
    plan = results.lr(Path(run["folder"]))
    kept = thin(plan, _POINTS)
    epochs, lrs = [*kept / run["updates_per_epoch"]], [*plan[kept]]
    epochs.append(len(plan) / run["updates_per_epoch"])
    lrs.append(plan[-1])
    return pl.DataFrame({"epoch": epochs, "lr": lrs}).with_columns(arm=pl.lit(run["arm"]))


def _epochs(data: pl.DataFrame) -> alt.X:
    end: float = data.select(pl.col("epoch").max()).item()
    return (
        alt.X("epoch:Q").title("epoch").scale(domain=[0, end], nice=False)
        .axis(values=_ticks(end), format="~g")
    )  # fmt: skip


def _ticks(end: float) -> list[float]:
    """Round numbers from 0 to `end`, multiples of 5 where there is room: cycles often are."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000)
    step = next((step for step in steps if end / step <= 16), end)
    return [float(tick) for tick in np.arange(0, end + step / 2, step) if tick <= end]


def thin(values: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Indices of at most about `most` of `values` that keep every peak and every trough visible."""
    if len(values) <= most:
        return np.arange(len(values))
    chunks = np.array_split(np.arange(len(values)), most // 2)
    extremes = {
        int(chunk[pick(values[chunk])]) for chunk in chunks for pick in (np.argmin, np.argmax)
    }
    return np.array(sorted(extremes | {0, len(values) - 1}))


def val_acc(runs: pl.DataFrame, arms: list[str]) -> Any:
    """Validation accuracy by epoch: the mean over an arm's seeds, and ± 1 standard deviation."""
    frames = [
        results.history(Path(run["folder"]))
        .filter(pl.col("val/acc").is_not_null())
        .select("epoch", acc="val/acc", arm=pl.lit(run["arm"]))
        for run in runs.to_dicts()
        if run["best"] is not None
    ]
    if not frames:
        return None
    points = (
        pl.concat(frames)
        .group_by("arm", "epoch", maintain_order=True)
        .agg(
            pl.len().alias("seeds"),
            pl.col("acc").mean().alias("mean"),
            pl.col("acc").std().fill_null(0).alias("sd"),
        )
        .with_columns(low=pl.col("mean") - pl.col("sd"), high=pl.col("mean") + pl.col("sd"))
    )
    seeds: int = points.select(pl.col("seeds").max()).item()
    base = alt.Chart(points).encode(_epochs(points), _colour(arms))
    lowest, highest = points.select(pl.col("low").min(), pl.col("high").max()).row(0)
    tens = [max(0, 10 * floor(lowest / 10)), min(100, 10 * ceil(highest / 10))]
    band = base.mark_area(opacity=0.18, clip=True).encode(
        alt.Y("low:Q").title("validation accuracy (%)").scale(domain=tens, nice=False),
        alt.Y2("high:Q"),
    )
    tooltip = [
        alt.Tooltip("arm:N"),
        alt.Tooltip("epoch:Q", format=".2f"),
        alt.Tooltip("mean:Q", format=".2f", title="val/acc %"),
        alt.Tooltip("sd:Q", format=".2f", title="standard deviation"),
        alt.Tooltip("seeds:Q"),
    ]
    line = base.mark_line(strokeWidth=1.5).encode(alt.Y("mean:Q"), tooltip=tooltip)
    subtitle = f"mean ± 1 standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    return alt.layer(band, line).properties(
        width=_WIDTH, height=300, title=alt.Title("Validation accuracy", subtitle=subtitle)
    )
