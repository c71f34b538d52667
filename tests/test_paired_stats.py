"""The arithmetic of pairs against references: intervals, sign flips, max-t, power, cells."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import stats
from test_verdict import only, rows

from harness.analysis import paired_stats as paired
from harness.analysis import states

SAMPLES = [
    pytest.param([0.1, 0.1, -0.1, 0.3, 0.2, 0.0], id="ties and a zero"),
    pytest.param([0.31, 0.12, -0.05, 0.43, 0.27, 0.18, 0.36], id="seven"),
    pytest.param([-0.5, 0.5, -0.5, 0.5, -0.5, 0.5, 0.5, 0.5], id="two values"),
    pytest.param([1.3, -0.2, 0.8, 2.1, -0.4, 0.9, 0.6, 1.1, -0.7, 0.2], id="ten"),
]


@pytest.mark.parametrize("differences", SAMPLES)
def test_figures_against_scipy(differences: list[float]) -> None:
    arms = rows(differences)
    baseline, treatment = (
        np.array([row["value"] for row in arms if row["level"] == level]) for level in "12"
    )
    found = only(arms)
    student = stats.ttest_rel(treatment, baseline)
    flips = stats.permutation_test(
        (treatment.round(6), baseline.round(6)),
        lambda a, b, axis: np.mean(a - b, axis=axis).round(9),
        permutation_type="samples", vectorized=True, n_resamples=np.inf,
    )  # fmt: skip
    wins = stats.binomtest(sum(np.sign(differences) > 0), len(differences)).proportion_ci(
        0.95, "wilson"
    )
    assert found["n"] == len(differences)
    assert [pair["difference"] for pair in found["pairs"]] == pytest.approx(differences)
    assert found["mean"] == pytest.approx(np.mean(differences))
    assert found["sd"] == pytest.approx(np.std(differences, ddof=1))
    assert found["correlation"] == pytest.approx(stats.pearsonr(baseline, treatment).statistic)
    assert found["ci95"] == pytest.approx([*student.confidence_interval(0.95)])
    assert found["ci90"] == pytest.approx([*student.confidence_interval(0.90)])
    assert found["p"] == pytest.approx(flips.pvalue)
    assert found["p_adjusted"] == found["p"]
    better = found["probability_of_improvement"]
    assert better["share"] == pytest.approx((np.sign(differences) + 1).mean() / 2)
    if 0.0 not in differences:
        assert (better["low"], better["high"]) == pytest.approx((wins.low, wins.high))
    assert found["bootstrap_t95"][0] < found["mean"] < found["bootstrap_t95"][1]


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        pytest.param([0.3], 1.0, id="one"),
        pytest.param([0.3] * 5, 2 / 32, id="five on one side"),
        pytest.param([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 2 / 64, id="six on one side"),
        pytest.param([-0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 4 / 64, id="the least on the other"),
        pytest.param([98.3 - 98.1, 0.2, -0.2], 1.0, id="ties in spite of rounding"),
        pytest.param([0.0] * 6, 1.0, id="zeros"),
        pytest.param([0.01 * one for one in range(1, 21)], 2 / 2**20, id="twenty, all counted"),
    ],
)
def test_exact_sign_flip(differences: list[float], p: float) -> None:
    assert paired.sign_flip(np.array(differences)) == p


def test_drawn_sign_flips_agree_with_counted_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(1).normal(0.2, 0.5, 16)
    exact = float(paired.sign_flip(differences))
    monkeypatch.setattr(paired, "_ENUMERATED", 15)
    drawn = float(paired.sign_flip(differences))
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 100_000) ** 0.5)


def test_drawn_sign_flips_are_never_zero() -> None:
    assert paired.sign_flip(np.full(40, 0.3)) == 1 / 100_001


# --- several comparisons ---------------------------------------------------------------------------


def reference_max_t(differences: np.ndarray[Any, Any], shift: float) -> list[float]:
    """Step-down max-t over every pattern of signs, as the papers write it: one comparison at a time."""
    d = np.round(differences - shift, 9)
    patterns = list(product((1, -1), repeat=d.shape[1]))

    def t(signs: Sequence[int]) -> list[float]:
        found = []
        for row in d:
            own = (row * signs)[~np.isnan(row)]
            mean, error = own.mean(), own.std(ddof=1) / len(own) ** 0.5
            found.append(mean / error if error > 1e-12 else np.sign(mean) * np.inf if mean else 0.0)
        return found

    observed, flipped = t(patterns[0]), [t(signs) for signs in patterns]
    order, p, least = sorted(range(len(d)), key=lambda at: -observed[at]), [0.0] * len(d), 0.0
    for rank, at in enumerate(order):
        share = np.mean(
            [max(one[i] for i in order[rank:]) >= observed[at] - 1e-9 for one in flipped]
        )
        p[at] = least = max(least, float(share))
    return p


@pytest.mark.parametrize("missing", [False, True])
def test_max_t_against_the_papers_own_words(missing: bool) -> None:
    rng = np.random.default_rng(3)
    base = rng.normal(0, 0.2, 7)
    d = np.array([effect + rng.normal(0, 0.2, 7) - base for effect in (0.5, 0.2, 0.0, -0.3)])
    if missing:
        d[1, 2] = d[0, 5] = np.nan
    found = paired.max_t(d, 0.2)
    assert found.above_zero.tolist() == pytest.approx(reference_max_t(d, 0.0))
    assert found.below_zero.tolist() == pytest.approx(reference_max_t(-d, 0.0))
    assert found.above_margin.tolist() == pytest.approx(reference_max_t(d, 0.2))
    assert found.below_margin.tolist() == pytest.approx(reference_max_t(-d, -0.2))


def test_max_t_of_one_comparison_is_the_studentized_sign_flip() -> None:
    d = np.random.default_rng(4).normal(0.2, 0.3, 9)
    (p,) = paired.max_t(d[None], 0.2).above_zero
    assert 2 * p == pytest.approx(float(paired.sign_flip(d)))


def test_drawn_patterns_agree_with_counted_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    d = np.random.default_rng(5).normal(0.1, 0.3, (3, 12))
    exact = paired.max_t(d, 0.2).above_zero
    monkeypatch.setattr(paired, "_ENUMERATED_JOINTLY", 11)
    paired._signs.cache_clear()
    drawn = paired.max_t(d, 0.2).above_zero
    paired._signs.cache_clear()
    assert (drawn != exact).any()
    assert drawn == pytest.approx(exact, abs=4 * (0.25 / 20_000) ** 0.5)


def test_comparisons_without_two_pairs_show_nothing() -> None:
    d = np.array([[0.5] * 8, [np.nan] * 8, [0.4, *[np.nan] * 7]])
    p = paired.max_t(d, 0.2)
    assert p.above_zero.tolist() == [1 / 256, 1.0, 1.0]
    assert p.below_zero.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("level", "cells", "pairs"),
    [(0.05, 1, 6), (0.05, 2, 7), (0.05, 3, 7), (0.05, 4, 8), (0.05, 6, 8), (0.05, 25, 10),
     (0.01, 1, 8), (0.1, 1, 5), (0.2, 1, 4)],
)  # fmt: skip
def test_the_fewest_pairs_are_those_that_max_t_can_decide(
    level: float, cells: int, pairs: int
) -> None:
    assert paired.fewest_pairs(level, cells) == pairs
    for n, enough in ((pairs - 1, False), (pairs, True)):
        least = 1 - (1 - 0.5**n) ** cells  # of cells that flip by themselves
        assert (least <= level / 2) is enough


# --- numbers of pairs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sd", "distance", "level", "pairs"),
    [
        pytest.param(1.0, 0.2, 0.05, 199, id="small"),  # the textbook's: Cohen's d of 0.2, 0.5, 0.8
        pytest.param(1.0, 0.5, 0.05, 34, id="medium"),
        pytest.param(1.0, 0.8, 0.05, 15, id="large"),
        pytest.param(1.0, 0.5, 0.01, 51, id="medium, at 0.05 / 5"),
        pytest.param(1.0, 9.0, 0.05, 6, id="never fewer than count"),
        pytest.param(0.0, 0.2, 0.05, 6, id="no spread"),
        pytest.param(1.0, 0.0, 0.05, None, id="no distance"),
    ],
)
def test_pairs_needed(sd: float, distance: float, level: float, pairs: int | None) -> None:
    assert paired.pairs_needed(sd, distance, level) == pairs


def test_pairs_needed_give_the_power() -> None:
    pairs = paired.pairs_needed(0.3, 0.2, 0.05)
    assert pairs is not None
    draws = np.random.default_rng(0).normal(0.2, 0.3, (20_000, pairs))
    found = states.decide(states.Evidence.of(draws, 0.2, 0.05), 0.2)
    assert np.isin(found, states.ANY_SUPPORTED).mean() == pytest.approx(0.8, abs=0.02)


def test_the_limit_of_the_standard_deviation_holds_in_four_of_five_draws() -> None:
    assert paired.sd_limit(1.0, 6) == pytest.approx(1.46, abs=0.005)
    drawn = np.random.default_rng(0).normal(0, 1, (20_000, 6)).std(axis=1, ddof=1)
    limits = np.array([paired.sd_limit(sd, 6) for sd in drawn[:2000]])
    assert (limits > 1).mean() == pytest.approx(0.8, abs=0.03)


def test_pairs_needed_are_of_the_upper_limit_and_of_no_fewer_than_six_pairs() -> None:
    wide = [-0.6, -0.3, 0.0, 0.0, 0.3, 0.6]
    needed = only(rows(wide))["pairs_needed"]
    limit = paired.sd_limit(float(np.std(wide, ddof=1)), 6)
    pairs = paired.pairs_needed(limit, 0.2, 0.05)
    assert needed == {"above 0": pairs, "above the margin": pairs, "no gain that matters": pairs}
    assert only(rows(wide[:5]))["pairs_needed"] is None


# --- bootstrap-t and cells -------------------------------------------------------------------------


def test_bootstrap_t_is_misled_by_skewed_pairs_half_as_often_as_student() -> None:
    rng, above = np.random.default_rng(1), np.zeros(2)
    for _ in range(300):
        d = 1 - rng.exponential(1, 10)  # most a little above 0, a few far below; 0 on average
        (ends,) = paired.bootstrap_t(d, [0.05]) or [(0.0, 0.0)]
        above += np.array([ends[0] > 0, paired.interval(d, 0.05)[0] > 0])
    assert above[0] < 0.65 * above[1]
    assert paired.bootstrap_t(np.full(6, 0.3), [0.05]) is None


def test_cells_that_agree_and_cells_that_do_not() -> None:
    errors = np.full(4, 0.1)
    agree: Any = paired.over_cells(np.array([0.3, 0.32, 0.28, 0.3]), errors, [0.05])
    assert agree["mean"] == pytest.approx(0.3)
    assert agree["tau"] == agree["i2"] == 0
    low, high = agree["intervals"][0]
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, 3) * 0.05)
    differ: Any = paired.over_cells(np.array([0.9, -0.3, 0.5, 0.1]), errors, [0.05])
    assert differ["tau"] == pytest.approx(0.507, abs=0.01)  # Var(0.9, -0.3, 0.5, 0.1) - 0.1²
    assert differ["i2"] > 0.9


def test_the_interval_over_cells_covers() -> None:
    rng = np.random.default_rng(2)
    for tau, cells in ((0.0, 3), (0.3, 3), (0.3, 6)):
        errors = rng.uniform(0.05, 0.2, (20_000, cells))
        means = rng.normal(0.4, np.hypot(errors, tau))
        pooled: Any = paired.over_cells(means, errors, [0.05])
        low, high = pooled["intervals"][0]
        assert ((low <= 0.4) & (high >= 0.4)).mean() > 0.93
