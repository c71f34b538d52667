"""One job of Hydra's: compose, run, and return the metric."""

from __future__ import annotations

import math
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from harness import clusters, config, place
from harness.errors import report
from harness.signals import Interrupted


def job(composed: DictConfig) -> float:
    """One run at the place that Hydra gives it. Returns the last validation accuracy in percent.

    In a sweep a run that fails does not stop the others: its error is printed and it counts as NaN.
    On a cluster a run that a signal stopped is requeued, or does not stop the others either.
    """
    settings: Any = HydraConfig.get()
    single = settings.mode == RunMode.RUN
    label = ""
    try:
        checked = config.load(composed)
        where = place.given_by(settings)
        label = "" if single else f"{where.position} {where.name}: "
        from harness.run import run

        try:
            result = run(checked, where)
        except Interrupted as stop:
            if not clusters.hand_over(stop):
                raise
            return math.nan
    except Exception as error:
        report(error, label, full=clusters.in_a_job())
        if single:
            raise SystemExit(1) from error
        return math.nan
    return float(result["final"].get("val/acc", math.nan))
