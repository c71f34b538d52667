"""The judge: its figures against references, a case for every verdict, what is missing, how it errs."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis import paired_stats as paired
from harness.analysis.paired_stats import (
    EQUIVALENT,
    INCONCLUSIVE,
    SUPPORTED,
    SUPPORTED_BELOW_MARGIN,
    WORSE,
)
from harness.analysis.verdict import Claim, judge

CLAIM = Claim("scheduler.t_mult", "1", ("2",))
SCHEMA: dict[str, Any] = {
    "name": pl.String, "level": pl.String, "cell": pl.String, "seed": pl.Int64, "status": pl.String,
    "value": pl.Float64, "last": pl.Float64, "budget": pl.Float64, "aligned": pl.Boolean,
    "nearest_aligned": pl.List(pl.Float64),
}  # fmt: skip
Row = dict[str, Any]


def run(level: str, seed: int, value: float | None, **changes: Any) -> Row:
    """A complete, aligned run of 35 epochs, but for the changes."""
    name = f"t_mult={level}, seed={seed}"
    row = {"name": name, "level": level, "cell": "", "seed": seed, "status": "complete"}
    row |= {"value": value, "last": value, "budget": 35.0, "aligned": True, "nearest_aligned": []}
    return row | changes


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


# --- verdicts and what they say --------------------------------------------------------------------

SPREAD = [-0.1, -0.05, 0.0, 0.0, 0.05, 0.1]  # sd 0.0707: the 95 % interval is the mean ± 0.0742


def around(mean: float) -> list[float]:
    return [mean + one for one in SPREAD]


@pytest.mark.parametrize(
    ("differences", "verdict", "sentence"),
    [
        pytest.param(
            around(0.3), SUPPORTED,
            "supported: +0.30 points of val/acc (95 % interval +0.23 to +0.37, 6 pairs); above the "
            "margin of 0.2.", id="supported",
        ),
        pytest.param(
            around(0.25), SUPPORTED_BELOW_MARGIN,
            "supported, below the margin or unsure of it: +0.25 points of val/acc (95 % interval "
            "+0.18 to +0.32, 6 pairs); above 0, but not clearly above the margin of 0.2.",
            id="around the margin",
        ),
        pytest.param(
            around(0.1), SUPPORTED_BELOW_MARGIN,
            "supported, below the margin or unsure of it: +0.10 points of val/acc (95 % interval "
            "+0.03 to +0.17, 6 pairs); above 0, but not clearly above the margin of 0.2.",
            id="below the margin",
        ),
        pytest.param(
            around(-0.1), WORSE,
            "refuted: worse: -0.10 points of val/acc (95 % interval -0.17 to -0.03, 6 pairs); "
            "below 0.", id="worse",
        ),
        pytest.param(
            around(0.05), EQUIVALENT,
            "refuted: equivalent: +0.05 points of val/acc (95 % interval -0.02 to +0.12, 6 pairs); "
            "its 90 % interval, -0.01 to +0.11, is within ±0.2.", id="equivalent",
        ),
        pytest.param(
            [10 * one for one in SPREAD], INCONCLUSIVE,
            "inconclusive: +0.00 points of val/acc (95 % interval -0.74 to +0.74, 6 pairs); neither "
            "a difference nor its absence shows; about 101 pairs would show 0.2 points with 80 % "
            "power at this spread.", id="inconclusive",
        ),
        pytest.param(
            around(-0.001), EQUIVALENT,
            "refuted: equivalent: +0.00 points of val/acc (95 % interval -0.08 to +0.07, 6 pairs); "
            "its 90 % interval, -0.06 to +0.06, is within ±0.2.", id="a little below nothing",
        ),
        pytest.param(
            [100 * one for one in SPREAD], INCONCLUSIVE,
            "inconclusive: +0.00 points of val/acc (95 % interval -7.42 to +7.42, 6 pairs); neither "
            "a difference nor its absence shows; more than 1000 pairs would show 0.2 points with "
            "80 % power at this spread.", id="hopeless",
        ),
        pytest.param(
            around(9)[:5], INCONCLUSIVE,
            "inconclusive: +8.98 points of val/acc (95 % interval +8.91 to +9.05, 5 pairs); fewer "
            "than 6 pairs cannot reach p < 0.05; about 6 pairs would show 0.2 points with 80 % power "
            "at this spread.", id="five pairs",
        ),
        pytest.param(
            [0.3], INCONCLUSIVE,
            "inconclusive: +0.30 points of val/acc (no interval, 1 pair); fewer than 6 pairs cannot "
            "reach p < 0.05.", id="one pair",
        ),
        pytest.param(
            [], INCONCLUSIVE, "inconclusive: 0 pairs; fewer than 6 pairs cannot reach p < 0.05.",
            id="no run at all",
        ),
        pytest.param(
            [0.0] * 6, EQUIVALENT,
            "refuted: equivalent: +0.00 points of val/acc (95 % interval +0.00 to +0.00, 6 pairs); "
            "its 90 % interval, +0.00 to +0.00, is within ±0.2; all differences are equal, so the "
            "interval is a point.", id="no difference at all",
        ),
        pytest.param(
            [0.2] * 6, SUPPORTED_BELOW_MARGIN,
            "supported, below the margin or unsure of it: +0.20 points of val/acc (95 % interval "
            "+0.20 to +0.20, 6 pairs); above 0, but not clearly above the margin of 0.2; all "
            "differences are equal, so the interval is a point.", id="all equal to the margin",
        ),
        pytest.param(
            [0.3] * 6, SUPPORTED,
            "supported: +0.30 points of val/acc (95 % interval +0.30 to +0.30, 6 pairs); above the "
            "margin of 0.2; all differences are equal, so the interval is a point.", id="all equal",
        ),
    ],
)  # fmt: skip
def test_verdicts(differences: list[float], verdict: str, sentence: str) -> None:
    document = judged(rows(differences))
    (comparison,) = document["comparisons"]
    assert comparison["verdict"] == verdict
    assert comparison["sentence"] == f"scheduler.t_mult=2 against 1 – {sentence}"
    assert document["sentence"] == comparison["sentence"]
    assert comparison["left_out"] == []
    assert comparison["intention_to_treat"] is None
    assert (comparison["bca95"] is None) == (len(set(differences)) < 2)


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
    assert comparison["verdict"] == "invalid comparison"
    assert comparison["sentence"] == (
        f"scheduler.t_mult=2 against 1 – invalid comparison: {sentence} Runs left out: 1 diverged."
    )
    assert comparison["p_holm"] is None
    assert comparison["intention_to_treat"] is None
    assert comparison["mean"] == pytest.approx(0.5)  # reported, not judged


@pytest.mark.parametrize("aligned", [None, True])
def test_arms_without_cycles_and_unknown_budgets_are_valid(aligned: bool | None) -> None:
    arms = [row | {"aligned": aligned, "budget": None} for row in rows(around(0.5))]
    assert only(arms)["verdict"] == SUPPORTED


def test_margin_and_level_are_the_claims() -> None:
    comparison = only(rows(around(0.3)), Claim("f", "1", ("2",), margin=0.25))
    assert comparison["verdict"] == SUPPORTED_BELOW_MARGIN
    comparison = only(rows(around(0.1)), Claim("f", "1", ("2",), level=0.01))
    assert comparison["verdict"] == EQUIVALENT
    assert "99 % interval -0.02 to +0.22" in comparison["sentence"]
    assert "its 98 % interval, +0.00 to +0.20" in comparison["sentence"]
    fine = only(rows([one / 100 for one in around(0.3)]), Claim("f", "1", ("2",), margin=0.002))
    assert "+0.0030 points" in fine["sentence"]
    assert (
        only(rows([0.0] * 6), Claim("scheduler.t_mult", "1", ("2",), margin=0))["verdict"]
        == EQUIVALENT
    )


# --- several comparisons ---------------------------------------------------------------------------


def cells(*levels: str, differences: Sequence[float]) -> list[Row]:
    return [row for cell in levels for row in rows(differences, cell=cell)]


def test_several_comparisons_must_pass_holm() -> None:
    six, ten = around(0.5), [*around(0.5), *around(0.5)[:4]]
    alone = judged(cells("a", differences=six))["comparisons"]
    assert [one["verdict"] for one in alone] == [SUPPORTED]
    both = judged(cells("a", "b", differences=six))
    assert [one["verdict"] for one in both["comparisons"]] == [INCONCLUSIVE] * 2
    assert [one["p_holm"] for one in both["comparisons"]] == [0.0625] * 2
    assert [one["pairs_needed"] for one in both["comparisons"]] == [7] * 2
    assert (
        "beside 0, but not once all comparisons count (p = 0.062)"
        in (both["comparisons"][0]["sentence"])
    )
    more = judged(cells("a", "b", differences=ten))["comparisons"]
    assert [one["verdict"] for one in more] == [SUPPORTED] * 2
    worse = judged(cells("a", "b", differences=[-one for one in six]))["comparisons"]
    assert [one["verdict"] for one in worse] == [INCONCLUSIVE] * 2


def test_invalid_comparisons_do_not_count_for_holm_and_empty_ones_do() -> None:
    good, other = rows(around(0.5), cell="a"), rows(around(0.5), cell="b")
    invalid = [row | {"aligned": False} for row in other]
    missing = [lost(row, "missing") for row in other]
    assert judged(good + invalid)["comparisons"][0]["verdict"] == SUPPORTED
    assert judged(good + missing)["comparisons"][0]["verdict"] == INCONCLUSIVE


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
        f"2 at epochs=5 {effect}; 2 at epochs=15 {effect}; 2 at epochs=35 {effect}."
    )
    many = cells(*(f"c{number}" for number in range(9)), differences=around(0.0))
    many[0] = lost(many[0], "failed")
    sentence = judged(many)["sentence"]
    assert "9 comparisons (8 refuted: equivalent; 1 inconclusive)" in sentence
    assert sentence.endswith("; and 3 more; runs left out: 1.")


def test_several_treatments_meet_one_baseline() -> None:
    claim = Claim("arm", "1", ("cosine", "2"))
    treated = [row for row in rows([-0.5] * 8, level="cosine") if row["level"] == "cosine"]
    document = judged([*rows([0.5] * 8), *treated], claim)
    reported = [(one["treatment"], one["verdict"]) for one in document["comparisons"]]
    assert reported == [("cosine", WORSE), ("2", SUPPORTED)]


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
        pytest.param({"metric": "val/loss"}, "metric=val/loss: must be one of which", id="loss"),
        pytest.param({"margin": -0.1}, "margin=-0.1: must be 0 points or more", id="margin"),
        pytest.param({"margin": float("nan")}, "margin=nan: must be 0", id="no margin"),
        pytest.param({"level": 0.5}, "level=0.5: must lie between 0 and 0.5", id="level"),
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
    assert changed.keys() | {"sha256"} == claim.to_dict().keys()
    others = [Claim.from_dict(claim.to_dict() | {key: changed[key]}) for key in changed]
    assert len({claim.sha256(), *(other.sha256() for other in others)}) == 1 + len(changed)


# --- properties ------------------------------------------------------------------------------------

POINTS = st.integers(-300, 300).map(lambda number: number / 100)
DIFFERENCES = st.lists(POINTS, min_size=0, max_size=9)


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
    assert back["probability_of_improvement"] == pytest.approx(
        1 - there["probability_of_improvement"]
    )
    mirrored = {
        SUPPORTED: {WORSE},
        SUPPORTED_BELOW_MARGIN: {WORSE},
        WORSE: {SUPPORTED, SUPPORTED_BELOW_MARGIN},
    }
    assert back["verdict"] in mirrored.get(there["verdict"], {there["verdict"]})


@given(differences=st.lists(POINTS, min_size=1, max_size=9))
def test_what_judges_a_sweep_is_what_is_calibrated(differences: list[float]) -> None:
    decided = paired.decide(np.array([differences]), CLAIM.margin, CLAIM.level)
    assert decided.tolist() == [only(rows(differences))["verdict"]]


# --- calibration, documentation, imports -----------------------------------------------------------


@pytest.fixture(scope="module")
def calibration() -> Any:
    path = ROOT / "scripts" / "calibrate_verdict.py"
    spec = importlib.util.spec_from_file_location("calibrate_verdict", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["calibrate_verdict"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["normal", "correlated", "heavy"])
def test_the_verdict_errs_as_rarely_as_promised(calibration: Any, kind: str) -> None:
    rng, sweeps, spreads, seeds = np.random.default_rng(1), 500, (0.1, 0.3, 0.5), (6, 10, 20, 30)
    false, covered = [], []
    for sd, pairs in product(spreads, seeds):
        outcome = calibration.calibrate(calibration.Setting(kind, sd, pairs, 0.0), sweeps, rng)
        false.append(outcome.supported)
        covered.append(outcome.covered)
        assert sum(outcome.verdicts.values()) == pytest.approx(1)
    draws = sweeps * len(false)
    assert 0.01 < np.mean(false) < 0.025 + 3 * calibration.error(0.025, draws)
    if kind != "heavy":
        assert abs(np.mean(covered) - 0.95) < 3 * calibration.error(0.05, draws)
    found = calibration.calibrate(calibration.Setting(kind, 0.3, 10, 0.5), sweeps, rng)
    assert found.supported > 0.95
    assert found.verdicts[SUPPORTED] < found.supported
    few = calibration.calibrate(calibration.Setting(kind, 0.1, 5, 1.0), sweeps, rng)
    assert few.verdicts[INCONCLUSIVE] == 1


@pytest.mark.parametrize("kind", ["normal", "correlated", "heavy", "skewed", "coarse"])
def test_draws_have_the_spread_that_they_name(calibration: Any, kind: str) -> None:
    drawn = calibration.draw(kind, 0.3, (1000, 100), np.random.default_rng(2))
    assert drawn.mean() == pytest.approx(0, abs=0.005)
    assert drawn.std() == pytest.approx(0.3, rel=0.2 if kind == "coarse" else 0.1)


@pytest.mark.parametrize("some_worse", [False, True])
def test_several_comparisons_together_err_no_more_than_one(
    calibration: Any, some_worse: bool
) -> None:
    alone, together = calibration.family(6, 9, some_worse, 1000, np.random.default_rng(3))
    assert together < 0.025 + 3 * calibration.error(0.025, 1000)
    assert alone > 0.04  # what Holm is for


def test_the_calibration_fails_where_a_promise_is_broken(calibration: Any) -> None:
    settings = [
        calibration.Setting(kind, sd, pairs, effect)
        for kind, sd, pairs, effect in product(
            calibration.KINDS, calibration.SDS, calibration.SEEDS, calibration.EFFECTS
        )
    ]
    fair = calibration.Outcome({SUPPORTED: 0.0, SUPPORTED_BELOW_MARGIN: 0.02}, 0.95)
    found = calibration.Outcome({SUPPORTED: 0.8, SUPPORTED_BELOW_MARGIN: 0.19}, 0.95)
    outcomes = {one: found if one.effect else fair for one in settings}

    def kept(changed: dict[Any, Any], families: dict[Any, Any]) -> list[bool]:
        return [holds for holds, _ in calibration.promises(outcomes | changed, families, 4000)]

    families = {(2, 6, False): (0.05, 0.02)}
    none, weak = settings[5], calibration.Setting("normal", 0.3, 10, 0.5)
    assert all(kept({}, families))
    assert (
        kept(
            {none: calibration.Outcome({SUPPORTED: 0.0, SUPPORTED_BELOW_MARGIN: 0.04}, 0.95)},
            families,
        )[0]
        is False
    )
    assert kept({}, {(2, 6, False): (0.05, 0.04)})[1] is False
    assert (
        kept(
            {none: calibration.Outcome({SUPPORTED: 0, SUPPORTED_BELOW_MARGIN: 0.02}, 0.8)}, families
        )[2]
        is False
    )
    assert (
        kept(
            {weak: calibration.Outcome({SUPPORTED: 0.5, SUPPORTED_BELOW_MARGIN: 0.4}, 0.95)},
            families,
        )[3]
        is False
    )


@pytest.mark.slow
def test_the_script_prints_tables_and_ends_well() -> None:
    command = [sys.executable, "scripts/calibrate_verdict.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr
    assert "| normal | 0.3 | 10 | " in done.stdout
    assert done.stdout.count("\n- kept: ") == 6


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
