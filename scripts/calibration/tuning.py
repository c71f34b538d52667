"""How often equal arms read "supported" where each runs at the LR that its own tuning runs chose."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from calibration import designs
from calibration.designs import Rate, Row, supported
from harness.analysis.paired_stats import Floats
from harness.analysis.tuning import MOST_ADDED, choose, extend

GRID = ("0.05", "0.1", "0.2")
LRS = tuple(str(0.00625 * 2**octave) for octave in range(len(GRID) + 2 * MOST_ADDED))
SD = 0.3  # points, of differences
SEEDS = 5
COSTS = (
    0.1,
    0.5,
    2.0,
)  # of an octave beside the best LR, in standard deviations of a run; rises with the square
PAIRS = (10, 30)


def tuned_by_plan(sweeps: int, rng: Generator) -> Iterator[Row]:
    """Two arms, each at the LR that five tuning seeds chose, from a grid of three that goes on at its edges.

    Accuracy falls with the square of octaves from the best LR, which lies anywhere from two octaves below the
    grid's middle to two above. The arms are alike, or one is better by 0.5 points at every LR. By itself the treatment is
    compared with the baseline at the LR that was chosen for that; `claim.tuned_over` compares it with the baseline at
    each LR that the baseline's tuning tried.
    """
    run_sd = SD / math.sqrt(2)
    for cost, pairs in product(COSTS, PAIRS):
        best = rng.uniform(-2, 2, (sweeps, 1)) + len(LRS) // 2
        surface = -cost * run_sd * (np.arange(len(LRS)) - best) ** 2
        trials = surface[:, None, None] + rng.normal(0, run_sd, (sweeps, 2, SEEDS, len(LRS)))
        chosen = np.zeros((sweeps, 2), np.int64)
        tried = np.zeros((sweeps, 2, len(LRS)), np.bool_)
        for at in np.ndindex(sweeps, 2):
            chosen[at], tried[at] = tune(trials[at])
        baseline = surface[..., None] + rng.normal(0, run_sd, (sweeps, len(LRS), pairs))
        treatment = np.take_along_axis(surface, chosen[:, 1:], axis=1)
        treatment = treatment + rng.normal(0, run_sd, (sweeps, pairs))
        row: Row = {"cost of an octave": cost, "pairs": pairs}
        for effect, name in ((0.0, 'false "supported"'), (0.5, "power at 0.5")):
            better = supported(designs.decide(treatment[:, None] + effect - baseline))
            of_own = np.take_along_axis(better, chosen[:, :1], axis=1)
            row[f"{name}, at the tuned LRs"] = Rate.of(of_own)
            row[f"{name}, over every LR"] = Rate.of((better | ~tried[:, 0]).all(axis=1))
        yield row | {"LRs": round(float(tried.sum(axis=-1).mean()), 2)}


def tune(trials: Floats) -> tuple[int, NDArray[np.bool_]]:
    """Return the index of the LR that is chosen of `trials` (seeds, LRs), and which were tried."""
    tried = [*GRID]
    while True:
        choice = choose({lr: trials[:, LRS.index(lr)].tolist() for lr in tried})
        assert choice is not None
        more = extend(GRID, tried, choice.best)
        if more is None:
            return LRS.index(str(choice.value)), np.isin(LRS, tried)
        tried.append(more)
