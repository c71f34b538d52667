"""The runs that a claim compares: pairs of runs of one seed, runs without a pair, invalid comparisons."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from harness.analysis.paired_stats import TIE_RESOLUTION

Row = dict[str, Any]

IMPUTATION = "the last value that they recorded, else 0 %"
WORST = 0.0  # percent: imputed for a run that recorded no value


@dataclass(frozen=True)
class Pair:
    seed: int
    baseline: float
    treatment: float

    @property
    def difference(self) -> float:
        """In points, treatment less baseline."""
        return round((self.treatment - self.baseline) * TIE_RESOLUTION) / TIE_RESOLUTION


@dataclass(frozen=True)
class PairedRuns:
    """The runs of one comparison by seed, and why some of them do not count."""

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
    def select(
        cls,
        factor: str,
        levels: tuple[str, str],
        cell: str,
        rows: Sequence[Row],
        claimed: Sequence[int],
    ) -> PairedRuns:
        """Select those of `rows` in the cell with the level of the baseline or of the treatment.

        Seeds that are not `claimed` do not count, where any are.
        """
        here = [row for row in rows if row["cell"] == cell and row["level"] is not None]
        arms, others = [], []
        for key in map(level_key, levels):
            same_level = [row for row in here if level_key(row["level"]) == key]
            counted = [row for row in same_level if not claimed or row["seed"] in claimed]
            arms.append(_by_seed(counted))
            others += sorted((r for r in same_level if r["seed"] not in arms[-1]), key=_by_name)
        seeds = tuple(sorted({*claimed, *arms[0], *arms[1]}))
        labels = [f"{factor}={level}" for level in levels]
        reason = _why_invalid(
            {label: [*arm.values()] for label, arm in zip(labels, arms, strict=True)}
        )
        return cls(factor, *levels, cell, arms[0], arms[1], seeds, tuple(others), reason)

    def pairs(self, impute: bool) -> list[Pair]:
        """Return the seeds of which both runs have a value; `impute`: or diverged or failed."""
        value = _imputed_value if impute else _value
        both = [
            (seed, value(self.baseline_runs.get(seed)), value(self.treatment_runs.get(seed)))
            for seed in self.seeds
        ]
        return [Pair(seed, a, b) for seed, a, b in both if a is not None and b is not None]

    def left_out(self) -> list[dict[str, str]]:
        """List the runs that have no value, also those that were never planned."""
        found = []
        arms = ((self.baseline, self.baseline_runs), (self.treatment, self.treatment_runs))
        for level, runs in arms:
            arm = ", ".join(filter(None, [f"{self.factor}={level}", self.cell]))
            for seed in self.seeds:
                run = runs.get(seed, {"name": f"{arm}, seed={seed}", "status": "missing"})
                if _value(run) is None:
                    status = "no value" if run["status"] == "complete" else run["status"]
                    found.append({"name": run["name"], "status": status})
        return found + [{"name": run["name"], "status": "not claimed"} for run in self.not_claimed]

    def imputed(self) -> list[dict[str, Any]]:
        """List the runs whose value is imputed when all runs count, with that value."""
        runs = [*self.baseline_runs.values(), *self.treatment_runs.values()]
        without = [run for run in runs if _value(run) is None and _imputed_value(run) is not None]
        return [{"name": run["name"], "value": _imputed_value(run)} for run in without]


def _by_seed(rows: Sequence[Row]) -> dict[int, Row]:
    """Return one run a seed: the complete one, where a run was planned or tried twice."""
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


def _imputed_value(run: Row | None) -> float | None:
    """Return the run's value; of one that diverged or failed the last that it recorded, else 0 %."""
    if run is None or run["status"] not in ("diverged", "failed"):
        return _value(run)
    last = _finite(run["last"])
    return WORST if last is None else last


def _finite(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else float(number)


def level_key(text: str) -> Decimal | str:
    """Return what levels are compared by: equal numbers are equal, however they are written."""
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return text.strip()
    return number if number.is_finite() else text.strip()


def natural_key(text: str) -> list[tuple[float, str]]:
    """Return a key that sorts numbers in a text by their value."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(float(p), "") if odd % 2 else (0.0, p) for odd, p in enumerate(parts)]


def _why_invalid(arms: dict[str, list[Row]]) -> str:
    """Say why two arms, by label, must not be compared and what would be valid, or ""."""
    reasons = []
    budgets = {
        label: sorted({run["budget"] for run in runs if run["budget"] is not None})
        for label, runs in arms.items()
    }
    if len({budget for own in budgets.values() for budget in own}) > 1:
        lengths = " and ".join(f"{label} trains {_any_of(own)}" for label, own in budgets.items())
        reasons.append(f"{lengths} epochs; valid would be the same budget for both")
    for label, runs in arms.items():
        misaligned = [run for run in runs if run["aligned"] is False]
        ends = sorted({run["budget"] for run in misaligned if run["budget"] is not None})
        nearest = sorted({fit for run in misaligned for fit in run["nearest_aligned"] or ()})
        if misaligned:
            where = f"after {_any_of(ends)} epochs" if ends else "where its budget ends"
            valid = f"; the nearest budgets that end one: {_any_of(nearest)}" if nearest else ""
            reasons.append(f"{label} is in mid-cycle {where}{valid}")
    return ". ".join(reasons)


def _any_of(numbers: Sequence[float]) -> str:
    return " or ".join(f"{number:.10g}" for number in numbers) or "unknown"
