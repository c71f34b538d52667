"""Which runs are paired, and what becomes of those that are missing."""

from __future__ import annotations

import json

import pytest
from test_verdict import Row, around, lost, only, rows, run

from harness.analysis.pairing import PairedRuns
from harness.analysis.states import INTERIM, SUPPORTED, TOO_FEW
from harness.analysis.verdict import Claim


def test_incomplete_runs_are_named_counted_and_imputed() -> None:
    arms = rows([0.5] * 11)
    arms[12] = lost(arms[12], "diverged", last=40.0)
    arms[13] = lost(arms[13], "failed") | {"refused": True}
    arms[14] = lost(arms[14], "failed", last=70.0)
    arms[15] = lost(arms[15], "interrupted", last=50.0)
    arms[4] = lost(arms[4], "missing")
    comparison = only(arms)
    assert comparison["complete_pairs"] == SUPPORTED
    assert [pair["seed"] for pair in comparison["pairs"]] == [0, 5, 6, 7, 8, 9, 10]
    assert comparison["left_out"] == [
        {"name": "t_mult=1, seed=4", "status": "missing"},
        {"name": "t_mult=2, seed=1", "status": "diverged"},
        {"name": "t_mult=2, seed=2", "status": "failed"},
        {"name": "t_mult=2, seed=3", "status": "failed"},
        {"name": "t_mult=2, seed=4", "status": "interrupted"},
    ]
    held = "This is over 7 of 11 pairs; runs left out: 1 diverged, 2 failed, 1 interrupted; missing: 1."
    counting = (
        "Counting the 2 that diverged or could not be built, as the last value recorded, else 0 %"
    )
    assert f"{held} {counting}: −15.25 points" in comparison["sentence"]
    assert comparison["verdict"] == INTERIM
    assert "interim, 9 of 11 pairs: +0.50 points" in comparison["sentence"]
    everyone = comparison["intention_to_treat"]
    assert everyone["filled"] == [
        {"name": "t_mult=2, seed=1", "value": 40.0},
        {"name": "t_mult=2, seed=2", "value": 0.0},
    ], "a failure of the environment is missing, like a run that was stopped"
    assert [pair["treatment"] for pair in everyone["pairs"][:3]] == [90.5, 40.0, 0.0]
    assert everyone["n"] == 9
    assert everyone["mean"] == pytest.approx((7 * 0.5 + (40 - 90.25) + (0 - 90.5)) / 9)


@pytest.mark.parametrize(
    ("incomplete", "status"),
    [
        pytest.param({"status": "missing", "value": None, "last": None}, "missing", id="missing"),
        pytest.param({"status": "interrupted", "value": None}, "interrupted", id="interrupted"),
        pytest.param(
            {"status": "failed", "value": None}, "failed", id="failed, by its surroundings"
        ),
        pytest.param({"value": None}, "no value", id="complete, but without the metric"),
        pytest.param({"value": float("nan")}, "no value", id="complete, but not a number"),
    ],
)
def test_what_cannot_be_imputed(incomplete: Row, status: str) -> None:
    arms = rows([*around(0.5), 0.5])
    arms[0] |= incomplete
    comparison = only(arms)
    assert comparison["left_out"] == [{"name": "t_mult=1, seed=0", "status": status}]
    assert comparison["intention_to_treat"] is None
    left_out = "missing: 1" if status == "missing" else f"left out: 1 {status}"
    assert comparison["sentence"].endswith(f" This is over 6 of 7 pairs; runs {left_out}.")


def test_a_baseline_that_diverges_wholly_leaves_no_pair() -> None:
    arms = rows([0.0] * 12)
    arms = [lost(row, "diverged", 10.0) if row["level"] == "1" else row for row in arms]
    comparison = only(arms)
    assert (comparison["n"], comparison["verdict"]) == (0, TOO_FEW)
    assert comparison["intention_to_treat"]["verdict"] == SUPPORTED


def test_claimed_seeds_without_a_run_are_missing_and_others_do_not_count() -> None:
    claim = Claim("scheduler.t_mult", "1", ("2",), seeds=(0, 1, 2, 3, 4, 5, 6, 99))
    arms = [row for row in rows([*around(0.5), 0.5, -9.0]) if row["name"] != "t_mult=2, seed=6"]
    comparison = only(arms, claim)
    assert [pair["seed"] for pair in comparison["pairs"]] == [0, 1, 2, 3, 4, 5]
    assert comparison["left_out"] == [
        {"name": "scheduler.t_mult=1, seed=99", "status": "missing"},
        {"name": "scheduler.t_mult=2, seed=6", "status": "missing"},
        {"name": "scheduler.t_mult=2, seed=99", "status": "missing"},
        {"name": "t_mult=1, seed=7", "status": "not claimed"},
        {"name": "t_mult=2, seed=7", "status": "not claimed"},
    ]
    assert comparison["verdict"] == INTERIM
    assert "6 of 8 pairs; runs left out: 2 not claimed; missing: 3." in comparison["sentence"]


def test_a_run_that_was_tried_again() -> None:
    arms = rows(around(0.5))
    again = lost(arms[0], "interrupted") | {"name": "an earlier try"}
    assert only([again, *arms]) == only(arms)
    assert only([*arms, arms[0]]) == only(arms)
    with pytest.raises(ValueError, match="lr=1 and t_mult=1, seed=0 are one cell, level and seed"):
        only([*arms, run("1", 0, 12.0, name="lr=1")])


def test_numerics_are_compared_within_pairs_and_not_in_the_key_of_the_factor() -> None:
    arms = [
        row
        | {
            "numerics": json.dumps(
                {"precision": "bf16" if row["level"] == "2" else "fp32", "threads": row["seed"]}
            )
        }
        for row in rows(around(0.5))
    ]
    levels = ("1", "2")
    ours = PairedRuns.select("scheduler.t_mult", levels, arms, ())
    assert ours.numerics() == ["precision fp32 against bf16 in 6 pairs"]
    assert PairedRuns.select("trainer.precision", levels, arms, ()).numerics() == []
    old = PairedRuns.select(
        "scheduler.t_mult", levels, [row | {"numerics": None} for row in arms], ()
    )
    assert old.numerics() == []


def test_numerics_that_one_run_lacks_are_a_difference() -> None:
    gpu = json.dumps({"device": "A100"})
    arms = [row | {"numerics": gpu if row["level"] == "1" else "{}"} for row in rows(around(0.5))]
    found = PairedRuns.select("scheduler.t_mult", ("1", "2"), arms, ()).numerics()
    assert found == ["device A100 against unknown in 6 pairs"]
    for odd in ("null", "[]", '"x"'):
        arms = [row | {"numerics": odd} for row in rows(around(0.5))]
        assert PairedRuns.select("scheduler.t_mult", ("1", "2"), arms, ()).numerics() == []


def test_runs_without_a_plan_that_have_not_ended_are_awaited() -> None:
    arms = rows([*around(0.5), 0.5, 0.5])
    arms[-1] = lost(arms[-1], "failed")
    assert only(arms)["verdict"] == INTERIM
    assert only(arms[:-1])["verdict"] == SUPPORTED
