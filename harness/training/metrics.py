"""Metrics of the user's own, beside accuracy and loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from harness.config import extensions
from harness.config.errors import ConfigError
from harness.config.registry import METRICS

_TRIED = 100  # images, at least


def compute(name: str, logits: Tensor, labels: Tensor) -> float:
    """Return the metric `name`. Raises `ConfigError` where its code does."""
    metric = METRICS[name]()
    with extensions.own_code(metric, "update"):
        metric.update(logits.clone(), labels.clone())
    with extensions.own_code(metric, "compute"):
        return float(metric.compute())


def refuse_infinite(name: str, value: float) -> None:
    """Raise `ConfigError` unless the `value` of the metric `name` is finite."""
    if not math.isfinite(value):
        raise ConfigError(f"metrics=[{name}]: compute gives {value}; must be a finite number")


def check(names: Sequence[str], classes: int) -> None:
    """Raise `ConfigError` for metrics that do not give a number for random logits, before anything is trained."""
    labels = torch.arange(max(_TRIED, 2 * classes)) % classes
    drawn = torch.Generator().manual_seed(0)
    for name in names:
        with torch.random.fork_rng():
            logits = torch.randn(len(labels), classes, generator=drawn)
            refuse_infinite(name, compute(name, logits, labels))
