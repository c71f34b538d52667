"""Runs of other programs → table, verdict, pictures and page: as of a sweep, and never as if they were planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from harness.analysis import run_tables
from harness.analysis import verdict as claims
from harness.analysis.measured import with_values
from harness.analysis.source import Source
from harness.analysis.verdict import Claim
from harness.config.errors import ConfigError
from harness.config.one_line_errors import Attempts
from harness.files import UnreadableError, write_json
from harness.report import folders, page
from harness.report.data_files import write_data_files
from harness.report.pictures import write_pictures

_MOST_NAMED = 10  # runs that are not complete, in the terminal
OPTIMISTIC = (
    "--at best takes the best of many evaluations of each run: optimistic, the more so the more evaluations there "
    "are; a verdict is by the last value"
)


def write_judged(
    out: Path, claim: Claim, runs: pl.DataFrame, source: Source, command: Sequence[str]
) -> tuple[str, list[str]]:
    """Write `verdict.json`, `report.html`, pictures and tables of `runs` into `out`.

    `command` are the words that make it again. Returns the text for the terminal, and a line for each part that could
    not be made.
    """
    steps = Attempts(ConfigError, UnreadableError)
    runs = runs.with_columns(sweep=pl.lit(folders.without_folders(source.address)))
    verdict, written = _verdict(claim, runs, source), [out / "verdict.json"]
    parts = folders.parts_to_tell([*runs["arm"], *runs["name"]])
    write_json(
        out / "verdict.json", folders.shown(verdict, [], parts) | {"claim": verdict["claim"]}
    )
    with steps.step("pictures"):
        written += write_pictures(out, runs, verdict, steps)
    written += write_data_files(out, runs, steps)
    with steps.step("report.html"):
        about = _about(source, command, verdict["source"], steps.failures)
        written.append(page.write_page(out, runs, verdict, about))
    lines = [
        *_described(claim, runs, source),
        "",
        f"verdict: {verdict['sentence']}",
        "",
        *map(str, written),
    ]
    return "\n".join(lines), steps.failures


def best_values(claim: Claim, runs: pl.DataFrame, source: Source) -> str:
    """Return the text for the terminal where best values are asked for, on which there is no verdict."""
    return "\n".join([*_described(claim, runs, source), "", f"no verdict: {OPTIMISTIC}"])


def _described(claim: Claim, runs: pl.DataFrame, source: Source) -> list[str]:
    notes = [f"note: {note}" for note in [*source.notes, *_not_complete(runs)]]
    return [run_tables.table_of_others(runs, claim.scale), *([""] if notes else []), *notes]


def _not_complete(runs: pl.DataFrame) -> list[str]:
    """Return how compared runs ended that are not complete, a line each."""
    ended = runs.filter(pl.col("status") != "complete").select("name", "status", "error").rows()
    lines = [f"{name}: {status}{f': {error}' if error else ''}" for name, status, error in ended]
    left = len(lines) - _MOST_NAMED
    return [
        *lines[:_MOST_NAMED],
        *([f"and {left:,} more runs are not complete"] if left > 0 else []),
    ]


def _verdict(claim: Claim, runs: pl.DataFrame, source: Source) -> dict[str, Any]:
    """Return `verdict.json`."""
    judged = claims.judge(claim, with_values(runs, claim))
    return {
        **judged,
        "claim_changed": False,
        "not_planned": source.not_planned,
        "sentence": f"{source.not_planned} {judged['sentence']}",
        "anytime": run_tables.anytime(runs) if _has_anytime(claim, runs) else None,
        "source": {
            "address": source.address, "kind": source.kind, "others": source.others, "unknown": source.unknown,
            "not_compared": source.not_compared,
        },
    }  # fmt: skip


def _has_anytime(claim: Claim, runs: pl.DataFrame) -> bool:
    ends = runs.filter(budget_unit="epochs")["budget"].drop_nulls().to_list()
    return claim.scale.is_accuracy and min(ends, default=0) > 0


def _about(
    source: Source, command: Sequence[str], known: Mapping[str, Any], failures: Sequence[str]
) -> dict[str, Any]:
    """Return how the page was made, as `page.write_page` takes it."""
    line = f"{source.kind}: {source.address}"
    return {
        "title": source.address,
        "commands": [folders.shown_command(command)],
        "trained": {"line": line, "settings": source.same, "varied": source.varied},
        "versions": {name: version(name) for name in ("polars", "scipy")},
        "created": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        "warnings": [*source.notes, *failures],
        "source": known,
    }
