"""One job: a run at its place, its errors told, whoever started it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from harness import clusters, config, imports, place, processes
from harness.config import Config, NoTracking
from harness.errors import report
from harness.place import Place
from harness.signals import Interrupted

if TYPE_CHECKING:
    from harness.distributed import World


def job(composed: DictConfig) -> float:
    """One job of Hydra's. Returns the last validation accuracy in percent.

    In a sweep a run that fails does not stop the others: its error is printed and it counts as NaN,
    as does one that diverged.
    """
    settings: Any = HydraConfig.get()
    result = train(place.given_by(settings), lambda: config.load(composed))
    if result is None and settings.mode == RunMode.RUN:
        raise SystemExit(1)
    if result is None or result["status"] != "complete":
        return math.nan
    return float(result["final"]["val/acc"])


def train(where: Place, configured: Callable[[], Config]) -> dict[str, Any] | None:
    """The result of a run; None after an error, which is printed.

    On a cluster a run that a signal stopped is requeued, or does not stop the others either. Of
    several processes that train the run, one prints its error.
    """
    label = f"{where.position} {where.name}: " if where.position else ""
    seat = processes.seat()
    world: World | None = None
    if seat.size > 1:  # or torch tells of a lost process in pages of addresses
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        checked = configured()
        imports.load()
        from harness.distributed import World

        world = World(seat)
        try:
            with world.joined():
                return _run(checked, where, world)
        except Interrupted as stop:
            if not clusters.hand_over(stop):  # raises what ends a job that may not be requeued
                raise
    except Exception as error:
        if world.speaks if world else seat.rank == 0:
            label += f"{seat}: " if seat.rank else ""
            report(error, label, full=clusters.in_a_job())
    return None


def _run(checked: Config, where: Place, world: World) -> dict[str, Any]:
    """The run; processes after the first have nowhere to write to but a folder that goes away."""
    from harness.run import run

    if world.rank == 0:
        return run(checked, where, world)
    without = replace(checked, reuse=False, tracking=NoTracking())
    with world.writing_nothing() as folder:
        return run(without, replace(where, folder=folder), world)
