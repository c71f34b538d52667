"""The history of a run: rows are lines, in the order in which they came."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from harness.runs.history import History
from harness.training.loop import Row

ROWS: list[Row] = [
    {"step": 4, "epoch": 0.5, "lr": 0.1, "train/loss": 2.25},
    {"step": 8, "epoch": 1.0, "lr": 0.1 + 0.2, "train/loss": 1e-300, "val/acc": 50.0},
    {"step": 12, "epoch": 1.5, "lr": 0.0, "train/loss": 1.5},
]


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("given", range(4))
def test_rows_are_read_back_in_order_after_those_that_were_given(
    tmp_path: Path, given: int
) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 99}\n')  # of a run before, in the same folder
    history = History(path, ROWS[:given])
    assert lines(path) == history.rows == ROWS[:given]
    for count, row in enumerate(ROWS[given:], start=given + 1):
        history.append(row)
        assert lines(path) == history.rows == ROWS[:count]  # before the file is closed
    history.close()
    assert lines(path) == ROWS


def test_the_list_of_given_rows_is_left_as_it_was(tmp_path: Path) -> None:
    given = ROWS[:1]
    history = History(tmp_path / "history.jsonl", given)
    history.append(ROWS[1])
    history.close()
    assert given == ROWS[:1]


def test_a_file_that_was_removed_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history = History(path, ROWS[:1])
    path.unlink()
    with pytest.raises(FileNotFoundError) as error:
        history.append(ROWS[1])
    assert str(error.value) == (
        f"{path}: was removed while the run wrote to it; the same command goes on "
        "from its last checkpoint"
    )
    assert history.rows == ROWS[:1]
    history.close()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "history.jsonl"
    history = History(path, ROWS[:1])
    with pytest.raises(ValueError, match="not JSON compliant"):
        history.append({"step": 8, "train/loss": value})
    history.append(ROWS[1])
    history.close()
    assert lines(path) == history.rows == ROWS[:2]
    with pytest.raises(ValueError, match="not JSON compliant"):
        History(path, [{"step": 8, "train/loss": value}])
    assert lines(path) == ROWS[:2]
