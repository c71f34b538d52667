"""What a comparison comes to: one table of states, of which the first that fits is the answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis import paired_stats as paired
from harness.analysis.paired_stats import Floats, JointP

INVALID = "invalid"
INTERIM = "interim"
TOO_FEW = "too few pairs"
TOO_FEW_RUNS = "too few runs"  # of those that are not paired
TOO_COARSE = "too coarse to tell"
WORSE = "worse"
SUPPORTED = "supported"
SUPPORTED_SMALLER = "supported, smaller than the margin"
SUPPORTED_UNSURE = "supported, size unsure"
EQUIVALENT = "equivalent"
NO_GAIN = "no gain that matters"
INCONCLUSIVE = "inconclusive"

STATES = (
    INVALID, INTERIM, TOO_FEW, TOO_FEW_RUNS, TOO_COARSE, WORSE, SUPPORTED, SUPPORTED_SMALLER, SUPPORTED_UNSURE,
    EQUIVALENT, NO_GAIN, INCONCLUSIVE,
)  # fmt: skip
ANY_SUPPORTED = (SUPPORTED, SUPPORTED_SMALLER, SUPPORTED_UNSURE)
UNDECIDED = (
    INVALID,
    INTERIM,
    TOO_FEW,
    TOO_FEW_RUNS,
    TOO_COARSE,
)  # where the intervals are not asked
OPEN = (INCONCLUSIVE, SUPPORTED_UNSURE)  # what more pairs may answer
_FROM_MOST_FAVOURABLE = (
    *ANY_SUPPORTED, EQUIVALENT, NO_GAIN, INCONCLUSIVE, TOO_COARSE, TOO_FEW, TOO_FEW_RUNS, WORSE,
    INTERIM, INVALID,
)  # fmt: skip


def least_favourable(*states: str) -> str:
    """Return the state that says least for the claim."""
    return max(states, key=_FROM_MOST_FAVOURABLE.index)


@dataclass(frozen=True)
class Evidence:
    """What the table asks of the pairs of comparisons: arrays of one shape, an element a comparison."""

    low: Floats  # the ends of the 1 - level interval
    high: Floats
    inner_low: Floats  # and of the 1 - 2 level interval
    inner_high: Floats
    below_zero: NDArray[np.bool_]  # these four, of several comparisons, once all of them count
    above_zero: NDArray[np.bool_]
    above_margin: NDArray[np.bool_]
    below_margin: NDArray[np.bool_]

    @classmethod
    def of_intervals(cls, outer: Any, inner: Any, margin: float) -> Evidence:
        """Return that of comparisons by themselves, from their 1 - level and 1 - 2 level intervals."""
        (low, high), (inner_low, inner_high) = (map(np.asarray, ends) for ends in (outer, inner))
        return cls(low, high, inner_low, inner_high, high < 0, low > 0, low > margin, high < margin)

    @classmethod
    def of(cls, differences: Floats, margin: float, level: float) -> Evidence:
        """Return that of comparisons by themselves, pairs along the last axis."""
        outer, inner = (paired.interval(differences, a) for a in (level, 2 * level))
        return cls.of_intervals(outer, inner, margin)

    def adjusted(self, p: JointP, level: float) -> Evidence:
        """Return that of several comparisons, which must pass the joint test too."""
        return replace(
            self,
            below_zero=self.below_zero & (p.below_zero <= level / 2),
            above_zero=self.above_zero & (p.above_zero <= level / 2),
            above_margin=self.above_margin & (p.above_margin <= level / 2),
            below_margin=self.below_margin & (p.below_margin <= level / 2),
        )


def decide(evidence: Evidence, margin: float) -> NDArray[np.str_]:
    """Return the state of comparisons that are valid, whole, and of enough pairs and resolution.

    A comparison above the margin is above 0 too, so that the rows exclude each other in this order.
    """
    above = evidence.above_zero | evidence.above_margin
    within = (evidence.inner_low >= -margin) & (evidence.inner_high <= margin)
    table = {
        WORSE: evidence.below_zero,
        SUPPORTED: evidence.above_margin,
        SUPPORTED_SMALLER: above & evidence.below_margin,
        SUPPORTED_UNSURE: above,
        EQUIVALENT: within,  # two one-sided tests
        NO_GAIN: evidence.high < margin,
    }
    return np.select([*table.values()], [*table.keys()], INCONCLUSIVE)
