"""The jobs of a sweep before anything is written: expanded, composed, checked, planned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from harness.analysis import arms, sweep_plan
from harness.analysis.arms import Question
from harness.config import hydra_private
from harness.config.compose import Composed
from harness.config.errors import ConfigError
from harness.config.one_line_errors import report
from harness.fast_imports import import_once
from harness.runs import run_dir
from harness.sweeps.compose import compose, search_path, sweeper_params

if TYPE_CHECKING:
    from harness.sweeps.prefix_tree import PlannedRun

_MAX_RUNS = 100_000
_JOB_NUMBER = "${hydra.job.num}"  # the usual hydra.sweep.subdir


class PlannedSweep(NamedTuple):
    """The runs of a sweep before anything is written; `jobs`, `composed` and `runs` in the same order."""

    jobs: list[dict[str, Any]]
    composed: list[Composed]
    runs: list[PlannedRun]
    question: Question


def plan_sweep(config: DictConfig) -> PlannedSweep:
    """Compose, check and plan every job of the sweep: for the sweep itself and for its preview.

    Raises `ConfigError` for a sweep that does not fit; for a job that does not, prints why and exits.
    """
    if sweeper := search_sweeper(config):
        raise ConfigError(
            f"hydra/sweeper: {sweeper} chooses runs from the results of others, so what it will train is "
            "not known before; python train.py -m trains it"
        )
    jobs = expand(config)
    composed = []
    for job in jobs:
        with _exit_on_error(job["name"]):
            composed.append(_compose_job(job, config))
    _refuse_duplicates(jobs, composed)
    import_once(_load)
    from harness.runs.setup import lr_plan, shape_once
    from harness.sweeps.prefix_tree import PlannedRun

    shape_once.cache_clear()
    runs = []
    for job, one in zip(jobs, composed, strict=True):
        job["seed"] = one.config.seed
        with _exit_on_error(job["name"]):
            runs.append(PlannedRun(job["name"], job["arm"], one.config, lr_plan(one.config)))
    return PlannedSweep(jobs, composed, runs, arms.infer_question(composed[0].config.claim, jobs))


def search_sweeper(config: DictConfig) -> str | None:
    """Return the name of a sweeper that chooses runs from the results of others; None for Hydra's own."""
    target = str(config.hydra.sweeper._target_)
    return None if target.endswith(".BasicSweeper") else target.rpartition(".")[2]


def sweep_overrides(config: DictConfig) -> list[Override]:
    """Return the overrides of the whole sweep: those of its files, then those of the command."""
    params = config.hydra.sweeper.get("params") or {}
    words = [f"{key}={value}" for key, value in params.items()]
    return hydra_private.parse([*words, *run_dir.task_overrides(config.hydra)])


def expand(config: DictConfig) -> list[dict[str, Any]]:
    """Return the jobs of a multirun, labelled, in the order and with the numbers that Hydra gives them."""
    overrides = sweep_overrides(config)
    if (runs := math.prod(map(_count_values, overrides))) > _MAX_RUNS:
        raise ConfigError(
            f"the sweep has {runs:,} runs, and at most {_MAX_RUNS:,} are planned at once"
        )
    return arms.label_jobs(hydra_private.split_jobs(overrides))


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


@contextmanager
def _exit_on_error(name: str) -> Iterator[None]:
    """Print an error of the job `name` and exit: a sweep with a job that does not fit is not begun."""
    try:
        yield
    except Exception as error:
        report(error, f"{name}: ")
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
