"""Which images a run classifies correctly at its end: from its own evaluations, from a store, from an old one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_config
from golden import write_images
from numpy.typing import NDArray

from harness import correct
from harness.correct import Bits
from harness.runs.context import PhaseTimer, RunContext
from harness.runs.run import run
from harness.runs.run_dir import RunInfo
from harness.runs.setup import build, prepare
from harness.store.checkpoint import read_checkpoint, read_state
from harness.training import loop

TINY = (
    "dataset=synthetic", "dataset.images=400", "dataset.classes=4", "dataset.image_size=4",
    "dataset.noise=3", "dataset.val_size=150", "model.width=2", "trainer.batch_size=16",
    "scheduler.t_0=1", "trainer.epochs=2",
)  # fmt: skip
IMAGES = (
    "dataset=image_folder", "dataset.image_size=8", "dataset.workers=0", "trainer.epochs=1",
    "scheduler=constant", "model.width=1",
)  # fmt: skip
Train = Callable[..., dict[str, Bits]]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Train the tiny configuration into the folder `name`; return what its correct.npz holds."""

    def train(name: str, *overrides: str) -> dict[str, Bits]:
        folder = tmp_path / name
        folder.mkdir()
        config = make_config(*TINY, f"store.dir={tmp_path / 'store'}", *overrides)
        run(RunContext(config, RunInfo(folder, name)))
        path = folder / correct.FILE
        return correct.read(path) if path.exists() else {}

    return train


def stored(folder: Path) -> list[Path]:
    return sorted((folder / "store").glob("*/*.npz"))


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def equal(one: dict[str, Bits], other: dict[str, Bits]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def predicted(folder: Path) -> dict[str, NDArray[np.bool_]]:
    """What the stored end of the one run in `folder`/store gets right, image by image."""
    config = make_config(*TINY)
    setup = prepare(config, PhaseTimer())
    state, _ = build(config, setup.splits, setup.device, setup.precision)
    end = max((folder / "store").glob("*/*-*.json"))
    state.network.load_state_dict(read_state(read_checkpoint(end))["network"])
    found = {}
    for split, batches in (("val", setup.val), ("test", setup.test)):
        assert batches is not None
        with torch.no_grad():
            parts = [state.network.eval()(x).argmax(1) == y for x, y in batches]
        found[split] = torch.cat(parts).numpy()
    return found


def test_the_bits_are_those_of_the_weights_at_the_end(train: Train, tmp_path: Path) -> None:
    bits = train("run")
    assert equal(bits, predicted(tmp_path))
    assert len(bits["val"]) == 150
    assert 0 < bits["val"].mean() < 1
    assert correct.accuracy(bits["val"]) == result(tmp_path / "run")["final"]["val/acc"]
    assert correct.accuracy(bits["test"]) == result(tmp_path / "run")["test"]["test/acc"]
    (beside,) = stored(tmp_path)
    assert beside.with_suffix(".json").exists()
    assert equal(correct.read(beside), bits)


def count_evaluations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits that are evaluated from here on."""
    splits: list[str] = []
    plain = loop.TrainStep.evaluate

    def counted(self: Any, network: Any, batches: Any, split: str, *more: Any) -> Any:
        splits.append(split)
        return plain(self, network, batches, split, *more)

    monkeypatch.setattr(loop.TrainStep, "evaluate", counted)
    return splits


def test_a_run_that_is_complete_in_the_store_takes_them_from_there(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train("first")
    evaluated = count_evaluations(monkeypatch)
    assert equal(train("second"), first)
    assert evaluated == []


def test_an_end_of_an_old_store_is_evaluated_again_once(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train("first")
    stored(tmp_path)[0].unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*.*")}
    evaluated = count_evaluations(monkeypatch)
    assert equal(train("second"), first)
    assert equal(train("third"), first)
    assert evaluated == ["val", "test"]
    assert {path: path.read_bytes() for path in before} == before
    assert result(tmp_path / "second")["updates_trained"] == 0


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-9]), id="cut"),
        pytest.param(
            lambda path: correct.write(path, {s: ~b for s, b in correct.read(path).items()}),
            id="of other weights",
        ),
    ],
)
def test_a_file_of_the_store_that_is_not_the_ends_is_named_and_made_again(
    train: Train, tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    first = train("first")
    (path,) = stored(tmp_path)
    damage(path)
    assert equal(train("second"), first)
    assert f"{path}: " in caplog.text
    assert "it is passed over" in caplog.text
    assert equal(correct.read(path), first)


def test_weights_that_no_longer_give_the_recorded_accuracy_have_no_bits(
    train: Train, tmp_path: Path
) -> None:
    """As on another machine: the recorded accuracy was that of other images."""
    train("first")
    stored(tmp_path)[0].unlink()
    end = max((tmp_path / "store").glob("*/*-*.json"))
    document = json.loads(end.read_text())
    end.write_text(json.dumps(document | {"test": {"test/acc": 1.5, "test/loss": 1.0}}))
    assert list(train("second")) == ["val"]


def test_without_a_test_set_there_are_those_of_the_validation_set(
    train: Train, tmp_path: Path
) -> None:
    root = write_images(tmp_path / "images")
    (root / "test").rename(tmp_path / "no test")
    folder = tmp_path / "run"
    words = (*IMAGES, f"dataset.root={root}", f"store.dir={tmp_path / 'store'}")
    config = make_config(*words)
    run(RunContext(config, RunInfo(folder, "run")))
    assert list(correct.read(folder / correct.FILE)) == ["val"]


def test_other_test_images_have_their_own(train: Train, tmp_path: Path) -> None:
    """The validation bits are kept; those of the test set are those of the last one."""
    root = write_images(tmp_path / "images")
    words = (*IMAGES, f"dataset.root={root}", f"store.dir={tmp_path / 'store'}")
    found = []
    for name in ("one", "two", "three"):
        if name == "two":
            next((root / "test").rglob("*.png")).unlink()
        config = make_config(*words)
        run(RunContext(config, RunInfo(tmp_path / name, name)))
        found.append(correct.read(tmp_path / name / correct.FILE))
    one, two, three = found
    assert len(two["test"]) == len(one["test"]) - 1
    assert equal(two, three)
    assert np.array_equal(one["val"], two["val"])
    assert equal(correct.read(stored(tmp_path)[0]), two)


def test_keep_none_leaves_them_in_the_runs_folder_alone(train: Train, tmp_path: Path) -> None:
    assert train("run", "store.keep=none").keys() == {"val", "test"}
    assert stored(tmp_path) == []


def test_a_run_that_diverges_has_none(train: Train, tmp_path: Path) -> None:
    assert train("run", "optimizer.lr=1e5", "trainer.log_every=1") == {}
    assert stored(tmp_path) == []
