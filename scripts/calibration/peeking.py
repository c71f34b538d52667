"""How often a sweep without effect reads "supported" when it is looked at after every pair."""

from __future__ import annotations

import numpy as np

from harness.analysis import paired_stats as paired

SD = 0.3  # points, of the differences
LEVEL = 0.05
LIMITS = (20, 100)  # pairs at which one gives up


def peeking_rates(sweeps: int, rng: np.random.Generator) -> dict[int, float]:
    """Return, by the number of pairs at which one gives up, the share of sweeps that read "supported" before.

    A sweep is looked at from the fewest pairs on that can decide, after each, and stopped where Student's interval lies
    above 0. Differences are normal, of mean 0.
    """
    differences = rng.normal(0.0, SD, (sweeps, max(LIMITS)))
    stopped, rates = np.zeros(sweeps, dtype=np.bool_), {}
    for pairs in range(paired.fewest_pairs(LEVEL), max(LIMITS) + 1):
        stopped |= paired.interval(differences[:, :pairs], LEVEL)[0] > 0
        if pairs in LIMITS:
            rates[pairs] = float(stopped.mean())
    return rates
