"""Rows of one run of a table that are those of several curves, or values, as of train and val."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import polars as pl

from harness.config.errors import ConfigError
from harness.reading.meaning import SPLITS, is_clock, is_named_result, no_setting, words
from harness.reading.recorded import clean, listed
from harness.reading.table_files import Table

_OVERLAP = 1.2  # the sum of the lengths of several curves, by that of their run, or more
_CROSSED = 3 / 4  # of a run's steps, at which a value of several columns is there, or more
_MOST_TOGETHER = 4  # columns
_NAMES = {"split", "subset", "part", "metric", "metrics", "measure", "key", "tag", "variable", "series", "set"}  # fmt: skip
_NO_PARTS = {"mode", "train", "training", "trained"}  # in names of settings, as bn_mode


def refuse_parts(
    table: Table, columns: Mapping[str, bool], run: Sequence[str], rows: pl.DataFrame, order: pl.Series | None
) -> None:  # fmt: skip
    """Raise `ConfigError` where one of the columns, or a few together, tell several curves of a run apart.

    `columns` has for each name whether it is text that varies within a run; `run` are the columns that name the run;
    `rows` has the run and the step of each row, taken from the table in this `order`.
    """
    back = (pl.col("run") == pl.col("run").shift()) & (pl.col("step") <= pl.col("step").shift())
    repeats = len(rows) - rows.n_unique() if rows.select(back.any()).item() else 0
    crossed: dict[str, pl.Series] = {}
    for name, is_text in columns.items():
        if not (repeats or is_text) or no_setting(name) or is_clock(name):
            continue
        values = table.values(name)
        if is_named_result(name) and values.dtype.is_numeric():
            continue
        own = rows.with_columns(value=values if order is None else values.gather(order))
        if repeats and _sets_apart(own, repeats):
            differ = "and step differ"
        elif is_text and _runs_beside(own, name):
            differ = "are of several curves"
        else:
            if repeats and not own["value"].null_count() and _is_crossed(own):
                crossed[name] = own["value"]
            continue
        parts = own["value"].drop_nulls().unique(maintain_order=True).cast(pl.String)
        _refuse(table, run, f"{differ} in {name} ({clean(listed(parts.to_list(), 4))})", [name])
    if together := _set_apart_together(rows, crossed):
        _refuse(table, run, f"and step differ in {' and '.join(together)}", together)


def refuse_pooled(
    settings: Sequence[Mapping[str, Any]], own: Sequence[str], skipped: Collection[str]
) -> None:
    """Raise `ConfigError` where a setting of final values tells rows of one run apart, as `split` or `metric` does.

    It has several values with one of each of `own`, factor and seeds. Its texts are splits, or it has such a name and
    most of its texts have the words of splits or metrics. `skipped` are other keys that may be so.
    """
    for key in dict.fromkeys(key for one in settings for key in one):
        texts = [*dict.fromkeys(one[key] for one in settings if isinstance(one.get(key), str))]
        if (
            key in skipped
            or key in own
            or len(texts) < 2
            or no_setting(key)
            or words(key) & _NO_PARTS
        ):
            continue
        found = [*filter(_is_part if words(key) & _NAMES else _is_split, texts)]
        if 2 * len(found) <= len(texts):
            continue
        places: dict[str, set[str]] = {}
        for one in settings:
            places.setdefault(str([one.get(name) for name in own]), set()).add(str(one.get(key)))
        if any(len(there) > 1 for there in places.values()):
            raise ConfigError(f"--where {key}=VALUE: say which rows are judged, as those of one run differ in {key}: {listed(texts)}")  # fmt: skip


def _refuse(table: Table, run: Sequence[str], differ: str, names: Collection[str]) -> None:
    raise ConfigError(f"{table.path}: rows of one run {differ}; --map run={','.join((*run, *names))} makes runs of them, of which --where {next(iter(names))}=VALUE takes a part")  # fmt: skip


def _set_apart_together(rows: pl.DataFrame, columns: Mapping[str, pl.Series]) -> list[str]:
    """Return the fewest of the crossed columns that together differ in each row of one run and step, if any do."""
    found: list[str] = []
    while len(found) < min(_MOST_TOGETHER, len(columns)):
        together = {
            name: rows.with_columns(value=_joined([columns[one] for one in (*found, name)]))
            for name in columns if name not in found
        }  # fmt: skip
        number = {name: own.n_unique() for name, own in together.items()}
        found.append(max(number, key=lambda name: number[name]))
        if number[found[-1]] == len(rows):
            return found if _is_crossed(together[found[-1]]) else []
    return []


def _joined(columns: Sequence[pl.Series]) -> pl.Series:
    return pl.DataFrame([own.alias(str(at)) for at, own in enumerate(columns)]).to_struct()


def _is_crossed(rows: pl.DataFrame) -> bool:
    """Return whether `value` has several values in most runs, each at most steps of its run, and not one after another.

    Metrics and flags are not so, nor is what changed where a run was resumed. Where each run has one step alone, the
    values must also be few.
    """
    of_run = rows.group_by("run").agg(
        places=pl.struct("step", "value").n_unique(), steps=pl.col("step").n_unique(), values=pl.col("value").n_unique()
    )  # fmt: skip
    several = pl.col("values") > 1
    if of_run["steps"].max() != 1:
        several &= pl.col("steps") > 1
    elif 2 * rows["value"].n_unique() > len(rows):
        return False
    own = of_run.filter(several)
    most = own.select(pl.col("places").sum() >= _CROSSED * (pl.col("steps") * pl.col("values")).sum())  # fmt: skip
    return 2 * len(own) >= len(of_run) and most.item() and not _are_attempts(rows)


def _sets_apart(rows: pl.DataFrame, repeats: int) -> bool:
    """Return whether `value` is another in each row of one run and step, which is there again in `repeats` rows.

    It has few values in a run, and these at the same steps (of a run that was resumed, most steps are there once), or
    all of a run's values are there at each of its steps.
    """
    if rows.n_unique() < len(rows):
        return False
    numeric = rows["value"].dtype.is_numeric()
    of_run = rows.group_by("run").agg(
        steps=pl.col("step").n_unique(), values=pl.col("value").n_unique(), rows=pl.len(),
        most=pl.col("value").unique_counts().max(),
    )  # fmt: skip
    several = (pl.col("steps") > 1) & (pl.col("values") > 1)
    if of_run.select(
        (several & (pl.col("steps") * pl.col("values") == pl.col("rows"))).all()
    ).item():
        return True
    if _are_attempts(rows):
        return False
    few = pl.lit(max(2, of_run["steps"].max() // 2)) if numeric else pl.col("rows") // 2  # type: ignore[operator]
    fewer = (of_run["rows"] - of_run["most"]).sum()
    return bool(of_run.select((pl.col("values") <= few).all()).item()) and 2 * repeats >= fewer


def _are_attempts(rows: pl.DataFrame) -> bool:
    """Return whether in each run the values follow each other, each from a later step on, as where runs were resumed."""
    value, is_first = pl.col("value"), (pl.col("run") != pl.col("run").shift()).fill_null(True)
    blocks = rows.filter(is_first | value.ne_missing(value.shift()))
    later = is_first | (pl.col("step") > pl.col("step").first().over("run"))
    each_once = blocks.select("run", "value").n_unique() == len(blocks)
    return each_once and bool(blocks.select(later.all()).item())


def _runs_beside(rows: pl.DataFrame, name: str) -> bool:
    """Return whether a column has the words of splits or metrics, each over a range of steps that overlaps others.

    Other words, and flags such as `is_best`, tell no curves apart.
    """
    values = rows["value"].drop_nulls().unique().cast(pl.String).to_list()
    if rows["value"].dtype == pl.Boolean:
        named = words(name) - {"is"} <= SPLITS
    else:
        named = bool(words(name) & _NAMES) or 2 * sum(map(_is_part, values)) > len(values)
    if not named:
        return False
    step = pl.col("step")
    of_value = (
        rows.drop_nulls("value")
        .group_by("run", "value")
        .agg(rows=pl.len(), length=step.max() - step.min())
    )
    of_run = of_value.group_by("run").agg(pl.col("rows", "length").sum(), values=pl.len())
    whole = rows.group_by("run").agg(whole=step.max() - step.min())
    joined = of_run.join(whole, "run", "right")
    few = 2 * pl.col("values") <= pl.col("rows")
    beside = pl.col("length") > _OVERLAP * pl.col("whole")
    return bool(joined.select((few & beside).fill_null(False).all()).item())


def _is_part(text: str) -> bool:
    return bool(words(text) & SPLITS) or is_named_result(text)


def _is_split(text: str) -> bool:
    return bool(found := words(text)) and found <= SPLITS
