"""What a source holds: its runs, what is known of each, and their curves."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl

from harness.config.errors import ConfigError, one_line
from harness.files import UnreadableError

MOST_RUNS = 20_000
MOST_ROWS = 20_000_000  # of all curves
MOST_COLUMNS = 1_000
MOST_TEXT = 300  # characters of a name or a value
COMPLETE = "complete"
COMPLETE_WORDS = ("complete", "completed", "finished", "done", "success", "succeeded", "ok", "inactive", "published")  # fmt: skip
FINAL_VALUES = "a row of final values a run"  # the end of the kind of such tables
STEPS = "a row a recorded step"  # the same


@dataclass(frozen=True)
class Recorded:
    """The runs of a source.

    `kind`: what it was read as, in words ("Lightning CSVLogger"). `runs`, one row a run: `run`, its name there,
    unique; `status`, `complete` or another word (running, crashed, failed, …), null where the source has no states;
    `error`, why it is not complete, or null; `where`, its page or file; `settings`, JSON of its settings by full key
    (values are text, numbers, booleans or null). `curves`: `run`, UInt32, the row in `runs`; `step`, Int64, null in
    a table of final values; and a Float64 column for each metric, null where a row lacks it; rows of a run are
    together, and in the order in which they were recorded. `notes`: what a reader must know of the reading, a line each.
    """

    kind: str
    runs: pl.DataFrame
    curves: pl.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def metrics(self) -> list[str]:
        return [name for name in self.curves.columns if name not in ("run", "step")]

    def only(self, columns: Collection[str]) -> Recorded:
        """Return the same with these of its metrics alone."""
        return replace(self, curves=self.curves.select("run", "step", *dict.fromkeys(columns)))


RUNS = {"run": pl.String, "status": pl.String, "error": pl.String, "where": pl.String, "settings": pl.String}  # fmt: skip


def name_row(number: int) -> str:
    """Return the name of a run that a table names by its row alone."""
    return f"row {number}"


def is_unnamed(name: str) -> bool:
    return bool(re.fullmatch(r"row \d+", name))


@dataclass(frozen=True)
class RunRecord:
    """One run as a reader of single runs finds it; `rows` are `{"step": 3, "val_acc": 0.9}`, in their order."""

    name: str
    settings: Mapping[str, Any]
    rows: pl.DataFrame  # step, and a column a metric
    where: str = ""
    status: str | None = None
    error: str | None = None


def collect(kind: str, found: Sequence[RunRecord], notes: Sequence[str] = ()) -> Recorded:
    """Return runs that were read one by one as `Recorded`; runs of one name get numbers.

    Raises `ConfigError` if there are none, or too many.
    """
    if not found:
        raise ConfigError(f"{kind}: there is no run to judge")
    refuse_more("runs", len(found), MOST_RUNS)
    refuse_more("rows", sum(len(one.rows) for one in found), MOST_ROWS)
    rows = [
        {
            "run": name, "status": one.status, "error": one.error and clean(one.error), "where": clean(one.where),
            "settings": json.dumps(flat_settings(one.settings)),
        }
        for name, one in zip(unique_names([clean(one.name) for one in found]), found, strict=True)
    ]  # fmt: skip
    curves = [
        one.rows.select(
            pl.lit(number, pl.UInt32).alias("run"),
            pl.col("step").cast(pl.Int64),
            pl.all().exclude("run", "step").cast(pl.Float64),
        )
        for number, one in enumerate(found)
    ]
    table = pl.concat(curves, how="diagonal")
    refuse_more("columns", len(table.columns), MOST_COLUMNS)
    return Recorded(kind, pl.DataFrame(rows, schema=RUNS), table, tuple(map(one_line, notes)))


def unique_names(names: Sequence[str]) -> list[str]:
    """Return names of which the second `a` is `a (2)`."""
    taken: dict[str, int] = dict.fromkeys(names, 0)
    found = []
    for name in names:
        number = taken[name] = taken[name] + 1
        while number > 1 and f"{name} ({number})" in taken:
            number = taken[name] = number + 1
        found.append(name if number == 1 else f"{name} ({number})")
    return found


def refuse_more(what: str, number: int, most: int) -> None:
    """Raise `ConfigError` where a source has more of something than is read."""
    if number > most:
        raise ConfigError(
            f"the source has {number:,} {what}, and at most {most:,} are read; name a part of it"
        )


def listed(names: Sequence[str], most: int = 12) -> str:
    """Return names as text, of many the first few."""
    return ", ".join(names[:most]) + f", … ({len(names):,} in all)" * (len(names) > most)


def listed_runs(names: Sequence[str]) -> str:
    """Return names of runs as text, of many the first three; a semicolon separates those with commas of their own."""
    comma = "; " if any("," in name for name in names) else ", "
    return comma.join(names[:3]) + f"{comma}… ({len(names):,} in all)" * (len(names) > 3)


def counted(number: int, what: str) -> str:
    """Return `1 run`, `2 runs`."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def clean(text: object) -> str:
    """Return a text of somebody else's as `one_line` does.

    A long one is cut; its hash keeps it apart from others that begin alike.
    """
    line = one_line(str(text))
    if len(line) <= MOST_TEXT:
        return line
    digest = sha256(line.encode()).hexdigest()[:8]
    return f"{line[: MOST_TEXT - 10]}…#{digest}"


def flat_settings(settings: Mapping[str, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Return nested settings by full key, as `optimizer.lr`; lists are text, numbers that JSON lacks null."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{clean(key)}"
        if isinstance(value, Mapping) and value and depth < 20:
            found |= flat_settings(value, f"{name}.", depth + 1)
        elif value is None or (isinstance(value, int) and abs(value) < 2**64):
            found[name] = value
        elif isinstance(value, float):
            found[name] = value if math.isfinite(value) else str(value)
        elif isinstance(value, list | tuple | dict):
            found[name] = clean(json.dumps(value, default=str))
        else:
            found[name] = clean(value)
    return found


def unreadable(path: Path | str, reason: str) -> UnreadableError:
    """Return the error of a file that is not what it should be, in one line."""
    return UnreadableError(f"{path}: {clean(reason)}")
