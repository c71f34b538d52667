"""A number that is not finite, wherever it comes up, ends the run as diverged and is kept nowhere."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Main, essential
from torch import Tensor

from harness.analysis import results
from harness.store.checkpoint import read_checkpoint, read_state
from harness.training.loop import Row, TrainState, TrainStep

BASE = (
    "dataset=synthetic", "dataset.images=200", "dataset.classes=4", "dataset.image_size=4",
    "model.width=2", "trainer.batch_size=16", "trainer.log_every=1", "scheduler.t_0=1",
    "trainer.epochs=3", "trainer.checkpoint_every=0.000001", "tracking=none",
)  # fmt: skip
EPOCH = 8  # updates
TRAIN, EVALUATE = TrainStep.train, TrainStep.evaluate


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(), parse_constant=pytest.fail)
    return document


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def metric(split: str, value: float, number: int) -> Callable[..., Row]:
    """The evaluation of a `split` whose loss is `value` the `number`th time."""
    done = 0

    def evaluate(self: TrainStep, network: Any, batches: Iterable[Any], of: str, *more: Any) -> Row:
        nonlocal done
        row = EVALUATE(self, network, batches, of, *more)
        done += of == split
        return row | {f"{split}/loss": value} if of == split and done == number else row

    return evaluate


def weight(name: str, value: float, update: int) -> Callable[..., Tensor]:
    """The update whose number is `update` leaves `value` in the tensor `name`, and a finite loss."""

    def train(self: TrainStep, state: TrainState, *batches: Any) -> Tensor:
        loss = TRAIN(self, state, *batches)
        if state.updates == update:
            with torch.no_grad():
                state.network.state_dict()[name].view(-1)[0] = value
        return loss

    return train


FAULTS: dict[str, tuple[str, Callable[..., Any], str, int]] = {
    "the first evaluation": (
        "evaluate", metric("val", math.nan, 1), "val/loss after update 8 is nan", EPOCH - 1
    ),
    "the last evaluation": (
        "evaluate", metric("val", math.inf, 3), "val/loss after update 24 is inf", 3 * EPOCH - 1
    ),
    "the test": (
        "evaluate", metric("test", -math.inf, 1), "test/loss after update 24 is -inf", 3 * EPOCH
    ),
    "a weight": (
        "train", weight("head.weight", math.nan, 10), "the loss of update 11 is nan", EPOCH + 2
    ),
    "a weight, at an evaluation": (
        "train", weight("head.bias", math.inf, 16), "val/loss after update 16 is nan", 2 * EPOCH - 1
    ),
    "a batch norm": (
        "train", weight("norm.running_var", math.inf, 12),
        "norm.running_var is not finite after update 16", 2 * EPOCH - 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", essential(FAULTS))
def test_what_is_not_finite_ends_the_run_as_diverged(
    tmp_path: Path, main: Main, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    name, broken, reason, kept = FAULTS[fault]
    store = f"store.dir={tmp_path}/store"
    sweep = ("-m", *BASE, "seed=0,1", store)
    with monkeypatch.context() as patched:
        patched.setattr(TrainStep, name, broken)
        done = main(*sweep, f"hydra.sweep.dir={tmp_path}/sweep")
    folder, result = tmp_path / "sweep/0", read(tmp_path / "sweep/0/result.json")
    assert (result["status"], result["error"]) == ("diverged", reason)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert f"diverged: {reason}" in done.stderr
    assert len(rows(folder)) == kept, "the rows before it"
    assert "test" not in result
    assert all(math.isfinite(value) for row in rows(folder) for value in row.values())
    for path in (tmp_path / "store").glob("*/*-*.json"):
        tensors = read_state(read_checkpoint(path))["network"].values()
        assert all(tensor.isfinite().all() for tensor in tensors if tensor.is_floating_point())
    table = results.read(tmp_path / "sweep")
    assert table["status"][0] == "diverged"
    assert "diverged" in (tmp_path / "sweep/report.html").read_text()

    assert main(*BASE, "seed=0", store, f"hydra.run.dir={tmp_path}/again").returncode == 0
    assert read(tmp_path / "again/result.json")["error"].startswith(f"{reason}; that was before")
    main(*BASE, "seed=0", "retry=true", store, f"hydra.run.dir={tmp_path}/retried")
    main(*BASE, "seed=0", "reuse=false", f"hydra.run.dir={tmp_path}/alone")
    retried, alone = (read(tmp_path / name / "result.json") for name in ("retried", "alone"))
    assert retried["updates_reused"] > 0
    assert retried["weights_sha256"] == alone["weights_sha256"]
    assert rows(tmp_path / "retried") == rows(tmp_path / "alone")


@pytest.mark.parametrize("mode", essential(["none", "offline"]))
@pytest.mark.slow
def test_a_large_lr_of_an_ordinary_sweep(tmp_path: Path, main: Main, mode: str) -> None:
    """Its losses are finite, and its first evaluation is not."""
    done = main(
        "-m", "optimizer.lr=0.1,1000", "trainer.batch_size=256", "model.width=4", "trainer.epochs=3",
        "scheduler.t_0=1", f"hydra.sweep.dir={tmp_path}/sweep", f"store.dir={tmp_path}/store",
        *(["tracking=none"] if mode == "none" else [f"tracking.mode={mode}"]),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ends = [read(tmp_path / f"sweep/{number}/result.json") for number in range(2)]
    assert [end["status"] for end in ends] == ["complete", "diverged"]
    assert "val/loss after update" in ends[1]["error"]
    assert not re.search(r"warning: (?!1 seed an arm)", done.stderr)


def test_a_file_with_numbers_that_are_not_finite_is_refused(tmp_path: Path, main: Main) -> None:
    main("-m", *BASE, "scheduler.t_mult=1,2", f"hydra.sweep.dir={tmp_path}", "reuse=false")
    path = tmp_path / "0/result.json"
    whole = path.read_text()
    for value in ("NaN", "-Infinity", "1e999"):  # as other programs write them
        path.write_text(whole.replace('"final": {', f'"final": {{"val/loss": {value},'))
        with pytest.raises(OSError, match=f"{path}: is not JSON .{value} is not finite"):
            results.read(tmp_path)
