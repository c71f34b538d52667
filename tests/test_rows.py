"""The table of compared runs: how they ended, their budgets, LRs and values, from what their curves came to."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness.config.measures import Measure
from harness.reading.recorded import RUNS, Recorded
from harness.reading.recover import Asked, recover
from harness.reading.rows import Curves, curves, table

Rows = list[tuple[int | None, float | None]]  # step, value
COSINE = [(1 + math.cos(math.pi * at / 5)) / 2 for at in range(5)]


def judged(
    *runs: tuple[int, Rows], statuses: list[str | None] | None = None, **columns: list[float | None]
) -> tuple[pl.DataFrame, Curves]:
    """The table of runs of a level of t_mult each, seed by seed; `columns` are those of all rows together."""
    seeds: dict[int, int] = {}
    names, rows = [], []
    for number, (level, own) in enumerate(runs):
        seed = seeds[level] = seeds.get(level, -1) + 1
        status = statuses[number] if statuses else "complete"
        settings = json.dumps({"t_mult": level, "seed": seed})
        names.append(
            {
                "run": f"r{number}",
                "status": status,
                "error": None,
                "where": "",
                "settings": settings,
            }
        )
        rows += [(number, *row) for row in own]
    schema = {"run": pl.UInt32, "step": pl.Int64, "acc": pl.Float64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    frame = frame.with_columns(pl.Series(k, own, pl.Float64) for k, own in columns.items())
    recorded = Recorded("test", pl.DataFrame(names, schema=RUNS), frame)
    found = recover(recorded, Asked("t_mult", "1", metric="acc"))
    roles = {"value": "acc"} | {role: role for role in ("lr", "epoch") if role in columns}
    own_curves = curves(recorded, found, roles, "higher")
    measure = Measure("higher", "%")
    return table(found, own_curves, measure, "runs.csv", Path("c.parquet")), own_curves


def only(table: pl.DataFrame, name: str) -> dict[str, Any]:
    return table.row(by_predicate=pl.col("name") == name, named=True)


def test_the_baseline_comes_first_and_numbers_stay() -> None:
    runs, _ = judged((2, [(9, 5.0)]), (1, [(9, 4.0)]))
    assert runs.select("name", "num", "level", "final", "folder").rows() == [
        ("r1", 1, "1", 4.0, "c.parquet/1"), ("r0", 0, "2", 5.0, "c.parquet/0"),
    ]  # fmt: skip


def test_the_last_value_counts_and_the_best_is_known() -> None:
    runs, _ = judged((1, [(1, 7.0), (2, 6.0)]), (2, [(1, 1.0), (2, 2.0)]))
    assert runs.select("final", "best", "budget", "budget_unit").rows() == [
        (6.0, 7.0, 2.0, "steps"), (2.0, 2.0, 2.0, "steps"),
    ]  # fmt: skip
    assert json.loads(runs["metrics"][0]) == {
        "acc": {"better": "higher", "unit": "%", "final": 6.0, "best": 7.0, "test": None}
    }


def test_budgets_are_epochs_where_these_are_known_of_all_last_values() -> None:
    runs, own = judged((1, [(10, 7.0)]), (2, [(30, 1.0)]), epoch=[5.0, 5.0])
    assert (own.unit, runs["budget"].to_list()) == ("epochs", [5.0, 5.0])
    runs, own = judged((1, [(10, 7.0)]), (2, [(30, 1.0)]), epoch=[5.0, None])
    assert (own.unit, runs["budget"].to_list()) == ("steps", [10.0, 30.0])


def test_final_values_have_no_budget() -> None:
    runs, own = judged((1, [(None, 7.0)]), (2, [(None, 1.0)]))
    assert (own.unit, runs["budget"].to_list()) == ("", [None, None])
    assert runs["status"].to_list() == ["complete", "complete"]


def test_a_run_that_ends_before_others_of_its_arm_is_shorter() -> None:
    states: list[str | None] = [None] * 4
    runs, _ = judged((1, [(9, 7.0)]), (1, [(4, 6.0)]), (2, [(9, 1.0)]), (2, [(9, 1.0)]), statuses=states)  # fmt: skip
    short = only(runs, "r1")
    assert (short["status"], short["error"]) == (
        "shorter",
        "ends at step 4, others of its arm at 9",
    )
    assert short["budget"] is None
    assert only(runs, "r0")["status"] == "complete"


@pytest.mark.parametrize("state", [None, "complete"])
def test_a_run_whose_last_rows_lack_the_value_is_not_complete(state: str | None) -> None:
    """As pandas writes NaN."""
    whole: Rows = [(1, 7.0), (2, 8.0), (3, 9.0)]
    cut: Rows = [(1, 7.0), (2, 8.0), (3, None)]
    for runs, _ in (judged((1, whole), (2, cut), statuses=[state] * 2), judged((1, cut), (2, whole), statuses=[state] * 2)):  # fmt: skip
        (lost,) = runs.filter(pl.col("status") != "complete").to_dicts()
        assert (lost["status"], lost["final"], lost["budget"]) == ("no value", 8.0, None)
        assert (
            lost["error"]
            == "has no acc after step 2, but rows to step 3: an empty cell may be a NaN"
        )


def test_a_run_that_was_evaluated_less_often_lacks_no_cell() -> None:
    often: Rows = [(step, 7.0 if step % 5 == 0 else None) for step in range(1, 11)]
    seldom: Rows = [(step, 7.0 if step % 4 == 0 else None) for step in range(1, 11)]
    runs, _ = judged((1, often), (2, seldom), (2, often))
    assert runs.filter(name="r1").select("status", "error").row(0) == (
        "no value", "was last evaluated at step 8, as every 4 steps; others are at 10",
    )  # fmt: skip


def test_rows_of_other_metrics_after_the_last_value_are_no_fault() -> None:
    rows: Rows = [(1, 7.0), (2, 8.0), (3, None)]
    runs, _ = judged((1, rows), (2, rows))
    assert runs["status"].to_list() == ["complete", "complete"]


def test_arms_of_different_lengths_are_complete_and_cannot_be_compared() -> None:
    states: list[str | None] = [None] * 2
    runs, _ = judged((1, [(9, 7.0)]), (2, [(4, 6.0)]), statuses=states)
    assert runs.select("status", "budget").rows() == [("complete", 9.0), ("complete", 4.0)]


@pytest.mark.parametrize("last", [math.nan, math.inf])
def test_a_run_whose_last_value_is_not_finite_has_diverged(last: float) -> None:
    runs, _ = judged((1, [(1, 7.0), (2, last)]), (2, [(2, 1.0)]))
    lost = only(runs, "r0")
    assert (lost["status"], lost["error"]) == ("diverged", f"its last value at step 2 is {last}")
    assert (lost["final"], lost["best"]) == (7.0, 7.0)


@pytest.mark.parametrize("state", ["running", "crashed", "killed", "whatever"])
def test_other_states_are_not_complete(state: str) -> None:
    runs, _ = judged((1, [(9, 7.0)]), (2, [(9, 1.0)]), statuses=[state, "complete"])
    assert runs.select("status", "budget").rows() == [(state, None), ("complete", 9.0)]


def test_a_run_without_the_metric_has_no_value() -> None:
    runs, _ = judged((1, [(9, None)]), (1, [(9, 3.0)]), (2, [(9, 1.0)]))
    assert only(runs, "r0")["final"] is None


def test_the_lr_gives_ends_restarts_and_alignment() -> None:
    whole: Rows = [(step, 1.0) for step in range(10)]
    runs, own = judged((1, whole), (2, whole[:8]), lr=[*COSINE, *COSINE, *COSINE, *COSINE[:3]])
    assert runs.select("restarts", "aligned").rows() == [(1, True), (1, False)]
    assert runs["lr_share_at_end"].to_list() == [COSINE[-1], COSINE[2]]
    assert own.rows.filter(run=1)["lr"].to_list() == [*COSINE, *COSINE[:3]]


def test_an_lr_of_other_steps_is_kept_beside_the_values() -> None:
    _, own = judged(
        (1, [(1, None), (2, 5.0)]), (2, [(1, None), (2, 6.0)]), lr=[0.5, None, 0.5, None]
    )
    assert own.rows.select("run", "step", "lr", "value").rows() == [
        (0, 1, 0.5, None), (0, 2, None, 5.0), (1, 1, 0.5, None), (1, 2, None, 6.0),
    ]  # fmt: skip


def test_a_resumed_run_is_named() -> None:
    _, own = judged((1, [(1, 5.0), (2, 5.5), (3, 6.0), (2, 7.0)]), (2, [(2, 6.0)]))
    assert own.notes == ["1 run went back to an earlier step (r0): the rows recorded last count"]
    assert own.rows.filter(run=0).select("step", "value").rows() == [(1, 5.0), (2, 7.0)]


def test_a_run_that_was_stopped_in_mid_cycle_makes_no_comparison_invalid() -> None:
    whole: Rows = [(step, 1.0) for step in range(10)]
    states: list[str | None] = ["crashed", "complete", "complete"]
    lrs: list[float | None] = [*COSINE, *COSINE[:3], *COSINE, *COSINE, *COSINE, *COSINE]
    runs, _ = judged((1, whole[:8]), (1, whole), (2, whole), statuses=states, lr=lrs)
    assert runs.select("name", "aligned", "lr_share_at_end").rows() == [
        ("r0", None, None), ("r1", True, COSINE[-1]), ("r2", True, COSINE[-1]),
    ]  # fmt: skip


def test_a_run_that_diverged_before_others_of_its_arm_end_is_not_shorter() -> None:
    states: list[str | None] = [None] * 3
    runs, _ = judged((1, [(9, 7.0)]), (1, [(4, math.nan)]), (2, [(9, 1.0)]), statuses=states)
    assert only(runs, "r1")["status"] == "diverged"


def test_lrs_without_an_epoch_are_placed_between_those_of_their_run() -> None:
    rows: Rows = [(0, None), (4, 1.0), (6, None), (8, 2.0), (10, None)]
    runs, own = judged(
        (1, rows), (2, [(4, 1.0), (8, 2.0)]),
        lr=[0.5, None, 0.4, None, 0.3, 0.5, 0.4], epoch=[None, 1.0, None, 2.0, None, 1.0, 2.0],
    )  # fmt: skip
    assert own.rows["epoch"].to_list() == [1.0, 1.0, 1.5, 2.0, 2.0, 1.0, 2.0]
    assert own.notes[1:] == ["LRs of 1 run have no epoch: they are drawn at that of their step, between the rows that have one"]  # fmt: skip
    assert runs["budget"].to_list() == [2.0, 2.0]


def test_lrs_by_steps_need_no_epoch() -> None:
    rows: Rows = [(0, None), (4, 1.0), (8, 2.0)]
    _, own = judged((1, rows), (2, rows), lr=[0.5] * 6, epoch=[None, 1.0, None] * 2)
    assert own.unit == "steps"
    assert not any("no epoch" in note for note in own.notes)
