"""Cells that are no results of their own have no answer over them."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from test_verdict import CLAIM, around, rows

from harness.analysis.pooled import why_not_pooled
from harness.analysis.verdict import judge


def ended(cell: str, level: str, seed: int, weights: str | None, code: str = "") -> dict[str, Any]:
    return {
        "cell": cell,
        "level": level,
        "seed": seed,
        "weights_sha256": weights,
        "code": code or None,
    }


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        pytest.param([ended("a", "1", 0, "w"), ended("b", "1", 0, "w")], "a and b are the same runs", id="equal"),
        pytest.param([ended("a", "1", 0, "w"), ended("b", "1", 0, "v")], "", id="others"),
        pytest.param([ended(cell, level, 0, w) for cell, level, w in (("a", "1", "w"), ("a", "2", "u"), ("b", "1", "w"), ("b", "2", "v"))], "", id="the baseline alone is equal"),
        pytest.param([ended("a", "1", 0, "w"), ended("a", "2", 0, None), ended("b", "1", 0, "w"), ended("b", "2", 0, "v")], "a and b are the same runs", id="one is missing"),
        pytest.param([ended("a", "1", 0, "w"), ended("b", "1", 1, "w")], "", id="no run of both"),
        pytest.param([ended("a", "1", 0, None), ended("b", "1", 0, None)], "", id="not known"),
        pytest.param([ended("a", "1", 0, "w", "x"), ended("b", "1", 1, "v", "y")], "Their metric is not of the same code", id="another metric"),
    ],
)  # fmt: skip
def test_cells_that_are_one_result_have_no_answer_over_them(
    runs: list[dict[str, Any]], why: str
) -> None:
    found = why_not_pooled(runs)
    assert found.startswith(why) if why else found == ""


def test_a_verdict_says_why_there_is_no_answer_over_its_cells() -> None:
    runs = [
        row | {"cell": cell, "weights_sha256": f"{row['level']} {row['seed']}"}
        for cell in ("clip=null", "clip=1e9")
        for row in rows(around(0.3))
    ]
    verdict = judge(CLAIM, pl.DataFrame(runs))
    assert len(verdict["comparisons"]) == 2
    assert verdict["over_cells"] == []
    assert verdict["sentence"].endswith(
        "clip=null and clip=1e9 are the same runs, with equal weights, and would count twice, so there is no "
        "answer over all cells."
    )
    others = pl.DataFrame([row | {"weights_sha256": None} for row in runs])
    assert len(judge(CLAIM, others)["over_cells"]) == 1
