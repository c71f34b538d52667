"""The runs that a claim compares: who is paired with whom, who is missing, what must not be compared."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from harness.analysis.paired_stats import UNITS

Row = dict[str, Any]

FILLING = "the last value that they recorded, else 0 %"
WORST = 0.0  # percent: what a run without any value counts when all runs count


@dataclass(frozen=True)
class Pair:
    seed: int
    baseline: float
    treatment: float

    @property
    def difference(self) -> float:
        """In points, treatment less baseline."""
        return round((self.treatment - self.baseline) * UNITS) / UNITS


@dataclass(frozen=True)
class Sides:
    """The runs of one comparison by seed, and what keeps some of them from counting."""

    factor: str
    baseline: str
    treatment: str
    cell: str
    baseline_runs: dict[int, Row]
    treatment_runs: dict[int, Row]
    seeds: tuple[int, ...]
    not_claimed: tuple[Row, ...]
    invalid: str  # why the two must not be compared, or ""

    @classmethod
    def of(
        cls,
        factor: str,
        levels: tuple[str, str],
        cell: str,
        rows: Sequence[Row],
        claimed: Sequence[int],
    ) -> Sides:
        """Those of `rows` in the cell with the baseline's and the treatment's level.

        Seeds that are not `claimed` do not count, where any are.
        """
        here = [row for row in rows if row["cell"] == cell and row["level"] is not None]
        sides, others = [], []
        for key in map(level_key, levels):
            mine = [row for row in here if level_key(row["level"]) == key]
            counted = [row for row in mine if not claimed or row["seed"] in claimed]
            sides.append(_by_seed(counted))
            others += sorted((row for row in mine if row["seed"] not in sides[-1]), key=_by_name)
        seeds = tuple(sorted({*claimed, *sides[0], *sides[1]}))
        labels = [f"{factor}={level}" for level in levels]
        reason = _invalid([(labels[i], [*side.values()]) for i, side in enumerate(sides)])
        return cls(factor, *levels, cell, sides[0], sides[1], seeds, tuple(others), reason)

    def pairs(self, filled: bool) -> list[Pair]:
        """The seeds of which both runs have a value; `filled`: or diverged or failed."""
        number = _filled if filled else _value
        both = [
            (seed, number(self.baseline_runs.get(seed)), number(self.treatment_runs.get(seed)))
            for seed in self.seeds
        ]
        return [Pair(seed, a, b) for seed, a, b in both if a is not None and b is not None]

    def left_out(self) -> list[dict[str, str]]:
        """The runs that have no value, also those that were never planned."""
        found = []
        arms = ((self.baseline, self.baseline_runs), (self.treatment, self.treatment_runs))
        for level, runs in arms:
            place = ", ".join(filter(None, [f"{self.factor}={level}", self.cell]))
            for seed in self.seeds:
                run = runs.get(seed, {"name": f"{place}, seed={seed}", "status": "missing"})
                if _value(run) is None:
                    status = "no value" if run["status"] == "complete" else run["status"]
                    found.append({"name": run["name"], "status": status})
        return found + [{"name": run["name"], "status": "not claimed"} for run in self.not_claimed]

    def fills(self) -> list[dict[str, Any]]:
        """The runs that count with another value than their last one when all runs count."""
        runs = [*self.baseline_runs.values(), *self.treatment_runs.values()]
        filled = [run for run in runs if _value(run) is None and _filled(run) is not None]
        return [{"name": run["name"], "value": _filled(run)} for run in filled]


def _by_seed(rows: Sequence[Row]) -> dict[int, Row]:
    """One run a seed: the complete one, where a run was planned or tried twice."""
    chosen: dict[int, Row] = {}
    for row in sorted(rows, key=lambda row: (_value(row) is None, _by_name(row))):
        kept = chosen.setdefault(row["seed"], row)
        if _value(row) is not None and _value(row) != _value(kept):
            raise ValueError(
                f"{kept['name']} and {row['name']} are one cell, level and seed, but have "
                f"{_value(kept)} and {_value(row)}; name what differs between them"
            )
    return chosen


def _by_name(row: Row) -> tuple[str, int, str, str]:
    return row["name"], row["seed"], row["status"], str(row["last"])


def _value(run: Row | None) -> float | None:
    return _finite(run["value"]) if run and run["status"] == "complete" else None


def _filled(run: Row | None) -> float | None:
    """The run's value; of one that diverged or failed the last that it recorded, else 0 %."""
    if run is None or run["status"] not in ("diverged", "failed"):
        return _value(run)
    last = _finite(run["last"])
    return WORST if last is None else last


def _finite(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else float(number)


def level_key(text: str) -> Decimal | str:
    """A level to compare with: equal numbers are equal, however they are written."""
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return text.strip()
    return number if number.is_finite() else text.strip()


def natural_key(text: str) -> list[tuple[float, str]]:
    """A key that sorts numbers in a text by their value."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(float(p), "") if odd % 2 else (0.0, p) for odd, p in enumerate(parts)]


def _invalid(arms: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """Why two arms, each a label and its runs, must not be compared and what would be valid, or ""."""
    reasons = []
    budgets = {
        label: sorted({run["budget"] for run in runs if run["budget"] is not None})
        for label, runs in arms
    }
    if len({budget for side in budgets.values() for budget in side}) > 1:
        told = " and ".join(f"{label} trains {_either(side)}" for label, side in budgets.items())
        reasons.append(f"{told} epochs; valid would be the same budget for both")
    for label, runs in arms:
        broken = [run for run in runs if run["aligned"] is False]
        ends = sorted({run["budget"] for run in broken if run["budget"] is not None})
        fits = sorted({fit for run in broken for fit in run["nearest_aligned"] or ()})
        if broken:
            place = f"after {_either(ends)} epochs" if ends else "where its budget ends"
            valid = f"; the nearest budgets that end one: {_either(fits)}" if fits else ""
            reasons.append(f"{label} is in mid-cycle {place}{valid}")
    return ". ".join(reasons)


def _either(numbers: Sequence[float]) -> str:
    return " or ".join(f"{number:.10g}" for number in numbers) or "unknown"
