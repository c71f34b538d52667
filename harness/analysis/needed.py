"""Which planned runs a claim that goes on until decided still needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from harness.analysis import looks, measured, results
from harness.analysis.pairing import level_key
from harness.analysis.verdict import Claim, compared_arms, judge

NOT_NEEDED = "not needed"  # every comparison of the run is settled, or has taken all of its looks
WAITING = "waiting"  # a later look may need it


def mark(runs: pl.DataFrame, claim: Claim) -> pl.DataFrame:
    """Return `runs` (`results.read`) with the status `not needed` or `waiting` for missing ones that no look needs yet."""
    if not claim.looks:
        return runs
    table = measured.with_values(runs, claim)
    compared = [pairs for one in compared_arms(claim, table) for pairs in one.against]
    now, later = looks.wanted(claim, compared)
    statuses = []
    for row in runs.to_dicts():
        status = row["status"]
        if status == "missing" and row["level"] is not None and not _is_in(row, now):
            status = WAITING if _is_in(row, later) else NOT_NEEDED
        statuses.append(status)
    return runs.with_columns(status=pl.Series(statuses, dtype=pl.String))


def saved(runs: pl.DataFrame) -> dict[str, Any]:
    """Return how many planned runs are not needed, and the seconds that they would have taken; null if unknown.

    A run counts with the mean of those of its arm that were trained.
    """
    unneeded = runs.filter(status=NOT_NEEDED)
    mean = runs.filter(pl.col("updates_trained") > 0).group_by("arm").agg(pl.col("seconds").mean())
    seconds = unneeded.select("arm").join(mean, on="arm", how="left")["seconds"]
    known = len(seconds) and not seconds.null_count()
    return {"runs": len(unneeded), "seconds": float(seconds.sum()) if known else None}


def progress(sweep: Path) -> list[str]:
    """Return what the looks of a sweep have come to so far, a line a comparison, and which runs hold up the next one.

    Without looks, and before the first, there is nothing to say.
    """
    plan = results.read_plan(sweep)
    if not (plan["claim"] or {}).get("looks"):
        return []
    claim = Claim.from_dict(plan["claim"])
    judged = judge(claim, measured.with_values(results.read(sweep), claim))
    lines = []
    if taken := judged["looks"]["look"]:
        pairs = f"{claim.looks[taken - 1]} of at most {len(claim.seeds)} pairs"
        interval = f"repeated {100 * (1 - claim.level):g} % interval"
        lines = [
            f"look {taken} of {len(claim.looks)}, {pairs}; {claim.scale.of_what}{claim.scale.note} ({interval}):"
        ]
        lines += [f"  {looks.progress(claim, one)}" for one in judged["comparisons"] if one["path"]]
    if held := [f"{name} ({status})" for name, status in _not_ended(judged).items()]:
        lines.append(f"the next look waits for {', '.join(held)}: the same command goes on")
    return lines


def _not_ended(judged: dict[str, Any]) -> dict[str, str]:
    """Return the runs, with their statuses, that ended for reasons outside of their configuration."""
    found = {}
    for one in judged["comparisons"]:
        counted = {run["name"] for run in (one["intention_to_treat"] or {}).get("filled", [])}
        for run in one["left_out"]:
            if run["status"] in ("failed", "interrupted") and run["name"] not in counted:
                found[run["name"]] = run["status"]
    return found


def _is_in(row: dict[str, Any], wanted: set[looks.RunKey]) -> bool:
    key = (row["cell"], level_key(row["level"]), row["tuned"] or "", row["seed"])
    return key in wanted
