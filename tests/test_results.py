"""Files of run folders, as tables read them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from harness.analysis import results
from harness.files import UnreadableError

ROWS = [
    {"step": 5, "epoch": 0.5, "lr": 0.1, "train/loss": 2.0},
    {"step": 10, "epoch": 1.0, "lr": 0.05, "train/loss": 1.0, "val/acc": 50.0, "val/loss": 1.5},
    {"step": 15, "epoch": 1.5, "lr": 0.025, "train/loss": 0.5},
]


def write(folder: Path, *more: str) -> None:
    text = "".join(f"{json.dumps(row)}\n" for row in ROWS)
    (folder / "history.jsonl").write_text(text + "".join(more))


def test_the_history_has_the_rows_with_null_for_a_metric_that_a_row_lacks(tmp_path: Path) -> None:
    write(tmp_path)
    names = ("step", "epoch", "lr", "train/loss", "val/acc", "val/loss")
    assert results.history(tmp_path).to_dicts() == [
        {name: row.get(name) for name in names} for row in ROWS
    ]


def test_without_a_file_or_a_whole_line_there_are_no_rows(tmp_path: Path) -> None:
    assert results.history(tmp_path).is_empty()
    (tmp_path / "history.jsonl").write_text('{"step": 5')
    nothing = results.history(tmp_path)
    assert nothing.is_empty()
    assert "val/acc" in nothing.columns
    assert results.last_row(tmp_path) == {}


@pytest.mark.parametrize("half", ['{"step": 20', '{"step": 20, "val/acc": 60.0}', "{"])
def test_a_last_line_that_is_being_written_is_left_out(tmp_path: Path, half: str) -> None:
    write(tmp_path, half)
    assert results.history(tmp_path)["step"].to_list() == [5, 10, 15]
    assert results.last_row(tmp_path) == ROWS[2]
    assert results.last_row(tmp_path, "val/acc") == ROWS[1]


@pytest.mark.parametrize("line", ["not JSON", "[1, 2]", '{"step": "twenty"}', '{"step": 20'])
def test_a_line_that_is_no_row_is_refused(tmp_path: Path, line: str) -> None:
    write(tmp_path, f"{line}\n")
    with pytest.raises(UnreadableError, match=r"history\.jsonl: is not of this version"):
        results.history(tmp_path)


def test_the_last_row_with_a_metric_is_found_in_front_of_many_without_it(tmp_path: Path) -> None:
    write(tmp_path, *(f'{{"step": {step}, "lr": 0.1}}\n' for step in range(16, 20_000)))
    assert results.last_row(tmp_path) == {"step": 19_999, "lr": 0.1}
    assert results.last_row(tmp_path, "val/acc") == ROWS[1]
    assert results.last_row(tmp_path, "test/acc") == {}
    with pytest.raises(FileNotFoundError):
        results.last_row(tmp_path / "elsewhere")


def test_the_lr_plan_comes_back_bit_for_bit(tmp_path: Path) -> None:
    lrs = np.array([0.1, 0.1 + 0.2, 1e-300])
    np.save(tmp_path / "lr.npy", lrs)
    assert results.lr(tmp_path).tolist() == lrs.tolist()


@pytest.mark.parametrize(
    "foreign",
    [np.array([1, 2]), np.array([[0.1]]), np.array([0.1], np.float32), np.array([{}], object)],
    ids=["whole numbers", "two dimensions", "fewer bits", "objects"],
)
def test_a_file_that_is_no_lr_plan_is_refused(tmp_path: Path, foreign: object) -> None:
    np.save(tmp_path / "lr.npy", foreign, allow_pickle=True)  # type: ignore[arg-type]
    with pytest.raises(UnreadableError, match=r"lr\.npy: is not of this version"):
        results.lr(tmp_path)


def test_a_sweep_of_before_a_key_has_the_value_that_it_had_then() -> None:
    """So that its runs are in the cells of new ones."""
    sweep = Path(__file__).parent / "golden/version_0.1/sweep"
    assert "accumulate" not in (sweep / "plan.json").read_text()
    for config in results.read(sweep)["config"]:
        optimizer = json.loads(config)["optimizer"]
        assert (optimizer["accumulate"], optimizer["no_decay"]) == (1, "none")
