"""Sweep folders → table, verdict, pictures and page."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from harness.analysis import (
    averages,
    images,
    measured,
    needed,
    phase,
    provenance,
    results,
    run_tables,
    sentences,
    verify,
)
from harness.analysis import verdict as claims
from harness.analysis.cells import assign_cells
from harness.analysis.scale import Scale
from harness.analysis.trained import commits_text, what_was_trained
from harness.analysis.verdict import Claim
from harness.config.errors import ConfigError
from harness.config.one_line_errors import Attempts
from harness.files import UnreadableError, write_json
from harness.report import folders, page
from harness.report.data_files import write_data_files
from harness.report.pictures import write_pictures

_CHANGED = "the claim was changed after the plan was written; "


def write_summary(
    sweeps: Sequence[Path], out: Path, ledger: Path | None = None, cells: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """Write `verdict.json`, `report.html` and the pictures of `sweeps` into `out`, and a line into `ledger`.

    Returns the text for the terminal, and a line for each part that could not be made; the others are.
    Several sweeps are judged as one; a run that is in more than one of them counts once. With `cells`, a name
    for each sweep, they are the cells of a study. Raises `ConfigError` if they judge different things, or are
    none; `UnreadableError` for files that are not of this version.
    """
    plans, planned, every = _read(sweeps, cells)
    runs = every.filter(~pl.col("status").is_in([needed.NOT_NEEDED, needed.WAITING]))
    scale = next((Scale.of(plan["claim"]) for plan in plans if plan["claim"]), None)
    steps = Attempts(ConfigError, UnreadableError)
    lines, verdict, written = list[str](), None, list[Path]()
    with steps.step("table"):
        lines = [run_tables.table(runs, scale)]
    frozen = [s for s, plan in zip(planned, plans, strict=False) if plan.get("format")]
    warnings = _faults(runs, frozen, steps)
    lines += [f"warning: {warning}" for warning in warnings]
    if not planned:  # a sweep's command says it too
        lines += _errors(runs)
    if reason := _no_claim(plans):
        lines.append(f"\nno verdict: {reason}")
    with steps.step("verdict"):
        if verdict := verdict_document([plan["claim"] for plan in plans if plan["claim"]], runs):
            verdict |= {"not_planned": _not_planned(plans), "trained": what_was_trained(runs)}
            verdict["sentence"] = f"{verdict['not_planned']} {verdict['sentence']}".lstrip()
            with steps.step("where the runs come from"):
                warnings += (faults := _add_provenance(verdict, plans, runs, ledger, sweeps))
                lines += [f"warning: {fault}" for fault in faults]
                lines += _add_stages(verdict, plans, every, planned)
            lines.append(f"\nverdict: {_CHANGED * verdict['claim_changed']}{verdict['sentence']}")
    with steps.step("verdict.json"):
        written += _write_verdict(out / "verdict.json", verdict, runs)
    with steps.step("pictures"):
        written += write_pictures(out, runs, verdict, steps)
    written += [] if cells else write_data_files(out, runs, steps, sweeps)
    with steps.step("report.html"):
        details = about(out, planned, plans, runs, [*warnings, *steps.failures])
        written.append(page.write_page(out, runs, verdict, details))
    return "\n".join([*lines, "", *map(str, written)]), steps.failures


def _write_verdict(path: Path, verdict: dict[str, Any] | None, runs: pl.DataFrame) -> list[Path]:
    if verdict is None:
        path.unlink(missing_ok=True)  # of an earlier report
        return []
    write_json(path, _for_others(verdict, runs))
    return [path]


def write_run(folder: Path) -> tuple[list[Path], list[str]]:
    """Write pictures, tables and the page of a run into its folder.

    Returns their paths, and a line for each part that could not be made.
    """
    steps = Attempts()
    plan, run_folders = results.gathered([folder])
    runs = results.rows_of(plan, run_folders, folder)
    written = write_pictures(folder, runs, None, steps)
    written += write_data_files(folder, runs, steps, [folder])
    with steps.step("report.html"):
        details = about(folder, [], [plan], runs, steps.failures)
        written.append(page.write_page(folder, runs, None, details))
    return written, steps.failures


def _faults(runs: pl.DataFrame, sweeps: Sequence[Path], steps: Attempts) -> list[str]:
    """Return where equal work gave other results, and records of `sweeps` that do not fit their plan, a line each."""
    found: list[str] = []
    with steps.step("comparison of runs that begin alike"):
        pairs = run_tables.disagreements(runs)
        found += [f"{pair}; see numerics in their result.json" for pair in pairs]
    with steps.step("check of the records"):
        found += [fault for sweep in sweeps for fault in verify.check_records(sweep)]
    return found


def _errors(runs: pl.DataFrame) -> list[str]:
    """Return how each run ended that is not complete, a line each."""
    alone = averages.of_runs(runs)
    ended = alone.filter(pl.col("status") != "complete").select("name", "status", "error")
    return [
        f"{name}: {status}: {error or 'no reason is known'}" for name, status, error in ended.rows()
    ]


def _read(
    sweeps: Sequence[Path], cells: Sequence[str]
) -> tuple[list[dict[str, Any]], list[Path], pl.DataFrame]:
    """Return the plans of `sweeps`, the folders that have one, and the runs; plan those without one."""
    planned = [sweep for sweep in sweeps if (sweep / "plan.json").exists()]
    plans = [_plan(sweep) for sweep in planned]
    tables = [results.read(sweep) for sweep in planned]
    if loose := [sweep for sweep in sweeps if sweep not in planned]:
        plan, run_folders = results.gathered(loose)
        plans.append(plan)
        tables.append(results.rows_of(plan, run_folders, run_folders[0]))
    numbered = [table.with_columns(plan=pl.lit(number)) for number, table in enumerate(tables)]
    claimed = [Claim.from_dict(plan["claim"]) for plan in plans if plan["claim"]]
    if cells:
        claim = _joined(claimed)
        plans = [plan | {"cell": cell} for plan, cell in zip(plans, cells, strict=True)]
        named = zip(numbered, cells, strict=True)
        numbered = [_of_cell(assign_cells(table, claim), cell) for table, cell in named]
    runs = pl.concat(numbered, how="vertical_relaxed")
    if claimed and not cells:
        runs = assign_cells(runs, _joined(claimed))
    unique = _unique(runs, claimed[0].scale.name if claimed else "acc")
    if repeated := len(runs) - len(unique):
        note = f"note: {repeated} of {len(runs)} runs are the same as others, and count once"
        print(note, file=sys.stderr)
    return plans, planned, unique


def _of_cell(runs: pl.DataFrame, cell: str) -> pl.DataFrame:
    """Return the runs of a sweep as those of the cell of a study."""
    own = [", ".join(filter(None, [cell, one])) for one in runs["cell"]]
    named = (pl.format("{}: {}", pl.lit(cell), column).alias(column) for column in ("arm", "name"))
    return runs.with_columns(*named, cell=pl.Series(own))


def _plan(sweep: Path) -> dict[str, Any]:
    plan = results.read_plan(sweep)
    with results.this_version(sweep / "plan.json"):
        if plan["claim"]:
            Claim.from_dict(plan["claim"])
        shlex.join(plan["command"])
    return plan


def _not_planned(plans: Sequence[dict[str, Any]]) -> str:
    """Return what precedes a verdict whose comparison was not fixed before the first update."""
    if any(plan.get("search") for plan in plans):
        return (
            "The arms were chosen by a search, from the results of other runs: "
            "this is no test of a claim that was fixed before."
        )
    if any(plan.get("gathered") for plan in plans):
        return "No plan fixed this comparison before the runs were trained."
    return ""


def _add_provenance(
    verdict: dict[str, Any],
    plans: Sequence[dict[str, Any]],
    runs: pl.DataFrame,
    ledger: Path | None,
    sweeps: Sequence[Path],
) -> list[str]:
    """Add to a verdict where its runs come from; return what is wrong with the ledger."""
    name = ", ".join(sweep.resolve().name for sweep in sweeps)
    tuning = [id for sweep in sweeps for id in _tuning_runs(sweep)["run_id"].drop_nulls()]
    found, faults = provenance.provenance(verdict["claim"], plans, runs, ledger, name, tuning)
    said = provenance.provenance_sentence(found)
    verdict |= {"provenance": found, "sentence": f"{verdict['sentence']} {said}".rstrip()}
    return faults


def _tuning_runs(sweep: Path) -> pl.DataFrame:
    """Return the runs by which the arms of `sweep` chose values; none without."""
    tuned = sweep / "tuning"
    if not (tuned / "plan.json").exists():
        return pl.DataFrame(schema={"run_id": pl.String, "seconds": pl.Float64})
    return results.read(tuned)


def _add_stages(
    verdict: dict[str, Any],
    plans: Sequence[dict[str, Any]],
    every: pl.DataFrame,
    sweeps: Sequence[Path],
) -> list[str]:
    """Add to a verdict how its arms were tuned and what its looks saved; return lines for the terminal."""
    found, lines = [], []
    for plan, sweep in zip(plans, sweeps, strict=False):
        if tuning := plan.get("tuning"):
            runs = _tuning_runs(sweep)
            own = tuning | {"runs": len(runs), "seconds": runs["seconds"].sum()}
            own |= {"cell": plan["cell"]} if "cell" in plan else {}
            found.append(own)
            lines.append(sentences.tuned(own))
    verdict["tuning"] = found
    if "looks" in verdict:
        saved = needed.saved(averages.of_runs(every))
        verdict["looks"] |= saved
        seconds = "" if saved["seconds"] is None else f", about {saved['seconds']:,.0f} s"
        lines += [f"{saved['runs']} planned runs were not needed{seconds}"] * (saved["runs"] > 0)
    return lines


def _unique(runs: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Return each planned run once, the complete one if there is one.

    Complete runs of one arm and seed that came to different results, by the name of a metric, are all kept: the
    verdict refuses them.
    """
    level = pl.coalesce("level", "arm").alias("is")
    key = ["is", "seed", "budget", "cell", "tuned"]
    ended = measured.of_metric(runs, metric)["final"].alias("ended")
    named, done = runs.with_columns(level, ended), pl.col("status") == "complete"
    complete = named.filter(done).unique([*key, "ended"], keep="first", maintain_order=True)
    others = named.filter(~done).join(complete, on=key, how="anti", nulls_equal=True)
    first = others.unique(key, keep="first", maintain_order=True)
    return pl.concat([complete, first]).sort("num", maintain_order=True).drop("is", "ended")


def verdict_document(
    claimed: Sequence[dict[str, Any]], runs: pl.DataFrame
) -> dict[str, Any] | None:
    """Return `verdict.json`: the verdict on the claims of the plans; None if nothing was compared."""
    if not claimed:
        return None
    claim = _joined([Claim.from_dict(one) for one in claimed])
    judged = claims.judge(claim, measured.with_values(runs, claim))
    if claim.scale.is_accuracy:
        images.add_images(judged, runs, claim.level)
    if claim.factor == averages.FACTOR:
        said = averages.describe([claim.baseline, *claim.treatments])
        judged["sentence"] = f"{judged['sentence']} {said}".rstrip()
    recorded = {one["sha256"] for one in claimed} | set(runs["claim_sha256"].drop_nulls())
    return {
        **judged,
        "claim_changed": not recorded <= {Claim.from_dict(one).sha256() for one in claimed},
        "phase": phase.analyze(averages.of_runs(runs)),
        "anytime": run_tables.anytime(runs),
        "snapshots": run_tables.snapshots(runs),
    }


def _joined(claimed: list[Claim]) -> Claim:
    """Return the claim of several sweeps together: equal but for treatments and seeds, which add up.

    The title is the first one's.
    """
    first = claimed[0]
    if any(one.metric == first.metric and one.better != first.better for one in claimed):
        raise ConfigError(
            f"these sweeps disagree in whether higher or lower is better of {first.metric}: report them one by one"
        )
    own = {"treatments": None, "seeds": None, "title": None}
    shared = [asdict(one) | own for one in claimed]
    if any(one != shared[0] for one in shared):
        raise ConfigError("these sweeps judge different claims: report them one by one")
    treatments = dict.fromkeys(level for one in claimed for level in one.treatments)
    seeds = dict.fromkeys(seed for one in claimed for seed in one.seeds)
    if claimed[0].looks and any(one.seeds != claimed[0].seeds for one in claimed):
        raise ConfigError("these sweeps took other seeds in their looks: report them one by one")
    return replace(claimed[0], treatments=tuple(treatments), seeds=tuple(seeds))


def _for_others(verdict: dict[str, Any], runs: pl.DataFrame) -> dict[str, Any]:
    """Return `verdict.json` without folders of this machine, but for the claim, of which there is a hash."""
    roots = folders.roots_of(runs)
    shown = folders.shown(verdict, roots, folders.parts_to_tell(runs["arm"], roots))
    return {**shown, "claim": verdict["claim"]}


def about(
    out: Path,
    sweeps: Sequence[Path],
    plans: Sequence[dict[str, Any]],
    runs: pl.DataFrame,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Return how the sweeps were made, for their page in `out`; nothing is known of runs without a plan."""
    files = [sweep / "plan.json" for sweep in sweeps]
    commands = [folders.shown_command(plan["command"]) for plan in plans[: len(sweeps)]]
    if not sweeps and len(averages.of_runs(runs)) == 1:  # of a single run
        words = [*results.result(Path(runs["folder"][0])).get("options", ())]
        words += json.loads(runs["overrides"][0])
        commands = [folders.shown_command(["train.py", *words])]
    trained = what_was_trained(runs)
    return {
        "title": out.resolve().name,
        "commands": commands,
        "no_claim": _no_claim(plans),
        "trained": trained,
        "plan_sha256": ", ".join(hashlib.sha256(plan.read_bytes()).hexdigest() for plan in files),
        "versions": {**_numerics(runs), **{name: version(name) for name in ("polars", "scipy")}},
        "commit": commits_text(trained["commits"]),
        "created": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        "warnings": list(warnings),
    }


def _no_claim(plans: Sequence[dict[str, Any]]) -> str:
    """Return why nothing was compared; "" where something was."""
    reasons = [plan["no_claim"] for plan in plans if plan.get("no_claim")]
    return "" if any(plan["claim"] for plan in plans) else "".join(reasons[:1])


def _numerics(runs: pl.DataFrame) -> dict[str, str]:
    """Return what the runs were trained on and with, where they differ all of it."""
    found: dict[str, dict[str, None]] = {}
    for folder in runs["folder"]:
        numerics = results.result(Path(folder)).get("numerics", {})
        with results.this_version(Path(folder) / "result.json"):
            for name in ("torch", "device", "threads", "precision"):
                if (value := numerics.get(name)) is not None:
                    found.setdefault(name, {})[str(value)] = None
    return {name: " and ".join(values) for name, values in found.items()}
