"""One job: what Hydra or Slurm starts becomes a run, and an error becomes one line."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import chdir, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from harness.analysis import arms, sweep_plan
from harness.choices.builtin import register
from harness.config import compose, streams
from harness.config.compose import Composed
from harness.config.hydra_private import SWEEPER
from harness.config.one_line_errors import report
from harness.config.schema import Config, NoTracking
from harness.fast_imports import import_once
from harness.runs import gpu_share, requeue, run_dir
from harness.runs.run_dir import RunInfo
from harness.runs.signals import RunInterruptedError
from harness.training import ranks

if TYPE_CHECKING:
    from harness.runs.result import RunResult
    from harness.training.distributed import World


def hydra_job(composed: DictConfig) -> float:
    """Run one job of Hydra's. Return the last validation accuracy in percent.

    In a sweep a run that fails does not stop the others: its error is printed and it counts as NaN,
    as does one that diverged. Paths mean the same with `hydra.job.chdir=true`: they are relative to where
    the command was given.
    """
    settings: Any = HydraConfig.get()
    with chdir(settings.runtime.cwd):
        result = run_job(lambda: load_job(settings, composed))
    if result is None and not run_dir.in_sweep(settings):
        raise SystemExit(1)
    if result is None or result.status != "complete":
        return math.nan
    return float(result.evaluations["final"].values["val/acc"])


def load_job(settings: DictConfig, composed: DictConfig) -> tuple[RunInfo, Config]:
    """Return info and configuration of the job that Hydra runs with `settings`.

    In a sweep both are those of the plan. Raises `ConfigError` for a job that is not in it.
    """
    if not run_dir.in_sweep(settings):
        return run_dir.single(settings), compose.load(composed)
    sweep = Path(settings.sweep.dir).absolute()
    given = compose.load_composed(composed)
    overrides = run_dir.task_overrides(settings)
    if sweep_plan.read_frozen(sweep)["search"]:
        sweep_plan.append_run(sweep, given, lambda plan: _chosen(plan, settings, given))
    plan, position = sweep_plan.find_run(sweep, overrides, given)
    run = plan["arms"][position]
    info = run_dir.planned(sweep, plan, position)
    if settings.sweeper._target_ != SWEEPER:
        info = replace(info, again=run_dir.how_to_go_on("hydra.sweep.dir", sweep))
    if os.path.abspath(info.folder) != os.path.abspath(settings.runtime.output_dir):
        _remove_hydras_files(settings)
    return info, sweep_plan.config_to_train(plan, run, given.config)


def _remove_hydras_files(settings: DictConfig) -> None:
    """Remove what Hydra wrote about this job into the folder of another run."""
    if not settings.output_subdir:
        return
    folder = Path(settings.runtime.output_dir, settings.output_subdir)
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # it has other files
        folder.rmdir()


def _chosen(plan: dict[str, Any], settings: DictConfig, given: Composed) -> dict[str, Any]:
    """Return the entry in the plan of a run that a search has chosen."""
    import_once(_load)
    from harness.runs.setup import lr_plan

    overrides = run_dir.task_overrides(settings)
    swept = {
        key: value
        for key, value in arms.override_values(overrides).items()
        if key not in plan["search"]["fixed"]
    }
    sweep_plan.check_same_search(plan, given, list(swept))
    job = arms.label_run(swept) | {"num": len(plan["arms"]), "overrides": overrides, "branches": []}
    job["folder"] = sweep_plan.free_folder(
        plan, os.path.relpath(settings.runtime.output_dir, Path(settings.sweep.dir).absolute())
    )
    shape = sweep_plan.shape(lr_plan(given.config).describe())
    return sweep_plan.run_entry(job, given, shape)


def _load() -> None:
    import harness.runs.run
    import harness.runs.setup  # noqa: F401


def run_job(load: Callable[[], tuple[RunInfo, Config]]) -> RunResult | None:
    """Return the result of the run that `load` gives; None after an error, which is printed.

    On a cluster a run that a signal stopped is requeued, or does not stop the others either. Of
    several processes that train the run, one prints its error.
    """
    streams.secure()  # also in a launcher's processes
    gpu_share.claim()
    register()
    label = ""
    process = ranks.process_rank()
    world: World | None = None
    if process.size > 1:  # or torch prints pages of addresses about a lost process
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        info, config = load()
        label = f"{info.position} {info.name}: " if info.position else ""
        import_once(_load)
        from harness.runs.context import RunContext
        from harness.runs.run import run
        from harness.training.distributed import World

        world = World(process)
        try:
            with world.process_group(), world.scratch_dir() as scratch:
                if scratch:  # processes after the first have nowhere else to write to
                    info = replace(info, folder=scratch)
                    config = replace(config, reuse=False, tracking=NoTracking())
                return run(RunContext(config, info, world))
        except RunInterruptedError as stop:
            if not requeue.forward_signal_to_submitit(stop):  # raises what ends a job for good
                raise
    except Exception as error:
        if world.reports_errors if world else process.rank == 0:
            label += f"{process}: " if process.rank else ""
            report(error, label, full=requeue.in_a_job())
    return None
