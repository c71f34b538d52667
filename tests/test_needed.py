"""Which planned runs a claim that goes on until decided needs, what the others would have cost, and progress."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from test_looks import CLAIM, GAIN, HOPELESS, OPEN, TWO
from test_summary import Run, complete, made

from harness.analysis import needed, results

MISSING: Run = ("missing", 0)
BASE = [90 + 0.25 * seed for seed in range(13)]


def sweep(folder: Path, *treatments: list[float], there: int | None = None) -> Path:
    """A sweep of 13 planned pairs: differences of treatments, as long as they are; `there` runs of the baseline."""
    there = max(map(len, treatments)) if there is None else there
    arms = {"1": complete(*BASE[:there])}
    for level, differences in zip("23", treatments, strict=False):
        pairs = zip(BASE, differences, strict=False)
        arms[level] = complete(*(base + difference for base, difference in pairs))
    arms = {level: [*runs, *[MISSING] * (13 - len(runs))] for level, runs in arms.items()}
    return made(folder, arms, CLAIM if len(treatments) == 1 else TWO, seeds=CLAIM.seeds)


def statuses(folder: Path) -> dict[str, list[str]]:
    """The statuses of each arm's runs, by seed."""
    runs = results.read(folder).group_by("arm", maintain_order=True).agg("status")
    return {arm.removeprefix("t_mult="): found for arm, found in runs.iter_rows()}


def in_turn(**counts: int) -> list[str]:
    return [name.replace("_", " ") for name, count in counts.items() for _ in range(count)]


def test_before_the_first_look_the_others_wait(tmp_path: Path) -> None:
    found = statuses(sweep(tmp_path, OPEN[:3], there=4))
    assert found == {
        "1": in_turn(complete=4, missing=2, waiting=7),
        "2": in_turn(complete=3, missing=3, waiting=7),
    }


def test_a_look_that_does_not_decide_asks_for_the_next(tmp_path: Path) -> None:
    assert statuses(sweep(tmp_path, OPEN[:6]))["2"] == in_turn(complete=6, missing=2, waiting=5)


@pytest.mark.parametrize("differences", [GAIN[:6], HOPELESS], ids=["decided", "undecidable"])
def test_nothing_more_is_needed_where_all_is_settled(
    tmp_path: Path, differences: list[float]
) -> None:
    folder = sweep(tmp_path, differences)
    assert statuses(folder) == dict.fromkeys("12", in_turn(complete=6, not_needed=7))


def test_the_baseline_goes_on_while_a_treatment_needs_it(tmp_path: Path) -> None:
    assert statuses(sweep(tmp_path, GAIN[:6], OPEN[:6])) == {
        "1": in_turn(complete=6, missing=2, waiting=5),
        "2": in_turn(complete=6, not_needed=7),
        "3": in_turn(complete=6, missing=2, waiting=5),
    }


def test_runs_that_ended_keep_their_status(tmp_path: Path) -> None:
    """Pairs that were trained beyond the look that decides, and one that failed there, are what they are."""
    folder = sweep(tmp_path, GAIN[:9])
    path = folder / "8/result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed"}))
    found = statuses(folder)
    assert found["1"] == [*in_turn(complete=8), "failed", *in_turn(not_needed=4)]
    assert found["2"] == in_turn(complete=9, not_needed=4)


def test_without_looks_every_planned_run_is_needed(tmp_path: Path) -> None:
    folder = sweep(tmp_path, GAIN[:6])
    plan = json.loads((folder / "plan.json").read_text())
    del plan["claim"]["looks"], plan["claim"]["decide"]
    (folder / "plan.json").write_text(json.dumps(plan))
    assert statuses(folder)["2"] == in_turn(complete=6, missing=7)
    assert needed.progress(folder) == []


def table(*rows: tuple[str, str, float | None, int | None]) -> pl.DataFrame:
    return pl.DataFrame(
        rows, ["arm", "status", "seconds", "updates_trained"], strict=False, orient="row"
    )


def test_what_was_not_needed_would_have_cost_what_runs_of_its_arm_did() -> None:
    runs = table(
        ("a", "complete", 10.0, 5), ("a", "complete", 20.0, 5), ("a", "not needed", None, None),
        ("b", "complete", 40.0, 5), ("b", "complete", 0.5, 0), ("b", "not needed", None, None),
        ("b", "not needed", None, None), ("b", "waiting", None, None), ("b", "missing", None, None),
    )  # fmt: skip
    assert needed.saved(runs) == {"runs": 3, "seconds": 15.0 + 2 * 40.0}


def test_it_is_unknown_where_no_run_of_the_arm_was_trained() -> None:
    runs = table(
        ("a", "complete", 10.0, 5), ("a", "not needed", None, None),
        ("b", "complete", 0.5, 0), ("b", "not needed", None, None),
    )  # fmt: skip
    assert needed.saved(runs) == {"runs": 2, "seconds": None}
    assert needed.saved(runs.filter(pl.col("status") == "complete"))["runs"] == 0


def test_progress_has_a_line_a_comparison(tmp_path: Path) -> None:
    assert needed.progress(sweep(tmp_path / "none", OPEN[:5])) == []
    head, first, second = needed.progress(sweep(tmp_path / "two", OPEN[:8], HOPELESS))
    assert head == (
        "look 2 of 4, 8 of at most 13 pairs; points of val/acc (repeated 95 % interval):"
    )
    assert first.startswith("  scheduler.t_mult=2 against 1: +0.34 (")
    assert "inconclusive: goes on" in first
    assert second.endswith("stopped with 6 pairs, undecidable with 13 at this spread")


def test_progress_names_the_runs_that_hold_a_look_open(tmp_path: Path) -> None:
    folder = sweep(tmp_path, OPEN[:8])
    for number, status in {6: "failed", 20: "interrupted"}.items():
        path = folder / str(number) / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": status}))
    head, first, held = needed.progress(folder)
    assert head.startswith("look 1 of 4, 6 of at most 13 pairs;")
    assert "goes on" in first
    assert held == (
        "the next look waits for t_mult=1, seed=6 (failed), t_mult=2, seed=7 (interrupted): "
        "the same command goes on"
    )
