"""Text for others: without the folders of the machine that it was written on."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl

CHECKOUT = Path(__file__).resolve().parents[2]
_NO_PART = r"""'"`<>|:;,()\[\]{}"""
_WHOLE = re.compile(rf"/[^{_NO_PART}\n]*[^{_NO_PART}\n/]/?")  # it may have spaces
_QUOTED = re.compile(r"""(['"])(/[^'"\n]+)\1""")
_PROGRAM = re.compile(r"^/.*?/(?=(?:scripts/(?:\w+/)?)?\w+\.py$)")  # what is above it
_INSIDE = re.compile(rf"(?:file://|(?<![\w.~/<…-]))/[^\s/{_NO_PART}][^\s{_NO_PART}]*")


def without_folders(text: str, roots: Sequence[Path] = (), parts: int = 1) -> str:
    """Return `text` with paths below one of `roots` relative to it, and of others the last `parts`: `…/data.npz`."""
    for root in sorted({str(root) for root in roots} - {os.sep}, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.~-]){re.escape(root)}/", "", text)
    text = text.replace(f"{Path.home()}/", "/")  # may have spaces
    text = _QUOTED.sub(lambda found: found[1] + _last(found[2], parts) + found[1], text)
    if _WHOLE.fullmatch(text):
        return _last(text, parts)
    return _INSIDE.sub(lambda found: _last(found[0], parts), text)


def _last(path: str, parts: int) -> str:
    kept = [part for part in path.removeprefix("file://").split("/") if part][-parts:]
    return "/".join(["…", *kept])


def shown(value: Any, roots: Sequence[Path] = (), parts: int = 1) -> Any:
    """Return a document with `without_folders` of each text in it, keys too."""
    if isinstance(value, str):
        return without_folders(value, roots, parts)
    if isinstance(value, dict):
        return {shown(k, roots, parts): shown(v, roots, parts) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [shown(one, roots, parts) for one in value]
    return value


def parts_to_tell(names: Iterable[str], roots: Sequence[Path] = ()) -> int:
    """Return how many parts of paths it takes to tell `names` apart."""
    different = {*names}
    return next(
        parts
        for parts in count(1)
        if len({without_folders(name, roots, parts) for name in different}) == len(different)
    )


def roots_of(runs: pl.DataFrame) -> list[Path]:
    """Return the folder above those of the sweeps of `runs`; none without runs."""
    sweeps = {Path(folder).absolute().parent for folder in runs["folder"].drop_nulls()}
    return [Path(os.path.commonpath(sweeps)).parent] if sweeps else []


def shown_command(words: Sequence[str]) -> str:
    """Return a command of Python for the checkout's folder: paths in it are relative, of others the last part."""
    program = [_PROGRAM.sub("", word) for word in words[:1]]
    return "python " + shlex.join([*program, *map(_word, words[1:])])


def _word(word: str) -> str:
    key, sign, value = word.partition("=") if "=" in word else ("", "", word)
    return f"{key}{sign}{without_folders(value, [CHECKOUT])}"
