"""Whether the cells of a sweep are results of their own, which an answer over all of them may count."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any


def why_not_pooled(rows: Sequence[dict[str, Any]]) -> str:
    """Return in a sentence why `rows`, as for `verdict.judge`, have no answer over their cells; "" where they have.

    Two cells of which all runs that both have ended with equal weights are one result, and would count twice.
    """
    if len({row["code"] for row in rows if row.get("code")}) > 1:
        return "Their metric is not of the same code, so they have no answer over all cells."
    cells: dict[str, dict[Any, str]] = {}
    for row in rows:
        if weights := row.get("weights_sha256"):
            cells.setdefault(row["cell"], {})[row["level"], row.get("tuned"), row["seed"]] = weights
    for (name, one), (other_name, other) in combinations(cells.items(), 2):
        equal = all(other.get(run, weights) == weights for run, weights in one.items())
        if equal and one.keys() & other.keys():
            return (
                f"{name} and {other_name} are the same runs, with equal weights, and would count twice, so "
                "there is no answer over all cells."
            )
    return ""
