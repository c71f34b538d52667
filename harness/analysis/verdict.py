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

import polars as pl

from harness.analysis import looks, sentences, states
from harness.analysis import paired_stats as paired
from harness.analysis.figures import (
    FamilySize,
    Figures,
    is_enough,
    of_family,
    of_pairs,
    over_cells,
)
from harness.analysis.pairing import PairedRuns, level_key, natural_key
from harness.analysis.pooled import why_not_pooled
from harness.analysis.scale import Scale
from harness.config import measures

VERSION = 2  # of what `judge` returns; 1 had none


@dataclass(frozen=True)
class Claim:
    """The hypothesis, fixed before the first update: each treatment beats the baseline.

    `metric`, as val/acc, is taken after the last update; whether higher or lower is `better`, and its `unit`, come
    with it. `margin`, in that unit (of % in points), is the smallest difference that matters. Without `seeds`, every
    seed of the table counts. `rivals` are treatments that may explain what another one gains. With `tuned_over`, a
    key, a treatment must beat the baseline at each of the baseline's values of that key. With `looks`, numbers of pairs, the claim is
    judged at each of them until what it must `decide` ("zero" or "margin") is, with `seeds` in that order.
    `title` is the report's, and no part of what is judged. Runs that are not `paired` count each by itself. Of runs
    that another program recorded, not `planned` here, `metric` has any name, and its last recorded value is taken.
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
    rivals: tuple[str, ...] = ()
    tuned_over: str | None = None
    looks: tuple[int, ...] = ()
    decide: str = "zero"
    title: str | None = None
    better: str = "higher"
    unit: str = "%"
    paired: bool = True
    planned: bool = True

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
        self._check_metric()
        most = 100 if self.unit == "%" else math.inf
        if not 0 <= self.margin < most:
            below = " and less than 100" * (most == 100)
            raise ValueError(f"margin={self.margin}: must be {self.scale.amount(0)} or more{below}")
        if not 1e-6 <= self.level < 0.5:
            raise ValueError(f"level={self.level}: must lie between 1e-6 and 0.5")
        self._check_looks()
        needs_pairs = {"seeds": self.seeds, "tuned_over": self.tuned_over, "looks": self.looks}
        if not self.paired and (given := [name for name, value in needs_pairs.items() if value]):
            raise ValueError(f"{', '.join(given)}: needs runs that are paired by seed")

    @property
    def scale(self) -> Scale:
        return Scale(self.metric, self.better, self.unit, self.margin)

    @property
    def taken(self) -> str:
        """Which value of a run is judged, in words."""
        return (
            f"{self.metric}{' after the last update' if self.planned else ', last recorded value'}"
        )

    def _check_metric(self) -> None:
        own = measures.Measure(self.better, self.unit)
        if not self.planned:
            if not self.metric.strip() or not self.metric.isprintable() or len(self.metric) > 100:
                raise ValueError(
                    f"metric={self.metric[:100]!r}: must have 1 to 100 characters, none of them a control character"
                )
            return
        if not measures.is_metric(self.metric):
            raise ValueError(f"metric={self.metric}: must be val/NAME or test/NAME, as val/acc")
        if own != (known := measures.BUILTIN.get(self.scale.name, own)):
            raise ValueError(f"metric={self.metric}: {known.better} is better, not {self.better}")

    def _check_looks(self) -> None:
        if self.decide not in ("zero", "margin"):
            raise ValueError(f"decide={self.decide}: must be zero or margin")
        if not self.looks:
            return
        if list(self.looks) != sorted({*self.looks}) or self.looks[-1] != len(self.seeds):
            raise ValueError(
                f"looks={list(self.looks)}: must rise to the number of seeds, {len(self.seeds)}"
            )
        if self.looks[0] < (fewest := paired.fewest_pairs(self.level)):
            raise ValueError(
                f"looks={list(self.looks)}: must begin with {fewest} pairs or more, the fewest that can show a "
                f"difference at level {self.level:g} (claim.most, claim.looks)"
            )

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Claim:
        """Return what `to_dict` wrote; its hash is not read, so that a changed claim shows."""
        fields = {key: document[key] for key in document if key != "sha256"}
        lists = {name: tuple(fields[name]) for name in _LISTS if name in fields}
        return cls(**fields | lists)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and their hash, as JSON gives them back."""
        title = {"title": self.title} if self.title else {}
        return self._fields() | title | {"sha256": self.sha256()}

    def sha256(self) -> str:
        """Hash the canonical JSON of the fields that are judged."""
        text = json.dumps(self._fields(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _fields(self) -> dict[str, Any]:
        """Return what is judged; fields that are newer than claims in use only where they say something."""
        fields = dataclasses.asdict(self) | {"margin": float(self.margin)}
        del fields["title"]
        fields |= {name: list(fields[name]) for name in _LISTS}
        if not self.looks:
            del fields["decide"]
        fields = {k: v for k, v in fields.items() if (k, v) not in _UNSAID.items()}
        return {k: v for k, v in fields.items() if v or k not in ("rivals", "tuned_over", "looks")}


_LISTS = ("treatments", "seeds", "rivals", "looks")
_UNSAID = {"better": "higher", "unit": "%", "paired": True, "planned": True}  # of most claims


@dataclass(frozen=True)
class Comparison:
    """One treatment in one cell: against the baseline, or, with `Claim.tuned_over`, against it at each value."""

    cell: str
    treatment: str
    tuned: str  # the treatment's value of `Claim.tuned_over`
    against: tuple[PairedRuns, ...]

    @property
    def invalid(self) -> str:
        return next((runs.invalid for runs in self.against if runs.invalid), "")


def judge(claim: Claim, runs: pl.DataFrame) -> dict[str, Any]:
    """Return the core of `verdict.json`, one comparison a cell and treatment.

    `runs` has one row a planned run: name, level (of the factor, as text), cell, seed (any where runs are not paired), status,
    value (of the metric, in its own sign, after the last update), last (recorded), budget, aligned,
    nearest_aligned (epochs); and, where they are known, budget_unit (steps, else epochs), test (the metric on the test set), lr (the peak), images (of
    the metric's set, where one image makes a step of it), numerics (JSON), refused, tuned (the value of
    `tuned_over`), weights_sha256 (at the end), code (a hash of that of the metric). The order of the rows does not matter. Raises ValueError if two complete
    runs of one cell, level and seed that are paired have different values.
    """
    compared = compared_arms(claim, runs)
    pairs = [runs for one in compared for runs in one.against]
    valid = [one for one in compared if not one.invalid]
    size = FamilySize(len(valid), len({one.cell for one in valid}))
    if claim.looks:
        paths = looks.paths(claim, pairs)
        complete = everyone = [looks.figures(claim, *one) for one in zip(pairs, paths, strict=True)]
        compared = _taken(claim, compared, paths)
    else:
        complete, everyone = _fixed_figures(claim, pairs, size)
    comparisons, at = [], 0
    for one in compared:
        part = slice(at, at := at + len(one.against))
        comparisons.append(_judged(claim, one, complete[part], everyone[part], size))
    _add_rivals(claim, compared, comparisons)
    over = over_cells(claim, comparisons)
    if not_pooled := why_not_pooled(runs.to_dicts()) if over else "":
        over = []
    return {
        "version": VERSION,
        "claim": claim.to_dict(),
        "sentence": f"{sentences.answer(claim, comparisons, over)} {not_pooled}".rstrip(),
        "comparisons": comparisons,
        "over_cells": over,
    } | ({"looks": looks.described(claim, comparisons)} if claim.looks else {})


def _fixed_figures(
    claim: Claim, pairs: Sequence[PairedRuns], size: FamilySize
) -> tuple[list[Figures], list[Figures]]:
    """Return the figures of the complete pairs, and of those with imputed values."""
    complete = of_family(claim, pairs, size, impute=False)
    imputed = [bool(runs.imputed()) for runs in pairs]
    everyone = of_family(claim, pairs, size, impute=True) if any(imputed) else complete
    return complete, [
        b if own else a for a, b, own in zip(complete, everyone, imputed, strict=True)
    ]


def _taken(
    claim: Claim, compared: Sequence[Comparison], paths: Sequence[looks.Path]
) -> list[Comparison]:
    """Return the comparisons with the pairs alone that their looks took, or wait for."""
    left = iter(paths)
    return [
        dataclasses.replace(
            one, against=tuple(looks.taken_pairs(claim, runs, next(left)) for runs in one.against)
        )
        for one in compared
    ]


def compared_arms(claim: Claim, runs: pl.DataFrame) -> list[Comparison]:
    """Return the comparisons of a claim, each with its pairs of runs; `runs` as for `judge`."""
    rows = runs.to_dicts()
    cells = sorted({row["cell"] for row in rows}, key=natural_key) or [""]
    numbers = [row[name] for row in rows for name in ("value", "last")]
    worst = claim.scale.worst(
        value for value in numbers if value is not None and math.isfinite(value)
    )
    return [one for cell in cells for one in _compared(claim, cell, rows, len(cells) > 1, worst)]


def _compared(
    claim: Claim, cell: str, rows: Sequence[dict[str, Any]], several: bool, worst: float
) -> Iterator[Comparison]:
    """Yield the comparisons of a cell: where there are several cells, of the treatments that it has, if any."""
    here = [row for row in rows if row["cell"] == cell]
    absent = [level for level in claim.treatments if not _has(here, level)]
    for treatment in claim.treatments:
        if several and treatment in absent and len(absent) < len(claim.treatments):
            continue
        levels = (claim.baseline, treatment)
        baselines, treated = ([""], [""])
        if claim.tuned_over:
            baselines, treated = (_tuned_values(here, level) or [""] for level in levels)
        for value in treated:
            yield Comparison(
                cell, treatment, value,
                tuple(
                    PairedRuns.select(
                        claim.factor, levels, here, _claimed(claim, here, treatment, several),
                        (tuned, value), worst,
                    )
                    for tuned in baselines
                ),
            )  # fmt: skip


def _claimed(
    claim: Claim, rows: Sequence[dict[str, Any]], treatment: str, several: bool
) -> list[int] | None:
    """Return the claimed seeds of a comparison; of several, those that were planned for its treatment.

    None where runs are not paired.
    """
    if not claim.paired:
        return None
    if not several and len(claim.treatments) == 1:
        return list(claim.seeds)
    planned = {row["seed"] for row in _of_level(rows, treatment)}
    return [seed for seed in claim.seeds if seed in planned]


def _of_level(rows: Sequence[dict[str, Any]], level: str) -> list[dict[str, Any]]:
    key = level_key(level)
    return [row for row in rows if row["level"] is not None and level_key(row["level"]) == key]


def _has(rows: Sequence[dict[str, Any]], level: str) -> bool:
    return bool(_of_level(rows, level))


def _tuned_values(rows: Sequence[dict[str, Any]], level: str) -> list[str]:
    """Return the values of `tuned_over` that the runs of a level have, in natural order."""
    found = {row["tuned"] for row in _of_level(rows, level) if row.get("tuned")}
    return sorted(found, key=natural_key)


def _judged(
    claim: Claim,
    one: Comparison,
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
    means = [own["mean"] for own in complete]
    gains = [math.inf if mean is None else claim.scale.sign * mean for mean in means]
    shown = min(range(len(gains)), key=lambda at: (verdicts[at] != verdict, gains[at]))
    runs, figures, imputed = one.against[shown], complete[shown], everyone[shown]
    least = min(one.against, key=lambda runs: runs.there() - runs.planned())
    there, planned = least.there(), least.planned()
    awaited = there < planned and (claim.seeds or any(r.unfinished() for r in one.against))
    if verdict != states.INVALID and awaited:
        verdict = states.INTERIM
    imputations = runs.imputed() if not runs.invalid else []
    own = figures | {
        "cell": one.cell,
        "baseline": claim.baseline,
        "treatment": one.treatment,
        "planned": planned,
        "there": there,
        "complete_pairs": figures["verdict"],
        "verdict": verdict,
        "left_out": _left_out(one.against),
        "intention_to_treat": _filled(imputed, imputations, runs.worst),
        "test": _test(claim, runs),
        "numerics": runs.numerics(),
        "lrs": list(runs.lrs()),
        "tuned": _tuned(claim, one, complete, verdicts, shown) if claim.tuned_over else None,
        "rivals": [],
        "comparisons": size.comparisons,
        "fewest_pairs": size.fewest(claim),
        "one_image": _one_image(claim, runs),
        "invalid": one.invalid,
    }
    return own | {"sentence": sentences.comparison(claim, own)}


def _filled(figures: Figures, imputations: list[dict[str, Any]], worst: float) -> Figures | None:
    return figures | {"filled": imputations, "worst": worst} if imputations else None


def _one_image(claim: Claim, runs: PairedRuns) -> float | None:
    step = runs.step() if claim.planned and claim.scale.is_accuracy else math.inf
    return step if math.isfinite(step) else None


def _both(runs: PairedRuns, complete: Figures, everyone: Figures) -> str:
    """Return the less favourable state of the complete pairs and of those with imputed values.

    Where the baseline alone diverges so often that there are too few complete pairs, as it may at one of the
    values that it is tuned over, the imputed values decide.
    """
    if runs.invalid:
        return states.INVALID
    if any(runs.tuned) and complete["verdict"] == states.TOO_FEW and not runs.treatment_imputed():
        return str(everyone["verdict"])
    return states.least_favourable(complete["verdict"], everyone["verdict"])


def _left_out(against: Sequence[PairedRuns]) -> list[dict[str, str]]:
    found = {run["name"]: run for runs in against for run in runs.left_out()}
    return list(found.values())


def _test(claim: Claim, runs: PairedRuns) -> Figures | None:
    """Return the paired difference on the test set, which is never judged; None for a claim about it."""
    pairs = runs.test_pairs() if claim.metric.startswith("val/") else []
    if len(pairs) < 2:
        return None
    return {
        name: value
        for name, value in of_pairs(claim, pairs).items()
        if name in ("n", "mean", "ci95")
    }


def _tuned(
    claim: Claim,
    one: Comparison,
    complete: Sequence[Figures],
    verdicts: Sequence[str],
    shown: int,
) -> dict[str, Any]:
    """Return what the treatment comes to against each of the baseline's values of `tuned_over`; `shown` is its row."""
    against = [
        {"value": runs.tuned[0], "verdict": verdict, **{k: own[k] for k in ("n", "mean", "ci95")}}
        for runs, own, verdict in zip(one.against, complete, verdicts, strict=True)
    ]
    return {
        "key": claim.tuned_over,
        "treatment": one.tuned,
        "against": against,
        "baseline": against[shown]["value"],
    }


def _add_rivals(
    claim: Claim, compared: Sequence[Comparison], comparisons: list[dict[str, Any]]
) -> None:
    """Add to a supported comparison the rivals that explain it: supported in the same cell, and not exceeded.

    A rival is exceeded where the treatment is better than it by more than the margin, is not where that is
    ruled out; where neither shows, it is open.
    """
    for one, own in zip(compared, comparisons, strict=True):
        if own["verdict"] not in states.ANY_SUPPORTED:
            continue
        for rival in claim.rivals:
            of_rival = [
                (other, theirs)
                for other, theirs in zip(compared, comparisons, strict=True)
                if theirs["cell"] == own["cell"]
                and level_key(theirs["treatment"]) == level_key(rival)
                and theirs["verdict"] in states.ANY_SUPPORTED
            ]
            if of_rival and level_key(rival) != level_key(own["treatment"]):
                other, _ = max(of_rival, key=lambda pair: claim.scale.sign * pair[1]["mean"])
                own["rivals"].append(_against_rival(claim, rival, one, other))
        own["sentence"] += sentences.rivals(claim, own)


def _against_rival(claim: Claim, rival: str, one: Comparison, other: Comparison) -> dict[str, Any]:
    """Return the figures of a treatment against a rival, over the seeds that both have."""
    ours, theirs = (side.against[0].treatment_runs for side in (one, other))
    runs = dataclasses.replace(
        one.against[0], baseline=rival, baseline_runs=theirs, treatment_runs=ours, invalid=""
    )
    if claim.looks:
        figures = looks.figures(claim, runs, looks.paths(claim, [runs])[0])
    else:
        (figures,) = of_family(claim, [runs], FamilySize(1, 1), impute=True)
    ruled_out = is_enough(claim, figures) and claim.scale.turned(figures["ci95"])[1] < claim.margin
    exceeded = figures["verdict"] == states.SUPPORTED
    return {
        "rival": rival, "explains": ruled_out or (None if not exceeded else False),
        **{name: figures[name] for name in ("n", "runs", "mean", "ci95", "verdict") if name in figures},
    }  # fmt: skip
