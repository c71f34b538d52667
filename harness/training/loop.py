"""The training loop: one update, one evaluation, and `updates` until the LR plan ends."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config.errors import ConfigError
from harness.config.schema import Trainer
from harness.training import optimizers as compiled
from harness.training.averages import Average, Averages
from harness.training.batches import TrainBatches
from harness.training.distributed import SINGLE_PROCESS, World
from harness.training.schedules import LRPlan, Schedule

Row = dict[str, int | float]  # of a history: metric → value; accuracies in percent


class DivergedError(Exception):
    """A number of update `step` is not finite: its loss, a metric, a weight."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(what)
        self.step = step


@dataclass(frozen=True)
class Precision:
    """In what arithmetic networks run: float32, or autocast to a shorter type."""

    name: str  # fp32, bf16 or fp16
    device: torch.device

    @classmethod
    def resolve(cls, wanted: str, device: torch.device) -> Precision:
        """Return the precision in use.

        `auto` is float32 on CPUs and Apple GPUs, bfloat16 on GPUs that have it and else float16.
        Raises `ConfigError` for float16 on a CPU or an Apple GPU, whose gradients no scaler was tried with.
        """
        if wanted == "auto":
            on_gpu = device.type in ("cuda", "xpu")
            wanted = ("bf16" if _has_bf16(device) else "fp16") if on_gpu else "fp32"
        if wanted == "fp16" and device.type == "cpu":
            raise ConfigError("trainer.precision=fp16: needs a GPU; on CPUs use fp32 or bf16")
        if wanted == "fp16" and device.type == "mps":
            raise ConfigError("trainer.precision=fp16: is not for mps; use fp32 or bf16")
        return cls(wanted, device)

    @property
    def sums(self) -> torch.dtype:
        """Return the type of sums over many images; Apple GPUs have no float64."""
        return torch.float32 if self.device.type == "mps" else torch.float64

    def autocast(self) -> AbstractContextManager[None]:
        dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.name]
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    def scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")


def _has_bf16(device: torch.device) -> bool:
    return bool(torch.get_device_module(device).is_bf16_supported())


@dataclass
class TrainState:
    """All that an update changes. `updates` is the number of updates done."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    updates: int = 0
    pending_losses: list[Tensor] = field(default_factory=list)  # losses, still on the device
    averages: Averages | None = None  # of the weights, which nothing is trained with

    def __post_init__(self) -> None:
        self._built = copy.deepcopy([_options(group) for group in self.optimizer.param_groups])

    def last_loss(self) -> float:
        """Return the loss of the last update. Raises `DivergedError` if one since the last call is not finite."""
        values: list[float] = torch.stack(self.pending_losses).tolist()
        self.pending_losses.clear()
        for number, value in enumerate(values, start=self.updates - len(values) + 1):
            if not math.isfinite(value):
                raise DivergedError(number, f"the loss of update {number} is {value}")
        return values[-1]

    def row(self, plan: LRPlan, lr: float) -> Row:
        """Return the row of the history for the last update, which used `lr`. Raises as `last_loss`."""
        done = self.updates
        row: Row = {"step": done, "epoch": plan.epochs(done), "lr": lr}
        return row | {"train/loss": self.last_loss()}

    def checked(self, metrics: Row) -> Row:
        """Return `metrics` of this state. Raises `DivergedError` if one of them, or a weight, is not finite."""
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise DivergedError(self.updates, f"{name} after update {self.updates} is {value}")
        if broken := self.not_finite():
            raise DivergedError(self.updates, f"{broken} is not finite after update {self.updates}")
        return metrics

    def not_finite(self) -> str | None:
        """Return the first parameter, or statistic of a batch norm, that has a NaN or an infinity."""
        tensors = {
            name: tensor
            for name, tensor in self.network.state_dict(keep_vars=True).items()
            if isinstance(tensor, nn.Parameter) or name.endswith(("running_mean", "running_var"))
        }
        finite = torch.stack([tensor.detach().isfinite().all() for tensor in tensors.values()])
        return next(
            (name for name, is_so in zip(tensors, finite.tolist(), strict=True) if not is_so), None
        )

    def snapshot(self) -> dict[str, Any]:
        """Return all that training goes on from, but the schedule, which follows from the plan.

        Raises `DivergedError` rather than keep what a loss that is not finite led to.
        """
        if self.pending_losses:
            self.last_loss()
        kind = self._device_type()
        more: dict[str, Any] = {"param_groups": groups} if any(groups := self._changed()) else {}
        if self.averages:
            more["averages"] = self.averages.snapshot(self.updates)
        if kind != "cpu":
            more[f"rng_{kind}"] = torch.get_device_module(kind).get_rng_state()
        return {
            "updates": self.updates,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "rng_cuda": None,
        } | more

    def _device_type(self) -> str:
        return next(self.network.parameters()).device.type

    def restore(self, saved: dict[str, Any]) -> None:
        """Go to where `saved` stood. Raises KeyError, RuntimeError or ValueError if it does not fit."""
        self.network.load_state_dict(saved["network"])
        self._restore_optimizer(saved["optimizer"], saved.get("param_groups"))
        if saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        torch.set_rng_state(saved["rng"])
        kind = self._device_type()
        if kind != "cpu" and (state := saved.get(f"rng_{kind}")) is not None:
            torch.get_device_module(kind).set_rng_state(state)
        self.updates = saved["updates"]
        if self.averages:
            self.averages.restore(saved.get("averages", {}), self.updates)
        self.schedule.fast_forward(self.updates)

    @property
    def has_plain_moments(self) -> bool:
        """Return whether the optimizer's state has the shapes of the parameters, as an own one's may not."""
        plain = (torch.optim.SGD, torch.optim.AdamW, compiled.SGD, compiled.AdamW)
        return type(self.optimizer) in plain

    def _changed(self) -> list[dict[str, Any]]:
        """Return what the optimizer's own steps changed in each parameter group, as Schedule-Free does."""
        groups = zip(self._built, self.optimizer.param_groups, strict=True)
        return [
            {
                name: value
                for name, value in _options(group).items()
                if isinstance(value, Tensor) or name not in built or value is not built[name]
            }
            for built, group in groups
        ]

    def _restore_optimizer(
        self, moments: dict[Any, Any], changed: list[dict[str, Any]] | None
    ) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for number, own in moments.items() if self.has_plain_moments else ():
            for name, value in own.items():  # torch looks at their shapes only when it uses them
                scalar = not isinstance(value, Tensor) or value.dim() == 0
                if not scalar and value.shape != parameters[number].shape:
                    raise ValueError(f"{name} {number} has the shape {tuple(value.shape)}")
        whole = self.optimizer.state_dict()
        groups = [
            {**{name: group[name] for name in _NO_OPTIONS}, **built, **_options(own)}
            for group, built, own in zip(
                whole["param_groups"], self._built, changed or [{}] * len(self._built), strict=True
            )
        ]
        self.optimizer.load_state_dict(whole | {"state": moments, "param_groups": groups})


_NO_OPTIONS = ("params", "lr", "schedule_lr")


def _options(group: dict[str, Any]) -> dict[str, Any]:
    """Return what is in a parameter group but for its parameters and the LR, which the schedule sets."""
    return {name: value for name, value in group.items() if name not in _NO_OPTIONS}


@dataclass(frozen=True)
class TrainStep:
    """What stays the same from update to update; `forward` is the network.

    `loss_weight` is what the mean loss over this process's part of a batch counts in an update, which
    takes `accumulate` batches. `mode` is that of torch.compile, or none; evaluations are not compiled.
    Gradients whose common norm is above `clip` are scaled down to it.
    """

    forward: Callable[[Tensor], Tensor]
    precision: Precision
    label_smoothing: float
    world: World = SINGLE_PROCESS
    loss_weight: float = 1.0
    mode: str = "none"
    accumulate: int = 1
    clip: float | None = None

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of this process's part of a batch, to be differentiated."""
        with self.precision.autocast():
            return self.loss_weight * F.cross_entropy(
                self.forward(images), labels, label_smoothing=self.label_smoothing
            )

    def train(
        self,
        state: TrainState,
        images: Tensor,
        labels: Tensor,
        more: Iterable[tuple[Tensor, Tensor]] = (),
    ) -> Tensor:
        """Make one update on a batch, and on the `accumulate - 1` batches `more`.

        Return its loss, their mean, still on the device; waits for no GPU.
        """
        if self.accumulate == 1:
            loss = self._backward(state, images, labels)
        else:
            loss = self._accumulate(state, chain([(images, labels)], more))
        if self.clip is not None:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.network.parameters(), self.clip)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad()
        state.updates += 1
        state.schedule.advance(state.updates)
        return self.world.mean(loss)

    def _backward(self, state: TrainState, images: Tensor, labels: Tensor) -> Tensor:
        """Add the gradients of a batch to those that there are. Return its loss."""
        if self.mode == "none":
            loss = self.loss(images, labels)
            kept = loss.detach()
        else:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            loss = compiled.function(TrainStep.loss, self.mode)(self, images, labels)
            kept = loss.detach().clone()  # a CUDA graph writes its next loss to the same place
        state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return kept

    def _accumulate(self, state: TrainState, batches: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
        """Do as `_backward` with `accumulate` batches; processes exchange gradients once. Return the sum of losses."""
        with self.world.local_gradients(self.forward):
            loss = self._backward(state, *next(batches))
            if (
                self.precision.device.type == "cuda"
            ):  # a CUDA graph writes its next gradients to the same place
                for parameter in state.network.parameters():
                    if parameter.grad is not None:
                        parameter.grad = parameter.grad.clone()
            for batch in islice(batches, self.accumulate - 2):
                loss = loss + self._backward(state, *batch)
        return loss + self._backward(state, *next(batches))

    @torch.inference_mode()
    def evaluate(
        self,
        network: nn.Module,
        batches: Iterable[tuple[Tensor, Tensor]],
        split: str,
        correct: list[Tensor] | None = None,
        outputs: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Row:
        """Return `split`/acc in percent and the mean cross-entropy `split`/loss; one synchronisation.

        `correct` gets, for each batch, which images are classified correctly: bool (batch,), on the device;
        `outputs` the logits, float32 (batch, classes), and the labels, int64 (batch,).
        """
        network.eval()
        sums = torch.zeros(3, dtype=self.precision.sums, device=self.precision.device)
        for images, labels in batches:
            with self.precision.autocast():
                logits = self.forward(images).float()
            right = logits.argmax(1) == labels
            if correct is not None:
                correct.append(right)
            if outputs is not None:
                outputs.append((logits, labels))
            loss = F.cross_entropy(logits, labels, reduction="sum")
            sums += torch.stack([right.sum(), loss, torch.full_like(loss, len(labels))])
        network.train()
        count, loss, images_seen = self.world.sum(sums).tolist()
        return {f"{split}/acc": 100 * count / images_seen, f"{split}/loss": loss / images_seen}


@dataclass(frozen=True)
class LogSchedule:
    """At which steps the history has a row, which of those rows evaluate, and which averages beside the run."""

    train_every: int
    evaluations: frozenset[int]
    averages: tuple[Average, ...] = ()

    @classmethod
    def of(cls, plan: LRPlan, trainer: Trainer, averages: tuple[Average, ...] = ()) -> LogSchedule:
        """Return the log schedule of a run: evaluations fall on parts of epochs, on cycle ends and on the last update."""
        per_epoch, epoch = trainer.evals_per_epoch, plan.updates_per_epoch
        if per_epoch > epoch:
            raise ConfigError(
                f"trainer.evals_per_epoch={per_epoch}: an epoch has only {epoch} updates"
            )
        parts = range(1, math.ceil(plan.updates / epoch) * per_epoch + 1)
        regular = (part * epoch // per_epoch for part in parts)
        steps = {*regular, *plan.cycle_ends, plan.updates}
        within = frozenset(s for s in steps if s <= plan.updates)
        return cls(trainer.log_every, within, averages)

    def is_row(self, step: int) -> bool:
        return step % self.train_every == 0 or step in self.evaluations

    def covers(self, rows: list[Row], updates: int) -> bool:
        """Return whether `rows` hold all that this schedule records in the first `updates` updates."""
        evaluated = {row["step"] for row in rows if self.tells(row, "val/acc", int(row["step"]))}
        training = range(self.train_every, updates + 1, self.train_every)
        return {s for s in self.evaluations if s <= updates} <= evaluated and set(training) <= {
            row["step"] for row in rows
        }

    def select(self, rows: list[Row]) -> list[Row]:
        """Return the part of `rows`, recorded by a finer schedule, that this one would have recorded."""
        return [
            self.own(row, int(row["step"]))
            if row["step"] in self.evaluations
            else {name: value for name, value in row.items() if not name.startswith("val/")}
            for row in rows
            if self.is_row(int(row["step"]))
        ]

    def tells(self, row: Row, metric: str, updates: int) -> bool:
        """Return whether a row after `updates` updates has the metric, of the run and of each average."""
        return {metric, *(f"{metric}@{name}" for name in self._started(updates))} <= {*row}

    def own(self, row: Row, updates: int) -> Row:
        """Return a row after `updates` updates without metrics of averages that this schedule does not have."""
        started = self._started(updates)
        return {
            name: value
            for name, value in row.items()
            if "@" not in name or name.partition("@")[2] in started
        }

    def has_averages(self, kept: Mapping[str, Any], updates: int) -> bool:
        """Return whether `kept`, what the averages of a checkpoint are of (`Average.sampled`), has all of these."""
        missing = object()
        return all(
            kept.get(one.name, missing) == one.sampled(updates)
            for one in self.averages
            if one.started(updates)
        )

    def _started(self, updates: int) -> list[str]:
        return [one.name for one in self.averages if one.started(updates)]


def updates(
    state: TrainState, step: TrainStep, plan: LRPlan, batches: TrainBatches
) -> Iterator[float]:
    """Train from `state.updates` to the end of `plan`; yield the LR of every update after it.

    Raises RuntimeError if the LR in use is ever not the plan's.
    """
    groups = [(group, group["lr_factor"]) for group in state.optimizer.param_groups]
    more = step.accumulate - 1
    while state.updates < plan.updates:
        epoch, start = divmod(state.updates, plan.updates_per_epoch)
        stream = batches.epoch(epoch, start)
        for images, labels in stream:
            lr = float(plan.lr[state.updates])
            for group, factor in groups:
                if group["lr"] != factor * lr:
                    times = f" times {factor}" if factor != 1 else ""
                    raise RuntimeError(
                        f"update {state.updates + 1}: LR {group['lr']}, the plan says {lr}{times}"
                    )
            state.pending_losses.append(step.train(state, images, labels, islice(stream, more)))
            if state.averages:
                state.averages.update(state.updates)
            yield lr
            if state.updates == plan.updates:
                return
