"""What happens around the jobs of a multirun: `plan.json` before the first, results after the last."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from harness.analysis import arms, sweep_plan
from harness.config import measures
from harness.config.errors import ConfigError
from harness.config.one_line_errors import Attempts, one_line_errors
from harness.config.warnings import warn
from harness.runs.run_dir import from_here, how_to_go_on
from harness.sweeps import stages
from harness.sweeps.jobs import check_stages, search_sweeper, sweep_overrides
from harness.sweeps.launchers import check_launcher, prepare_launcher
from harness.sweeps.planning import write_or_continue
from harness.training import ranks

_LOGS = (".submitit", "*/job.log")  # of jobs of Slurm, and of Ray


class Sweep(Callback):
    """Hydra's callback, named in `conf/config.yaml`."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():
            if ranks.process_rank().rank:  # the first process alone writes
                with read_write(config):
                    config.hydra.run.dir, config.hydra.output_subdir = tempfile.gettempdir(), None
            if not config.hydra.run.dir:  # Hydra would take the current folder
                raise ConfigError("hydra.run.dir: has no value; give one with hydra.run.dir=VALUE")
            from harness.analysis import results

            results.refuse_planned(Path(config.hydra.run.dir))
            if swept := ", ".join(config.hydra.sweeper.get("params") or {}):
                warn(
                    f"this experiment is a sweep over {swept}, which takes -m; "
                    "without it, this is a single run of the defaults"
                )
            if stages.has_stages(config):
                warn(
                    "claim.until and claim.tune are of a sweep, which takes -m; this is a single run"
                )

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        if not ranks.process_rank().rank:
            end_run(Path(from_here(config.hydra.runtime.output_dir)))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():  # Hydra would make a warning of an exception
            if not OmegaConf.to_container(config.hydra.sweep, resolve=False)["dir"]:  # type: ignore[call-overload,index]
                raise ConfigError(
                    "hydra.sweep.dir: has no value; give one with hydra.sweep.dir=VALUE"
                )
            check_launcher(config.hydra.launcher)
            if sweeper := search_sweeper(config):
                begin_search(config, sweeper)
                at_once = config.hydra.sweeper.get("n_jobs", 1)
            else:
                at_once = stages.begin(config)
            prepare_launcher(config, at_once)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():
            folder = stages.last_folder(config)
            if search_sweeper(config):
                end_search(folder)
            ledger = config.ledger.path
            try:
                end_sweep(folder, Path(ledger).absolute() if ledger else None)
            except SystemExit:  # runs have failed, and the next command may begin another folder
                again = how_to_go_on("hydra.sweep.dir", config.hydra.sweep.dir)
                print(f"what is complete is kept; {again}", file=sys.stderr)
                raise
            from harness.analysis import verify

            if verify.check_records(folder):  # which the summary has named
                raise SystemExit(1)


def end_run(folder: Path) -> None:
    """Make pictures and page of a run outside of a sweep, and print where they are; a part that fails is a warning."""
    steps, written, failures = Attempts(), list[Path](), list[str]()
    later = f"later: python scripts/report.py {shlex.quote(str(folder))}"
    try:
        with steps.step("page"):
            from harness.report import summary

            written, failures = summary.write_run(folder)
    except KeyboardInterrupt:
        print(f"{folder}: the run is complete, its page is not; {later}", file=sys.stderr)
        raise
    print(*(shlex.quote(str(path)) for path in written or [folder]), sep="\n")
    for failure in [*failures, *steps.failures]:
        warn(f"{failure}; {later}")


def begin_search(config: DictConfig, sweeper: str) -> None:
    """Write a `plan.json` without runs, to which each job adds itself as `sweeper` asks for it."""
    ranks.refuse_sweep()
    check_stages(config)
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
    write_or_continue(folder, sweep_plan.new_plan(sys.argv, [], search))
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
    config = sweep_plan.run_config(plan, plan["arms"][0])
    measure = measures.of_claim(config.claim.metric, config.metrics)
    question = arms.infer_question_afterwards(config.claim, plan["arms"], measure)
    sweep_plan.write_plan(folder / "plan.json", plan | question.for_plan())
    print(question.text(), file=sys.stderr)


def end_sweep(folder: Path, ledger: Path | None) -> None:
    """Make table, verdict, pictures and page of a sweep, and a line of the `ledger`; exit with 1 if runs
    of it are not done.

    A part that fails is a warning: the runs are there, and the other parts are made.
    """
    from harness.analysis import averages, results
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
    runs = averages.of_runs(results.read(folder))
    failed = runs.filter(runs["status"].is_in(["failed", "missing", "interrupted"]))
    if len(failed):
        names = "; ".join(f"{row['name']}: {row['error']}" for row in failed.to_dicts())
        logs = next((one for one in _LOGS if any(folder.glob(one))), None)
        where = f" (logs in {folder / logs})" if logs else ""
        raise SystemExit(f"error: {len(failed)} of {len(runs)} runs failed: {names}{where}")
