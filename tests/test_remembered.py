"""What the store remembers of a bad end: what follows from the run's key, and no fault from outside."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from conftest import Main
from PIL import Image
from torch._inductor.exc import InductorError

from harness.runs.history import History
from harness.training import batches
from harness.training import datasets as data
from harness.training.loop import TrainStep

SYNTHETIC = (
    "dataset=synthetic",
    "dataset.images=200",
    "dataset.classes=4",
    "trainer.batch_size=50",
)
SHORT = ("trainer.epochs=1", "scheduler.t_0=1")


def result(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return document


@pytest.fixture
def train(tmp_path: Path, main: Main) -> Callable[..., tuple[str, str]]:
    """`train(NAME, OVERRIDES)`: how the run in folder NAME ended, and its error; all share a store."""

    def run(name: str, *overrides: str) -> tuple[str, str]:
        places = f"hydra.run.dir={tmp_path / name}", f"store.dir={tmp_path / 'store'}"
        done = main(*SHORT, *places, *overrides)
        found = result(tmp_path / name)
        assert (done.returncode == 0) == (found["status"] in ("complete", "diverged")), done.stderr
        return found["status"], str(found["error"])

    return run


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def broken(*args: object) -> NoReturn:
        raise error

    return broken


FROM_OUTSIDE: dict[str, tuple[type, str, BaseException]] = {
    "memory": (TrainStep, "train", MemoryError()),
    "memory of a GPU": (TrainStep, "train", torch.OutOfMemoryError("CUDA out of memory.")),
    "a process that reads images": (TrainStep, "train", RuntimeError("DataLoader worker (pid 7) is killed")),
    "the compiler": (TrainStep, "train", InductorError(OSError("no C++ compiler"), None)),
    "the GPU": (TrainStep, "train", RuntimeError("CUDA error: unspecified launch failure")),
    "Ctrl-C": (TrainStep, "train", KeyboardInterrupt()),
    "the disk of the run": (History, "append", OSError(errno.ENOSPC, "No space left on device")),
    "the terminal": (History, "append", BrokenPipeError(errno.EPIPE, "Broken pipe")),
    "the test set's images": (batches.EvalBatches, "__iter__", OSError(errno.EIO, "Input/output error")),
}  # fmt: skip


@pytest.mark.parametrize("fault", FROM_OUTSIDE)
def test_a_fault_from_outside_is_not_remembered(
    train: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    where, name, error = FROM_OUTSIDE[fault]
    with monkeypatch.context() as patched:
        patched.setattr(where, name, raising(error))
        status, _ = train("first", *SYNTHETIC, "tracking=none")
    assert status == ("interrupted" if fault == "Ctrl-C" else "failed")
    assert train("elsewhere", *SYNTHETIC, "tracking=none") == ("complete", "None")
    assert train("first", *SYNTHETIC, "tracking=none") == ("complete", "None")


def test_a_mistake_of_tracking_is_not_remembered(
    train: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert train("first", *SYNTHETIC, "tracking.mode=online")[0] == "failed"
    assert train("elsewhere", *SYNTHETIC, "tracking.mode=disabled") == ("complete", "None")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/wandb").touch()  # where wandb's folder should be
    assert train("full", *SYNTHETIC, "seed=1", "tracking.mode=offline")[0] == "failed"
    assert train("elsewhere too", *SYNTHETIC, "seed=1", "tracking=none") == ("complete", "None")


def test_an_image_that_went_away_is_not_remembered(
    train: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    paths = []
    for part in ("train", "test"):
        for number in range(40):
            path = tmp_path / "images" / part / f"class{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
            paths.append(path)
    words = (
        "dataset=image_folder", f"dataset.root={tmp_path}/images", "dataset.workers=0",
        "dataset.image_size=8", "dataset.val_size=4", "trainer.batch_size=4", "tracking=none",
    )  # fmt: skip
    load = data.load

    def then_gone(config: Any) -> data.Splits:
        splits = load(config)
        for path in paths:
            path.rename(path.with_suffix(".away"))
        return splits

    with monkeypatch.context() as patched:
        patched.setattr(data, "load", then_gone)
        status, error = train("first", *words)
    assert status == "failed"
    assert ".png" in error
    for path in paths:
        path.with_suffix(".away").rename(path)
    assert train("first", *words) == ("complete", "None")


FROM_THE_KEY = {
    "diverged": (("optimizer.lr=1e5", "trainer.epochs=5"), "update"),
    "model": (
        (
            "model=torchvision",
            "model.arch=alexnet",
            "model.stem=imagenet",
            "dataset.image_size=32",
            "dataset.classes=2",
        ),
        "model.arch=alexnet: does not take images of 32 pixels",
    ),
}


@pytest.mark.parametrize("end", FROM_THE_KEY)
def test_what_follows_from_the_key_is_remembered(
    train: Callable[..., tuple[str, str]], end: str
) -> None:
    overrides, reason = FROM_THE_KEY[end]
    overrides = (*SYNTHETIC, "tracking=none", *overrides)
    first, again, tried = (
        train(*words)
        for words in (("1", *overrides), ("2", *overrides), ("3", *overrides, "retry=true"))
    )
    assert {first[0], again[0], tried[0]} == {"diverged" if end == "diverged" else "failed"}
    assert reason in first[1]
    assert again[1] == f"{first[1]}; that was before, retry=true trains it again"
    assert tried[1] == first[1]
