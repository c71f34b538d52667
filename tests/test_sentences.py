"""A verdict in words: what a reader must know is said, and nothing more is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
import pytest
from test_looks import CLAIM, GAIN, HOPELESS, OPEN, TWO, arm
from test_verdict import SPREAD, WEAK, Row, around, judged, lost, noise, only, rows

from harness.analysis import sentences
from harness.analysis.next_steps import next_steps
from harness.analysis.states import (
    ANY_SUPPORTED,
    INCONCLUSIVE,
    INTERIM,
    SUPPORTED_UNSURE,
)
from harness.analysis.verdict import Claim


def test_skewed_pairs_are_said() -> None:
    skewed = [0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.1, 1.4]
    comparison = only(rows(skewed))
    assert comparison["verdict"] == INCONCLUSIVE
    assert "The pairs are skewed; by bootstrap-t (" in comparison["sentence"]
    assert comparison["by_bootstrap_t"] in ANY_SUPPORTED
    assert "skewed" not in only(rows(around(0.3)))["sentence"]


def cells(*levels: str, differences: Sequence[float]) -> list[Row]:
    return [row for cell in levels for row in rows(differences, cell=cell)]


def test_where_only_multiplicity_stands_in_the_way_the_sentence_says_so() -> None:
    rng = np.random.default_rng(0)
    arms = rows(WEAK, cell="a")
    assert only(arms)["verdict"] in ANY_SUPPORTED
    for cell in "bcdef":
        arms += rows(rng.normal(0, 0.2, 8).tolist(), cell=cell)
    comparison = judged(arms)["comparisons"][0]
    assert comparison["by_itself"] in ANY_SUPPORTED
    assert comparison["verdict"] == INCONCLUSIVE
    assert "” by itself, but not among 6 comparisons (adjusted p = " in comparison["sentence"]
    needed = comparison["pairs_needed"]["as large as here"]
    shown = f"shows among all comparisons; about {needed} pairs would show so large a difference, with 80 % power."
    assert shown in comparison["sentence"]
    assert sentences.by_itself(vars(CLAIM), comparison) == "above 0 by itself, but not among all 6"
    assert "inconclusive (above 0 by itself, but not among all 6)" in judged(arms)["sentence"]


def test_a_run_that_diverged_and_the_other_comparisons_are_both_said() -> None:
    """And the pairs needed are those with it."""
    arms = rows([*WEAK, 0.5])
    others = [row for level in "34567" for row in arm(level, noise(int(level)))]
    arms[-1] = lost(arms[-1], "diverged", 90.0) | {"name": "lost"}
    claim = Claim("scheduler.t_mult", "1", tuple("234567"), planned=False)
    verdict = judged(arms + others, claim)
    own = verdict["comparisons"][0]
    everyone = own["intention_to_treat"]
    assert own["complete_pairs"] == own["verdict"] == everyone["by_itself"] == INCONCLUSIVE
    assert own["by_itself"] in ANY_SUPPORTED
    assert "With lost, which diverged, it is not." in own["sentence"]
    assert f"about {everyone['pairs_needed']['above 0']} pairs would show" in own["sentence"]
    assert "but not among all 6, nor with lost, which diverged)" in verdict["sentence"]
    number = max(everyone["pairs_needed"].values())
    steps = next_steps(verdict)
    assert any(f"about {number} pairs would show a gain" in step for step in steps)


def test_the_pairs_needed_are_those_with_the_run_that_diverged() -> None:
    arms = rows([*around(0.5), 0.5])
    arms[-1] = lost(arms[-1], "diverged", 90.0) | {"name": "lost"}
    verdict = judged(arms, Claim("scheduler.t_mult", "1", ("2",), planned=False))
    (own,) = verdict["comparisons"]
    assert "are supported, +0.50" in own["sentence"]
    number = own["intention_to_treat"]["pairs_needed"]["above 0"]
    assert number > own["pairs_needed"]["above 0"]
    said = f"but not with lost, which diverged; about {number} pairs would show a gain of 0.2 or rule it out"
    assert said in own["sentence"]
    assert next_steps(verdict)[0].startswith(f"about {number} pairs would show a gain")


def test_the_sentence_of_several_comparisons() -> None:
    named = ["epochs=5", "epochs=35", "epochs=15"]
    document = judged(cells(*named, differences=[0.3] * 10))
    assert [one["cell"] for one in document["comparisons"]] == [
        "epochs=5",
        "epochs=15",
        "epochs=35",
    ]
    effect = "+0.30 points of val/acc (95 % interval +0.30 to +0.30, 10 pairs), supported"
    assert document["sentence"] == (
        "scheduler.t_mult against 1, 3 comparisons (3 supported): "
        f"t_mult=2 at epochs=5: {effect}; t_mult=2 at epochs=15: {effect}; t_mult=2 at epochs=35: {effect}. Over 3 cells, "
        "scheduler.t_mult=2: supported, +0.30 points (+0.30 to +0.30; sd between cells 0.00)."
    )
    many = cells(*(f"c{number}" for number in range(9)), differences=around(0.0))
    many[0] = lost(many[0], "failed")
    sentence = judged(many)["sentence"]
    assert "9 comparisons (1 interim; 8 equivalent)" in sentence
    assert "; and 3 more; runs left out: 1." in sentence


def test_seeds_that_nobody_ran_are_missing() -> None:
    """No run of them was left out."""
    claim = Claim("t_mult", "1", ("2", "3"), planned=False)
    arms = rows([*around(0.5), 0.5]) + arm("3", around(0.5))
    verdict = judged([one for one in arms if (one["level"], one["seed"]) != ("2", 0)], claim)
    assert verdict["sentence"].endswith("; runs missing: 2.")
    assert "This is over 6 of 7 pairs; runs missing: 1." in verdict["comparisons"][0]["sentence"]


def test_arms_on_different_machines_are_said() -> None:
    ours = {"numerics": json.dumps({"device": "A100", "precision": "fp32", "torch": "2.9"})}
    theirs = {"numerics": json.dumps({"device": "RTX 3090", "precision": "fp32", "torch": "2.9"})}
    arms = [row | (ours if row["level"] == "1" else theirs) for row in rows(around(0.5))]
    comparison = only(arms)
    said = "The arms did not run alike: device A100 against RTX 3090 in 6 pairs."
    assert said in comparison["sentence"]
    by_seed = [row | (ours if row["seed"] % 2 else theirs) for row in rows(around(0.5))]
    assert only(by_seed)["numerics"] == [], "each pair ran alike"
    assert (
        "Some arms did not run alike: device A100 against RTX 3090 in 6 pairs."
        in judged([r | {"cell": c} for c in "ab" for r in arms])["sentence"]
    )


def test_other_lrs_are_said() -> None:
    arms = [row | {"lr": 0.1 if row["level"] == "1" else 0.2} for row in rows(around(0.5))]
    assert only(arms)["sentence"].endswith("Given these LRs: 0.2 against 0.1.")
    assert "Given" not in only([row | {"lr": 0.1} for row in arms])["sentence"]
    twice = judged([row | {"cell": cell} for cell in "ab" for row in arms])
    assert " Given these LRs: 0.1 for t_mult=1; 0.2 for t_mult=2." in twice["sentence"]


def test_interim_sentences_promise_nothing() -> None:
    claim = Claim("scheduler.t_mult", "1", ("2",), seeds=tuple(range(9)))
    arms = rows([*around(0.5), 0.5, 0.5])
    arms[-1] = lost(arms[-1], "diverged", 92.1)
    comparison = only(arms, claim)
    assert comparison["verdict"] == INTERIM
    assert "supported" not in comparison["sentence"]
    assert "interim, 8 of 9 pairs" in comparison["sentence"]


# --- looks and tuning ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differences", "ended"),
    [
        (GAIN, "; above the margin of 0.2, decided with 6 of at most 13 pairs."),
        (HOPELESS, "shows; undecidable with 13 pairs at this spread, stopped after 6."),
        (OPEN, "neither a difference nor its absence shows, after all 13 pairs."),
    ],
    ids=["decided", "undecidable", "open"],
)
def test_where_a_comparison_stopped_is_said(differences: list[float], ended: str) -> None:
    sentence = only(rows(differences), CLAIM)["sentence"]
    assert sentence.endswith(ended)
    assert "(repeated 95 % interval " in sentence


def test_of_looks_too_what_only_multiplicity_hinders_is_said() -> None:
    levels = ("2", "3", "4", "5", "6", "7")
    claim = dataclasses.replace(CLAIM, looks=(6,), seeds=tuple(range(6)), treatments=levels)
    weak = [0.5 + 5 * one for one in SPREAD]
    runs = rows(weak) + [row for level in levels[1:] for row in arm(level, OPEN[:6])]
    comparison = judged(runs, claim)["comparisons"][0]
    assert comparison["verdict"] == INCONCLUSIVE
    assert comparison["sentence"].endswith(
        "It is “supported, size unsure” by itself, but not among the comparisons of its sweep."
    )


def test_the_lrs_of_many_arms_are_not_listed() -> None:
    claim = {"factor": "scheduler.t_mult", "tuned_over": None}

    def of(treatments: str) -> str:
        return sentences.given_lrs(
            claim,
            [
                {"baseline": "1", "treatment": one, "lrs": ([0.1], [0.05, 0.2])}
                for one in treatments
            ],
        )

    assert of("234") == "Given these LRs: 0.1 for t_mult=1; 0.05 and 0.2 for t_mult=2, 3, 4."
    assert of("23456789") == "Given the LRs of the arms, which differ."
    assert sentences.given_lrs(claim | {"factor": "optimizer.lr"}, []) == ""


def test_what_was_shown_at_an_earlier_look_is_said() -> None:
    claim = dataclasses.replace(CLAIM, looks=(6, 8), seeds=tuple(range(8)), decide="margin")
    comparison = only(rows([*around(0.12), -3.0, 3.0]), claim)
    assert comparison["ci95"][0] < 0
    assert comparison["verdict"] == SUPPORTED_UNSURE
    assert "That it is above 0 was shown with 6 pairs." in comparison["sentence"]


@pytest.mark.parametrize(
    ("claim", "arms", "said"),
    [
        (
            CLAIM, rows(GAIN),
            "Asked at each look (claim.decide=zero): is the difference above zero, or is a gain of 0.2 points "
            "ruled out? Looks taken: 1 of 4, the last with 6 of at most 13 pairs.",
        ),
        (
            dataclasses.replace(CLAIM, decide="margin"), rows(GAIN[:2]),
            "Asked at each look (claim.decide=margin): is the difference above the margin of 0.2 points, or is a "
            "gain of that size ruled out? Looks taken: 0 of 4; the next takes 6 pairs.",
        ),
        (
            TWO, [*rows(OPEN[:8]), *arm("3", HOPELESS)],
            "ruled out? Looks taken: 2 of 4, the last with 8 of at most 13 pairs; the next takes 10 pairs. 1 of 2 "
            "comparisons stopped as undecidable with 13 pairs: at this mean and spread these would seldom decide.",
        ),
        (
            CLAIM, rows(HOPELESS),
            "13 pairs. It stopped as undecidable with 13 pairs: at this mean and spread these would seldom decide.",
        ),
    ],
    ids=["decided", "before the first", "between two", "undecidable"],
)  # fmt: skip
def test_looks_in_words(claim: Claim, arms: list[Row], said: str) -> None:
    verdict = judged(arms, claim)
    assert sentences.looked(verdict).endswith(said)
    verdict["looks"] |= {"runs": 14, "seconds": 1026.4}
    spared = " 14 planned runs were not needed, which saved about 1,026 s of training."
    assert sentences.looked(verdict).endswith(said + spared)
    verdict["looks"]["seconds"] = None
    assert sentences.looked(verdict).endswith(said + " 14 planned runs were not needed.")


def test_tuning_in_words() -> None:
    arms = [
        {"arm": "t_mult=1", "value": "0.1", "edge": False},
        {"arm": "t_mult=2", "value": "0.8", "edge": True},
    ]
    tuning = {
        "keys": ["optimizer.lr"],
        "seeds": [1000, 1001],
        "runs": 14,
        "seconds": 1234.5,
        "arms": arms,
    }
    assert sentences.tuned(tuning) == (
        "optimizer.lr was chosen by val/acc on 2 other seeds (14 runs, 1,234 s): 0.1 for t_mult=1, 0.8 for "
        "t_mult=2 (at the edge of what was tried)"
    )
