"""Pairs judged in looks, until they decide: boundaries, repeated intervals, futility.

Group-sequential: the errors of all looks together are those of one look at the end. Arrays have the comparisons
of a sweep along their last axis but one and its pairs along the last, so that `scripts/calibrate_verdict.py` can
judge thousands of sweeps at once. docs/verdict.md has the rules, and how often they are wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import scipy  # which imports scipy.stats, a second's work, where it is used
from numpy.typing import NDArray

from harness.analysis import paired_stats as paired
from harness.analysis import states
from harness.analysis.paired_stats import Floats
from harness.analysis.states import Evidence

Bools = NDArray[np.bool_]

LOOKS = (6, 8, 10, 13, 16, 20, 25, 30)  # pairs
QUESTIONS = ("zero", "margin")
_LEAST_CHANCE = (
    0.2  # of a decision with all pairs; with less the seeds that are left are not worth it
)
_PATHS = 400_000


def default_looks(most: int) -> tuple[int, ...]:
    """Return the numbers of pairs at which a claim of at most so many is judged."""
    return (*(pairs for pairs in LOOKS if pairs < most), most)


@cache
def boundaries(looks: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    """Return the one-sided p of Student's t below which each look decides; all together err in `alpha`.

    Looks after n of N pairs spend α(n) = α·(n/N)² (Lan & DeMets 1983; the power family of Kim & DeMets 1987):
    P(first p below its boundary at look k) = α(n_k) - α(n_{k-1}), solved look by look: P(p below it) is the
    boundary itself, and P(below it, and below an earlier one) is counted over drawn paths of t of normal
    differences. They are drawn with a drift that takes half of them there, and each counts with its likelihood
    ratio (importance sampling; Siegmund 1976, Annals of Statistics 4, 673): within 2 % between draws for α from
    0.004 on, within 7 % from 1e-5 on.
    """
    rng = np.random.default_rng(0)
    drift = scipy.stats.norm.isf(alpha) / math.sqrt(looks[-1])
    sums, squares, crossed = np.zeros(_PATHS), np.zeros(_PATHS), np.zeros(_PATHS, np.bool_)
    found: list[float] = []
    before = 0
    for pairs in looks:
        fresh = pairs - before
        steps = rng.normal(drift * fresh, math.sqrt(fresh), _PATHS)
        squares += steps**2 / fresh + (rng.chisquare(fresh - 1, _PATHS) if fresh > 1 else 0)
        sums += steps
        t = sums * np.sqrt((pairs - 1) / (pairs * squares - sums**2))
        again = np.flatnonzero(crossed & (t > scipy.stats.t.isf(alpha, pairs - 1)))
        p = scipy.special.stdtr(pairs - 1, -t[again])
        order = np.argsort(p)
        ratio = np.exp(pairs * drift**2 / 2 - drift * sums[again[order]])
        spent = alpha * (pairs**2 - before**2) / looks[-1] ** 2
        candidates = np.geomspace(spent, alpha, 20_000)
        share = ratio.cumsum() / _PATHS
        first = candidates - np.append(0, share)[np.searchsorted(p[order], candidates)]
        at = int(np.searchsorted(np.maximum.accumulate(first), spent))
        found.append(float(candidates[min(at, len(candidates) - 1)]))
        crossed |= t > scipy.stats.t.isf(found[-1], pairs - 1)
        before = pairs
    return tuple(found)


@dataclass(frozen=True)
class Design:
    """When a family of comparisons is judged, and what is asked: fixed before the first update.

    `looks` are numbers of pairs, the last of them N; `decide` is "zero" (is there a gain?) or "margin" (is it
    larger than `margin`?). Raises ValueError for what is no such design.
    """

    looks: tuple[int, ...]
    level: float
    margin: float
    decide: str = "zero"

    def __post_init__(self) -> None:
        if not self.looks or self.looks[0] < 2 or list(self.looks) != sorted({*self.looks}):
            raise ValueError(f"looks={[*self.looks]}: must be ascending numbers of pairs from 2 on")
        if self.decide not in QUESTIONS:
            raise ValueError(f"decide={self.decide}: must be {' or '.join(QUESTIONS)}")


@dataclass(frozen=True)
class Standing:
    """What a family of comparisons has come to after a look: arrays of one shape, an element a comparison.

    `evidence` is of repeated intervals (Jennison & Turnbull 1989), which cover the true difference at all looks
    together, and of Holm's procedure.
    """

    evidence: Evidence
    mean: Floats
    state: NDArray[np.str_]
    decided: Bools
    undecidable: Bools  # too rarely decided with N pairs, at this mean and spread

    @property
    def settled(self) -> Bools:
        """Tell which need no more pairs."""
        return np.asarray(self.decided | self.undecidable)


def look(
    design: Design,
    number: int,
    differences: Floats,
    before: Standing | None,
    unclear: Bools | None = None,
) -> Standing:
    """Judge a family at a look (its index) by the first pairs of gains, `differences` (..., comparisons, pairs).

    Comparisons that were settled `before` keep what they had, and their differences are not read. Repeated
    intervals are d̄ ± t⁻¹₍ₙ₋₁₎(1-pₖ)·s/√n. What lies beside 0 or the margin must pass Holm's procedure on
    one-sided t p's, in each direction by itself: with j of K comparisons rejected, at this look or one before,
    the boundary is that of α/(K-j) (Ye et al. 2013, Statistics in Medicine 32, 1112). Those that are `unclear`,
    whose equal differences the images are too few to tell apart, go on. Raises ValueError if an open comparison
    lacks a pair.
    """
    pairs = design.looks[number]
    settled = np.zeros(differences.shape[:-1], np.bool_) if before is None else before.settled
    waits = np.zeros_like(settled) if unclear is None else unclear
    used = np.where(settled[..., None], 0.0, differences[..., :pairs])
    if used.shape[-1] < pairs or np.isnan(used).any():
        raise ValueError(f"a comparison that is not settled lacks one of the first {pairs} pairs")
    mean, error = paired.mean(used), paired.sample_std(used) / math.sqrt(pairs)
    earlier = None if before is None else before.evidence
    evidence = _evidence(design, number, (mean, error), earlier, settled | waits)
    decided = _decided(design, evidence) & ~waits
    last = number == len(design.looks) - 1
    hopeless = (
        np.zeros_like(decided) if last else _chance(design, pairs, mean, error) < _LEAST_CHANCE
    )
    state = states.decide(evidence, design.margin)
    now = Standing(evidence, mean, state, decided, ~decided & hopeless & ~waits)
    return now if before is None else _kept(settled, before, now)


def _evidence(
    design: Design,
    number: int,
    measured: tuple[Floats, Floats],
    before: Evidence | None,
    closed: Bools,
) -> Evidence:
    """Return the repeated intervals of means with their errors, and what Holm's procedure rejects; of closed
    ones nothing new.
    """
    mean, error = measured

    def critical(alpha: float) -> float:
        return float(
            scipy.stats.t.isf(boundaries(design.looks, alpha)[number], design.looks[number] - 1)
        )

    family = mean.shape[-1]

    def criticals(left: NDArray[np.int64]) -> Floats:
        """Return t by the number of comparisons that are left: of few of them, and each costs a drawing."""
        found = np.empty(left.shape)
        for number in np.unique(left):
            found[left == number] = critical(design.level / 2 / int(number))
        return found

    def beyond(side: int, line: float, name: str) -> Bools:
        distance = np.where(closed, -np.inf, side * (mean - line))
        rejected = np.zeros_like(closed) if before is None else getattr(before, name)
        for _ in range(family):
            left = family - np.minimum(rejected.sum(axis=-1, keepdims=True), family - 1)
            more = rejected | (distance > criticals(left) * error)
            if (more == rejected).all():
                break
            rejected = more
        return np.asarray(rejected)

    outer, inner = (critical(alpha) * error for alpha in (design.level / 2, design.level))
    return Evidence(
        mean - outer, mean + outer, mean - inner, mean + inner,
        below_zero=beyond(-1, 0, "below_zero"), above_zero=beyond(1, 0, "above_zero"),
        above_margin=beyond(1, design.margin, "above_margin"),
        below_margin=beyond(-1, design.margin, "below_margin"),
    )  # fmt: skip


def _decided(design: Design, evidence: Evidence) -> Bools:
    better = evidence.above_zero if design.decide == "zero" else evidence.above_margin
    return np.asarray(better | evidence.below_zero | (evidence.high < design.margin))


def _chance(design: Design, pairs: int, mean: Floats, error: Floats) -> Floats:
    """Return the predictive probability of a decision with all N pairs, from n of them.

    Under a flat prior the mean of N is d̄ + s·√(1/n - 1/N)·T with T of Student's t, n-1 degrees of freedom
    (Spiegelhalter, Freedman & Blackburn 1986, Controlled Clinical Trials 7, 8). It decides beyond the ends of
    the last repeated interval of a single comparison, with the spread so far.
    """
    most = design.looks[-1]
    spread = error * math.sqrt(pairs)
    critical = scipy.stats.t.isf(boundaries(design.looks, design.level / 2)[-1], most - 1)
    half = critical * spread / math.sqrt(most)
    line = 0.0 if design.decide == "zero" else design.margin
    scale = spread * math.sqrt(1 / pairs - 1 / most)
    with np.errstate(divide="ignore", invalid="ignore"):
        better, none = (
            scipy.special.stdtr(pairs - 1, distance / scale)
            for distance in (mean - line - half, design.margin - half - mean)
        )
    return np.asarray(np.where(error > 0, np.minimum(1, better + none), 1.0))


def _kept(settled: Bools, before: Standing, now: Standing) -> Standing:
    """Return what is now, but for settled comparisons what was before."""
    old, new = ({**vars(one.evidence), **vars(one)} for one in (before, now))
    kept = {name: np.where(settled, old[name], new[name]) for name in new if name != "evidence"}
    ends = {field.name: kept.pop(field.name) for field in fields(Evidence)}
    return Standing(Evidence(**ends), **kept)
