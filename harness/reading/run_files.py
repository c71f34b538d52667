"""The two kinds of files that several programs write for a run: settings in YAML, and rows in CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

import polars as pl
import yaml  # type: ignore[import-untyped]

from harness import files
from harness.reading.recorded import MOST_COLUMNS, clean, refuse_more, unreadable
from harness.reading.walk import Notes

MOST_YAML_BYTES = 2**20
MOST_CSV_BYTES = 2**26  # some million rows; in memory, cells take ten times this
_MOST_VALUES = 20_000  # of a YAML file, where an alias stands for all that it names
_MOST_DEPTH = 30
_MOST_DIGITS = 40  # of a number; more are kept as text
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_LISTS = ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:python/tuple")
_UNKNOWN = object()


def settings_of_yaml(path: Path, notes: Notes) -> dict[str, Any]:
    """Return the settings in a YAML file; no object is made of a tag. A file that is no such mapping gets a note.

    Values that only Python can make (`!!python/object…`) are left out, and named in a note.
    """
    try:
        loader = yaml.SafeLoader(files.read(path, MOST_YAML_BYTES))
        try:
            node = loader.get_single_node()
            reading = _Yaml(loader)
            values = {} if node is None else reading.value(node, ())
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, ValueError, OSError) as error:
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        notes.add(f"its settings are not known, for it cannot be read as YAML ({reason})", path)
        return {}
    if not isinstance(values, dict):
        notes.add("its settings are not known, for it has no keys", path)
        return {}
    if reading.left_out:
        left = _listed(reading.left_out)
        notes.add(f"settings that are no plain values are left out: {left}", path)
    return values


class _Yaml:
    """The plain values of a document's nodes, which are counted: aliases make large documents of small ones."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._number = 0
        self.left_out: set[str] = set()

    def value(self, node: Any, keys: tuple[str, ...]) -> Any:
        self._number += 1
        if self._number > _MOST_VALUES or len(keys) > _MOST_DEPTH:
            raise ValueError(f"more than {_MOST_VALUES:,} values, or {_MOST_DEPTH} levels")
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, keys)
        if isinstance(node, yaml.SequenceNode) and node.tag in _LISTS:
            items = [self.value(one, (*keys, "[]")) for one in node.value]
            return [one for one in items if one is not _UNKNOWN]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, keys)
        return self._leave_out(keys)

    def _mapping(self, node: Any, keys: tuple[str, ...]) -> dict[str, Any]:
        found = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            inner = self.value(value, (*keys, name))
            if name in found or name in ("?", "<<"):
                self._leave_out((*keys, name))
            elif inner is not _UNKNOWN:
                found[name] = inner
        return found

    def _scalar(self, node: Any, keys: tuple[str, ...]) -> Any:
        if node.tag in _NUMBERS and len(node.value) > _MOST_DIGITS:
            return node.value
        try:
            return self._loader.construct_object(node)
        except (
            yaml.YAMLError,
            ValueError,
            ArithmeticError,
            LookupError,
            AttributeError,
            TypeError,
        ):
            return self._leave_out(keys)

    def _leave_out(self, keys: tuple[str, ...]) -> Any:
        self.left_out.add(clean(".".join(keys)))
        return _UNKNOWN


def rows_of_csv(path: Path, step: str, notes: Notes, optional: str = "\0") -> pl.DataFrame:
    """Return `step` (Int64), the column of that name, and the other columns (Float64, null for an empty cell).

    A line with the column's name in it is a header of the lines after it. A row may lack all columns whose names
    begin with `optional`. Other lines that do not fit their header, and columns with words, are left out with a note.
    Raises `UnreadableError` for a file without such a column, and for one that is too large.
    """
    tables, misfits = [], 0
    for header, rows in _sections(path, step, notes):
        refuse_more("columns", len(header), MOST_COLUMNS)
        fitting = [fitted for row in rows if (fitted := _fitted(row, header, optional))]
        misfits += len(rows) - len(fitting)
        tables.append(_strings(header, step, fitting, path, notes))
    if misfits:
        notes.add(f"{misfits:,} lines have other cells than their header, and are left out", path)
    return _numbers(pl.concat(tables, how="diagonal"), step, path, notes)


def _fitted(row: list[str], header: list[str], optional: str) -> list[str] | None:
    if len(row) == len(header):
        return row
    if len(row) != sum(not name.startswith(optional) for name in header):
        return None
    cells = iter(row)
    return ["" if name.startswith(optional) else next(cells) for name in header]


def _sections(path: Path, step: str, notes: Notes) -> list[tuple[list[str], list[list[str]]]]:
    """Return each header with its rows, as text."""
    raw = files.read(path, MOST_CSV_BYTES)
    text = raw.decode(errors="replace").removeprefix("\ufeff")
    if "\ufffd" in text:
        notes.add("bytes that are not UTF-8 are shown as \ufffd", path)
    if text and text[-1] not in "\r\n":
        text = text[: max(text.rfind("\n"), 0)]
        notes.add("its last line has no end, and is left out", path)
    found: list[tuple[list[str], list[list[str]]]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline="")):
            if step in row:
                found.append((row, []))
            elif not found:
                break
            elif row:
                found[-1][1].append(row)
    except csv.Error as error:
        raise unreadable(path, f"cannot be read as CSV ({error})") from error
    if not found or any(header.count(step) > 1 for header, _ in found):
        raise unreadable(path, f"its first line has not one column {step}")
    return found


def _strings(
    header: list[str], step: str, rows: list[list[str]], path: Path, notes: Notes
) -> pl.DataFrame:
    names = [clean(name) for name in header]
    taken = {"run", "step", ""} - {step}
    left = {name for name in names if names.count(name) > 1 or name in taken}
    if left:
        notes.add(f"columns without a name of their own are left out: {_listed(left)}", path)
    return pl.DataFrame(
        [
            pl.Series(name, [row[i] for row in rows], pl.String)
            for i, name in enumerate(names)
            if name not in left
        ]
    )


def _numbers(table: pl.DataFrame, step: str, path: Path, notes: Notes) -> pl.DataFrame:
    stripped = table.with_columns(pl.all().str.strip_chars().replace("", None))
    numbers = stripped.with_columns(pl.all().cast(pl.Float64, strict=False))
    words = [
        name for name in table.columns
        if name != step and numbers[name].null_count() != stripped[name].null_count()
    ]  # fmt: skip
    if words:
        notes.add(f"columns with words are left out: {_listed(words)}", path)
    whole = (pl.col(step).round() == pl.col(step)) & (pl.col(step).abs() < 2**53)
    kept = numbers.drop(words).filter(whole.fill_null(False))
    if lost := len(numbers) - len(kept):
        notes.add(f"{lost:,} rows have no whole number in column {step}, and are left out", path)
    metrics = pl.all().exclude(step)
    return kept.select(pl.col(step).cast(pl.Int64).alias("step"), metrics)


def _listed(names: Collection[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))
