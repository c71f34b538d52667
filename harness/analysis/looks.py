"""A claim that goes on until decided: what each comparison came to look by look, and which runs that takes.

The arithmetic is `harness/analysis/sequential.py`; docs/verdict.md has the rules.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # which imports scipy.stats, a second's work, where it is used

from harness.analysis import sequential, states
from harness.analysis.figures import Figures, of_pairs
from harness.analysis.pairing import PairedRuns, level_key
from harness.analysis.sentences import comparison_label
from harness.analysis.sequential import Design, Standing
from harness.analysis.states import Evidence

if TYPE_CHECKING:
    from harness.analysis.verdict import Claim

RunKey = tuple[str, Decimal | str, str, int]  # cell, level, value of `tuned_over`, seed

DECIDED, UNDECIDABLE = "decided", "undecidable"


@dataclass(frozen=True)
class Path:
    """The looks that a comparison has taken, and the one that waits for pairs.

    `looks` has an entry a look: pairs, mean, low and high (of the repeated interval), p (one-sided, of
    its boundary), verdict, and the means that are decided: those from `above` and those up to `below`;
    null where differences are too coarse. `ahead` has pairs, above and below of the looks after the last one, as
    they would be at its standard deviation.
    """

    looks: tuple[dict[str, Any], ...]
    stopped: str | None  # DECIDED or UNDECIDABLE; None while it goes on, and where no look decided
    waits: int | None  # for this many pairs
    ahead: tuple[dict[str, Any], ...] = ()

    def pairs(self) -> int:
        """Return how many pairs this comparison takes: those of the look that waits, else of the last one."""
        return self.waits or int(self.looks[-1]["pairs"])


def paths(claim: Claim, compared: Sequence[PairedRuns]) -> list[Path]:
    """Return the path of each comparison; one that is invalid takes no look.

    Comparisons of one sweep are judged together, with `tuned_over` those at one of the baseline's values.
    """
    families: dict[tuple[str, int], list[int]] = {}
    for at, runs in enumerate(compared):
        if not runs.invalid:
            families.setdefault((runs.tuned[0], runs.plan()), []).append(at)
    found = [Path((), None, claim.looks[0])] * len(compared)
    for family in families.values():
        taken = _of_family(claim, [compared[at] for at in family])
        for at, path in zip(family, taken, strict=True):
            found[at] = path
    return found


def _of_family(claim: Claim, compared: Sequence[PairedRuns]) -> list[Path]:
    """Return the paths of comparisons that are judged together; a look waits until all of them have its pairs."""
    design = Design(claim.looks, claim.level, claim.margin, claim.decide)
    gains, sign = np.full((len(compared), len(claim.seeds)), np.nan), claim.scale.sign
    for row, runs in enumerate(compared):
        by_seed = {pair.seed: sign * pair.difference for pair in runs.pairs(impute=True)}
        gains[row] = [by_seed.get(seed, np.nan) for seed in claim.seeds]
    steps = np.array([runs.step() for runs in compared])
    taken: list[list[dict[str, Any]]] = [[] for _ in compared]
    ahead: list[list[dict[str, Any]]] = [[] for _ in compared]
    standing, waits = None, None
    for number, pairs in enumerate(claim.looks):
        going = np.full(len(compared), True) if standing is None else ~standing.settled
        if not going.any():
            break
        if np.isnan(gains[going, :pairs]).any():
            waits = pairs
            break
        coarse = (np.ptp(gains[:, :pairs], axis=-1) == 0) & (steps > claim.margin)
        standing = sequential.look(design, number, gains, standing, unclear=coarse)
        for row in map(int, np.flatnonzero(going)):
            decides = _decides(claim, number, standing, row)
            ahead[row] = decides[1:]
            entry = _entry(claim, number, standing, row) | decides[0]
            if coarse[row]:
                ahead[row] = []
                entry |= {"verdict": states.TOO_COARSE, "above": None, "below": None}
            taken[row].append(entry)
    stopped = [_stopped(standing, row) for row in range(len(compared))]
    return [
        Path(tuple(looks), stop, None if stop else waits, tuple(later))
        for looks, stop, later in zip(taken, stopped, ahead, strict=True)
    ]


def _stopped(standing: Standing | None, row: int) -> str | None:
    if standing is None or not standing.settled[row]:
        return None
    return DECIDED if standing.decided[row] else UNDECIDABLE


def _entry(claim: Claim, number: int, standing: Standing, row: int) -> dict[str, Any]:
    evidence, scale = standing.evidence, claim.scale
    low, high = scale.turned((evidence.low[row], evidence.high[row]))
    return {
        "pairs": claim.looks[number],
        "mean": scale.sign * float(standing.mean[row]),
        "low": low,
        "high": high,
        "p": sequential.boundaries(claim.looks, claim.level / 2)[number],
        "verdict": str(standing.state[row]),
    }


def _decides(claim: Claim, number: int, standing: Standing, row: int) -> list[dict[str, Any]]:
    """Return for a look and all later ones which means of a comparison decide, at its standard deviation so far.

    A gain is shown by Holm's procedure, with those rejected that are; that there is none by the interval.
    """
    zero = claim.decide == "zero"
    line = 0.0 if zero else claim.margin
    shown = standing.evidence.above_zero if zero else standing.evidence.above_margin
    left = len(shown) - int(np.delete(shown, row).sum())

    def critical(at: int, comparisons: int) -> float:
        p = sequential.boundaries(claim.looks, claim.level / 2 / comparisons)[at]
        pairs = claim.looks[at]
        return float(scipy.stats.t.isf(p, pairs - 1)) / math.sqrt(pairs)

    half = float(standing.evidence.high[row] - standing.mean[row])
    sd = half / critical(number, 1)
    sides = ("below", "above") if claim.scale.sign > 0 else ("above", "below")
    found = []
    for at in range(number, len(claim.looks)):
        lines = (claim.margin - sd * critical(at, 1), line + sd * critical(at, left))
        ends = [claim.scale.sign * one for one in lines]
        found.append({"pairs": claim.looks[at]} | dict(zip(sides, ends, strict=True)))
    return found


def taken_pairs(claim: Claim, runs: PairedRuns, path: Path) -> PairedRuns:
    """Return `runs` with the seeds of their looks alone, that of the look which waits among them."""
    return _first(claim, runs, path.pairs()) if not runs.invalid else runs


def _first(claim: Claim, runs: PairedRuns, pairs: int) -> PairedRuns:
    seeds = claim.seeds[:pairs]
    arms = [
        {seed: run for seed, run in arm.items() if seed in seeds}
        for arm in (runs.baseline_runs, runs.treatment_runs)
    ]
    return dataclasses.replace(
        runs,
        seeds=tuple(sorted(seeds)),
        baseline_runs=arms[0],
        treatment_runs=arms[1],
        not_claimed=(),
    )


def figures(claim: Claim, runs: PairedRuns, path: Path) -> Figures:
    """Return the figures of a comparison at its last look; before the first, of the pairs that there are.

    Intervals are the repeated ones. There is no p: that of sign flips is for a number of pairs fixed before.
    """
    number = max(0, len(path.looks) - 1)
    outer, inner = (
        2 * sequential.boundaries(claim.looks, alpha)[number]
        for alpha in (claim.level / 2, claim.level)
    )
    pairs = _first(claim, runs, claim.looks[number]).pairs(impute=True) if not runs.invalid else []
    own = of_pairs(claim, pairs, (outer, inner)) | {"p": None}
    if path.looks:
        state = path.looks[-1]["verdict"]
        gains, inner_gains = (claim.scale.turned(own[name]) for name in ("ci95", "ci90"))
        alone = Evidence.of_intervals(gains, inner_gains, claim.margin)
        by_itself = str(states.decide(alone, claim.margin))
        own |= {
            "verdict": state,
            "by_itself": state if state == states.TOO_COARSE else by_itself,
        }
    elif not runs.invalid:
        own |= {"verdict": states.TOO_FEW, "by_itself": states.TOO_FEW}
    return own | {"path": list(path.looks), "stopped": path.stopped, "ahead": list(path.ahead)}


def described(claim: Claim, comparisons: Sequence[Figures]) -> dict[str, Any]:
    """Return the design of a claim's looks, as `verdict.json` has it; `look` of them were taken."""
    bounds = sequential.boundaries(claim.looks, claim.level / 2)
    taken = max((len(one["path"]) for one in comparisons), default=0)
    return {"pairs": list(claim.looks), "p": list(bounds), "decide": claim.decide, "look": taken}


def progress(claim: Claim, own: Figures) -> str:
    """Return a comparison after its last look in a line: its interval, its state, and how many pairs it may take yet."""
    last = own["path"][-1]
    label = comparison_label(own, claim.factor)
    alone = f" (“{own['by_itself']}” by itself)" * (own["by_itself"] != last["verdict"])
    signed = claim.scale.signed
    interval = f"{signed(last['low'])} to {signed(last['high'])}"
    text = f"{label}: {signed(last['mean'])} ({interval}), {last['verdict']}{alone}"
    most = claim.looks[-1]
    if own["stopped"] == DECIDED:
        return f"{text}: decided with {last['pairs']} pairs"
    if own["stopped"] == UNDECIDABLE:
        return f"{text}: stopped with {last['pairs']} pairs, undecidable with {most} at this spread"
    if last["pairs"] == most:
        return f"{text}: open after all {most} pairs"
    if expected := expected_pairs(own):
        more = f"about {expected - last['pairs']} more pairs if mean and spread stay"
        return f"{text}: goes on, {more}"
    return f"{text}: goes on; {most} pairs decide only if mean or spread change"


def expected_pairs(own: Figures) -> int | None:
    """Return the look that would decide if mean and standard deviation stayed as they are; None if none would."""
    mean = own["path"][-1]["mean"]
    deciding = (one for one in own["ahead"] if mean > one["above"] or mean < one["below"])
    return next((int(one["pairs"]) for one in deciding), None)


def wanted(claim: Claim, compared: Sequence[PairedRuns]) -> tuple[set[RunKey], set[RunKey]]:
    """Return the runs that looks have taken or wait for, and those that later looks may take."""
    now, later = set[RunKey](), set[RunKey]()
    for runs, path in zip(compared, paths(claim, compared), strict=True):
        arms = zip((runs.baseline, runs.treatment), runs.tuned, strict=True)
        for level, tuned in arms:
            keys = [(runs.cell, level_key(level), tuned, seed) for seed in claim.seeds]
            now.update(keys[: path.pairs()])
            if path.waits and not runs.invalid:
                later.update(keys)
    return now, later - now
