"""Paired differences → interval, p, verdict: the arithmetic of a claim.

Arrays have the pairs along their last axis, so that `scripts/calibrate_verdict.py` can apply the functions
that judge one sweep to thousands. docs/verdict.md has the sources of the rules.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import scipy  # which imports scipy.stats, a second's work, where it is used
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SUPPORTED = "supported"
SUPPORTED_BELOW_MARGIN = "supported, below the margin or unsure of it"
WORSE = "refuted: worse"
EQUIVALENT = "refuted: equivalent"
INCONCLUSIVE = "inconclusive"

FEWEST_PAIRS = 6  # all of 5 pairs on one side still have p = 2/2⁵ = 0.0625
POWER = 0.8
TIE_RESOLUTION = 1e9  # a point has this many units in which differences tie: 98.3 - 98.1 and 0.2 do
_ENUMERATED = 20  # pairs up to which every pattern of signs is counted
_FLIPS = 100_000  # patterns drawn beyond that


def decide(
    differences: Floats, margin: float, level: float, p_holm: Floats | None = None
) -> NDArray[np.str_]:
    """Return the verdict on paired differences, pairs along the last axis; the first that fits.

    `p_holm`, given where there are several comparisons, must be below `level` for what rests on an
    interval beside 0: both "supported" verdicts and "refuted: worse".
    """
    clear = np.bool_(True) if p_holm is None else p_holm < level
    if differences.shape[-1] < FEWEST_PAIRS:
        return np.full(differences.shape[:-1], INCONCLUSIVE)
    (low, high), (inner_low, inner_high) = (interval(differences, a) for a in (level, 2 * level))
    cases = [
        (low > margin) & clear,
        (low > 0) & clear,
        (high < 0) & clear,
        (inner_low >= -margin) & (inner_high <= margin),  # two one-sided tests
    ]
    return np.select(cases, [SUPPORTED, SUPPORTED_BELOW_MARGIN, WORSE, EQUIVALENT], INCONCLUSIVE)


def interval(differences: Floats, level: float) -> tuple[Floats, Floats]:
    """Return Student's 1-`level` interval of the mean along the last axis; a point if all are equal."""
    pairs = differences.shape[-1]
    half = scipy.stats.t.ppf(1 - level / 2, pairs - 1) * sample_std(differences) / math.sqrt(pairs)
    return mean(differences) - half, mean(differences) + half


def bca(differences: Floats, level: float) -> list[float] | None:
    """Return Efron's (1987) interval of the mean; None where the resamples do not determine it."""
    if np.ptp(differences) == 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # degenerate resamples give NaN
        ends = scipy.stats.bootstrap(
            (differences,), np.mean, confidence_level=1 - level, method="BCa",
            rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
    return [float(end) for end in ends] if np.isfinite(ends).all() else None


def sign_flip(differences: Floats) -> Floats:
    """Return the two-sided p of the mean along the last axis under random signs of the differences.

    Exact up to 20 pairs, ties included; beyond, over 100,000 drawn patterns and the observed one
    (Phipson & Smyth 2010).
    """
    units = np.rint(differences * TIE_RESOLUTION).astype(np.int64)
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


def holm(p: Floats, means: Floats) -> Floats:
    """Adjust two-sided p along the last axis as Holm (1979), in each direction by itself.

    A comparison ranks among those whose mean has its sign, yet all count: what is refuted must not
    make it easier to support the rest. So the rate of any false "supported" stays below level / 2.
    """
    adjusted = np.ones_like(p)
    for sign in (1, -1):
        this_way = np.sign(means) == sign
        one_sided = np.where(this_way, p, 1.0)
        order = np.argsort(one_sided, axis=-1)
        factors = np.arange(p.shape[-1], 0, -1)
        steps = np.maximum.accumulate(np.take_along_axis(one_sided, order, -1) * factors, -1)
        back = np.argsort(order, axis=-1)
        adjusted = np.where(this_way, np.take_along_axis(steps, back, -1).clip(max=1), adjusted)
    return adjusted


def fewest_pairs(level: float, comparisons: int) -> int:
    """Return the fewest pairs that can show a difference in each comparison, if all pairs have one sign.

    Of several, the sign-flip p times their number must be below `level`: 2·comparisons/2ⁿ < level.
    """
    reach = math.floor(math.log2(2 * comparisons / level)) + 1
    return max(FEWEST_PAIRS, reach) if comparisons > 1 else FEWEST_PAIRS


def pairs_needed(sd: float, effect: float, level: float, comparisons: int = 1) -> int | None:
    """Return the fewest pairs whose interval is above 0 with 80 % probability at a true `effect`.

    Power is P(T > t) for t the 1-level/2 quantile of Student's t with n-1 degrees of freedom and T
    noncentral t with n-1 degrees and noncentrality effect·√n/sd (Julious 2004; Cohen 1988, ch. 2).
    With several comparisons `level` is divided by their number (Holm's first step). None if no
    number will do.
    """
    if effect <= 0:
        return None
    fewest = fewest_pairs(level, comparisons)
    if sd == 0:
        return fewest
    level /= comparisons
    normal = (scipy.stats.norm.ppf(1 - level / 2) + scipy.stats.norm.ppf(POWER)) * sd / effect
    pairs = max(fewest, math.floor(float(normal) ** 2))  # the t quantile is larger: never too many
    while _power(pairs, effect / sd, level) < POWER:
        pairs += 1
    return pairs


def _power(pairs: int, shift: float, level: float) -> float:
    quantile = scipy.stats.t.ppf(1 - level / 2, pairs - 1)
    return float(scipy.stats.nct.sf(quantile, pairs - 1, shift * math.sqrt(pairs)))


def mean(differences: Floats) -> Floats:
    """Return the mean along the last axis."""
    equal = np.ptp(differences, axis=-1) == 0  # where rounding would leave a deviation of 1e-17
    return np.where(equal, differences[..., 0], differences.mean(axis=-1))


def sample_std(differences: Floats) -> Floats:
    """Return the standard deviation along the last axis, with n-1 degrees of freedom."""
    equal = np.ptp(differences, axis=-1) == 0
    return np.where(equal, 0.0, differences.std(axis=-1, ddof=1))
