"""Runs that are not paired: against scipy, a case for every state, and claims about metrics of other programs."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy
import vl_convert
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_page import ABOUT, write_sweep
from test_verdict import SCHEMA, run

from harness.analysis import paired_stats, states, unpaired
from harness.analysis.arms import Question
from harness.analysis.next_steps import next_steps
from harness.analysis.scale import ACCURACY, Scale
from harness.analysis.unpaired import Welch
from harness.analysis.verdict import Claim, judge
from harness.report import curves, page, verdict_charts
from harness.report.first_screen import FirstScreen, first_screen

CLAIM = Claim(
    "lr", "a", ("b",), metric="val_acc", unit="", margin=0.02, paired=False, planned=False
)
STEP = [-0.02, -0.01, 0.0, 0.0, 0.01, 0.02]  # sd 0.0141: the interval of two arms is ± 0.0182
Row = dict[str, Any]


def arm(level: str, values: Sequence[float], **changes: Any) -> list[Row]:
    """Runs of another program, which has neither seeds nor epochs."""
    own = {"seed": None, "budget": None, "aligned": None, "nearest_aligned": None, "images": None}
    return [
        run(level, 0, float(value)) | own | {"name": f"{level}-{number}"} | changes
        for number, value in enumerate(values)
    ]


def around(mean: float, wide: float = 1) -> list[float]:
    return [mean + wide * one for one in STEP]


def judged(runs: Sequence[Row], claim: Claim = CLAIM) -> dict[str, Any]:
    schema = SCHEMA | {"budget_unit": pl.String}
    verdict = judge(claim, pl.DataFrame(list(runs), schema=schema))
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict
    return verdict


def only(runs: Sequence[Row], claim: Claim = CLAIM) -> dict[str, Any]:
    (comparison,) = judged(runs, claim)["comparisons"]
    assert isinstance(comparison, dict)
    return comparison


def screen(verdict: dict[str, Any]) -> FirstScreen:
    table = pl.DataFrame(
        {"name": ["a-0", "b-0"], "status": ["complete"] * 2, "error": [None] * 2},
        schema_overrides={"error": pl.String},
    )
    return first_screen(table, verdict, {}, "")


# --- arithmetic --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "wide"), [(5, 5, 1), (4, 9, 3), (16, 5, 0.2), (2, 2, 1)], ids=str
)
@pytest.mark.parametrize("level", [0.05, 0.1])
def test_welch_is_that_of_scipy(a: int, b: int, wide: float, level: float) -> None:
    rng = np.random.default_rng(a + b)
    baseline, treatment = rng.normal(0, 1, (3, a)), rng.normal(0.5, wide, (3, b))
    found = unpaired.welch(baseline, treatment)
    known = scipy.stats.ttest_ind(treatment, baseline, axis=1, equal_var=False)
    ends = known.confidence_interval(1 - level)
    assert np.allclose(found.interval(level), (ends.low, ends.high))
    assert np.allclose(2 * np.minimum(found.p_above(0), found.p_below(0)), known.pvalue)
    greater = scipy.stats.ttest_ind(
        treatment - 0.2, baseline, axis=1, equal_var=False, alternative="greater"
    )
    assert np.allclose(found.p_above(0.2), greater.pvalue)


def test_welch_of_arms_without_spread() -> None:
    both = unpaired.welch(np.full((1, 4), 0.9), np.full((1, 5), 0.8))
    assert np.allclose(both.interval(0.05), -0.1)
    assert [*both.p_above(0), *both.p_below(0), *both.p_above(-0.2)] == [1, 0, 0]
    one = unpaired.welch(np.full(4, 0.9), np.array([0.8, 0.9, 1.0]))
    assert one.df == pytest.approx(2), "those of the arm that varies"
    nothing = Welch(np.array([np.nan]), np.array([np.nan]), np.array([np.nan]))
    assert nothing.p_above(0) == nothing.p_below(0) == 1


@pytest.mark.parametrize(
    ("baseline", "treatment", "p"),
    [
        pytest.param([1, 2, 3], [4, 5, 6], 2 / 20, id="no overlap"),
        pytest.param([1, 2], [7, 8, 9], 1 / 10, id="no overlap, of two sizes: no mirror image"),
        pytest.param([1, 4], [2, 3], 1.0, id="equal means"),
        pytest.param([0, 0, 1], [1, 1, 1], 8 / 20, id="ties"),
        pytest.param([98.1, 98.1], [98.3, 98.3], 2 / 6, id="ties of decimals"),
        pytest.param([5], [7], 1.0, id="one run each"),
        pytest.param([1e-9, 2e-9, 3e-9], [4e-9, 5e-9, 6e-9], 2 / 20, id="small"),
        pytest.param([-1e6, 1, 2], [3, 4, 5], 2 / 20, id="one far below"),
    ],
)
def test_permutations_that_are_counted_by_hand(
    baseline: list[float], treatment: list[float], p: float
) -> None:
    found = unpaired.permutation(*(np.array(one, np.float64) for one in (baseline, treatment)))
    assert found == pytest.approx(p)


@pytest.mark.parametrize(("a", "b"), [(4, 4), (3, 7), (8, 5)], ids=str)
def test_permutation_is_that_of_scipy(a: int, b: int) -> None:
    rng = np.random.default_rng(a)
    baseline, treatment = rng.integers(0, 9, a) / 10, rng.integers(3, 12, b) / 10

    def distance(x: Any, y: Any, axis: int = -1) -> Any:
        return np.round(abs(np.mean(y, axis=axis) - np.mean(x, axis=axis)), 9)

    known = scipy.stats.permutation_test(
        (baseline, treatment), distance, vectorized=True, n_resamples=np.inf, alternative="greater"
    )
    assert unpaired.permutation(baseline, treatment) == pytest.approx(known.pvalue)
    own = distance(baseline, treatment)
    every = np.concatenate([baseline, treatment])
    far = [
        distance(np.delete(every, list(chosen)), every[list(chosen)]) >= own
        for chosen in combinations(range(a + b), b)
    ]
    assert unpaired.permutation(baseline, treatment) == pytest.approx(np.mean(far))


def test_many_runs_are_shuffled() -> None:
    rng = np.random.default_rng(0)
    baseline, treatment = rng.normal(0, 1, 40), rng.normal(0.6, 1, 30)
    found = unpaired.permutation(baseline, treatment)
    known = scipy.stats.ttest_ind(baseline, treatment, equal_var=False).pvalue
    assert found == pytest.approx(known, abs=0.005)
    assert unpaired.permutation(baseline, treatment + 50) == 1 / 100_001, "never zero"
    assert 0 < unpaired.permutation(rng.normal(0, 1, 5000), rng.normal(0, 1, 5000) * 1e6) <= 1


@pytest.mark.parametrize(
    ("a", "b", "level", "enough"),
    [
        (4, 4, 0.05, True),  # 2 of 70
        (4, 3, 0.05, False),
        (2, 40, 0.05, False),  # p could be small, but the interval would not cover
        (4, 4, 0.01, False),
        (5, 5, 0.01, True),  # 2 of 252
        (4, 6, 0.01, True),  # 2 of 210
        (0, 9, 0.4, False),
    ],
)
def test_enough_runs(a: int, b: int, level: float, enough: bool) -> None:
    assert unpaired.enough_runs(a, b, level) is unpaired.enough_runs(b, a, level) is enough
    assert unpaired.fewest_runs(0.05) == 4
    assert unpaired.fewest_runs(0.01) == 5


def test_runs_needed_have_the_power() -> None:
    runs = unpaired.runs_needed(1.0, 0.8, 0.05)
    assert runs == 26, "Cohen 1988, table 2.4.1: d = 0.80 at 80 % power"
    rng = np.random.default_rng(0)
    for size, enough in ((runs, True), (runs - 2, False)):
        arms = (rng.normal(effect, 1, (20_000, size)) for effect in (0, 0.8))
        low, _ = unpaired.welch(*arms).interval(0.05)
        assert (np.mean(low > 0) > 0.79) == enough
    assert unpaired.runs_needed(0.0, 1.0, 0.05) == 4
    assert unpaired.runs_needed(1.0, 0.0, 0.05) is None
    assert paired_stats.pairs_needed(1.0, 0.8, 0.05) == 15, "as before"


def test_holm_by_hand() -> None:
    p = np.array([[0.01, 0.04, 0.03, 0.005], [0.5, 0.9, 0.2, 0.2]])
    assert np.allclose(unpaired.holm(p), [[0.03, 0.06, 0.06, 0.02], [1, 1, 0.8, 0.8]])
    gains = Welch(np.array([0.5, np.nan]), np.array([0.1, np.nan]), np.array([8.0, np.nan]))
    joint = unpaired.joint(gains, 0.2)
    assert joint.above_zero == pytest.approx([2 * scipy.stats.t.sf(5, 8), 1])
    assert joint.above_margin == pytest.approx([2 * scipy.stats.t.sf(3, 8), 1])
    assert joint.below_zero.tolist() == joint.below_margin.tolist() == [1, 1]


# --- states and what they say -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "verdict", "sentence"),
    [
        pytest.param(around(0.95), states.SUPPORTED, "supported: +0.050 in val_acc (95 % Welch interval +0.032 to +0.068, 6 and 6 runs, unpaired); above the margin of 0.02.", id="supported"),
        pytest.param(around(0.93), states.SUPPORTED_UNSURE, "supported, size unsure: +0.030 in val_acc (95 % Welch interval +0.012 to +0.048, 6 and 6 runs, unpaired); above 0; whether above the margin of 0.02 is open; about 14 runs an arm would show 0.04 to be above it, with 80 % power.", id="unsure"),
        pytest.param(around(0.91, 0.1), states.INCONCLUSIVE, "inconclusive: +0.010 in val_acc (95 % Welch interval −0.005 to +0.025, 6 and 6 runs, unpaired); neither a difference nor its absence shows; about 10 runs an arm would show a gain of 0.02 or rule it out, with 80 % power.", id="inconclusive"),
        pytest.param(around(0.90, 0.1), states.EQUIVALENT, "equivalent: +0.000 in val_acc (95 % Welch interval −0.015 to +0.015, 6 and 6 runs, unpaired); its 90 % interval, −0.012 to +0.012, is within ±0.02.", id="equivalent"),
        pytest.param(around(0.89), states.NO_GAIN, "no gain that matters: −0.010 in val_acc (95 % Welch interval −0.028 to +0.008, 6 and 6 runs, unpaired); a gain of 0.02 is ruled out.", id="no gain"),
        pytest.param(around(0.85), states.WORSE, "worse: −0.050 in val_acc (95 % Welch interval −0.068 to −0.032, 6 and 6 runs, unpaired); below 0.", id="worse"),
        pytest.param([0.99, 0.98, 0.97], states.TOO_FEW_RUNS, "too few runs: +0.080 in val_acc (95 % Welch interval +0.060 to +0.100, 6 and 3 runs, unpaired); so few decide nothing at level 0.05; 4 runs an arm can.", id="too few"),
        pytest.param([0.99], states.TOO_FEW_RUNS, "too few runs: +0.090 in val_acc (no interval, 6 and 1 runs, unpaired); so few decide nothing at level 0.05; 4 runs an arm can.", id="one"),
    ],
)  # fmt: skip
def test_states(values: list[float], verdict: str, sentence: str) -> None:
    own = only([*arm("a", around(0.9)), *arm("b", values)])
    assert own["sentence"] == f"lr=b against a – {sentence}"
    assert (own["verdict"], own["runs"]) == (verdict, [6, len(values)])
    assert own["n"] == min(6, len(values))


def test_supported_smaller_than_the_margin() -> None:
    own = only([*arm("a", around(0.9, 0.1)), *arm("b", around(0.905, 0.1))], dataclasses.replace(CLAIM, margin=0.2))  # fmt: skip
    assert own["verdict"] == states.SUPPORTED_SMALLER
    assert own["p"] == pytest.approx(unpaired.permutation(np.array(around(0.9, 0.1)), np.array(around(0.905, 0.1))))  # fmt: skip
    assert own["p_adjusted"] == own["p"], "of one comparison"


def test_arms_without_spread() -> None:
    equal = only([*arm("a", [0.9] * 5), *arm("b", [0.9] * 5)])
    assert equal["verdict"] == states.TOO_COARSE
    assert equal["sentence"].endswith("all runs of an arm are equal, and nothing says how fine val_acc is.")  # fmt: skip
    assert next_steps(judged([*arm("a", [0.9] * 5), *arm("b", [0.9] * 5)])) == [
        "evaluate on more data, or record val_acc with more digits"
    ]
    one = only([*arm("a", [0.9] * 5), *arm("b", around(0.97))])
    assert one["verdict"] == states.SUPPORTED, "where one arm varies there is a spread"


def test_of_several_comparisons_each_passes_holm() -> None:
    claim = dataclasses.replace(CLAIM, treatments=("b", "c", "d"))
    runs = [*arm("a", around(0.9)), *arm("b", around(0.921)), *arm("c", around(0.9)), *arm("d", around(0.99))]  # fmt: skip
    document = judged(runs, claim)
    found = {one["treatment"]: one for one in document["comparisons"]}
    assert found["d"]["verdict"] == states.SUPPORTED
    assert (found["b"]["by_itself"], found["b"]["verdict"]) == (
        states.SUPPORTED_UNSURE,
        states.INCONCLUSIVE,
    )
    p = [scipy.stats.ttest_ind(around(0.9), around(m), equal_var=False).pvalue for m in (0.921, 0.99)]  # fmt: skip
    assert found["d"]["p_adjusted"] == pytest.approx(3 * p[1])
    assert found["b"]["p_adjusted"] == pytest.approx(2 * p[0])
    assert "not among 3 comparisons (adjusted p = " in found["b"]["sentence"]
    assert found["b"]["pairs_needed"]["as large as here"] >= 6
    (step, *_) = next_steps(document)
    assert re.search(r"about \d+ runs an arm would decide it .* fewer without the others; take new runs", step)  # fmt: skip
    assert "“supported, size unsure” by itself" in document["comparisons"][0]["sentence"]


def test_rivals_of_unpaired_treatments() -> None:
    claim = dataclasses.replace(CLAIM, treatments=("b", "c"), rivals=("c",))
    runs = [*arm("a", around(0.9)), *arm("b", around(0.99)), *arm("c", around(0.985))]
    first = judged(runs, claim)["comparisons"][0]
    (rival,) = first["rivals"]
    assert (rival["runs"], rival["explains"]) == ([6, 6], None)
    assert rival["mean"] == pytest.approx(0.005)
    assert "b against c: +0.005 in val_acc (95 % Welch interval" in first["sentence"]


# --- which runs count ---------------------------------------------------------------------------------


def broken(row: Row, status: str, last: float | None = None) -> Row:
    return row | {"status": status, "value": None, "last": last}


def test_runs_without_a_value_are_listed_each_by_itself() -> None:
    runs = [*arm("a", around(0.9)), *arm("b", [*around(0.95), 0.95])]
    waits = [*runs[:-1], broken(runs[-1], "running")]
    own = only(waits)
    assert own["left_out"] == [{"name": "b-6", "status": "running"}], "and no missing partner"
    assert (own["verdict"], own["there"], own["planned"]) == (states.INTERIM, 12, 13)
    assert "interim, 12 of 13 runs: +0.050" in own["sentence"]
    assert "This is over 12 of 13 runs; runs left out: 1 running." in own["sentence"]
    assert next_steps(judged(waits)) == [
        "let the runs end that have not, or leave them out by --where, as status=complete: b-6 (running)"
    ]
    (answer,) = screen(judged(waits)).answers
    assert answer.measured.endswith("6 and 6 of 13 runs, unpaired")
    unknown = only([*runs[:-1], runs[-1] | {"value": None}])
    assert unknown["left_out"] == [{"name": "b-6", "status": "no value"}]
    assert unknown["verdict"] == states.SUPPORTED


def test_diverged_runs_count() -> None:
    runs = [*arm("a", around(0.9)), *arm("b", [*around(0.95), 0.95])]
    own = only([*runs[:-1], broken(runs[-1], "diverged", 0.1)])
    assert (own["complete_pairs"], own["verdict"]) == (states.SUPPORTED, states.INCONCLUSIVE)
    everyone = own["intention_to_treat"]
    assert everyone["filled"] == [{"name": "b-6", "value": 0.1}]
    assert everyone["runs"] == [6, 7]
    assert "the complete runs alone are supported" in own["sentence"]
    assert "Counting the 1 that diverged, as the last value recorded" in own["sentence"]


def test_seeds_are_neither_needed_nor_paired() -> None:
    runs = [*arm("a", around(0.9)), *arm("b", around(0.95))]
    seeded = [row | {"seed": number % 2} for number, row in enumerate(runs)]
    assert only(seeded) == only(runs), "runs of one seed, with other values, count each by itself"


def test_what_must_not_be_compared() -> None:
    steps = {"budget": 50.0, "budget_unit": "steps"}
    runs = [*arm("a", around(0.9), **steps), *arm("b", around(0.95), **steps | {"budget": 100.0})]
    own = only(runs)
    assert own["invalid"] == (
        "lr=a trains 50 and lr=b trains 100 steps; valid would be the same budget for both"
    )
    runs[0]["budget"] = 100.0
    assert "lr=a trains 50 or 100 and lr=b trains 100 steps" in only(runs)["invalid"]
    assert next_steps(judged(runs)) == ["compare runs of one length"]
    mixed = [*arm("a", around(0.9), **steps), *arm("b", around(0.95), budget=50.0)]
    assert "lr=b trains 50 epochs or steps" in only(mixed)["invalid"]
    alone = only(arm("a", around(0.9)))
    assert alone["invalid"] == "no run of lr=b has the same other settings"


def test_one_answer_over_cells() -> None:
    runs = [
        row
        for cell, mean in (("one", 0.95), ("two", 0.95), ("three", 0.95))
        for row in (*arm("a", around(0.9), cell=cell), *arm("b", [*around(mean), mean], cell=cell))
    ]
    few = [*arm("a", [0.9, 0.9], cell="z"), *arm("b", [0.9, 0.9], cell="z")]
    document = judged([*runs, *few])
    (over,) = document["over_cells"]
    assert (over["cells"], over["of"], over["verdict"]) == (3, 4, states.SUPPORTED)
    error = document["comparisons"][0]["se"] / 3**0.5
    half = scipy.stats.t.ppf(1 - 0.05 / 2, 2) * error
    assert over["ci95"] == pytest.approx([0.05 - half, 0.05 + half])
    assert "Over 3 of 4 cells, lr=b: supported, +0.050 (" in document["sentence"]


# --- properties ---------------------------------------------------------------------------------------

VALUES = st.lists(st.integers(0, 400).map(lambda n: n / 400), min_size=1, max_size=6)


@settings(max_examples=40)
@given(baseline=VALUES, treatment=VALUES, order=st.randoms(use_true_random=False))
def test_swapping_the_arms_mirrors_the_figures(
    baseline: list[float], treatment: list[float], order: Any
) -> None:
    runs = [*arm("a", baseline), *arm("b", treatment)]
    there = only(runs)
    order.shuffle(runs)
    assert only(runs) == there
    back = only(runs, dataclasses.replace(CLAIM, baseline="b", treatments=("a",)))
    assert back["mean"] == pytest.approx(-there["mean"], abs=1e-12)
    for name in ("ci95", "ci90"):
        mirrored = there[name] and [-end for end in reversed(there[name])]
        assert back[name] == (mirrored and pytest.approx(mirrored, abs=1e-12))
    for name in ("n", "p", "sd", "se", "df"):
        assert back[name] == pytest.approx(there[name])
    share = there["probability_of_improvement"]["share"]
    assert back["probability_of_improvement"]["share"] == pytest.approx(1 - share)


@settings(max_examples=40)
@given(baseline=VALUES, treatment=VALUES, shift=st.integers(-4000, 4000))
def test_a_shift_of_all_runs_changes_nothing(
    baseline: list[float], treatment: list[float], shift: int
) -> None:
    here = only([*arm("a", baseline), *arm("b", treatment)])
    moved = [[one + shift / 4 for one in values] for values in (baseline, treatment)]
    there = only([*arm("a", moved[0]), *arm("b", moved[1])])
    for name in ("mean", "ci95", "p", "sd"):
        assert there[name] == (here[name] and pytest.approx(here[name], abs=1e-9))


@settings(max_examples=40)
@given(baseline=VALUES, treatment=VALUES)
def test_where_lower_is_better_the_negative_is_judged(
    baseline: list[float], treatment: list[float]
) -> None:
    higher = only([*arm("a", baseline), *arm("b", treatment)])
    negative = [*arm("a", [-one for one in baseline]), *arm("b", [-one for one in treatment])]
    lower = only(negative, dataclasses.replace(CLAIM, better="lower"))
    assert (lower["verdict"], lower["by_itself"]) == (higher["verdict"], higher["by_itself"])
    assert lower["pairs_needed"] == higher["pairs_needed"]


# --- claims ------------------------------------------------------------------------------------------


def test_hashes_of_other_claims_are_as_before() -> None:
    claim = Claim("f", "1", ("2",))
    assert not {"paired", "planned"} & claim.to_dict().keys()
    old = "88b9da3bb3c86e32fae9e68429e1d26290c98255d676f13363b02b0418390e57"
    assert claim.sha256() == old
    assert CLAIM.to_dict()["paired"] is CLAIM.to_dict()["planned"] is False
    assert Claim.from_dict(json.loads(json.dumps(CLAIM.to_dict()))) == CLAIM
    assert CLAIM.sha256() != dataclasses.replace(CLAIM, paired=True).sha256()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tuned_over": "lr2"}, "tuned_over: needs runs that are paired by seed"),
        ({"seeds": tuple(range(8)), "looks": (6, 8)}, "seeds, looks: needs runs that are paired"),
        ({"metric": " "}, "metric=' ': must have 1 to 100 characters"),
        ({"metric": "a\nb"}, r"metric='a\\nb': must have 1 to 100"),
        ({"metric": "m" * 101}, "must have 1 to 100 characters, none of them a control character"),
        ({"better": "more"}, "better=more: must be higher or lower"),
        ({"planned": True}, "metric=val_acc: must be val/NAME"),
    ],
)
def test_what_cannot_be_claimed(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CLAIM, **fields)


@pytest.mark.parametrize(
    ("metric", "name", "on_val"),
    [
        ("val_acc", "val_acc", "val_acc"),
        ("eval/top1", "eval/top1", "eval/top1"),
        ("val/loss", "loss", "val/loss"),
        ("test/f1 macro", "f1 macro", "val/f1 macro"),
        ("val/", "val/", "val/"),
    ],
)
def test_metrics_of_any_name(metric: str, name: str, on_val: str) -> None:
    claim = dataclasses.replace(CLAIM, metric=metric, better="lower")
    assert (claim.scale.name, claim.scale.on_val.metric) == (name, on_val)
    assert not claim.scale.is_accuracy


def test_fractions_are_no_percents() -> None:
    fractions = Scale("val/acc", "higher", "", 0.01)
    assert ACCURACY.is_accuracy
    assert not fractions.is_accuracy
    mean = pl.DataFrame({"low": [0.5], "high": [0.9]})
    assert curves.value_range(mean, fractions) == pytest.approx([0.48, 0.92])
    assert curves.value_title(fractions) == curves.what(fractions) == "val/acc"
    claim = dataclasses.replace(CLAIM, metric="val/acc")
    verdict = judged([*arm("a", around(0.9)), *arm("b", around(0.95))], claim)
    assert verdict["comparisons"][0]["one_image"] is None
    shown = screen(verdict)
    assert shown.answers[0].number == "+0.050 in val/acc"
    assert shown.words.startswith("val/acc is the last value that each run recorded; higher is better.")  # fmt: skip


# --- first screen and page ----------------------------------------------------------------------------

OURS = re.compile(r"seed|image|after the last update|trainer\.|dataset\.|train\.py|\bpairs? ")


def test_the_first_screen_speaks_of_runs() -> None:
    shown = screen(judged([*arm("a", around(0.9)), *arm("b", [*around(0.92), 0.92])]))
    (answer,) = shown.answers
    assert (answer.label, answer.word) == ("lr=b against a", states.SUPPORTED_UNSURE)
    assert answer.measured == "95 % Welch interval +0.003 to +0.037, 6 and 7 runs, unpaired"
    assert shown.words == (
        "val_acc is the last value that each run recorded; higher is better. Runs are not paired: the difference is "
        "that of the arms' means. The margin, the smallest difference that matters: 0.02."
    )
    assert shown.next == (
        "about 13 runs an arm would show 0.04 to be above the margin; take new runs, judged without these",
    )
    few = screen(judged([*arm("a", [0.9, 0.8]), *arm("b", [0.9, 0.8])]))
    assert (few.answers[0].word, few.answers[0].tone) == ("too few runs", "open")
    assert few.next == ("take at least 4 runs an arm",)
    for text in (*shown.next, *few.next, shown.words, answer.measured):
        assert not OURS.search(text)


@pytest.mark.parametrize("wide", [1, 100], ids=["answered", "hopeless"])
def test_next_steps_of_paired_runs_of_other_programs_name_no_command(wide: float) -> None:
    claim = dataclasses.replace(CLAIM, paired=True)
    runs = [
        row | {"seed": seed}
        for level, values in (("a", around(0.9)), ("b", around(0.9, wide)[::-1]))
        for seed, row in enumerate(arm(level, values))
    ]
    verdict = judged(runs, claim)
    assert not re.search(r"seed=|trainer|val_size|images|sweep", " ".join(next_steps(verdict)))
    assert "A pair: a baseline run and a treatment run with the same seed." in screen(verdict).words
    few = judged([row for row in runs if row["seed"] < 3], claim)
    assert next_steps(few) == ["take at least 6 pairs"]


def test_the_line_of_a_question_says_which_value_is_taken() -> None:
    assert Question(CLAIM).text() == (
        "judged by: lr=b against a, val_acc, last recorded value, margin 0.02"
    )
    ours = Question(Claim("f", "1", ("2",))).text()
    assert ours == "judged by: f=2 against 1, val/acc after the last update, margin 0.2 points"


def test_the_page_of_unpaired_runs(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path, ["a", "b"], 6)
    own = [
        json.dumps({"val_acc": {"better": "higher", "unit": "", "final": 0.9 + n / 100, "best": None, "test": None}})
        for n in range(12)
    ]  # fmt: skip
    runs = runs.with_columns(metrics=pl.Series(own))
    verdict = judged([*arm("a", around(0.9)), *arm("b", [*around(0.92), 0.92])])
    html = page.render(runs, verdict, ABOUT)
    text = re.sub(r"\s+", " ", re.sub(r"<script.*?</script>|<[^>]+>", " ", html, flags=re.DOTALL))
    for said in (
        "6 and 7 runs, unpaired", "95 % Welch interval", "p: permutation test, two-sided", "runs an arm needed",
        "in val_acc, last recorded value, margin 0.02", "runs unpaired", "6 and 7", "0.925 ± 0.019",
    ):  # fmt: skip
        assert said in text, said
    for not_said in (
        "orange",
        "test set",
        "sd of pairs",
        "All pairs as a table",
        "sign-flip",
        "Paired differences",
        "seconds",
        "Reused",
        "Best:",
    ):
        assert not_said not in text, not_said
    assert "final val/acc" not in text, "which nothing is judged by"


def test_the_forest_of_unpaired_runs_has_no_dots_and_any_name_as_its_title() -> None:
    hostile = """it's "top`1"\\ {datum.x}"""
    claim = dataclasses.replace(CLAIM, metric=hostile)
    verdict = judged([*arm("a", around(0.9)), *arm("b", around(0.95))], claim)
    chart = verdict_charts.forest(verdict)
    text = json.dumps(chart)
    assert "6 and 6 runs, unpaired" in text
    assert "it_s _top_1__ _datum.x_" in text
    assert "seed" not in text
    assert vl_convert.vegalite_to_svg(chart).startswith("<svg")
    svg = vl_convert.vegalite_to_svg(verdict_charts.forest(judged([*arm("a", around(0.9)), *arm("b", around(0.95))])))  # fmt: skip
    assert "val_acc" in svg


def test_every_field_of_unpaired_runs_is_documented() -> None:
    text = (ROOT / "docs" / "verdict.md").read_text()
    own = only([*arm("a", around(0.9)), *arm("b", around(0.95))])
    assert {name for name in own if f"`{name}`" not in text} == set()
    assert {name for name in CLAIM.to_dict() if f"`{name}`" not in text} == set()
