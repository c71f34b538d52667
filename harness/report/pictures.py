"""The charts of a sweep as PNG files, for slides."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import vl_convert

from harness.analysis import packed
from harness.analysis.scale import ACCURACY, Scale
from harness.config.one_line_errors import Attempts
from harness.files import atomic
from harness.report import charts, page_charts, verdict_charts

_INTERACTIVE = ("columns", "runs")  # layers of the page that a picture does without


def write_pictures(
    sweep: Path, runs: pl.DataFrame, verdict: dict[str, Any] | None, steps: Attempts
) -> list[Path]:
    """Write `lr.png`, `val_acc.png`, `verdict.png` and `looks.png` into the sweep's folder; return those made.

    `val_acc.png` is `val_NAME.png` where the claim is about another metric. Arms without any evaluation are left out; a sweep without runs has no pictures, one with more
    than `charts.MOST_ARMS` arms no curves, one without comparisons no `verdict.png`, one without looks no `looks.png`.
    """
    begun = runs.filter(
        pl.col("restarts").is_not_null() | pl.Series(map(_is_packed, runs["folder"]))
    )
    baseline = verdict["claim"]["baseline"] if verdict else None
    scale = Scale.of(verdict["claim"]) if verdict else ACCURACY
    drawn: dict[str, Callable[[], bytes | None]] = {
        "lr.png": lambda: lr_png(begun),
        "val_acc.png": lambda: None,
        _picture_of(scale): lambda: curves_png(begun, baseline, scale),
        "verdict.png": lambda: verdict_png(verdict),
        "looks.png": lambda: looks_png(verdict),
    }
    paths = []
    for name, draw in drawn.items():
        with steps.step(name):
            if begun.is_empty() or (picture := draw()) is None:
                (sweep / name).unlink(missing_ok=True)  # of an earlier report
                continue
            with atomic(sweep / name) as file:
                file.write(picture)
            paths.append(sweep / name)
    return paths


def _picture_of(scale: Scale) -> str:
    """Return the name of the picture of curves, of a metric of any name."""
    own = re.sub(r"\W+", "_", scale.on_val.metric)[:60]
    return f"{own}.png"


def _is_packed(folder: str) -> bool:
    return packed.is_packed(Path(folder))


def lr_png(runs: pl.DataFrame) -> bytes | None:
    """Draw the LR of every update by epoch; one curve an arm (its seeds share it). None for too many arms, or none of which the LR is known."""
    first = charts.first_with_lr(runs)
    if not 0 < len(first) <= charts.MOST_ARMS:
        return None
    arms = [arm for arm in runs["arm"].unique(maintain_order=True) if arm in first]
    curves = pl.concat([charts.stored_lr_curve(first[arm]) for arm in arms])
    return _png(charts.lr_panels(curves, arms, charts.x_unit(runs)).to_dict())


def curves_png(runs: pl.DataFrame, baseline: str | None, scale: Scale) -> bytes | None:
    """Draw the page's curves, and the last part of them; None without any."""
    arms = runs["arm"].unique(maintain_order=True).to_list()
    overview = page_charts.overview(runs, arms, baseline, scale)
    if overview is None or not overview.has_values:
        return None
    shown = [chart for chart in (overview.chart, overview.ends) if chart]
    parts = json.loads(json.dumps(shown), object_hook=_on_paper)
    params = {one["name"]: one for chart in shown for one in chart.get("params", [])}
    whole = {
        "vconcat": parts, "spacing": 30, "config": overview.chart["config"],
        "datasets": {key: rows for chart in shown for key, rows in chart["datasets"].items()},
        "params": [one for one in params.values() if "select" not in one],
    }  # fmt: skip
    return _png(whole)


def _on_paper(node: dict[str, Any]) -> dict[str, Any]:
    """Return a part of a chart of the page without what only a pointer shows, and what a whole chart has once."""
    once = ("$schema", "config", "datasets", "params", "usermeta")
    node = {key: value for key, value in node.items() if key not in once}
    if "layer" in node:
        node["layer"] = [x for x in node["layer"] if not x.get("name", "").startswith(_INTERACTIVE)]
    return node


def verdict_png(verdict: dict[str, Any] | None) -> bytes | None:
    """Draw the page's chart of differences; None without comparisons."""
    return _png(verdict_charts.forest(verdict)) if verdict and verdict["comparisons"] else None


def looks_png(verdict: dict[str, Any] | None) -> bytes | None:
    """Draw the page's chart of looks; None where none was taken."""
    chart = verdict_charts.paths(verdict) if verdict and "looks" in verdict else None
    return _png(chart) if chart else None


def _png(chart: dict[str, Any]) -> bytes:
    return vl_convert.vegalite_to_png(chart, scale=2)
