"""Names and arms of the runs of a sweep, and the claim that they are judged by. Reads no files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.analysis import averages
from harness.config.errors import ConfigError, closest
from harness.config.fields import show
from harness.config.measures import Measure
from harness.config.schema import ClaimSettings
from harness.config.values import SAME_RUN, flat

if TYPE_CHECKING:
    from harness.analysis.verdict import Claim

NO_SETTINGS = (*SAME_RUN, "claim.", "averages.", "metrics")  # keys that make no other run of it
_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_ESCAPE = re.compile(r"\\(.)")  # as Hydra writes the values of a sweep


def makes_no_cell(key: str, metric: str) -> bool:
    """Return whether a key makes no other run of it: its metrics' code does for a claim about that `metric` alone."""
    other = key.startswith("metric_sources.") and key.partition(".")[2] != metric.partition("/")[2]
    return other or key.startswith(NO_SETTINGS)


def override_values(overrides: Sequence[str]) -> dict[str, str]:
    """Return the overrides `["a=1", "+b=2"]` of a job as `{"a": "1", "b": "2"}`."""
    parts = (override.partition("=") for override in overrides)
    return {key.lstrip("+"): _ESCAPE.sub(r"\1", value) for key, _, value in parts}


def label_jobs(jobs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Return each job's number, overrides, `name` (what differs between jobs) and `arm` (without seed)."""
    values = [override_values(job) for job in jobs]
    differing = [key for key in values[0] if len({own[key] for own in values}) > 1]
    return [
        {"num": number, "overrides": list(job)} | label_run({key: own[key] for key in differing})
        for number, (job, own) in enumerate(zip(jobs, values, strict=True))
    ]


def label_run(swept: dict[str, str]) -> dict[str, Any]:
    """Return `name`, `arm` and `swept` of a run, in which `swept` is what differs from other runs."""
    last_parts = {key: key.rpartition(".")[2] for key in swept}
    count = Counter(last_parts.values())

    def join(keys: Iterable[str]) -> str:
        shown = ((last_parts[key] if count[last_parts[key]] == 1 else key, key) for key in keys)
        return ", ".join(f"{name}={swept[key]}" for name, key in shown) or "run"

    return {"name": join(swept), "arm": join(k for k in swept if k != "seed"), "swept": swept}


def config_differences(
    configs: Sequence[dict[str, Any]], seeded: Collection[str] = ()
) -> list[dict[str, str]]:
    """Return `swept` of each of several runs: what differs between their configurations, made by `to_dict`.

    Keys that follow the seed (`seeded`) do not count. Several differences of the schedule count as one, named `scheduler`; so do those that come with another
    kind of a section.
    """
    flats = [*map(flat, configs)]
    return name_differences(
        [
            {
                key: value
                for key, value in own.items()
                if not makes_no_cell(key, own.get("claim.metric", "")) and key not in seeded
            }
            for own in flats
        ]
    )


def name_differences(flats: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Do as `config_differences` with settings by their full keys, as `values.flat` returns them."""
    differing = _differing(flats)
    kinds = {key.partition(".")[0] for key in differing if key.endswith(".kind")}
    if sum(key.startswith("scheduler.") for key in differing) > 1:
        kinds.add("scheduler")
    swept = []
    for values in flats:
        own = {}
        for key in differing:
            section = key.partition(".")[0]
            if section not in kinds:
                own[key] = show(values.get(key))
            elif section not in own:
                own[section] = _level(section, values, flats)
        swept.append(own)
    return swept


def _differing(flats: Sequence[dict[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for values in flats for key in values)
    return [k for k in keys if len({show(values.get(k)) for values in flats}) > 1]


def _level(section: str, values: dict[str, Any], flats: Sequence[dict[str, Any]]) -> str:
    """Return a section's kind and what differs from other runs of that kind: `cosine_warm t_0=5 t_mult=2`."""
    kind = values[f"{section}.kind"]
    same_kind = [other for other in flats if other[f"{section}.kind"] == kind]
    keys = [key for key in _differing(same_kind) if key.startswith(f"{section}.")]
    return " ".join([kind, *(f"{key.partition('.')[2]}={show(values[key])}" for key in keys)])


@dataclass(frozen=True)
class Question:
    """The claim that a sweep is judged by, or the reason why there is none."""

    claim: Claim | None
    reason: str = ""
    comparisons: int = 0
    cells: int = 1
    seeds: int = 0  # of the arm with the fewest

    def text(self) -> str:
        """Return one line for the terminal."""
        if self.claim is None:
            return f"no verdict: {self.reason}"
        claim = self.claim
        treatments = ", ".join(claim.treatments[:6]) + ", …" * (len(claim.treatments) > 6)
        each = f", in each of {self.cells} cells" * (self.cells > 1)
        if claim.tuned_over:
            each = f" at each {claim.tuned_over}, {self.comparisons} comparisons"
        each += f", rivals {', '.join(claim.rivals)}" * bool(claim.rivals)
        return (
            f"judged by: {claim.factor}={treatments} against {claim.baseline}{each}"
            + f", {claim.taken}{claim.scale.note}, margin {claim.scale.amount(claim.margin)}"
            + f", at {', '.join(map(str, claim.looks))} pairs until decided" * bool(claim.looks)
        )

    def is_baseline(self, job: dict[str, Any]) -> bool:
        return self.claim is not None and job["swept"].get(self.claim.factor) == self.claim.baseline

    def for_plan(self) -> dict[str, Any]:
        """Return what `plan.json` says of the claim; of its looks, the one-sided p below which each decides."""
        plan = {"claim": self.claim and self.claim.to_dict(), "no_claim": self.reason}
        if self.claim is None or not self.claim.looks:
            return plan
        from harness.analysis.sequential import boundaries

        return plan | {"boundaries": list(boundaries(self.claim.looks, self.claim.level / 2))}

    def seed_shortage(self) -> str | None:
        """Return one line if there are too few seeds for a verdict."""
        from harness.analysis.paired_stats import fewest_pairs

        if self.claim is None:
            return None
        needed = fewest_pairs(self.claim.level, self.cells)
        if self.seeds >= needed:
            return None
        return (
            f"{self.seeds} seed{'s' * (self.seeds != 1)} an arm: a verdict over {self.comparisons} "
            f"comparison{'s' * (self.comparisons != 1)} needs at least {needed}, "
            f"as in 'seed=range(0,{needed})'"
        )


def infer_question(
    settings: ClaimSettings,
    jobs: Sequence[dict[str, Any]],
    measure: Measure,
    configured: Sequence[Sequence[str]] = (),
) -> Question:
    """Return what `jobs` (each with `swept` and `seed`) are judged by: as `settings` say, else inferred.

    `measure` is that of the claim's metric, `configured` are the levels of the factor `average` that each job has.
    The factor is the one key of the scheduler that is swept, else the one key that is. Raises
    `ConfigError` for a factor or a level that the sweep does not have.
    """
    if settings.factor == averages.FACTOR:
        if not any(len(own) > 1 for own in configured):
            raise ConfigError(
                "claim.factor=average: no average of the weights is kept; give some, as in "
                "'averages.ema=[0.99,0.999]'"
            )
        jobs = averages.variants(jobs, configured)
    swept = list(dict.fromkeys(key for job in jobs for key in job["swept"] if key != "seed"))
    of_schedule = [key for key in swept if key.partition(".")[0] in ("scheduler", "arm")]
    candidates = of_schedule or swept
    factor = settings.factor or (candidates[0] if len(candidates) == 1 else None)
    if factor is None:
        several = f"{', '.join(candidates)} are swept; claim.factor=KEY says which is judged"
        alone = (
            "nothing but seeds is swept"
            if len(jobs) > 1
            else "there is one run, and nothing to compare it with"
        )
        if any(len(own) > 1 for own in configured):
            alone += "; claim.factor=average compares the averages of the weights"
        return Question(None, several if candidates else alone)
    if factor not in swept:
        if factor == "seed" and any("seed" in job["swept"] for job in jobs):
            raise ConfigError("claim.factor=seed: seeds make the pairs; name another key")
        raise ConfigError(_not_swept("factor", factor, swept))
    if (over := settings.tuned_over) and over not in swept:
        raise ConfigError(_not_swept("tuned_over", over, swept))
    levels = list(dict.fromkeys(job["swept"][factor] for job in jobs if factor in job["swept"]))
    seeds = tuple(dict.fromkeys(job["seed"] for job in jobs))
    claim = _make_claim(settings, factor, levels, seeds, measure)
    return Question(claim, "", *_count(claim, jobs))


def _not_swept(name: str, key: str, swept: Sequence[str]) -> str:
    meant = closest(key, [*swept, averages.FACTOR])
    fix = f"did you mean {meant}?" if meant else f"sweep it, as in {key}=A,B"
    return f"claim.{name}={key}: is not swept; {fix}"


def infer_question_afterwards(
    settings: ClaimSettings,
    jobs: Sequence[dict[str, Any]],
    measure: Measure,
    configured: Sequence[Sequence[str]] = (),
) -> Question:
    """Return what `jobs` that have been trained are judged by; an error is the reason for no claim."""
    try:
        return infer_question(settings, jobs, measure, configured)
    except ConfigError as error:
        return Question(None, str(error))


def _make_claim(
    settings: ClaimSettings,
    factor: str,
    levels: list[str],
    seeds: tuple[int, ...],
    measure: Measure,
) -> Claim:
    from harness.analysis.pairing import level_key
    from harness.analysis.verdict import Claim

    same = {level_key(level): level for level in reversed(levels)}

    def swept(key: str, level: str) -> str:
        if level_key(level) not in same:
            raise ConfigError(f"claim.{key}={level}: {factor} has the levels {', '.join(levels)}")
        return same[level_key(level)]

    baseline = swept("baseline", settings.baseline or levels[0])
    treatments = [swept("treatments", level) for level in settings.treatments or []]
    try:
        return Claim(
            factor=factor,
            baseline=baseline,
            treatments=tuple(treatments or [level for level in levels if level != baseline]),
            metric=settings.metric,
            margin=settings.margin,
            level=settings.level,
            seeds=seeds,
            inferred=settings.factor is None,
            rivals=tuple(swept("rivals", level) for level in settings.rivals or []),
            tuned_over=settings.tuned_over,
            looks=_looks(settings, len(seeds)),
            decide=settings.decide if settings.until else "zero",
            title=settings.title,
            better=measure.better,
            unit=measure.unit,
        )
    except ValueError as error:
        raise ConfigError(f"claim: {error}") from error


def _looks(settings: ClaimSettings, most: int) -> tuple[int, ...]:
    """Return the numbers of pairs, `most` of them, at which a claim is judged; none where its seeds are fixed."""
    from harness.analysis.paired_stats import fewest_pairs
    from harness.analysis.sequential import default_looks

    if not settings.until:
        return ()
    fewest = min(most, fewest_pairs(settings.level))
    return tuple(settings.looks or (pairs for pairs in default_looks(most) if pairs >= fewest))


def _count(claim: Claim, jobs: Sequence[dict[str, Any]]) -> tuple[int, int, int]:
    """Return how many comparisons and cells the claim has, and the seeds of the arm with the fewest."""
    seeds: dict[tuple[str, str, str], set[int]] = {}
    for job in jobs:
        level = job["swept"].get(claim.factor)
        if level in (claim.baseline, *claim.treatments):
            here = cell(job["swept"], claim.factor, claim.tuned_over)
            tuned = job["swept"].get(claim.tuned_over or "", "")
            seeds.setdefault((here, level, tuned), set()).add(job["seed"])
    comparisons = sum(level != claim.baseline for _, level, _ in seeds)
    return comparisons, len({cell for cell, _, _ in seeds}), min(map(len, seeds.values()))


def cell(swept: dict[str, str], *compared: str | None) -> str:
    """Return the values of what is swept beside the `compared` keys and seeds: the cell of a run.

    Of hashes of code, the first twelve digits.
    """
    others = {key: value for key, value in swept.items() if key not in (*compared, "seed")}
    return _HASH.sub(r"\1", ", ".join(f"{key}={value}" for key, value in others.items()))
