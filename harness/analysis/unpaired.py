"""Two arms whose runs are not paired → interval, p values, numbers of runs: the arithmetic of an unpaired claim.

Arrays have the runs along their last axis, as in `paired_stats.py`. docs/verdict.md has the sources of the rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # which imports scipy.stats, a second's work, where it is used
from numpy.typing import NDArray

from harness.analysis import paired_stats as paired
from harness.analysis import states
from harness.analysis.paired_stats import Floats, JointP

if TYPE_CHECKING:
    from harness.analysis.verdict import Claim

_ENUMERATED = 200_000  # assignments of runs to arms up to which `permutation` counts every one
_DRAWN = 100_000
# Runs an arm: with fewer beside 8 or more, Welch's interval covers less (docs/verdict.md).
_FEWEST = 4
_MOST_SHUFFLED = 50_000_000  # numbers that `permutation` shuffles in all
_AT_ONCE = 5_000_000
_LARGEST_SUM = 4e18  # that 64 bits hold, with room


@dataclass(frozen=True)
class Welch:
    """Differences of two means, their standard errors, and the degrees of freedom (Welch 1947; Satterthwaite 1946)."""

    mean: Floats
    error: Floats
    df: Floats

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """Return the 1-`level` interval; a point if all runs of each arm are equal."""
        half = scipy.stats.t.ppf(1 - level / 2, self.df) * self.error
        return self.mean - half, self.mean + half

    def p_above(self, line: float) -> Floats:
        """Return the one-sided p that the difference lies above `line`; 1 where it is not known (NaN)."""
        gap = self.mean - line
        with np.errstate(divide="ignore", invalid="ignore"):
            p = scipy.stats.t.sf(gap / self.error, self.df)
        return np.nan_to_num(np.where(self.error == 0, gap <= 0, p), nan=1.0)

    def p_below(self, line: float) -> Floats:
        return Welch(-self.mean, self.error, self.df).p_above(-line)


def welch(baseline: Floats, treatment: Floats) -> Welch:
    """Return mean(treatment) - mean(baseline) along the last axis, of two runs or more in each arm."""
    a, b = baseline.shape[-1], treatment.shape[-1]
    errors = [paired.sample_std(arm) / math.sqrt(arm.shape[-1]) for arm in (baseline, treatment)]
    error = np.hypot(*errors)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (errors[0] / error) ** 2  # of the variance, that the baseline makes
    df = np.where(error > 0, 1 / (share**2 / (a - 1) + (1 - share) ** 2 / (b - 1)), a + b - 2)
    return Welch(_difference(baseline, treatment), error, df)


def _difference(baseline: Floats, treatment: Floats) -> Floats:
    """Return the difference of the means in whole units of `tie_resolution`, as that of pairs, so that equal ones are 0."""
    largest = max(float(np.abs(arm).max()) for arm in (baseline, treatment))
    resolution = paired.tie_resolution(largest)
    gap = paired.mean(treatment) - paired.mean(baseline)
    return np.asarray(np.rint(gap * resolution) / resolution, np.float64)


def permutation(baseline: Floats, treatment: Floats) -> float:
    """Return the two-sided p of the difference of means if runs came to their arms by chance.

    Exact up to 200,000 assignments, ties included; beyond, over 100,000 drawn ones (fewer of more than 500 runs)
    and the observed one (Phipson & Smyth 2010).
    """
    units, few = _units(baseline, treatment), min(len(baseline), len(treatment))
    arm = units[: len(baseline)] if few == len(baseline) else units[len(baseline) :]
    runs, total, observed = len(units), few * int(units.sum()), int(arm.sum())
    gap = abs(runs * observed - total)  # the difference of means times both numbers of runs
    high, low = -((-total - gap) // runs), (total - gap) // runs

    def as_far(sums: NDArray[np.int64]) -> int:
        return int(((sums >= high) | (sums <= low)).sum())

    if (assignments := math.comb(runs, few)) <= _ENUMERATED:
        chosen = chain.from_iterable(combinations(units.tolist(), few))
        sums = np.fromiter(chosen, np.int64, assignments * few).reshape(assignments, few).sum(1)
        return as_far(sums) / assignments
    draws, found = min(_DRAWN, _MOST_SHUFFLED // runs), 1
    rng = np.random.default_rng(0)
    for part in np.array_split(np.arange(draws), math.ceil(draws * runs / _AT_ONCE)):
        found += as_far(rng.permuted(np.tile(units, (len(part), 1)), axis=1)[:, :few].sum(1))
    return found / (draws + 1)


def _units(baseline: Floats, treatment: Floats) -> NDArray[np.int64]:
    """Return the values of both arms as whole numbers above the least one, in which ties are equal."""
    values = np.concatenate([baseline, treatment])
    room = _LARGEST_SUM / (len(values) * max(float(np.ptp(values)), 1e-300))
    resolution = min(paired.tie_resolution(float(np.abs(values).max())), room)
    return np.asarray(np.rint((values - values.min()) * resolution), np.int64)


def enough_runs(baseline: int, treatment: int, level: float) -> bool:
    """Return whether so many runs can show a difference: four an arm, and arms that do not overlap have p ≤ `level`.

    The least p of `permutation` is that of one assignment of all, doubled.
    """
    least = 2 / math.comb(baseline + treatment, baseline)
    return min(baseline, treatment) >= _FEWEST and least <= level


def fewest_runs(level: float) -> int:
    """Return the fewest runs an arm that can show a difference, if both arms have as many."""
    runs = _FEWEST
    while not enough_runs(runs, runs, level):
        runs += 1
    return runs


def runs_needed(sd: float, distance: float, level: float) -> int | None:
    """Return the fewest runs an arm whose 1-`level` interval leaves out, with 80 % probability, what is `distance` away.

    As `paired_stats.pairs_needed`, of a two-sample t test of two arms with the standard deviation `sd`.
    """
    return paired.number_needed(sd, distance, level, fewest_runs(level), arms=2)


def holm(p: Floats) -> Floats:
    """Return p adjusted for all along the last axis by the step-down procedure of Holm (1979)."""
    order = np.argsort(p, axis=-1, kind="stable")
    left = np.arange(p.shape[-1], 0, -1)
    stepped = np.maximum.accumulate(np.take_along_axis(p, order, axis=-1) * left, axis=-1)
    own = np.take_along_axis(stepped, np.argsort(order, axis=-1), axis=-1)
    return np.asarray(np.minimum(1, own), np.float64)


def joint(gains: Welch, margin: float) -> JointP:
    """Return the one-sided p of comparisons (last axis) against 0 and the margin, adjusted for all in each direction."""
    return JointP(
        *map(holm, (gains.p_above(0), gains.p_below(0), gains.p_above(margin), gains.p_below(margin)))
    )  # fmt: skip


def of_arms(claim: Claim, baseline: Sequence[float], treatment: Sequence[float]) -> dict[str, Any]:
    """Return the statistics of two arms, in the metric's own sign; null for what they are too few for.

    The keys are those of `figures.of_pairs`; besides, `runs` (of the baseline, of the treatment), and of the
    difference `se` and `df`. `sd` is the root mean square of the arms' standard deviations.
    """
    a, b = np.array(baseline, np.float64), np.array(treatment, np.float64)
    some, several = min(len(a), len(b)) > 0, min(len(a), len(b)) > 1
    found = welch(a, b) if several else None
    outer, inner = (found and [*map(float, found.interval(k * claim.level))] for k in (1, 2))
    sd = several and math.hypot(paired.sample_std(a), paired.sample_std(b)) / math.sqrt(2)
    return {
        "pairs": [],
        "n": min(len(a), len(b)),
        "runs": [len(a), len(b)],
        "mean": float(_difference(a, b)) if some else None,
        "sd": sd if several else None,
        "se": found and float(found.error),
        "df": found and float(found.df),
        "correlation": None,
        "ci95": outer,
        "ci90": inner,
        "bootstrap_t95": None,
        "by_bootstrap_t": None,
        "p": permutation(a, b) if some else None,
        "p_adjusted": None,
        "probability_of_improvement": {"share": _share_ahead(a, b)} if some else None,
        "verdict": states.INVALID,
        "by_itself": states.INVALID,
        "pairs_needed": None,
    }


def _share_ahead(baseline: Floats, treatment: Floats) -> float:
    """Return P(treatment > baseline) + P(equal)/2 over all pairs of runs of two arms (Mann & Whitney 1947)."""
    ranks = scipy.stats.rankdata(_units(baseline, treatment))[len(baseline) :]
    runs = len(treatment)
    return float((ranks.sum() - runs * (runs + 1) / 2) / (len(baseline) * runs))
