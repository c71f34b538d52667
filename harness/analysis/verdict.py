"""Tables → paired statistics → a verdict. Reads tables only.

docs/verdict.md holds the rules with their sources, every field of what `judge` returns, and error rates
(`scripts/calibrate_verdict.py`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from harness.analysis import paired_stats as paired
from harness.analysis import sentences, states
from harness.analysis.pairing import Pair, PairedRuns, level_key, natural_key
from harness.analysis.states import Evidence

VERSION = 2  # of what `judge` returns; 1 had none

Figures = dict[str, Any]  # of the pairs of one comparison, as JSON


@dataclass(frozen=True)
class Claim:
    """The hypothesis, fixed before the first update: each treatment beats the baseline.

    `metric` is in percent, taken after the last update, and higher is better; `margin`, in points,
    is the smallest difference that matters. Without `seeds`, every seed of the table counts. `rivals`
    are treatments that may explain what another one gains. With `tuned_over`, a key, a treatment must
    beat the baseline at each of the baseline's values of that key. Raises ValueError for what cannot be judged.
    """

    factor: str
    baseline: str
    treatments: tuple[str, ...]
    metric: str = "val/acc"
    margin: float = 0.2
    level: float = 0.05
    seeds: tuple[int, ...] = ()
    inferred: bool = False
    rivals: tuple[str, ...] = ()
    tuned_over: str | None = None

    def __post_init__(self) -> None:
        texts = (self.baseline, *self.treatments)
        if not self.treatments:
            raise ValueError(
                f"{self.factor}: needs a treatment beside the baseline {self.baseline}"
            )
        if len({level_key(text) for text in texts}) < len(texts):
            raise ValueError(f"the levels of {self.factor} must differ: {', '.join(texts)}")
        if unknown := {*map(level_key, self.rivals)} - {*map(level_key, self.treatments)}:
            raise ValueError(f"rivals: {', '.join(map(str, unknown))} must be among the treatments")
        if self.tuned_over in (self.factor, "seed"):
            raise ValueError(
                f"tuned_over={self.tuned_over}: must be another key than the factor and seed"
            )
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
        lists = {name: tuple(fields[name]) for name in _LISTS if name in fields}
        return cls(**fields | lists)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and their hash, as JSON gives them back."""
        return self._fields() | {"sha256": self.sha256()}

    def sha256(self) -> str:
        """Hash the canonical JSON of the fields."""
        text = json.dumps(self._fields(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _fields(self) -> dict[str, Any]:
        """Return the fields; those that are newer than claims in use only where they say something."""
        fields = dataclasses.asdict(self) | {"margin": float(self.margin)}
        fields |= {name: list(fields[name]) for name in _LISTS}
        return {k: v for k, v in fields.items() if v or k not in ("rivals", "tuned_over")}


_LISTS = ("treatments", "seeds", "rivals")


@dataclass(frozen=True)
class _Comparison:
    """One treatment in one cell: against the baseline, or, with `Claim.tuned_over`, against it at each value."""

    cell: str
    treatment: str
    tuned: str  # the treatment's value of `Claim.tuned_over`
    against: tuple[PairedRuns, ...]

    @property
    def invalid(self) -> str:
        return next((runs.invalid for runs in self.against if runs.invalid), "")


@dataclass(frozen=True)
class FamilySize:
    """How many valid comparisons are judged together, and in how many cells."""

    comparisons: int
    cells: int

    def fewest_pairs(self, level: float) -> int:
        return paired.fewest_pairs(level, max(1, self.cells))


def judge(claim: Claim, runs: pl.DataFrame) -> dict[str, Any]:
    """Return the core of `verdict.json`, one comparison a cell and treatment.

    `runs` has one row a planned run: name, level (of the factor, as text), cell, seed, status,
    value (of the metric after the last update), last (recorded), budget (epochs), aligned,
    nearest_aligned (epochs); and, where they are known, test (percent), lr (the peak), images (of the
    metric's set), numerics (JSON), refused, tuned (the value of `tuned_over`). The order of the rows does
    not matter. Raises ValueError if two complete runs of one cell, level and seed have different values.
    """
    rows = runs.to_dicts()
    cells = sorted({row["cell"] for row in rows}, key=natural_key) or [""]
    compared = [one for cell in cells for one in _compared(claim, cell, rows, len(cells) > 1)]
    valid = [one for one in compared if not one.invalid]
    pairs = [runs for one in compared for runs in one.against]
    size = FamilySize(len(valid), len({one.cell for one in valid}))
    complete = everyone = _family(claim, pairs, size, impute=False)
    if any(runs.imputed() for runs in pairs):
        everyone = _family(claim, pairs, size, impute=True)
    comparisons, at = [], 0
    for one in compared:
        part = slice(at, at := at + len(one.against))
        comparisons.append(_judged(claim, one, complete[part], everyone[part], size))
    _add_rivals(claim, compared, comparisons)
    over = _over_cells(claim, comparisons)
    return {
        "version": VERSION,
        "claim": claim.to_dict(),
        "sentence": sentences.answer(claim, comparisons, over),
        "comparisons": comparisons,
        "over_cells": over,
    }


def _compared(
    claim: Claim, cell: str, rows: Sequence[dict[str, Any]], several: bool
) -> Iterator[_Comparison]:
    """Yield the comparisons of a cell; where there are several cells, of the treatments that it has."""
    here = [row for row in rows if row["cell"] == cell]
    seeds = {row["seed"] for row in here}
    claimed = [seed for seed in claim.seeds if seed in seeds or not several]
    for treatment in claim.treatments:
        levels = (claim.baseline, treatment)
        if several and not _values(here, treatment, "level"):
            continue
        baselines, treated = ([""], [""])
        if claim.tuned_over:
            baselines, treated = (_values(here, level, "tuned") or [""] for level in levels)
        for value in treated:
            yield _Comparison(
                cell, treatment, value,
                tuple(
                    PairedRuns.select(claim.factor, levels, here, claimed, (tuned, value))
                    for tuned in baselines
                ),
            )  # fmt: skip


def _values(rows: Sequence[dict[str, Any]], level: str, column: str) -> list[str]:
    """Return what the runs of a level have in a column, in natural order."""
    key = level_key(level)
    found = {
        row[column]
        for row in rows
        if row["level"] is not None and level_key(row["level"]) == key and row.get(column)
    }
    return sorted(found, key=natural_key)


def _family(
    claim: Claim, compared: Sequence[PairedRuns], size: FamilySize, impute: bool
) -> list[Figures]:
    """Return the figures of all pairs of arms, adjusted where there are several valid comparisons."""
    pairs = [runs.pairs(impute) for runs in compared]
    figures = [_figures(claim, own) for own in pairs]
    found = sorted({(r.cell, x.seed) for r, own in zip(compared, pairs, strict=True) for x in own})
    units = {unit: column for column, unit in enumerate(found)}
    valid = [at for at, runs in enumerate(compared) if not runs.invalid]
    differences = np.full((len(valid), len(units)), np.nan)
    for row, at in enumerate(valid):
        for pair in pairs[at]:
            differences[row, units[compared[at].cell, pair.seed]] = pair.difference
    ends = np.array(
        [(figures[at]["ci95"] or _NO_ENDS, figures[at]["ci90"] or _NO_ENDS) for at in valid]
    )
    if not valid:
        return figures
    alone = Evidence.of_intervals(ends[:, 0].T, ends[:, 1].T, claim.margin)
    evidence, p = alone, np.array([figures[at]["p"] or 1.0 for at in valid])
    if size.comparisons > 1 and units:
        joint = paired.max_t(differences, claim.margin)
        evidence = alone.adjusted(joint, claim.level)
        p = 2 * np.minimum(joint.above_zero, joint.below_zero)
    decided = states.decide(evidence, claim.margin), states.decide(alone, claim.margin)
    for at, adjusted, state, by_itself in zip(valid, p, *decided, strict=True):
        own, runs = figures[at], compared[at]
        if own["n"] < paired.fewest_pairs(claim.level):
            state = by_itself = states.TOO_FEW
        elif own["sd"] == 0 and runs.step() > claim.margin:
            state = by_itself = states.TOO_COARSE
        own |= {
            "p_adjusted": None if own["p"] is None else min(1.0, float(adjusted)),
            "verdict": str(state),
        }
        own["by_itself"] = str(by_itself)
        own["pairs_needed"] = _pairs_needed(claim, own, size)
    return figures


_NO_ENDS = (math.nan, math.nan)


def _figures(claim: Claim, pairs: Sequence[Pair]) -> Figures:
    """Return the pairs and their statistics; null for what they are too few or too equal for."""
    a, b, d = (
        np.array([getattr(pair, name) for pair in pairs], np.float64)
        for name in ("baseline", "treatment", "difference")
    )
    some, several = len(pairs) > 0, len(pairs) > 1
    varied = several and np.ptp(a) > 0 and np.ptp(b) > 0
    levels = (claim.level, 2 * claim.level)
    student = (
        [tuple(map(float, paired.interval(d, level))) for level in levels] if several else None
    )
    resampled = paired.bootstrap_t(d, levels) if several else None
    better = paired.improvement(d, claim.level) if some else None
    return {
        "pairs": [dataclasses.asdict(pair) | {"difference": pair.difference} for pair in pairs],
        "n": len(pairs),
        "mean": float(paired.mean(d)) if some else None,
        "sd": float(paired.sample_std(d)) if several else None,
        "correlation": float(np.corrcoef(a, b)[0, 1]) if varied else None,
        "ci95": student and list(student[0]),
        "ci90": student and list(student[1]),
        "bootstrap_t95": _finite(resampled[0]) if resampled else None,
        "by_bootstrap_t": _skewed(claim, resampled),
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


def _skewed(claim: Claim, ends: list[tuple[float, float]] | None) -> str | None:
    """Return the state by the bootstrap-t intervals at the two levels; None without them."""
    if ends is None:
        return None
    return str(states.decide(Evidence.of_intervals(ends[0], ends[1], claim.margin), claim.margin))


def _pairs_needed(claim: Claim, figures: Figures, size: FamilySize) -> dict[str, int | None] | None:
    """Return with how many pairs each question is answered in four cases of five; None below six pairs.

    "above 0" if the true difference is the margin, "above the margin" if it is twice that, "no gain that
    matters" if it is none; at the upper limit of the standard deviation, of several comparisons with the
    level divided by their number, as the first of them has to pass.
    """
    if figures["n"] < 6 or figures["verdict"] in (states.INVALID, states.TOO_COARSE):
        return None
    sd = paired.sd_limit(figures["sd"], figures["n"])
    together = paired.pairs_needed(sd, claim.margin, claim.level / max(1, size.comparisons))
    together = together and max(together, size.fewest_pairs(claim.level))
    alone = paired.pairs_needed(sd, claim.margin, claim.level)
    return {"above 0": together, "above the margin": together, states.NO_GAIN: alone}


def _judged(
    claim: Claim,
    one: _Comparison,
    complete: Sequence[Figures],
    everyone: Sequence[Figures],
    size: FamilySize,
) -> dict[str, Any]:
    """Return a comparison as `verdict.json` has it: the state of the least favourable, and its words."""
    verdicts = [
        _both(runs, *figures)
        for runs, *figures in zip(one.against, complete, everyone, strict=True)
    ]
    verdict = states.least_favourable(*verdicts)
    means = [math.inf if own["mean"] is None else own["mean"] for own in complete]
    shown = min(range(len(means)), key=lambda at: (means[at], verdicts[at] != verdict))
    runs, figures, imputed = one.against[shown], complete[shown], everyone[shown]
    there = min(len(runs.pairs(impute=True)) for runs in one.against)
    if claim.seeds and verdict != states.INVALID and there < len(runs.seeds):
        verdict = states.INTERIM
    imputations = runs.imputed() if not runs.invalid else []
    own = figures | {
        "cell": one.cell,
        "baseline": claim.baseline,
        "treatment": one.treatment,
        "planned": len(runs.seeds),
        "complete_pairs": figures["verdict"],
        "verdict": verdict,
        "left_out": _left_out(one.against),
        "intention_to_treat": imputed | {"filled": imputations} if imputations else None,
        "test": _test(claim, runs),
        "numerics": runs.numerics(),
        "lrs": list(runs.lrs()),
        "tuned": _tuned(claim, one, complete, verdicts) | {"baseline": runs.tuned[0]}
        if claim.tuned_over
        else None,
        "rivals": [],
        "comparisons": size.comparisons,
        "fewest_pairs": size.fewest_pairs(claim.level),
        "one_image": runs.step() if math.isfinite(runs.step()) else None,
        "invalid": one.invalid,
    }
    return own | {"sentence": sentences.comparison(claim, own)}


def _both(runs: PairedRuns, complete: Figures, everyone: Figures) -> str:
    """Return the less favourable state of the complete pairs and of those with imputed values.

    A baseline that diverged with every seed, as it may at one of the values that it is tuned over, has no
    complete pair; there the imputed values alone decide.
    """
    if runs.invalid:
        return states.INVALID
    if any(runs.tuned) and not complete["n"] and everyone["n"]:
        return str(everyone["verdict"])
    return states.least_favourable(complete["verdict"], everyone["verdict"])


def _left_out(against: Sequence[PairedRuns]) -> list[dict[str, str]]:
    found = {run["name"]: run for runs in against for run in runs.left_out()}
    return list(found.values())


def _test(claim: Claim, runs: PairedRuns) -> Figures | None:
    """Return the paired difference on the test set, which is never judged; None for a claim about it."""
    pairs = runs.test_pairs() if claim.metric == "val/acc" else []
    if len(pairs) < 2:
        return None
    return {
        name: value
        for name, value in _figures(claim, pairs).items()
        if name in ("n", "mean", "ci95")
    }


def _tuned(
    claim: Claim, one: _Comparison, complete: Sequence[Figures], verdicts: Sequence[str]
) -> dict[str, Any]:
    """Return what the treatment comes to against each of the baseline's values of `tuned_over`."""
    against = [
        {"value": runs.tuned[0], "verdict": verdict, **{k: own[k] for k in ("n", "mean", "ci95")}}
        for runs, own, verdict in zip(one.against, complete, verdicts, strict=True)
    ]
    return {"key": claim.tuned_over, "treatment": one.tuned, "against": against}


def _add_rivals(
    claim: Claim, compared: Sequence[_Comparison], comparisons: list[dict[str, Any]]
) -> None:
    """Add to a supported comparison the rivals that explain it: supported in the same cell, and not exceeded.

    A rival is exceeded where the treatment is better than it by more than the margin, is not where that is
    ruled out; where neither shows, it is open.
    """
    by_level = {
        (own["cell"], level_key(own["treatment"])): at for at, own in enumerate(comparisons)
    }
    for one, own in zip(compared, comparisons, strict=True):
        if own["verdict"] not in states.ANY_SUPPORTED:
            continue
        for rival in claim.rivals:
            at = by_level.get((one.cell, level_key(rival)))
            if at is None or comparisons[at] is own:
                continue
            if comparisons[at]["verdict"] in states.ANY_SUPPORTED:
                own["rivals"].append(_against_rival(claim, rival, one, compared[at]))
        own["sentence"] += sentences.rivals(claim, own)


def _against_rival(
    claim: Claim, rival: str, one: _Comparison, other: _Comparison
) -> dict[str, Any]:
    """Return the figures of a treatment against a rival, over the seeds that both have."""
    ours, theirs = (side.against[0].treatment_runs for side in (one, other))
    runs = dataclasses.replace(
        one.against[0], baseline=rival, baseline_runs=theirs, treatment_runs=ours, invalid=""
    )
    (figures,) = _family(claim, [runs], FamilySize(1, 1), impute=True)
    ruled_out = figures["ci95"] is not None and figures["ci95"][1] < claim.margin
    exceeded = figures["verdict"] == states.SUPPORTED
    return {
        "rival": rival, "explains": ruled_out or (None if not exceeded else False),
        **{name: figures[name] for name in ("n", "mean", "ci95", "verdict")},
    }  # fmt: skip


_UNMEASURED = (states.INVALID, states.TOO_FEW, states.TOO_COARSE)


def _over_cells(claim: Claim, comparisons: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each treatment that several cells have, the one answer over all of them."""
    found = []
    for treatment in claim.treatments:
        cells = [
            own
            for own in comparisons
            if own["treatment"] == treatment and own["verdict"] not in _UNMEASURED and own["sd"]
        ]
        if len(cells) < 2 or claim.tuned_over:
            continue
        means = np.array([own["mean"] for own in cells])
        errors = np.array([own["sd"] / math.sqrt(own["n"]) for own in cells])
        each = claim.level / len(claim.treatments)
        pooled: dict[str, Any] = paired.over_cells(means, errors, (each, 2 * each))
        outer, inner = pooled["intervals"]
        evidence = Evidence.of_intervals(outer, inner, claim.margin)
        whole = all(own["verdict"] != states.INTERIM for own in cells)
        found.append({
            "treatment": treatment, "cells": len(cells), "mean": float(pooled["mean"]),
            "ci95": [float(end) for end in pooled["intervals"][0]],
            "between_cells_sd": float(pooled["tau"]), "i2": float(pooled["i2"]),
            "verdict": str(states.decide(evidence, claim.margin)) if whole else states.INTERIM,
        })  # fmt: skip
    return found
