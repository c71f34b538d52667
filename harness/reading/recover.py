"""`Recorded`, and what was asked for → what is judged. What cannot be recovered is asked for, in a line each."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.analysis.pairing import level_key, natural_key
from harness.config.errors import ConfigError
from harness.config.fields import show
from harness.reading import meaning
from harness.reading.compared import Keys, apart, comparable, sort_keys, unbalanced
from harness.reading.recorded import (
    COMPLETE,
    COMPLETE_WORDS,
    FINAL_VALUES,
    Recorded,
    clean,
    is_unnamed,
    listed,
)
from harness.reading.refused import (
    refuse_curves,
    refuse_means,
    refuse_one_curve,
    refuse_rising,
    refuse_text,
    text_columns,
)
from harness.reading.table_cells import MISSING, READ_AS_EMPTY
from harness.reading.table_parts import refuse_pooled

_WHOLE = re.compile(r"-?[0-9]{1,18}")
_SUMMARIES = {"mean", "avg", "average", "median", "std", "sd", "stdev", "sem", "total", "sum", "all", "min", "max"}  # fmt: skip
_MOST_KEPT_APART = (
    1 / 4
)  # of the seeds that have runs of both arms: by settings, of which one may be a result
_STATES = ("status", "state")  # which --where knows beside settings


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
    swept: dict[str, str] = field(default_factory=dict)  # its level, and what sets its cell apart

    @property
    def ended(self) -> str:
        """How it ended, if it is not complete, as the end of a sentence."""
        return "" if self.status in (None, COMPLETE) else f", and it is {self.status}"


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
            run.name: why + run.ended for run, own in zip(self.runs, kept, strict=True) if not own
        }
        self.runs = [run for run, own in zip(self.runs, kept, strict=True) if own]

    def cell(self, run: Run) -> str:
        return ", ".join(f"{key}={own}" for key, own in run.swept.items() if key != self.factor)

    @property
    def settings(self) -> list[dict[str, Any]]:
        return [run.settings for run in self.runs]

    @property
    def levels(self) -> list[str]:
        return [run.level for run in self.runs]


def recover(recorded: Recorded, asked: Asked) -> Question:
    """Return what is compared. Raises `ConfigError` for what the source does not have, or must be said."""
    table = recorded.runs.select("run", "where", "status", "error", "settings")
    runs = [
        Run(row, name, where, status, error, json.loads(text))
        for row, (name, where, status, error, text) in enumerate(table.iter_rows())
    ]
    left_out = dict[str, str]()
    runs = _of_settings(runs, asked.where, left_out)
    keys = _keys(runs)
    seeds = meaning.seed_keys(asked.seed or asked.mapping.get("seed"), keys)
    known = [*seeds, meaning.find_key(asked.factor, keys, "--factor")] if asked.factor else seeds
    refuse_text(asked.metric, recorded, keys, known)
    metric = meaning.metric_column(asked.metric, recorded.metrics, keys, known)
    ignored = [meaning.find_key(key, keys, "--ignore") for key in asked.ignore]
    more = "".join(f"; {note}" for note in recorded.notes if READ_AS_EMPTY in note)
    if asked.metric is None and metric in keys and not meaning.is_measure(metric):
        more += f"; {metric} is judged: --metric takes another"
    factor, inferred = _factor(asked.factor, runs, {metric, *seeds, *ignored}, more)
    if recorded.kind.endswith(FINAL_VALUES):
        _refuse_rows(recorded, runs, metric, factor, seeds, ignored)
    found = Question(metric, factor, inferred, runs=runs, not_compared=left_out)
    _add_levels(found, asked)
    _add_seeds(found, seeds, asked.seed)
    own = [factor, metric, *(seeds or meaning.seed_candidates(_keys(found.runs)))]
    found.keys = _sorted_keys(found, own, ignored, recorded)
    for run, values in zip(found.runs, apart(found.settings, found.keys.cells), strict=True):
        run.swept = {factor: run.level, **values}
    pairs, cells = _pairs(found, within_cells=False), found.keys.cells
    _keep_comparable(found)
    found.keys = _sorted_keys(found, own, ignored, recorded)  # of the runs that are left
    _refuse_cells(found, seeds, asked.seed)
    if found.paired:
        _check_cells(found, pairs, cells)
    if found.paired and not _pairs(found):
        found.paired = False
        found.notes.append(f"no {' and '.join(seeds)} is in both of two arms of a cell: the runs are not paired")  # fmt: skip
    return found


def _refuse_rows(
    recorded: Recorded, runs: Sequence[Run], metric: str, factor: str, seeds: Sequence[str], ignored: Sequence[str]
) -> None:  # fmt: skip
    """Raise `ConfigError` for rows of a table of final values that are no runs."""
    settings, skipped = [run.settings for run in runs], {metric, *ignored}
    refuse_pooled(settings, [factor, *seeds], skipped)
    if not seeds:
        refuse_means(recorded, _keys(runs), metric, factor)
    unnamed = all(is_unnamed(run.name) for run in runs)
    if seeds and unnamed:
        refuse_curves(settings, [factor, *seeds], skipped)
    elif unnamed and not meaning.seed_candidates(_keys(runs)):
        refuse_one_curve(settings, factor, skipped)
    if unnamed or (seeds and len({_own_name(run) for run in runs}) < len(runs)):
        refuse_rising(settings, factor, seeds, skipped)


def _own_name(run: Run) -> str:
    """Return the name that a run has in its source, where others may have it too."""
    return re.sub(r" \(\d+\)$", "", run.name)


def _sorted_keys(
    found: Question, own: Sequence[str], ignored: Sequence[str], recorded: Recorded
) -> Keys:
    """Return what the settings are in which the runs differ, but for `own`: factor, metric and seeds."""
    seeds = [run.seed for run in found.runs]
    results = [*recorded.metrics, *text_columns(recorded)]
    keys = sort_keys(found.settings, found.levels, seeds, [*own, *ignored], results)
    keys.ignored = [key for key in keys.ignored if key not in own]
    return keys


def _keys(runs: Sequence[Run]) -> list[str]:
    return [*dict.fromkeys(key for run in runs for key in run.settings)]


def _of_settings(runs: list[Run], where: Mapping[str, str], left_out: dict[str, str]) -> list[Run]:
    """Return the runs whose settings have the values of `where`; add to `left_out` why others are not compared.

    Raises `ConfigError` if none has them.
    """
    for given, value in where.items():
        keys, states = _keys(runs), {run.status for run in runs}
        if given.lower() in _STATES and given not in keys:
            state = COMPLETE if value.lower() in COMPLETE_WORDS else value.lower()
            kept = [run for run in runs if run.status == state]
            found = f"its runs are {listed(sorted(map(str, states)))}" if states != {None} else "it has no states"  # fmt: skip
        else:
            known = keys if states == {None} else [*keys, _STATES[0]]
            key = meaning.find_key(given, known, "--where")
            levels = {_level(run, key) for run in runs if key in run.settings}
            level = _known_level(value, levels)
            kept = [run for run in runs if key in run.settings and _level(run, key) == level]
            found = f"there is {listed([*dict.fromkeys(show(run.settings[key]) for run in runs if key in run.settings)])}"
        if not kept:
            raise ConfigError(f"--where {given}={value}: no run of the source has it; {found}")
        names = {run.name for run in kept}
        for run in runs:
            if run.name not in names:
                left_out[run.name] = f"--where {given}={value}{run.ended}"
        runs = kept
    return runs


def _level(run: Run, key: str) -> object:
    return level_key(show(run.settings[key]))


def _known_level(given: str, levels: Collection[object]) -> object:
    """Return what a level that was given is compared by; Python's True and False are true and false."""
    key = level_key(clean(given))
    return given.lower() if key not in levels and given in ("True", "False") else key


def _factor(
    given: str | None, runs: Sequence[Run], others: set[str], more: str
) -> tuple[str, bool]:
    """Return the key of the factor, and whether it was inferred: where no other setting could be it.

    `more` ends the error where no setting differs.
    """
    keys = _keys(runs)
    if given:
        return meaning.find_key(given, keys, "--factor"), False
    candidates: dict[str, list[str]] = {}
    for key in keys:
        own = {_level(run, key): show(run.settings[key]) for run in runs if key in run.settings}
        if len(own) > 1 and key not in others and meaning.may_be_factor(key):
            candidates[key] = [*own.values()]
    candidates = {key: own for key, own in candidates.items() if len(own) < len(runs)} or candidates
    if len(candidates) == 1 and len(*candidates.values()) <= max(2, len(runs) // 2):
        return next(iter(candidates)), True
    texts = [
        f"{key} ({listed(sorted(own, key=natural_key), 4)})" for key, own in candidates.items()
    ]
    if not texts:
        lacking = [key for key in keys if not all(key in run.settings for run in runs)]
        if lacking:
            more = f"; some runs have no {listed(lacking)}: fill in the cells of a level{more}"
        raise ConfigError(
            f"--factor: no setting differs between the runs; found: {listed(keys) or 'none'} (the names of folders are "
            f"settings where they are KEY=VALUE){more}"
        )
    raise ConfigError(f"--factor: say which setting is compared; these differ: {listed(texts)}")


def _add_levels(found: Question, asked: Asked) -> None:
    """Give each run its level; runs without the factor, and of levels that were not asked for, are not compared."""
    has = [found.factor in run.settings for run in found.runs]
    found.drop(has, f"has no {found.factor}")
    texts: dict[object, str] = {}
    for run in found.runs:
        run.level = texts.setdefault(_level(run, found.factor), show(run.settings[found.factor]))
    levels = sorted(texts.values(), key=natural_key)
    if asked.baseline is None:
        raise ConfigError(
            f"--baseline: say which {found.factor} the others are compared with: {listed(levels)}"
        )

    def known(option: str, given: str) -> str:
        key = _known_level(given, texts)
        if key not in texts:
            word = "; a cell with this word is read as empty: write another" * (
                given.lower() in MISSING
            )
            raise ConfigError(f"{option} {clean(given)}: {found.factor} has the levels {listed(levels)}{word}")  # fmt: skip
        return texts[key]

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
    found.notes += [
        f"{found.factor}: levels that look alike are different ones: {listed(own)}"
        for own in _alike(levels)
    ]
    if not found.treatments:
        raise ConfigError(
            f"{found.factor}: every run that has it ({sum(has)} of {len(has)}) has {found.baseline}; there is nothing to compare"
        )


def _alike(levels: Sequence[str]) -> list[list[str]]:
    """Return the levels that look like others, together with these: case, blanks, forms and what is unseen do not count."""
    found: dict[str, list[str]] = {}
    for level in levels:
        seen = [one for one in unicodedata.normalize("NFKC", level) if unicodedata.category(one) != "Cf"]  # fmt: skip
        found.setdefault("".join("".join(seen).casefold().split()), []).append(level)
    return [own for own in found.values() if len(own) > 1]


def _add_seeds(found: Question, keys: Sequence[str], given: str | None) -> None:
    """Give each run its seed, the values of `keys` together; without any the runs are not paired."""
    texts = [
        ", ".join(show(run.settings[key]) for key in keys) if _has(run, keys) else None
        for run in found.runs
    ]
    known = [text for text in texts if text is not None]
    for run, text in zip(found.runs, texts, strict=True):
        if text and text.lower() in _SUMMARIES:
            raise ConfigError(f"{run.name} has the seed {text}, and is no run; leave its row out")
    if not keys or not known:
        found.paired = False
        found.notes.append("the runs are not paired" + ": no seed is known" * (given is None))
        return
    if len(known) < len(texts):
        first = found.runs[texts.index(None)].name
        raise ConfigError(
            f"--seed {','.join(keys)}: {len(texts) - len(known)} of {len(texts)} runs have none, as {first}; "
            "--seed none compares all runs without pairs, --treatment LEVEL or --where KEY=VALUE takes a part; delete rows that are no runs, as means"
        )
    seeds: Mapping[str, int] = {text: int(text) for text in known if _WHOLE.fullmatch(text)}
    if len(seeds) < len({*known}):
        seeds = {text: at for at, text in enumerate(sorted({*known}, key=natural_key))}
        numbered = listed([f"{seed} is {text}" for text, seed in seeds.items()], 6)
        found.notes.append(f"{' and '.join(keys)} is no whole number everywhere; seeds are numbered: {numbered}")  # fmt: skip
    for run, text in zip(found.runs, known, strict=True):
        run.seed = seeds[text]


def _has(run: Run, keys: Sequence[str]) -> bool:
    """Return whether a run has all of the `keys`; NaN is no value."""
    return all(show(run.settings.get(key)).lower() not in ("null", "nan") for key in keys)


def _keep_comparable(found: Question) -> None:
    """Compare the runs of cells that have the baseline and a treatment."""
    cells = [found.cell(run) for run in found.runs]
    both = comparable(cells, found.levels, found.baseline, found.keys.cells)
    found.drop(
        [cell in both for cell in cells],
        "no run of the baseline and of another level share its other settings",
    )


def _pairs(found: Question, within_cells: bool = True) -> set[tuple[str, int | None]]:
    """Return the level and the seed of runs for which there is one of the baseline with that seed, in their cell."""

    def place(run: Run) -> tuple[str, int | None]:
        return found.cell(run) if within_cells else "", run.seed

    base = {place(run) for run in found.runs if run.level == found.baseline}
    return {
        (run.level, run.seed)
        for run in found.runs
        if run.level != found.baseline and place(run) in base
    }


def _refuse_cells(found: Question, seeds: Sequence[str], given: str | None) -> None:
    """Raise `ConfigError` for cells by a fold beside the seed, and by yes or no in other shares of unpaired runs."""
    folds = [key for key in found.keys.cells if meaning.is_repeat(key)]
    if found.paired and folds and given is None:
        raise ConfigError(f"{folds[0]}: runs differ in it beside {listed(seeds)}; --seed {','.join([*seeds, folds[0]])} makes pairs by both, --seed {','.join(seeds)} a comparison for each {folds[0]}")  # fmt: skip
    if found.paired:
        return
    cells, factor = found.keys.cells, found.factor
    if key := unbalanced(found.settings, found.levels, cells, found.baseline):
        raise ConfigError(f"{key}: is more often so with some {factor} than with others, as a result is; --ignore {key} compares all runs, --where {key}=VALUE those of a setting")  # fmt: skip


def _check_cells(
    found: Question, all_pairs: set[tuple[str, int | None]], cells: Sequence[str]
) -> None:
    """Add a note on pairs of which the keys `cells` keep the two runs apart.

    Raises `ConfigError` for more than a quarter of those of a level, if others stay: one of the keys may be a result,
    which would choose pairs by their outcome; and where no pair is left.
    """
    kept = _pairs(found)
    both = Counter(level for level, _ in all_pairs)
    left = Counter(level for level, _ in kept)
    for level in found.treatments:
        lost = both[level] - left[level]
        if not lost or (kept and not left[level]):  # a level of other cells is not compared
            continue
        of = f"{lost} of {both[level]} pairs of {level} and {found.baseline} do not agree in all other settings: {listed(cells)} differ"
        if lost > _MOST_KEPT_APART * both[level]:
            raise ConfigError(
                f"{of}; --ignore KEY compares runs that differ in it, as in a result; --where KEY=VALUE takes a part, --seed none compares without pairs"
            )
        found.notes.append(of)
