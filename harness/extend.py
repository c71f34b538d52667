"""What a Python file of one's own builds on: `python train.py extensions=[mine.py] model=mine`, docs/extensions.md."""

from harness.config.errors import ConfigError
from harness.config.extensions import register
from harness.config.fields import choice, duration, number, without_effect
from harness.config.schema import Dataset, DatasetShape, Model, Optimizer, Scheduler

__all__ = [
    "ConfigError", "Dataset", "DatasetShape", "Model", "Optimizer", "Scheduler",
    "choice", "duration", "number", "register", "without_effect",
]  # fmt: skip
