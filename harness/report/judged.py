"""Runs of other programs → table, verdict, pictures and page: as of a sweep, and never as if they were planned."""

from __future__ import annotations

from collections.abc import Sequence
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

OPTIMISTIC = (
    "--at best takes the best of many evaluations of each run: optimistic, the more so the more evaluations there "
    "are; a verdict is by the last value"
)


def write_judged(
    out: Path,
    claim: Claim,
    runs: pl.DataFrame,
    source: Source,
    command: Sequence[str],
    at_best: bool,
) -> tuple[str, list[str]]:
    """Write `verdict.json`, `report.html`, pictures and tables of `runs` into `out`.

    `command` are the words that make it again. `at_best`: without a verdict. Returns the text for the terminal, and a line for each part that could not be made.
    """
    steps = Attempts(ConfigError, UnreadableError)
    lines, verdict, written = [run_tables.table(runs, claim.scale)], None, list[Path]()
    lines += ["", *(f"note: {note}" for note in source.notes)] if source.notes else []
    if at_best:
        lines.append(f"\nno verdict: {OPTIMISTIC}")
        (out / "verdict.json").unlink(missing_ok=True)
    else:
        with steps.step("verdict"):
            verdict = _verdict(claim, runs, source)
            lines.append(f"\nverdict: {verdict['sentence']}")
            write_json(out / "verdict.json", folders.shown(verdict) | {"claim": verdict["claim"]})
            written.append(out / "verdict.json")
    with steps.step("pictures"):
        written += write_pictures(out, runs, verdict, steps)
    written += write_data_files(out, runs, steps)
    with steps.step("report.html"):
        about = _about(
            source, command, [*source.notes, *steps.failures], OPTIMISTIC if at_best else ""
        )
        written.append(page.write_page(out, runs, verdict, about))
    return "\n".join([*lines, "", *map(str, written)]), steps.failures


def _verdict(claim: Claim, runs: pl.DataFrame, source: Source) -> dict[str, Any]:
    """Return `verdict.json`."""
    try:
        judged = claims.judge(claim, with_values(runs, claim))
    except ValueError as error:
        raise ConfigError(
            f"{error}; --ignore, --seed and --where say which runs are compared"
        ) from error
    known = {
        "address": source.address, "kind": source.kind, "others": source.others, "unknown": source.unknown,
        "not_compared": source.not_compared,
    }  # fmt: skip
    return {
        **judged,
        "claim_changed": False,
        "not_planned": source.not_planned,
        "sentence": f"{source.not_planned} {judged['sentence']}",
        "anytime": run_tables.anytime(runs) if _has_anytime(claim, runs) else None,
        "source": known,
    }


def _has_anytime(claim: Claim, runs: pl.DataFrame) -> bool:
    return claim.scale.is_accuracy and runs["budget_unit"][0] == "epochs"


def _about(
    source: Source, command: Sequence[str], warnings: Sequence[str], no_claim: str
) -> dict[str, Any]:
    """Return how the page was made, as `page.write_page` takes it."""
    return {
        "title": source.address,
        "commands": [folders.shown_command(command)],
        "no_claim": no_claim,
        "trained": {
            "line": f"{source.kind}: {source.address}",
            "settings": source.same,
            "varied": source.varied,
        },
        "plan_sha256": "",
        "versions": {name: version(name) for name in ("polars", "scipy")},
        "commit": "",
        "created": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        "warnings": list(warnings),
        "unknown": list(source.unknown),
    }
