"""Rates of right and wrong verdicts in drawn sweeps with a known true effect, by design.

Each function returns the rows of a table: plain values, and `Rate`s. What decides is what decides real sweeps:
`harness/analysis/states.py` on the intervals and joint tests of `paired_stats.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from harness.analysis import paired_stats as paired
from harness.analysis import states, unpaired
from harness.analysis.paired_stats import Floats
from harness.analysis.states import ANY_SUPPORTED, SUPPORTED, WORSE, Evidence

MARGIN, LEVEL = 0.2, 0.05
EFFECTS = (0.0, 0.1, 0.2, 0.5, 1.0)  # points
SDS = (0.1, 0.3, 0.5)  # points: standard deviation of the pairs' differences
PAIRS = (5, 6, 8, 10, 20, 30)
KINDS = ("normal", "correlated", "heavy")
BEYOND = ("skewed", "coarse")
COMPARISONS = 6
_FLIPS = 1000  # patterns of signs that a joint test draws beyond 12 pairs
_STEP = 100 / 360  # points: one of 360 validation images, as digits has them
# Unpaired runs of the baseline and of the treatment; of few beside many only the coverage matters.
RUNS = ((4, 4), (5, 5), (8, 8), (16, 16), (5, 16), (16, 5))
FEW_RUNS = ((8, 2), (16, 2), (16, 3), (16, 4))
_LOST = 50.0  # points that a run which breaks is below the others

Row = dict[str, Any]


@dataclass(frozen=True)
class Rate:
    """A share of `draws`, with its Monte-Carlo standard error."""

    share: float
    draws: int

    @classmethod
    def of(cls, hits: Any) -> Rate:
        """Return the share of true values in an array."""
        return cls(float(np.mean(hits)), np.size(hits))

    @property
    def error(self) -> float:
        return math.sqrt(self.share * (1 - self.share) / self.draws)

    def __str__(self) -> str:
        return f"{100 * self.share:.2f} ± {100 * self.error:.2f}"


def decide(differences: Floats) -> NDArray[np.str_]:
    """Return the state of single comparisons, pairs along the last axis."""
    if differences.shape[-1] < paired.fewest_pairs(LEVEL):
        return np.full(differences.shape[:-1], states.TOO_FEW)
    return states.decide(Evidence.of(differences, MARGIN, LEVEL), MARGIN)


def supported(state: NDArray[np.str_]) -> NDArray[np.bool_]:
    return np.isin(state, ANY_SUPPORTED)


def draw(kind: str, sd: float, shape: tuple[int, ...], rng: Generator) -> Floats:
    """Draw differences of pairs with mean 0 and that standard deviation."""
    match kind:
        case "normal":  # arms that have nothing in common
            baseline, treatment = rng.normal(0, sd / math.sqrt(2), (2, *shape))
        case "correlated" | "coarse":  # arms that share 0.8 of their variance, as equal seeds do
            common = rng.normal(0, sd * math.sqrt(0.8 / 0.4), shape)
            baseline, treatment = common + rng.normal(0, sd * math.sqrt(0.2 / 0.4), (2, *shape))
        case "heavy":  # differences of Student's t with 3 degrees of freedom, whose variance is 3
            baseline, treatment = np.zeros(shape), rng.standard_t(3, shape) * sd / math.sqrt(3)
        case "skewed":  # most pairs a little better, a few much worse
            baseline, treatment = rng.exponential(sd, shape), np.full(shape, sd)
    if kind == "coarse":
        baseline, treatment = (np.rint(arm / _STEP) * _STEP for arm in (baseline, treatment))
    return np.asarray(treatment - baseline, np.float64)


def fixed(sweeps: int, rng: Generator) -> Iterator[Row]:
    """One comparison of a fixed number of pairs: false "supported", coverage and power."""
    kinds = [*product(KINDS, SDS), *((kind, 0.3) for kind in BEYOND)]
    for (kind, sd), pairs in product(kinds, PAIRS):
        noise = draw(kind, sd, (sweeps, pairs), rng)
        found = {effect: decide(noise + effect) for effect in EFFECTS}
        low, high = paired.interval(noise, LEVEL)
        yield {
            "pairs of": kind, "sd": sd, "pairs": pairs,
            'false "supported"': Rate.of(supported(found[0.0])),
            'false "worse"': Rate.of(found[0.0] == WORSE),
            "coverage": Rate.of((low <= 0) & (high >= 0)),
            'strictly "supported" at the margin': Rate.of(found[MARGIN] == SUPPORTED),
            **{f"power at {e:g}": Rate.of(supported(found[e])) for e in (0.2, 0.5, 1.0)},
            **{f"strict power at {e:g}": Rate.of(found[e] == SUPPORTED) for e in (0.5, 1.0)},
        }  # fmt: skip


def several(sweeps: int, rng: Generator) -> Iterator[Row]:
    """Six treatments that share a baseline: one better by half a point, or all better by just the margin."""
    for sd, pairs in product(SDS, PAIRS[1:]):
        arms = rng.normal(0, sd / math.sqrt(2), (sweeps, COMPARISONS + 1, pairs))
        noise = arms[:, 1:] - arms[:, :1]
        one = noise + np.where(np.arange(COMPARISONS) == 0, 0.5, 0)[:, None]
        alone, joint = _family(one)
        margin_alone, margin_joint = (family == SUPPORTED for family in _family(noise + MARGIN))
        yield {
            "sd": sd, "pairs": pairs,
            'any false "supported", each by itself': Rate.of(supported(alone)[:, 1:].any(axis=1)),
            "with max-t": Rate.of(supported(joint)[:, 1:].any(axis=1)),
            'any strictly "supported" at the margin, each by itself': Rate.of(margin_alone.any(axis=1)),
            "at the margin, with max-t": Rate.of(margin_joint.any(axis=1)),
            "power for the one of 0.5": Rate.of(supported(joint)[:, 0]),
            "power with Holm": Rate.of(supported(_holm(one))[:, 0]) if pairs <= 10 else "–",
        }  # fmt: skip


def _family(differences: Floats) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Return the states of (sweeps, comparisons, pairs), each by itself and with the joint test."""
    alone, joint = [], []
    for part in np.array_split(differences, math.ceil(len(differences) / 200)):
        evidence = Evidence.of(part, MARGIN, LEVEL)
        alone.append(states.decide(evidence, MARGIN))
        p = paired.max_t(part, MARGIN, _FLIPS)
        joint.append(states.decide(evidence.adjusted(p, LEVEL), MARGIN))
    return np.concatenate(alone), np.concatenate(joint)


def _holm(differences: Floats) -> NDArray[np.str_]:
    """Return the states with Holm's correction of sign-flip p, which version 1 of the verdict had.

    Only the comparison with the most evidence: its p times their number, which is what `several` counts.
    """
    evidence = Evidence.of(differences, MARGIN, LEVEL)
    parts = np.array_split(differences[:, 0], math.ceil(len(differences) / 500))
    p = np.concatenate([paired.sign_flip(part) for part in parts])[:, None]
    passed = COMPARISONS * p / 2
    return states.decide(evidence.adjusted(paired.JointP(*[passed] * 4), LEVEL), MARGIN)


def tuned(sweeps: int, rng: Generator) -> Iterator[Row]:
    """Two arms, each at the best of three LRs by the mean of two tuning seeds: alike, or 0.5 points apart.

    The outer LRs cost 0.7 of the standard deviation. By itself the treatment is compared with the baseline
    at the LR that was chosen for that; `claim.tuned_over` compares it with the baseline at each.
    """
    for sd, pairs in product(SDS, PAIRS[1:]):
        cost = np.array([-0.7, 0, -0.7]) * sd
        run_sd = sd / math.sqrt(2)
        trials = cost + rng.normal(0, run_sd, (2, 2, sweeps, 3))  # arms, tuning seeds, sweeps, LRs
        chosen = trials.mean(axis=1).argmax(axis=-1)
        baseline = cost[:, None] + rng.normal(0, run_sd, (sweeps, 3, pairs))
        treatment = cost[chosen[1]][:, None] + rng.normal(0, run_sd, (sweeps, pairs))
        against_all = treatment[:, None] - baseline
        row: Row = {"sd": sd, "pairs": pairs}
        for effect, name in ((0.0, 'false "supported"'), (0.5, "power at 0.5")):
            states_ = decide(against_all + effect)
            naive = np.take_along_axis(states_, chosen[0][:, None], axis=1)[:, 0]
            row[f"{name}, at the tuned LRs"] = Rate.of(supported(naive))
            row[f"{name}, over every LR"] = Rate.of(supported(states_).all(axis=1))
        yield row


def breaking(sweeps: int, rng: Generator) -> Iterator[Row]:
    """A treatment whose runs break one time in ten, and are then 50 points below: never better on average."""
    for sd, pairs, effect in product(SDS, PAIRS[1:], (0.0, 0.5)):
        broken = rng.binomial(pairs, 0.1, sweeps)
        complete, decided = np.zeros(sweeps, bool), np.zeros(sweeps, bool)
        for count in np.unique(broken):
            here = broken == count
            noise = rng.normal(effect, sd, (int(here.sum()), pairs))
            fallen = np.where(np.arange(pairs) < count, _LOST, 0)
            if pairs - count >= 2:
                complete[here] = supported(decide(noise[:, count:]))
            decided[here] = complete[here] & supported(decide(noise - fallen))
        some = broken > 0
        yield {
            "sd": sd, "pairs": pairs, "effect of runs that do not break": effect,
            '"supported" by complete pairs alone': Rate.of(complete),
            '"supported"': Rate.of(decided),
            '"supported" where a run broke': Rate.of(decided[some]),
        }  # fmt: skip


def over_cells(sweeps: int, rng: Generator) -> Iterator[Row]:
    """The one answer over cells whose true effects differ: coverage, and false "supported" without effect."""
    for cells, between, pairs in product((2, 3, 6), (0.0, 0.3), (6, 10)):
        effects = rng.normal(0, between, (sweeps, cells, 1))
        d = effects + rng.normal(0, 0.3, (sweeps, cells, pairs))
        errors = paired.sample_std(d) / math.sqrt(pairs)
        pooled: Any = paired.over_cells(d.mean(axis=-1), errors, (LEVEL, 2 * LEVEL))
        (low, high), inner = pooled["intervals"]
        state = states.decide(Evidence.of_intervals((low, high), inner, MARGIN), MARGIN)
        yield {
            "cells": cells, "sd between cells": between, "pairs": pairs,
            "coverage": Rate.of((low <= 0) & (high >= 0)),
            'false "supported"': Rate.of(supported(state)),
        }  # fmt: skip


def unpaired_arms(sweeps: int, rng: Generator) -> Iterator[Row]:
    """One comparison of unpaired runs (Welch): false "supported", coverage and power at half a point.

    Runs of the baseline have a standard deviation of 0.3 points, those of the treatment one of 0.3 or 0.9. Skewed ones
    are exponential downwards.
    """
    usual = product(("normal", "skewed"), (1, 3), RUNS)
    few = product(("normal",), (1, 3), FEW_RUNS)
    for kind, ratio, (a, b) in (*usual, *few):
        baseline, treatment = rng.normal(0, 0.3, (sweeps, a)), rng.normal(0, 0.3, (sweeps, b))
        if kind == "skewed":
            baseline, treatment = (0.3 - rng.exponential(0.3, (sweeps, n)) for n in (a, b))
        found = {e: unpaired.welch(baseline, ratio * treatment + e) for e in (0.0, MARGIN, 0.5)}
        low, high = found[0.0].interval(LEVEL)
        state = {
            effect: states.decide(
                Evidence.of_intervals(own.interval(LEVEL), own.interval(2 * LEVEL), MARGIN), MARGIN
            )
            for effect, own in found.items()
        }
        yield {
            "runs": kind, "baseline": a, "treatment": b, "ratio of sds": ratio,
            'false "supported"': Rate.of(supported(state[0.0])),
            'false "worse"': Rate.of(state[0.0] == WORSE),
            "coverage": Rate.of((low <= 0) & (high >= 0)),
            'strictly "supported" at the margin': Rate.of(state[MARGIN] == SUPPORTED),
            "power at 0.5": Rate.of(supported(state[0.5])),
        }  # fmt: skip
