"""The error of a configuration that makes no sense."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


class ConfigError(ValueError):
    """A configuration that makes no sense; the message is one line with the key and the fix."""


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
