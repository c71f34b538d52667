"""What happens around the jobs of a multirun: `plan.json` before the first, results after the last."""

from __future__ import annotations

import math
import pickle
import re
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from filelock import FileLock
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.experimental.callback import Callback
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf, read_write

from harness import clusters, imports, place, processes
from harness import config as conf
from harness.config import Config, ConfigError, choices, load
from harness.errors import Attempts, one_line_errors, report
from harness.files import read_json, write_json

if TYPE_CHECKING:
    from harness.claims import Claim
    from harness.preview import Arm, Stretch


_MOST_RUNS = 100_000
_ESCAPE = re.compile(r"\\(.)")  # as Hydra writes the values of a sweep


class Sweep(Callback):
    """Hydra's callback, named in `conf/config.yaml`."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():
            if not config.hydra.run.dir:  # Hydra would take the current folder
                raise ConfigError("hydra.run.dir: has no value; give one with hydra.run.dir=VALUE")
        if processes.seat().rank:  # the first process alone writes
            with read_write(config):
                config.hydra.run.dir, config.hydra.output_subdir = tempfile.gettempdir(), None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():  # Hydra would make a warning of an exception
            arms = begin(config)
            # Hydra would compose every job once more, a fifth of a second each
            Sweeper.validate_batch_is_legal = _composed_already  # type: ignore[assignment]
            clusters.prepare(config.hydra, len(arms))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():
            end(Path(config.hydra.sweep.dir))


def _composed_already(sweeper: Sweeper, batch: Sequence[Sequence[str]]) -> None:
    """In the place of Hydra's check that jobs compose: `begin` has done so."""


def begin(config: DictConfig) -> list[Arm]:
    """Plan every job, refuse what does not fit, write `plan.json` and say what it will cost."""
    processes.refuse_sweep()
    jobs = expand(config)
    arms = [plan(job) for job in jobs]
    from harness import preview

    roots = preview.tree(arms)
    parts = preview.branches(roots)
    for job, arm in zip(jobs, arms, strict=True):
        job["branches"] = sorted(parts[job["name"]])
        job["seed"] = arm.config.seed
        job["plan"] = arm.plan.describe()
    claim = infer(arms[0].config.claim, jobs)
    folder = Path(config.hydra.sweep.dir)
    document = {"command": sys.argv, "claim": claim and claim.to_dict(), "arms": jobs}
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        _refuse_another(folder, jobs)
        write_json(folder / "plan.json", document)
    print(f"sweep in {folder}: {announce(arms, roots)}", file=sys.stderr)
    return arms


def _refuse_another(folder: Path, jobs: Sequence[dict[str, Any]]) -> None:
    """Raises `ConfigError` if `folder` holds a sweep of other runs."""
    path = folder / "plan.json"
    if not path.exists():
        return
    plan = read_json(path)
    if [arm["overrides"] for arm in plan["arms"]] != [job["overrides"] for job in jobs]:
        raise ConfigError(
            f"hydra.sweep.dir={folder}: holds the sweep of other runs, {len(plan['arms'])} by "
            f"`python {shlex.join(plan['command'])}`; take another folder"
        )


def infer(settings: conf.Claim, jobs: Sequence[dict[str, Any]]) -> Claim | None:
    """The claim that the sweep can be judged by: as `settings` say, else from what is swept.

    None if nothing but seeds is swept, or several keys of which none is the scheduler's. Raises
    `ConfigError` for a factor or a level that the sweep does not have.
    """
    from harness.claims import Claim

    swept = [key for key in jobs[0]["swept"] if key != "seed"]
    schedules = [key for key in swept if key.partition(".")[0] in ("scheduler", "arm")]
    guess = schedules[0] if schedules else swept[0] if len(swept) == 1 else None
    factor = settings.factor or guess
    if factor is None:
        return None
    if factor not in swept:
        raise ConfigError(f"claim.factor={factor}: is not swept; sweep it, as in {factor}=A,B")
    levels = list(dict.fromkeys(job["swept"][factor] for job in jobs))
    baseline = settings.baseline or levels[0]
    treatments = settings.treatments or [level for level in levels if level != baseline]
    for key, level in [("baseline", baseline), *(("treatments", level) for level in treatments)]:
        if level not in levels:
            raise ConfigError(f"claim.{key}={level}: {factor} has the levels {', '.join(levels)}")
    return Claim(
        factor=factor,
        baseline=baseline,
        treatments=tuple(treatments),
        metric=settings.metric,
        margin=settings.margin,
        level=settings.level,
        seeds=tuple(dict.fromkeys(job["seed"] for job in jobs)),
        inferred=settings.factor is None,
    )


def end(folder: Path) -> None:
    """Table, verdict, pictures and page of a sweep; exits with 1 if runs of it are not done.

    What cannot be made costs a warning: the runs are there, and the rest is made.
    """
    from harness import publish, results, summary

    text, failures = summary.write([folder], folder)
    steps = Attempts()
    with steps.step("table"):
        print(text, flush=True)
    with steps.step("W&B"):
        if where := publish.publish(folder):
            print(where)
    for failure in [*failures, *steps.failures]:
        print(
            f"warning: {failure}; later: python scripts/report.py {folder}",
            file=sys.stderr,
        )
    runs = results.read(folder)
    failed = runs.filter(runs["status"].is_in(["failed", "missing", "interrupted"]))
    if len(failed):
        names = "; ".join(f"{row['name']}: {row['error']}" for row in failed.to_dicts())
        logs = folder / ".submitit"
        where = f" (logs in {logs})" if logs.exists() else ""
        raise SystemExit(f"error: {len(failed)} of {len(runs)} runs failed: {names}{where}")


def compose(overrides: Sequence[str]) -> Config:
    """The checked configuration of one job, composed as Hydra will compose it.

    Raises `ConfigError` and what composing raises. Jobs that differ in the seed alone are composed
    once, unless a value follows the seed by interpolation.
    """
    seeds = [word for word in overrides if re.fullmatch(r"seed=\d{1,18}", word)]
    others = tuple(word for word in overrides if word not in seeds)
    if len(seeds) != 1 or _follows_seed(others):
        return _compose(tuple(overrides))
    return replace(_compose(others), seed=int(seeds[0].removeprefix("seed=")))


@lru_cache
def _follows_seed(overrides: tuple[str, ...]) -> bool:
    groups, _ = _parsed(overrides)
    whole = OmegaConf.to_yaml(_compose_groups(groups)) + " ".join(overrides)
    return "seed}" in whole


@lru_cache
def _compose(overrides: tuple[str, ...]) -> Config:
    groups, values = _parsed(overrides)
    composed: DictConfig = pickle.loads(_pickled(groups))  # noqa: S301 - our own; thrice as fast as a deep copy
    ConfigLoaderImpl._apply_overrides_to_config(values, composed)
    return load(composed)


def _parsed(overrides: tuple[str, ...]) -> tuple[tuple[str, ...], list[Override]]:
    """The overrides that choose files of `conf/`, as text, and those of single values."""
    parsed = _parser().parse_overrides(list(overrides))
    values = [one for one in parsed if not one.is_add() and one.key_or_group not in choices()]
    return tuple(one.input_line or "" for one in parsed if one not in values), values


@lru_cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


@lru_cache
def _pickled(groups: tuple[str, ...]) -> bytes:
    return pickle.dumps(_compose_groups(groups))


@lru_cache
def _compose_groups(overrides: tuple[str, ...]) -> DictConfig:
    """The slow part of composing, which most jobs of a sweep have in common."""
    return hydra.compose("config", list(overrides))


def plan(job: dict[str, Any]) -> Arm:
    """The job's configuration and LR plan. What does not fit ends the program, untrained."""
    imports.load()
    from harness import preview

    try:
        return preview.plan(job["name"], job["arm"], compose(job["overrides"]))
    except Exception as error:
        report(error, f"{job['name']}: ")
        raise SystemExit(1) from None


def announce(arms: Sequence[Arm], roots: Sequence[Stretch]) -> str:
    """What the sweep costs: runs, epochs, and what the store saves of them."""
    from harness import preview

    config = arms[0].config
    whole, to_train = preview.epochs(arms), preview.epochs_to_train(roots)
    text = f"{len(arms)} run{'s' * (len(arms) != 1)}, {whole:g} epochs"
    if not config.reuse:
        return text
    if to_train < whole:
        text += f", {to_train:g} to train since beginnings are shared"
    if config.store.keep == "cycles":
        size = preview.checkpoints_bytes(roots) / 1e6
        text += f"; checkpoints: about {size:.1f} MB in {config.store.dir}"
    return text


def expand(config: DictConfig) -> list[dict[str, Any]]:
    """The jobs of a multirun, labelled, in the order and with the numbers that Hydra gives them."""
    params = config.hydra.sweeper.get("params") or {}
    overrides = [f"{key}={value}" for key, value in params.items()]
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())  # for glob(...)
    parsed = parser.parse_overrides([*overrides, *place.task_overrides(config.hydra)])
    if (runs := math.prod(map(_choices, parsed))) > _MOST_RUNS:
        raise ConfigError(
            f"the sweep has {runs:,} runs, and at most {_MOST_RUNS:,} are planned at once"
        )
    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return label(jobs)


def _choices(override: Override) -> int:
    """How many values an override sweeps over, without making them."""
    match override.value() if override.is_sweep_override() else None:
        case RangeSweep(start=start, stop=stop, step=step) if step and stop is not None:
            return max(0, math.ceil((float(stop) - float(start or 0)) / step))
        case ChoiceSweep(list=values):
            return len(values)
    return 1


def label(jobs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Each job's number, overrides, `name` (what differs between jobs) and `arm` (without seed)."""
    values = [
        {key: _ESCAPE.sub(r"\1", value) for key, _, value in (o.partition("=") for o in job)}
        for job in jobs
    ]
    differing = [key for key in values[0] if len({job[key] for job in values}) > 1]
    short = Counter(key.rpartition(".")[2] for key in differing)
    names = {key: last if short[last := key.rpartition(".")[2]] == 1 else key for key in differing}

    def named(job: dict[str, str], keys: list[str]) -> str:
        return ", ".join(f"{names[key].lstrip('+')}={job[key]}" for key in keys) or "run"

    without_seed = [key for key in differing if key != "seed"]
    return [
        {
            "num": number,
            "overrides": list(overrides),
            "name": named(job, differing),
            "arm": named(job, without_seed),
            "swept": {key.lstrip("+"): job[key] for key in differing},
        }
        for number, (overrides, job) in enumerate(zip(jobs, values, strict=True))
    ]
