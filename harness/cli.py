"""One job of Hydra's: compose, run, and return the metric."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from harness import config, place, processes
from harness.config import Config, NoTracking
from harness.errors import report
from harness.place import Place

if TYPE_CHECKING:
    from harness.distributed import World


def job(composed: DictConfig) -> float:
    """One run at the place that Hydra gives it. Returns the last validation accuracy in percent.

    In a sweep a run that fails does not stop the others: its error is printed and it counts as NaN.
    Of several processes that train the run, one prints it.
    """
    settings: Any = HydraConfig.get()
    single = settings.mode == RunMode.RUN
    label = ""
    seat = processes.seat()
    world: World | None = None
    if seat.size > 1:  # or torch tells of a lost process in pages of addresses
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        checked = config.load(composed)
        where = place.given_by(settings)
        label = "" if single else f"{where.position} {where.name}: "
        from harness.distributed import World

        world = World(seat)
        with world.joined():
            result = _run(checked, where, world)
    except Exception as error:
        if world.speaks if world else seat.rank == 0:
            report(error, label + (f"{seat}: " if seat.rank else ""))
        if single:
            raise SystemExit(1) from error
        return math.nan
    return float(result["final"].get("val/acc", math.nan))


def _run(checked: Config, where: Place, world: World) -> dict[str, Any]:
    """The run; processes after the first have nowhere to write to but a folder that goes away."""
    from harness.run import run

    if world.rank == 0:
        return run(checked, where, world)
    without = replace(checked, reuse=False, tracking=NoTracking())
    with world.writing_nothing() as folder:
        return run(without, replace(where, folder=folder), world)
