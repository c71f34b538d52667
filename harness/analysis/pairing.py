"""The runs that a claim compares: pairs of runs of one seed, runs without a pair, invalid comparisons."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

from harness.analysis.paired_stats import tie_resolution

Row = dict[str, Any]
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


@dataclass(frozen=True)
class Pair:
    seed: int
    baseline: float
    treatment: float

    @property
    def difference(self) -> float:
        """Treatment less baseline, in the metric's own sign."""
        units = tie_resolution(max(abs(self.treatment), abs(self.baseline)))
        return round((self.treatment - self.baseline) * units) / units


@dataclass(frozen=True)
class PairedRuns:
    """The runs of one comparison by seed, and why some of them do not count.

    Runs of a claim that is not `paired` are by running numbers; they have no `seeds`.
    """

    factor: str
    baseline: str
    treatment: str
    cell: str
    baseline_runs: dict[int, Row]
    treatment_runs: dict[int, Row]
    seeds: tuple[int, ...]
    not_claimed: tuple[Row, ...]
    invalid: str  # why the two must not be compared, or ""
    tuned: tuple[str, str] = ("", "")  # with `Claim.tuned_over`: its values in the two arms
    worst: float = 0.0  # imputed for a run that diverged and recorded no value

    @classmethod
    def select(
        cls,
        factor: str,
        levels: tuple[str, str],
        rows: Sequence[Row],
        claimed: Sequence[int] | None,
        tuned: tuple[str, str] = ("", ""),
        worst: float = 0.0,
    ) -> PairedRuns:
        """Select those of `rows`, of one cell, with the level of the baseline or of the treatment.

        Seeds that are not `claimed` do not count, where any are. With None runs are not paired: all of them count.
        """
        arms, others = [], []
        for key, value in zip(map(level_key, levels), tuned, strict=True):
            same_level = [
                row
                for row in rows
                if row["level"] is not None
                and level_key(row["level"]) == key
                and (not value or row["tuned"] == value)
            ]
            counted = [row for row in same_level if not claimed or row["seed"] in claimed]
            if claimed is None:
                arms.append(dict(enumerate(sorted(counted, key=_natural))))
                continue
            arms.append(_by_seed(counted))
            others += sorted((r for r in same_level if r["seed"] not in arms[-1]), key=_by_name)
        seeds = () if claimed is None else tuple(sorted({*claimed, *arms[0], *arms[1]}))
        labels = [f"{factor}={level}" for level in levels]
        reason = _why_invalid(
            {label: [*arm.values()] for label, arm in zip(labels, arms, strict=True)}
        )
        cell = rows[0]["cell"] if rows else ""
        return cls(
            factor, *levels, cell, arms[0], arms[1], seeds, tuple(others), reason, tuned, worst
        )  # fmt: skip

    def pairs(self, impute: bool) -> list[Pair]:
        """Return the seeds of which both runs have a value; `impute`: or one that `imputed` lists."""
        value = self._imputed_value if impute else _value
        both = [
            (seed, value(self.baseline_runs.get(seed)), value(self.treatment_runs.get(seed)))
            for seed in self.seeds
        ]
        return [Pair(seed, a, b) for seed, a, b in both if a is not None and b is not None]

    def arms(self, impute: bool) -> tuple[list[float], list[float]]:
        """Return the values of the baseline and of the treatment; `impute`: also those that `imputed` lists."""
        value = self._imputed_value if impute else _value
        baseline, treatment = (
            [own for run in runs.values() if (own := value(run)) is not None]
            for runs in (self.baseline_runs, self.treatment_runs)
        )
        return baseline, treatment

    def planned(self) -> int:
        """Return how many pairs there are to be, or runs that are not paired."""
        return len(self.seeds) or len(self.baseline_runs) + len(self.treatment_runs)

    def there(self) -> int:
        """Return of how many of those `planned` the value is there, imputed ones too."""
        return len(self.pairs(impute=True)) if self.seeds else sum(map(len, self.arms(impute=True)))

    def test_pairs(self) -> list[Pair]:
        """Return the seeds of which both runs are complete and have the metric on the test set."""
        both = [
            (seed, _test(self.baseline_runs.get(seed)), _test(self.treatment_runs.get(seed)))
            for seed in self.seeds
        ]
        return [Pair(seed, a, b) for seed, a, b in both if a is not None and b is not None]

    def numerics(self) -> list[str]:
        """Return in what the two runs of pairs differ that changes rounding: `device: A against B in 3 pairs`."""
        differing: Counter[tuple[str, str, str]] = Counter()
        for pair in self.pairs(impute=False):
            arms = (self.baseline_runs[pair.seed], self.treatment_runs[pair.seed])
            one, other = (_numerics(run) for run in arms)
            for name in one.keys() | other.keys():
                a, b = (str(own.get(name, "unknown")) for own in (one, other))
                if a != b and not self.factor.endswith(f".{name}"):
                    differing[name, a, b] += 1
        return [
            f"{name} {a} against {b} in {count} pair{'s' * (count != 1)}"
            for (name, a, b), count in sorted(differing.items())
        ]

    def lrs(self) -> tuple[list[float], list[float]]:
        """Return the peak LRs of the baseline and of the treatment, where they are known."""
        baseline, treatment = (
            sorted({run["lr"] for run in runs.values() if run.get("lr") is not None})
            for runs in (self.baseline_runs, self.treatment_runs)
        )
        return baseline, treatment

    def plan(self) -> int:
        """Return the number of the sweep that the treatment's runs are of."""
        return min((int(run.get("plan") or 0) for run in self.treatment_runs.values()), default=0)

    def step(self) -> float:
        """Return how much of the metric one image makes, in points.

        Where their number was not recorded, and of metrics that have no such step, the least difference between two
        values that are there;
        infinite if there is none.
        """
        runs = [*self.baseline_runs.values(), *self.treatment_runs.values()]
        counts = [run["images"] for run in runs if run.get("images")]
        if counts:
            return 100 / float(min(counts))
        values = sorted({value for run in runs if (value := _value(run)) is not None})
        return min((b - a for a, b in pairwise(values)), default=math.inf)

    def left_out(self) -> list[dict[str, str]]:
        """List the runs that have no value, also those of a seed that were never planned."""
        found = []
        arms = ((self.baseline, self.baseline_runs), (self.treatment, self.treatment_runs))
        for level, runs in arms:
            arm = ", ".join(filter(None, [f"{self.factor}={level}", self.cell]))
            for seed in self.seeds or runs:
                run = runs.get(seed, {"name": f"{arm}, seed={seed}", "status": "missing"})
                if _value(run) is None:
                    status = "no value" if run["status"] == "complete" else run["status"]
                    found.append({"name": run["name"], "status": status})
        return found + [{"name": run["name"], "status": "not claimed"} for run in self.not_claimed]

    def treatment_imputed(self) -> bool:
        runs = self.treatment_runs.values()
        return any(_value(run) is None and self._imputed_value(run) is not None for run in runs)

    def unfinished(self) -> bool:
        """Return whether a run has not ended, or ended for reasons outside of its configuration."""
        runs = [*self.baseline_runs.values(), *self.treatment_runs.values()]
        return any(run["status"] != "complete" and self._imputed_value(run) is None for run in runs)

    def imputed(self) -> list[dict[str, Any]]:
        """List the runs whose value is imputed when all runs count, with that value."""
        runs = [*self.baseline_runs.values(), *self.treatment_runs.values()]
        imputed = [(run, self._imputed_value(run)) for run in runs if _value(run) is None]
        return [{"name": run["name"], "value": own} for run, own in imputed if own is not None]

    def _imputed_value(self, run: Row | None) -> float | None:
        """Return the run's value; of one that diverged, or whose network cannot be built, the last one, else the worst."""
        if run is None or not (run["status"] == "diverged" or run.get("refused")):
            return _value(run)
        last = _finite(run["last"])
        return self.worst if last is None else last


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


def _natural(row: Row) -> tuple[Any, ...]:
    return natural_key(row["name"]), row["status"], str(row["value"]), str(row["last"])


def _value(run: Row | None) -> float | None:
    return _finite(run["value"]) if run and run["status"] == "complete" else None


def _numerics(run: Row) -> dict[str, Any]:
    found = json.loads(run.get("numerics") or "{}")
    return found if isinstance(found, dict) else {}


def _test(run: Row | None) -> float | None:
    return _finite(run.get("test")) if run and run["status"] == "complete" else None


def _finite(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else float(number)


def level_key(text: str) -> Decimal | str:
    """Return what levels are compared by: equal numbers are equal, however they are written."""
    return Decimal(text.strip()) if _NUMBER.fullmatch(text.strip()) else text.strip()


def natural_key(text: str) -> list[tuple[float, str]]:
    """Return a key that sorts numbers in a text by their value."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(float(p), "") if odd % 2 else (0.0, p) for odd, p in enumerate(parts)]


def _why_invalid(arms: dict[str, list[Row]]) -> str:
    """Say why two arms, by label, must not be compared and what would be valid, or ""."""
    if any(arms.values()) and (absent := [label for label, runs in arms.items() if not runs]):
        return f"no run of {' or of '.join(absent)} has the same other settings"
    reasons = []
    budgets = {
        label: sorted({run["budget"] for run in runs if run["budget"] is not None})
        for label, runs in arms.items()
    }
    units = {run.get("budget_unit") or "epochs" for runs in arms.values() for run in runs}
    unit = " or ".join(sorted(units))
    if len({budget for own in budgets.values() for budget in own}) > 1 or len(units) > 1:
        lengths = " and ".join(f"{label} trains {_any_of(own)}" for label, own in budgets.items())
        reasons.append(f"{lengths} {unit}; valid would be the same budget for both")
    for label, runs in arms.items():
        misaligned = [run for run in runs if run["aligned"] is False]
        ends = sorted({run["budget"] for run in misaligned if run["budget"] is not None})
        nearest = sorted({fit for run in misaligned for fit in run["nearest_aligned"] or ()})
        if misaligned:
            where = f"after {_any_of(ends)} {unit}" if ends else "where its budget ends"
            valid = f"; the nearest budgets that end one: {_any_of(nearest)}" if nearest else ""
            reasons.append(f"{label} is in mid-cycle {where}{valid}")
    ids = [
        {run["seed"]: (run["run_id"], run.get("average")) for run in runs if run.get("run_id")}
        for runs in arms.values()
    ]
    if len(ids) == 2 and ids[0] and ids[0] == ids[1]:
        reasons.append(
            f"{' and '.join(arms)} are the same runs: the factor changes nothing with these settings; "
            "valid would be such that it does, as a longer budget"
        )
    return ". ".join(reasons)


def _any_of(numbers: Sequence[float]) -> str:
    return " or ".join(f"{number:.10g}" for number in numbers) or "unknown"
