"""Looks: boundaries that spend what they say, repeated intervals, Holm carried on, and when to stop."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.analysis import states
from harness.analysis.paired_stats import Floats
from harness.analysis.sequential import (
    LOOKS,
    Design,
    Standing,
    boundaries,
    default_looks,
    look,
)  # fmt: skip

ZERO = Design(LOOKS, 0.05, 0.2)
MARGIN = dataclasses.replace(ZERO, decide="margin")
SHORT = Design((4, 6, 9), 0.05, 0.2)


def path(design: Design, differences: Floats, looks: int | None = None) -> list[Standing]:
    found: list[Standing] = []
    for number in range(len(design.looks) if looks is None else looks):
        found.append(look(design, number, differences, found[-1] if found else None))
    return found


def last(design: Design, differences: Floats) -> Standing:
    return path(design, differences)[-1]


@pytest.mark.parametrize(
    ("most", "looks"),
    [(6, (6,)), (7, (6, 7)), (16, (6, 8, 10, 13, 16)), (17, (6, 8, 10, 13, 16, 17)), (30, LOOKS)],
)
def test_looks_without_a_choice(most: int, looks: tuple[int, ...]) -> None:
    assert default_looks(most) == looks


def test_boundaries_of_eight_looks() -> None:
    p = boundaries(LOOKS, 0.025)
    assert p[0] == pytest.approx(0.025 * (6 / 30) ** 2, rel=1e-12)
    assert p == pytest.approx(
        (0.0010, 0.0010, 0.0014, 0.0027, 0.0040, 0.0065, 0.0108, 0.0155), rel=0.08
    )


def test_the_documentation_has_these_boundaries() -> None:
    text = (ROOT / "docs" / "verdict.md").read_text()
    (row,) = re.findall(r"^\| pₖ, in percent \|(.+)\|$", text, re.MULTILINE)
    percent = [float(cell) for cell in row.split("|")]
    assert percent == pytest.approx([100 * p for p in boundaries(LOOKS, 0.025)], rel=0.02)


@pytest.mark.parametrize("alpha", [0.025, 0.025 / 6, 1e-6])
def test_one_look_spends_all_at_once(alpha: float) -> None:
    assert boundaries((30,), alpha) == (alpha,)


@pytest.mark.parametrize("alpha", [0.05, 0.025, 0.025 / 6, 0.025 / 100, 1e-6])
@pytest.mark.parametrize("looks", [LOOKS, (6, 7), (2, 3, 40), tuple(range(6, 31))])
def test_boundaries_are_between_what_is_spent_and_all(looks: tuple[int, ...], alpha: float) -> None:
    p = np.array(boundaries(looks, alpha))
    spent = alpha * np.diff(np.square((0, *looks))) / looks[-1] ** 2
    assert (p >= spent).all()
    assert (p <= alpha).all()
    if looks == LOOKS:
        assert (np.diff(p[1:]) > 0).all()
        assert p[-1] > 0.3 * alpha


@pytest.mark.parametrize(
    ("looks", "alpha"), [(LOOKS, 0.025), ((6, 8, 10, 13, 16), 0.05), ((3, 4, 20), 0.025)]
)
def test_all_looks_together_err_in_alpha(looks: tuple[int, ...], alpha: float) -> None:
    """Independent draws, without drift, of whole paths; at each look what is to be spent up to there."""
    draws = 200_000
    normal = np.random.default_rng(7).standard_normal((draws, looks[-1]))
    crossed = np.zeros(draws, np.bool_)
    for pairs, p in zip(looks, boundaries(looks, alpha), strict=True):
        t = stats.ttest_1samp(normal[:, :pairs], 0, axis=1).statistic
        crossed |= t > stats.t.isf(p, pairs - 1)
        spent = alpha * (pairs / looks[-1]) ** 2
        assert crossed.mean() == pytest.approx(spent, abs=4 * np.sqrt(spent / draws) + 0.02 * spent)


@pytest.mark.parametrize("looks", [(), (1, 6), (6, 6), (8, 6)])
def test_looks_that_are_none_are_refused(looks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ascending numbers of pairs"):
        Design(looks, 0.05, 0.2)


def test_a_question_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="must be zero or margin"):
        dataclasses.replace(ZERO, decide="maybe")


@given(
    rows=st.lists(
        st.lists(st.integers(-100, 100).map(lambda points: points / 50), min_size=8, max_size=8),
        min_size=1, max_size=3,
    )
)  # fmt: skip
def test_one_look_has_the_fixed_design_s_interval(rows: list[list[float]]) -> None:
    d = np.array(rows)
    found = look(Design((8,), 0.05, 0.2), 0, d, None)
    fixed = states.Evidence.of(d, 0.2, 0.05)
    for name in ("low", "high", "inner_low", "inner_high"):
        assert getattr(found.evidence, name) == pytest.approx(getattr(fixed, name), abs=1e-9)
    if len(rows) == 1:
        assert found.state == states.decide(fixed, 0.2)
        assert not found.undecidable.any()


def test_repeated_intervals_are_as_wide_as_the_look_s_p_says() -> None:
    d = np.random.default_rng(0).normal(0.1, 0.3, (1, 30))
    for number, (pairs, standing) in enumerate(zip(LOOKS, path(ZERO, d), strict=True)):
        if standing.settled.any():
            break
        ends = stats.ttest_1samp(d[0, :pairs], 0).confidence_interval(
            1 - 2 * boundaries(LOOKS, 0.025)[number]
        )
        inner = stats.ttest_1samp(d[0, :pairs], 0).confidence_interval(
            1 - 2 * boundaries(LOOKS, 0.05)[number]
        )
        evidence = standing.evidence
        assert (evidence.low[0], evidence.high[0]) == pytest.approx(ends)
        assert (evidence.inner_low[0], evidence.inner_high[0]) == pytest.approx(inner)
    assert number > 0


def even(mean: float, sd: float, pairs: int = 30) -> list[float]:
    """Return differences whose first even numbers of pairs have that mean, and about that deviation."""
    return [mean + sd * (-1) ** pair for pair in range(pairs)]


@pytest.mark.parametrize(
    ("differences", "design", "state", "stop", "why"),
    [
        pytest.param(even(1, 0.1), ZERO, states.SUPPORTED, 6, "decided", id="a large gain"),
        pytest.param(even(0.1, 0.02), ZERO, states.SUPPORTED_SMALLER, 6, "decided", id="a small gain"),
        pytest.param(even(0.2, 0.05), ZERO, states.SUPPORTED_UNSURE, 6, "decided", id="some gain"),
        pytest.param(even(-1, 0.1), ZERO, states.WORSE, 6, "decided", id="a loss"),
        pytest.param(even(0, 0.05), ZERO, states.EQUIVALENT, 6, "decided", id="no difference"),
        pytest.param(even(-0.2, 0.1), ZERO, states.NO_GAIN, 6, "decided", id="no gain"),
        pytest.param(even(0.1, 1), ZERO, states.INCONCLUSIVE, 13, "undecidable", id="a wide spread"),
        pytest.param(even(0.25, 0.5), ZERO, states.SUPPORTED_UNSURE, 25, "decided", id="late"),
        pytest.param(even(1, 0.1), MARGIN, states.SUPPORTED, 6, "decided", id="above the margin"),
        pytest.param(even(0.1, 0.02), MARGIN, states.SUPPORTED_SMALLER, 6, "decided", id="below it"),
        pytest.param(even(0.2, 0.05), MARGIN, states.SUPPORTED_UNSURE, 10, "undecidable", id="just it"),
        pytest.param(even(0.3, 0.2), MARGIN, states.SUPPORTED, 25, "decided", id="a little above it"),
        pytest.param([0.5] * 30, ZERO, states.SUPPORTED, 6, "decided", id="all equal"),
        pytest.param([0.0] * 30, ZERO, states.EQUIVALENT, 6, "decided", id="all zero"),
        pytest.param([0.2] * 30, MARGIN, states.SUPPORTED_UNSURE, 30, None, id="all just the margin"),
    ],
)  # fmt: skip
def test_what_it_comes_to_and_when(
    differences: list[float], design: Design, state: str, stop: int, why: str | None
) -> None:
    found = path(design, np.array([differences]))
    settled = [pairs for pairs, one in zip(LOOKS, found, strict=True) if one.settled[0]]
    assert (settled[0] if settled else 30) == stop
    assert found[-1].state[0] == state
    assert [bool(found[-1].decided[0]), bool(found[-1].undecidable[0])] == [
        why == "decided", why == "undecidable",
    ]  # fmt: skip


def test_settled_comparisons_keep_what_they_had_and_are_not_read() -> None:
    d = np.array([even(1, 0.1), even(0.25, 0.5)])
    first = look(ZERO, 0, d, None)
    assert first.settled.tolist() == [True, False]
    d[0, 6:] = np.nan
    final = last(ZERO, d)
    for old, new in zip(
        (first.mean, first.state, first.decided, *vars(first.evidence).values()),
        (final.mean, final.state, final.decided, *vars(final.evidence).values()),
        strict=True,
    ):
        assert old[0] == new[0]
    assert final.decided.all()
    d[1, 20] = np.nan
    with pytest.raises(ValueError, match="lacks one of the first 25 pairs"):
        last(ZERO, d)


def test_what_is_unclear_goes_on() -> None:
    """Equal differences, where one image is more than the margin, say nothing; later ones may."""
    d = np.array([[0.5] * 6 + [0.4, 0.6], [0.5] * 8])
    design = Design((6, 8), 0.05, 0.2)
    first = look(design, 0, d, None, unclear=np.array([True, False]))
    assert first.settled.tolist() == [False, True]
    assert first.evidence.above_zero.tolist() == [False, True]
    final = look(design, 1, d, first, unclear=np.array([False, False]))
    assert final.decided.tolist() == [True, True]


def test_the_last_look_leaves_nothing_undecidable() -> None:
    d = np.random.default_rng(3).normal(0.1, 0.3, (200, 1, 30))
    before = path(ZERO, d, len(LOOKS) - 1)[-1]
    final = look(ZERO, len(LOOKS) - 1, d, before)
    assert (final.undecidable == before.undecidable).all()
    assert (~final.settled).any()


def slow_holm(design: Design, differences: Floats, looks: int) -> dict[str, set[int]]:
    """Return what is rejected after some looks, in a direction each: one hypothesis at a time, p from SciPy."""
    margin, count = design.margin, len(differences)
    questions = {
        "below_zero": (0.0, "less"), "above_zero": (0.0, "greater"),
        "above_margin": (margin, "greater"), "below_margin": (margin, "less"),
    }  # fmt: skip
    rejected: dict[str, set[int]] = {name: set() for name in questions}
    for number in range(looks):
        settled = path(design, differences, number)[-1].settled if number else np.zeros(count)
        for name, (line, side) in questions.items():
            own = differences[:, : design.looks[number]]
            p = [stats.ttest_1samp(row, line, alternative=side).pvalue for row in own]
            while left := [
                one for one in range(count) if one not in rejected[name] and not settled[one]
            ]:
                least = min(left, key=lambda one: p[one])
                alpha = design.level / 2 / (count - len(rejected[name]))
                if p[least] >= boundaries(design.looks, alpha)[number]:
                    break
                rejected[name].add(least)
    return rejected


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("decide", ["zero", "margin"])
def test_holm_is_carried_on(seed: int, decide: str) -> None:
    rng = np.random.default_rng(seed)
    design = dataclasses.replace(SHORT, decide=decide)
    d = rng.choice([-0.3, 0.2, 0.4, 0.7], (4, 1)) + rng.normal(0, 0.25, (4, 9))
    for looks in (1, 2, 3):
        evidence = path(design, d, looks)[-1].evidence
        found = {
            name: {*np.flatnonzero(getattr(evidence, name)).tolist()}
            for name in ("below_zero", "above_zero", "above_margin", "below_margin")
        }
        assert found == slow_holm(design, d, looks)


def test_a_rejection_stands_when_the_interval_takes_it_back() -> None:
    """With decide=margin a gain that was shown is not the end, and what was shown stays shown."""
    design = dataclasses.replace(SHORT, decide="margin")
    d = np.array([[0.25, 0.3, 0.2, 0.25, -0.6, 0.9, 0.6, -0.1, 0.3]])
    first, *_, final = path(design, d)
    assert first.evidence.above_zero[0]
    assert final.evidence.low[0] < 0
    assert final.evidence.above_zero[0]


FAMILY = st.lists(
    st.lists(st.integers(-60, 60).map(lambda points: points / 50), min_size=9, max_size=9),
    min_size=1, max_size=4,
)  # fmt: skip


@given(rows=FAMILY)
def test_the_other_sign_has_the_other_side(rows: list[list[float]]) -> None:
    """Of one look, as later ones know whom the question about the margin has settled."""
    d = np.array(rows)
    one, other = (look(SHORT, 0, signed, None).evidence for signed in (d, -d))
    assert one.low == pytest.approx(-other.high)
    assert one.inner_low == pytest.approx(-other.inner_high)
    assert (one.above_zero == other.below_zero).all()


@given(rows=FAMILY, order=st.permutations(range(4)), decide=st.sampled_from(["zero", "margin"]))
def test_the_order_of_comparisons_does_not_matter(
    rows: list[list[float]], order: Sequence[int], decide: str
) -> None:
    design = dataclasses.replace(SHORT, decide=decide)
    order = [at for at in order if at < len(rows)]
    one, other = last(design, np.array(rows)), last(design, np.array(rows)[order])
    assert (one.state[order] == other.state).all()
    assert (one.settled[order] == other.settled).all()


@given(rows=FAMILY)
def test_many_sweeps_are_judged_as_one_by_one(rows: list[list[float]]) -> None:
    d = np.array([rows, rows[::-1]])
    together = last(SHORT, d)
    for at, sweep in enumerate(d):
        alone = last(SHORT, sweep)
        assert (together.state[at] == alone.state).all()
        assert together.evidence.low[at] == pytest.approx(alone.evidence.low)


@given(rows=FAMILY)
def test_what_is_decided_fits_its_state(rows: list[list[float]]) -> None:
    standing = last(SHORT, np.array(rows))
    said = (states.WORSE, *states.ANY_SUPPORTED, states.EQUIVALENT, states.NO_GAIN)
    assert np.isin(standing.state[standing.decided], said).all()
    assert not (standing.decided & standing.undecidable).any()
