"""Rows of a table of final values that are no runs of their own, or lack what stands in one above."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import polars as pl

from harness.config.errors import ConfigError
from harness.reading.meaning import is_named_result, no_setting, seed_candidates
from harness.reading.recorded import clean, counted, listed, listed_runs
from harness.reading.table_files import Table
from harness.reading.table_states import last_part

_ID = ("id", "run_id")


def without_repeats(table: Table, exported: bool) -> Table:
    """Return the table without rows that are equal in all cells to an earlier one with their ID of a run.

    The IDs are those of W&B's export (`exported`), else in a column `run_id` or `id` that has each once then. Raises
    `ConfigError` for several rows of W&B's with one ID that differ.
    """
    for name in table.names:
        if not (name.lower() == "id" if exported else last_part(name) in _ID):
            continue
        ids = table.text(name).replace("", None)
        if ids.drop_nulls().is_unique().all():
            continue
        cells = pl.DataFrame([table.text(one).alias(one) for one in table.names])
        first = cells.to_struct().is_first_distinct() | ids.is_null()
        left = ids.filter(first).drop_nulls()
        again = left.filter(left.is_duplicated())
        if again.is_empty():
            return _only(table, first, name, ids)
        if exported:
            same = ids == again[0]
            rows = listed([str(row + 1) for row in same.arg_true()], 4)
            differ = listed([one.name for one in cells.filter(same) if one.n_unique() > 1], 4)
            raise ConfigError(f"{table.path}: rows {rows} have the {name} {clean(again[0])} and differ in {differ}; keep one row a run")  # fmt: skip
    return table


def _only(table: Table, first: pl.Series, name: str, ids: pl.Series) -> Table:
    named = listed_runs([clean(one) for one in ids.filter(~first).unique(maintain_order=True)])
    table.notes.append(f"{counted(int((~first).sum()), 'row')} with the {name} and all cells of an earlier one left out: {named}")  # fmt: skip
    return replace(
        table, rows=int(first.sum()), load=lambda column: table.load(column).filter(first)
    )


def refuse_merged(path: Path, settings: Mapping[str, pl.Series]) -> None:
    """Raise `ConfigError` for a column with a value in the first row of each block alone, as of merged cells.

    It is none where another column says which rows have a value, as those of one kind of scheduler have a `t_mult`.
    """
    others = {
        name: values
        for name, values in settings.items()
        if not (is_named_result(name) or seed_candidates([name]))
    }
    for name, values in settings.items():
        if is_named_result(name) or no_setting(name) or not _is_merged(values):
            continue
        if not any(_decides(other, values) for key, other in others.items() if key != name):
            rows = listed([str(row + 1) for row in values.is_not_null().arg_true()], 4)
            raise ConfigError(f"{path}: the column {name!r} has values in the first rows of blocks alone (rows {rows}), as where cells were merged; fill in the cells below them, or --ignore {name}")  # fmt: skip


def _is_merged(values: pl.Series) -> bool:
    """Return whether blocks of rows begin with a value, each another than the last, and are empty below.

    Blocks of numbers have one length, those of text have about one: settings that are seldom given are not so regular.
    """
    filled = values.is_not_null().arg_true().to_list()
    if len(filled) < 2 or filled[0] > 0:
        return False
    lengths = [end - start for start, end in pairwise([*filled, len(values)])]
    most = (1 if values.dtype.is_numeric() else 2) * min(lengths)
    own = values.drop_nulls()
    return min(lengths) > 1 and max(lengths) <= most and not (own == own.shift()).any()


def _decides(other: pl.Series, values: pl.Series) -> bool:
    """Return whether a column has other values in the rows with a value than in those without, and few of them."""
    there, below = other.filter(values.is_not_null()), other.filter(values.is_null())
    apart = not below.has_nulls() and not there.is_in(below.implode()).any()
    return apart and there.n_unique() < len(there)
