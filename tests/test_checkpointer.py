"""When checkpoints are written, and which stay."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from conftest import Clock, make_config

from harness.choices.models import ResNet
from harness.choices.optimizers import SGD
from harness.runs.context import PhaseTimer
from harness.runs.setup import build, prepare
from harness.store import checkpointer as module
from harness.store.checkpoint import Checkpoint, read_checkpoint
from harness.store.checkpointer import Checkpointer, steps_to_keep
from harness.store.commit import Commit, program_commit
from harness.store.store import Store

CONFIG = make_config(
    "dataset=synthetic", "dataset.images=200", "dataset.image_size=4", "dataset.classes=4",
    "model.width=2", "trainer.batch_size=16", "trainer.epochs=3.5", "scheduler.t_0=1",
)  # fmt: skip
SETUP = prepare(CONFIG, PhaseTimer())
PLAN = SETUP.identity.plan  # 8 updates an epoch; cycles end after 8 and 24 of 28


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def make(
    folder: Path | None, keep: str, every: float = 1e6, origin: Checkpoint | None = None
) -> Checkpointer:
    state, _ = build(CONFIG, SETUP.splits, SETUP.device, SETUP.precision)
    store = Store(folder) if folder else None
    steps = steps_to_keep(keep, PLAN, {12})
    return Checkpointer(
        store, SETUP.identity, SETUP.numerics, state, [], origin, steps, every
    )  # fmt: skip


def stored(folder: Path) -> dict[int, bool]:
    """Each stored update, and whether its checkpoint is permanent."""
    paths = folder.glob("*/*-*.json")
    found = [read_checkpoint(path) for path in paths]
    return {
        checkpoint.step: checkpoint.permanent for checkpoint in sorted(found, key=lambda c: c.step)
    }


@pytest.mark.parametrize(
    ("keep", "steps"), [("cycles", {8, 12, 24, 28}), ("last", {28}), ("none", set())]
)
def test_cycle_ends_and_branches_are_kept_or_the_end_or_nothing(keep: str, steps: set[int]) -> None:
    assert steps_to_keep(keep, PLAN, {12}) == steps


def test_a_checkpoint_is_due_after_an_update_to_keep_and_not_after_the_last(
    clock: Clock, tmp_path: Path
) -> None:
    checkpointer = make(tmp_path, "cycles")
    due = []
    for checkpointer.state.updates in range(1, PLAN.updates + 1):
        if checkpointer.due():
            due.append(checkpointer.state.updates)
    assert due == [8, 12, 24]  # the end is written with the test's metrics


def test_a_checkpoint_is_due_when_its_time_has_come(clock: Clock, tmp_path: Path) -> None:
    checkpointer = make(tmp_path, "last", every=30)
    checkpointer.state.updates = 3
    clock.now += 29
    assert not checkpointer.due()
    clock.now += 1
    assert checkpointer.due()
    checkpointer.save()
    assert not checkpointer.due()
    clock.now += 30
    assert checkpointer.due()
    checkpointer.store = None
    assert not checkpointer.due()


def test_progress_is_replaced_by_what_comes_later_and_kept_steps_stay(tmp_path: Path) -> None:
    checkpointer = make(tmp_path, "cycles")
    seen = []
    for checkpointer.state.updates in (3, 5, 8, 9):
        checkpointer.save()
        seen.append(stored(tmp_path))
    assert seen == [{3: False}, {5: False}, {8: True}, {8: True, 9: False}]
    checkpointer.state.updates = PLAN.updates
    checkpointer.finish({"test/acc": 50.0}, "t", "cycles")
    assert stored(tmp_path) == {8: True, 28: True}


def test_the_end_is_stored_with_the_metrics_of_its_test_set(tmp_path: Path) -> None:
    checkpointer = make(tmp_path, "last")
    checkpointer.state.updates = PLAN.updates
    checkpointer.finish({"test/acc": 50.0}, "t", "last")
    (path,) = tmp_path.glob("*/*-*.json")
    again = make(tmp_path, "last", origin=read_checkpoint(path))
    assert again.tested("t") == {"test/acc": 50.0}
    assert again.tested("of another test set") is None
    assert make(tmp_path, "last").tested("t") is None


def test_with_keep_none_nothing_is_left_of_a_run(tmp_path: Path) -> None:
    checkpointer = make(tmp_path, "none")
    checkpointer.state.updates = 5
    checkpointer.save()
    assert stored(tmp_path) == {5: False}
    checkpointer.state.updates = PLAN.updates
    checkpointer.finish({"test/acc": 50.0}, "t", "none")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_whole_run_from_the_store_has_the_commit_that_trained_it(tmp_path: Path) -> None:
    checkpointer = make(tmp_path, "last")
    assert checkpointer.commit == program_commit()
    checkpointer.state.updates = PLAN.updates
    checkpointer.finish({"test/acc": 50.0}, "t", "last")
    (path,) = tmp_path.glob("*/*-*.json")
    written = json.loads(path.read_text())
    assert (written.pop("commit"), written.pop("dirty")) == program_commit()
    for code in (Commit("c0ffee", True), Commit()):
        known = {name: value for name, value in code._asdict().items() if value is not None}
        path.write_text(json.dumps(written | known))  # earlier files have neither key
        assert make(tmp_path, "last", origin=read_checkpoint(path)).commit == code


def test_a_run_that_goes_on_has_the_commit_of_now(tmp_path: Path) -> None:
    checkpointer = make(tmp_path, "cycles")
    checkpointer.state.updates = 8
    checkpointer.save()
    (path,) = tmp_path.glob("*/*-*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": "c0ffee"}))
    origin = read_checkpoint(path)
    assert make(tmp_path, "cycles", origin=origin).commit == program_commit()


def test_a_deep_network_of_many_small_tensors_is_restored(tmp_path: Path) -> None:
    """Its checkpoint holds more names and headers of tensors than weights."""
    deep = dataclasses.replace(CONFIG, model=ResNet(602, 1))
    saved, again = (build(deep, SETUP.splits, SETUP.device, SETUP.precision)[0] for _ in range(2))
    for parameter in saved.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    saved.optimizer.step()  # moments
    saved.updates = 3
    store = Store(tmp_path)
    Checkpointer(store, SETUP.identity, SETUP.numerics, saved, [], None, frozenset(), 1e6).save()
    assert module.restore(store, SETUP.identity, again) is not None
    assert again.updates == 3


class Large(torch.optim.SGD):
    """Keeps more than any optimizer of torch's, as one that preconditions does."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            self.state[p]["factors"] = torch.ones(2**10, 2**6)


def test_a_large_state_of_an_optimizer_of_ones_own_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SGD, "build", lambda self, parameters: Large(parameters, lr=self.lr))
    saved, again = make(tmp_path, "last"), make(tmp_path, "last").state
    saved.state.optimizer.step()
    saved.state.updates = 3
    saved.save()
    assert module.restore(Store(tmp_path), SETUP.identity, again) is not None
    assert again.updates == 3
    assert len(again.optimizer.state_dict()["state"]) == len(list(again.network.parameters()))
