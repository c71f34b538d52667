"""A file that holds one table → its columns: CSV, TSV, a pasted table, JSON Lines or a JSON array, Parquet."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
from polars import selectors

from harness import files
from harness.config.errors import ConfigError
from harness.reading.pasted_tables import aligned, has_bare_rule, is_aligned, piped
from harness.reading.recorded import (
    MOST_COLUMNS,
    MOST_ROWS,
    clean,
    flat_settings,
    refuse_more,
    unreadable,
)
from harness.reading.table_cells import typed

MOST_CELLS = 200_000_000
MOST_PARQUET_BYTES = 2**32
MOST_ARRAY_BYTES = 2**26  # in memory, its objects take ten times this
_CHUNK_CELLS = 500_000  # that are Python objects at a time
_SAMPLE_BYTES = 2**16
_MAGIC = {
    b"PARE": "is an encrypted Parquet file; decrypt it first",
    b"\x1f\x8b": "is compressed; unpack it first (gunzip)",
    b"PK\x03\x04": "is a ZIP archive or an Excel file; unpack it, or save the sheet as CSV",
    b"\x28\xb5\x2f\xfd": "is compressed; unpack it first (unzstd)",
    b"\xff\xfe": "is UTF-16; save it as UTF-8",
    b"\xfe\xff": "is UTF-16; save it as UTF-8",
}
_AN_OBJECT_A_LINE = 'write an object a line (pandas: to_json(…, orient="records", lines=True))'
_ALIGNED = "Aligned text"
_SEPARATORS = "\t;,"
_NAMED_SEPARATOR = re.compile(rf"sep=([{_SEPARATORS}|])\s*".encode())  # Excel's first line
_UNNAMED = re.compile(r"|__index_level_0__|Unnamed: ?\d+")  # columns of pandas' index


@dataclass(frozen=True)
class Table:
    """The columns of a file: `names`, clean and unique, in the order of the file; `load` returns the cells of one.

    `format`: CSV, Markdown, Aligned text, JSON Lines, or Parquet.
    """

    path: Path
    format: str
    names: list[str]
    rows: int
    load: Callable[[str], pl.Series]
    notes: list[str]

    def text(self, name: str) -> pl.Series:
        """Return a column's cells as text, as they stand in the file."""
        cells = _plain(self.load(name)).cast(pl.String)
        return cells if self.format == "Parquet" else cells.str.strip_chars()

    def values(self, name: str) -> pl.Series:
        """Return a column's numbers, booleans, or texts."""
        cells = self.load(name)
        if self.format == "Parquet":
            return _plain(cells)
        return typed(self.path, name, cells, self.notes)


def open_table(path: Path) -> Table:
    """Return the table in a file, by its content: Parquet, JSON Lines, Markdown, or cells with separators or blanks.

    Raises OSError; `UnreadableError` or `ConfigError`, in one line, for what is none, or is too large.
    """
    if not path.is_file():
        raise unreadable(path, "is not a file, or there is none")
    with path.open("rb") as file:
        start = file.read(_SAMPLE_BYTES)
    for magic, reason in _MAGIC.items():
        if start.startswith(magic):
            raise unreadable(path, reason)
    if start.startswith(b"PAR1"):
        return _open_parquet(path)
    if path.suffix.lower() in (".parquet", ".pq"):
        raise unreadable(path, "is not a Parquet file; write it anew, or give it the name of what it is")  # fmt: skip
    if not start.removeprefix(b"\xef\xbb\xbf").strip():
        raise unreadable(path, "is empty")
    if b"\0" in start:
        raise unreadable(path, "is not text; tables are read from CSV, TSV, JSON Lines, Parquet and Markdown")  # fmt: skip
    try:
        return _open_text(path, files.read(path), start)
    except UnicodeDecodeError as error:
        raise unreadable(path, f"is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except csv.Error as error:
        if "field limit" in str(error):
            raise unreadable(path, f"has a cell of more than {csv.field_size_limit():,} characters, or a quote that does not end; leave out its column") from error  # fmt: skip
        raise unreadable(path, f"has damaged quotes ({error}); write it anew") from error


def _open_text(path: Path, data: bytes, start: bytes) -> Table:
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
    first = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if path.suffix.lower() in (".jsonl", ".ndjson") or first[:1] in b"{[":
        rows = _array(path, data) if first[:1] == b"[" else _lines(path, text)
        return _table(path, "JSON Lines", *_columns(_objects(path, rows)))
    if first.startswith(b"|") or (path.suffix.lower() in (".md", ".txt") and b"\n|" in data):
        return _rows(path, "Markdown", iter(piped(path, text, bare=False)))
    sample = start.decode("utf-8-sig", errors="replace").splitlines()
    lines = sample if len(start) < _SAMPLE_BYTES else sample[:-1]
    (separator, fits), skipped = _separator(lines[:20]), 0
    if named := _NAMED_SEPARATOR.fullmatch(first.partition(b"\n")[0]):
        separator, skipped = named[1].decode(), 1
        text.readline()
    elif not fits and (bare := has_bare_rule(lines)) is not None:
        return _rows(path, "Markdown", iter(piped(path, text, bare)))
    elif not fits and is_aligned(lines):
        return _rows(path, _ALIGNED, iter(aligned(text)))
    reader = csv.reader(text, delimiter=separator, skipinitialspace=True, strict=True)
    table = _rows(path, "CSV", ((reader.line_num + skipped, row) for row in reader if row))
    if data[-1:] not in b"\r\n":
        table.notes.append("its last line has no end: is the file whole?")
    return table


def _separator(lines: list[str]) -> tuple[str, bool]:
    """Return the separator that cuts all of the first lines into equally many cells, the most; and whether it does."""

    def fits(separator: str) -> tuple[bool, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=separator) if row]
        return len(set(widths)) == 1 and widths[0] > 1, max(widths[:1], default=0)

    best = max(_SEPARATORS, key=fits)
    return best, fits(best)[0]


def _rows(path: Path, kind: str, rows: Iterator[tuple[int, list[str]]]) -> Table:
    _, header = next(rows, (1, []))
    if all(re.fullmatch(r"[+-]?[\d.]+([eE][+-]?\d+)?", cell.strip()) for cell in header):
        raise unreadable(path, "has no names of columns in its first line; write them there")
    refuse_more("columns", len(header), MOST_COLUMNS)
    chunks, total = [], 0
    while chunk := list(islice(rows, _CHUNK_CELLS // len(header) + 1)):
        for line, row in chunk:
            if row == header:
                raise unreadable(path, f"line {line} has the names of columns again, as where files were joined; delete it")  # fmt: skip
            if len(row) != len(header):
                fix = "put two or more blanks, or commas, between all cells" if kind == _ALIGNED else "complete it, or delete it"  # fmt: skip
                raise unreadable(path, f"line {line} has {len(row)} cells, and the first line {len(header)}; {fix}")  # fmt: skip
        total += len(chunk)
        _refuse_size(total, len(header))
        columns = zip(*(row for _, row in chunk), strict=True)
        chunks.append(pl.DataFrame([pl.Series(str(n), c, pl.String) for n, c in enumerate(columns)]))  # fmt: skip
    return _table(path, kind, header, pl.concat(chunks) if chunks else pl.DataFrame())


def _columns(objects: Iterator[dict[str, Any]]) -> tuple[list[str], pl.DataFrame]:
    names: dict[str, None] = {}
    chunks: list[pl.DataFrame] = []
    most = _CHUNK_CELLS
    total = 0
    while chunk := list(islice(objects, most)):
        for row in chunk:
            names.update(dict.fromkeys(row))
        refuse_more("columns", len(names), MOST_COLUMNS)
        total += len(chunk)
        _refuse_size(total, len(names))
        columns = [[_cell(row.get(name)) for row in chunk] for name in names]
        schema = {str(n): pl.String for n in range(len(names))}
        chunks.append(pl.DataFrame(columns, schema, orient="col"))
        most = _CHUNK_CELLS // max(len(names), 1) + 1
    return list(names), pl.concat(chunks, how="diagonal") if chunks else pl.DataFrame()


def _lines(path: Path, text: Iterable[str]) -> Iterator[tuple[str, object]]:
    """Yield the value in each line, and its place."""
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            yield f"line {number}", json.loads(line)
        except (ValueError, RecursionError) as error:
            raise unreadable(path, f"line {number} is not JSON ({error}); {_AN_OBJECT_A_LINE}") from error  # fmt: skip


def _array(path: Path, data: bytes) -> Iterator[tuple[str, object]]:
    """Yield the items of a JSON array, and their places."""
    if len(data) > MOST_ARRAY_BYTES:
        raise unreadable(path, f"is a JSON array of {len(data):,} bytes, and at most {MOST_ARRAY_BYTES:,} are read; {_AN_OBJECT_A_LINE}")  # fmt: skip
    try:
        items = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise unreadable(path, f"is not JSON ({error}); {_AN_OBJECT_A_LINE}") from error
    if not items:
        raise unreadable(path, "is an empty JSON array")
    for number, item in enumerate(items, 1):
        yield f"item {number}", item


def _objects(path: Path, values: Iterable[tuple[str, object]]) -> Iterator[dict[str, Any]]:
    number, is_nested = 0, False
    for place, row in values:
        number += 1
        if not isinstance(row, dict):
            raise unreadable(path, f"{place} is no JSON object; {_AN_OBJECT_A_LINE}")
        is_nested = any(isinstance(cell, dict | list) for cell in row.values())
        yield flat_settings(row) if any(isinstance(cell, dict) for cell in row.values()) else row
    if number == 1 and is_nested:  # as pandas writes a table without `orient`
        raise unreadable(path, f"is one JSON object with others or lists in it; {_AN_OBJECT_A_LINE}")  # fmt: skip


def _cell(value: object) -> str | None:
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="backslashreplace").decode()
    if value is None:
        return None
    return repr(value) if isinstance(value, float) else json.dumps(value)


def _refuse_size(rows: int, columns: int) -> None:
    refuse_more("rows", rows, MOST_ROWS)
    refuse_more("cells", rows * columns, MOST_CELLS)


def _table(path: Path, kind: str, header: list[str], frame: pl.DataFrame) -> Table:
    """Return the table of columns that the frame names by their number."""

    def load(column: str, name: str) -> pl.Series:
        return frame.get_column(column).alias(name)

    return _named(path, kind, {str(n): name for n, name in enumerate(header)}, len(frame), load)


def _named(
    path: Path, kind: str, raw: dict[str, str], rows: int, load: Callable[[str, str], pl.Series]
) -> Table:
    """Return the table of columns that have a name; `raw` maps what `load` takes to the name in the file."""
    found: dict[str, str] = {}
    for column, name in raw.items():
        if _UNNAMED.fullmatch(cleaned := clean(name)):
            continue
        if cleaned in found:
            raise ConfigError(f"{path}: two columns are named {cleaned!r}; rename one of them, or leave it out")  # fmt: skip
        found[cleaned] = column
    if len(found) < 2:
        has = f"one column ({', '.join(found)})" if found else "no column with a name"
        raise unreadable(path, f"has {has}; put a comma, a tab, | or two blanks between columns")
    if not rows:
        raise unreadable(path, "has a first line and no rows")
    unnamed = len(raw) - len(found)
    notes = [f"{unnamed} column(s) without a name are left out"] if unnamed else []
    return Table(path, kind, list(found), rows, lambda name: load(found[name], name), notes)


def _open_parquet(path: Path) -> Table:
    """Return a table that reads its file a column at a time, so that what is not kept takes no memory."""
    if (size := path.stat().st_size) > MOST_PARQUET_BYTES:
        raise unreadable(path, f"has {size:,} bytes, and at most {MOST_PARQUET_BYTES:,} are read")
    with _parquet_errors(path):
        scan = pl.scan_parquet(path, glob=False)
        schema = scan.collect_schema()
        rows = scan.select(pl.len()).collect().item()
    refuse_more("columns", len(schema), MOST_COLUMNS)
    _refuse_size(rows, len(schema))
    for name, dtype in schema.items():
        if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
            raise unreadable(path, f"the column {clean(name)!r} is {dtype}; write its parts as columns of numbers or text, or leave it out")  # fmt: skip
    return _named(path, "Parquet", {name: name for name in schema}, rows, partial(_load, path))


def _load(path: Path, column: str, name: str) -> pl.Series:
    with _parquet_errors(path):
        frame = pl.scan_parquet(path, glob=False).select(selectors.by_name(column)).collect()
    return frame.to_series().alias(name)


@contextmanager
def _no_native_stderr() -> Iterator[None]:
    """Discard what is written to file descriptor 2 meanwhile: Rust's threads write there when they panic."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    try:
        with _no_native_stderr():
            yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise unreadable(path, f"is a damaged or encrypted Parquet file ({reason}); write it anew") from error  # fmt: skip


def _plain(cells: pl.Series) -> pl.Series:
    """Return a column of Parquet as numbers, booleans or text."""
    if cells.dtype.is_decimal():
        return cells.cast(pl.Float64)
    if cells.dtype.is_numeric() or cells.dtype in (pl.Boolean, pl.String):
        return cells
    if cells.dtype == pl.Duration:
        return cells.dt.to_string()
    return cells.cast(pl.String)


def in_decimal(cells: pl.Series) -> pl.Series:
    """Return Float32 as the Float64 of its shortest decimal: 0.1, and not 0.10000000149; others as they are."""
    return cells.cast(pl.String).cast(pl.Float64) if cells.dtype == pl.Float32 else cells
