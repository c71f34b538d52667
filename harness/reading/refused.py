"""What a table holds that is no run, or no number: refused in one line, and not judged as if it were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.config.errors import ConfigError
from harness.config.fields import show
from harness.reading import meaning
from harness.reading.recorded import Recorded
from harness.reading.table_cells import READ_AS_TEXT


def refuse_text(metric: str | None, recorded: Recorded) -> None:
    """Raise `ConfigError` where the metric, or a column that may be it, was read as text."""
    text = {
        note.partition(READ_AS_TEXT)[0]: note for note in recorded.notes if READ_AS_TEXT in note
    }
    if metric is None:
        named = [name for name in text if meaning.is_named_result(name)]
    else:
        named = [meaning.find_key(metric, [*recorded.metrics, *text], "--metric")] if text else []
    for name in named:
        if name in text and name not in recorded.metrics:
            raise ConfigError(
                f"--metric {text[name]}; correct or empty them"
                + ", or name another metric" * (metric is None)
            )


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


def refuse_curves(
    settings: Sequence[Mapping[str, Any]], own: Sequence[str], skipped: set[str]
) -> None:
    """Raise `ConfigError` for a table of final values with several steps of one level and seed: the keys `own`."""
    for name in meaning.plural_steps([*dict.fromkeys(key for one in settings for key in one)]):
        places: dict[tuple[str, ...], set[str]] = {}
        for one in settings if name not in {*own, *skipped} else ():
            place = tuple(show(one.get(key)) for key in own)
            places.setdefault(place, set()).add(show(one.get(name)))
        if places and min(map(len, places.values())) > 1:
            raise ConfigError(
                f"{name}: has several values with one {' and '.join(own)}; if these are rows of one run, --map step={name} --map run={','.join(own)}; "
                f"if each row is a run that ended there, give {name!r} another name"
            )
