"""What names mean: directions and units of metrics, columns of the LR, epochs and seeds."""

from __future__ import annotations

import polars as pl
import pytest

from harness.config.errors import ConfigError
from harness.config.measures import Measure
from harness.reading.meaning import measure, metric_column, no_setting, roles, usual_margin


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("val_acc", [93.1, 92.0], Measure("higher", "%")),
        ("val/acc", [0.931, 0.92], Measure("higher", "")),
        ("eval_top1", [76.0], Measure("higher", "%")),
        ("valAccuracy", [76.0], Measure("higher", "%")),
        ("val_loss", [2.5], Measure("lower", "")),
        ("eval/perplexity", [12.0], Measure("lower", "")),
        ("test_error_rate", [5.0], Measure("lower", "")),
        ("macro_f1", [55.0], Measure("higher", "")),
        ("AUROC", [0.9], Measure("higher", "")),
        ("val_acc", [120.0], Measure("higher", "")),
    ],
)
def test_directions_and_units_follow_from_names(
    name: str, values: list[float], expected: Measure
) -> None:
    assert measure(name, None, pl.Series(values)) == expected


@pytest.mark.parametrize(
    "name", ["score", "neg_log_loss", "negMeanSquaredError", "acc_loss", "minus_mse", "x", "place"]
)
def test_other_directions_are_asked_for(name: str) -> None:
    with pytest.raises(
        ConfigError, match=f"--better: say whether higher or lower is better of {name}"
    ):
        measure(name, None, pl.Series([1.0]))
    assert measure(name, "lower", pl.Series([1.0])) == Measure("lower", "")


def test_margins_are_usual_for_accuracies_alone() -> None:
    assert usual_margin("val_acc", Measure("higher", "%"), None) == 0.2
    assert usual_margin("val_acc", Measure("higher", ""), None) == 0.002
    assert usual_margin("val_loss", Measure("lower", ""), 0.01) == 0.01
    with pytest.raises(ConfigError, match="--margin: say the smallest difference of val_loss that"):
        usual_margin("val_loss", Measure("lower", ""), None)


@pytest.mark.parametrize(
    ("role", "columns", "expected"),
    [
        ("lr", ["lr", "train/lr"], "lr"),
        ("lr", ["train/learning_rate"], "train/learning_rate"),
        ("lr", ["lr-SGD", "epoch"], "lr-SGD"),
        ("lr", ["colr", "lr_mult", "val/lrs"], None),
        ("epoch", ["trainer.epoch"], "trainer.epoch"),
        ("epoch", ["epoch", "train/epoch"], "epoch"),
        ("epoch", ["epoch_time"], None),
    ],
)
def test_columns_of_lr_and_epoch(role: str, columns: list[str], expected: str | None) -> None:
    found, notes = roles("val_acc", ["val_acc", *columns], {})
    assert (found.get(role), notes) == (expected, [])


def test_an_open_column_is_said_and_can_be_given() -> None:
    note = "the lr may be in lr-SGD, opt/lr: --map lr=COLUMN says in which"
    columns = ["x", "lr-SGD", "opt/lr"]
    assert roles("x", columns, {}) == ({"value": "x"}, [note])
    assert roles("x", columns, {"lr": "opt/lr"}) == ({"value": "x", "lr": "opt/lr"}, [])
    with pytest.raises(ConfigError, match="--map lr= rate: is not in the source"):
        roles("x", columns, {"lr": "rate"})


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["train_loss", "val_acc", "val_loss"], "val_acc"),
        (["train_loss", "eval_loss"], "eval_loss"),
        (["bleu"], "bleu"),
    ],
)
def test_the_one_number_that_can_be_judged_is(columns: list[str], expected: str) -> None:
    assert metric_column(None, columns) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [("hostname", True), ("trainer.output_dir", True), ("run.name", True), ("wandb_id", True),
     ("tracking.mode", True), ("model.name", False), ("dataset.path", False), ("update", False),
     ("max_time_steps", False), ("scheduler.t_mult", False)],
)  # fmt: skip
def test_which_keys_are_no_settings(key: str, expected: bool) -> None:
    assert no_setting(key) is expected
