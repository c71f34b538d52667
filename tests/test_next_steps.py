"""What to do after a verdict, state by state."""

from __future__ import annotations

from typing import Any

import pytest
from test_looks import CLAIM as LOOKS
from test_looks import HOPELESS, OPEN, arm
from test_verdict import SPREAD, WEAK, around, judged, lost, noise, rows

from harness.analysis import states
from harness.analysis.next_steps import next_steps
from harness.analysis.verdict import Claim

WIDE = around(0.0, [10 * one for one in SPREAD])
ANSWERED = "nothing here, this is answered; other data sets, models and LRs are new sweeps"
SEEDS = Claim("scheduler.t_mult", "1", ("2",), seeds=tuple(range(8)))


@pytest.mark.parametrize(
    ("verdict", "steps"),
    [
        (judged(rows(around(0.5))), [ANSWERED]),
        (judged(rows(around(-0.1))), [ANSWERED]),
        (judged(rows(around(0.0))), [ANSWERED]),
        (judged(rows(around(0.5)[:4])), ["train at least 6 pairs: 'seed=range(0,6)'"]),
        (judged(rows(WIDE)), ["about 212 pairs would show a gain of 0.2 points or rule it out; a new sweep on other seeds: "
                              "'seed=range(6,218)'"]),
        (
            judged(rows([100 * one for one in SPREAD])),
            ["more than 1000 pairs would be needed; a larger margin, or less noise (more validation images, "
             "longer training)"],
        ),
        (
            judged(rows(around(0.5)), SEEDS),
            ["give the same command again; it trains the 2 pairs that are missing"],
        ),
        (
            judged(rows(around(0.5), budget=50.0, aligned=False)),
            ["train all arms with one trainer.epochs at which each ends a cycle; scripts/preview.py shows it "
             "before training"],
        ),
        (
            judged(rows([0.0] * 6, images=100)),
            ["take more validation images (dataset.val_size); one image is 1.00 points"],
        ),
        (
            judged(rows(OPEN), LOOKS),
            ["13 pairs are too few at this spread; a new sweep with a larger claim.most on other seeds, "
             "'seed=13', or more validation images"],
        ),
        (
            judged(rows(HOPELESS), LOOKS),
            ["13 pairs are too few at this spread; a new sweep with a larger claim.most on other seeds, "
             "'seed=13', or more validation images"],
        ),
    ],
    ids=["supported", "worse", "equivalent", "too few", "inconclusive", "hopeless", "interim", "invalid",
         "too coarse", "looks", "undecidable"],
)  # fmt: skip
def test_each_state_says_what_to_do(verdict: dict[str, Any], steps: list[str]) -> None:
    assert next_steps(verdict) == steps


ELSEWHERE = Claim("t_mult", "1", ("2",), planned=False)


@pytest.mark.parametrize(
    ("arms", "ours", "elsewhere"),
    [
        pytest.param(rows(around(0.5), budget=50.0, aligned=False),
            "train all arms with one trainer.epochs at which each ends a cycle; scripts/preview.py shows it before training",
            "compare runs that were trained to the end of a cycle of their LR", id="in mid-cycle"),
        pytest.param([one | {"budget": 10.0 + (one["level"] == "2")} for one in rows(around(0.5))],
            "train all arms with one trainer.epochs at which each ends a cycle; scripts/preview.py shows it before training",
            "compare runs of one length", id="other lengths"),
        pytest.param([one for one in rows(around(0.5)) if one["level"] == "2"],
            "compare runs that differ in nothing but the factor and the seed",
            "compare runs that differ in nothing but t_mult and the seed", id="no baseline"),
    ],
)  # fmt: skip
def test_each_kind_of_invalid_says_what_would_be_valid(
    arms: list[Any], ours: str, elsewhere: str
) -> None:
    assert next_steps(judged(arms)) == [ours]
    assert next_steps(judged(arms, ELSEWHERE)) == [elsewhere]


@pytest.mark.parametrize(
    ("status", "step"),
    [
        ("crashed", "let the runs end that have not, or leave them out by --where, as status=complete"),
        ("no value", "train these runs as long as the others, or judge the source without their rows"),
        ("shorter", "train these runs as long as the others, or judge the source without their rows"),
    ],
)  # fmt: skip
def test_runs_of_others_that_may_still_end_are_named(status: str, step: str) -> None:
    arms = rows([*around(0.5), 0.5, 0.5])
    arms[-1] = lost(arms[-1], status) | {"name": "b-7"}
    verdict = judged([one for one in arms if (one["level"], one["seed"]) != ("2", 6)], ELSEWHERE)
    assert next_steps(verdict) == [f"{step}: b-7 ({status})"]
    assert f"6 of 8 pairs; runs left out: 1 {status}; missing: 1." in verdict["sentence"]


def test_of_several_comparisons_the_most_is_asked_and_what_is_missing_comes_first() -> None:
    runs = [row for cell, own in (("a", WIDE), ("b", around(0.5))) for row in rows(own, cell=cell)]
    (first, *_) = next_steps(judged(runs))
    assert first.startswith("1 of 2 are open: about ")
    claim = Claim("scheduler.t_mult", "1", ("2",), seeds=tuple(range(6)))
    runs[-1] = lost(runs[-1], "failed")
    steps = next_steps(judged(runs, claim))
    assert steps[0] == "give the same command again; it trains the pair that is missing"
    assert steps[1].startswith("1 of 2 are open: ")


def test_what_is_decided_by_itself_asks_what_would_decide_it_among_all() -> None:
    runs = rows(WEAK) + [row for number in "34567" for row in arm(number, noise(int(number)))]
    verdict = judged(runs, Claim("scheduler.t_mult", "1", tuple("234567")))
    needed = verdict["comparisons"][0]["pairs_needed"]["as large as here"]
    assert next_steps(verdict)[0] == (
        f"1 of 6 is decided by itself, but not among all: about {needed} pairs would decide it if the true "
        f"difference is as large as here, fewer in a sweep without the others; a new sweep on other seeds: 'seed=range(8,{8 + needed})'"
    )


def test_where_bootstrap_t_says_otherwise_the_pairs_are_looked_at() -> None:
    pairs = [0.1, 0.27, 0.27, 0.28, 0.28, 0.28]
    verdict = judged(rows(pairs), Claim("t_mult", "1", ("2",), margin=0.05, planned=False))
    (own,) = verdict["comparisons"]
    assert own["verdict"] == states.SUPPORTED
    other = own["by_bootstrap_t"]
    assert other != states.SUPPORTED
    assert next_steps(verdict) == [
        f"look at the pairs below, which are skewed: by bootstrap-t the answer is “{other}”; more pairs, about 12, "
        "depend less on it; take new runs, judged without these"
    ]


def test_a_claim_that_was_changed_needs_other_seeds() -> None:
    assert next_steps(judged(rows(around(0.5))) | {"claim_changed": True}) == [
        "judge the changed claim on other seeds, in a sweep of its own"
    ]


def test_a_verdict_of_version_1_has_a_next_step() -> None:
    own = {"verdict": states.SUPPORTED_UNSURE, "n": 6, "pairs": [{"seed": 3}], "pairs_needed": 20}
    verdict = {"claim": {"margin": 0.2}, "comparisons": [own]}
    assert next_steps(verdict) == [
        "about 20 pairs would show 0.4 points to be above the margin; a new sweep on other seeds: "
        "'seed=range(4,24)'"
    ]
    own["pairs_needed"] = None
    assert next_steps(verdict) == ["6 pairs again; a new sweep on other seeds: 'seed=range(4,10)'"]
