"""Claims that go on until decided: which looks pairs take, what they come to, and which runs that asks for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_verdict import SCHEMA, Row, around, judged, lost, only, rows, run

from harness.analysis import looks, states
from harness.analysis.paired_stats import Floats
from harness.analysis.sequential import boundaries
from harness.analysis.verdict import Claim, compared_arms

CLAIM = Claim("scheduler.t_mult", "1", ("2",), seeds=tuple(range(13)), looks=(6, 8, 10, 13))
TWO = dataclasses.replace(CLAIM, treatments=("2", "3"))
GAIN = [*around(0.5), 0.45, 0.55, 0.5, 0.5, 0.4, 0.6, 0.5]  # decided at the first look
OPEN = [0.4, 0.1, 0.1, -0.9, 1.2, 0.9, 0.2, 0.7, 0.5, 0.1, 0.8, 0.2, 0.2]  # goes on at every look
HOPELESS = [-2.0, 2.0, -1.0, 1.0, 0.5, 0.0]


def arm(level: str, differences: Sequence[float], **changes: Any) -> list[Row]:
    """The runs of another treatment, without those of the baseline."""
    return [row for row in rows(differences, level=level, **changes) if row["level"] == level]


def taken(comparison: dict[str, Any]) -> list[int]:
    return [look["pairs"] for look in comparison["path"]]


def wanted(claim: Claim, runs: Sequence[Row]) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """The seeds by level, and by value of `tuned_over`, that are wanted now, and that may be later."""
    table = pl.DataFrame(list(runs), schema=SCHEMA)
    compared = [pairs for one in compared_arms(claim, table) for pairs in one.against]
    found: list[dict[str, set[int]]] = [{}, {}]
    for part, keys in zip(found, looks.wanted(claim, compared), strict=True):
        for _, level, tuned, seed in keys:
            part.setdefault(f"{level} {tuned}".rstrip(), set()).add(seed)
    return found[0], found[1]


# --- which looks are taken -----------------------------------------------------------------------


def test_a_comparison_stops_at_the_look_that_decides_it() -> None:
    comparison = only(rows(GAIN), CLAIM)
    assert taken(comparison) == [6]
    assert (comparison["stopped"], comparison["verdict"]) == ("decided", states.SUPPORTED)
    assert (comparison["n"], comparison["planned"]) == (6, 6), "later pairs are not read"
    (look,) = comparison["path"]
    assert comparison["mean"] == look["mean"] == pytest.approx(0.5)
    assert comparison["ci95"] == pytest.approx([look["low"], look["high"]])
    half = stats.t.isf(look["p"], 5) * np.std(GAIN[:6], ddof=1) / math.sqrt(6)
    assert look["high"] - look["mean"] == pytest.approx(half)
    assert comparison["p"] is comparison["p_adjusted"] is comparison["pairs_needed"] is None


def test_looks_take_seeds_in_the_claims_order() -> None:
    claim = dataclasses.replace(CLAIM, seeds=tuple(reversed(range(13))))
    comparison = only(rows(GAIN), claim)
    assert [pair["seed"] for pair in comparison["pairs"]] == [7, 8, 9, 10, 11, 12]
    now, _ = wanted(claim, rows(GAIN))
    assert now == {"1": {*range(7, 13)}, "2": {*range(7, 13)}}


def test_without_a_decision_all_looks_are_taken() -> None:
    document = judged(rows(OPEN), CLAIM)
    (comparison,) = document["comparisons"]
    assert taken(comparison) == [6, 8, 10, 13]
    assert comparison["stopped"] is None
    assert comparison["ahead"] == []
    assert document["looks"] == {
        "pairs": [6, 8, 10, 13], "p": [look["p"] for look in comparison["path"]],
        "decide": "zero", "look": 4,
    }  # fmt: skip


def test_what_is_hopeless_stops_as_undecidable() -> None:
    comparison = only(rows(HOPELESS), CLAIM)
    assert taken(comparison) == [6]
    assert (comparison["stopped"], comparison["verdict"]) == ("undecidable", states.INCONCLUSIVE)
    assert [look["pairs"] for look in comparison["ahead"]] == [8, 10, 13]


@pytest.mark.parametrize(
    ("there", "path", "planned"),
    [(5, [], 6), (6, [6], 8), (7, [6], 8), (8, [6, 8], 10), (12, [6, 8, 10], 13)],
)
def test_a_look_waits_for_its_pairs(there: int, path: list[int], planned: int) -> None:
    comparison = only(rows(OPEN[:there]), CLAIM)
    assert taken(comparison) == path
    assert (comparison["verdict"], comparison["stopped"]) == (states.INTERIM, None)
    assert (comparison["there"], comparison["planned"]) == (there, planned)
    assert f"interim, {there} of {planned} pairs of the next look" in comparison["sentence"]


def test_a_hole_holds_its_look_open_whatever_comes_after() -> None:
    runs = rows(OPEN)
    runs[13 + 7] = lost(runs[13 + 7], "failed")
    comparison = only(runs, CLAIM)
    assert taken(comparison) == [6]
    assert (comparison["there"], comparison["planned"]) == (7, 8)
    assert comparison["left_out"] == [{"name": "t_mult=2, seed=7", "status": "failed"}]


def test_a_diverged_run_fills_its_pair_with_its_last_value() -> None:
    runs = rows(GAIN)
    runs[13 + 2] = lost(runs[13 + 2], "diverged", last=80.0)
    comparison = only(runs, CLAIM)
    assert [pair["treatment"] for pair in comparison["pairs"]][2] == 80.0
    assert comparison["path"][0]["mean"] == pytest.approx((sum(GAIN[:6]) - 0.5 + 80 - 90.5) / 6)
    assert comparison["verdict"] not in states.ANY_SUPPORTED
    assert comparison["intention_to_treat"]["filled"] == [
        {"name": "t_mult=2, seed=2", "value": 80.0}
    ]


def test_a_set_that_is_too_coarse_goes_on_until_pairs_differ() -> None:
    equal = rows([0.0] * 6, images=100)
    comparison = only(equal, CLAIM)
    assert taken(comparison) == [6]
    assert comparison["stopped"] is None
    assert comparison["planned"] == 8
    (look,) = comparison["path"]
    assert look["verdict"] == states.TOO_COARSE
    assert look["above"] is look["below"] is None
    assert comparison["ahead"] == []
    assert wanted(CLAIM, equal)[0]["2"] == {*range(8)}
    differing = only(rows([0.0] * 6 + [1.0, 2.0], images=100), CLAIM)
    assert [one["verdict"] for one in differing["path"]] == [
        states.TOO_COARSE, states.INCONCLUSIVE,
    ]  # fmt: skip
    fine = only(rows([0.0] * 6, images=10_000), CLAIM)
    assert (fine["stopped"], fine["verdict"]) == ("decided", states.EQUIVALENT)


# --- several comparisons -------------------------------------------------------------------------


def test_settled_arms_get_no_more_seeds_and_the_baseline_goes_on() -> None:
    runs = [*rows(OPEN[:6]), *arm("3", GAIN[:6])]
    first, second = judged(runs, TWO)["comparisons"]
    assert (first["verdict"], second["stopped"]) == (states.INTERIM, "decided")
    now, later = wanted(TWO, runs)
    assert now == {"1": {*range(8)}, "2": {*range(8)}, "3": {*range(6)}}
    assert later == {"1": {*range(8, 13)}, "2": {*range(8, 13)}}


def test_a_look_waits_until_all_open_comparisons_have_its_pairs() -> None:
    first, second = judged([*rows(OPEN[:8]), *arm("3", OPEN[:7])], TWO)["comparisons"]
    assert taken(first) == taken(second) == [6]
    first, second = judged([*rows(OPEN[:8]), *arm("3", GAIN[:6])], TWO)["comparisons"]
    assert (taken(first), taken(second)) == ([6, 8], [6]), "a settled one is not waited for"


def test_above_zero_by_itself_may_not_be_among_several() -> None:
    """At six pairs of thirteen one comparison needs p < 0.0053, the first of six p < 0.0009."""
    weak = [0.5 + 3.5 * one for one in (-0.1, -0.05, 0.0, 0.0, 0.05, 0.1)]
    assert only(rows(weak), CLAIM)["stopped"] == "decided"
    levels = ("2", "3", "4", "5", "6", "7")
    runs = rows(weak) + [row for level in levels[1:] for row in arm(level, OPEN[:6])]
    comparison = judged(runs, dataclasses.replace(CLAIM, treatments=levels))["comparisons"][0]
    (look,) = comparison["path"]
    assert look["low"] > 0
    assert look["verdict"] == states.INCONCLUSIVE
    assert comparison["by_itself"] in states.ANY_SUPPORTED
    assert look["mean"] < look["above"]
    assert f"inconclusive (“{comparison['by_itself']}” by itself): goes on" in looks.progress(
        CLAIM, comparison
    )


def test_with_tuned_over_each_value_of_the_baseline_takes_looks_of_its_own() -> None:
    claim = dataclasses.replace(CLAIM, tuned_over="optimizer.lr")
    far, near = [90.0] * 6, [90 + a - b for a, b in zip(around(0.5), OPEN[:6], strict=True)]
    runs = [run("1", seed, value, tuned="0.1") for seed, value in enumerate(far)]
    runs += [run("1", seed, value, tuned="0.2") for seed, value in enumerate(near)]
    runs += [run("2", seed, 90 + one, tuned="0.4") for seed, one in enumerate(around(0.5))]
    comparison = only(runs, claim)
    assert comparison["verdict"] == states.INTERIM
    assert comparison["tuned"]["baseline"] == "0.2", "the figures are against the open one"
    assert [one["verdict"] for one in comparison["tuned"]["against"]] == [
        states.SUPPORTED, states.INCONCLUSIVE,
    ]  # fmt: skip
    now, _ = wanted(claim, runs)
    assert now == {"1 0.1": {*range(6)}, "1 0.2": {*range(8)}, "2 0.4": {*range(8)}}


def test_values_of_tuned_over_are_no_family() -> None:
    claim = dataclasses.replace(CLAIM, tuned_over="optimizer.lr")
    runs = [row | {"tuned": "0.1"} for row in rows(OPEN[:6])]
    runs += [row | {"tuned": "0.2"} for row in runs[:6]]
    (look,) = only(runs, claim)["path"]
    assert look == only(rows(OPEN[:6]), CLAIM)["path"][0]


def test_an_invalid_comparison_takes_no_look_and_holds_up_no_other() -> None:
    invalid = arm("3", GAIN[:6], aligned=False)
    first, second = judged([*rows(GAIN[:6]), *invalid], TWO)["comparisons"]
    assert first["stopped"] == "decided"
    assert (second["verdict"], second["path"], second["stopped"]) == (states.INVALID, [], None)


# --- which means decide --------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([0.1, 0.3, 1.0]),
    st.sampled_from(["zero", "margin"]),
)  # fmt: skip
def test_a_look_decides_just_the_means_that_it_says(
    seed: int, treatments: int, sd: float, decide: str
) -> None:
    rng = np.random.default_rng(seed)
    levels = tuple(str(2 + number) for number in range(treatments))
    claim = dataclasses.replace(CLAIM, treatments=levels, decide=decide)
    effects: Floats = rng.choice([-0.3, 0.0, 0.2, 0.5], treatments)
    runs = rows([0.0] * 13)[:13]
    for level, effect in zip(levels, effects, strict=True):
        runs += arm(level, rng.normal(effect, sd, 13).tolist())
    for comparison in judged(runs, claim)["comparisons"]:
        path = comparison["path"]
        beyond = [one["mean"] > one["above"] or one["mean"] < one["below"] for one in path]
        assert beyond == [False] * (len(path) - 1) + [comparison["stopped"] == "decided"]


def test_the_means_that_later_looks_decide_are_those_of_the_present_spread() -> None:
    for claim, line in ((CLAIM, 0.0), (dataclasses.replace(CLAIM, decide="margin"), 0.2)):
        own = only(rows(OPEN[:6]), claim)
        assert [one["pairs"] for one in own["ahead"]] == [8, 10, 13]
        sd = float(np.std(OPEN[:6], ddof=1))
        for one, p in zip(own["ahead"], boundaries(claim.looks, 0.025)[1:], strict=True):
            half = stats.t.isf(p, one["pairs"] - 1) * sd / math.sqrt(one["pairs"])
            assert one["above"] == pytest.approx(line + half)
            assert one["below"] == pytest.approx(0.2 - half)


def test_a_rejection_of_another_comparison_lowers_what_is_asked() -> None:
    alone = only(rows(OPEN[:6]), CLAIM)["path"][0]["above"]
    beside_none, _ = judged([*rows(OPEN[:6]), *arm("3", OPEN[:6])], TWO)["comparisons"]
    beside_one, _ = judged([*rows(OPEN[:6]), *arm("3", GAIN[:6])], TWO)["comparisons"]
    assert beside_none["path"][0]["above"] > alone
    assert beside_one["path"][0]["above"] == pytest.approx(alone)


# --- progress ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differences", "text"),
    [
        pytest.param(GAIN, "+0.50 (+0.39 to +0.61), supported: decided with 6 pairs", id="decided"),
        pytest.param(
            HOPELESS, "inconclusive: stopped with 6 pairs, undecidable with 13 at this spread",
            id="undecidable",
        ),
        pytest.param(OPEN, "inconclusive: open after all 13 pairs", id="open"),
        pytest.param(
            [-0.2, 0.1, 0.4, 0.4, 0.7, 1.0],
            "inconclusive: goes on, about 4 more pairs if mean and spread stay", id="goes on",
        ),
        pytest.param(
            OPEN[:6], "inconclusive: goes on; 13 pairs decide only if mean or spread change",
            id="far",
        ),
    ],
)  # fmt: skip
def test_progress_says_state_and_pairs_to_go(differences: list[float], text: str) -> None:
    line = looks.progress(CLAIM, only(rows(differences), CLAIM))
    assert line.startswith("scheduler.t_mult=2 against 1: ")
    assert line.endswith(text), line
