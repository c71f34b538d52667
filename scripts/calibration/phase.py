"""How often `phase.best_ranks` finds accuracy best at low LRs, where it is not and where it is."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import scipy
from numpy.random import Generator

from harness.analysis import phase
from harness.analysis.paired_stats import Floats

LEVEL = 0.05
EPOCHS, PER_EPOCH = 35, 4  # of the study's runs, and their evaluations
CYCLES = {  # ends, epochs
    "equal": [5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0],
    "doubling": [5.0, 15.0, 35.0],
    "no restarts": [5.0, 15.0, 25.0, 35.0],  # CosineAnnealingLR: from minimum to minimum
}
CASES = (  # saw-tooth (points), autocorrelation from one evaluation to the next, trend
    (0, 0.0, "logarithm"), (0, 0.5, "logarithm"), (0, 0.9, "logarithm"), (0, 0.5, "saturating"),
    *product((1, 3, 13), (0.0, 0.5), ("logarithm",)),
)  # fmt: skip


def phase_rates(sweeps: int, rng: Generator) -> list[dict[str, Any]]:
    """Return the share of `sweeps` drawn sweeps of an arm whose p is at most 0.05, by setting.

    Accuracy is a trend, AR(1) noise with a standard deviation of 1 point, and a saw-tooth: highest at the
    LR's minima, lowest at its maxima (a triangle where the LR does not jump). Keys: `cycles`, `runs`,
    `sawtooth` (points; where it is 0 the rate is the test's size), `autocorrelation` (from an
    evaluation to the next), `trend`, `rate` and `error` (its Monte-Carlo standard error).
    """
    epoch = np.arange(1, EPOCHS * PER_EPOCH + 1) / PER_EPOCH
    rows = []
    for cycles, runs, (sawtooth, memory, trend) in product(CYCLES, (1, 6), CASES):
        high = _phase(epoch, cycles)  # 0 at the LR's minima, 1 at its maxima
        mean = 5 * np.log(epoch) if trend == "logarithm" else 20 - 20 * np.exp(-epoch / 10)
        noise = _noise(memory, (sweeps * runs, len(epoch)), rng)
        lr = 1 - np.cos(np.pi * high)
        drawn = phase.best_ranks(epoch, mean - sawtooth * high + noise, lr, CYCLES[cycles])
        by_chance = phase.sums_by_chance([ranks for _, ranks in drawn] * runs)
        sums = np.sum([rank for rank, _ in drawn], axis=0).reshape(sweeps, runs).sum(axis=1)
        rate = float(np.mean(by_chance.cumsum()[sums] <= LEVEL))
        rows.append({
            "cycles": cycles, "runs": runs, "sawtooth": sawtooth, "autocorrelation": memory,
            "trend": trend, "rate": rate, "error": float(np.sqrt(rate * (1 - rate) / sweeps)),
        })  # fmt: skip
    return rows


def _phase(epoch: Floats, cycles: str) -> Floats:
    """Return how far the LR is from its minimum, as a share of the way to its maximum, by evaluation."""
    ends = np.array(CYCLES[cycles])
    number = np.searchsorted(ends, epoch)
    start = np.append(0, ends)[number]
    left = (ends[number] - epoch) / (ends[number] - start)  # of the cycle
    rises = (cycles == "no restarts") & (number > 0)
    return np.asarray(np.where(rises, 1 - np.abs(2 * left - 1), left))


def _noise(memory: float, shape: tuple[int, int], rng: Generator) -> Floats:
    """Return stationary AR(1) series with a standard deviation of 1, a row each."""
    fresh = rng.standard_normal(shape) * np.sqrt(1 - memory**2)
    fresh[:, 0] /= np.sqrt(1 - memory**2)
    return np.asarray(scipy.signal.lfilter([1], [1, -memory], fresh))
