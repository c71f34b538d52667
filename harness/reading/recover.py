"""`Recorded`, and what was asked for → what is judged. What cannot be recovered is asked for, in a line each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.analysis import arms
from harness.analysis.pairing import level_key, natural_key
from harness.config.errors import ConfigError
from harness.config.fields import show
from harness.reading import meaning
from harness.reading.compared import Keys, apart, comparable, sort_keys
from harness.reading.meaning import listed
from harness.reading.recorded import Recorded

_STATUS = "status"  # which --where knows beside settings


@dataclass(frozen=True)
class Asked:
    """What the command line says; what is None is recovered from the source, or asked for."""

    factor: str | None = None
    baseline: str | None = None
    treatments: tuple[str, ...] = ()
    metric: str | None = None
    better: str | None = None
    margin: float | None = None
    level: float = 0.05
    seed: str | None = None  # a key, or none
    ignore: tuple[str, ...] = ()
    where: Mapping[str, str] = field(default_factory=dict)  # the values of settings, or of `status`
    mapping: Mapping[str, str] = field(default_factory=dict)  # seed, lr, epoch: columns


@dataclass
class Run:
    """A run that is compared: its row in the source, what it is called and set to, and its place in the comparison."""

    row: int
    name: str
    where: str
    status: str | None
    error: str | None
    settings: dict[str, Any]
    level: str = ""
    seed: int | None = None
    swept: dict[str, str] = field(
        default_factory=dict
    )  # the factor's level, and what sets its cell apart


@dataclass
class Question:
    """What is compared: the factor, its baseline and treatments, the runs, and what else differs between these.

    `inferred`: the factor is the one setting that could be. `not_compared` has why other runs of the source are
    not, by name; `notes` are lines that a reader must know.
    """

    metric: str
    factor: str
    inferred: bool
    baseline: str = ""
    treatments: tuple[str, ...] = ()
    paired: bool = True
    runs: list[Run] = field(default_factory=list)
    keys: Keys = field(default_factory=Keys)
    not_compared: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def drop(self, kept: Sequence[bool], why: str) -> None:
        """Compare only the runs that are `kept`."""
        self.not_compared |= {
            run.name: why for run, own in zip(self.runs, kept, strict=True) if not own
        }
        self.runs = [run for run, own in zip(self.runs, kept, strict=True) if own]

    def cell(self, run: Run) -> str:
        return arms.cell(run.swept, self.factor)

    @property
    def settings(self) -> list[dict[str, Any]]:
        return [run.settings for run in self.runs]

    @property
    def levels(self) -> list[str]:
        return [run.level for run in self.runs]


def recover(recorded: Recorded, asked: Asked) -> Question:
    """Return what is compared. Raises `ConfigError` for what the source does not have, or must be said."""
    metric = meaning.metric_column(asked.metric, recorded.metrics)
    table = recorded.runs.select("run", "where", "status", "error", "settings")
    runs = [
        Run(row, name, where, status, error, json.loads(text))
        for row, (name, where, status, error, text) in enumerate(table.iter_rows())
    ]
    runs = _of_settings(runs, asked.where)
    seed = meaning.seed_key(asked.seed or asked.mapping.get("seed"), _keys(runs))
    factor, inferred = _factor(asked.factor, runs, {metric, seed, *asked.ignore})
    found = Question(metric, factor, inferred, runs=runs)
    _add_levels(found, asked)
    _add_seeds(found, seed, asked.seed)
    ignored = [meaning.find_key(key, _keys(found.runs), "--ignore") for key in asked.ignore]
    makes_no_cell = (
        [key for key in _keys(found.runs) if meaning.is_seed(key)] if seed is None else [seed]
    )
    skipped = [factor, metric, *makes_no_cell, *ignored]
    found.keys = sort_keys(
        found.settings, found.levels, [run.seed for run in found.runs], skipped, {*recorded.metrics}
    )
    found.keys.ignored = [
        key for key in found.keys.ignored if key not in (factor, metric, *makes_no_cell)
    ]
    for run, own in zip(found.runs, apart(found.settings, found.keys.cells), strict=True):
        run.swept = {factor: run.level, **own}
    _keep_comparable(found)
    if found.paired and not _has_pairs(found):
        found.paired = False
        found.notes.append(f"no {seed} is in both of two arms of a cell: the runs are not paired")
    return found


def _keys(runs: Sequence[Run]) -> list[str]:
    return [*dict.fromkeys(key for run in runs for key in run.settings)]


def _of_settings(runs: list[Run], where: Mapping[str, str]) -> list[Run]:
    """Return the runs whose settings have the values of `where`. Raises `ConfigError` if none has."""
    for given, value in where.items():
        if given == _STATUS:
            kept = [run for run in runs if run.status == value]
        else:
            key = meaning.find_key(given, _keys(runs), "--where")
            wanted = level_key(value)
            kept = [run for run in runs if key in run.settings and _level(run, key) == wanted]
        if not kept:
            raise ConfigError(f"--where {given}={value}: no run of the source has it")
        runs = kept
    return runs


def _level(run: Run, key: str) -> object:
    return level_key(show(run.settings[key]))


def _factor(given: str | None, runs: Sequence[Run], others: set[str | None]) -> tuple[str, bool]:
    """Return the key of the factor, and whether it was inferred: where no other setting could be it."""
    keys = _keys(runs)
    if given:
        return meaning.find_key(given, keys, "--factor"), False
    levels = {
        key: {_level(run, key): show(run.settings[key]) for run in runs if key in run.settings}
        for key in keys
    }
    candidates = {
        key: [*own.values()]
        for key, own in levels.items()
        if 1 < len(own) <= max(2, len(runs) // 2)
        and key not in others
        and not meaning.no_setting(key)
    }
    if len(candidates) == 1:
        return next(iter(candidates)), True
    texts = [
        f"{key} ({listed(sorted(own, key=natural_key), 4)})" for key, own in candidates.items()
    ]
    if not texts:
        raise ConfigError(
            f"--factor: no setting differs between the runs; found: {listed(keys) or 'none'}"
        )
    raise ConfigError(f"--factor: say which setting is compared; these differ: {listed(texts)}")


def _add_levels(found: Question, asked: Asked) -> None:
    """Give each run its level; runs without the factor, and of levels that were not asked for, are not compared."""
    found.drop([found.factor in run.settings for run in found.runs], f"has no {found.factor}")
    texts: dict[object, str] = {}
    for run in found.runs:
        run.level = texts.setdefault(_level(run, found.factor), show(run.settings[found.factor]))
    levels = sorted(texts.values(), key=natural_key)
    if asked.baseline is None:
        raise ConfigError(
            f"--baseline: say which {found.factor} the others are compared with: {listed(levels)}"
        )

    def known(option: str, given: str) -> str:
        if level_key(given) not in texts:
            raise ConfigError(f"{option} {given}: {found.factor} has the levels {listed(levels)}")
        return texts[level_key(given)]

    found.baseline = known("--baseline", asked.baseline)
    found.treatments = tuple(known("--treatment", one) for one in asked.treatments)
    if found.treatments:
        wanted = {found.baseline, *found.treatments}
        found.drop(
            [run.level in wanted for run in found.runs], "is of a level that was not asked for"
        )
    found.treatments = found.treatments or tuple(one for one in levels if one != found.baseline)
    if found.baseline in found.treatments:
        raise ConfigError(
            f"--treatment {found.baseline}: is the baseline; choose from {listed(levels)}"
        )
    if not found.treatments:
        raise ConfigError(
            f"{found.factor}: every run that has it has {found.baseline}; there is nothing to compare"
        )


def _add_seeds(found: Question, key: str | None, given: str | None) -> None:
    """Give each run its seed; without a `key` the runs are not paired."""
    lacking = [run for run in found.runs if key is None or run.settings.get(key) is None]
    if len(lacking) == len(found.runs):
        found.paired = False
        found.notes.append("the runs are not paired" + ": no seed is known" * (given is None))
        return
    if lacking:
        raise ConfigError(
            f"--seed {key}: {len(lacking)} of {len(found.runs)} runs have none, as {lacking[0].name}; "
            "--seed none compares all runs without pairs, --where takes a part of them"
        )
    texts = [show(run.settings[key or ""]) for run in found.runs]
    whole = [
        int(text) if text.lstrip("-").isdecimal() and len(text) < 19 else None for text in texts
    ]
    if None in whole:
        numbers = {text: number for number, text in enumerate(sorted({*texts}, key=natural_key))}
        found.notes.append(
            f"{key} is no whole number everywhere; seeds are numbered: {listed([f'{n} is {t}' for t, n in numbers.items()], 6)}"
        )
        whole = [numbers[text] for text in texts]
    for run, seed in zip(found.runs, whole, strict=True):
        run.seed = seed


def _keep_comparable(found: Question) -> None:
    """Compare the runs of cells that have the baseline and a treatment."""
    cells = [found.cell(run) for run in found.runs]
    both = comparable(cells, found.levels, found.baseline, found.keys.cells)
    found.drop(
        [cell in both for cell in cells],
        "no run of the baseline and of another level share its other settings",
    )


def _has_pairs(found: Question) -> bool:
    base = {(found.cell(run), run.seed) for run in found.runs if run.level == found.baseline}
    return any(
        (found.cell(run), run.seed) in base for run in found.runs if run.level != found.baseline
    )
