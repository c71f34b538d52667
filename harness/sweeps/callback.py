"""What happens around the jobs of a multirun: `plan.json` before the first, results after the last."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from harness.analysis import arms, sweep_plan
from harness.config import hydra_private
from harness.config.errors import ConfigError
from harness.config.one_line_errors import Attempts, one_line_errors
from harness.config.values import SAME_RUN
from harness.config.warnings import warn
from harness.files import LOCK_SECONDS, UnreadableError, lock
from harness.sweeps.jobs import (
    PlannedSweep,
    plan_sweep,
    run_folders,
    search_sweeper,
    sweep_overrides,
)
from harness.sweeps.launchers import prepare_launcher
from harness.training import ranks

T = TypeVar("T")


class Sweep(Callback):
    """Hydra's callback, named in `conf/config.yaml`."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():
            if ranks.process_rank().rank:  # the first process alone writes
                with read_write(config):
                    config.hydra.run.dir, config.hydra.output_subdir = tempfile.gettempdir(), None
            if not config.hydra.run.dir:  # Hydra would take the current folder
                raise ConfigError("hydra.run.dir: has no value; give one with hydra.run.dir=VALUE")
            if swept := ", ".join(config.hydra.sweeper.get("params") or {}):
                warn(
                    f"this experiment is a sweep over {swept}, which takes -m; "
                    "without it, this is a single run of the defaults"
                )

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():  # Hydra would make a warning of an exception
            if not OmegaConf.to_container(config.hydra.sweep, resolve=False)["dir"]:  # type: ignore[call-overload,index]
                raise ConfigError(
                    "hydra.sweep.dir: has no value; give one with hydra.sweep.dir=VALUE"
                )
            if sweeper := search_sweeper(config):
                begin_search(config, sweeper)
                at_once = config.hydra.sweeper.get("n_jobs", 1)
            else:
                at_once = begin_sweep(config)
                hydra_private.skip_validation()
            prepare_launcher(config.hydra, at_once)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():
            folder = Path(config.hydra.sweep.dir)
            if search_sweeper(config):
                end_search(folder)
            ledger = config.ledger.path
            end_sweep(folder, Path(ledger).absolute() if ledger else None)
            from harness.analysis import verify

            if verify.check_records(folder):  # which the summary has named
                raise SystemExit(1)


def begin_sweep(config: DictConfig, new: bool = False) -> int:
    """Plan every job, refuse what does not fit, write `plan.json`, print the cost. Return the number of runs.

    A sweep of the same runs that is there already goes on, unless it must be `new`.
    """
    ranks.refuse_sweep()
    planned = plan_sweep(config)
    runs, question = planned.runs, planned.question
    from harness.analysis.verdict import Claim
    from harness.runs import wandb_run
    from harness.sweeps.prefix_tree import branch_steps, prefix_trees
    from harness.sweeps.preview import comparison_warnings

    for settings in _distinct(run.config.tracking for run in runs):
        wandb_run.check(settings)
    for dataset in _distinct(run.config.dataset for run in runs):
        dataset.check()
    roots = prefix_trees(runs)
    document = _new_plan(planned, run_folders(config, planned.jobs), branch_steps(roots))
    folder = Path(config.hydra.sweep.dir)
    if new and (folder / "plan.json").exists():
        raise ConfigError(f"{folder}: has a sweep; --again {folder} submits what it lacks")
    plan = _write_or_continue(folder, document)
    question = replace(question, claim=plan["claim"] and Claim.from_dict(plan["claim"]))
    _announce(folder, planned, plan, question)
    for warning in comparison_warnings(runs, question):
        warn(warning)
    return len(runs)


def _announce(
    folder: Path, planned: PlannedSweep, plan: dict[str, Any], question: arms.Question
) -> None:
    """Print what is to be trained, of a sweep that goes on what is left of it, and the claim."""
    from harness.sweeps.prefix_tree import describe_cost, prefix_trees

    open_keys = {run["key"] for run in plan["arms"] if not _is_complete(folder, run)}
    pairs = zip(planned.runs, planned.composed, strict=True)
    left = [run for run, one in pairs if sweep_plan.run_key(one) in open_keys]
    cost = describe_cost(left, prefix_trees(left)) if left else "nothing is left to train"
    complete = len(planned.runs) - len(left)
    already = f"{complete} of {len(planned.runs)} runs are complete; " * (complete > 0)
    print(f"sweep in {folder}: {already}{cost}\n{question.text()}", file=sys.stderr)


def _is_complete(folder: Path, run: dict[str, Any]) -> bool:
    from harness.analysis.results import result

    try:
        return result(folder / sweep_plan.run_folder(run)).get("status") == "complete"
    except UnreadableError:
        return False  # the run says so itself


def _distinct(settings: Iterable[T]) -> list[T]:
    return list({repr(one): one for one in settings}.values())


def _new_plan(
    planned: PlannedSweep, folders: Sequence[str], branches: dict[str, set[int]]
) -> dict[str, Any]:
    entries = []
    for job, one, run, folder in zip(
        planned.jobs, planned.composed, planned.runs, folders, strict=True
    ):
        placed = job | {"folder": folder, "branches": sorted(branches[run.name])}
        entries.append(sweep_plan.run_entry(placed, one, sweep_plan.shape(run.plan.describe())))
    return sweep_plan.new_plan(sys.argv, entries) | planned.question.for_plan()


def _write_or_continue(folder: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Write `plan.json`, or keep one of the same runs and the claim that it fixed. Return the plan.

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
        keys = [sorted(run["key"] for run in plan["arms"]) for plan in (before, document)]
        same = same and keys[0] == keys[1]
    if not same:
        raise ConfigError(
            f"hydra.sweep.dir={folder}: holds the sweep of other runs, {len(before['arms'])} by "
            f"`python {shlex.join(before['command'])}`; take another folder"
        )
    return before


def _fixed_values(plan: dict[str, Any]) -> dict[str, str] | None:
    """Return the values that a search does not choose and that make another run; None for a planned sweep."""
    may_change = (*SAME_RUN, "store", "tracking", "ledger")
    values = plan["search"] and plan["search"]["fixed"]
    return values and {k: value for k, value in values.items() if not k.startswith(may_change)}


def begin_search(config: DictConfig, sweeper: str) -> None:
    """Write a `plan.json` without runs, to which each job adds itself as `sweeper` asks for it."""
    ranks.refuse_sweep()
    overrides = sweep_overrides(config)
    fixed = {
        one.get_key_element().lstrip("+"): one.get_value_element_as_str()
        for one in overrides
        if not one.is_sweep_override()
    }
    chosen = {one.get_key_element().lstrip("+") for one in overrides} - {*fixed}
    if (factor := config.claim.factor) and factor not in chosen:
        raise ConfigError(f"claim.factor={factor}: the search chooses {', '.join(sorted(chosen))}")
    folder = Path(config.hydra.sweep.dir)
    search = {"sweeper": sweeper, "fixed": fixed}
    _write_or_continue(folder, sweep_plan.new_plan(sys.argv, [], search))
    print(f"sweep in {folder}: runs are chosen by {sweeper} as it goes", file=sys.stderr)
    direction = getattr(config.hydra.sweeper.get("direction"), "name", "maximize")
    if direction == "minimize":
        warn(
            "hydra.sweeper.direction=minimize: a run returns its validation accuracy, of which "
            "more is better; hydra.sweeper.direction=maximize"
        )


def end_search(folder: Path) -> None:
    """Add to the plan the claim that the runs can be compared by, now that they are known."""
    plan = sweep_plan.read_frozen(folder)
    if not plan["arms"]:
        return
    settings = sweep_plan.run_config(plan, plan["arms"][0]).claim
    question = arms.infer_question_afterwards(settings, plan["arms"])
    sweep_plan.write_plan(folder / "plan.json", plan | question.for_plan())
    print(question.text(), file=sys.stderr)


def end_sweep(folder: Path, ledger: Path | None) -> None:
    """Make table, verdict, pictures and page of a sweep, and a line of the `ledger`; exit with 1 if runs
    of it are not done.

    A part that fails is a warning: the runs are there, and the other parts are made.
    """
    from harness.analysis import results
    from harness.report import summary
    from harness.sweeps.wandb_summary import publish_sweep

    text, failures = summary.write_summary([folder], folder, ledger)
    steps = Attempts()
    with steps.step("table"):
        print(text, flush=True)
    with steps.step("W&B"):
        if where := publish_sweep(folder):
            print(where)
    for failure in [*failures, *steps.failures]:
        warn(f"{failure}; later: python scripts/report.py {folder}")
    runs = results.read(folder)
    failed = runs.filter(runs["status"].is_in(["failed", "missing", "interrupted"]))
    if len(failed):
        names = "; ".join(f"{row['name']}: {row['error']}" for row in failed.to_dicts())
        logs = folder / ".submitit"
        where = f" (logs in {logs})" if logs.exists() else ""
        raise SystemExit(f"error: {len(failed)} of {len(runs)} runs failed: {names}{where}")
