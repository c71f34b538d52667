"""The plan of a sweep: what is trained, written as `plan.json` before the first update."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import DictConfig

from harness.analysis import sweep_plan
from harness.config.errors import ConfigError
from harness.config.values import SAME_RUN, flat
from harness.config.warnings import warn
from harness.files import LOCK_SECONDS, UnreadableError, lock
from harness.sweeps.jobs import PlannedSweep, Tuned, plan_sweep, run_folders
from harness.training import ranks

if TYPE_CHECKING:
    from harness.sweeps.prefix_tree import PrefixNode

T = TypeVar("T")


def begin_sweep(config: DictConfig, tuned: Tuned | None = None) -> dict[str, Any]:
    """Plan every job, refuse what does not fit, write `plan.json`, print the cost. Return the plan.

    A sweep of the same runs that is there already goes on. `tuned` are the values that arms have chosen.
    """
    ranks.refuse_sweep()
    planned = plan_sweep(config, tuned)
    from harness.analysis.verdict import Claim
    from harness.sweeps.preview import comparison_warnings

    document = new_document(config, planned) | ({"tuning": tuned.record} if tuned else {})
    folder = Path(config.hydra.sweep.dir)
    plan = write_or_continue(folder, document)
    claim = plan["claim"] and Claim.from_dict(plan["claim"])
    _warn_of_another_title(document, plan)
    announce(folder, planned, plan, replace(planned.question, claim=claim).text())
    for warning in comparison_warnings(planned.runs, planned.question):
        warn(warning)
    return plan


def _warn_of_another_title(given: dict[str, Any], plan: dict[str, Any]) -> None:
    title, kept = ((one["claim"] or {}).get("title") for one in (given, plan))
    if title and title != kept:
        has = f"the title “{kept}”" if kept else "no title"
        warn(f"claim.title={title}: not used; the sweep began with {has}, and keeps it")


def new_document(config: DictConfig, planned: PlannedSweep) -> dict[str, Any]:
    """Return the `plan.json` of a sweep. Raises `ConfigError` for images, or W&B settings, that do not fit."""
    from harness.runs import tracking
    from harness.sweeps.prefix_tree import prefix_trees

    runs = planned.runs
    for settings in _distinct(run.config.tracking for run in runs):
        tracking.check(settings)
    for dataset in _distinct(run.config.dataset for run in runs):
        dataset.check()
    return _new_plan(planned, run_folders(config, planned.jobs), prefix_trees(runs))


def announce(folder: Path, planned: PlannedSweep, plan: dict[str, Any], purpose: str) -> None:
    """Print what is to be trained, of a sweep that goes on what is left of it, and what for."""
    from harness.sweeps.prefix_tree import describe_cost, prefix_trees

    open_keys = {run["key"] for run in plan["arms"] if not _is_complete(folder, run)}
    pairs = zip(planned.runs, planned.composed, strict=True)
    left = [run for run, one in pairs if sweep_plan.run_key(one) in open_keys]
    cost = describe_cost(left, prefix_trees(left)) if left else "nothing is left to train"
    complete = len(planned.runs) - len(left)
    already = f"{complete} of {len(planned.runs)} runs are complete; " * (complete > 0)
    most = "at most " * bool(left and (plan["claim"] or {}).get("looks"))
    print(f"sweep in {folder}: {already}{most}{cost}\n{purpose}", file=sys.stderr)


def _is_complete(folder: Path, run: dict[str, Any]) -> bool:
    from harness.analysis.results import result

    try:
        return result(folder / sweep_plan.run_folder(run)).get("status") == "complete"
    except UnreadableError:
        return False  # the run says so itself


def _distinct(settings: Iterable[T]) -> list[T]:
    return list({repr(one): one for one in settings}.values())


def _new_plan(
    planned: PlannedSweep, folders: Sequence[str], roots: Sequence[PrefixNode]
) -> dict[str, Any]:
    from harness.sweeps.prefix_tree import branch_steps, shared_updates

    branches, shared, entries = branch_steps(roots), shared_updates(roots), []
    for job, one, run, folder in zip(
        planned.jobs, planned.composed, planned.runs, folders, strict=True
    ):
        placed = job | {"folder": folder, "branches": sorted(branches[run.name])}
        placed["shared"] = shared.get(run.name, 0)
        entries.append(sweep_plan.run_entry(placed, one, sweep_plan.shape(run.plan.describe())))
    return sweep_plan.new_plan(sys.argv, entries) | planned.question.for_plan()


def write_or_continue(
    folder: Path, document: dict[str, Any], extended: bool = False
) -> dict[str, Any]:
    """Write `plan.json`, or keep one of the same runs and the claim that it fixed. Return the plan.

    One that may have been `extended` has the same runs and others behind them.

    Raises `ConfigError` if `folder` holds a sweep of other runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / ".lock", LOCK_SECONDS):
        if not (folder / "plan.json").exists():
            sweep_plan.write_plan(folder / "plan.json", document)
            return document
    before = sweep_plan.read_frozen(folder)
    same = _fixed_values(before) == _fixed_values(document)
    if not document["search"]:
        count = len(document["arms"]) if extended else None
        keys = [
            sorted(run["key"] for run in own) for own in (before["arms"][:count], document["arms"])
        ]
        same = same and keys[0] == keys[1]
    if not same:
        edited = _edited(before, document)
        raise ConfigError(
            f"hydra.sweep.dir={folder}: holds the sweep of other "
            + (
                f"code, {edited} was edited since; undo that, or "
                if edited
                else f"runs, {len(before['arms'])} by `python {shlex.join(before['command'])}`; "
            )
            + "take another folder"
        )
    return before


def _edited(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Return the choice whose code alone makes the runs of two plans others, as `model=mine`; None without one."""
    for then, run in zip(before["arms"], now["arms"], strict=False):
        own = [flat(plan["config"] | one["differs"]) for plan, one in ((before, then), (now, run))]
        for key in own[1]:
            group, _, name = key.partition(".")
            if own[0].get(key) == own[1][key]:
                continue
            if group == "metric_sources":
                return f"metrics=[{name}]"
            if name == "source":
                return f"{group}={own[1][f'{group}.kind']}"
    return None


def _fixed_values(plan: dict[str, Any]) -> dict[str, str] | None:
    """Return the values that a search does not choose and that make another run; None for a planned sweep."""
    may_change = (*SAME_RUN, "store", "tracking", "ledger")
    values = plan["search"] and plan["search"]["fixed"]
    return values and {k: value for k, value in values.items() if not k.startswith(may_change)}
