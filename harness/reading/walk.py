"""Folders of runs: the files in them, the settings in their names, and what is said of the reading."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

import polars as pl

from harness.config.errors import ConfigError
from harness.files import UnreadableError
from harness.reading.recorded import RunRecord, clean, flat_settings, refuse_more, unreadable

MOST_ENTRIES = 500_000  # files and folders that are looked at
MOST_DEPTH = 20
MOST_NOTES = 40
NO_ROWS = pl.DataFrame(schema={"step": pl.Int64})
# In `t_mult=2_weight_decay=0.1`, a value ends at a comma, or at the first `_` that a key and `=` follow.
SETTING = re.compile(r"(?:^|[,_])([^=,]+)=(\[[^\]]*\]|[^,]*?)(?=,|_[^=,]*=|$)")
# `NAME_ID_NUMBER_INDEX_KEY=VALUE,…_DATE_TIME`, as Ray Tune names the folder of a trial
_OF_RAY = re.compile(
    r".+_[0-9a-f]{5,8}(?:_\d{5})?_\d+_([^=,_][^=,]*=.*?)(?:_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)?"
)


class Notes:
    """What a reader must know of the reading: a message once, with its first place and how many more there are."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}

    def add(self, message: str, where: object) -> None:
        self._places.setdefault(clean(message), []).append(clean(where))

    def lines(self) -> tuple[str, ...]:
        said = [
            f"{first}: {message}" + (f" (so in {len(others):,} more)" if others else "")
            for message, (first, *others) in self._places.items()
        ]
        left = len(said) - MOST_NOTES
        return (*said[:MOST_NOTES], *([f"and {left:,} more notes"] if left > 0 else []))


def find(folder: Path, wanted: Callable[[str], bool], notes: Notes) -> dict[Path, list[Path]]:
    """Return the regular files below `folder` whose name is wanted, by the folder that they are in, sorted.

    Links are not followed, and hidden folders not looked through. Raises `ConfigError` for too many files.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder")
    found: dict[Path, list[Path]] = {}
    waiting, seen = [folder], 0
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                inside = sorted(islice(entries, MOST_ENTRIES + 1 - seen), key=lambda one: one.name)
        except OSError as error:
            notes.add(f"cannot be looked through ({error.strerror})", here)
            continue
        seen += len(inside)
        refuse_more("files", seen, MOST_ENTRIES)
        below = [one for one in inside if _is_searched(one, wanted, notes)]
        if below and len(here.relative_to(folder).parts) == MOST_DEPTH:
            notes.add(f"what is deeper than {MOST_DEPTH} folders is not read", here)
        else:
            waiting += [here / one.name for one in reversed(below)]
        regular = [one for one in inside if one.is_file(follow_symlinks=False)]
        if files := [here / one.name for one in regular if wanted(one.name)]:
            found[here] = files
    return found


def _is_searched(entry: os.DirEntry[str], wanted: Callable[[str], bool], notes: Notes) -> bool:
    """Return whether an entry is a folder to look through; a link that might have led to runs gets a note."""
    if entry.name.startswith(".") or entry.name == "__pycache__":
        return False
    if entry.is_symlink() and (wanted(entry.name) or entry.is_dir()):
        notes.add("is a link, which is not followed", entry.path)
    return entry.is_dir(follow_symlinks=False)


def run_name(source: Path, folder: Path) -> str:
    """Return the path of a run's folder below the source; the source's own name for itself."""
    return source.resolve().name if folder == source else folder.relative_to(source).as_posix()


def settings_of_path(below: PurePath) -> dict[str, Any]:
    """Return what the folders of a path say as `KEY=VALUE`, as in `t_mult=2,seed=1/` or `lr=0.1_seed=3/`."""
    parts = [ray[1] if (ray := _OF_RAY.fullmatch(part)) else part for part in below.parts]
    return {clean(key): _value(text) for part in parts for key, text in SETTING.findall(part)}


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if value is None or isinstance(value, int | float) else text


def all_settings(
    source: Path, folder: Path, recorded: Mapping[str, Any], notes: Notes
) -> dict[str, Any]:
    """Return a run's settings by full key: the recorded ones, and those that only folder names have."""
    named, flat = settings_of_path(folder.relative_to(source)), flat_settings(recorded)
    for key in named.keys() & flat.keys():
        if named[key] != flat[key]:
            notes.add(f"{key} is another in the folder's name; what was recorded is read", folder)
    return named | flat


def read_each(
    source: Path,
    folders: Collection[Path],
    read_one: Callable[[Path], RunRecord],
    settings_of: Callable[[Path], Mapping[str, Any]] | None = None,
) -> list[RunRecord]:
    """Return the run of each folder; one whose file cannot be read has no rows, and says why.

    Its settings are those that `settings_of` returns, else those in the folder's name. Raises the first such error if no
    run can be read.
    """
    found: list[RunRecord] = []
    errors: list[UnreadableError] = []
    for folder in folders:
        try:
            found.append(read_one(folder))
        except OSError as error:
            own = isinstance(error, UnreadableError)
            errors.append(error if own else unreadable(folder, error.strerror or str(error)))  # type: ignore[arg-type]
            settings = (
                settings_of(folder) if settings_of else settings_of_path(folder.relative_to(source))
            )
            name, why = run_name(source, folder), str(errors[-1])
            found.append(RunRecord(name, settings, NO_ROWS, str(folder), "unreadable", why))
    if errors and len(errors) == len(found):
        raise errors[0]
    return found
