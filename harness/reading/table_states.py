"""Columns of a table that say how runs ended, a status or flags as `failed` and `done` → a word a run."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

import polars as pl

from harness.reading.recorded import COMPLETE, COMPLETE_WORDS, clean
from harness.reading.table_files import Table

_STATUS = ("status", "state")
# one of these words says how a run ended
_STATES = re.compile(
    r"""\b(?:completed?|finished|published|done|success(?:ful)?|succeeded|ok|running|pending|queued|scheduled|waiting|preempt\w*
    |unfinished|incomplete|fail\w*|errors?|crash\w*|killed|terminated|stopped|aborted|interrupted|cancell?ed|pruned
    |time(?:d[ ])?out|memory|oom|diverged|unstable|exploded|nan|segfault|exit(?:ed)?|active|inactive)\b""",
    re.I | re.X,
)
_TERMINATED = (
    "terminated"  # Ray's word for a run that ended well, and that of others for one that was killed
)
_BAD = {"failed", "crashed", "diverged", "aborted", "killed", "errored", "interrupted", "cancelled", "canceled"}  # fmt: skip
_GOOD = {"finished", "completed", "done"}
_EXIT = {"exit_code", "exitcode", "returncode", "return_code"}


def last_part(name: str) -> str:
    """Return `exit_code` for `sys/info.Exit code`."""
    return re.split("[./]", name)[-1].strip().lower().replace(" ", "_")


def status_column(table: Table, taken: Collection[str]) -> str | None:
    """Return the column `status` or `state`, else one whose name ends so, if its cells say how runs ended.

    Those that are `taken` have another meaning.
    """
    for part in (str.lower, last_part):
        for word in _STATUS:
            for name in table.names:
                if part(name) != word or (name in taken and name.lower() != word):
                    continue
                if _has_states(table.text(name), name.lower() == word):
                    return name
    return None


def _has_states(cells: pl.Series, or_empty: bool) -> bool:
    """Return whether text says how runs ended: it has such a word or, if that will do, is empty somewhere."""
    texts = [text for text in cells.unique() if text]
    return (or_empty and len(texts) < cells.n_unique()) or any(
        _STATES.search(re.sub("[_-]", " ", one)) for one in texts
    )


def flag_columns(table: Table, taken: Collection[str]) -> tuple[str, ...]:
    """Return the columns named as `failed`, `done` or `exit_code` of booleans, of 0 and 1, or of exit codes."""
    return tuple(n for n in table.names if n not in taken and _is_flag(n, table))


def _is_flag(name: str, table: Table) -> bool:
    word = _word(name)
    if word not in _BAD | _GOOD | _EXIT:
        return False
    values = table.values(name).drop_nulls()
    if values.is_empty() or not (values.dtype == pl.Boolean or values.dtype.is_numeric()):
        return False
    numbers = values.cast(pl.Float64)
    if word in _GOOD and not (numbers != 0).any():  # which nobody set
        return False
    return word in _EXIT or bool(numbers.is_in([0.0, 1.0]).all())


def _word(name: str) -> str:
    return re.sub("^(?:is|has|was)_", "", last_part(name))


def words_by_row(table: Table, status: str | None, flags: Iterable[str]) -> pl.Series | None:
    """Return the word in each row for how its run ended: a bad one of the status or of flags, else the status, else flags.

    A flag as `done` that is false is not bad beside a status. Null where nothing says it; None without such columns.
    """
    found = {} if status is None else {status: table.text(status).replace("", None)}
    found |= {name: _of_flag(_word(name), table.values(name)) for name in flags}
    if not found:
        return None
    words = pl.DataFrame([own.alias(name) for name, own in found.items()])
    bad = [
        pl.when(~pl.col(name).str.to_lowercase().is_in([*COMPLETE_WORDS, _TERMINATED])).then(name)
        for name in words.columns
        if name == status or _word(name) not in _GOOD
    ]
    return words.select(pl.coalesce(*bad, *words.columns)).to_series()


def _of_flag(word: str, values: pl.Series) -> pl.Series:
    number = pl.col("value").cast(pl.Float64)
    is_well = number == (1 if word in _GOOD else 0)
    otherwise = pl.lit("unfinished" if word in _GOOD else word)
    if word in _EXIT:
        otherwise = pl.lit("exit code ") + number.cast(pl.Int64, strict=False).cast(pl.String)
    ended = pl.when(is_well).then(pl.lit(COMPLETE)).when(number.is_not_null()).then(otherwise)
    return values.to_frame("value").select(ended).to_series()


def statuses(words: Iterable[str | None], notes: list[str]) -> list[str | None]:
    """Return the status of each run: `complete` for all words for a good end, others in lower case.

    `terminated` is one, with a note, where no run has another.
    """
    found = [clean(word).lower() or None if word else None for word in words]
    well = {*COMPLETE_WORDS}
    if _TERMINATED in found and well.isdisjoint(found):
        well.add(_TERMINATED)
        notes.append(f"{_TERMINATED} is read as ended well, as Ray means it: no run has another word for that")  # fmt: skip
    return [COMPLETE if word in well else word for word in found]
