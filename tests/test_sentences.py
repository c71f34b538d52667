"""A verdict in words: what a reader must know is said, and nothing more is."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from test_verdict import SPREAD, Row, around, judged, lost, only, rows

from harness.analysis.states import (
    ANY_SUPPORTED,
    INCONCLUSIVE,
    INTERIM,
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
    weak = around(0.13, [2.4 * one for one in [*SPREAD, -0.03, 0.03]])
    arms = rows(weak, cell="a")
    assert only(arms)["verdict"] in ANY_SUPPORTED
    for cell in "bcdef":
        arms += rows(rng.normal(0, 0.2, 8).tolist(), cell=cell)
    comparison = judged(arms)["comparisons"][0]
    assert comparison["by_itself"] in ANY_SUPPORTED
    assert comparison["verdict"] == INCONCLUSIVE
    assert "” by itself, but not among 6 comparisons (adjusted p = " in comparison["sentence"]


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
        f"2 at epochs=5 {effect}; 2 at epochs=15 {effect}; 2 at epochs=35 {effect}. Over 3 cells, "
        "scheduler.t_mult=2: supported, +0.30 points (+0.30 to +0.30; sd between cells 0.00)."
    )
    many = cells(*(f"c{number}" for number in range(9)), differences=around(0.0))
    many[0] = lost(many[0], "failed")
    sentence = judged(many)["sentence"]
    assert "9 comparisons (1 interim; 8 equivalent)" in sentence
    assert "; and 3 more; runs left out: 1." in sentence


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
    assert "Given the LRs of the arms, which differ." in twice["sentence"]


def test_interim_sentences_promise_nothing() -> None:
    claim = Claim("scheduler.t_mult", "1", ("2",), seeds=tuple(range(9)))
    arms = rows([*around(0.5), 0.5, 0.5])
    arms[-1] = lost(arms[-1], "diverged", 92.1)
    comparison = only(arms, claim)
    assert comparison["verdict"] == INTERIM
    assert "supported" not in comparison["sentence"]
    assert "interim, 8 of 9 pairs" in comparison["sentence"]
