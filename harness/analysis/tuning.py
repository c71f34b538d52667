"""Results of tuning runs → the value that an arm's runs have in the claim. docs/verdict.md has the rule."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from harness.analysis import paired_stats as paired
from harness.analysis.pairing import level_key

Value = str | tuple[str, ...]  # of the key as text; of several keys one each

MOST_ADDED = 3  # values, beyond the edges of a grid


@dataclass(frozen=True)
class Choice:
    """The value that was chosen, and of what: the `best` by `mean`, with its standard error.

    `edge` says that the best is the smallest or largest number that was tried, so that a better one may lie
    beyond. Values of which a run diverged are `ruled_out`.
    """

    value: Value
    best: Value
    mean: float
    se: float
    edge: bool
    ruled_out: tuple[Value, ...]


def choose(tried: Mapping[Value, Sequence[float | None]], sign: int = 1) -> Choice | None:
    """Choose by what the tuning seeds came to (None: diverged) at each value that was tried; `sign` is -1 where lower
    is better.

    The smallest value whose mean is within one standard error of the best one's mean (Breiman, Friedman, Olshen
    & Stone 1984, § 3.4.3); what are not all numbers is smaller where it stands earlier. None if all values are
    ruled out. Raises ValueError for less than two seeds, which have no standard error.
    """
    values = [*tried]
    if numbers := _numbers(values):
        values.sort(key=numbers.__getitem__)
    results = {
        value: sign * np.array(tried[value], np.float64) for value in values
    }  # None becomes NaN
    if any(len(runs) < 2 for runs in results.values()):
        raise ValueError("a choice needs two tuning seeds or more")
    means = {
        value: float(paired.mean(runs))
        for value, runs in results.items()
        if not np.isnan(runs).any()
    }
    if not means:
        return None
    best = max(means, key=means.__getitem__)
    se = float(paired.sample_std(results[best])) / math.sqrt(len(results[best]))
    return Choice(
        value=next(value for value, mean in means.items() if mean >= means[best] - se),
        best=best,
        mean=sign * means[best],
        se=se,
        edge=bool(numbers) and best in (values[0], values[-1]),
        ruled_out=tuple(value for value in values if value not in means),
    )


def extend(grid: Sequence[Value], tried: Sequence[Value], best: Value) -> str | None:
    """Return the number to try beyond the edge of all `tried` ones at which the best lies; None if it lies within.

    Twice the largest or half the smallest; whole numbers stay whole. None too for what has no such number (odd
    ones, 0, text, several keys), and where `grid` already has got three more.
    """
    numbers = _numbers(tried)
    if not numbers or len(tried) >= len(grid) + MOST_ADDED or numbers[best] <= 0:
        return None
    number, whole = numbers[best], "." not in str(best) and "e" not in str(best).lower()
    if number == max(numbers.values()):
        return str(number * 2)
    if number > min(numbers.values()) or (whole and number % 2):
        return None
    return str(number / 2)


def _numbers(values: Sequence[Value]) -> dict[Value, Decimal]:
    """Return the number that each value is; none unless all are."""
    keys = {value: level_key(value) for value in values if isinstance(value, str)}
    numbers: dict[Value, Decimal] = {
        value: key for value, key in keys.items() if isinstance(key, Decimal)
    }
    return numbers if len(numbers) == len(values) else {}


def to_text(value: Value) -> str:
    """Return a value, of several keys one behind the other, as a text."""
    return value if isinstance(value, str) else ", ".join(value)


def from_text(text: str) -> Value:
    """Return what `to_text` made a text of."""
    return tuple(text.split(", ")) if ", " in text else text


def record_sha256(record: Mapping[str, Any]) -> str:
    """Hash the canonical JSON of what was tuned."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
