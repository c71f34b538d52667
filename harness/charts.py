"""Pictures of a sweep: LR and validation accuracy by epoch, one colour an arm. altair draws them."""

from __future__ import annotations

from pathlib import Path

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness import results

# Okabe & Ito (2008): colours that the colour-blind tell apart, the yellow left out
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
_POINTS = 4000  # of an LR curve, at most: more than a screen has columns
_WIDTH = 720


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
        orient="top", title=None, labelLimit=400, columns=3
    )


def lr(runs: pl.DataFrame, arms: list[str]) -> alt.LayerChart | alt.Chart:
    """The LR that every update used, by epoch; one curve an arm (its seeds share it)."""
    first = runs.unique("arm", keep="first", maintain_order=True)
    frames = []
    for run in first.to_dicts():
        plan = results.lr(Path(run["folder"]))
        kept = thin(plan, _POINTS)
        frames.append(
            pl.DataFrame({"epoch": kept / run["updates_per_epoch"], "lr": plan[kept]}).with_columns(
                arm=pl.lit(run["arm"])
            )
        )
    return (
        alt.Chart(pl.concat(frames))
        .mark_line(strokeWidth=1.5)
        .encode(
            alt.X("epoch:Q").title("epoch"),
            alt.Y("lr:Q").title("learning rate"),
            _colour(arms),
        )
        .properties(width=_WIDTH, height=70)
        .facet(row=alt.Row("arm:N", sort=arms).title(None).header(labels=False))
    )


def thin(values: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Indices of at most about `most` of `values` that keep every peak and every trough visible."""
    if len(values) <= most:
        return np.arange(len(values))
    chunks = np.array_split(np.arange(len(values)), most // 2)
    extremes = {
        int(chunk[pick(values[chunk])]) for chunk in chunks for pick in (np.argmin, np.argmax)
    }
    return np.array(sorted(extremes | {0, len(values) - 1}))


def val_acc(runs: pl.DataFrame, arms: list[str]) -> alt.LayerChart | None:
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
    seeds = points["seeds"].max()
    base = alt.Chart(points).encode(alt.X("epoch:Q").title("epoch"), _colour(arms))
    band = base.mark_area(opacity=0.18).encode(
        alt.Y("low:Q").title("validation accuracy (%)").scale(zero=False), alt.Y2("high:Q")
    )
    tooltip = [
        alt.Tooltip("arm:N"),
        alt.Tooltip("epoch:Q", format=".2f"),
        alt.Tooltip("mean:Q", format=".2f", title="val/acc %"),
        alt.Tooltip("sd:Q", format=".2f", title="standard deviation"),
        alt.Tooltip("seeds:Q"),
    ]
    line = base.mark_line(strokeWidth=1.5).encode(alt.Y("mean:Q"), tooltip=tooltip)
    subtitle = (
        f"mean ± 1 standard deviation over {seeds} seeds" if seeds and seeds > 1 else "one seed"
    )
    return alt.layer(band, line).properties(
        width=_WIDTH, height=300, title=alt.Title("Validation accuracy", subtitle=subtitle)
    )
