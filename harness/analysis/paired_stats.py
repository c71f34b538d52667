"""Paired differences → intervals, p values, numbers of pairs: the arithmetic of a claim.

Arrays have the pairs along their last axis, so that `scripts/calibrate_verdict.py` can apply the functions
that judge one sweep to thousands. docs/verdict.md has the sources of the rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy  # which imports scipy.stats, a second's work, where it is used
from numpy.typing import NDArray

Floats = NDArray[np.float64]

POWER = 0.8
_FLIPS = 100_000  # patterns of signs drawn where there are too many to count each
_ENUMERATED = 20  # pairs up to which `sign_flip` counts every pattern of signs
_ENUMERATED_JOINTLY = 12  # the same of `max_t`
_JOINT_FLIPS = 20_000
_MOST_FLIPPED = 20_000_000  # signs, or sums, that `max_t` keeps at once
_RESAMPLES = 9_999
_SD_CONFIDENCE = 0.8  # of the limit of the standard deviation that `pairs_needed` reckons with


def tie_resolution(largest: float) -> float:
    """Return how many units 1 has in which differences tie, so that 98.3 - 98.1 and 0.2 do: 10⁹.

    Where the `largest` number is far from 1, so many that it has about as many itself.
    """
    if largest == 0 or 1e-3 <= largest <= 1e6:
        return 1e9
    return float(10.0 ** (9 - math.floor(math.log10(largest))))


def fewest_pairs(level: float, cells: int = 1) -> int:
    """Return the fewest pairs that can show a difference in each of several cells, if all have one sign.

    The least p of `max_t`: one of the cells has no sign flipped in 1 - (1 - 2⁻ⁿ)^cells of the patterns, which
    must not exceed level / 2. Comparisons of one cell share their seeds, and need no more than one does.
    """
    return math.ceil(-math.log2(-math.expm1(math.log1p(-level / 2) / cells)))


def interval(differences: Floats, level: float) -> tuple[Floats, Floats]:
    """Return Student's 1-`level` interval of the mean along the last axis; a point if all are equal."""
    pairs = differences.shape[-1]
    half = scipy.stats.t.ppf(1 - level / 2, pairs - 1) * sample_std(differences) / math.sqrt(pairs)
    return mean(differences) - half, mean(differences) + half


def bootstrap_t(differences: Floats, levels: Sequence[float]) -> list[tuple[float, float]] | None:
    """Return the bootstrap-t interval of the mean (Efron 1981) at each 1-level, of one row of differences.

    Unlike Student's it allows for skewed differences. None if all of them are equal.
    """
    pairs = len(differences)
    if np.ptp(differences) == 0:
        return None
    chosen = np.random.default_rng(0).integers(pairs, size=(_RESAMPLES, pairs))
    drawn = differences[chosen]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (mean(drawn) - mean(differences)) * math.sqrt(pairs) / sample_std(drawn)
    t = np.where(np.isnan(t), 0, t)  # a resample of one value, the mean
    scale = float(sample_std(differences)) / math.sqrt(pairs)
    ends = []
    for level in levels:
        low, high = np.quantile(t, [level / 2, 1 - level / 2], method="higher")
        ends.append(
            (float(mean(differences) - high * scale), float(mean(differences) - low * scale))
        )
    return ends


def sign_flip(differences: Floats) -> Floats:
    """Return the two-sided p of the mean along the last axis under random signs of the differences.

    Exact up to 20 pairs, ties included; beyond, over 100,000 drawn patterns and the observed one
    (Phipson & Smyth 2010).
    """
    resolution = tie_resolution(float(np.abs(differences).max(initial=0)))
    units = np.rint(differences * resolution).astype(np.int64)
    pairs, observed = units.shape[-1], np.abs(units.sum(axis=-1, keepdims=True))
    if pairs <= _ENUMERATED:
        sums = units[..., :1]  # the other half of the patterns mirrors this one
        for pair in range(1, pairs):
            one = units[..., pair, None]
            sums = np.concatenate([sums + one, sums - one], axis=-1)
        return np.asarray((np.abs(sums) >= observed).mean(axis=-1), np.float64)
    rng = np.random.default_rng(0)
    sums = np.zeros((*units.shape[:-1], _FLIPS), np.int64)
    for pair in range(pairs):
        sums += units[..., pair, None] * rng.choice([-1, 1], _FLIPS)
    as_far = (np.abs(sums) >= observed).sum(axis=-1)
    return np.asarray((as_far + 1) / (_FLIPS + 1), np.float64)


@dataclass(frozen=True)
class JointP:
    """One-sided p of each comparison, adjusted for all of them, in the four directions of a claim."""

    above_zero: Floats
    below_zero: Floats
    above_margin: Floats
    below_margin: Floats


def max_t(differences: Floats, margin: float, flips: int = _JOINT_FLIPS) -> JointP:
    """Return the p of each comparison's mean against 0 and the margin, adjusted for all comparisons.

    `differences` (..., comparisons, units) has a column for each seed of each cell, NaN where a
    comparison lacks it. The studentized step-down maximum over the comparisons (Westfall & Young 1993;
    Romano & Wolf 2005), whose null distribution comes from flipping the signs of all differences of a
    unit together: what the comparisons share (the baseline's runs) stays shared. Exact up to 12 units,
    over `flips` patterns, or as many as memory holds, and the observed one beyond.
    """
    flips = min(flips, _MOST_FLIPPED // max(differences.shape[-2:]))
    signs = _signs(differences.shape[-1], flips).T
    there = ~np.isnan(differences)
    count = there.sum(axis=-1)[..., None]
    resolution = tie_resolution(max(margin, float(np.abs(differences[there]).max(initial=0))))

    def t(shift: float) -> Floats:
        units = np.where(there, np.rint((np.nan_to_num(differences) - shift) * resolution), 0)
        return _studentized(units @ signs, (units**2).sum(axis=-1)[..., None], count)

    of_zero, of_margin = t(0), t(margin)
    directions = (of_zero, -of_zero, of_margin, -of_margin)
    return JointP(*(_step_down(np.where(count < 2, -np.inf, one)) for one in directions))


def _step_down(t: Floats) -> Floats:
    """Return the adjusted p of t (..., comparisons, patterns), the observed pattern first."""
    order = np.argsort(-t[..., 0], axis=-1, kind="stable")
    t = np.take_along_axis(t, order[..., None], axis=-2)
    largest = np.maximum.accumulate(t[..., ::-1, :], axis=-2)[..., ::-1, :]  # of those not rejected
    p = np.maximum.accumulate((largest >= t[..., :1]).mean(axis=-1), axis=-1)
    return np.asarray(np.take_along_axis(p, np.argsort(order, axis=-1), axis=-1), np.float64)


@lru_cache(maxsize=4)
def _signs(units: int, flips: int) -> Floats:
    """Return patterns of signs (patterns, units), the first of them all +1."""
    if units <= _ENUMERATED_JOINTLY:
        bits = np.arange(2**units)[:, None] >> np.arange(units) & 1
        return np.asarray(1 - 2 * bits, np.float64)
    drawn = np.random.default_rng(0).choice([-1.0, 1.0], (flips + 1, units))
    drawn[0] = 1
    return drawn


def _studentized(sums: Floats, squares: Floats, count: NDArray[np.int64]) -> Floats:
    """Return t of sums of `count` numbers whose squares sum to `squares`."""
    spread = count * squares - sums**2
    spread = np.where(spread > 1e-12 * count * squares, spread, 0)  # rounding leaves less
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums == 0, 0.0, sums * np.sqrt((count - 1) / spread))


def sd_limit(sd: float, pairs: float) -> float:
    """Return the upper 80 % limit of the standard deviation of which `sd` is the estimate from `pairs`."""
    return sd * math.sqrt((pairs - 1) / scipy.stats.chi2.ppf(1 - _SD_CONFIDENCE, pairs - 1))


def pairs_needed(sd: float, distance: float, level: float) -> int | None:
    """Return the fewest pairs whose 1-`level` interval leaves out, with 80 % probability, what is `distance` away.

    Power is P(T > t) for t the 1-level/2 quantile of Student's t with n-1 degrees of freedom and T
    noncentral t with n-1 degrees and noncentrality distance·√n/sd (Julious 2004; Cohen 1988, ch. 2).
    None if no number will do.
    """
    return number_needed(sd, distance, level, fewest_pairs(level), arms=1)


def number_needed(sd: float, distance: float, level: float, fewest: int, arms: int) -> int | None:
    """Return the same of n pairs, or of n runs in each of two `arms`: 2n-2 degrees, noncentrality distance·√(n/2)/sd."""
    if distance <= 0:
        return None
    if sd == 0:
        return fewest
    shift = distance / sd / math.sqrt(arms)
    normal = (scipy.stats.norm.ppf(1 - level / 2) + scipy.stats.norm.ppf(POWER)) / shift
    if normal > 1e4:  # where neither the t quantile matters nor anybody trains so many
        return round(float(normal) ** 2)
    number = max(fewest, math.floor(float(normal) ** 2))  # the t quantile is larger: never too many
    while _power(number, shift, level, arms) < POWER:
        number += 1
    return number


def _power(number: int, shift: float, level: float, arms: int) -> float:
    df = arms * (number - 1)
    quantile = scipy.stats.t.ppf(1 - level / 2, df)
    return float(scipy.stats.nct.sf(quantile, df, shift * math.sqrt(number)))


def improvement(differences: Floats, level: float) -> tuple[float, float, float]:
    """Return the share of pairs with the treatment ahead, ties half, and its 1-`level` interval (Wilson 1927)."""
    pairs = len(differences)
    share = float((np.sign(differences) + 1).mean() / 2)
    z = float(scipy.stats.norm.ppf(1 - level / 2)) ** 2 / pairs
    centre = (share + z / 2) / (1 + z)
    half = math.sqrt(z * (share * (1 - share) + z / 4)) / (1 + z)
    return share, max(0.0, centre - half), min(1.0, centre + half)


def over_cells(means: Floats, errors: Floats, levels: Sequence[float]) -> dict[str, object]:
    """Return the random-effects mean of cells (last axis) whose means have the standard `errors`.

    `tau` is the standard deviation between cells (DerSimonian & Laird 1986), `i2` the share of variance
    that it makes; `intervals` are those of Hartung & Knapp (2001), never narrower than the usual ones.
    """
    weights = 1 / errors**2
    fixed = (weights * means).sum(axis=-1, keepdims=True) / weights.sum(axis=-1, keepdims=True)
    q = (weights * (means - fixed) ** 2).sum(axis=-1)
    df = means.shape[-1] - 1
    scale = weights.sum(axis=-1) - (weights**2).sum(axis=-1) / weights.sum(axis=-1)
    tau2 = np.maximum(0, (q - df) / scale)
    weights = 1 / (errors**2 + tau2[..., None])
    pooled = (weights * means).sum(axis=-1) / weights.sum(axis=-1)
    residual = (weights * (means - pooled[..., None]) ** 2).sum(axis=-1) / df
    error = np.sqrt(np.maximum(1, residual) / weights.sum(axis=-1))
    halves = [scipy.stats.t.ppf(1 - level / 2, df) * error for level in levels]
    i2 = np.maximum(0, 1 - df / np.maximum(q, 1e-300))
    return {
        "mean": pooled, "intervals": [(pooled - half, pooled + half) for half in halves],
        "tau": np.sqrt(tau2), "i2": i2,
    }  # fmt: skip


def mean(differences: Floats) -> Floats:
    """Return the mean along the last axis."""
    equal = np.ptp(differences, axis=-1) == 0  # where rounding would leave a deviation of 1e-17
    return np.where(equal, differences[..., 0], differences.mean(axis=-1))


def sample_std(differences: Floats) -> Floats:
    """Return the standard deviation along the last axis, with n-1 degrees of freedom."""
    equal = np.ptp(differences, axis=-1) == 0
    return np.where(equal, 0.0, differences.std(axis=-1, ddof=1))
