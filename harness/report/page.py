"""Tables and a verdict → one page that needs nothing else: `report.html`. Reads files only."""

from __future__ import annotations

import math
import os
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import jinja2
import polars as pl
import vl_convert
from markupsafe import Markup, escape

from harness.analysis import averages, measured, number_text, results, sentences, states
from harness.analysis.figures import AS_HERE
from harness.analysis.pairing import level_key
from harness.analysis.provenance import claim_text
from harness.analysis.scale import ACCURACY, Scale
from harness.analysis.sentences import comparison_label, format_pairs
from harness.analysis.trained import what_was_trained
from harness.config.fields import show
from harness.config.measures import BUILTIN, Measure
from harness.config.schema import SETS
from harness.files import atomic, cache_folder, read_checked, write_checked
from harness.report import charts, folders, page_charts, verdict_charts
from harness.report.curves import what
from harness.report.first_screen import first_screen

_NONE = "–"
_LEAST_BUNDLE = 100_000  # characters; the charts' code has a million
_MOST_PAIRS = 2000  # that the page lists
_COLUMNS: dict[str, Any] = {  # of the runs; null on the page where a table lacks one
    "folder": pl.String,
    "name": pl.String,
    "arm": pl.String,
    "status": pl.String,
    "error": pl.String,
    "tracking": pl.String,
    "seed": pl.Int64,
    "updates_per_epoch": pl.Int64,
    "updates_reused": pl.Int64,
    "updates_trained": pl.Int64,
    "restarts": pl.Int64,
    "final": pl.Float64,
    "best": pl.Float64,
    "test": pl.Float64,
    "budget": pl.Float64,
    "lr_share_at_end": pl.Float64,
    "seconds": pl.Float64,
    "metrics": pl.String,
}


def write_page(
    folder: Path, runs: pl.DataFrame, verdict: dict[str, Any] | None, about: dict[str, Any]
) -> Path:
    """Write `report.html` into `folder`; return its path.

    `runs` as `results.read` gives them; `verdict` as in `verdict.json`, None where nothing was
    compared; `about`: title, commands (to make it again), plan_sha256, versions, commit,
    created, warnings, trained (as `what_was_trained` returns it), no_claim (why nothing was compared).
    No folder of this machine is on the page.
    """
    path = folder / "report.html"
    with atomic(path) as file:
        file.write(render(runs, verdict, about).encode("utf-8", "backslashreplace"))
    return path


def render(runs: pl.DataFrame, verdict: dict[str, Any] | None, about: dict[str, Any]) -> str:
    """Return the page: text, tables, charts and the scripts that draw them."""
    trained = about.get("trained") or what_was_trained(runs)
    runs, *documents = _for_others(with_all_columns(runs), _finite(verdict), about, trained)
    verdict, about, trained = documents
    phase: dict[str, Any] = (verdict or {}).get("phase") or {}
    profile = phase.get("profile") or []
    arms = [*dict.fromkeys([*runs["arm"], *(point["arm"] for point in profile)])]
    baseline = verdict["claim"].get("baseline") if verdict else None
    scale = Scale.of(verdict["claim"]) if verdict else ACCURACY
    overview = page_charts.overview(runs, arms, baseline, scale)
    if verdict and not verdict["claim"].get("planned", True):
        columns = [Column(scale.values, scale.name, "final", scale.places_shown)]
    else:
        columns = metric_columns(scale, measured.recorded(runs))
    return _template().render(
        about=about,
        arms=_arm_rows(runs, columns),
        bundle=_bundle(),
        charts=_specs(overview, verdict, profile, arms),
        comparisons=_comparisons(verdict),
        first=first_screen(runs, verdict, trained, about.get("no_claim") or ""),
        most_arms=charts.MOST_ARMS,
        most_drawn=verdict_charts.MOST_COMPARISONS,
        most_paths=verdict_charts.MOST_PATHS,
        looked=sentences.looked(verdict) if verdict and "looks" in verdict else "",
        legend=list(zip(arms, charts.COLOURS, strict=False)) if 1 < len(arms) <= charts.FEW else [],
        overview=overview,
        nonce=secrets.token_urlsafe(16),
        phase=phase,
        runs=_run_rows(runs, columns),
        columns=columns,
        scale=scale,
        curves=what(scale.on_val),
        curves_of=_curves_of(overview, "source" not in about),
        lr_known=bool(runs["restarts"].is_not_null().any()),
        several=len(averages.of_runs(runs)) > 1,
        snapshots=_snapshots(verdict),
        trained=trained,
        tunings=[
            tuning_table(one, scale.places_shown) for one in (verdict or {}).get("tuning") or []
        ],
        verdict=verdict,
        warnings=about.get("warnings") or [],
    )


def _curves_of(overview: page_charts.Overview | None, planned: bool) -> str:
    """Return what the heading of the curves says beside the metric."""
    if overview is None:
        return " and learning rate by epoch" * planned
    return f"{' and learning rate' * overview.has_lr} by {overview.unit}"


def _specs(
    overview: page_charts.Overview | None,
    verdict: dict[str, Any] | None,
    profile: list[dict[str, Any]],
    arms: list[str],
) -> dict[str, Any]:
    """Return the charts of the page by name."""
    drawn = {
        "overview": overview and overview.chart,
        "ends": overview and overview.ends,
        "verdict": verdict and verdict["comparisons"] and verdict_charts.forest(verdict),
        "looks": verdict and "looks" in verdict and verdict_charts.paths(verdict),
        "phase": profile and verdict_charts.profile(profile, arms),
    }
    return {name: chart for name, chart in drawn.items() if chart}


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,  # what a verdict lacks is empty
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "breakable": _breakable,
        "claim_text": claim_text,
        "fixed": _fixed,
        "minus": _minus,
        "signed": _signed,
        "interval": format_interval,
        "setting": show,
        "p": _p,
        "pairs_needed": lambda number: format_pairs(number, "> ") if number else _NONE,
        "percent": _percent,
        "shares": variance_parts,
        "mean_and_sd": _mean_and_sd,
    }
    return environment.get_template("page.html.j2")


def _breakable(name: str) -> Markup:
    """Return the name of an arm, whose lines may end after `=`: browsers would end them anywhere."""
    return escape(name).replace("=", Markup("=<wbr>"))


@cache
def _bundle() -> str:
    """Return vega, vega-lite and vega-embed for a <script>, as vl-convert makes them for altair's pages.

    That takes two seconds, so it is remembered between commands where there is a place for that.
    """
    name = f"vega-{version('vl-convert-python')}.js"
    with suppress(OSError, RuntimeError, ValueError):
        path = cache_folder() / name
        status = path.stat()
        kept = read_checked(path).decode()
        own = sys.platform == "win32" or (  # whose folders of users are their own
            status.st_uid == os.getuid() and not status.st_mode & 0o022  # nobody else's script
        )
        if own and len(kept) > _LEAST_BUNDLE and "</script" not in kept.lower():
            return kept
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    assert "</script" not in bundle.lower()
    with suppress(OSError, RuntimeError):
        write_checked(cache_folder() / name, bundle.encode())
    return bundle


def with_all_columns(runs: pl.DataFrame) -> pl.DataFrame:
    """Return `runs` with all columns that the page shows, null where it had none."""
    columns = [
        (pl.col(name) if name in runs.columns else pl.lit(None)).cast(dtype, strict=False).alias(name)
        for name, dtype in _COLUMNS.items()
    ]  # fmt: skip
    if not runs.columns:
        return pl.DataFrame(schema=_COLUMNS)
    status, name = pl.col("status").fill_null("missing"), pl.col("name").fill_null("run")
    metrics = pl.col("metrics").fill_null("{}")
    return runs.with_columns(columns).with_columns(
        status, name, metrics, pl.col("arm").fill_null(name)
    )


def _finite(value: Any) -> Any:
    """Return `value` with None for every number that JSON cannot hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def _for_others(runs: pl.DataFrame, *documents: Any) -> tuple[Any, ...]:
    """Return `runs` and `documents` without folders of this machine in what is shown; web addresses stay."""
    roots = folders.roots_of(runs)
    parts = folders.parts_to_tell([*runs["arm"], *runs["name"]], roots)
    text = ("name", "arm", "status", "error", "tracking")

    def hidden(value: str) -> str:
        return value if _is_address(value) else folders.without_folders(value, roots, parts)

    columns = [pl.Series(name, [v and hidden(v) for v in runs[name]], pl.String) for name in text]
    shown = (folders.shown(document, roots, parts) for document in documents)
    return runs.with_columns(columns), *shown


def _is_address(text: str) -> bool:
    return text.startswith(("https://", "http://"))


def _comparisons(verdict: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the verdict's comparisons with a label and the pairs that the page lists."""
    if not verdict:
        return []
    factor = str(verdict["claim"]["factor"]).rpartition(".")[2]
    listed = [
        _of_any_version(one)
        | {"label": comparison_label(one, factor), "pairs": one.get("pairs") or []}
        for one in verdict["comparisons"]
    ]
    if sum(len(one["pairs"]) for one in listed) > _MOST_PAIRS:
        listed = [{**one, "pairs": []} for one in listed]
    return listed


def _of_any_version(comparison: dict[str, Any]) -> dict[str, Any]:
    """Return a comparison with the names of this version, also of a `verdict.json` without one."""
    better, needed = (comparison.get(k) for k in ("probability_of_improvement", "pairs_needed"))
    return comparison | {
        "p_adjusted": comparison.get("p_adjusted", comparison.get("p_holm")),
        "improvement": better if isinstance(better, dict) else {"share": better},
        "pairs_needed": _open_pairs(comparison) if isinstance(needed, dict) else needed,
    }


def _open_pairs(comparison: dict[str, Any]) -> int | None:
    """Return how many pairs the question takes that a comparison leaves open; None if it leaves none."""
    needed: dict[str, int | None] = sentences.deciding(comparison)["pairs_needed"] or {}
    if AS_HERE in needed:
        return needed[AS_HERE]
    match comparison["verdict"]:
        case states.SUPPORTED_UNSURE:
            return needed.get("above the margin")
        case states.INCONCLUSIVE | states.INTERIM:
            return needed.get("above 0")
    return None


@dataclass(frozen=True)
class Column:
    """What a column of the tables of arms and runs has: `part` (final, test or best) of the metric `name`."""

    head: str
    name: str
    part: str
    places: int


def metric_columns(scale: Scale, recorded: Mapping[str, Measure]) -> list[Column]:
    """Return the columns of the claim's metric, behind those of another one of acc, then of metrics of the user's own."""
    own = [
        Scale(f"val/{name}", one.better, one.unit, 0.0)
        for name, one in recorded.items()
        if name not in (*BUILTIN, scale.name)
    ]
    full = dict.fromkeys([scale.on_val, replace(ACCURACY, margin=scale.margin)])
    shown = {one.name: one for one in [*full, *own]}
    parts = (("final ", SETS[0], "final"), ("", SETS[1], "test"), ("best ", SETS[0], "best"))
    return [
        Column(
            f"{prefix}{replace(one, metric=f'{split}/{one.name}').values}",
            one.name,
            part,
            one.places_shown,
        )
        for one in shown.values()
        for prefix, split, part in (parts[:2] if one in own else parts)
    ]


def _arm_rows(runs: pl.DataFrame, columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Return the rows of the arms; `values` has a mean and a standard deviation a column."""
    if runs.is_empty():
        return []
    names = dict.fromkeys(column.name for column in columns)
    by_name = {name: results.arms(measured.of_metric(runs, name)).to_dicts() for name in names}
    return [
        row
        | {
            "lr_share_range": number_text.share_range(row["lr_share_low"], row["lr_share_high"]),
            "values": [
                (by_name[one.name][at][one.part], by_name[one.name][at][f"{one.part}_sd"])
                for one in columns
            ],
        }
        for at, row in enumerate(by_name[columns[0].name])
    ]


def _run_rows(runs: pl.DataFrame, columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Return the rows of the runs: what is shown, and whether it may be a link."""
    roots = folders.roots_of(runs)
    values = [measured.of_metric(runs, one.name)[one.part].to_list() for one in columns]
    return [
        _run(run, roots) | {"values": own}
        for run, *own in zip(runs.to_dicts(), *values, strict=True)
    ]


def _run(run: dict[str, Any], roots: Sequence[Path]) -> dict[str, Any]:
    reused, trained = run["updates_reused"], run["updates_trained"]
    updates = (reused or 0) + (trained or 0)
    folder = (
        folders.without_folders(str(Path(run["folder"]).absolute()), roots) if run["folder"] else ""
    )
    where = run["tracking"] or folder
    return {
        **run,
        "share_reused": None if reused is None or not updates else reused / updates,
        "updates": f"{reused or 0} of {updates} updates",
        "where": where,
        "link": _is_address(where),
    }


def _snapshots(verdict: dict[str, Any] | None) -> dict[str, dict[int, dict[str, Any]]]:
    """Return the verdict's snapshot ensembles by arm and number of members."""
    table: dict[str, dict[int, dict[str, Any]]] = {}
    for row in (verdict or {}).get("snapshots") or []:
        table.setdefault(row["arm"], {})[row["members"]] = row
    return table


def tuning_table(tuning: dict[str, Any], places: int = 2) -> dict[str, Any]:
    """Return how the arms of a sweep were tuned (an entry of `tuning` in `verdict.json`): `values`, and `rows`.

    A row is an arm with a cell for each value that any arm has tried: `text` (mean ± standard error) and `mark`. Values are in ascending order where they are `numbers`.
    """
    values = list(dict.fromkeys(value for arm in tuning["arms"] for value in arm["tried"]))
    numbers = all(isinstance(level_key(value), Decimal) for value in values)
    if numbers:
        values.sort(key=Decimal)
    rows = [
        arm
        | {
            "cells": [_tuning_cell(arm, value, places) for value in values],
            "lowest": numbers and arm["value"] == min(arm["tried"], key=Decimal),
        }
        for arm in tuning["arms"]
    ]
    return tuning | {"values": values, "rows": rows, "numbers": numbers}


def _tuning_cell(arm: dict[str, Any], value: str, places: int) -> dict[str, str]:
    runs = arm["tried"].get(value)
    if not runs:
        return {"text": _NONE, "mark": ""}
    ended = [accuracy for accuracy in runs if accuracy is not None]
    if len(ended) < len(runs):
        return {"text": f"{len(runs) - len(ended)} of {len(runs)} diverged", "mark": "ruled out"}
    mark = "chosen" if value == arm["value"] else "best mean" if value == arm["best"] else ""
    text = _mean_and_sd(fmean(ended), stdev(ended) / math.sqrt(len(ended)), places)
    return {"text": text, "mark": mark}


# --- numbers as text -----------------------------------------------------------------------------


def _missing(value: Any) -> bool:
    return not isinstance(value, int | float) or not math.isfinite(value)


def _fixed(value: Any, places: int = 2) -> str:
    return _NONE if _missing(value) else number_text.fixed(value, places)


def _signed(value: Any, places: int = 2) -> str:
    return _NONE if _missing(value) else number_text.signed(value, places)


def _minus(sentence: Any) -> str:
    """Return a sentence with minus signs for the hyphens that its numbers begin with."""
    return re.sub(r"(?<= |\()-(?=\d)", "−", str(sentence))


def format_interval(interval: Sequence[float] | None, places: int = 2) -> str:
    if not interval or any(map(_missing, interval)):
        return _NONE
    return " to ".join(_signed(end, places) for end in interval)


def _p(value: Any) -> str:
    if _missing(value):
        return _NONE
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _percent(share: Any, places: int = 0) -> str:
    return _NONE if _missing(share) else f"{100 * share:.{places}f} %"


def variance_parts(shares: dict[str, float]) -> str:
    """Return the parts of a whole as whole percents that add up to 100."""
    ends = [round(100 * end) for end in accumulate(shares.values(), initial=0.0)]
    return " · ".join(str(b - a) for a, b in pairwise(ends)) + " %"


def _mean_and_sd(value: Any, sd: Any, places: int = 2) -> str:
    """Return `value ± sd`, without the latter where there is none."""
    shown = _fixed(value, places)
    return shown if _missing(sd) else f"{shown} ± {_fixed(sd, places)}"
