"""The choice of a tuned value, and how a grid goes on beyond its edges."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.tuning import Choice, Value, choose, extend

NEAR = [90.0, 92.0]  # mean 91, standard error 1
Tried = Mapping[Value, Sequence[float | None]]


@pytest.mark.parametrize(
    ("tried", "value", "best", "edge", "ruled_out"),
    [
        pytest.param({"0.05": [80, 81], "0.1": NEAR, "0.2": [70, 71]}, "0.1", "0.1", False, (), id="the best"),
        pytest.param({"0.05": [90, 90.1], "0.1": NEAR, "0.2": [70, 71]}, "0.05", "0.1", False, (), id="a smaller one within one error"),
        pytest.param({"0.05": [90, 90], "0.1": NEAR, "0.2": [70, 71]}, "0.05", "0.1", False, (), id="at just one error"),
        pytest.param({"0.05": [90, 89.9], "0.1": NEAR, "0.2": [70, 71]}, "0.1", "0.1", False, (), id="beyond one error"),
        pytest.param({"0.05": [80, 80], "0.1": NEAR, "0.2": [90.9, 90.9]}, "0.1", "0.1", False, (), id="not a larger one"),
        pytest.param({"0.025": [90.5, 90.5], "0.05": [80, 80], "0.1": NEAR, "0.2": [1, 1]}, "0.025", "0.1", False, (), id="the smallest, with a gap"),
        pytest.param({"0.05": [80, 81], "0.1": NEAR}, "0.1", "0.1", True, (), id="at the upper edge"),
        pytest.param({"0.05": NEAR, "0.1": [80, 81]}, "0.05", "0.05", True, (), id="at the lower edge"),
        pytest.param({"0.2": [1, 1], "0.1": NEAR, "0.05": [90.5, 90.5]}, "0.05", "0.1", False, (), id="in any order"),
        pytest.param({"8": [91, 91], "16": [91, 91], "128": [1, 1]}, "8", "8", True, (), id="ties, by number"),
        pytest.param({"0.05": [1, 1], "0.1": NEAR, "0.2": [99, None]}, "0.1", "0.1", False, ("0.2",), id="one diverged"),
        pytest.param({"0.05": [None, 1], "0.1": NEAR, "0.2": [None, None]}, "0.1", "0.1", False, ("0.05", "0.2"), id="two diverged"),
        pytest.param({"adam": [90, 90], "sgd": NEAR, "lion": [1, 1]}, "adam", "sgd", False, (), id="text, the earlier one"),
        pytest.param({"sgd": NEAR, "adam": [90, 90]}, "sgd", "sgd", False, (), id="text, the best is the earlier one"),
        pytest.param({"2": [90, 90], "1": NEAR, "auto": [1, 1]}, "2", "1", False, (), id="some text"),
        pytest.param({("0.1", "4"): [90, 90], ("0.1", "8"): [1, 1], ("0.2", "4"): NEAR}, ("0.1", "4"), ("0.2", "4"), False, (), id="two keys"),
    ],
)  # fmt: skip
def test_what_is_chosen(
    tried: Tried, value: Value, best: Value, edge: bool, ruled_out: tuple[Value, ...]
) -> None:
    found = choose(tried)
    assert found is not None
    assert (found.value, found.best, found.edge, found.ruled_out) == (value, best, edge, ruled_out)


def test_the_mean_and_its_error_are_the_best_s() -> None:
    found = choose({"0.1": [90, 91, 92, 95], "0.2": [80, 81, 82, 83]})
    assert found == Choice("0.1", "0.1", 92.0, math.sqrt(14 / 3) / 2, True, ())


def test_nothing_is_chosen_where_each_value_diverged() -> None:
    assert choose({"0.1": [90, None], "0.2": [None, 91]}) is None
    assert choose({}) is None


def test_one_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="two tuning seeds"):
        choose({"0.1": [90], "0.2": [91]})


def test_where_lower_is_better_the_choice_is_that_of_the_negatives() -> None:
    tried: Tried = {"0.1": [0.5, 0.7], "0.2": [0.4, 0.5], "0.4": [0.45, 0.43], "0.8": [0.3, None]}
    negatives: Tried = {
        value: [None if one is None else -one for one in own] for value, own in tried.items()
    }
    found, other = choose(tried, -1), choose(negatives)
    assert found
    assert other
    assert found == dataclasses.replace(other, mean=-other.mean)
    assert (found.value, found.best, found.ruled_out) == ("0.2", "0.4", ("0.8",))


GRID = ["0.05", "0.1", "0.2"]


@pytest.mark.parametrize(
    ("grid", "added", "best", "more"),
    [
        pytest.param(GRID, [], "0.2", "0.4", id="above"),
        pytest.param(GRID, [], "0.05", "0.025", id="below"),
        pytest.param(GRID, [], "0.1", None, id="within"),
        pytest.param(GRID, ["0.4"], "0.2", None, id="within, now"),
        pytest.param(GRID, ["0.4", "0.8"], "0.8", "1.6", id="the third"),
        pytest.param(GRID, ["0.4", "0.8", "1.6"], "1.6", None, id="no fourth"),
        pytest.param(["0.2", "0.1", "0.05"], [], "0.2", "0.4", id="in any order"),
        pytest.param(["0.1", "0.3"], [], "0.3", "0.6", id="decimal, not binary"),
        pytest.param(["1e-4", "3e-4"], [], "3e-4", "0.0006", id="with an exponent"),
        pytest.param(["1e-4", "3e-4"], [], "1e-4", "0.00005", id="with an exponent, below"),
        pytest.param(["32", "64"], [], "64", "128", id="whole, above"),
        pytest.param(["32", "64"], [], "32", "16", id="whole, below"),
        pytest.param(["5", "10"], [], "5", None, id="odd"),
        pytest.param(["1.0", "2.0"], [], "1.0", "0.5", id="not odd but a number with a point"),
        pytest.param(["0", "1e-4"], [], "0", None, id="nothing below zero"),
        pytest.param(["sgd", "adam"], [], "adam", None, id="text"),
        pytest.param(["2", "auto"], [], "2", None, id="some text"),
        pytest.param([("0.1", "4"), ("0.2", "8")], [], ("0.2", "8"), None, id="two keys"),
    ],
)  # fmt: skip
def test_how_a_grid_goes_on(
    grid: list[Value], added: list[Value], best: Value, more: str | None
) -> None:
    assert extend(grid, [*grid, *added], best) == more


@given(
    means=st.lists(st.integers(0, 100), min_size=2, max_size=6),
    spread=st.integers(0, 20),
    diverged=st.sets(st.integers(0, 5)),
)
def test_the_choice_is_never_ruled_out_nor_worse_than_one_error(
    means: list[int], spread: int, diverged: set[int]
) -> None:
    tried: Tried = {
        f"0.{at + 1}": [mean - spread, None if at in diverged else mean + spread]
        for at, mean in enumerate(means)
    }
    found = choose(tried)
    left = {f"0.{at + 1}": mean for at, mean in enumerate(means) if at not in diverged}
    if found is None:
        assert not left
        return
    assert found.mean == max(left.values())
    assert found.se == pytest.approx(spread)
    assert left[str(found.value)] >= found.mean - found.se
    assert str(found.value) <= str(found.best)
    assert {*found.ruled_out} == {*tried} - {*left}
