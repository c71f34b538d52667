"""The charts of a sweep as PNG files, for slides."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import vl_convert

from harness.config.one_line_errors import Attempts
from harness.files import atomic
from harness.report import charts, page_charts, verdict_charts

_INTERACTIVE = ("columns", "runs")  # layers of the page that a picture does without


def write_pictures(
    sweep: Path, runs: pl.DataFrame, verdict: dict[str, Any] | None, steps: Attempts
) -> list[Path]:
    """Write `lr.png`, `val_acc.png` and `looks.png` into the sweep's folder; return those that could be made.

    Arms without any evaluation are left out of `val_acc.png`; a sweep without runs has no pictures, one without
    looks no `looks.png`.
    """
    begun = runs.filter(pl.col("restarts").is_not_null())
    drawn: dict[str, Callable[[], bytes | None]] = {
        "lr.png": lambda: lr_png(begun),
        "val_acc.png": lambda: val_acc_png(begun),
        "looks.png": lambda: looks_png(verdict),
    }
    paths = []
    for name, draw in drawn.items():
        with steps.step(name):
            if begun.is_empty() or (picture := draw()) is None:
                continue
            with atomic(sweep / name) as file:
                file.write(picture)
            paths.append(sweep / name)
    return paths


def lr_png(runs: pl.DataFrame) -> bytes:
    """Draw the LR of every update by epoch; one curve an arm (its seeds share it)."""
    first = runs.unique("arm", keep="first", maintain_order=True)
    curves = pl.concat([charts.stored_lr_curve(run) for run in first.to_dicts()])
    return _png(charts.lr_panels(curves, first["arm"].to_list()).to_dict())


def val_acc_png(runs: pl.DataFrame) -> bytes | None:
    """Draw the page's curves: means of arms ± 1 standard deviation, above the LR; None without any."""
    arms = runs["arm"].unique(maintain_order=True).to_list()
    overview = page_charts.overview(runs, arms)
    if overview is None or not overview.has_accuracy:
        return None
    panels = [
        panel
        | {"layer": [x for x in panel["layer"] if not x.get("name", "").startswith(_INTERACTIVE)]}
        for panel in overview.chart["vconcat"]
    ]
    fixed = [parameter for parameter in overview.chart["params"] if "select" not in parameter]
    return page_chart_png(overview.chart | {"vconcat": panels, "params": fixed}, arms)


def looks_png(verdict: dict[str, Any] | None) -> bytes | None:
    """Draw the page's chart of looks; None where none was taken."""
    chart = verdict_charts.paths(verdict) if verdict and "looks" in verdict else None
    return page_chart_png(chart, []) if chart else None


def page_chart_png(chart: dict[str, Any], arms: Sequence[str]) -> bytes:
    """Draw a chart of the page as it is on white paper, with the names of `arms` as a legend."""
    legend = {"title": None, "orient": "top", "columns": 3, "labelLimit": 400, "symbolType": "stroke",
              "symbolOpacity": 1, "labelExpr": f"{json.dumps(list(arms))}[datum.value]"}  # fmt: skip

    def on_paper(node: dict[str, Any]) -> dict[str, Any]:
        shown = {key: value for key, value in node.items() if key != "clip"}  # which takes seconds
        return shown | {"legend": legend} if node.get("legend", "") is None else shown

    chart = json.loads(json.dumps(chart), object_hook=on_paper)
    return _png(chart | {"config": {"range": {"category": charts.COLOURS}}})


def _png(chart: dict[str, Any]) -> bytes:
    return vl_convert.vegalite_to_png(chart, scale=2)
