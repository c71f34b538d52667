"""Tables → paired statistics → a verdict. Reads tables only.

docs/verdict.md holds the rules with their sources, every field of what `judge` returns, and how
often the verdicts err (`scripts/calibrate_verdict.py`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from harness.analysis import paired_stats as paired
from harness.analysis.paired_stats import (
    BELOW,
    EQUIVALENT,
    FEWEST_PAIRS,
    INCONCLUSIVE,
    SUPPORTED,
    WORSE,
)
from harness.analysis.pairing import FILLING, Pair, Sides, level_key, natural_key

__all__ = ["FEWEST_PAIRS", "INVALID", "VERDICTS", "Claim", "judge"]

INVALID = "invalid comparison"
VERDICTS = (SUPPORTED, BELOW, WORSE, EQUIVALENT, INCONCLUSIVE, INVALID)

_SHOWN = 6  # comparisons that the one sentence names
_MANY = 1000  # pairs that nobody will train


@dataclass(frozen=True)
class Claim:
    """What is to be shown, fixed before the first update: each treatment beats the baseline.

    `metric` is in percent, taken after the last update, and higher is better; `margin`, in points,
    is the smallest difference that matters. Without `seeds`, every seed of the table counts.
    Raises ValueError for what cannot be judged.
    """

    factor: str
    baseline: str
    treatments: tuple[str, ...]
    metric: str = "val/acc"
    margin: float = 0.2
    level: float = 0.05
    seeds: tuple[int, ...] = ()
    inferred: bool = False

    def __post_init__(self) -> None:
        texts = (self.baseline, *self.treatments)
        if not self.treatments:
            raise ValueError(
                f"{self.factor}: needs a treatment beside the baseline {self.baseline}"
            )
        if len({level_key(text) for text in texts}) < len(texts):
            raise ValueError(f"the levels of {self.factor} must differ: {', '.join(texts)}")
        if self.metric.endswith("loss"):
            raise ValueError(f"metric={self.metric}: must be one of which more is better: val/acc")
        if not 0 <= self.margin < math.inf:
            raise ValueError(f"margin={self.margin}: must be 0 points or more")
        if not 0 < self.level < 0.5:
            raise ValueError(f"level={self.level}: must lie between 0 and 0.5")

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Claim:
        """What `to_dict` wrote; its hash is not looked at, so that a changed claim shows."""
        fields = {key: document[key] for key in document if key != "sha256"}
        lists = {"treatments": tuple(fields["treatments"]), "seeds": tuple(fields["seeds"])}
        return cls(**fields | lists)

    def to_dict(self) -> dict[str, Any]:
        """The fields and their hash, as JSON gives them back."""
        return self._fields() | {"sha256": self.sha256()}

    def sha256(self) -> str:
        """Over the canonical JSON of the fields."""
        text = json.dumps(self._fields(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _fields(self) -> dict[str, Any]:
        lists = {"treatments": list(self.treatments), "seeds": list(self.seeds)}
        return dataclasses.asdict(self) | lists | {"margin": float(self.margin)}


def judge(claim: Claim, runs: pl.DataFrame) -> dict[str, Any]:
    """The core of `verdict.json`, one comparison a cell and treatment.

    `runs` has one row a planned run: name, level (of the factor, as text), cell, seed, status,
    value (of the metric after the last update), last (recorded), budget (epochs), aligned,
    nearest_aligned (epochs). The order of the rows does not matter. Raises ValueError if two
    complete runs of one cell, level and seed have different values.
    """
    rows = runs.to_dicts()
    cells = sorted({row["cell"] for row in rows}, key=natural_key) or [""]
    sides = [
        Sides.of(claim.factor, (claim.baseline, treatment), cell, rows, claim.seeds)
        for cell in cells
        for treatment in claim.treatments
    ]
    complete = _family(claim, sides, [side.pairs(filled=False) for side in sides])
    all_count = _family(claim, sides, [side.pairs(filled=True) for side in sides])
    comparisons = [
        _comparison(claim, side, figures, filled)
        for side, figures, filled in zip(sides, complete, all_count, strict=True)
    ]
    return {
        "claim": claim.to_dict(),
        "sentence": _answer(claim, comparisons),
        "comparisons": comparisons,
    }


def _family(
    claim: Claim, sides: Sequence[Sides], pairs: Sequence[Sequence[Pair]]
) -> list[dict[str, Any]]:
    """The figures of every comparison, adjusted for all that are valid."""
    figures = [_figures(claim, one) for one in pairs]
    valid = [figure for figure, side in zip(figures, sides, strict=True) if not side.invalid]
    p = np.array([1.0 if figure["p"] is None else figure["p"] for figure in valid])
    means = np.array([figure["mean"] or 0.0 for figure in valid])
    for figure, adjusted in zip(valid, paired.holm(p, means), strict=True):
        several = np.array(adjusted) if len(valid) > 1 else None
        differences = np.array([pair["difference"] for pair in figure["pairs"]])
        figure["p_holm"] = None if figure["p"] is None else float(adjusted)
        figure["verdict"] = str(paired.decide(differences, claim.margin, claim.level, several))
        if figure["verdict"] == INCONCLUSIVE and figure["sd"] is not None:
            figure["pairs_needed"] = paired.pairs_needed(
                figure["sd"], claim.margin, claim.level, len(valid)
            )
    return figures


def _figures(claim: Claim, pairs: Sequence[Pair]) -> dict[str, Any]:
    """What the pairs are and what they come to; null for what they are too few or too equal for."""
    a, b, d = (
        np.array([getattr(pair, name) for pair in pairs], np.float64)
        for name in ("baseline", "treatment", "difference")
    )
    some, several = len(pairs) > 0, len(pairs) > 1
    varied = several and np.ptp(a) > 0 and np.ptp(b) > 0
    better = (b[:, None] > a).mean() + (b[:, None] == a).mean() / 2 if some else None
    return {
        "pairs": [dataclasses.asdict(pair) | {"difference": pair.difference} for pair in pairs],
        "n": len(pairs),
        "mean": float(paired.mean(d)) if some else None,
        "sd": float(paired.spread(d)) if several else None,
        "correlation": float(np.corrcoef(a, b)[0, 1]) if varied else None,
        "ci95": [float(end) for end in paired.interval(d, claim.level)] if several else None,
        "ci90": [float(end) for end in paired.interval(d, 2 * claim.level)] if several else None,
        "bca95": paired.bca(d, claim.level) if several else None,
        "p": float(paired.sign_flip(d)) if some else None,
        "p_holm": None,
        "probability_of_improvement": None if better is None else float(better),
        "verdict": INVALID,
        "pairs_needed": None,
    }


def _comparison(
    claim: Claim, side: Sides, figures: dict[str, Any], filled: dict[str, Any]
) -> dict[str, Any]:
    left_out, fills = side.left_out(), side.fills()
    about = f"{claim.factor}={side.treatment} against {claim.baseline}"
    about += f" at {side.cell}" if side.cell else ""
    sentence = f"{about} – {_outcome(claim, side.invalid, figures)}."
    held = not side.invalid and any(run["status"] != "not claimed" for run in left_out)
    if left_out:
        counted = Counter(run["status"] for run in left_out)
        told = ", ".join(f"{count} {status}" for status, count in sorted(counted.items()))
        over = (
            f"This holds over {figures['n']} of {len(side.seeds)} pairs; runs" if held else "Runs"
        )
        sentence += f" {over} left out: {told}."
    all_count = None
    if fills and not side.invalid:
        told = f"{_outcome(claim, '', filled)}."
        counting = f"Counting the {len(fills)} that diverged or failed, as {FILLING}: {told}"
        all_count = filled | {"filled": fills, "sentence": counting}
        sentence += f" {counting}"
    return {
        "cell": side.cell,
        "baseline": claim.baseline,
        "treatment": side.treatment,
        **figures,
        "sentence": sentence,
        "left_out": left_out,
        "intention_to_treat": all_count,
    }


def _outcome(claim: Claim, invalid: str, figures: dict[str, Any]) -> str:
    """The verdict, effect, interval and pairs, and the reason."""
    if invalid:
        return f"{INVALID}: {invalid}"
    equal = "; all differences are equal, so the interval is a point" * (figures["sd"] == 0)
    return f"{figures['verdict']}: {_measured(claim, figures)}; {_reason(claim, figures)}{equal}"


def _measured(claim: Claim, figures: dict[str, Any]) -> str:
    n, ends = figures["n"], figures["ci95"]
    pairs = f"{n} pair{'s' * (n != 1)}"
    if not n:
        return pairs
    percent = f"{100 * (1 - claim.level):g} %"
    share = f"{percent} interval {_range(claim, ends)}" if ends else "no interval"
    return f"{_points(claim, figures['mean'])} points of {claim.metric} ({share}, {pairs})"


def _reason(claim: Claim, figures: dict[str, Any]) -> str:
    match figures["verdict"]:
        case paired.SUPPORTED:
            return f"above the margin of {claim.margin:g}"
        case paired.BELOW:
            return f"above 0, but not clearly above the margin of {claim.margin:g}"
        case paired.WORSE:
            return "below 0"
        case paired.EQUIVALENT:
            share = f"{100 * (1 - 2 * claim.level):g} % interval"
            return f"its {share}, {_range(claim, figures['ci90'])}, is within ±{claim.margin:g}"
    reason = "neither a difference nor its absence shows"
    if figures["n"] < FEWEST_PAIRS:
        reason = f"fewer than {FEWEST_PAIRS} pairs cannot reach p < 0.05"
    elif figures["ci95"][0] > 0 or figures["ci95"][1] < 0:
        reason = f"beside 0, but not once all comparisons count (p = {figures['p_holm']:.2g})"
    needed = figures["pairs_needed"] or 0
    if needed > figures["n"]:
        pairs = f"about {needed}" if needed <= _MANY else f"more than {_MANY}"
        reason += f"; {pairs} pairs would show {claim.margin:g} points"
        reason += f" with {100 * paired.POWER:g} % power at this spread"
    return reason


def _range(claim: Claim, ends: Sequence[float]) -> str:
    return f"{_points(claim, ends[0])} to {_points(claim, ends[1])}"


def _points(claim: Claim, number: float) -> str:
    """With the margin's precision, at least hundredths, and no -0.00."""
    places = max(2, 1 - math.floor(math.log10(claim.margin))) if claim.margin else 2
    return f"{round(number, places) + 0.0:+.{places}f}"


def _answer(claim: Claim, comparisons: Sequence[dict[str, Any]]) -> str:
    """The whole in a sentence; of several comparisons the first few, and how many came to what."""
    if len(comparisons) == 1:
        return str(comparisons[0]["sentence"])
    counted = Counter(one["verdict"] for one in comparisons)
    told = "; ".join(f"{counted[verdict]} {verdict}" for verdict in VERDICTS if counted[verdict])
    shown = []
    for one in comparisons[:_SHOWN]:
        place = f" at {one['cell']}" if one["cell"] else ""
        shown.append(f"{one['treatment']}{place} {_measured(claim, one)}, {one['verdict']}")
    more = f"; and {len(comparisons) - _SHOWN} more" * (len(comparisons) > _SHOWN)
    missing = len({run["name"] for one in comparisons for run in one["left_out"]})
    holes = f"; runs left out: {missing}" * (missing > 0)
    return (
        f"{claim.factor} against {claim.baseline}, {len(comparisons)} comparisons ({told}): "
        f"{'; '.join(shown)}{more}{holes}."
    )
