"""Columns of curves: what counts where a run was resumed, where curves end, what the LR did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.errors import ConfigError
from harness.reading.recorded import RUNS, Recorded
from harness.reading.series import copies, ends, lr_ends, rows_without_step, series


def recorded(rows: Sequence[tuple[int, int | None, float | None]]) -> Recorded:
    curves = pl.DataFrame(
        rows, schema={"run": pl.UInt32, "step": pl.Int64, "acc": pl.Float64}, orient="row"
    )
    return Recorded("test", pl.DataFrame(schema=RUNS), curves)


def by_hand(rows: list[tuple[int, int | None, float | None]]) -> dict[int, dict[int, float]]:
    """What a reader of a log would keep: a row at step s removes what was there from s on.

    Before, rows that say the same of each step are sorted, and those that mostly fall turned.
    """
    logs: dict[int, list[tuple[int, float]]] = {}
    for run, step, value in rows:
        if step is not None and value is not None:
            logs.setdefault(run, []).append((step, value))
    kept: dict[int, dict[int, float]] = {}
    for run, log in logs.items():
        moves = [after[0] - before[0] for before, after in pairwise(log)]
        falls, rises = sum(move < 0 for move in moves), sum(move > 0 for move in moves)
        copied = len({*log}) == len(dict(log)) and 2 * falls > rises
        if falls and (len(dict(log)) == len(log) or copied):
            log.sort(key=lambda row: row[0])
        elif falls > rises:
            log.reverse()
        own = kept[run] = {}
        for step, value in log:
            for later in [at for at in own if at >= step]:
                del own[later]
            own[step] = value
    return kept


ROWS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.one_of(st.none(), st.integers(0, 9)),
        st.one_of(st.none(), st.floats(-9, 9)),
    ),
    max_size=40,
).map(lambda rows: sorted(rows, key=lambda row: row[0]))


@given(ROWS)
def test_rows_from_an_earlier_step_on_replace_what_was_there(rows: list[Any]) -> None:
    if not any(step is not None for _, step, _ in rows):
        rows = [*rows, (3, 0, 1.0)]
    found: dict[int, dict[int, float]] = {}
    own = series(recorded(rows), "acc")
    for run, step, value in own.rows.rows():
        assert step not in found.setdefault(run, {})
        found[run][step] = value
    assert found == by_hand(rows)
    assert all(list(steps) == sorted(steps) for steps in found.values())


def test_a_repeated_step_is_no_resumption() -> None:
    own = series(recorded([(0, 1, 5.0), (0, 1, 6.0), (1, 0, 7.0)]), "acc")
    assert own.rows.rows() == [(0, 1, 6.0), (1, 0, 7.0)]
    assert (own.repeated, own.resumed) == (1, [])


def test_a_resumed_run_is_named() -> None:
    own = series(recorded([(0, 1, 5.0), (1, 5, 1.0), (1, 6, 0.0), (1, 9, 2.0), (1, 6, 3.0)]), "acc")
    assert own.rows.rows() == [(0, 1, 5.0), (1, 5, 1.0), (1, 6, 3.0)]
    assert (own.repeated, own.resumed) == (2, [1])


ORDERS: dict[str, tuple[list[tuple[int, float]], list[float], set[str]]] = {
    "newest first": ([(3, 5.0), (2, 4.0), (1, 3.0)], [3.0, 4.0, 5.0], {"sorted"}),
    "newest first, one row copied": ([(3, 5.0), (3, 5.0), (2, 4.0), (1, 3.0)], [3.0, 4.0, 5.0], {"sorted"}),
    "newest first, one step again": ([(3, 6.0), (3, 5.0), (2, 4.0), (1, 3.0)], [3.0, 4.0, 6.0], {"turned"}),
    "newest first, resumed": ([(3, 7.0), (2, 6.0), (3, 5.0), (2, 4.0), (1, 3.0)], [3.0, 6.0, 7.0], {"turned", "resumed"}),
    "resumed with the same values": ([(1, 3.0), (2, 4.0), (3, 5.0), (2, 4.0)], [3.0, 4.0], {"resumed"}),
    "by value, copied": ([(2, 3.0), (2, 3.0), (1, 4.0), (3, 5.0), (3, 5.0)], [4.0, 3.0, 5.0], {"sorted"}),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_rows_in_another_order(name: str) -> None:
    rows, values, what = ORDERS[name]
    own = series(recorded([(0, step, value) for step, value in rows]), "acc")
    assert own.rows["value"].to_list() == values
    assert {kind for kind in ("sorted", "turned", "resumed") if getattr(own, kind)} == what


SEVERAL: dict[str, tuple[list[tuple[int, float]], bool]] = {
    "two whole runs": ([(1, 3.0), (2, 4.0), (3, 5.0), (1, 3.5), (2, 4.5), (3, 5.5)], True),
    "three, one crashed": ([(1, 3.0), (2, 4.0), (3, 5.0), (1, 3.5), (2, 4.5), (1, 6.0), (2, 6.5), (3, 7.0)], True),
    "newest first": ([(3, 5.0), (2, 4.0), (1, 3.0), (3, 5.5), (2, 4.5), (1, 3.5)], True),
    "one whole, one crashed": ([(1, 3.0), (2, 4.0), (3, 5.0), (1, 3.5), (2, 4.5)], False),
    "begun again after a crash": ([(1, 3.0), (2, 4.0), (1, 3.5), (2, 4.5), (3, 5.5)], False),
    "resumed": ([(1, 3.0), (2, 4.0), (3, 5.0), (2, 4.5), (3, 5.5)], False),
    "copied": ([(1, 3.0), (2, 4.0), (3, 5.0), (1, 3.0), (2, 4.0), (3, 5.0)], False),
    "one step alone": ([(3, 5.0), (3, 6.0)], False),
}  # fmt: skip


@pytest.mark.parametrize("name", SEVERAL)
def test_blocks_from_the_first_step_to_the_last_are_several_runs(name: str) -> None:
    rows, several = SEVERAL[name]
    other = [(0, 1, 1.0), (0, 2, 2.0)]
    own = series(recorded([*other, *((1, step, value) for step, value in rows)]), "acc")
    assert own.several == [1] * several


def test_a_table_of_final_values_has_step_0() -> None:
    final = recorded([(0, None, 1.0), (1, None, 2.0)])
    assert series(final, "acc").rows.rows() == [(0, 0, 1.0), (1, 0, 2.0)]
    assert rows_without_step(final) == 0


def test_rows_without_a_step_are_counted() -> None:
    mixed = recorded([(0, 1, 1.0), (0, None, 2.0)])
    assert series(mixed, "acc").rows.rows() == [(0, 1, 1.0)]
    assert rows_without_step(mixed) == 1


@pytest.mark.parametrize("step", [-1, 2**50])
def test_what_is_no_step_is_refused(step: int) -> None:
    with pytest.raises(ConfigError, match=rf"step: {step} is no step; --map step=COLUMN"):
        series(recorded([(0, step, 1.0)]), "acc")


def test_ends_are_the_last_value_the_last_finite_one_and_the_best() -> None:
    rows = series(recorded([(0, 1, 5.0), (0, 2, 9.0), (0, 3, math.nan), (2, 4, 1.0)]), "acc").rows
    assert ends(rows, "higher").select("run", "step", "finite", "best").rows() == [
        (0, 3, 9.0, 9.0), (2, 4, 1.0, 1.0),
    ]  # fmt: skip
    assert math.isnan(ends(rows, "higher")["value"][0])
    assert ends(rows, "lower")["best"].to_list() == [5.0, 1.0]


def cosine(cycles: list[int], every: int = 1, total: int | None = None) -> list[float]:
    """LRs of warm restarts, one an epoch: those that the epochs are trained with."""
    lrs = [(1 + math.cos(math.pi * at / length)) / 2 for length in cycles for at in range(length)]
    return lrs[:total][::every]


def warmed_again(lrs: list[float], at: int) -> list[float]:
    """The same of a run that was resumed at an epoch with a warmup of four rows."""
    return [lr * min(max(row - at, 0) / 4, 1) if row >= at else lr for row, lr in enumerate(lrs)]


@pytest.mark.parametrize(
    ("lrs", "restarts", "aligned"),
    [
        pytest.param(cosine([5, 5, 5]), 2, True, id="equal cycles"),
        pytest.param(cosine([5, 10, 20]), 2, True, id="doubling cycles"),
        pytest.param(cosine([5, 5, 5], total=13), 2, False, id="in mid-cycle"),
        pytest.param(cosine([5, 10, 20], total=25), 2, False, id="in the middle of a long cycle"),
        pytest.param(cosine([20]), 0, None, id="one cycle"),
        pytest.param([0.0, 1.0, 0.8, 0.4, 0.1], 0, None, id="a warm-up in one row"),
        pytest.param([0.1, 0.4, 0.8, 1.0, 0.8, 0.4], 0, None, id="a slow warm-up"),
        pytest.param([1.0, 0.5, 0.55, 0.3], 0, None, id="a small rise"),
        pytest.param([*cosine([10]), *[lr / 2 for lr in cosine([10])][:7]], 1, False, id="a lower second peak"),
        pytest.param([cosine([100, 100])[at] for at in range(0, 200, 30)], None, None, id="recorded seldom"),
        pytest.param(cosine([3, 6, 12], total=17), 2, False, id="below the first trough, above the last"),
        pytest.param([1.0], None, None, id="one row"),
        pytest.param(warmed_again([*cosine([20]), 0.01], 5), 0, None, id="a second warmup"),
        pytest.param(warmed_again([1.0] * 20, 8), 0, None, id="a second warmup to a constant LR"),
        pytest.param(warmed_again(cosine([10, 20]), 15), 1, True, id="a second warmup after a restart"),
        pytest.param(warmed_again(cosine([10, 20], total=22), 15), 1, False, id="a second warmup, then in mid-cycle"),
        pytest.param([*cosine([20])[:8], 0.0, *cosine([20])[9:]], 1, None, id="a second warmup in one row"),
        pytest.param([1.0] * 5 + [0.01] * 5 + [0.0001] * 5, 0, None, id="step decay"),
        pytest.param([*cosine([10]), 0.0], 0, None, id="cosine to 0"),
        pytest.param([abs(5 - at % 10) / 5 for at in range(31)], 3, False, id="triangles"),
        pytest.param([(at % 10) / 9 for at in range(30)], 2, False, id="a sawtooth that rises"),
        pytest.param(3 * [0.01, 0.35, 0.7, *cosine([10])], 2, None, id="restarts with a warmup"),
        pytest.param([0.0] * 4, 0, None, id="zero"),
        pytest.param([0.0, 0.0], None, None, id="two rows"),
    ],
)  # fmt: skip
def test_restarts_are_jumps_after_a_fall(
    lrs: list[float], restarts: int | None, aligned: bool | None
) -> None:
    rows = [(0, 0, 3.0), *((1, step, lr) for step, lr in enumerate(lrs))]
    found = lr_ends(series(recorded(rows), "acc").rows).filter(run=1).row(0, named=True)
    assert (found["restarts"], found["aligned"]) == (restarts, aligned)
    ends = (max(lrs), lrs[-1]) if len(lrs) > 1 else (None, None)
    assert (found["peak"], found["last"]) == ends


@pytest.mark.parametrize(
    "lrs",
    [
        pytest.param([*cosine([10, 10, 10])[1:], 1.0], id="the LR of the next update"),
        pytest.param(([*cosine([10] * 8)[1:], 1.0])[6::7], id="every seventh epoch"),
    ],
)
def test_an_lr_that_was_logged_after_the_scheduler_stepped_makes_no_mid_cycle(
    lrs: list[float],
) -> None:
    found = lr_ends(series(recorded([(0, at, lr) for at, lr in enumerate(lrs)]), "acc").rows)
    assert found["aligned"][0] is not False


def test_rows_of_one_run_alone_are_sorted() -> None:
    own = series(recorded([(0, 3, 1.0), (0, 2, 2.0), (0, 1, 3.0), (1, 1, 4.0), (1, 2, 5.0)]), "acc")
    assert own.rows.rows() == [(0, 1, 3.0), (0, 2, 2.0), (0, 3, 1.0), (1, 1, 4.0), (1, 2, 5.0)]
    assert (own.repeated, own.resumed, own.sorted) == (0, [], [0])


@pytest.mark.parametrize(
    "steps", [(3, 2, 1), (2, 1), (0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9), (5, 1, 2, 3, 4)], ids=str
)
def test_rows_of_another_order_are_sorted(steps: tuple[int, ...]) -> None:
    own = series(recorded([(0, step, float(step)) for step in steps]), "acc")
    assert own.rows["step"].to_list() == sorted(steps)
    assert (own.repeated, own.resumed, own.sorted) == (0, [], [0])


def test_a_run_may_be_resumed_twice() -> None:
    own = series(recorded([(0, step, step + at / 10) for at, step in enumerate((1, 2, 3, 2, 3, 2))]), "acc")  # fmt: skip
    assert own.rows.rows() == [(0, 1, 1.0), (0, 2, 2.5)]
    assert (own.resumed, own.sorted) == ([0], [])


def test_copies_have_the_values_of_another_run_in_all_digits() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    other, coarse = [1.0, 2.0, 3.0, 4.0, 5.5], [1.0, 2.0, 1.0, 2.0, 1.0]
    runs = [values, values, other, coarse, coarse, values]
    rows = [(run, step, value) for run, own in enumerate(runs) for step, value in enumerate(own)]
    own = series(recorded(rows), "acc").rows
    assert copies(own, 5) == {0: 0, 1: 0, 5: 0}
    assert copies(own, 2) == {0: 0, 1: 0, 5: 0, 3: 3, 4: 3}
