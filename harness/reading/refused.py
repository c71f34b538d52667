"""What a table holds that is no run, or no number: refused in one line, and not judged as if it were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from harness.config.errors import ConfigError
from harness.config.fields import show
from harness.reading import meaning
from harness.reading.recorded import Recorded
from harness.reading.table_cells import READ_AS_TEXT

_ALIKE = 1.25  # times as much, or less, are values of which some are fractions and some percent
_FEWEST_ROWS = 5  # of a level, in which steps that rise may be those of a curve


def text_columns(recorded: Recorded) -> dict[str, str]:
    """Return the columns that hold numbers and text, with what the source's notes say of them."""
    return {
        note.partition(READ_AS_TEXT)[0]: note for note in recorded.notes if READ_AS_TEXT in note
    }


def refuse_text(
    metric: str | None, recorded: Recorded, keys: Sequence[str], others: Sequence[str]
) -> None:
    """Raise `ConfigError` where the metric was read as text; without one, where it may be such a column."""
    text = text_columns(recorded)
    if not text or (metric in keys and metric not in text):
        return
    if metric is None:
        found = meaning.only_metric([*recorded.metrics, *filter(_may_be_judged, text)], others)
    else:
        found = meaning.find_key(metric, [*recorded.metrics, *text], "--metric")
    if found in text and found not in recorded.metrics:
        other = ", or name another metric" * (metric is None)
        raise ConfigError(f"--metric {text[found]}; correct or empty them{other}")


def _may_be_judged(name: str) -> bool:
    return meaning.is_measure(name) and (meaning.is_accuracy(name) or meaning.is_held_out(name))


def refuse_means(recorded: Recorded, keys: Sequence[str], metric: str, factor: str) -> None:
    """Raise `ConfigError` for a table of final values that has no seed, and a column of what only means have."""
    if any(map(meaning.is_seed, keys)):  # which --seed none may have left out
        return
    for name in keys:
        column = recorded.curves[name].drop_nulls().to_list() if name in recorded.metrics else []
        counts = meaning.counts_runs(name) and min(column, default=0) > 1
        if name not in (metric, factor) and (
            counts or meaning.is_deviation(name, metric, len({*column}) > 1)
        ):
            raise ConfigError(f"--metric {metric}: the column {name!r} says that each row is a mean of several runs, and a verdict needs each run; give a row a run, or rename {name!r} if a row is one")  # fmt: skip


def refuse_mixed_units(metric: str, levels: Mapping[str, Sequence[float]]) -> None:
    """Raise `ConfigError` for last values by level that are fractions in one level and the like of it in % in another."""
    if not meaning.is_share(metric):
        return
    percent = {level: median(values) for level, values in levels.items() if min(values) > 1}
    for level, values in levels.items():
        if max(values) > 1 or min(values) <= 0:
            continue
        low, high = 100 * max(values) / _ALIKE, 100 * min(values) * _ALIKE
        other = next((one for one, usual in percent.items() if low < usual < high), None)
        if other is not None:
            raise ConfigError(f"--metric {metric}: ends at {values[0]:g} with {level}, and at {levels[other][0]:g} with {other}: fractions and percent; write all of them alike, or rename the column if it is no share")  # fmt: skip


def refuse_curves(
    settings: Sequence[Mapping[str, Any]], own: Sequence[str], skipped: set[str]
) -> None:
    """Raise `ConfigError` for final values of runs without a name, with several steps of one level and seed.

    `own` are the keys of these, `skipped` those that are no settings.
    """
    keys = [*dict.fromkeys(key for one in settings for key in one)]
    own = [
        *own,
        *(key for key in keys if key not in {*own, *skipped} and _is_text_setting(settings, key)),
    ]
    for name in meaning.may_be_steps([key for key in keys if key not in {*own, *skipped}]):
        steps = _by_place(settings, own, name)
        if min(len({*map(show, values)}) for values in steps) > 1:
            raise ConfigError(
                f"{name}: has several values with one {' and '.join(own)}; if these are rows of one run, --map step={name} --map run={','.join(own)}; "
                f"if each row is a run that ended there, rename {name!r} to budget"
            )


def refuse_rising(
    settings: Sequence[Mapping[str, Any]], factor: str, seeds: Sequence[str], skipped: set[str]
) -> None:
    """Raise `ConfigError` for final values in which a number rises from row to row, as the steps of curves do.

    In rows of one level and seed; without `seeds`, of one level, or one level and value of another setting. It may begin
    again at its first value.
    """
    keys = [*dict.fromkeys(key for one in settings for key in one)]
    others = [key for key in keys if key not in {factor, *seeds, *skipped}]
    for name in filter(meaning.may_rise, others):
        if len({show(one.get(name)) for one in settings}) < _FEWEST_ROWS:
            continue
        runs = [[*seeds]] if seeds else [*([key] for key in others if key != name), []]
        for run in runs:
            blocks = [_blocks(values) for values in _by_place(settings, [factor, *run], name)]
            if (run or max(map(len, blocks)) > 1) and _are_curves(blocks):
                raise ConfigError(
                    f"{name}: rises from row to row, as the steps of runs do; if it counts them, --map step={name} "
                    f"--map run={','.join([factor, *run] if run else ['COLUMN'])}, with all columns that name a run; if each row is a run, rename {name!r} to budget"
                )


def refuse_one_curve(settings: Sequence[Mapping[str, Any]], factor: str, skipped: set[str]) -> None:
    """Raise `ConfigError` for final values without seeds whose steps rise from row to row of each level, as in a curve."""
    keys = [*dict.fromkeys(key for one in settings for key in one)]
    for name in meaning.may_be_steps([key for key in keys if key not in {factor, *skipped}]):
        steps = _by_place(settings, [factor], name)
        if all(len(values) >= _FEWEST_ROWS and _rise(values) for values in steps):
            raise ConfigError(f"{name}: rises from row to row of each {factor}; if these are rows of one run, a level has one run, which is too few; if each row is a run, --ignore {name}, or --seed {name} where it numbers them")  # fmt: skip


def _by_place(
    settings: Sequence[Mapping[str, Any]], keys: Sequence[str], name: str
) -> list[list[Any]]:
    """Return the values of `name` by those of `keys`."""
    places: dict[tuple[str, ...], list[Any]] = {}
    for one in settings:
        places.setdefault(tuple(show(one.get(key)) for key in keys), []).append(one.get(name))
    return [*places.values()]


def _blocks(values: Sequence[Any]) -> list[Sequence[Any]]:
    """Return the values in parts that end where the first value is there again."""
    begins = [at for at, one in enumerate(values) if one == values[0]]
    return [values[at:end] for at, end in pairwise([*begins, len(values)])]


def _are_curves(blocks: Sequence[Sequence[Sequence[Any]]]) -> bool:
    """Return whether all blocks rise, and half are long enough to be curves."""
    every = [block for own in blocks for block in own]
    long = sum(len(block) >= _FEWEST_ROWS for block in every)
    return 2 * long >= len(every) and all(map(_rise, every))


def _rise(values: Sequence[Any]) -> bool:
    numbers = all(isinstance(one, int | float) for one in values)
    return numbers and all(one < other for one, other in pairwise(values))


def _is_text_setting(settings: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Return whether a key is text that sets runs apart, but not each."""
    values = [one.get(key) for one in settings]
    several = 1 < len({*map(show, values)}) <= len(values) // 2
    return several and not meaning.no_setting(key) and any(isinstance(one, str) for one in values)
