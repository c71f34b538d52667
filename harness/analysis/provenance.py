"""Where judged runs come from: what was there before their plan, and what else was judged on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from harness.analysis import averages, ledger, results, run_tables
from harness.analysis.ledger import Entry
from harness.analysis.pairing import level_key
from harness.config.fields import show

MOST_CLAIMS = 20  # others that `verdict.json` lists
_FIELDS = (  # that claims differ in
    "factor", "baseline", "treatments", "rivals", "metric", "margin", "level", "tuned_over", "seeds",
    "looks", "decide",
)  # fmt: skip
_NAMED = 3  # of them that the sentence names
_MOST_ITEMS = 8  # of a list that a text shows


def provenance(
    claim: Mapping[str, Any],
    plans: Sequence[Mapping[str, Any]],
    runs: pl.DataFrame,
    path: Path | None,
    sweep: str,
    tuning: Sequence[str] = (),
) -> tuple[dict[str, Any], list[str]]:
    """Enter a claim that is judged into the ledger at `path`, None for none, and return where its runs come from.

    `claim` is that of `verdict.json`, `plans` are its plans, `runs` are as `results.read` returns them,
    `sweep` is the name of the folder, and `tuning` are the ids of runs by which arms were tuned. What was judged
    of plans that are the cells of a study (`cell`) is no other claim. docs/verdict.md has the fields. The second
    value is what is wrong with the ledger, a line each. Raises OSError for a run without its LR plan.
    """
    ids, runs = _judged_ids(claim, runs), averages.of_runs(runs)
    entry = replace(
        Entry.now(_plan_sha256(claim, plans, ids), claim, ids, sweep), tuning=sorted(tuning)
    )
    entries, faults = ledger.judged(path, entry)
    cells = {_plan_sha256(plan["claim"], [plan], []) for plan in plans if "cell" in plan}
    others = _other_claims(entry, [one for one in entries if one.plan not in cells])
    planned = not any(plan.get("gathered") for plan in plans)
    seeds = sorted({int(seed) for seed in runs["seed"].drop_nulls()})
    return {
        "runs": len(runs),
        "existed_before": existed_before(runs) if planned else None,
        "other_claims": others[:MOST_CLAIMS],
        "other_claims_count": len(others),
        "seeds": None if seeds == list(range(len(seeds))) else ranges(seeds),
        "commits": commits(runs),
    }, faults


def _judged_ids(claim: Mapping[str, Any], runs: pl.DataFrame) -> list[str]:
    """Return the run ids of the claim's arms and seeds that have ended."""
    levels = {level_key(text) for text in (claim["baseline"], *claim["treatments"])}
    ended = runs.filter(
        pl.col("status").is_in(["complete", "diverged"]) & pl.col("run_id").is_not_null()
    )
    return sorted(
        {
            row["run_id"]
            for row in ended.to_dicts()
            if row["level"] is not None
            and level_key(row["level"]) in levels
            and (not claim["seeds"] or row["seed"] in claim["seeds"])
        }
    )


def _plan_sha256(
    claim: Mapping[str, Any], plans: Sequence[Mapping[str, Any]], ids: Sequence[str]
) -> str:
    """Hash the claim and the keys of the planned runs; without such keys, the ids of the runs that ended."""
    keys = [run.get("key") for plan in plans for run in plan["arms"]]
    names = sorted(map(str, ids if None in keys else keys))
    return hashlib.sha256(json.dumps([claim["sha256"], names]).encode()).hexdigest()


def _other_claims(own: Entry, entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return the claims of other plans on the same runs: what differs, since which day, on how many runs."""
    ids, found = {*own.runs}, dict[str, tuple[dict[str, Any], str, set[str]]]()
    for entry in sorted(entries, key=lambda entry: entry.time):
        shared = ids & {*entry.runs}
        differs = {
            name: _given(entry.claim, name)
            for name in _FIELDS
            if _value(_given(entry.claim, name)) != _value(_given(own.claim, name))
        }
        if not differs and {*entry.runs} != ids:
            differs = {"runs": len(entry.runs)}
        if shared and differs and entry.plan != own.plan:
            key = json.dumps(differs)
            found.setdefault(key, (differs, entry.time[:10], set()))[2].update(shared)
    return [
        {"differs": differs, "date": date, "runs": len(shared), "of": len(ids)}
        for differs, date, shared in found.values()
    ]


def _given(claim: Mapping[str, Any], name: str) -> Any:
    """Return a field of a claim, None where it says what claims without it do."""
    value = claim.get(name)
    return None if (name, value) == ("decide", "zero") else value


def _value(field: Any) -> object:
    """Return what a field of a claim is compared by: levels as numbers, lists as sets."""
    if isinstance(field, list):
        return {_value(one) for one in field} or None
    return level_key(field) if isinstance(field, str) else field


def existed_before(runs: pl.DataFrame) -> int:
    """Count the runs that were taken whole from the store, and that no other of `runs` has trained."""
    rows = [row for row in runs.to_dicts() if row["fingerprint"] is not None]
    trained: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["updates_trained"]:
            trained.setdefault(row["fingerprint"], []).append(row)
    whole = [
        row
        for row in rows
        if row["status"] in ("complete", "diverged")
        and not row["updates_trained"]
        and row["begun_again"] == 0
    ]
    return sum(
        not any(_trains(one, row) for one in trained.get(row["fingerprint"], [])) for row in whole
    )


def _trains(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether `one`, of the same fingerprint, made updates that `other` has too."""
    plan, begun = (results.lr(Path(run["folder"])) for run in (other, one))
    return bool(one["updates_reused"] < len(plan) == run_tables.common(plan, begun))


def commits(runs: pl.DataFrame) -> list[str]:
    """Return the commits that the runs were trained with, `-dirty` behind one whose files were changed."""
    left = (
        runs.filter(pl.col("status") != "missing")
        .select("commit", "dirty")
        .unique(maintain_order=True)
    )
    known = [
        f"{row['commit']}{'-dirty' * bool(row['dirty'])}" if row["commit"] else "unknown"
        for row in left.to_dicts()
    ]
    return [] if known == ["unknown"] else list(dict.fromkeys(known))


def provenance_sentence(provenance: Mapping[str, Any]) -> str:
    """Return what a reader must know of where the runs come from, in a sentence, or ""."""
    parts = []
    if before := provenance["existed_before"]:
        parts.append(f"{before} of {provenance['runs']} runs existed before this plan")
    if others := provenance["other_claims"]:
        which = (
            "these runs"
            if all(one["runs"] == one["of"] for one in others)
            else "some of these runs"
        )
        named = [f"with {claim_text(one)}" for one in others[:_NAMED]]
        more = provenance["other_claims_count"] - len(named)
        named += [f"in {more} other ways"] * (more > 0)
        parts.append(f"{which} were also judged {', '.join(named)}")
    if seeds := provenance["seeds"]:
        parts.append(f"seeds {seeds}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def claim_text(other: Mapping[str, Any]) -> str:
    """Return what differs in another claim, and since when: `margin=0.1 (2026-11-20)`."""
    differs = [_field_text(name, value) for name, value in other["differs"].items()]
    return f"{' and '.join(differs)} ({other['date']})"


def _field_text(name: str, value: Any) -> str:
    if value is None:
        return f"without {name}"
    if name == "runs":
        return f"{value} runs"
    if name == "seeds":
        return f"seeds {ranges(value)}" if value else "all seeds"
    if isinstance(value, list) and len(value) > _MOST_ITEMS:
        return f"{len(value)} {name}"
    return f"{name}={show(value)}"


def ranges(numbers: Iterable[int]) -> str:
    """Return whole numbers in short: `3, 5, 8–12`; of many ranges the first few."""
    found: list[list[int]] = []
    for number in sorted({*numbers}):
        if found and number == found[-1][-1] + 1:
            found[-1] = [found[-1][0], number]
        else:
            found.append([number])
    texts = ["–".join(map(str, one)) for one in found[:_MOST_ITEMS]]
    return ", ".join(texts) + f" and {len(found) - _MOST_ITEMS} more" * (len(found) > _MOST_ITEMS)
