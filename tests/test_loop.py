"""The loop against plain torch, and the history against what its cadence promises."""

from __future__ import annotations

import copy
import dataclasses
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import make_config, no_waiting
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from harness.choices.models import ResNet
from harness.choices.optimizers import SGD
from harness.config.errors import ConfigError
from harness.config.schema import Config
from harness.runs.setup import build
from harness.training import batches as batching
from harness.training import datasets as data
from harness.training import schedules
from harness.training.batches import EvalBatches, TrainBatches
from harness.training.datasets import InMemoryImages, Splits
from harness.training.device import reset
from harness.training.loop import (
    DivergedError,
    LogSchedule,
    Precision,
    Row,
    TrainState,
    TrainStep,
    updates,
)
from harness.training.schedules import LRPlan

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
composed = cache(make_config)  # many runs here begin alike
TINY = (
    "dataset=synthetic", "dataset.images=200", "dataset.image_size=8", "dataset.classes=4",
    "dataset.crop=1", "dataset.flip=true", "model.width=4", "trainer.batch_size=20",
)  # fmt: skip
UPDATES_PER_EPOCH = 6  # 128 training images


@dataclass
class Training:
    """A run's parts, before its first update; `fit` trains to the end, or to update `until`."""

    config: Config
    splits: Splits
    batches: TrainBatches
    plan: LRPlan
    log_schedule: LogSchedule
    state: TrainState
    step: TrainStep
    val: EvalBatches
    rows: list[Row] = field(default_factory=list)

    def fit(self, until: int | None = None) -> Training:
        plan = dataclasses.replace(self.plan, lr=self.plan.lr[:until])
        state = self.state
        for lr in updates(state, self.step, plan, self.batches):
            if self.log_schedule.is_row(state.updates):
                row = state.row(plan, lr)
                if state.updates in self.log_schedule.evaluations:
                    row |= state.checked(self.step.evaluate(state.network, self.val, "val"))
                self.rows.append(row)
        return self


def prepare(*overrides: str, tiny: tuple[str, ...] = TINY, device: torch.device = CPU) -> Training:
    config = composed(*tiny, *overrides)
    if device.type == "cuda":
        reset(config, device)
    splits = data.load(config.dataset)
    batches = TrainBatches(splits, config, device)
    plan = schedules.lr_plan(config, batches.updates_per_epoch)
    precision = Precision.resolve(config.trainer.precision, device)
    state, step = build(config, splits, device, precision)
    val = EvalBatches(splits.val, splits, config, device)
    return Training(
        config, splits, batches, plan, LogSchedule.of(plan, config.trainer), state, step, val
    )


def fresh_network(t: Training) -> nn.Module:
    """The network that `t` begins with, without the harness."""
    torch.manual_seed(t.config.seed)
    s = t.splits
    network = t.config.model.build(s.shape)
    return network.to(memory_format=torch.channels_last)


def assert_same_weights(network: nn.Module, other: nn.Module) -> None:
    first, second = network.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


# --- updates -------------------------------------------------------------------------------------


def plain_losses(t: Training, network: nn.Module, plain: torch.optim.Optimizer) -> list[float]:
    """The losses of three epochs of a loop as torch's tutorials have it, under warm restarts."""
    scheduler = CosineAnnealingWarmRestarts(plain, T_0=UPDATES_PER_EPOCH, T_mult=2)
    losses = []
    for epoch in range(3):
        for images, labels in t.batches.epoch(epoch):
            loss = F.cross_entropy(network(images), labels)
            plain.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            plain.step()
            scheduler.step()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("overrides", "optimizer"),
    [
        pytest.param(
            "",
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=5e-4, fused=True),
            id="SGD",
        ),
        pytest.param(
            "optimizer.nesterov=true optimizer.momentum=0.5 optimizer.weight_decay=0",
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.5, nesterov=True, fused=True),
            id="SGD, Nesterov",
        ),
        pytest.param(
            "optimizer=adamw optimizer.lr=0.01 optimizer.beta2=0.9",
            lambda p: torch.optim.AdamW(
                p, 0.01, betas=(0.9, 0.9), eps=1e-8, weight_decay=1e-2, fused=True
            ),
            id="AdamW",
        ),
    ],
)
def test_training_is_a_plain_torch_loop_bit_for_bit(
    overrides: str, optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]
) -> None:
    budget = ("seed=3", "scheduler.t_0=1", "trainer.epochs=3", "trainer.log_every=1")
    t = prepare(*budget, *overrides.split())
    network = fresh_network(t)
    plain = optimizer(network.parameters())
    losses = plain_losses(t, network, plain)

    t.fit()
    assert t.state.updates == 18
    assert [row["train/loss"] for row in t.rows] == losses
    assert_same_weights(t.state.network, network)


def plain_loop(t: Training, clip: float | None) -> tuple[nn.Module, list[float]]:
    """Three epochs of `t` in plain torch: `accumulate` batches an update, and the norm of its gradients clipped."""
    network, count = fresh_network(t), t.config.optimizer.accumulate
    plain = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, fused=True)
    epoch_updates = t.plan.updates_per_epoch
    scheduler = CosineAnnealingWarmRestarts(plain, T_0=epoch_updates, T_mult=2)
    losses: list[float] = []
    for epoch in range(3):
        every = list(t.batches.epoch(epoch))
        assert len(every) == count * epoch_updates
        for begin in range(0, len(every), count):
            parts = []
            for images, labels in every[begin : begin + count]:
                loss = F.cross_entropy(network(images), labels) / count
                loss.backward()  # type: ignore[no-untyped-call]
                parts.append(loss.detach())
            if clip:
                norm = nn.utils.clip_grad_norm_(network.parameters(), clip)
                assert norm > clip or len(losses) > 3
            plain.step()
            plain.zero_grad()
            scheduler.step()
            losses.append(sum(parts, start=torch.zeros(())).item())
    return network, losses


@pytest.mark.parametrize(
    ("accumulate", "clip", "updates_per_epoch"),
    [(4, None, 1), (2, 0.25, 3), (1, 0.25, 6)],
)
def test_accumulating_and_clipping_is_a_plain_torch_loop_bit_for_bit(
    accumulate: int, clip: float | None, updates_per_epoch: int
) -> None:
    budget = ("seed=3", "scheduler.t_0=1", "trainer.epochs=3", "trainer.log_every=1")
    new = (f"optimizer.accumulate={accumulate}", f"optimizer.clip={clip or 'null'}")
    t = prepare(*budget, *new)
    network, losses = plain_loop(t, clip)
    t.fit()
    assert t.state.updates == 3 * updates_per_epoch
    assert [row["train/loss"] for row in t.rows] == losses
    assert_same_weights(t.state.network, network)


class Doubled(TrainBatches):
    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in super().epoch(epoch, start):
            yield images.double(), labels


def test_accumulated_batches_are_one_large_batch_to_a_network_without_batch_norm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In float64, where rounding hides no error."""
    monkeypatch.setattr(
        ResNet,
        "build",
        lambda self, shape: nn.Sequential(
            nn.Conv2d(shape.channels, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, shape.classes)
        ).double(),
    )
    budget = ("trainer.epochs=3", "scheduler.t_0=1", "trainer.log_every=1")

    def fit(*more: str) -> Training:
        t = prepare(*budget, *more)
        t.batches = Doubled(t.splits, t.config, CPU)
        t.log_schedule = LogSchedule(1, frozenset())
        return t.fit()

    large = fit("trainer.batch_size=60")
    small = fit("trainer.batch_size=20", "optimizer.accumulate=3")
    assert small.state.updates == large.state.updates == 6
    for row, expected in zip(small.rows, large.rows, strict=True):
        assert row == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(
        small.state.network.state_dict(), large.state.network.state_dict(), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(
    "overrides",
    [
        "scheduler.t_0=1 scheduler.t_mult=1",
        "scheduler=cosine scheduler.t_max=1 scheduler.warmup=0.5",
        "scheduler=step scheduler.step_size=1 scheduler.interval=epoch",
        "scheduler=one_cycle",
    ],
)
def test_the_lr_that_is_logged_is_the_lr_that_was_used(overrides: str) -> None:
    t = prepare("trainer.epochs=3", "trainer.log_every=1", *overrides.split())
    used: list[float] = []
    t.state.optimizer.register_step_pre_hook(
        lambda optimizer, *_: used.append(optimizer.param_groups[0]["lr"])
    )
    t.fit()
    assert len(set(used)) >= 3
    assert [row["lr"] for row in t.rows] == used
    assert used == t.plan.lr.tolist()


def test_an_lr_that_is_not_the_plans_stops_the_training() -> None:
    t = prepare("scheduler=constant", "trainer.epochs=3")
    t.fit(until=4)
    t.state.optimizer.param_groups[0]["lr"] = 0.05
    with pytest.raises(RuntimeError, match=r"update 5: LR 0.05, the plan says 0.1$"):
        t.fit()
    assert t.state.updates == 4


@pytest.mark.parametrize("smoothing", [0, 0.2])
def test_label_smoothing_is_in_the_training_loss_and_in_no_other(smoothing: float) -> None:
    t = prepare(f"trainer.label_smoothing={smoothing}")
    images, labels = next(t.batches.epoch(0))
    logits = fresh_network(t)(images)
    smoothed = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert torch.equal(t.step.train(t.state, images, labels), smoothed.detach())
    plain = dataclasses.replace(t.step, label_smoothing=0.0)
    network = t.state.network
    assert t.step.evaluate(network, t.val, "val") == plain.evaluate(network, t.val, "val")


@pytest.mark.parametrize("seed", [1, 2])
def test_the_seed_decides_the_weights(seed: int) -> None:
    def weights(seed: int) -> nn.Module:
        return prepare(f"seed={seed}", "trainer.epochs=1", "scheduler.t_0=1").fit().state.network

    assert_same_weights(weights(seed), weights(seed))
    with pytest.raises(AssertionError):
        assert_same_weights(weights(seed), weights(0))


# --- the history ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "rows", "evaluations"),
    [
        pytest.param(
            "trainer.epochs=3 scheduler.t_0=3", [6, 10, 12, 18], [6, 12, 18], id="epoch ends",
        ),
        pytest.param(
            "trainer.epochs=2.5 scheduler.t_0=1.5 scheduler.t_mult=1 trainer.log_every=4",
            [4, 6, 8, 9, 12, 15], [6, 9, 12, 15], id="a cycle end in mid-epoch, and the last update",
        ),
        pytest.param(
            "trainer.epochs=2 scheduler.unit=batch scheduler.t_0=5 scheduler.t_mult=1",
            [5, 6, 10, 12], [5, 6, 10, 12], id="cycles in batches",
        ),
        pytest.param(
            "trainer.epochs=2 scheduler.t_0=2 trainer.evals_per_epoch=4 trainer.log_every=100",
            [1, 3, 4, 6, 7, 9, 10, 12], [1, 3, 4, 6, 7, 9, 10, 12], id="four times an epoch",
        ),
        pytest.param(
            "trainer.epochs=1.5 scheduler.t_0=1.5 trainer.evals_per_epoch=4 trainer.log_every=5",
            [1, 3, 4, 5, 6, 7, 9], [1, 3, 4, 6, 7, 9], id="half an epoch more",
        ),
        pytest.param(
            "trainer.epochs=0.5 scheduler.t_0=0.5", [3], [3], id="half an epoch in all",
        ),
    ],
)  # fmt: skip
def test_the_history_has_the_rows_that_its_cadence_promises(
    overrides: str, rows: list[int], evaluations: list[int]
) -> None:
    t = prepare(*overrides.split()).fit()
    assert [row["step"] for row in t.rows] == rows
    assert [row["step"] for row in t.rows if "val/acc" in row] == evaluations
    for row in t.rows:
        evaluated = {"val/acc", "val/loss"} if row["step"] in evaluations else set()
        assert set(row) == {"step", "epoch", "lr", "train/loss"} | evaluated
        assert row["epoch"] == row["step"] / UPDATES_PER_EPOCH
        assert row["lr"] == t.plan.lr[int(row["step"]) - 1]


def test_evaluating_more_often_than_updating_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        prepare("trainer.evals_per_epoch=7")
    assert str(error.value) == "trainer.evals_per_epoch=7: an epoch has only 6 updates"


def test_a_finer_history_holds_the_coarser_one() -> None:
    budget = ("trainer.epochs=3", "scheduler.t_0=1")
    coarse = prepare(*budget, "trainer.log_every=4").fit()
    fine = prepare(*budget, "trainer.log_every=1", "trainer.evals_per_epoch=6").fit()
    assert coarse.log_schedule.select(fine.rows) == coarse.rows
    assert coarse.log_schedule.covers(fine.rows, 18)
    assert not fine.log_schedule.covers(coarse.rows, 18)
    assert not coarse.log_schedule.covers(fine.rows[:-1], 18)
    assert coarse.log_schedule.covers(fine.rows[:-1], 17)


def test_evaluation_does_not_change_the_training() -> None:
    budget = ("trainer.epochs=3", "scheduler.t_0=3")
    rarely = prepare(*budget).fit()
    often = prepare(*budget, "trainer.evals_per_epoch=6", "trainer.log_every=1").fit()
    assert_same_weights(rarely.state.network, often.state.network)


def test_evaluate_is_the_plain_computation() -> None:
    t = prepare("trainer.epochs=2", "scheduler.t_0=2").fit()
    network = t.state.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    row = t.step.evaluate(network, t.val, "test")

    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert isinstance(t.splits.val, InMemoryImages)
    values = torch.from_numpy(t.splits.val.pixels).double()
    values = (values - torch.tensor(t.splits.mean)) / torch.tensor(t.splits.std)
    labels = torch.from_numpy(t.splits.val.labels)
    with torch.no_grad():
        logits = network.double().eval()(values.permute(0, 3, 1, 2))
    assert set(row) == {"test/acc", "test/loss"}
    assert row["test/acc"] == pytest.approx(
        100 * (logits.argmax(1) == labels).double().mean().item()
    )
    assert row["test/loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)


# --- divergence ----------------------------------------------------------------------------------


class Poisoned(TrainBatches):
    """Training batches with one image that is not finite, in update number `poison`."""

    poison: int
    value = math.nan

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for index, (images, labels) in enumerate(super().epoch(epoch, start), start):
            if epoch * self.updates_per_epoch + index + 1 == self.poison:
                images[0, 0, 0, 0] = self.value
            yield images, labels


@pytest.mark.parametrize(
    ("poison", "rows"),
    [
        pytest.param(1, [], id="the first update"),
        pytest.param(6, [4], id="an update with a row"),
        pytest.param(8, [4, 6], id="just before a row"),
        pytest.param(9, [4, 6, 8], id="between two rows"),
        pytest.param(15, [4, 6, 8, 12], id="the last update"),
    ],
)
def test_a_loss_that_is_not_finite_names_its_update(poison: int, rows: list[int]) -> None:
    t = prepare("trainer.epochs=2.5", "scheduler.t_0=2.5", "trainer.log_every=4")
    t.batches = Poisoned(t.splits, t.config, CPU)
    t.batches.poison = poison
    with pytest.raises(DivergedError) as error:
        t.fit()
    assert error.value.step == poison
    assert str(error.value) == f"the loss of update {poison} is nan"
    assert [row["step"] for row in t.rows] == rows
    assert all(math.isfinite(value) for row in t.rows for value in row.values())


def test_an_lr_that_is_far_too_large_diverges_where_a_plain_loop_does() -> None:
    t = prepare("optimizer.lr=9e5", "scheduler=constant", "trainer.epochs=10")
    network = fresh_network(t)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=9e5, momentum=0.9, weight_decay=5e-4, fused=True
    )
    losses = []
    for epoch in range(10):
        for images, labels in t.batches.epoch(epoch):
            loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    first = int(np.argmin(np.isfinite(losses)))
    assert not math.isfinite(losses[first]), "the plain loop has to diverge"
    with pytest.raises(DivergedError) as error:
        t.fit()
    assert error.value.step == first + 1


def test_what_a_divergence_left_is_never_kept() -> None:
    t = prepare("trainer.epochs=2", "scheduler.t_0=2", "trainer.log_every=100")
    t.batches = Poisoned(t.splits, t.config, CPU)
    t.batches.poison = 3
    t.fit(until=4)
    with pytest.raises(DivergedError) as error:
        t.state.snapshot()
    assert error.value.step == 3


@pytest.mark.parametrize("size", [7, 36, 5])
def test_an_evaluation_counts_every_image_once_whatever_the_batches(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    t = prepare()
    whole = t.step.evaluate(t.state.network, t.val, "val")
    monkeypatch.setitem(batching._EVAL_BATCH, "cpu", size)
    batches = EvalBatches(t.splits.val, t.splits, t.config, CPU)
    sizes = [len(labels) for _, labels in batches]
    assert len(sizes) == math.ceil(len(t.splits.val.labels) / size)
    parts = t.step.evaluate(t.state.network, batches, "val")
    assert parts["val/acc"] == whole["val/acc"]
    assert parts["val/loss"] == pytest.approx(whole["val/loss"], rel=1e-6)


# --- going on from a snapshot --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "stop"),
    [
        pytest.param("scheduler.t_0=1", 1, id="after the first update"),
        pytest.param("scheduler.t_0=1", 7, id="in mid-epoch"),
        pytest.param("scheduler.t_0=1", 12, id="at an epoch's end"),
        pytest.param("scheduler.t_0=1 optimizer=adamw", 7, id="AdamW"),
        pytest.param("scheduler.t_0=1 trainer.precision=bf16", 7, id="bf16"),
        pytest.param("scheduler=linear scheduler.warmup=2", 7, id="in warmup"),
        pytest.param(
            "scheduler=step scheduler.step_size=1 scheduler.interval=epoch", 7, id="LR by epoch"
        ),
        pytest.param(
            "scheduler.t_0=1 optimizer.accumulate=2 optimizer.clip=0.25", 4, id="accumulating"
        ),
    ],
)
def test_going_on_from_a_snapshot_is_as_if_nothing_had_stopped(overrides: str, stop: int) -> None:
    budget = ("trainer.epochs=3", "trainer.log_every=1")
    assert_resumes(lambda: prepare(*budget, *overrides.split()), stop)


def test_going_on_from_a_snapshot_draws_the_same_dropout() -> None:
    small = ("dataset=synthetic", "dataset.images=40", "dataset.image_size=32", "dataset.classes=2")
    network = ("model=torchvision", "model.arch=mobilenet_v3_small", "trainer.batch_size=8")
    budget = ("trainer.epochs=2", "scheduler.t_0=2", "trainer.log_every=1")
    assert_resumes(lambda: prepare(*network, *budget, tiny=small), stop=4)


class ScheduleFree(torch.optim.Optimizer):
    """What Schedule-Free SGD (Defazio et al. 2024) counts in its parameter groups and keeps of each parameter."""

    def __init__(self, parameters: list[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "updates": 0, "weight_sum": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["updates"] += 1
            group["largest"] = max(group.get("largest", 0.0), group["lr"])
            group["weight_sum"] = group["weight_sum"] + group["largest"] ** 2
            share = group["largest"] ** 2 / group["weight_sum"]
            for p in group["params"]:
                base = self.state[p].setdefault("base", p.clone())
                base.sub_(p.grad, alpha=group["lr"] / math.sqrt(group["updates"]))
                p.lerp_(base, share)


@pytest.mark.parametrize("own", [ScheduleFree, torch.optim.Adafactor])  # whose moments are rows
def test_going_on_keeps_what_an_optimizer_of_any_kind_keeps(
    own: Callable[..., torch.optim.Optimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SGD, "build", lambda self, parameters: own(parameters, lr=self.lr))
    budget = ("trainer.epochs=3", "trainer.log_every=1", "scheduler.t_0=1", "optimizer.lr=0.01")
    assert_resumes(lambda: prepare(*budget), stop=7)


def test_a_snapshot_that_does_not_fit_leaves_parameter_groups_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SGD, "build", lambda self, parameters: ScheduleFree(parameters, self.lr))
    saved, fresh = prepare().fit(until=2).state.snapshot(), prepare().state
    begin, built = fresh.snapshot(), copy.deepcopy(fresh.optimizer.param_groups[0])
    assert saved["param_groups"][0].keys() == {"updates", "weight_sum", "largest"}
    with pytest.raises(KeyError):
        fresh.restore({name: value for name, value in saved.items() if name != "rng"})
    assert fresh.optimizer.param_groups[0]["updates"] == 2
    fresh.restore(begin)
    assert "param_groups" not in fresh.snapshot()
    for name in ("updates", "weight_sum", "lr"):
        assert fresh.optimizer.param_groups[0][name] == built[name]


def assert_resumes(prepare_it: Callable[[], Training], stop: int) -> None:
    whole = prepare_it().fit()
    begun = prepare_it().fit(until=stop)
    file = io.BytesIO()
    torch.save(begun.state.snapshot(), file)
    file.seek(0)
    torch.manual_seed(99)  # another process, another generator
    resumed = prepare_it()
    resumed.state.restore(torch.load(file, weights_only=True))
    assert resumed.state.updates == stop
    resumed.fit()
    assert begun.rows + resumed.rows == whole.rows
    assert_same_weights(resumed.state.network, whole.state.network)


# --- precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "device", "name"),
    [
        pytest.param("auto", "cpu", "fp32", id="auto on the CPU"),
        pytest.param("fp32", "cpu", "fp32", id="fp32 on the CPU"),
        pytest.param("bf16", "cpu", "bf16", id="bf16 on the CPU"),
        pytest.param("fp32", "cuda", "fp32", id="fp32 on a GPU"),
        pytest.param("bf16", "cuda", "bf16", id="bf16 on a GPU"),
        pytest.param("fp16", "cuda", "fp16", id="fp16 on a GPU"),
        pytest.param("auto", "mps", "fp32", id="auto on an Apple GPU"),
        pytest.param("bf16", "mps", "bf16", id="bf16 on an Apple GPU"),
        pytest.param("fp16", "xpu", "fp16", id="fp16 on an Intel GPU"),
    ],
)
def test_precision_is_what_was_wanted(wanted: str, device: str, name: str) -> None:
    assert Precision.resolve(wanted, torch.device(device)).name == name


def test_fp16_on_the_cpu_is_refused_with_the_mend() -> None:
    with pytest.raises(ConfigError) as error:
        Precision.resolve("fp16", CPU)
    assert str(error.value) == "trainer.precision=fp16: needs a GPU; on CPUs use fp32 or bf16"
    with pytest.raises(ConfigError, match=r"^trainer.precision=fp16: is not for mps; use fp32 or "):
        Precision.resolve("fp16", torch.device("mps"))


def test_sums_are_of_the_longest_type_that_the_device_has() -> None:
    assert Precision("fp32", CPU).sums == torch.float64
    assert Precision("fp32", torch.device("mps")).sums == torch.float32


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_a_checkpoint_has_the_generator_of_its_device(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The device is pretended: the network is on the CPU."""
    given = torch.arange(4, dtype=torch.uint8)
    taken: list[torch.Tensor] = []
    monkeypatch.setattr(torch.get_device_module(kind), "get_rng_state", lambda: given)
    monkeypatch.setattr(torch.get_device_module(kind), "set_rng_state", taken.append)
    t = prepare()
    without = t.state.snapshot()
    assert without["rng_cuda"] is None
    monkeypatch.setattr(TrainState, "_device_type", lambda state: kind)
    saved = t.state.snapshot()
    assert saved[f"rng_{kind}"] is given
    t.state.restore(without)
    assert taken == []
    t.state.restore(saved)
    assert taken == [given]


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_computes_in_the_precision_on_the_cpu(name: str, dtype: torch.dtype) -> None:
    precision = Precision.resolve(name, CPU)
    with precision.autocast():
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == dtype
    assert not precision.scaler().is_enabled()


def test_bf16_trains_float32_weights_on_the_cpu() -> None:
    budget = ("trainer.epochs=2", "scheduler.t_0=2", "trainer.log_every=1")
    short, full = prepare(*budget, "trainer.precision=bf16").fit(), prepare(*budget).fit()
    assert {p.dtype for p in short.state.network.parameters()} == {torch.float32}
    losses, exact = ([row["train/loss"] for row in t.rows] for t in (short, full))
    assert losses != exact
    assert losses[0] == pytest.approx(exact[0], rel=0.02)


def test_the_loss_of_an_evaluation_is_that_of_float32_logits() -> None:
    t = prepare("trainer.precision=bf16")
    row = t.step.evaluate(t.state.network, t.val, "val")
    (images, labels), network = next(iter(t.val)), t.state.network.eval()
    assert len(labels) == len(t.splits.val.labels)
    with torch.inference_mode(), t.step.precision.autocast():
        logits = network(images)
    assert logits.dtype == torch.bfloat16
    assert row["val/loss"] == pytest.approx(
        float(F.cross_entropy(logits.float(), labels)), rel=1e-6
    )
    assert row["val/loss"] != pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-6)


def test_the_scaler_of_fp16_goes_on_from_a_snapshot() -> None:
    """With a scaler of torch's for CPUs, as a stand-in for that of GPUs."""

    def scaled() -> Training:
        t = prepare("trainer.epochs=3", "scheduler.t_0=1")
        t.state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=5)
        return t

    whole, begun, resumed = scaled().fit(), scaled().fit(until=7), scaled()
    resumed.state.restore(begun.state.snapshot())
    assert resumed.state.scaler.state_dict() == begun.state.scaler.state_dict()
    resumed.fit()
    assert whole.state.scaler.get_scale() == 2.0**13, "it has grown, every fifth of 18 updates"
    assert resumed.state.scaler.state_dict() == whole.state.scaler.state_dict()
    assert_same_weights(resumed.state.network, whole.state.network)


def test_gradients_are_clipped_as_they_are_without_a_scaler() -> None:
    def fit(scale: float | None) -> Training:
        t = prepare("trainer.epochs=2", "scheduler.t_0=1", "optimizer.clip=0.25")
        if scale:  # a power of two, so that nothing rounds
            t.state.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
        return t.fit()

    assert_same_weights(fit(None).state.network, fit(2.0**10).state.network)


# --- on a GPU ------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_snapshot_of_a_gpu_holds_its_generator_and_its_scaler(precision: str) -> None:
    device = CUDA
    t = prepare(f"trainer.precision={precision}", device=device).fit(until=3)
    saved = t.state.snapshot()
    torch.cuda.manual_seed(99)
    other = prepare(f"trainer.precision={precision}", device=device)
    other.state.restore(saved)
    assert torch.equal(torch.cuda.get_rng_state(), saved["rng_cuda"])
    assert other.state.scaler.state_dict() == t.state.scaler.state_dict()


@pytest.mark.gpu
@pytest.mark.parametrize("accumulate", [1, 2])
def test_updates_on_the_gpu_never_wait_for_it(accumulate: int) -> None:
    more = (
        f"optimizer.accumulate={accumulate}",
        "optimizer.clip=1",
        "optimizer.no_decay=norm_bias",
    )
    t = prepare(*more, device=CUDA)
    epoch = t.batches.epoch(0)
    t.step.train(t.state, *next(epoch), islice(epoch, accumulate - 1))
    with no_waiting():
        for images, labels in epoch:
            t.step.train(t.state, images, labels, islice(epoch, accumulate - 1))
    assert t.state.updates == UPDATES_PER_EPOCH // accumulate


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16"])
def test_every_precision_trains_on_the_gpu(precision: str) -> None:
    t = prepare(f"trainer.precision={precision}", "trainer.epochs=3", "scheduler.t_0=3",
                device=CUDA).fit()  # fmt: skip
    assert t.rows[-1]["train/loss"] < t.rows[0]["train/loss"]
