"""Tables → paired statistics → a verdict. Reads tables only.

docs/verdict.md holds the rules with their sources, every field of what `judge` returns, and error rates
(`scripts/calibrate_verdict.py`).
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
    EQUIVALENT,
    FEWEST_PAIRS,
    INCONCLUSIVE,
    SUPPORTED,
    SUPPORTED_BELOW_MARGIN,
    WORSE,
)
from harness.analysis.pairing import IMPUTATION, Pair, PairedRuns, level_key, natural_key

INVALID = "invalid comparison"
VERDICTS = (SUPPORTED, SUPPORTED_BELOW_MARGIN, WORSE, EQUIVALENT, INCONCLUSIVE, INVALID)

_SHOWN = 6  # comparisons that the one sentence names
MOST_PAIRS_NEEDED = 1000  # that are written as a number: nobody will train more


@dataclass(frozen=True)
class Claim:
    """The hypothesis, fixed before the first update: each treatment beats the baseline.

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
        """Return what `to_dict` wrote; its hash is not read, so that a changed claim shows."""
        fields = {key: document[key] for key in document if key != "sha256"}
        lists = {"treatments": tuple(fields["treatments"]), "seeds": tuple(fields["seeds"])}
        return cls(**fields | lists)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and their hash, as JSON gives them back."""
        return self._fields() | {"sha256": self.sha256()}

    def sha256(self) -> str:
        """Hash the canonical JSON of the fields."""
        text = json.dumps(self._fields(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _fields(self) -> dict[str, Any]:
        lists = {"treatments": list(self.treatments), "seeds": list(self.seeds)}
        return dataclasses.asdict(self) | lists | {"margin": float(self.margin)}


def judge(claim: Claim, runs: pl.DataFrame) -> dict[str, Any]:
    """Return the core of `verdict.json`, one comparison a cell and treatment.

    `runs` has one row a planned run: name, level (of the factor, as text), cell, seed, status,
    value (of the metric after the last update), last (recorded), budget (epochs), aligned,
    nearest_aligned (epochs). The order of the rows does not matter. Raises ValueError if two
    complete runs of one cell, level and seed have different values.
    """
    rows = runs.to_dicts()
    cells = sorted({row["cell"] for row in rows}, key=natural_key) or [""]
    paired_runs = [
        PairedRuns.select(claim.factor, (claim.baseline, treatment), cell, rows, claim.seeds)
        for cell in cells
        for treatment in claim.treatments
    ]
    complete, all_count = (_family(claim, paired_runs, impute) for impute in (False, True))
    comparisons = [
        _comparison(claim, runs, figures, imputed)
        for runs, figures, imputed in zip(paired_runs, complete, all_count, strict=True)
    ]
    return {
        "claim": claim.to_dict(),
        "sentence": _answer(claim, comparisons),
        "comparisons": comparisons,
    }


def _family(claim: Claim, paired_runs: list[PairedRuns], impute: bool) -> list[dict[str, Any]]:
    """Return the figures of every comparison, adjusted for all that are valid."""
    figures = [_figures(claim, runs.pairs(impute)) for runs in paired_runs]
    valid = [own for own, runs in zip(figures, paired_runs, strict=True) if not runs.invalid]
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
    """Return the pairs and their statistics; null for what they are too few or too equal for."""
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
        "sd": float(paired.sample_std(d)) if several else None,
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


def comparison_label(comparison: Mapping[str, Any], factor: str = "") -> str:
    """Return how a comparison is called: `factor=treatment against baseline at cell`."""
    label = f"{factor}={comparison['treatment']}" if factor else comparison["treatment"]
    return f"{label} against {comparison['baseline']}{_at(comparison)}"


def _at(comparison: Mapping[str, Any]) -> str:
    return f" at {comparison['cell']}" if comparison.get("cell") else ""


def _comparison(
    claim: Claim, runs: PairedRuns, figures: dict[str, Any], imputed: dict[str, Any]
) -> dict[str, Any]:
    levels = {"cell": runs.cell, "baseline": claim.baseline, "treatment": runs.treatment}
    left_out, imputations = runs.left_out(), runs.imputed()
    sentence = (
        f"{comparison_label(levels, claim.factor)} – {_outcome(claim, runs.invalid, figures)}."
    )
    if left_out:
        counted = Counter(run["status"] for run in left_out)
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(counted.items()))
        some_count = not runs.invalid and set(counted) != {"not claimed"}
        pairs = f"This holds over {figures['n']} of {len(runs.seeds)} pairs; runs"
        sentence += f" {pairs if some_count else 'Runs'} left out: {statuses}."
    all_count = None
    if imputations and not runs.invalid:
        counting = f"Counting the {len(imputations)} that diverged or failed, as {IMPUTATION}: "
        counting += f"{_outcome(claim, '', imputed)}."
        all_count = imputed | {"filled": imputations, "sentence": counting}
        sentence += f" {counting}"
    return {
        **levels,
        **figures,
        "sentence": sentence,
        "left_out": left_out,
        "intention_to_treat": all_count,
    }


def _outcome(claim: Claim, invalid: str, figures: dict[str, Any]) -> str:
    """Return the verdict, effect, interval and pairs, and the reason."""
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
        case paired.SUPPORTED_BELOW_MARGIN:
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
        about = "about " * (needed <= MOST_PAIRS_NEEDED)
        reason += f"; {about}{format_pairs(needed)} pairs would show {claim.margin:g} points"
        reason += f" with {100 * paired.POWER:g} % power at this spread"
    return reason


def format_pairs(number: int) -> str:
    """Return a number of pairs as text; beyond `MOST_PAIRS_NEEDED` only that it is more."""
    return str(number) if number <= MOST_PAIRS_NEEDED else f"more than {MOST_PAIRS_NEEDED}"


def _range(claim: Claim, ends: Sequence[float]) -> str:
    return f"{_points(claim, ends[0])} to {_points(claim, ends[1])}"


def _points(claim: Claim, number: float) -> str:
    """Return a difference with the margin's precision, at least hundredths, and no -0.00."""
    places = max(2, 1 - math.floor(math.log10(claim.margin))) if claim.margin else 2
    return f"{round(number, places) + 0.0:+.{places}f}"


def _answer(claim: Claim, comparisons: Sequence[dict[str, Any]]) -> str:
    """Return the verdict in a sentence; of several comparisons the first few, and how many have which."""
    if len(comparisons) == 1:
        return str(comparisons[0]["sentence"])
    counted = Counter(one["verdict"] for one in comparisons)
    verdicts = "; ".join(f"{counted[name]} {name}" for name in VERDICTS if counted[name])
    shown = [
        f"{one['treatment']}{_at(one)} {_measured(claim, one)}, {one['verdict']}"
        for one in comparisons[:_SHOWN]
    ]
    more = f"; and {len(comparisons) - _SHOWN} more" * (len(comparisons) > _SHOWN)
    missing = len({run["name"] for one in comparisons for run in one["left_out"]})
    left_out = f"; runs left out: {missing}" * (missing > 0)
    return (
        f"{claim.factor} against {claim.baseline}, {len(comparisons)} comparisons ({verdicts}): "
        f"{'; '.join(shown)}{more}{left_out}."
    )
