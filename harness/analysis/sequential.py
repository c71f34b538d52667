"""Pairs judged in looks, until they decide: boundaries, repeated intervals, futility.

Group-sequential: the errors of all looks together are those of one look at the end. Arrays have the comparisons
of a sweep along their last axis but one and its pairs along the last, so that `scripts/calibrate_verdict.py` can
judge thousands of sweeps at once. docs/verdict.md has the rules, and how often they are wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache

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


@lru_cache(maxsize=256)
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
    larger than `margin`, in points?). Raises ValueError for what is no such design.
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
    together, and of Holm's procedure; `p` is Student's, one-sided, that the treatment is better.
    """

    evidence: Evidence
    mean: Floats
    p: Floats
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
    """Judge a family at a look (its index) by the first pairs of `differences` (..., comparisons, pairs), points.

    Comparisons that were settled `before` keep what they had, and their differences are not read. Repeated
    intervals are d̄ ± t⁻¹₍ₙ₋₁₎(1-pₖ)·s/√n. What lies beside 0 or the margin must pass Holm's procedure on
    one-sided t p's, in each direction by itself: with j of K comparisons rejected, at this look or one before,
    the boundary is that of α/(K-j) (Ye et al. 2013, Statistics in Medicine 32, 1112). Those that are `unclear`,
    as they have no spread, go on. Raises ValueError if an open comparison lacks a pair.
    """
    pairs = design.looks[number]
    settled = np.zeros(differences.shape[:-1], np.bool_) if before is None else before.settled
    waits = np.zeros_like(settled) if unclear is None else unclear
    used = np.where(settled[..., None], 0.0, differences[..., :pairs])
    if used.shape[-1] < pairs or np.isnan(used).any():
        raise ValueError(f"a comparison that is not settled lacks one of the first {pairs} pairs")
    mean, error = paired.mean(used), paired.sample_std(used) / math.sqrt(pairs)
    alpha = design.level / 2
    bounds = [
        boundaries(design.looks, alpha / left)[number] for left in range(mean.shape[-1], 0, -1)
    ]

    def beyond(side: int, line: float, name: str) -> Bools:
        p = np.where(settled | waits, 1.0, _p(side * (mean - line), error, pairs - 1))
        earlier = np.zeros_like(settled) if before is None else getattr(before.evidence, name)
        return _holm(p, np.array(bounds), earlier)

    (low, high), (inner_low, inner_high) = (
        _repeated(mean, error, pairs - 1, boundaries(design.looks, each)[number])
        for each in (alpha, design.level)
    )
    evidence = Evidence(
        low, high, inner_low, inner_high,
        below_zero=beyond(-1, 0, "below_zero"), above_zero=beyond(1, 0, "above_zero"),
        above_margin=beyond(1, design.margin, "above_margin"),
        below_margin=beyond(-1, design.margin, "below_margin"),
    )  # fmt: skip
    decided = _decided(design, evidence) & ~waits
    last = number == len(design.looks) - 1
    hopeless = (
        np.zeros_like(decided) if last else _chance(design, pairs, mean, error) < _LEAST_CHANCE
    )
    now = Standing(
        evidence, mean, _p(mean, error, pairs - 1), states.decide(evidence, design.margin),
        decided, ~decided & hopeless & ~waits,
    )  # fmt: skip
    return now if before is None else _kept(settled, before, now)


def _p(above: Floats, error: Floats, df: int) -> Floats:
    """Return one-sided p of means `above` a line; without spread 0 where they are above it, else 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p = scipy.special.stdtr(df, -above / error)
    return np.asarray(np.where(error > 0, p, np.where(above > 0, 0.0, 1.0)))


def _repeated(mean: Floats, error: Floats, df: int, p: float) -> tuple[Floats, Floats]:
    half = scipy.stats.t.isf(p, df) * error
    return mean - half, mean + half


def _holm(p: Floats, bounds: Floats, rejected: Bools) -> Bools:
    """Return what is rejected of comparisons (last axis), `bounds` by the number that already are."""
    for _ in bounds:
        at = np.minimum(rejected.sum(axis=-1, keepdims=True), len(bounds) - 1)
        rejected = rejected | (p <= bounds[at])
    return rejected


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
