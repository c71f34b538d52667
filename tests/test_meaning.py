"""What names mean: directions and units of metrics, columns of the LR, epochs and seeds."""

from __future__ import annotations

import re

import pytest

from harness.config.errors import ConfigError
from harness.config.measures import Measure
from harness.reading.meaning import (
    direction,
    is_named_result,
    is_seed,
    measure,
    metric_column,
    no_setting,
    roles,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("val_acc", "higher"), ("eval_top1", "higher"), ("valAccuracy", "higher"), ("macro_f1", "higher"),
        ("AUROC", "higher"), ("acc (lower is better)", "lower"), ("MIA acc ↓", "lower"),
        (r"Backdoor Acc. (%) $\downarrow$", "lower"), ("score ↑", "higher"), ("forget_acc (higher is better)", "higher"), ("error (lower is better)", "lower"),
        ("real_time_acc", "higher"), ("image_to_text_top1", "higher"), ("Acc (20 epochs)", "higher"), ("acc_lower_body", "higher"), ("val_loss", "lower"), ("eval/perplexity", "lower"), ("test_error_rate", "lower"),
    ],
)  # fmt: skip
def test_directions_follow_from_names(name: str, expected: str) -> None:
    assert direction(name, None) == expected


@pytest.mark.parametrize(
    "name",
    ["score", "neg_log_loss", "negMeanSquaredError", "acc_loss", "minus_mse", "x", "place", "1-acc", "acc_std",
     "acc_drop", "1 - accuracy", "wer_reduction", "error_improvement", "acc_gain", "time_to_accuracy",
     "epochs_to_top1", "rounds_to_acc", "Rounds to 80% accuracy", "iters_to_90_acc", "queries to top1",
     "tokens_until_acc", "forget_acc", "attack_acc", "MIA acc", "backdoor_acc", "score ↑↓", "steps_to_90_acc", "-acc", "−acc", "forgetting_acc", "acc_decline",
     "acc_cost"],
)  # fmt: skip
def test_other_directions_are_asked_for(name: str) -> None:
    with pytest.raises(
        ConfigError, match=f"--better: say whether higher or lower is better of {re.escape(name)}$"
    ):
        direction(name, None)
    assert direction(name, "lower") == "lower"


@pytest.mark.parametrize(
    ("name", "better", "ends", "unit", "margin"),
    [
        pytest.param("val_acc", "higher", [93.1, 92.0], "%", 0.2, id="percent"),
        pytest.param("val_acc", "higher", [93.1, 0.9, 92.0], "%", 0.2, id="one bad run"),
        pytest.param("val/acc", "higher", [0.931, 0.92], "", 0.002, id="fractions"),
        pytest.param("val_acc", "higher", [120.0], "", None, id="above 100"),
        pytest.param("val_acc", "higher", [93.0, -1.0], "", None, id="below 0"),
        pytest.param("acc_err", "lower", [0.1], "", None, id="lower is better"),
        pytest.param("val_loss", "lower", [2.5], "", None, id="a loss"),
        pytest.param(
            "multi_scale_top1 (224 size)", "higher", [76.0], "%", 0.2, id="words of settings"
        ),
        pytest.param("epochs_to_top1", "lower", [12.0], "", None, id="what it took"),
    ],
)
def test_units_and_margins_are_those_of_accuracies_alone(
    name: str, better: str, ends: list[float], unit: str, margin: float | None
) -> None:
    if margin is None:
        with pytest.raises(
            ConfigError, match=f"--margin: say the smallest difference of {name} that"
        ):
            measure(name, better, ends, None)
    else:
        assert measure(name, better, ends, None) == (Measure(better, unit), margin)
    assert measure(name, better, ends, 0.01) == (Measure(better, unit), 0.01)


@pytest.mark.parametrize(
    ("role", "columns", "expected"),
    [
        ("lr", ["lr", "train/lr"], "lr"),
        ("lr", ["train/learning_rate"], "train/learning_rate"),
        ("lr", ["lr-SGD", "epoch"], "lr-SGD"),
        ("lr", ["colr", "lr_mult", "val/lrs", "lr-SGD-momentum"], None),
        ("lr", ["lr0"], "lr0"),
        ("lr", ["lr/pg0"], "lr/pg0"),
        ("lr", ["lr-SGD/pg1"], "lr-SGD/pg1"),
        ("epoch", ["trainer.epoch"], "trainer.epoch"),
        ("epoch", ["epoch", "train/epoch"], "epoch"),
        ("epoch", ["epoch_time", "warmup_epochs", "best_epoch", "num_bad_epochs"], None),
        ("epoch", ["num_epochs"], "num_epochs"),
        ("epoch", ["val_epoch", "val_acc_epoch"], "val_epoch"),
        ("epoch", ["warmup_epochs", "current_epoch"], "current_epoch"),
    ],
)
def test_columns_of_lr_and_epoch(role: str, columns: list[str], expected: str | None) -> None:
    found, notes = roles("val_acc", ["val_acc", *columns], {})
    assert (found.get(role), notes) == (expected, [])


@pytest.mark.parametrize(
    "columns",
    [["lr-SGD/pg1", "lr-SGD/pg2"], ["train/lr/pg0", "train/lr/pg1", "train/lr/pg2"], ["lr_0", "lr_1"], ["lr-Adam", "lr-Adam-1"]],
    ids=str,
)  # fmt: skip
def test_of_several_groups_of_parameters_the_first_ones_lr_is_read(columns: list[str]) -> None:
    found, notes = roles("acc", ["acc", *columns], {})
    assert found["lr"] == columns[0]
    (note,) = notes
    assert note == f"the lr is that of {columns[0]}, of {', '.join(columns)}: --map lr=COLUMN takes another"  # fmt: skip
    assert roles("acc", ["acc", *columns], {"lr": columns[1]})[0]["lr"] == columns[1]


@pytest.mark.parametrize(
    "name",
    ["seed", "Random Seed", "random seed", "Seed #", "seed (int)", "Param seed", "trainer.seed"],
)
def test_names_of_seeds(name: str) -> None:
    assert is_seed(name)
    assert not is_seed("seeds_per_arm")
    assert not is_seed("rng")


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
        (["fold", "dice"], "dice"),
        (["top1", "train_loss", "Epoch"], "top1"),
        (["best_val_acc", "val_acc"], "val_acc"),
        (["test_size", "f1"], "f1"),
        (["interval", "f1"], "f1"),
        (["eval_batch_size", "grad_acc_steps", "f1"], "f1"),
        (["top_p", "top_k", "score"], "score"),
        (["trainAcc", "valacc"], "valacc"),
        (["loss", "validation_0-error"], "validation_0-error"),
        (["val_acc_epoch", "train_acc"], "val_acc_epoch"),
        (["grad_acc_steps", "acc_epoch"], "acc_epoch"),
        (["loss", "val_sparse_categorical_accuracy"], "val_sparse_categorical_accuracy"),
        (["top_k_categorical_accuracy", "top_k"], "top_k_categorical_accuracy"),
    ],
)
def test_the_one_number_that_can_be_judged_is(columns: list[str], expected: str) -> None:
    assert metric_column(None, columns, [], []) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [("hostname", True), ("trainer.output_dir", True), ("run.name", True), ("wandb_id", True),
     ("tracking.mode", True), ("model.name", False), ("dataset.path", False), ("update", False),
     ("max_time_steps", False), ("scheduler.t_mult", False)],
)  # fmt: skip
def test_which_keys_are_no_settings(key: str, expected: bool) -> None:
    assert no_setting(key) is expected


def test_best_values_and_settings_are_no_metrics() -> None:
    with pytest.raises(ConfigError, match="--metric best_acc: is a best value by its name"):
        metric_column("best_acc", ["best_acc"], [], [])
    with pytest.raises(
        ConfigError, match="--metric acc: has one value in each run, and was read as a setting"
    ):
        metric_column("acc", ["loss"], ["acc"], [])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("val_loss", True), ("auc", True), ("test/acc", True), ("train_size", False), ("warmup_steps", False),
     ("top_k", False), ("trainer.precision", False), ("eval_every", False), ("weight_decay", False), ("epoch", True),
     ("trainer/global_step", True), ("best_epoch", True), ("converged_at", True), ("Train time (s)", True), ("GPU hours", True), ("epochs_done", True), ("minutes", True), ("gpu_mem_gb", True),
     ("epochs", False), ("max_steps", False), ("trainer.max_epochs", False), ("last_layer", False)],
)  # fmt: skip
def test_names_tell_results_from_settings_in_tables_of_final_values(
    name: str, expected: bool
) -> None:
    assert is_named_result(name) is expected
