"""The jobs of a sweep before anything is written: expanded, composed, checked, planned."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from harness.analysis import arms, averages, sweep_plan
from harness.analysis.arms import Question
from harness.config import hydra_private, measures
from harness.config.compose import Composed
from harness.config.errors import ConfigError
from harness.config.fields import show
from harness.config.one_line_errors import report
from harness.config.schema import ClaimSettings
from harness.fast_imports import import_once
from harness.runs import run_dir
from harness.sweeps.compose import compose, search_path, sweeper_params

if TYPE_CHECKING:
    from harness.sweeps.prefix_tree import PlannedRun

_MAX_RUNS = 100_000
_USUAL_PAIRS = 30  # at most, of a claim that goes on until decided
_JOB_NUMBER = "${hydra.job.num}"  # the usual hydra.sweep.subdir


class PlannedSweep(NamedTuple):
    """The runs of a sweep before anything is written; `jobs`, `composed` and `runs` in the same order."""

    jobs: list[dict[str, Any]]
    composed: list[Composed]
    runs: list[PlannedRun]
    question: Question


@dataclass(frozen=True)
class Tuned:
    """What the arms of a sweep have chosen: `values` by their overrides, of each a list for every value to train.

    `factor` is what the claim is about, and `record` what `plan.json` says of the choice.
    """

    factor: str
    values: dict[tuple[str, ...], list[list[str]]]
    record: dict[str, Any]


def plan_sweep(config: DictConfig, tuned: Tuned | None = None) -> PlannedSweep:
    """Compose, check and plan every job of the sweep: for the sweep itself and for its preview.

    Arms that tune have what they were `tuned` to, before that what they are given. Raises `ConfigError` for a
    sweep that does not fit; for a job that does not, prints why and exits.
    """
    if sweeper := search_sweeper(config):
        raise ConfigError(
            f"hydra/sweeper: {sweeper} chooses runs from the results of others, so what it will train is "
            "not known before; python train.py -m trains it"
        )
    check_stages(config)
    jobs = expand(config)
    if tuned:
        jobs = _tuned_jobs(jobs, tuned)
    planned = plan_jobs(config, jobs)
    settings = planned.composed[0].config.claim
    settings.refuse_seeds_of_tuning(run.config.seed for run in planned.runs)
    if settings.tune and settings.factor == averages.FACTOR:
        raise ConfigError(
            "claim.tune: the arms of claim.factor=average are one run; leave it out, and give the run its values"
        )
    levels = [[averages.LAST, *run.config.averages.names()] for run in planned.runs]
    measure = measures.of_claim(settings.metric, planned.composed[0].config.metrics)
    question = arms.infer_question(
        _settings_of_stage(settings, tuned), planned.jobs, measure, levels
    )
    if tuned and question.claim:
        claim = replace(question.claim, inferred=settings.factor is None)
        question = replace(question, claim=claim)
    if question.claim is None and (settings.until or settings.tune):
        key = "until" if settings.until else "tune"
        raise ConfigError(f"claim.{key}: is for a sweep that judges a claim; {question.reason}")
    return planned._replace(question=question)


def plan_jobs(config: DictConfig, jobs: list[dict[str, Any]]) -> PlannedSweep:
    """Do as `plan_sweep` with jobs that are known, and no question."""
    _refuse_what_is_evaluated(jobs[0]["swept"])
    composed, several = [], len(jobs) > 1
    for job in jobs:
        with _exit_on_error(job["name"] if several else ""):
            composed.append(_compose_job(job, config))
    _refuse_duplicates(jobs, composed)
    _refuse_own_stages(config, composed)
    import_once(_load)
    from harness.runs.setup import lr_plan, shape_once
    from harness.sweeps.prefix_tree import PlannedRun

    shape_once.cache_clear()
    runs = []
    for job, one in zip(jobs, composed, strict=True):
        job["seed"] = one.config.seed
        with _exit_on_error(job["name"] if several else ""):
            runs.append(PlannedRun(job["name"], job["arm"], one.config, lr_plan(one.config)))
    return PlannedSweep(jobs, composed, runs, Question(None))


def _refuse_what_is_evaluated(swept: Iterable[str]) -> None:
    """Raise `ConfigError` for a swept key that changes nothing of what is trained: its values make no other runs."""
    for key in swept:
        if key.startswith("averages."):
            raise ConfigError(
                f"{key}: is swept, and averages ride on one run; give them all to it, as in "
                "'averages.ema=[0.99,0.999]' claim.factor=average"
            )
        if key == "metrics":
            raise ConfigError(
                "metrics: is swept, and metrics change no run; give all to each, as in metrics=[a,b]"
            )


def _settings_of_stage(settings: ClaimSettings, tuned: Tuned | None) -> ClaimSettings:
    """Return the settings of a claim before its arms are tuned, and after.

    Raises `ConfigError` for a `tuned_over` that tuning does not fit.
    """
    if tuned:
        return replace(settings, factor=tuned.factor)
    if not settings.tune or settings.tuned_over not in settings.tuned_keys():
        return settings
    if len(settings.tuned_keys()) > 1:
        raise ConfigError(
            f"claim.tuned_over={settings.tuned_over}: does not go with two tuned keys; tune it alone"
        )
    return replace(settings, tuned_over=None)  # the values are not known yet


def _tuned_jobs(jobs: Sequence[dict[str, Any]], tuned: Tuned) -> list[dict[str, Any]]:
    """Return the jobs with the values that their arms are trained with; named by them where an arm has several."""
    pairs = [
        (job, values) for job in jobs for values in tuned.values[without_seed(job["overrides"])]
    ]
    overrides = [[*job["overrides"], *values] for job, values in pairs]
    if len(pairs) > len(jobs):
        return arms.label_jobs(overrides)
    return [job | {"overrides": own} for (job, _), own in zip(pairs, overrides, strict=True)]


def without_seed(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides of a job's arm."""
    return tuple(word for word in overrides if not word.startswith("seed="))


def check_stages(config: DictConfig) -> None:
    """Raise `ConfigError` if a sweeper that knows no stages is to train in stages."""
    target = str(config.hydra.sweeper._target_)
    for key in ("until", "tune"):
        if config.claim[key] is not None and target != hydra_private.SWEEPER:
            raise ConfigError(
                f"hydra/sweeper: {target.rpartition('.')[2]} trains what it is given, and claim.{key} is set; "
                "leave hydra/sweeper out"
            )


def search_sweeper(config: DictConfig) -> str | None:
    """Return the name of a sweeper that chooses runs from the results of others; None for ours and Hydra's own."""
    target = str(config.hydra.sweeper._target_)
    basic = target == hydra_private.SWEEPER or target.endswith(".BasicSweeper")
    return None if basic else target.rpartition(".")[2]


def sweep_overrides(config: DictConfig) -> list[Override]:
    """Return the overrides of the whole sweep: those of its files, then those of the command."""
    params = config.hydra.sweeper.get("params") or {}
    words = [f"{key}={value}" for key, value in params.items()]
    return hydra_private.parse([*words, *run_dir.task_overrides(config.hydra)])


def expand(config: DictConfig) -> list[dict[str, Any]]:
    """Return the jobs of a multirun, labelled, in the order and with the numbers that Hydra gives them.

    Of a claim that goes on until decided: all jobs of its first seed, then those of the next.
    """
    overrides, seeds = sweep_overrides(config), [""]
    for one in overrides:
        _refuse_value_twice(one)
    if config.claim.until:
        overrides, seeds = _with_seeds(config, overrides)
    for one in overrides:
        if not _count_values(one):
            raise ConfigError(f"{one.input_line}: holds no value; range(0,6) has 0 to 5")
    if (runs := math.prod(map(_count_values, overrides)) * len(seeds)) > _MAX_RUNS:
        raise ConfigError(
            f"the sweep has {runs:,} runs, and at most {_MAX_RUNS:,} are planned at once"
        )
    jobs = hydra_private.split_jobs(overrides)
    return arms.label_jobs([[*job, *filter(None, [seed])] for seed in seeds for job in jobs])


def _with_seeds(
    config: DictConfig, overrides: Sequence[Override]
) -> tuple[list[Override], list[str]]:
    """Return the overrides without the seed, and those of the seeds that looks take, in their order."""
    own = [one for one in overrides if one.get_key_element() == "seed"]
    others = [one for one in overrides if one not in own]
    most, looks = config.claim.most, config.claim.looks
    if not any(one.is_sweep_override() for one in own):
        first = int(config.seed)
        return others, [
            f"seed={first + number}" for number in range(most or (looks or [_USUAL_PAIRS])[-1])
        ]
    seeds = [seed for (seed,) in hydra_private.split_jobs(own)]
    if most not in (None, len(seeds)):
        raise ConfigError(
            f"claim.most={most}: {len(seeds)} seeds are swept, and looks take those; leave one of the two out"
        )
    return others, seeds


def _refuse_value_twice(override: Override) -> None:
    """Raise `ConfigError` if the values that are swept over have one twice."""
    values = override.value() if override.is_sweep_override() else None
    if isinstance(values, ChoiceSweep):
        shown = [str(value) for value in values.list]
        if twice := next((one for one in shown if shown.count(one) > 1), None):
            raise ConfigError(f"{override.input_line}: has {twice} twice; leave one of them out")


def _count_values(override: Override) -> int:
    """Return how many values an override sweeps over, without making them."""
    match override.value() if override.is_sweep_override() else None:
        case RangeSweep(start=start, stop=stop, step=step) if step and stop is not None:
            return max(0, math.ceil((float(stop) - float(start or 0)) / step))
        case ChoiceSweep(list=values):
            return len(values)
    return 1


def _compose_job(job: dict[str, Any], sweep: DictConfig) -> Composed:
    overrides = [*search_path(sweep), *job["overrides"]]
    params, groups = sweeper_params(overrides)
    kept = sweep.hydra.sweeper.get("params") or {}
    if dropped := [key for key in params if key not in kept]:
        file = next((word for word in groups if word.partition("=")[0] in job["swept"]), "")
        raise ConfigError(
            f"{file}: brings a sweep of its own ({', '.join(dropped)}), which a sweep over such files "
            "would drop; give each its own command"
        )
    return compose(overrides)


def key_of(config: DictConfig, overrides: Sequence[str]) -> str | None:
    """Return the key in a plan of the run that a job's overrides make; None where they make none that fits."""
    try:
        composed = _compose_job({"overrides": list(overrides), "swept": {}}, config)
    except ConfigError:
        return None
    return sweep_plan.run_key(composed)


@contextmanager
def _exit_on_error(name: str) -> Iterator[None]:
    """Print an error of a job, one of several with its `name`, and exit: a sweep with a job that does not fit is not begun."""
    try:
        yield
    except Exception as error:
        report(error, f"{name}: " if name else "")
        raise SystemExit(1) from None


def _refuse_duplicates(jobs: Sequence[dict[str, Any]], composed: Sequence[Composed]) -> None:
    """Raise `ConfigError` if two jobs are the same run, which would count as two."""
    first: dict[tuple[str, int], str] = {}
    for job, one in zip(jobs, composed, strict=True):
        key, name = (sweep_plan.run_key(one), hash(repr(one.config))), job["name"]
        if key in first:
            twice = (
                "is in the sweep twice"
                if first[key] == name
                else f"is the same run as {first[key]}"
            )
            raise ConfigError(f"{name}: {twice}; leave one of them out")
        first[key] = name


def _refuse_own_stages(config: DictConfig, composed: Sequence[Composed]) -> None:
    """Raise `ConfigError` if files that are swept over say how the whole sweep is to go on."""
    claim: Any = OmegaConf.to_object(config.claim)
    for key in ("until", "tune"):
        given = getattr(claim, key)
        values = {show(getattr(one.config.claim, key)) for one in composed}
        if values != {show(given)}:
            raise ConfigError(
                f"claim.{key}: is {' and '.join(sorted(values))} in files that are swept over, and "
                f"{show(given)} of the sweep; give it with the command"
            )


def _load() -> None:
    import harness.runs.run
    import harness.sweeps.preview  # noqa: F401


def run_folders(config: DictConfig, jobs: Sequence[dict[str, Any]]) -> list[str]:
    """Return the folder of each job below the sweep's, as `hydra.sweep.subdir` says.

    Raises `ConfigError` if it is not below it, or several jobs have the same.
    """
    raw = str(OmegaConf.to_container(config.hydra.sweep, resolve=False)["subdir"])  # type: ignore[call-overload,index]
    if raw == _JOB_NUMBER:
        return [str(job["num"]) for job in jobs]
    names: dict[str, str] = {}
    for job in jobs:
        folder = hydra_private.sweep_subdir(config, job["overrides"], job["num"])
        path = str(PurePosixPath(folder))
        if not sweep_plan.is_below(folder):
            raise ConfigError(
                f"hydra.sweep.subdir={raw}: {folder!r} is not a folder below hydra.sweep.dir"
            )
        if path in names:
            raise ConfigError(
                f"hydra.sweep.subdir={raw}: {names[path]} and {job['name']} would share the folder "
                f"{folder}; use what differs between runs, as {_JOB_NUMBER}"
            )
        names[path] = job["name"]
    return list(names)
