"""The table of states: exhaustive, exclusive, the same in code and documentation."""

from __future__ import annotations

import re

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis import states
from harness.analysis.paired_stats import JointP
from harness.analysis.states import Evidence, decide, least_favourable

ENDS = st.integers(-6, 6).map(lambda number: number / 10)


@given(ends=st.lists(ENDS, min_size=4, max_size=4), margin=st.sampled_from([0.0, 0.1, 0.2, 0.5]))
def test_every_interval_has_one_state_and_the_table_says_which(
    ends: list[float], margin: float
) -> None:
    low, inner_low, inner_high, high = sorted(ends)
    evidence = Evidence.of_intervals((low, high), (inner_low, inner_high), margin)
    table = {  # as docs/verdict.md has it, in its order
        states.WORSE: high < 0,
        states.SUPPORTED: low > margin,
        states.SUPPORTED_SMALLER: low > 0 and high < margin,
        states.SUPPORTED_UNSURE: low > 0,
        states.EQUIVALENT: -margin <= inner_low and inner_high <= margin,
        states.NO_GAIN: high < margin,
        states.INCONCLUSIVE: True,
    }
    assert str(decide(evidence, margin)) == next(state for state, fits in table.items() if fits)


@given(
    shown=st.lists(st.booleans(), min_size=4, max_size=4),
    ends=st.lists(ENDS, min_size=4, max_size=4),
    margin=st.sampled_from([0.0, 0.2]),
)
def test_the_joint_test_only_ever_takes_away(
    shown: list[bool], ends: list[float], margin: float
) -> None:
    low, inner_low, inner_high, high = sorted(ends)
    alone = Evidence.of_intervals((low, high), (inner_low, inner_high), margin)
    p = [np.array(0.0 if one else 1.0) for one in shown]
    state, by_itself = (
        str(decide(one, margin)) for one in (alone.adjusted(JointP(*p), 0.05), alone)
    )
    if all(shown):
        assert state == by_itself
    if state in (states.WORSE, states.SUPPORTED):
        assert by_itself == state
    if state in states.ANY_SUPPORTED:
        assert by_itself in states.ANY_SUPPORTED


@pytest.mark.parametrize(
    ("one", "other", "less"),
    [
        (states.SUPPORTED, states.SUPPORTED_UNSURE, states.SUPPORTED_UNSURE),
        (states.SUPPORTED, states.INCONCLUSIVE, states.INCONCLUSIVE),
        (states.SUPPORTED, states.WORSE, states.WORSE),
        (states.EQUIVALENT, states.INCONCLUSIVE, states.INCONCLUSIVE),
        (states.INCONCLUSIVE, states.WORSE, states.WORSE),
        (states.TOO_FEW, states.SUPPORTED, states.TOO_FEW),
        (states.TOO_FEW, states.WORSE, states.WORSE),
    ],
)
def test_the_less_favourable_of_two(one: str, other: str, less: str) -> None:
    assert least_favourable(one, other) == least_favourable(other, one) == less


def test_the_documentation_has_the_same_table_in_the_same_order() -> None:
    text = (ROOT / "docs" / "verdict.md").read_text()
    table = text[text.index("| state | when") :].partition("\n\n")[0]
    assert tuple(re.findall(r"^\| \*\*(.+?)\*\* \|", table, re.MULTILINE)) == states.STATES
