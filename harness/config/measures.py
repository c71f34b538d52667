"""What the numbers of metrics mean: whether higher or lower is better, and their unit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.config.errors import ConfigError, nearest
from harness.config.registry import METRICS
from harness.config.schema import SETS

_UNIT = re.compile(
    r"[\w%°·/^ -]{0,16}"
)  # a unit stands in the titles of charts, which escape nothing
_METRIC = re.compile(rf"({'|'.join(SETS)})/[^\W\d]\w*")


@dataclass(frozen=True)
class Measure:
    """The direction and the unit of a metric. Raises ValueError for others than there are."""

    better: str  # higher or lower
    unit: str  # of the number; differences of % are points

    def __post_init__(self) -> None:
        if self.better not in ("higher", "lower"):
            raise ValueError(f"better={self.better}: must be higher or lower")
        if not isinstance(self.unit, str) or not _UNIT.fullmatch(self.unit):
            raise ValueError(f"unit={self.unit}: must be a short text, as % or ms")


BUILTIN = {"acc": Measure("higher", "%"), "loss": Measure("lower", "")}


def is_metric(metric: object) -> bool:
    """Return whether `metric` is written as val/NAME or test/NAME."""
    return isinstance(metric, str) and bool(_METRIC.fullmatch(metric))


def measures(metrics: Sequence[str]) -> dict[str, Measure]:
    """Return acc, loss and `metrics`, which extensions have registered, by name."""
    own = {name: METRICS[name] for name in metrics}
    return BUILTIN | {name: Measure(metric.better, metric.unit) for name, metric in own.items()}


def described(metrics: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return `measures` as `result.json` has them."""
    return {name: asdict(measure) for name, measure in measures(metrics).items()}


def of_claim(metric: str, metrics: Sequence[str]) -> Measure:
    """Return the measure of a claim's metric, as val/loss, in a run that evaluates `metrics`. Raises `ConfigError`."""
    known = measures(metrics)
    split, _, name = metric.partition("/")
    if split in SETS and name in known:
        return known[name]
    if split in SETS and name in METRICS:
        raise ConfigError(
            f"claim.metric={metric}: is not evaluated; add metrics=[{','.join([*metrics, name])}]"
        )
    names = [f"{one}/{name}" for name in known for one in SETS]
    raise ConfigError(f"claim.metric={metric}: {nearest(metric, names)}")
