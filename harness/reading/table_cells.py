"""Cells of a table that are text → numbers, booleans, or text."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from harness.config.errors import ConfigError
from harness.reading.meaning import is_measure
from harness.reading.recorded import clean

READ_AS_TEXT = ": is read as text"  # in the note on a column
IN_EACH_RUN = ", in each run"  # in the note on steps that were times
READ_AS_EMPTY = " are read as empty"
MISSING = ("na", "n/a", "none", "null", "-", "–", "—")
_TIMES = 0.9  # of the rows that have a value of their own, or more
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_WITH_MORE = rf"^(?:tensor|array)?[\[(<>~≈]*\s*{_NUMBER}"  # as in tensor(76.1)
_PERCENT = rf"^{_NUMBER}\s*%$"
_COMMA = r"^[+-]?\d+(,\d+|([.'\u00a0\u202f ]\d{3})+(,\d+)?)(,\d{3})*(\.\d+)?([eE][+-]?\d+)?\s*%?$"
_SPREAD = rf"^{_NUMBER}\s*%?\s*((±|\+/-|\+-|\$?\\pm\$?|\(\s*±)\s*{_NUMBER}|\(\s*(\d+\.?\d*|\.\d+))\s*%?\s*\)?$"


def typed(path: Path, name: str, cells: pl.Series, notes: list[str]) -> pl.Series:
    """Return text cells as Int64 (Int128 where that is too small), Float64, Boolean, or as text; empty ones are null.

    Numbers are correctly rounded. Raises `ConfigError` for a mean with its deviation, and for numbers with
    thousands separators or decimal commas.
    """
    text = _null_if_empty(cells)
    numbers = text.cast(pl.Float64, strict=False)
    other = text.filter(numbers.is_null() & text.is_not_null())
    if text.null_count() == len(text):
        return text
    if other.is_empty():
        whole = _whole(text)
        return numbers if whole is None else whole
    words = other.str.to_lowercase().unique()
    if len(other) == len(text.drop_nulls()) and words.is_in(["true", "false"]).all():
        return text.str.to_lowercase() == "true"
    odd = words.filter(~words.is_in(MISSING)).sort()
    _refuse(f"{path}: the column {name!r} has the cell", odd)
    some = numbers.null_count() < len(numbers)
    if not odd.is_empty() and odd.str.contains(_PERCENT).all():
        if some:
            raise ConfigError(f"{path}: the column {name!r} has numbers with and without %; write all of them alike")  # fmt: skip
        first = other[0]
        notes.append(f"{name}: is in % ({clean(first)} is read as {clean(first).rstrip(' %')})")
        numbers = text.str.strip_suffix("%").str.strip_chars().cast(pl.Float64, strict=False)
    elif not some and not _is_unread_measure(name, other):
        return text
    elif not odd.is_empty():
        row = (text.str.to_lowercase() == odd[0]).arg_max()
        notes.append(f"{name}{READ_AS_TEXT}, since cells such as {clean(odd[0])!r} (row {(row or 0) + 1}) are no numbers")  # fmt: skip
        return text
    if len(odd) < len(words):
        notes.append(f"{name}: cells such as {words.filter(words.is_in(MISSING))[0]!r}{READ_AS_EMPTY}")  # fmt: skip
    return numbers


def _is_unread_measure(name: str, cells: pl.Series) -> bool:
    """Return whether a column whose cells are all text is an accuracy, a loss or the like, as with `76.1 pp`."""
    different = 4 * cells.n_unique() > len(cells)
    return different and is_measure(name) and bool(cells.str.contains(_WITH_MORE).all())


def _null_if_empty(cells: pl.Series) -> pl.Series:
    text = cells.str.strip_chars()
    return text.to_frame("text").select(pl.when(pl.col("text") != "").then("text")).to_series()


def _whole(text: pl.Series) -> pl.Series | None:
    if not text.str.contains(r"^[+-]?\d+$").all():
        return None
    for dtype in (pl.Int64, pl.Int128):
        whole = text.cast(dtype, strict=False)
        if whole.null_count() == text.null_count():
            return whole
    return text  # as exact as it was


def _refuse(where: str, odd: pl.Series) -> None:
    spread = odd.filter(odd.str.contains(_SPREAD))
    if not spread.is_empty():
        raise ConfigError(f"{where} {clean(spread[0])!r}: a mean and its deviation are not runs; give a row a run")  # fmt: skip
    if not odd.is_empty() and odd.str.contains(_COMMA).all():
        raise ConfigError(
            f"{where} {clean(odd[0])!r}: thousands separators and decimal commas are not read; write 1234.5, and a list as [1,2]"
        )


def steps(path: Path, name: str, values: pl.Series, notes: list[str], run: pl.Series | None = None) -> pl.Series:  # fmt: skip
    """Return a column as Int64 steps; one with fractions as the rank of each of its values, from 1.

    Where hardly any value is that of two rows, as of times, ranks are those in its `run`. Raises `ConfigError` if a cell
    is no finite number.
    """
    whole = values.dtype.is_integer()
    numbers = values if whole else values.cast(pl.Float64, strict=False)
    bad = (numbers.is_null() if whole else ~numbers.is_finite().fill_null(False)).arg_true()
    if len(bad):
        raise ConfigError(
            f"{path}: row {bad[0] + 1} has no number in the column {name!r}, which is the step; fill it in, delete the row, or take another by --map step=COLUMN"
        )
    if whole or (numbers == numbers.round()).all():
        found = numbers.cast(pl.Int64, strict=False)
        if found.null_count():
            raise ConfigError(f"{path}: {name!r} has a step above 2^63; take another by --map step=COLUMN")  # fmt: skip
        return found
    own = run is not None and are_times(numbers.n_unique(), len(numbers))
    notes.append(
        f"{name}: has fractions, so its different values are numbered as steps{IN_EACH_RUN * own}"
    )
    rows = pl.DataFrame({"step": numbers, "run": run if own else 0})
    return rows.select(pl.col("step").rank("dense").over("run").cast(pl.Int64))["step"]


def are_times(values: int, rows: int) -> bool:
    """Return whether so many different values of so many rows are times, which no two runs share."""
    return values > _TIMES * rows


def steps_of_epochs(name: str, rows: pl.DataFrame, epoch: pl.Series, notes: list[str]) -> pl.Series:
    """Return the steps `name` of `rows` (run, step), going on from epoch to epoch where they begin again in each.

    They do where in most runs of several epochs the first step of each epoch is below the last one of the epoch before,
    or both epochs have one and the same step, as where rows of validation count its batches.
    """
    step, whole = pl.col("step"), epoch.cast(pl.Int64, strict=False)
    same = pl.col("run") == pl.col("run").shift()
    back = same & (step <= step.shift())
    if not rows.select(back.any()).item() or whole.null_count() or (whole != epoch).any():
        return rows["step"]
    placed = rows.with_columns(epoch=whole, place=pl.lit(whole) * (step.max() + 1) + step)
    of_epoch = placed.group_by("run", "epoch").agg(low=step.min(), high=step.max())
    low, high = pl.col("low"), pl.col("high")
    again = (low < high.shift()) | (high == low.shift())
    changes = of_epoch.sort("run", "epoch").with_columns(again=again).filter(same)
    of_run = changes.group_by("run").agg(pl.col("again").all())
    if 2 * of_run["again"].sum() <= len(of_run):
        return rows["step"]
    notes.append(f"{name}: begins again in each epoch, so steps are numbered over all epochs")
    return placed["place"]
