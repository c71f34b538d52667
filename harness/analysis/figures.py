"""Pairs of arms → figures: intervals, p, and the state that they show, alone and among all comparisons."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis import paired_stats as paired
from harness.analysis import states, unpaired
from harness.analysis.paired_stats import JointP
from harness.analysis.pairing import Pair, PairedRuns
from harness.analysis.states import Evidence
from harness.analysis.unpaired import Welch

if TYPE_CHECKING:
    from harness.analysis.verdict import Claim

Figures = dict[str, Any]  # of the pairs, or of the arms, of one comparison, as JSON
AS_HERE = "as large as here"  # a question of `pairs_needed`
_LEAST_DF = 5  # of a standard deviation from which numbers of pairs or runs are reckoned


@dataclass(frozen=True)
class FamilySize:
    """How many valid comparisons are judged together, and in how many cells."""

    comparisons: int
    cells: int

    def fewest(self, claim: Claim) -> int:
        """Return with how many pairs, or runs an arm, all comparisons can be decided."""
        if not claim.paired:
            return unpaired.fewest_runs(claim.level)
        return paired.fewest_pairs(claim.level, max(1, self.cells))


def of_family(
    claim: Claim, compared: Sequence[PairedRuns], size: FamilySize, impute: bool
) -> list[Figures]:
    """Return the figures of all pairs of arms, adjusted where there are several valid comparisons."""
    figures = [_of_runs(claim, runs, impute) for runs in compared]
    valid = [at for at, runs in enumerate(compared) if not runs.invalid]
    ends = np.array(
        [[_gains(claim, figures[at][name]) for name in ("ci95", "ci90")] for at in valid]
    )
    if not valid:
        return figures
    alone = Evidence.of_intervals(ends[:, 0].T, ends[:, 1].T, claim.margin)
    evidence, p = alone, np.array([figures[at]["p"] or 1.0 for at in valid])
    if size.comparisons > 1:
        joint = _joint(claim, [compared[at] for at in valid], [figures[at] for at in valid], impute)
        evidence = alone.adjusted(joint, claim.level)
        p = 2 * np.minimum(joint.above_zero, joint.below_zero)
    decided = states.decide(evidence, claim.margin), states.decide(alone, claim.margin)
    for at, adjusted, state, by_itself in zip(valid, p, *decided, strict=True):
        own, runs = figures[at], compared[at]
        if not is_enough(claim, own):
            state = by_itself = states.TOO_FEW if claim.paired else states.TOO_FEW_RUNS
        elif own["sd"] == 0 and runs.step() > claim.margin:
            state = by_itself = states.TOO_COARSE
        own |= {
            "p_adjusted": None if own["p"] is None else min(1.0, float(adjusted)),
            "verdict": str(state),
        }
        own["by_itself"] = str(by_itself)
        own["pairs_needed"] = _pairs_needed(claim, own, size)
    return figures


def _of_runs(claim: Claim, runs: PairedRuns, impute: bool) -> Figures:
    if claim.paired:
        return of_pairs(claim, runs.pairs(impute))
    return unpaired.of_arms(claim, *runs.arms(impute))


def is_enough(claim: Claim, own: Figures) -> bool:
    """Return whether pairs, or runs that are not paired, are so many that they can show a difference."""
    if claim.paired:
        return int(own["n"]) >= paired.fewest_pairs(claim.level)
    baseline, treatment = own["runs"]
    return unpaired.enough_runs(baseline, treatment, claim.level)


def _gains(claim: Claim, ends: Sequence[float] | None) -> tuple[float, float]:
    return claim.scale.turned(ends) if ends else (math.nan, math.nan)


def _joint(
    claim: Claim, compared: Sequence[PairedRuns], figures: Sequence[Figures], impute: bool
) -> JointP:
    """Return the p of comparisons, adjusted for all; with `tuned_over`, at each of the baseline's values by itself.

    A treatment that does not beat the baseline at all of its values does not beat it at its best one: the
    errors that count are those at one value, so that the grid is no family.
    """
    if not claim.paired:
        names = ("mean", "se", "df")
        mean, *spread = (np.array([own[k] for own in figures], np.float64) for k in names)
        return unpaired.joint(Welch(claim.scale.sign * mean, *spread), claim.margin)
    pairs = [runs.pairs(impute) for runs in compared]
    found = np.ones((4, len(compared)))
    for value in {runs.tuned[0] for runs in compared}:
        rows = [at for at, runs in enumerate(compared) if runs.tuned[0] == value]
        seeds = sorted({(compared[at].cell, pair.seed) for at in rows for pair in pairs[at]})
        if not seeds:
            continue
        units = {unit: column for column, unit in enumerate(seeds)}
        differences = np.full((len(rows), len(units)), np.nan)
        for row, at in enumerate(rows):
            for pair in pairs[at]:
                differences[row, units[compared[at].cell, pair.seed]] = (
                    claim.scale.sign * pair.difference
                )
        p = paired.max_t(differences, claim.margin)
        found[:, rows] = [p.above_zero, p.below_zero, p.above_margin, p.below_margin]
    return JointP(*found)


def of_pairs(
    claim: Claim, pairs: Sequence[Pair], levels: tuple[float, float] | None = None
) -> Figures:
    """Return the pairs and their statistics, in the metric's own sign; null for what they are too few or too equal for.

    `ci95` and `ci90` are at 1 - `levels`, else at the claim's 1 - level and 1 - 2 level.
    """
    a, b, d = (
        np.array([getattr(pair, name) for pair in pairs], np.float64)
        for name in ("baseline", "treatment", "difference")
    )
    some, several = len(pairs) > 0, len(pairs) > 1
    varied = several and np.ptp(a) > 0 and np.ptp(b) > 0
    levels, scale = levels or (claim.level, 2 * claim.level), claim.scale
    gains = scale.sign * d
    student = [scale.turned(paired.interval(gains, one)) for one in levels] if several else None
    resampled = paired.bootstrap_t(gains, levels) if several else None
    better = paired.improvement(gains, levels[0]) if some else None
    return {
        "pairs": [dataclasses.asdict(pair) | {"difference": pair.difference} for pair in pairs],
        "n": len(pairs),
        "mean": scale.sign * float(paired.mean(gains)) if some else None,
        "sd": float(paired.sample_std(d)) if several else None,
        "correlation": float(np.corrcoef(a, b)[0, 1]) if varied else None,
        "ci95": student and list(student[0]),
        "ci90": student and list(student[1]),
        "bootstrap_t95": _finite(scale.turned(resampled[0])) if resampled else None,
        "by_bootstrap_t": _by_bootstrap_t(claim, resampled),
        "p": float(paired.sign_flip(d)) if some else None,
        "p_adjusted": None,
        "probability_of_improvement": better
        and dict(zip(("share", "low", "high"), better, strict=True)),
        "verdict": states.INVALID,
        "by_itself": states.INVALID,
        "pairs_needed": None,
    }


def _finite(ends: tuple[float, float]) -> list[float] | None:
    return list(ends) if np.isfinite(ends).all() else None


def _by_bootstrap_t(claim: Claim, ends: list[tuple[float, float]] | None) -> str | None:
    """Return the state by the bootstrap-t intervals at the two levels; None without them."""
    if ends is None:
        return None
    return str(states.decide(Evidence.of_intervals(ends[0], ends[1], claim.margin), claim.margin))


def _pairs_needed(claim: Claim, figures: Figures, size: FamilySize) -> dict[str, int | None] | None:
    """Return with how many pairs, or runs an arm, each question is answered in four cases of five.

    None below six pairs, or five degrees of freedom.

    "above 0" if the true difference is the margin, "above the margin" if it is twice that, "no gain that
    matters" if it is none; at the upper limit of the standard deviation, of several comparisons with the
    level divided by their number, as the first of them has to pass. `AS_HERE`, of a comparison that the others
    leave open: what it shows by itself, if the true difference is the mean.
    """
    df = figures["n"] - 1 if claim.paired else figures["df"] or 0
    if df < _LEAST_DF or figures["verdict"] in (states.INVALID, states.TOO_COARSE):
        return None
    sd = paired.sd_limit(figures["sd"], df + 1)
    needed_at = paired.pairs_needed if claim.paired else unpaired.runs_needed

    def among_all(distance: float) -> int | None:
        number = needed_at(sd, distance, claim.level / max(1, size.comparisons))
        return number and max(number, size.fewest(claim))

    together = among_all(claim.margin)
    alone = needed_at(sd, claim.margin, claim.level)
    needed = {"above 0": together, "above the margin": together, states.NO_GAIN: alone}
    if figures["verdict"] in states.OPEN and figures["by_itself"] != figures["verdict"]:
        line = 0.0 if figures["verdict"] == states.INCONCLUSIVE else claim.margin
        needed[AS_HERE] = among_all(abs(claim.scale.sign * figures["mean"] - line))
    return needed


def over_cells(claim: Claim, comparisons: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each treatment that several cells have, the one answer over all of them.

    As in each cell, it is the less favourable one of the complete pairs and of those with imputed values.
    Cells with too few pairs or runs are left out, and counted.
    """
    found = []
    for treatment in claim.treatments:
        every = [own for own in comparisons if own["treatment"] == treatment]
        cells = [own for own in every if is_enough(claim, own) and not own["invalid"]]
        if len(cells) < 2 or claim.tuned_over:
            continue
        level = claim.level / len(claim.treatments)
        both = [
            _pooled(claim, level, [(own, (own[part] if part else None) or own) for own in cells])
            for part in ("", "intention_to_treat")
        ]
        interim = any(own["verdict"] == states.INTERIM for own in every)
        verdict = states.least_favourable(*(one["verdict"] for one in both))
        found.append(
            {"treatment": treatment, "cells": len(cells), "of": len(every)}
            | both[0]
            | {"verdict": states.INTERIM if interim else verdict}
        )
    return found


def _pooled(claim: Claim, level: float, cells: Sequence[tuple[dict[str, Any], Figures]]) -> Figures:
    """Return the random-effects mean over cells; a spread counts as no less than what rounding to images makes."""
    scale = claim.scale
    means = np.array([scale.sign * figures["mean"] for _, figures in cells])
    largest = float(np.abs(means).max()) or 1.0  # equal differences have no spread
    errors = np.array([_error(one["one_image"] or 0.0, largest, own) for one, own in cells])
    pooled: dict[str, Any] = paired.over_cells(means, errors, (level, 2 * level))
    outer, inner = pooled["intervals"]
    return {
        "mean": scale.sign * float(pooled["mean"]),
        "ci95": [*scale.turned(outer)],
        "between_cells_sd": float(pooled["tau"]),
        "i2": float(pooled["i2"]),
        "verdict": str(
            states.decide(Evidence.of_intervals(outer, inner, claim.margin), claim.margin)
        ),
    }


def _error(one_image: float, largest: float, own: Figures) -> float:
    """Return the standard error of a mean difference, at least that of values that are rounded to `one_image`."""
    if runs := own.get("runs"):
        rounded = one_image / math.sqrt(12) * math.sqrt(sum(1 / number for number in runs))
        return max(float(own["se"]), rounded, 1e-9 * largest / math.sqrt(own["n"]))
    of_two = one_image / math.sqrt(6)  # the standard deviation of a rounded difference
    return float(max(own["sd"], of_two, 1e-9 * largest) / math.sqrt(own["n"]))
