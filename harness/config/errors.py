"""The error of a configuration that makes no sense."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


class ConfigError(ValueError):
    """A configuration that makes no sense; the message is one line with the key and the fix."""


def nearest(name: str, names: Sequence[str]) -> str:
    """Return a hint that lists `names`, the most similar to `name` first."""
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}choose from {', '.join(names)}"
