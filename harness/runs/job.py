"""One job: a run at its place, its errors told, whoever started it."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from harness.analysis import arms, sweep_plan
from harness.config import schema as config
from harness.config import streams
from harness.config.errors import report
from harness.config.schema import Composed, Config, NoTracking
from harness.fast_imports import import_once
from harness.runs import requeue as clusters
from harness.runs import run_dir as place
from harness.runs.run_dir import Place
from harness.runs.signals import Interrupted
from harness.training import ranks as processes

if TYPE_CHECKING:
    from harness.training.distributed import World


def job(composed: DictConfig) -> float:
    """One job of Hydra's. Returns the last validation accuracy in percent.

    In a sweep a run that fails does not stop the others: its error is printed and it counts as NaN,
    as does one that diverged. Paths mean the same with `hydra.job.chdir=true`: they are relative to where
    the command was given.
    """
    settings: Any = HydraConfig.get()
    with chdir(settings.runtime.cwd):
        result = train(lambda: found(settings, composed))
    if result is None and not place.in_sweep(settings):
        raise SystemExit(1)
    if result is None or result["status"] != "complete":
        return math.nan
    return float(result["final"]["val/acc"])


def found(settings: DictConfig, composed: DictConfig) -> tuple[Place, Config]:
    """The place and the configuration of the job that Hydra runs with `settings`.

    In a sweep both are those of the plan. Raises `ConfigError` for a job that is not in it.
    """
    if not place.in_sweep(settings):
        return place.single(settings), config.load(composed)
    sweep = Path(settings.sweep.dir).absolute()
    given = config.load_composed(composed)
    overrides = place.task_overrides(settings)
    if sweep_plan.read_frozen(sweep)["search"]:
        sweep_plan.append_run(sweep, given, lambda plan: _chosen(plan, settings, given))
    plan, position = sweep_plan.find_run(sweep, overrides, given)
    run = plan["arms"][position]
    where = place.planned(sweep, plan, position)
    if where.folder != Path(settings.runtime.output_dir) and settings.output_subdir:
        # Hydra's files of this job, in the folder of another run
        shutil.rmtree(Path(settings.runtime.output_dir, settings.output_subdir), ignore_errors=True)
    return where, sweep_plan.config_to_train(plan, run, given.config)


def _load() -> None:
    import harness.runs.run
    import harness.sweeps.preview  # noqa: F401


def _chosen(plan: dict[str, Any], settings: DictConfig, given: Composed) -> dict[str, Any]:
    """The entry in the plan of a run that a search has chosen."""
    import_once(_load)
    from harness.sweeps import preview

    overrides = place.task_overrides(settings)
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
    plan_of_run = preview.plan_run(job["name"], job["arm"], given.config).plan
    return sweep_plan.run_entry(job, given, sweep_plan.shape(plan_of_run.describe()))


def train(found: Callable[[], tuple[Place, Config]]) -> dict[str, Any] | None:
    """The result of the run that `found` gives; None after an error, which is printed.

    On a cluster a run that a signal stopped is requeued, or does not stop the others either. Of
    several processes that train the run, one prints its error.
    """
    streams.secure()  # also in a launcher's processes
    label = ""
    seat = processes.seat()
    world: World | None = None
    if seat.size > 1:  # or torch tells of a lost process in pages of addresses
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        where, checked = found()
        label = f"{where.position} {where.name}: " if where.position else ""
        import_once(_load)
        from harness.training.distributed import World

        world = World(seat)
        try:
            with world.joined():
                return _run(checked, where, world)
        except Interrupted as stop:
            if not clusters.forward_signal_to_submitit(
                stop
            ):  # raises what ends a job that may not be requeued
                raise
    except Exception as error:
        if world.speaks if world else seat.rank == 0:
            label += f"{seat}: " if seat.rank else ""
            report(error, label, full=clusters.in_a_job())
    return None


def _run(checked: Config, where: Place, world: World) -> dict[str, Any]:
    """The run; processes after the first have nowhere to write to but a folder that goes away."""
    from harness.runs.run import run

    if world.rank == 0:
        return run(checked, where, world)
    without = replace(checked, reuse=False, tracking=NoTracking())
    with world.writing_nothing() as folder:
        return run(without, replace(where, folder=folder), world)
