"""Charts of many arms: a panel each, over the baseline in grey; and the last part of training, enlarged."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from statistics import median
from typing import Any

import altair as alt
import polars as pl

from harness.report import charts
from harness.report.charts import COLUMNS, GREY, PANEL, WIDTH
from harness.report.curves import (
    LINE,
    MOST_PANEL_POINTS,
    SHOWN,
    Curves,
    csv,
    end_labels,
    of_field,
    thinned,
    value_range,
    value_title,
    what,
    with_room,
)

_LR_SHARE = 0.25  # of a panel's height: for its LR
_FAR = 4  # how many times as far from the best end as the median an end may be that the last part shows


def arm_grid(curves: Curves, behind: dict[int, int]) -> dict[str, Any]:
    """Draw each arm in a panel: its mean over the one `behind` it (else over all) and, at the bottom, its LR."""
    low, high = value_range(curves.mean, curves.scale)
    mean = thinned(curves.mean, "arm", "mean", MOST_PANEL_POINTS)
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
    y = alt.Y("mean:Q").title(f"{curves.scale.values} by {curves.unit}").axis(tickCount=4)
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


def _last_part(curves: Curves) -> float:
    """Return the last epoch at which a cycle begins; without cycles, or if that is early, two thirds of all."""
    last = max((epoch for epoch in curves.restarts["epoch"] if epoch < curves.end), default=0.0)
    return last if last >= curves.end / 2 else 2 * curves.end / 3


def ends(curves: Curves) -> dict[str, Any] | None:
    """Draw the means of the last part, with an axis that sets the ends apart, and the arms' names beside it.

    None without two arms and two evaluations. Ends that are far worse than the others are left out.
    """
    begin, sign = _last_part(curves), curves.scale.sign
    gains = curves.mean.with_columns(sign * pl.col("mean"))
    evaluated = gains.filter(pl.col("epoch") >= begin)["epoch"]
    if len(curves.names) < 2 or evaluated.n_unique() < 2:
        return None
    reached = curves.last.filter(pl.col("epoch") == evaluated.max())
    ended = sign * reached["mean"]
    best, middle = max(ended), median(ended)
    apart = 1.0 if curves.scale.is_accuracy else 0.1 * abs(best)  # what counts as far, at least
    near = reached.filter(ended >= best - _FAR * max(best - middle, apart))
    worst = min(sign * near["mean"])
    room = max((best - worst) / 3, median(near["sd"]), apart / 10) or 1.0
    top = min(100.0, best + room) if curves.scale.is_accuracy else best + room
    low, high = curves.scale.turned((worst - room, top))
    height = max(240, LINE * (len(near) + 2))
    late = _from(gains, begin, worst - room).with_columns(sign * pl.col("mean"))
    x = charts.epochs(
        floor(late.select(pl.col("epoch").min()).item()), curves.end, title=curves.unit
    )
    y = alt.Y("mean:Q").title(value_title(curves.scale)).scale(domain=[low, high], nice=False)
    line = alt.Chart(csv(late.with_columns(pl.col("mean").clip(low, high)))).mark_line(
        strokeWidth=2
    )
    if curves.few:
        line = line.transform_filter(SHOWN)
    layers = [line.encode(x, y, curves.colour), *end_labels(curves, near, [low, high], height)]
    description = f"{what(curves.scale)} in the last part of training"
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
