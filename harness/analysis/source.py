"""What is said of runs that other programs recorded: where they come from, and what else could have been compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Source:
    """What is said of where runs come from.

    `address` and `kind` of the source; `same` and `varied`, the settings of the compared runs by full key; `others`:
    by kind, the other settings, levels and numbers that could have been compared; `confounded`: settings of
    which each level has values of its own; `notes`: what a reader must know;
    `unknown`: what the source does not say; `not_compared`: why, by run.
    """

    address: str
    kind: str
    same: Mapping[str, Any]
    varied: Mapping[str, Sequence[Any]]
    others: Mapping[str, Sequence[str]]
    confounded: Sequence[str]
    notes: Sequence[str]
    unknown: Sequence[str]
    not_compared: Mapping[str, str]

    @property
    def not_planned(self) -> str:
        """Return what precedes every verdict on these runs."""
        counted = [
            f"{len(names)} other {kind if len(names) > 1 else kind[:-1]}"
            for kind, names in self.others.items()
            if names
        ]
        chosen = f"; {', '.join(counted)} could have been compared instead" if counted else ""
        also = f" Its levels differ in {', '.join(self.confounded)} too." if self.confounded else ""
        return f"Not preregistered{chosen}.{also}"
