"""The arithmetic of pairs against references: intervals, sign flips, Holm, power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from test_verdict import cells, judged, only, rows

from harness.analysis import paired_stats as paired
from harness.analysis.paired_stats import (
    INCONCLUSIVE,
    SUPPORTED,
    SUPPORTED_BELOW_MARGIN,
)

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
    wins = stats.mannwhitneyu(treatment, baseline).statistic / len(differences) ** 2
    assert found["n"] == len(differences)
    assert [pair["difference"] for pair in found["pairs"]] == pytest.approx(differences)
    assert found["mean"] == pytest.approx(np.mean(differences))
    assert found["sd"] == pytest.approx(np.std(differences, ddof=1))
    assert found["correlation"] == pytest.approx(stats.pearsonr(baseline, treatment).statistic)
    assert found["ci95"] == pytest.approx([*student.confidence_interval(0.95)])
    assert found["ci90"] == pytest.approx([*student.confidence_interval(0.90)])
    assert found["p"] == pytest.approx(flips.pvalue)
    assert found["p_holm"] == found["p"]
    assert found["probability_of_improvement"] == pytest.approx(wins)
    assert found["bca95"][0] < found["mean"] < found["bca95"][1]


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


@pytest.mark.parametrize(
    ("sd", "effect", "comparisons", "pairs"),
    [
        pytest.param(1.0, 0.2, 1, 199, id="small"),  # the textbook's: Cohen's d of 0.2, 0.5, 0.8
        pytest.param(1.0, 0.5, 1, 34, id="medium"),
        pytest.param(1.0, 0.8, 1, 15, id="large"),
        pytest.param(1.0, 0.5, 5, 51, id="medium, at 0.05 / 5"),
        pytest.param(1.0, 9.0, 1, 6, id="never fewer than count"),
        pytest.param(0.0, 0.2, 1, 6, id="no spread"),
        pytest.param(0.0, 0.2, 2, 7, id="no spread, two comparisons"),  # 2·2/2⁶ > 0.05 > 2·2/2⁷
        pytest.param(1.0, 0.0, 1, None, id="no effect"),
    ],
)
def test_pairs_needed(sd: float, effect: float, comparisons: int, pairs: int | None) -> None:
    assert paired.pairs_needed(sd, effect, 0.05, comparisons) == pairs


@pytest.mark.parametrize(
    ("comparisons", "pairs"), [(1, 6), (2, 7), (3, 7), (4, 8), (6, 8), (25, 10)]
)
def test_the_fewest_pairs_of_several_comparisons(comparisons: int, pairs: int) -> None:
    assert paired.fewest_pairs(0.05, comparisons) == pairs
    verdicts = [
        one["verdict"]
        for n in (pairs - 1, pairs)
        for one in judged(cells(*map(str, range(comparisons)), differences=[1.0] * n))[
            "comparisons"
        ]
    ]
    assert verdicts == [INCONCLUSIVE] * comparisons + [SUPPORTED] * comparisons


def test_pairs_needed_give_the_power() -> None:
    pairs = paired.pairs_needed(0.3, 0.2, 0.05)
    assert pairs is not None
    draws = np.random.default_rng(0).normal(0.2, 0.3, (20_000, pairs))
    found = np.isin(paired.decide(draws, 0.2, 0.05), (SUPPORTED, SUPPORTED_BELOW_MARGIN)).mean()
    assert found == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(
    ("p", "means", "adjusted"),
    [
        pytest.param([0.03], [1], [0.03], id="one"),
        pytest.param([0.04, 0.01, 0.02], [1, 1, 1], [0.04, 0.03, 0.04], id="in any order"),
        pytest.param([0.02, 0.02, 0.02], [1, 1, 1], [0.06, 0.06, 0.06], id="ties"),
        pytest.param([0.6, 0.01], [1, 1], [0.6, 0.02], id="never above 1"),
        pytest.param([0.001, 0.03], [-1, 1], [0.002, 0.06], id="the other direction is no help"),
        pytest.param([1.0, 0.01], [0, 1], [1.0, 0.02], id="no difference"),
        pytest.param([], [], [], id="none"),
    ],
)
def test_holm(p: list[float], means: list[float], adjusted: list[float]) -> None:
    assert paired.holm(np.array(p), np.array(means)).tolist() == pytest.approx(adjusted)
