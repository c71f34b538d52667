"""Averages of weights: against torch's own, exact through a stop, and without any effect on what is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import essential, make_config
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from harness import correct
from harness.config.errors import ConfigError
from harness.runs.context import PhaseTimer, RunContext
from harness.runs.run import run
from harness.runs.run_dir import RunInfo
from harness.runs.setup import lr_plan, prepare
from harness.runs.signals import RunInterruptedError
from harness.store.checkpoint import read_checkpoint
from harness.training.averages import Average, Averages, planned, recalibrate
from harness.training.distributed import World

TINY = (
    "dataset=synthetic", "dataset.images=160", "dataset.classes=4", "dataset.image_size=4",
    "dataset.crop=1", "model.width=2", "trainer.batch_size=16", "trainer.log_every=1",
    "trainer.checkpoint_every=1e6", "scheduler.t_0=2", "scheduler.t_mult=1", "trainer.epochs=6",
)  # fmt: skip
ALL = ("averages.ema=[0.5,0.9]", "averages.cycle_ends=[2]", "averages.tail=[0.5]")
SLOW = pytest.mark.slow
EMA: Any = get_ema_multi_avg_fn(0.9)  # type: ignore[no-untyped-call]
Trained = tuple[dict[str, Any], list[dict[str, Any]], dict[str, correct.Bits]]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 4)
    )


def moved(net: nn.Module) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape))


# --- the averages --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("average", "reference"),
    [
        pytest.param(Average("ema:0.9", 0.9, ()), {"multi_avg_fn": EMA}, id="ema"),
        pytest.param(Average("tail:1", None, tuple(range(1, 31))), {}, id="mean"),
    ],
)  # fmt: skip
def test_averages_are_those_of_torch(average: Average, reference: dict[str, Any]) -> None:
    net = network()
    own, theirs = Averages(net, (average,)), AveragedModel(net, **reference)
    for step in range(1, 31):
        moved(net)
        own.update(step)
        theirs.update_parameters(net)
        values = own.network(average.name).state_dict()
        for name, value in theirs.module.state_dict().items():
            torch.testing.assert_close(values[name], value, rtol=1e-6, atol=1e-7)


def test_a_mean_takes_the_weights_after_its_steps_alone() -> None:
    net = network()
    own, taken = Averages(net, (Average("cycle_ends:2", None, (3, 7)),)), []
    for step in range(1, 9):
        moved(net)
        own.update(step)
        assert own.names == (["cycle_ends:2"] if step >= 3 else [])
        taken += [[p.detach().clone() for p in net.parameters()]] * (step in (3, 7))
    means = [(one + other) / 2 for one, other in zip(*taken, strict=True)]
    for value, mean in zip(own.network("cycle_ends:2").parameters(), means, strict=True):
        torch.testing.assert_close(value, mean)


@pytest.mark.parametrize(
    ("given", "name", "steps"),
    [  # six updates an epoch, cycles of two epochs
        pytest.param("cycle_ends=[3]", "cycle_ends:3", (12, 24, 36), id="all cycle ends"),
        pytest.param("cycle_ends=[2]", "cycle_ends:2", (24, 36), id="the last two"),
        pytest.param("tail=[0.5]", "tail:0.5", (24, 30, 36), id="half of it"),
        pytest.param("tail=[0.4]", "tail:0.4", (24, 30, 36), id="not from an epoch end on"),
        pytest.param("tail=[1]", "tail:1", (6, 12, 18, 24, 30, 36), id="all of it"),
        pytest.param("ema=[0.999]", "ema:0.999", (), id="exponential"),
    ],
)
def test_which_weights_an_average_takes(given: str, name: str, steps: tuple[int, ...]) -> None:
    config = make_config(*TINY, f"averages.{given}")
    plan = lr_plan(config)
    assert plan.updates == 36
    (one,) = planned(config.averages, plan)
    assert (one.name, one.steps) == (name, steps)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        pytest.param(
            ["averages.cycle_ends=[4]"],
            "averages.cycle_ends=[4]: the schedule has 3 cycle ends in its budget; give at most that many, or leave it out",
            id="more cycles than there are",
        ),
        pytest.param(
            ["averages.cycle_ends=[2]", "scheduler=constant"],
            "averages.cycle_ends=[2]: the schedule has 0 cycle ends in its budget; give at most that many, or leave it out",
            id="no cycles",
        ),
        pytest.param(
            ["averages.tail=[0.1]"],
            "averages.tail=[0.1]: the last 0.1 of the training has one epoch end; give 0.33 or more, or leave it out",
            id="the last weights alone",
        ),
        pytest.param(
            ["averages.tail=[0.5]", "trainer.epochs=1", "scheduler=linear"],
            "averages.tail=[0.5]: the last 0.5 of the training has one epoch end; raise trainer.epochs, or leave it out",
            id="one epoch",
        ),
        pytest.param(
            ["averages.ema=[0.9,0.5]"],
            "averages.ema=[0.9,0.5]: must be rising numbers, each once",
            id="falling",
        ),
        pytest.param(
            ["averages.ema=[1]"], "averages.ema=[1]: must be a list of numbers > 0 and < 1", id="one"
        ),
        pytest.param(
            [f"averages.cycle_ends={[*range(2, 40)]}".replace(" ", "")],
            "averages: are 38; at most 30 are kept of a run",
            id="too many",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_averaged_is_refused(given: list[str], error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        lr_plan(make_config(*tiny(*given)))
    assert str(raised.value) == error


@pytest.mark.parametrize("momentum", [0.1, None])
def test_recalibrated_batch_norms_are_those_of_torch(momentum: float | None) -> None:
    """Dropout apart, which torch leaves in training."""
    net = network()
    norm = net[1]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.momentum = momentum
    own, theirs = Averages(net, (Average("ema:0.5", 0.5, ()),)), network()
    own.update(1)
    batches = list(torch.randn(5, 8, 1, 3, 3))
    before = torch.get_rng_state()
    copy = own.network("ema:0.5")
    recalibrate(copy, batches)
    assert torch.equal(torch.get_rng_state(), before)
    update_bn(batches, theirs[:2])
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(copy.state_dict()[f"1.{name}"], theirs.state_dict()[f"1.{name}"])
        assert torch.equal(net.state_dict()[f"1.{name}"], network().state_dict()[f"1.{name}"])
    assert copy.get_submodule("1").momentum == momentum
    assert not any(module.training for module in copy.modules())


def test_state_that_is_not_of_the_same_updates_or_shapes_does_not_fit() -> None:
    net, one = network(), Average("tail:1", None, (2, 4))
    own = Averages(net, (one,))
    own.update(2)
    saved = own.snapshot(3)
    Averages(net, (one,)).restore(saved, 3)
    with pytest.raises(ValueError, match="is of other updates"):
        Averages(net, (replace(one, steps=(1, 4)),)).restore(saved, 3)
    with pytest.raises(KeyError):
        Averages(net, (replace(one, name="tail:0.5"),)).restore(saved, 3)
    saved["tail:1"]["weights"]["0.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match="has the shape"):
        own.restore(saved, 3)
    assert own.names == ["tail:1"]


# --- whole runs ----------------------------------------------------------------------------------

Train = Callable[..., Trained]


def tiny(*overrides: str) -> list[str]:
    """TINY with `overrides`; where they choose a group, without its keys of that."""
    chosen = tuple(f"{word.partition('=')[0]}." for word in overrides)
    return [*(word for word in TINY if not word.startswith(chosen)), *overrides]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """`train(*overrides)` trains in a folder of its own; all share a store."""
    number = 0

    def train(*overrides: str) -> Trained:
        nonlocal number
        number += 1
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        config = make_config(*tiny(*overrides), f"store.dir={tmp_path / 'store'}")
        result = run(RunContext(config, RunInfo(folder, "test"))).to_json()
        rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        return result, rows, correct.read(folder / correct.FILE)

    return train


def without(rows: list[dict[str, Any]], *kept: str) -> list[dict[str, Any]]:
    """Rows without the metrics of averages other than those `kept`."""
    return [
        {k: v for k, v in row.items() if "@" not in k or k.partition("@")[2] in kept}
        for row in rows
    ]


def same(one: Trained, other: Trained) -> bool:
    """Equal weights, histories, test metrics and bits."""
    bits = one[2].keys() == other[2].keys() and all(
        np.array_equal(own, other[2][split]) for split, own in one[2].items()
    )
    weights = one[0]["weights_sha256"] == other[0]["weights_sha256"]
    return bool(weights and bits and one[1] == other[1] and one[0]["test"] == other[0]["test"])


DROPOUT = (
    "model=torchvision", "model.arch=squeezenet1_1", "dataset.image_size=32", "trainer.epochs=2",
    "scheduler.t_0=1", "averages.tail=[1]",
)  # fmt: skip


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param((), id="batch norm"),
        pytest.param(DROPOUT, id="dropout"),
    ],
)
def test_averages_change_nothing_of_what_is_trained(
    train: Train, overrides: tuple[str, ...]
) -> None:
    none = ("averages.ema=[]", "averages.cycle_ends=[]", "averages.tail=[]")
    own = (*ALL, *overrides, "reuse=false")
    alone, averaged = train(*own, *none), train(*own)
    assert averaged[0]["weights_sha256"] == alone[0]["weights_sha256"]
    assert averaged[0]["fingerprint"] == alone[0]["fingerprint"]
    assert averaged[0]["run_id"] == alone[0]["run_id"]
    assert without(averaged[1]) == alone[1]
    assert "val/acc@ema:0.9" in averaged[1][-1]
    assert "test/acc@cycle_ends:2" in averaged[0]["test"]
    assert {split: averaged[2][split].tolist() for split in ("val", "test")} == {
        split: own.tolist() for split, own in alone[2].items()
    }


def test_the_history_has_an_average_from_its_first_weights_on(train: Train) -> None:
    result, rows, bits = train(*ALL)
    begin = {"ema:0.5": 6, "ema:0.9": 6, "cycle_ends:2": 24, "tail:0.5": 24}
    evaluated = [row["step"] for row in rows if "val/acc" in row]
    for name, first in begin.items():
        steps = [row["step"] for row in rows if f"val/acc@{name}" in row]
        assert steps == [step for step in evaluated if step >= first]
        assert {f"val/loss@{name}"} <= rows[-1].keys()
        for split, metrics in (("val", rows[-1]), ("test", result["test"])):
            accuracy = metrics[f"{split}/acc@{name}"]
            assert correct.accuracy(bits[f"{split}@{name}"]) == accuracy


def stopped_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Interrupt runs at the first look for a signal after update `step`."""
    agree, number = World.all_reduce_stop_and_save, 0

    def interrupted(self: World, signal: int | None, due: bool) -> tuple[int | None, bool]:
        nonlocal number
        number += 1
        return agree(self, 15 if number == step else signal, due)

    monkeypatch.setattr(World, "all_reduce_stop_and_save", interrupted)
    return pytest.raises(RunInterruptedError)


@pytest.mark.parametrize("step", essential([25, 3, 31]))
def test_a_run_that_is_stopped_goes_on_with_its_averages_bit_for_bit(
    train: Train, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(*ALL, "reuse=false")
    with monkeypatch.context() as patched, stopped_at(step, patched):
        train(*ALL)
    again = train(*ALL)
    assert again[0]["updates_reused"] == step
    assert same(again, whole)
    found = train(*ALL)
    assert found[0]["updates_trained"] == 0
    assert same(found, whole)


@pytest.mark.parametrize(
    ("first", "then", "reused"),
    [
        pytest.param((), ("averages.tail=[0.5]",), 12, id="without, up to where a mean begins"),
        pytest.param(ALL, ("averages.ema=[0.9]",), 36, id="with more"),
        pytest.param(("averages.ema=[0.9]",), ALL, 0, id="with fewer"),
        pytest.param(ALL, (*ALL, "trainer.epochs=8"), 24, id="until a longer run takes others"),
        pytest.param(ALL, (), 36, id="for none", marks=SLOW),
        pytest.param((), ALL, 0, id="without", marks=SLOW),
        pytest.param(ALL[:1], (*ALL[:1], "trainer.epochs=8"), 36, id="exponential", marks=SLOW),
        pytest.param(ALL[1:], (*ALL[1:], "trainer.epochs=16"), 36, id="begins later", marks=SLOW),
    ],
)  # fmt: skip
def test_what_the_store_has_for_averages(
    train: Train, first: tuple[str, ...], then: tuple[str, ...], reused: int
) -> None:
    train(*first)
    taken, alone = train(*then), train(*then, "reuse=false")
    assert taken[0]["updates_reused"] == reused
    assert same(taken, alone)


def test_an_end_that_lacks_the_test_metrics_of_an_average_is_tested_again(
    train: Train, tmp_path: Path
) -> None:
    whole = train(*ALL)
    (path,) = (tmp_path / "store").glob("*/000000036-*.json")
    document = json.loads(path.read_text())
    del document["test"]["test/acc@ema:0.9"]
    path.write_text(json.dumps(document))
    assert same(train(*ALL), whole)
    assert read_checkpoint(path).test == whole[0]["test"]


def test_a_checkpoint_of_a_run_without_averages_is_as_it_was(train: Train, tmp_path: Path) -> None:
    train()
    (path,) = (tmp_path / "store").glob("*/000000036-*.json")
    assert "averages" not in json.loads(path.read_text())
    assert read_checkpoint(path).averages == {}


def test_batches_for_batch_norms_are_those_of_training_and_disturb_none() -> None:
    for source in ((), ("dataset.rand_augment=9",)):
        setup = prepare(make_config(*TINY, *source), PhaseTimer())
        whole = [images for images, _ in setup.batches.epoch(0)]
        read: list[Tensor] = []
        for images, _ in setup.batches.epoch(0):
            read.append(images)
            last = list(setup.recalibration.last(40))
            assert len(last) == 3
            assert all(torch.equal(*pair) for pair in zip(last, whole[-3:], strict=True))
        assert all(torch.equal(*pair) for pair in zip(read, whole, strict=True))
        assert len(list(setup.recalibration.last(2048))) == len(whole)
