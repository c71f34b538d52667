"""What happens around the jobs of a multirun: `plan.json` before the first, results after the last."""

from __future__ import annotations

import math
import pickle
import re
import shlex
import sys
import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from harness.analysis import arms
from harness.runs import requeue as clusters
from harness.fast_imports import import_once
from harness.runs import run_dir as place
from harness.training import ranks as processes
from harness.analysis import sweep_plan
from harness.config import schema as conf
from harness.analysis.arms import Question
from harness.config.schema import Composed, ConfigError
from harness.config.errors import Attempts, one_line_errors, report
from harness.files import LOCK_SECONDS, lock

if TYPE_CHECKING:
    from harness.sweeps.preview import Arm, Stretch


T = TypeVar("T")
_MOST_RUNS = 100_000
_SEARCH_PATH = "hydra.searchpath="  # more folders of choices
_BY_NUMBER = "${hydra.job.num}"  # the usual hydra.sweep.subdir


class Sweep(Callback):
    """Hydra's callback, named in `conf/config.yaml`."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():
            if processes.seat().rank:  # the first process alone writes
                with read_write(config):
                    config.hydra.run.dir, config.hydra.output_subdir = tempfile.gettempdir(), None
            if not config.hydra.run.dir:  # Hydra would take the current folder
                raise ConfigError("hydra.run.dir: has no value; give one with hydra.run.dir=VALUE")
            if brought := ", ".join(config.hydra.sweeper.get("params") or {}):
                print(
                    f"warning: this experiment is a sweep over {brought}, which takes -m; "
                    "without it, this is a single run of the defaults",
                    file=sys.stderr,
                )

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():  # Hydra would make a warning of an exception
            if not OmegaConf.to_container(config.hydra.sweep, resolve=False)["dir"]:  # type: ignore[call-overload,index]
                raise ConfigError(
                    "hydra.sweep.dir: has no value; give one with hydra.sweep.dir=VALUE"
                )
            if sweeper := searches(config):
                begin_search(config, sweeper)
                at_once = config.hydra.sweeper.get("n_jobs", 1)
            else:
                at_once = len(begin(config))
                # Hydra would compose every job once more, a fifth of a second each
                BasicSweeper.validate_batch_is_legal = _composed_already  # type: ignore[assignment]
            clusters.prepare(config.hydra, at_once)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():
            folder = Path(config.hydra.sweep.dir)
            if searches(config):
                end_search(folder)
            end(folder)
            from harness.analysis import verify

            if verify.records(folder):  # which the summary has named
                raise SystemExit(1)


def _composed_already(sweeper: BasicSweeper, batch: Sequence[Sequence[str]]) -> None:
    """In the place of Hydra's check that jobs compose: `begin` has done so."""


class Planned(NamedTuple):
    """The runs of a sweep before anything is written, `jobs`, `composed` and `arms` in the same order."""

    jobs: list[dict[str, Any]]
    composed: list[Composed]
    arms: list[Arm]
    question: Question


def planned(config: DictConfig) -> Planned:
    """Every job of the sweep, composed and checked: what `begin` trains and the preview shows.

    Raises `ConfigError` for what does not fit; a misfit of one job ends the program.
    """
    if sweeper := searches(config):
        raise ConfigError(
            f"hydra/sweeper: {sweeper} chooses runs from the results of others, so what it will train is "
            "not known before; python train.py -m trains it"
        )
    jobs = expand(config)
    composed = [_composed(job, config) for job in jobs]
    _refuse_twice(jobs, composed)
    import_once(_load)
    from harness.sweeps import preview

    preview.outline_once.cache_clear()
    planned_runs = [plan(job, one) for job, one in zip(jobs, composed, strict=True)]
    for job, one in zip(jobs, composed, strict=True):
        job["seed"] = one.config.seed
    return Planned(jobs, composed, planned_runs, arms.question(composed[0].config.claim, jobs))


def begin(config: DictConfig, new: bool = False) -> list[Arm]:
    """Plan every job, refuse what does not fit, write `plan.json` and say what it will cost.

    A sweep of the same runs that is there already goes on, unless it must be `new`.
    """
    processes.refuse_sweep()
    jobs, composed, runs, question = planned(config)
    from harness.training import datasets as data
    from harness.sweeps import preview
    from harness.runs import wandb_run as tracking
    from harness.analysis.verdict import Claim

    for settings in _distinct(run.config.tracking for run in runs):
        tracking.check(settings)
    for dataset in _distinct(run.config.dataset for run in runs):
        data.check(dataset)
    roots = preview.tree(runs)
    parts = preview.branches(roots)
    folders = run_folders(config, jobs)
    entries = []
    for job, one, run, name in zip(jobs, composed, runs, folders, strict=True):
        job |= {"folder": name, "branches": sorted(parts[job["name"]])}
        entries.append(sweep_plan.entry(job, one, preview.shape(run.plan)))
    document = sweep_plan.document(sys.argv, entries)
    document["claim"] = question.claim and question.claim.to_dict()
    document["no_claim"] = question.reason
    folder = Path(config.hydra.sweep.dir)
    if new and (folder / "plan.json").exists():
        raise ConfigError(f"{folder}: has a sweep; --again {folder} submits what it lacks")
    claim = _write(folder, document)["claim"]
    question = replace(question, claim=claim and Claim.from_dict(claim))
    print(f"sweep in {folder}: {announce(runs, roots)}\n{question.text()}", file=sys.stderr)
    for warning in preview.warnings(runs, question):
        print(f"warning: {warning}", file=sys.stderr)
    return runs


def _distinct(settings: Iterable[T]) -> list[T]:
    return list({repr(one): one for one in settings}.values())


def _write(folder: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Write `plan.json`. One of the same runs stays as it is, with the claim that it fixed. Returns the plan.

    Raises `ConfigError` if `folder` holds a sweep of other runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / ".lock", LOCK_SECONDS):
        if not (folder / "plan.json").exists():
            sweep_plan.write(folder / "plan.json", document)
            return document
    before = sweep_plan.frozen(folder)
    same = _fixed(before) == _fixed(document)
    if not document["search"]:
        keys = [sorted(run["key"] for run in plan["arms"]) for plan in (before, document)]
        same = same and keys[0] == keys[1]
    if not same:
        raise ConfigError(
            f"hydra.sweep.dir={folder}: holds the sweep of other runs, {len(before['arms'])} by "
            f"`python {shlex.join(before['command'])}`; take another folder"
        )
    return before


def _fixed(plan: dict[str, Any]) -> dict[str, str] | None:
    """What a search leaves as it is, of what makes another run; None for a planned sweep."""
    may_change = (*conf.SAME_RUN, "store", "tracking")
    values = plan["search"] and plan["search"]["fixed"]
    return values and {k: value for k, value in values.items() if not k.startswith(may_change)}


def searches(config: DictConfig) -> str | None:
    """The name of a sweeper that chooses runs from the results of others; None for Hydra's own."""
    target = str(config.hydra.sweeper._target_)
    return None if target.endswith(".BasicSweeper") else target.rpartition(".")[2]


def begin_search(config: DictConfig, sweeper: str) -> None:
    """Write a `plan.json` without runs, to which each job adds itself as `sweeper` asks for it."""
    processes.refuse_sweep()
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    fixed = {
        one.get_key_element().lstrip("+"): one.get_value_element_as_str()
        for one in _parser().parse_overrides([*words, *place.task_overrides(config.hydra)])
        if not one.is_sweep_override()
    }
    search = {"sweeper": sweeper, "fixed": fixed}
    _check_claim(config, fixed)
    folder = Path(config.hydra.sweep.dir)
    _write(folder, sweep_plan.document(sys.argv, [], search))
    print(f"sweep in {folder}: runs are chosen by {sweeper} as it goes", file=sys.stderr)
    direction = getattr(config.hydra.sweeper.get("direction"), "name", "maximize")
    if direction == "minimize":
        print(
            "warning: hydra.sweeper.direction=minimize: a run returns its validation accuracy, of which "
            "more is better; hydra.sweeper.direction=maximize",
            file=sys.stderr,
        )


def _check_claim(config: DictConfig, fixed: Collection[str]) -> None:
    """Raises `ConfigError` for a claim about a key that the search does not choose."""
    factor = config.claim.factor
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    parsed = _parser().parse_overrides([*words, *place.task_overrides(config.hydra)])
    chosen = {one.get_key_element().lstrip("+") for one in parsed} - {*fixed}
    if factor and factor not in chosen:
        raise ConfigError(f"claim.factor={factor}: the search chooses {', '.join(sorted(chosen))}")


def end_search(folder: Path) -> None:
    """Add to the plan what the runs that were chosen can be compared by."""
    plan = sweep_plan.frozen(folder)
    if not plan["arms"]:
        return
    settings = sweep_plan.config_of(plan, plan["arms"][0]).claim
    try:
        question = arms.question(settings, plan["arms"])
    except ConfigError as error:  # as where a search asked for one level only
        question = Question(None, str(error))
    claim = question.claim and question.claim.to_dict()
    sweep_plan.write(folder / "plan.json", plan | {"claim": claim, "no_claim": question.reason})
    print(question.text(), file=sys.stderr)


def run_folders(config: DictConfig, jobs: Sequence[dict[str, Any]]) -> list[str]:
    """The folder of each job below the sweep's, as `hydra.sweep.subdir` says.

    Raises `ConfigError` if it is not below it, or several jobs have the same.
    """
    raw = str(OmegaConf.to_container(config.hydra.sweep, resolve=False)["subdir"])  # type: ignore[call-overload,index]
    if raw == _BY_NUMBER:
        return [str(job["num"]) for job in jobs]
    found: dict[str, str] = {}
    for job in jobs:
        name = _subdir(config, job)
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ConfigError(
                f"hydra.sweep.subdir={raw}: {name!r} is not a folder below hydra.sweep.dir"
            )
        if str(path) in found:
            raise ConfigError(
                f"hydra.sweep.subdir={raw}: {found[str(path)]} and {job['name']} would share the folder "
                f"{name}; use what differs between runs, as {_BY_NUMBER}"
            )
        found[str(path)] = job["name"]
    return list(found)


def _subdir(config: DictConfig, job: dict[str, Any]) -> str:
    """What Hydra makes of `hydra.sweep.subdir` for a job; slow, since all is composed again."""
    loader = GlobalHydra.instance().config_loader()
    composed = loader.load_sweep_config(config, job["overrides"])
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = job["num"]
    current = HydraConfig.instance()
    before = current.cfg
    try:
        current.set_config(composed)
        return str(composed.hydra.sweep.subdir)
    finally:
        current.cfg = before


def end(folder: Path) -> None:
    """Table, verdict, pictures and page of a sweep; exits with 1 if runs of it are not done.

    What cannot be made costs a warning: the runs are there, and the rest is made.
    """
    from harness.sweeps import wandb_summary as publish
    from harness.analysis import results
    from harness.report import summary

    text, failures = summary.write_summary([folder], folder)
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


def compose(overrides: Sequence[str]) -> Composed:
    """The checked configuration of one job, composed as Hydra will compose it.

    Raises `ConfigError` and what composing raises. Jobs that differ in the seed alone are composed
    once, unless a value follows the seed by interpolation.
    """
    seeds = [word for word in overrides if re.fullmatch(r"seed=\d{1,18}", word)]
    others = tuple(word for word in overrides if word not in seeds)
    if len(seeds) != 1 or _follows_seed(others):
        return _compose(tuple(overrides))
    composed = _compose(others)
    seed = int(seeds[0].removeprefix("seed="))
    return replace(composed, config=replace(composed.config, seed=seed))


@lru_cache
def _follows_seed(overrides: tuple[str, ...]) -> bool:
    groups, _ = _parsed(overrides)
    whole = OmegaConf.to_yaml(_compose_groups(groups)) + " ".join(overrides)
    return "seed}" in whole


@lru_cache
def _compose(overrides: tuple[str, ...]) -> Composed:
    groups, values = _parsed(overrides)
    composed: DictConfig = pickle.loads(_pickled(groups))  # noqa: S301 - our own; thrice as fast as a deep copy
    ConfigLoaderImpl._apply_overrides_to_config(values, composed)
    OmegaConf.copy_cache(_resolved(), composed)  # or ${now:%f} would differ from job to job
    loaded = conf.load_composed(composed)
    OmegaConf.copy_cache(composed, _resolved())
    return loaded


@lru_cache
def _resolved() -> DictConfig:
    """What holds the values that `${now:…}` and the like came to."""
    return OmegaConf.create()


def _parsed(overrides: tuple[str, ...]) -> tuple[tuple[str, ...], list[Override]]:
    """The overrides that choose files of `conf/`, as text, and those of single values."""
    parsed = _parser().parse_overrides(list(overrides))
    path = tuple(word for word in overrides if word.startswith(_SEARCH_PATH))
    values = [
        one
        for one in parsed
        if not (one.is_add() or one.input_line in path or _is_group(one.key_or_group, path))
    ]
    return tuple(one.input_line or "" for one in parsed if one not in values), values


@lru_cache
def _is_group(key: str, path: tuple[str, ...]) -> bool:
    """Whether `conf/`, or a folder of `--config-dir` or `hydra.searchpath`, has files to choose from."""
    loader = GlobalHydra.instance().config_loader()
    return bool(loader.get_group_options(key, ObjectType.CONFIG, "config", list(path)))


@lru_cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


@lru_cache
def _pickled(groups: tuple[str, ...]) -> bytes:
    return pickle.dumps(_compose_groups(groups))


@lru_cache
def _compose_groups(overrides: tuple[str, ...]) -> DictConfig:
    """The slow part of composing, which most jobs of a sweep have in common."""
    composed = _compose_hydra(overrides).copy()
    with open_dict(composed):
        del composed["hydra"]
    return composed


@lru_cache
def _compose_hydra(overrides: tuple[str, ...]) -> DictConfig:
    return hydra.compose("config", list(overrides), return_hydra_config=True)


def _composed(job: dict[str, Any], sweep: DictConfig) -> Composed:
    """The job's configuration. What does not fit ends the program, untrained."""
    try:
        given: Any = OmegaConf.to_container(sweep.hydra.overrides.hydra, resolve=False)
        path = [word for word in given if word.startswith(_SEARCH_PATH)]
        overrides = [*path, *job["overrides"]]
        groups, _ = _parsed(tuple(overrides))
        brought = _compose_hydra(groups).hydra.sweeper.get("params") or {}
        if dropped := [
            key for key in brought if key not in (sweep.hydra.sweeper.get("params") or {})
        ]:
            file = next((word for word in groups if word.partition("=")[0] in job["swept"]), "")
            raise ConfigError(
                f"{file}: brings a sweep of its own ({', '.join(dropped)}), which a sweep over such files "
                "would drop; give each its own command"
            )
        return compose(overrides)
    except Exception as error:
        report(error, f"{job['name']}: ")
        raise SystemExit(1) from None


def _refuse_twice(jobs: Sequence[dict[str, Any]], composed: Sequence[Composed]) -> None:
    """Raises `ConfigError` if two jobs are the same run, which would count as two."""
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


def plan(job: dict[str, Any], composed: Composed) -> Arm:
    """The job's configuration and LR plan. What does not fit ends the program, untrained."""
    import_once(_load)
    from harness.sweeps import preview

    try:
        return preview.plan(job["name"], job["arm"], composed.config)
    except Exception as error:
        report(error, f"{job['name']}: ")
        raise SystemExit(1) from None


def announce(runs: Sequence[Arm], roots: Sequence[Stretch]) -> str:
    """What the sweep costs: runs, epochs, and what the store saves of them."""
    from harness.sweeps import preview

    config = runs[0].config
    whole, to_train = preview.epochs(runs), preview.epochs_to_train(roots)
    text = f"{len(runs)} run{'s' * (len(runs) != 1)}, {whole:g} epochs"
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
    for override in parsed:
        if override.is_sweep_override() and isinstance(
            value := override.value(), ChoiceSweep | RangeSweep
        ):
            value.shuffle = False  # the plan's order, and so the baseline, is as written
    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return arms.label(jobs)


def _choices(override: Override) -> int:
    """How many values an override sweeps over, without making them."""
    match override.value() if override.is_sweep_override() else None:
        case RangeSweep(start=start, stop=stop, step=step) if step and stop is not None:
            return max(0, math.ceil((float(stop) - float(start or 0)) / step))
        case ChoiceSweep(list=values):
            return len(values)
    return 1
