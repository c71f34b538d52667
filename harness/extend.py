"""What a Python file of one's own builds on: `python train.py extensions=[mine.py] model=mine`, docs/extensions.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.config.errors import ConfigError
from harness.config.extensions import register
from harness.config.fields import choice, duration, number, without_effect
from harness.config.schema import Dataset, DatasetShape, Metric, Model, Optimizer, Scheduler

if TYPE_CHECKING:  # for hints alone; the first two need torch, which takes seconds to import
    from harness.config.schema import Parameters
    from harness.training.datasets import Arrays
    from harness.training.schedules import Durations
else:
    Arrays = Durations = Parameters = object

__all__ = [
    "Arrays", "ConfigError", "Dataset", "DatasetShape", "Durations", "Metric", "Model", "Optimizer", "Parameters", "Scheduler",
    "choice", "duration", "number", "register", "without_effect",
]  # fmt: skip
