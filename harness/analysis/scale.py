"""What the numbers of a claim mean, and how they are written: direction and unit come with the metric.

A difference is treatment − baseline in the metric's own sign. A **gain** is the difference where higher is better,
and its negative where lower is: what is decided is decided by gains.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.analysis.number_text import signed
from harness.config.schema import SETS

_PERCENT = "%"
_FRACTION = re.compile(r"acc|top-?\d|f1|auc", re.I)  # metrics that lie between 0 and 1
_READ_BY_CHARTS = str.maketrans(dict.fromkeys("'\"`\\{}", "_"))


@dataclass(frozen=True)
class Scale:
    """The metric of a claim (as val/acc), which is better (higher or lower), its unit and the claim's margin.

    Metrics that another program recorded have names of any form.
    """

    metric: str
    better: str
    unit: str
    margin: float

    @classmethod
    def of(cls, claim: Mapping[str, Any]) -> Scale:
        """Return that of the claim of a `plan.json` or `verdict.json`, of any version."""
        better, unit = claim.get("better", "higher"), claim.get("unit", _PERCENT)
        return cls(str(claim.get("metric", "val/acc")), better, unit, float(claim.get("margin", 0)))

    @property
    def name(self) -> str:
        """The metric without its set, as acc; of one that is not written as val/NAME or test/NAME, all of it."""
        split, _, name = self.metric.partition("/")
        return name if split in SETS and name else self.metric

    @property
    def is_accuracy(self) -> bool:
        """Whether values are accuracies in percent, from 0 to 100."""
        return self.name == "acc" and self.unit == _PERCENT

    @property
    def sign(self) -> int:
        return 1 if self.better == "higher" else -1

    def turned(self, ends: Sequence[Any]) -> tuple[float, float]:
        """Return the ends of an interval of gains as those of differences, or of differences as those of gains."""
        low, high = (self.sign * float(end) for end in ends)
        return (low, high) if low <= high else (high, low)

    def worst(self, recorded: Iterable[float]) -> float:
        """Return the value of a run that diverged and recorded none: 0, or 100, of %, 0 of accuracies
        between 0 and 1, else one beyond all `recorded`."""
        values = list(recorded)
        if self.unit == _PERCENT and all(0 <= value <= 100 for value in values):
            return 0.0 if self.better == "higher" else 100.0
        if (
            _FRACTION.search(self.name)
            and self.sign > 0
            and all(0 <= value <= 1 for value in values)
        ):
            return 0.0
        return -self.sign * max(1e6, 10 * max(map(abs, values), default=0.0))

    @property
    def on_val(self) -> Scale:
        """The same metric on the validation images, on which histories have it; others than test/NAME as they are."""
        on_test = self.metric == f"test/{self.name}"
        return replace(self, metric=f"val/{self.name}") if on_test else self

    @property
    def drawn(self) -> Scale:
        """The same with a name that can be the title of a chart: Vega-Lite puts titles unescaped into expressions."""
        return replace(self, metric=self.metric.translate(_READ_BY_CHARTS))

    # --- words ------------------------------------------------------------------------------------

    def imputed(self, worst: float) -> str:
        """Return what a run that diverged counts with; `worst` is that of one without a value."""
        return f"the last value recorded, else {worst:,.0f}{' %' * (self.unit == _PERCENT)}"

    @property
    def unit_of_differences(self) -> str:
        return "points" if self.unit == _PERCENT else self.unit

    @property
    def of_what(self) -> str:
        """What stands behind a difference: `points of val/acc`, `ms of val/latency`, `in val/loss`."""
        return f"{self.unit_of_differences} of {self.metric}" if self.unit else f"in {self.metric}"

    @property
    def title(self) -> str:
        """What an axis or a column of differences is called in brackets: its unit, else the metric, and the direction."""
        return (self.unit_of_differences or self.metric) + self.note

    @property
    def note(self) -> str:
        return ", lower is better" * (self.better == "lower")

    @property
    def values(self) -> str:
        """What an axis or a column of values is called: `val/acc (%)`, `val/loss`."""
        named = self.unit and self.unit not in self.metric  # as another program's `top1 (%)` has it
        return f"{self.metric} ({self.unit})" if named else self.metric

    def amount(self, number: float) -> str:
        """Return a size with its unit: `0.2 points`, `0.02`."""
        unit = "point" if number == 1 and self.unit == _PERCENT else self.unit_of_differences
        return f"{number:g} {unit}".rstrip()

    def gain(self, number: float) -> str:
        """Return a size that is shown to be beyond the margin: `0.4 points`, where lower is better `a gain of 0.04`."""
        return "a gain of " * (self.better == "lower") + self.amount(number)

    def side(self, of_gains: str) -> str:
        """Return where a difference lies whose gain lies `above` or `below` a line."""
        return of_gains if self.sign > 0 else {"above": "below", "below": "above"}[of_gains]

    @property
    def line(self) -> str:
        """The margin as differences have it: 0.2, where lower is better −0.02."""
        return f"{self.sign * self.margin:g}".replace("-", "−")

    @property
    def places(self) -> int:
        """Decimals of a difference: the margin's precision, at least hundredths of %, thousandths of others."""
        least = 2 if self.unit == _PERCENT else 3
        return max(least, 1 - math.floor(math.log10(self.margin))) if self.margin else least

    @property
    def places_shown(self) -> int:
        """Decimals in tables, where those of accuracies are hundredths."""
        return 2 if self.unit == _PERCENT else self.places

    def signed(self, number: float) -> str:
        return signed(number, self.places)

    def shown(self, number: float) -> str:
        """Return a difference as tables and the first screen have it."""
        return signed(number, self.places_shown)


ACCURACY = Scale("val/acc", "higher", _PERCENT, 0.0)
