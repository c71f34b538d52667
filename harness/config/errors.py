"""The error of a configuration that makes no sense."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

# Control characters, marks of direction, and characters without a width but the one that joins emoji.
_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
    r"|\u200d(?![\u2190-\u2bff\U0001f000-\U0001faff])"
)


class ConfigError(ValueError):
    """A configuration that makes no sense; the message is one line with the key and the fix."""


def one_line(text: str) -> str:
    """Return a text in one line, with blanks for control characters, marks of direction and what has no width.

    What is no Unicode, as bytes in a file's name that are no UTF-8, is escaped: `\\udcff` is the byte FF.
    """
    line = " ".join(_UNSEEN.sub(" ", text).split())
    return line.encode(errors="backslashreplace").decode()


def closest(name: str, names: Sequence[str], cutoff: float = 0.6) -> str | None:
    """Return the one of `names` that `name` is most like, in any case of its letters; None if none is like it.

    The last part of a dotted name stands for it: `lr` for `optimizer.lr`.
    """
    parts = {one.rpartition(".")[2].lower(): one for one in reversed(names)}
    known = parts | {one.lower(): one for one in reversed(names)}
    close = get_close_matches(name.lower(), known, n=1, cutoff=cutoff)
    return known[close[0]] if close else None


def nearest(name: str, names: Sequence[str]) -> str:
    """Return a hint that lists `names`, the most similar to `name` first."""
    close = closest(name, names)
    hint = f"did you mean {close}? " if close else ""
    return f"{hint}choose from {', '.join(names)}"
