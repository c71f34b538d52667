"""The judge: a case for every state, what decides it, what its sentence says, and that order does not matter."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis import states
from harness.analysis.states import (
    ANY_SUPPORTED,
    EQUIVALENT,
    INCONCLUSIVE,
    INTERIM,
    INVALID,
    NO_GAIN,
    SUPPORTED,
    SUPPORTED_SMALLER,
    SUPPORTED_UNSURE,
    TOO_COARSE,
    TOO_FEW,
    WORSE,
)
from harness.analysis.verdict import Claim, judge

CLAIM = Claim("scheduler.t_mult", "1", ("2",))
SCHEMA: dict[str, Any] = {
    "name": pl.String, "level": pl.String, "cell": pl.String, "seed": pl.Int64, "status": pl.String,
    "value": pl.Float64, "last": pl.Float64, "budget": pl.Float64, "aligned": pl.Boolean,
    "nearest_aligned": pl.List(pl.Float64), "test": pl.Float64, "lr": pl.Float64,
    "images": pl.Int64, "numerics": pl.String, "refused": pl.Boolean, "tuned": pl.String,
}  # fmt: skip
Row = dict[str, Any]


def run(level: str, seed: int, value: float | None, **changes: Any) -> Row:
    """A complete, aligned run of 35 epochs with 10,000 validation images, but for the changes."""
    name = f"t_mult={level}, seed={seed}"
    row = {"name": name, "level": level, "cell": "", "seed": seed, "status": "complete"}
    row |= {"value": value, "last": value, "budget": 35.0, "aligned": True, "nearest_aligned": []}
    return row | {"images": 10_000} | changes


def rows(differences: Sequence[float], level: str = "2", **changes: Any) -> list[Row]:
    """Runs of the baseline, 90 % and a little more each seed, and of a treatment that differs so."""
    base = [run("1", seed, 90 + 0.25 * seed, **changes) for seed in range(len(differences))]
    treated = [
        run(level, seed, 90 + 0.25 * seed + difference, **changes)
        for seed, difference in enumerate(differences)
    ]
    return [*base, *treated]


def judged(runs: Sequence[Row], claim: Claim = CLAIM) -> dict[str, Any]:
    verdict = judge(claim, pl.DataFrame(list(runs), schema=SCHEMA))
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict
    return verdict


def only(runs: Sequence[Row], claim: Claim = CLAIM) -> dict[str, Any]:
    """The verdict's one comparison."""
    (comparison,) = judged(runs, claim)["comparisons"]
    assert isinstance(comparison, dict)
    return comparison


def lost(row: Row, status: str, last: float | None = None) -> Row:
    return row | {"status": status, "value": None, "last": last}


# --- states and what they say ----------------------------------------------------------------------

SPREAD = [-0.1, -0.05, 0.0, 0.0, 0.05, 0.1]  # sd 0.0707: the 95 % interval is the mean ± 0.0742
ENDS = [-0.6, -0.3, 0.0, 0.0, 0.3, 0.6]


def around(mean: float, spread: Sequence[float] = SPREAD) -> list[float]:
    return [mean + one for one in spread]


WEAK = around(0.13, [2.4 * one for one in [*SPREAD, -0.03, 0.03]])  # above 0, but not among six


def noise(seed: int) -> list[float]:
    """Eight differences about 0."""
    return [float(one) for one in np.random.default_rng(seed).normal(0, 0.2, 8)]


@pytest.mark.parametrize(
    ("differences", "verdict", "sentence"),
    [
        pytest.param(around(0.3), SUPPORTED, "supported: +0.30 points of val/acc (95 % interval +0.23 to +0.37, 6 pairs); above the margin of 0.2.", id="supported"),
        pytest.param(around(0.1), SUPPORTED_SMALLER, "supported, smaller than the margin: +0.10 points of val/acc (95 % interval +0.03 to +0.17, 6 pairs); above 0 and below the margin of 0.2.", id="below the margin"),
        pytest.param(around(0.25), SUPPORTED_UNSURE, "supported, size unsure: +0.25 points of val/acc (95 % interval +0.18 to +0.32, 6 pairs); above 0; whether above the margin of 0.2 is open.", id="around the margin"),
        pytest.param(around(-0.1), WORSE, "worse: −0.10 points of val/acc (95 % interval −0.17 to −0.03, 6 pairs); below 0.", id="worse"),
        pytest.param(around(0.05), EQUIVALENT, "equivalent: +0.05 points of val/acc (95 % interval −0.02 to +0.12, 6 pairs); its 90 % interval, −0.01 to +0.11, is within ±0.2.", id="equivalent"),
        pytest.param(around(-0.001), EQUIVALENT, "equivalent: +0.00 points of val/acc (95 % interval −0.08 to +0.07, 6 pairs); its 90 % interval, −0.06 to +0.06, is within ±0.2.", id="a little below nothing"),
        pytest.param(around(-0.2, [4 * one for one in SPREAD]), NO_GAIN, "no gain that matters: −0.20 points of val/acc (95 % interval −0.50 to +0.10, 6 pairs); a gain of 0.2 is ruled out.", id="no gain"),
        pytest.param(around(0.0, [10 * one for one in SPREAD]), INCONCLUSIVE, "inconclusive: +0.00 points of val/acc (95 % interval −0.74 to +0.74, 6 pairs); neither a difference nor its absence shows; about 212 pairs would show a gain of 0.2 or rule it out, with 80 % power.", id="inconclusive"),
        pytest.param(around(0.0, [100 * one for one in SPREAD]), INCONCLUSIVE, "inconclusive: +0.00 points of val/acc (95 % interval −7.42 to +7.42, 6 pairs); neither a difference nor its absence shows; more than 1000 pairs would show a gain of 0.2 or rule it out, with 80 % power.", id="hopeless"),
        pytest.param(around(9)[:5], TOO_FEW, "too few pairs: +8.98 points of val/acc (95 % interval +8.91 to +9.05, 5 pairs); fewer than 6 pairs cannot reach p < 0.05.", id="five pairs"),
        pytest.param([0.3], TOO_FEW, "too few pairs: +0.30 points of val/acc (no interval, 1 pair); fewer than 6 pairs cannot reach p < 0.05.", id="one pair"),
        pytest.param([], TOO_FEW, "too few pairs: 0 pairs; fewer than 6 pairs cannot reach p < 0.05.", id="no run at all"),
        pytest.param([0.0] * 6, EQUIVALENT, "equivalent: +0.00 points of val/acc (95 % interval +0.00 to +0.00, 6 pairs); its 90 % interval, +0.00 to +0.00, is within ±0.2.", id="no difference at all"),
        pytest.param([0.2] * 6, SUPPORTED_UNSURE, "supported, size unsure: +0.20 points of val/acc (95 % interval +0.20 to +0.20, 6 pairs); above 0; whether above the margin of 0.2 is open.", id="all equal to the margin"),
        pytest.param([0.3] * 6, SUPPORTED, "supported: +0.30 points of val/acc (95 % interval +0.30 to +0.30, 6 pairs); above the margin of 0.2.", id="all equal"),
    ],
)  # fmt: skip
def test_states(differences: list[float], verdict: str, sentence: str) -> None:
    document = judged(rows(differences))
    (comparison,) = document["comparisons"]
    assert comparison["sentence"] == f"scheduler.t_mult=2 against 1 – {sentence}"
    assert comparison["verdict"] == verdict
    assert document["sentence"] == comparison["sentence"]
    assert comparison["left_out"] == []
    assert comparison["intention_to_treat"] is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param(
            {"1": {}, "2": {"aligned": False, "nearest_aligned": [15.0, 75.0]}},
            "scheduler.t_mult=2 is in mid-cycle after 35 epochs; the nearest budgets that end one: "
            "15 or 75.",
            id="misaligned",
        ),
        pytest.param(
            {"1": {"aligned": False, "budget": None}, "2": {"nearest_aligned": None}},
            "scheduler.t_mult=1 is in mid-cycle where its budget ends.",
            id="misaligned, of unknown budget",
        ),
        pytest.param(
            {"1": {"budget": 7.5}, "2": {}},
            "scheduler.t_mult=1 trains 7.5 and scheduler.t_mult=2 trains 35 epochs; valid would be "
            "the same budget for both.",
            id="unequal budgets",
        ),
        pytest.param(
            {"1": {}, "2": {"budget": 50.0, "aligned": False, "nearest_aligned": [35.0, 75.0]}},
            "scheduler.t_mult=1 trains 35 and scheduler.t_mult=2 trains 50 epochs; valid would be "
            "the same budget for both. scheduler.t_mult=2 is in mid-cycle after 50 epochs; the "
            "nearest budgets that end one: 35 or 75.",
            id="both",
        ),
    ],
)
def test_what_must_not_be_compared(changes: dict[str, Row], sentence: str) -> None:
    arms = [row | changes[row["level"]] for row in rows([*around(0.5), 0.5])]
    arms[-1] = lost(arms[-1], "diverged")
    comparison = only(arms)
    assert comparison["verdict"] == INVALID
    assert comparison["sentence"] == (
        f"scheduler.t_mult=2 against 1 – invalid: {sentence} Runs left out: 1 diverged."
    )
    assert comparison["p_adjusted"] is None
    assert comparison["intention_to_treat"] is None
    assert comparison["mean"] == pytest.approx(0.5)  # reported, not judged


@pytest.mark.parametrize("aligned", [None, True])
def test_arms_without_cycles_and_unknown_budgets_are_valid(aligned: bool | None) -> None:
    arms = [row | {"aligned": aligned, "budget": None} for row in rows(around(0.5))]
    assert only(arms)["verdict"] == SUPPORTED


def test_margin_and_level_are_the_claims() -> None:
    comparison = only(rows(around(0.3)), Claim("f", "1", ("2",), margin=0.25))
    assert comparison["verdict"] == SUPPORTED_UNSURE
    few = only(rows(around(0.1)), Claim("f", "1", ("2",), level=0.01))
    assert few["verdict"] == TOO_FEW, "6 pairs cannot reach p < 0.01, 8 can"
    assert few["sentence"].endswith("fewer than 8 pairs cannot reach p < 0.01.")
    assert "99 % interval −0.02 to +0.22" in few["sentence"]
    four = only(rows([0.5, 0.5, 0.51, 0.52]), Claim("f", "1", ("2",), level=0.2))
    assert four["verdict"] == SUPPORTED, "at level 0.2 four pairs can"
    fine = only(rows([one / 100 for one in around(0.3)]), Claim("f", "1", ("2",), margin=0.002))
    assert "+0.0030 points" in fine["sentence"]
    none = Claim("scheduler.t_mult", "1", ("2",), margin=0)
    assert only(rows([0.0] * 6), none)["verdict"] == TOO_COARSE, "no set can see nothing"
    assert only(rows(around(0.3)), none)["verdict"] == SUPPORTED


@pytest.mark.parametrize(
    ("images", "verdict"),
    [
        pytest.param(288, TOO_COARSE, id="an image is 0.35 points"),
        pytest.param(500, EQUIVALENT, id="an image is the margin"),
        pytest.param(None, TOO_COARSE, id="not recorded, a quarter of a point between accuracies"),
    ],
)
def test_no_spread_on_a_set_that_cannot_see_the_margin(images: int | None, verdict: str) -> None:
    comparison = only(rows([0.0] * 6, images=images))
    assert comparison["verdict"] == verdict
    if images == 288:
        reason = "cannot see the margin of 0.2: one image is 0.35 points."
        assert comparison["sentence"].endswith(reason)
    assert only(rows(around(0.05), images=images))["verdict"] == EQUIVALENT, "pairs that differ"


# --- several comparisons ---------------------------------------------------------------------------


def test_invalid_comparisons_do_not_count_and_empty_ones_do() -> None:
    good, other = rows(around(0.5), cell="a"), rows(around(0.5), cell="b")
    invalid = [row | {"aligned": False} for row in other]
    missing = [lost(row, "missing") for row in other]
    both = judged(good + invalid)
    assert [one["comparisons"] for one in both["comparisons"]] == [1, 1]
    assert (
        "t_mult=2 at b: invalid (scheduler.t_mult=1 is in mid-cycle after 35 epochs. "
        in both["sentence"]
    )
    assert [one["comparisons"] for one in judged(good + missing)["comparisons"]] == [2, 2]


def test_why_one_of_several_is_invalid_is_said_in_full() -> None:
    claim = Claim("arm", "1", ("2", "c; warm"))
    longer = [
        row | {"budget": 70.0} for row in rows([0.5] * 8, level="c; warm") if row["level"] != "1"
    ]
    sentence = judged([*rows([0.5] * 8), *longer], claim)["sentence"]
    assert "c; warm: invalid (arm=1 trains 35 and arm=c; warm trains 70 epochs)" in sentence


def test_several_treatments_meet_one_baseline() -> None:
    claim = Claim("arm", "1", ("cosine", "2"))
    treated = [row for row in rows([-0.5] * 8, level="cosine") if row["level"] == "cosine"]
    document = judged([*rows([0.5] * 8), *treated], claim)
    reported = [(one["treatment"], one["verdict"]) for one in document["comparisons"]]
    assert reported == [("cosine", WORSE), ("2", SUPPORTED)]


def test_cells_without_an_arm() -> None:
    claim = Claim("t", "1", ("2", "3"))
    seven = [*around(0.5), 0.5]
    arms = [*rows(seven, cell="lr=1"), *rows(seven, level="3", cell="lr=2")]
    arms += [row for row in rows(seven, cell="lr=3") if row["level"] == "2"]
    found = [
        (one["cell"], one["treatment"], one["verdict"])
        for one in judged(arms, claim)["comparisons"]
    ]
    assert found == [("lr=1", "2", SUPPORTED), ("lr=2", "3", SUPPORTED), ("lr=3", "2", INVALID)]
    assert (
        "no run of t=1 has the same other settings"
        in judged(arms, claim)["comparisons"][2]["sentence"]
    )


# --- what decides beside the complete pairs ---------------------------------------------------------


def test_three_of_ten_that_diverge_take_the_support_away() -> None:
    arms = rows(around(0.5) + around(0.5)[:4])
    arms[-3:] = [lost(row, "diverged", 10.0) for row in arms[-3:]]
    comparison = only(arms)
    assert comparison["complete_pairs"] == SUPPORTED
    assert comparison["verdict"] == comparison["intention_to_treat"]["verdict"] == INCONCLUSIVE
    assert (
        "inconclusive: the complete pairs alone are supported, +0.49 points"
        in comparison["sentence"]
    )
    assert "Counting the 3 that diverged or could not be built" in comparison["sentence"]
    twice = judged([row | {"cell": cell} for cell in "ab" for row in arms])
    said = "inconclusive with the 3 runs that diverged or could not be built (supported without)"
    assert said in twice["sentence"]


def test_diverged_runs_that_change_nothing() -> None:
    arms = rows([*around(0.5), 0.5])
    arms[0] = lost(arms[0], "diverged", 10.0)  # of the baseline: in the treatment's favour
    assert only(arms)["verdict"] == INCONCLUSIVE, "80 points for one pair say little of the mean"
    arms = rows([*around(0.5), 0.5])
    arms[-1] = lost(arms[-1], "diverged", 91.9)
    assert only(arms)["verdict"] == SUPPORTED


def test_an_unfinished_plan_is_interim() -> None:
    claim = Claim("scheduler.t_mult", "1", ("2",), seeds=tuple(range(8)))
    arms = rows([*around(0.5), 0.5, 0.5])
    assert only(arms, claim)["verdict"] == SUPPORTED
    for status in ("missing", "interrupted", "failed"):
        unfinished = [*arms[:-1], lost(arms[-1], status)]
        comparison = only(unfinished, claim)
        assert comparison["verdict"] == INTERIM
        assert "interim, 7 of 8 pairs: +0.50 points" in comparison["sentence"]
        assert "supported" not in comparison["sentence"]
    for ended in (
        lost(arms[-1], "diverged", 92.1),
        lost(arms[-1], "failed", 92.1) | {"refused": True},
    ):
        assert only([*arms[:-1], ended], claim)["verdict"] != INTERIM
    assert only(arms[:-1])["verdict"] == SUPPORTED, "without a plan there are no missing seeds"


def test_the_test_set_is_said_where_it_disagrees() -> None:
    arms = [row | {"test": 80.0 - (row["level"] == "2") - row["seed"]} for row in rows(around(0.5))]
    comparison = only(arms)
    assert comparison["test"] == {"n": 6, "mean": -1.0, "ci95": [-1.0, -1.0]}
    assert comparison["verdict"] == SUPPORTED
    said = "On the test set the difference has the other sign: −1.00 points (−1.00 to −1.00)."
    assert said in comparison["sentence"]
    agree = only([row | {"test": row["value"]} for row in arms])
    assert agree["test"]["mean"] == pytest.approx(0.5)
    assert "test set" not in agree["sentence"]


# --- LRs that were chosen, and rivals ----------------------------------------------------------------


def tuned(baselines: dict[str, float], differences: Sequence[float]) -> list[Row]:
    """Runs of the baseline at each LR, `baselines` points off, and of the treatment at the LR 0.1."""
    arms = [row for row in rows(differences, tuned="0.1") if row["level"] == "2"]
    for lr, off in baselines.items():
        base = [row for row in rows(differences, tuned=lr) if row["level"] == "1"]
        arms += [
            row | {"value": row["value"] + off, "name": f"{row['name']}, lr={lr}"} for row in base
        ]
    return arms


def test_a_tuned_treatment_must_beat_the_baseline_at_every_lr() -> None:
    claim = Claim("scheduler.t_mult", "1", ("2",), tuned_over="optimizer.lr")
    comparison = only(tuned({"0.05": -0.3, "0.1": 0.0, "0.2": -0.1}, around(0.5)), claim)
    assert comparison["verdict"] == SUPPORTED
    assert comparison["mean"] == pytest.approx(0.5), "against the LR with the smallest difference"
    assert comparison["comparisons"] == 1, "a grid is no family"
    assert [one["value"] for one in comparison["tuned"]["against"]] == ["0.05", "0.1", "0.2"]
    label = "scheduler.t_mult=2 at optimizer.lr=0.1 against 1 at every optimizer.lr – supported"
    assert comparison["sentence"].startswith(label)
    one_better = only(tuned({"0.05": -0.3, "0.1": 0.0, "0.2": 0.45}, around(0.5)), claim)
    assert one_better["verdict"] == EQUIVALENT
    assert one_better["mean"] == pytest.approx(0.05)


def test_a_baseline_that_diverges_at_an_lr_is_beaten_there() -> None:
    claim = Claim("scheduler.t_mult", "1", ("2",), tuned_over="optimizer.lr")
    arms = tuned({"0.1": 0.0, "0.8": 0.0}, around(0.5))
    arms[-6:] = [lost(row, "diverged", 10.0) for row in arms[-6:]]
    assert only(arms, claim)["verdict"] == SUPPORTED


def with_rival(gain: float, rival: float, spread: Sequence[float] = SPREAD) -> list[Row]:
    other = [row for row in rows(around(rival), level="one") if row["level"] == "one"]
    return [*rows(around(gain, spread)), *other]


def test_a_rival_that_is_supported_and_not_exceeded_explains_the_gain() -> None:
    claim = Claim("scheduler.t_mult", "1", ("2", "one"), rivals=("one",))
    comparison = judged(with_rival(0.6, 0.55), claim)["comparisons"][0]
    assert [one["explains"] for one in comparison["rivals"]] == [True]
    assert (
        " But one is supported too, and is not exceeded by the margin (" in comparison["sentence"]
    )
    exceeded = judged(with_rival(1.5, 0.5), claim)["comparisons"][0]
    assert [one["explains"] for one in exceeded["rivals"]] == [False]
    assert "one is supported" not in exceeded["sentence"]
    weak = judged(with_rival(0.6, 0.0), claim)["comparisons"][0]
    assert weak["rivals"] == [], "a rival that shows nothing against the baseline explains nothing"
    wide = judged(with_rival(0.7, 0.6, [6 * one for one in reversed(SPREAD)]), claim)[
        "comparisons"
    ][0]
    assert [one["explains"] for one in wide["rivals"]] == [None]
    assert "which is better is open" in wide["sentence"]


def test_another_cells_diverged_runs_do_not_speak_here() -> None:
    rng = np.random.default_rng(176)
    a, b = (rows(rng.normal(0.3, 0.2, 8).tolist(), cell=cell) for cell in "ab")
    b[-1] = lost(b[-1], "diverged", 10.0)
    first, second = judged([*a, *b])["comparisons"]
    assert first["intention_to_treat"] is None
    assert "diverged" not in first["sentence"]
    assert first["verdict"] == first["complete_pairs"]
    assert second["intention_to_treat"]


def test_what_is_shown_of_a_tuned_treatment_is_what_decides() -> None:
    claim = Claim("scheduler.t_mult", "1", ("2",), tuned_over="optimizer.lr")
    arms = tuned({"0.05": 0.0, "0.1": 0.0}, around(0.5))
    for row in arms:
        if row["tuned"] == "0.05" and row["level"] == "1":
            row["value"] += 8 * (row["seed"] % 2) - 4  # as good on average, and far from sure
    comparison = only(arms, claim)
    assert comparison["verdict"] == INCONCLUSIVE
    assert comparison["tuned"]["baseline"] == "0.05"
    assert "by itself" not in comparison["sentence"]
    assert "against its closest, optimizer.lr=0.05; neither a difference" in comparison["sentence"]


def test_planned_seeds_are_those_of_the_treatment() -> None:
    claim = Claim("t", "1", ("2", "3"), seeds=tuple(range(10)))
    wide = rows([*around(0.5), *[0.5] * 4], level="3")
    narrow = [row for row in rows(around(0.5)) if row["level"] == "2"]
    found = judged([*wide, *narrow], claim)["comparisons"]
    assert [(one["planned"], one["verdict"] == INTERIM) for one in found] == [
        (6, False),
        (10, False),
    ]


def test_cells_with_the_baseline_alone_are_named() -> None:
    baseline = [row for row in rows(around(0.5), cell="b") if row["level"] == "1"]
    found = judged([*rows(around(0.5), cell="a"), *baseline])["comparisons"]
    assert [(one["cell"], one["verdict"]) for one in found] == [("a", SUPPORTED), ("b", INVALID)]


# --- what a claim is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claimed", "level", "equal"),
    [
        pytest.param("1", "1.0", True, id="whole"),
        pytest.param("0.10", "0.1", True, id="trailing zero"),
        pytest.param("1e-3", "0.001", True, id="exponent"),
        pytest.param("-0", "0", True, id="zero"),
        pytest.param("times_1", "times_1", True, id="text"),
        pytest.param("1", "10", False, id="other number"),
        pytest.param("9007199254740993", "9007199254740992", False, id="beyond floats"),
        pytest.param("nan", "nan", True, id="not a number"),
        pytest.param("one", "One", False, id="other text"),
    ],
)
def test_levels_match_as_numbers(claimed: str, level: str, equal: bool) -> None:
    arms = [row | {"level": level if row["level"] == "1" else "other"} for row in rows(around(0.5))]
    comparison = only(arms, Claim("f", claimed, ("other",)))
    assert comparison["n"] == (6 if equal else 0)
    assert comparison["baseline"] == claimed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"treatments": ()}, "f: needs a treatment beside the baseline 1", id="none"),
        pytest.param({"treatments": ("2", "1.0")}, "levels of f must differ: 1, 2, 1.0", id="same"),
        pytest.param(
            {"metric": "val/loss", "unit": ""},
            "metric=val/loss: lower is better, not higher",
            id="loss",
        ),
        pytest.param({"metric": "loss"}, "metric=loss: must be val/NAME or test/NAME", id="no set"),
        pytest.param({"metric": "val/a'b"}, "metric=val/a'b: must be val/NAME", id="no name"),
        pytest.param(
            {"metric": "val/f1", "unit": "'"}, "unit=': must be a short text", id="no unit"
        ),
        pytest.param(
            {"metric": "val/f1", "better": "more"},
            "better=more: must be higher or lower",
            id="no direction",
        ),
        pytest.param(
            {"margin": 100}, "margin=100: must be 0 points or more and less than 100", id="all"
        ),
        pytest.param({"margin": -0.1}, "margin=-0.1: must be 0 points or more", id="margin"),
        pytest.param({"margin": float("nan")}, "margin=nan: must be 0", id="no margin"),
        pytest.param({"level": 0.5}, "level=0.5: must lie between 1e-6 and 0.5", id="level"),
        pytest.param({"rivals": ("3",)}, "rivals: 3 must be among the treatments", id="rival"),
        pytest.param(
            {"tuned_over": "f"}, "tuned_over=f: must be another key", id="tuned over the factor"
        ),
    ],
)
def test_what_cannot_be_claimed(fields: Row, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Claim(**fields | {"factor": "f", "baseline": "1", "treatments": ("2",)} | fields)


def test_the_hash_is_of_every_field_and_of_nothing_else() -> None:
    claim = Claim("f", "1", ("2",), margin=1, seeds=(0, 1))
    text = (
        '{"baseline":"1","factor":"f","inferred":false,"level":0.05,"margin":1.0,'
        '"metric":"val/acc","seeds":[0,1],"treatments":["2"]}'
    )

    assert claim.sha256() == hashlib.sha256(text.encode()).hexdigest()
    assert claim.sha256() == Claim("f", "1", ("2",), margin=1.0, seeds=(0, 1)).sha256()
    again = Claim.from_dict(json.loads(json.dumps(claim.to_dict())))
    assert again == claim
    assert claim.to_dict()["sha256"] == claim.sha256()
    changed: dict[str, Any] = {
        "factor": "g",
        "baseline": "0",
        "treatments": ["3"],
        "metric": "test/acc",
    }
    changed |= {"margin": 2, "level": 0.1, "seeds": [], "inferred": True}
    assert changed.keys() | {"sha256"} == claim.to_dict().keys(), "as before there were rivals"
    changed |= {"rivals": ["2"], "tuned_over": "optimizer.lr"}
    others = [Claim.from_dict(claim.to_dict() | {key: changed[key]}) for key in changed]
    assert len({claim.sha256(), *(other.sha256() for other in others)}) == 1 + len(changed)


def test_a_title_is_recorded_and_no_part_of_the_hash() -> None:
    claim = Claim("f", "1", ("2",))
    titled = dataclasses.replace(claim, title="Two against one")
    assert titled.sha256() == claim.sha256()
    assert titled.to_dict() == claim.to_dict() | {"title": "Two against one"}
    assert Claim.from_dict(titled.to_dict()) == titled
    assert "title" not in claim.to_dict()


# --- properties ------------------------------------------------------------------------------------

POINTS = st.integers(-300, 300).map(lambda number: number / 100)
DIFFERENCES = st.lists(POINTS, min_size=0, max_size=9)


@settings(max_examples=30)
@given(
    differences=DIFFERENCES,
    order=st.randoms(use_true_random=False),
    lost_rows=st.sets(st.integers(0, 17)),
)
def test_the_order_of_rows_does_not_matter(
    differences: list[float], order: Any, lost_rows: set[int]
) -> None:
    arms = [
        lost(row, "diverged", 1.0) if number in lost_rows else row
        for number, row in enumerate(rows(differences) + rows(differences[1:], cell="b=10"))
    ]
    shuffled = list(arms)
    order.shuffle(shuffled)
    assert judged(shuffled) == judged(arms)


@given(differences=st.lists(POINTS, min_size=2, max_size=9))
def test_swapping_the_arms_mirrors_the_figures(differences: list[float]) -> None:
    arms = rows(differences)
    there, back = only(arms), only(arms, Claim("scheduler.t_mult", "2", ("1",)))
    assert back["mean"] == pytest.approx(-there["mean"], abs=1e-12)
    for name in ("ci95", "ci90"):
        assert back[name] == pytest.approx([-end for end in reversed(there[name])], abs=1e-12)
    for name in ("n", "p", "sd", "correlation"):
        assert back[name] == pytest.approx(there[name])
    better, worse = (one["probability_of_improvement"] for one in (there, back))
    assert worse["share"] == pytest.approx(1 - better["share"])
    assert (worse["low"], worse["high"]) == pytest.approx((1 - better["high"], 1 - better["low"]))
    mirrored = {key: {WORSE} for key in ANY_SUPPORTED} | {
        WORSE: {*ANY_SUPPORTED},
        NO_GAIN: {INCONCLUSIVE, NO_GAIN},
        INCONCLUSIVE: {INCONCLUSIVE, NO_GAIN},
    }
    assert back["verdict"] in mirrored.get(there["verdict"], {there["verdict"]})


@given(differences=st.lists(POINTS, min_size=6, max_size=9))
def test_what_judges_a_sweep_is_what_is_calibrated(differences: list[float]) -> None:
    evidence = states.Evidence.of(np.array([differences]), CLAIM.margin, CLAIM.level)
    assert states.decide(evidence, CLAIM.margin).tolist() == [only(rows(differences))["verdict"]]


# --- documentation, imports ------------------------------------------------------------------------


def test_every_field_is_documented() -> None:
    text = (ROOT / "docs" / "verdict.md").read_text()
    arms = rows([0.5] * 8)
    arms[0] = lost(arms[0], "diverged")
    document = judged(arms)

    def names(node: Any) -> set[str]:
        if isinstance(node, dict):
            return set(node).union(*map(names, node.values()))
        return set().union(*map(names, node)) if isinstance(node, list) else set()

    assert {name for name in names(document) if f"`{name}`" not in text} == set()


def test_tables_are_judged_without_torch_and_hydra() -> None:
    code = "import sys, harness.analysis.verdict; sys.exit(bool({'torch', 'hydra'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
