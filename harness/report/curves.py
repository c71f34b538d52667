"""The curves of arms by their number, and what their charts have in common: labels, colours, data written short.

Vega-lite puts titles into its expressions without escaping them: no text of a user's is a title
in these charts, names come in as data.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl

from harness.analysis import results
from harness.analysis.scale import Scale
from harness.report import charts
from harness.report.charts import COLOURS, FEW, GREY

SHOWN = "indexof(hidden, datum.arm) < 0"
MOST_PANEL_POINTS = 150  # of a curve in a panel of its own
LETTER = 7  # pixels: the width of a letter of a label
LINE = 15  # pixels: from one label to the next
_MOST_ROOM = 420  # pixels: for the names of arms beside a chart


@dataclass(frozen=True)
class Curves:
    """The curves of a sweep by the number of the arm: evaluations of runs, their means, LRs, restarts.

    `scale` is that of the metric, on the validation images.
    """

    names: list[str]
    run_names: list[str]
    colour: alt.Color
    points: pl.DataFrame
    mean: pl.DataFrame
    lrs: pl.DataFrame
    restarts: pl.DataFrame
    end: float
    scale: Scale
    unit: str = "epoch"  # or step: what the x axis counts

    @property
    def few(self) -> bool:
        return len(self.names) <= FEW

    @property
    def last(self) -> pl.DataFrame:
        """The last mean of each arm, with a label that says where that was if not at the end."""
        last = self.mean.sort("epoch").unique("arm", keep="last", maintain_order=True).sort("arm")
        names = charts.without_key(self.names)
        labels = [
            f"{mean:.{self.scale.places_shown}f} {names[arm]}{f' ({self.unit} {epoch:g})' if epoch < self.end else ''}"
            for arm, mean, epoch in last.select("arm", "mean", "epoch").iter_rows()
        ]
        return last.with_columns(label=pl.Series(labels, dtype=pl.String))

    @property
    def room(self) -> int:
        """The pixels that labels take beside a chart."""
        return min(_MOST_ROOM, 20 + LETTER * max(map(len, self.last["label"]), default=0))


def lr_curves(runs: pl.DataFrame) -> pl.DataFrame:
    """Return `arm`, `epoch`, `lr`: one curve an arm, of its first run that has a plan."""
    first = charts.first_with_lr(runs)
    most = 2000 if len(first) <= FEW else MOST_PANEL_POINTS
    curves = [charts.stored_lr_curve(run, most) for run in first.values()]
    schema = {"epoch": pl.Float64, "lr": pl.Float64, "arm": pl.Int64}
    return pl.concat(curves) if curves else pl.DataFrame(schema=schema)


def restart_marks(runs: pl.DataFrame) -> pl.DataFrame:
    """Return `arm` and `epoch` of the restarts in the plan of its first run with a result."""
    begun = runs.filter(pl.col("restarts") > 0).unique("arm", keep="first", maintain_order=True)
    rows = [
        (arm, float(epoch))
        for arm, folder in begun.select("arm", "folder").iter_rows()
        for epoch in (results.result(Path(folder)).get("plan") or {}).get("restart_epochs", [])
    ]
    return pl.DataFrame(rows, schema={"arm": pl.Int64, "epoch": pl.Float64}, orient="row")


def thinned(points: pl.DataFrame, curve: str, value: str, most: int) -> pl.DataFrame:
    """Return `points`, fewer where a `curve` has more than `most`; each keeps its extremes."""
    return pl.concat(
        [points.clear()]
        + [
            group[charts.thin(group[value].to_numpy(), most)]
            for _, group in points.group_by(curve, maintain_order=True)
        ]
    )


def value_range(mean: pl.DataFrame, scale: Scale) -> list[float]:
    """Return the range of an axis: of accuracies from ten to ten percent, else with some room."""
    if mean.is_empty():
        return [0, 100]
    lowest, highest = mean.select(pl.col("low").min(), pl.col("high").max()).row(0)
    if scale.is_accuracy:
        return [max(0, 10 * floor(lowest / 10)), min(100, 10 * ceil(highest / 10))]
    room = 0.05 * (highest - lowest) or 1.0
    return [lowest - room, highest + room]


def what(scale: Scale) -> str:
    """Return what curves show, in words."""
    return "Validation accuracy" if _of_validation(scale) else scale.metric


def value_title(scale: Scale) -> str:
    return "validation accuracy (%)" if _of_validation(scale) else scale.values


def _of_validation(scale: Scale) -> bool:
    return scale.is_accuracy and scale.metric == "val/acc"


# --- what charts have in common ------------------------------------------------------------------


def end_labels(
    curves: Curves, last: pl.DataFrame, domain: Sequence[float], height: int
) -> list[Any]:
    """Return the name of each arm right of a chart, level with its `last` mean as far as there is room."""
    gap = LINE * (domain[1] - domain[0]) / height
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
