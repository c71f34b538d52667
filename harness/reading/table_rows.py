"""Rows of a table of final values that are no runs of their own."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from harness.config.errors import ConfigError
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
