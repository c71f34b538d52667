"""What W&B's logs and its server have in common: rows of numbers, labels, and how a run ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from harness.reading.recorded import COMPLETE, clean, listed

_SPECIAL = {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}  # texts where JSON is strict
_OWN_ENDS = ("diverged", "interrupted", "failed")  # of this harness, in the summary of its runs
_NEVER = ("run", "step")  # columns of `Recorded.curves`


class Rows:
    """The numbers of one run, by step; `left_out` are the columns that have others than numbers."""

    def __init__(self) -> None:
        self.left_out: set[str] = set()
        self._rows: list[tuple[int | None, dict[str, float]]] = []

    def add(self, step: int | None, row: Mapping[str, Any]) -> None:
        """Append the numbers of a row, unless there are none; rows come in the order of their steps."""
        if numbers := self._numbers(row, "", step):
            self._rows.append((step, numbers))

    def add_summary(self, summary: Mapping[str, Any]) -> None:
        """Append what the summary has and no row does, as one row at the last step; no `max` or `last` of a metric."""
        known = {name for _, row in self._rows for name in row}
        last = self._rows[-1][0] if self._rows else None
        values = {k: v for k, v in summary.items() if not (isinstance(v, Mapping) and k in known)}
        numbers = self._numbers(values, "", summary.get("_step"))
        if only := {name: value for name, value in numbers.items() if name not in known}:
            self._rows.append((last, only))

    def frame(self) -> pl.DataFrame:
        """Return `step`, and a column a metric."""
        names = dict.fromkeys(name for _, row in self._rows for name in row)
        schema = {"step": pl.Int64, **dict.fromkeys(names, pl.Float64)}
        return pl.DataFrame([{"step": step, **row} for step, row in self._rows], schema=schema)

    def __len__(self) -> int:
        return len(self._rows)

    def _numbers(self, row: Mapping[str, Any], prefix: str, step: int | None) -> dict[str, float]:
        """Return the numbers of a row by full key, as `loss.train`; media (a `_type`) and W&B's own `_` are no metrics."""
        found: dict[str, float] = {}
        for key, value in row.items():
            name = clean(f"{prefix}{key}")
            if isinstance(value, Mapping) and "_type" not in value and name.count(".") < 20:
                found |= self._numbers(value, f"{name}.", step)
            elif not name.startswith("_") and not (name == "step" and value == step):
                number = _number(value)
                if number is None or name in _NEVER:
                    self.left_out |= {name} if value is not None else set()
                else:
                    found[name] = number
        return found


def _number(value: object) -> float | None:
    if isinstance(value, str) and value in _SPECIAL:
        return float(_SPECIAL[value])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return None


def settings(
    config: Mapping[str, Any], labels: Mapping[str, str | None], tags: Iterable[str]
) -> dict[str, Any]:
    """Return a config with the run's labels and tags, where those are set and it has none of their name."""
    own = {key: value for key, value in config.items() if key not in ("_wandb", "wandb_version")}
    labelled = {name: value for name, value in labels.items() if value}
    if joined := ", ".join(sorted(tags)):
        labelled["tags"] = joined
    return {**labelled, **own}


def ended(exit_code: int, summary: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the status and the error of a run that has ended; runs of this harness say more in their summary."""
    if exit_code == 0:
        return COMPLETE, None
    own = summary.get("status")
    status = own if own in _OWN_ENDS else "failed"
    return str(status), f"it ended with exit code {exit_code}"


def left_out_note(rows: Iterable[Rows]) -> list[str]:
    """Return the note that names the columns which are no metrics, if there are any."""
    names = sorted(set().union(*(one.left_out for one in rows)))
    return [f"columns without numbers are left out: {listed(names, 5)}"] if names else []
