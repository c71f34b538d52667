"""What a run needs before its first update."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch

from harness.config import extensions, registry
from harness.config.errors import ConfigError
from harness.config.fields import Section
from harness.config.schema import Config, DatasetShape
from harness.runs.context import PhaseTimer
from harness.store.identity import RunIdentity, fingerprint
from harness.training import averages, datasets, device, metrics, models, optimizers, schedules
from harness.training.batches import EvalBatches, TrainBatches
from harness.training.datasets import Splits
from harness.training.distributed import SINGLE_PROCESS, World
from harness.training.loop import LogSchedule, Precision, TrainState, TrainStep
from harness.training.parameter_groups import parameter_groups
from harness.training.schedules import LRPlan

shape_once = lru_cache(datasets.training_shape)  # a folder of images is listed once for all runs
_PLANS: dict[str, LRPlan] = {}  # seeds have the same
_FITTING: set[str] = set()  # networks that were checked


def lr_plan(config: Config) -> LRPlan:
    """Return the LR plan of a run that is not trained now: of its data, the shape alone is read.

    Raises `ConfigError` if the schedule does not fit the data and the budget.
    """
    datasets.refuse_without_test(config)
    shape = shape_once(config.dataset)
    batch_size, accumulate = config.trainer.batch_size, config.optimizer.accumulate
    updates_per_epoch = datasets.updates_per_epoch(shape.train, batch_size, accumulate)
    _check_network(config, shape)
    _try_own_code(config, shape)
    key = f"{_name(config.scheduler)} {config.optimizer.lr} {config.trainer.epochs} {updates_per_epoch}"
    if key not in _PLANS:
        _PLANS[key] = schedules.lr_plan(config, updates_per_epoch)
    averages.planned(config.averages, _PLANS[key])
    return _PLANS[key]


def _name(section: Section) -> str:
    """Return a section as a key of a cache: classes of two extensions may have one name."""
    return f"{registry.kind(section)} {section}"


def _check_network(config: Config, shape: DatasetShape) -> None:
    """Raise `ConfigError` for batches of one image or parameter groups that do not fit the network."""
    batch_size, groups = config.trainer.batch_size, config.optimizer.groups
    key = f"{_name(config.model)} {shape} {batch_size} {groups}"
    if (batch_size > 1 and groups is None) or key in _FITTING:
        return
    network = models.without_weights(config.model, shape)
    models.check_batch(network, batch_size, shape)
    parameter_groups(network, config.optimizer)
    _FITTING.add(key)


def _try_own_code(config: Config, shape: DatasetShape) -> None:
    """Raise `ConfigError` for code of the user's that would fail in training: data, model, optimizer, metrics."""
    if not extensions.sources(config):
        return
    if extensions.source(config.dataset) and config.dataset.in_memory:
        datasets.load(config.dataset)
    key = f"{_name(config.model)} {shape} {_name(config.optimizer)} {config.metrics}"
    if key in _FITTING:
        return
    if extensions.source(config.model):
        models.check_own(config.model, shape)
    if extensions.source(config.optimizer):
        network = models.build(config.model, shape)
        optimizers.check_own(config.optimizer, parameter_groups(network, config.optimizer))
    metrics.check(config.metrics, shape.classes)
    _FITTING.add(key)


@dataclass(frozen=True)
class Setup:
    """Device, data, LR plan and identity of a run: all but its state."""

    device: torch.device
    precision: Precision
    splits: Splits
    batches: TrainBatches
    val: EvalBatches
    test: EvalBatches | None
    identity: RunIdentity
    numerics: dict[str, Any]
    metrics: list[str]  # beside acc and loss

    @cached_property
    def recalibration(self) -> TrainBatches:
        """The training batches on which averages of weights get the statistics of their batch norms."""
        return self.batches.beside()


def prepare(config: Config, timer: PhaseTimer, world: World = SINGLE_PROCESS) -> Setup:
    """Return the set-up of a run. Raises `ConfigError` for what does not fit or is not there."""
    datasets.refuse_without_test(config)
    own = device.device(config.trainer.device, world)
    world.check(config.trainer, own)
    device.check(config.trainer, own)
    optimizers.check(config.trainer.compile, own)
    precision = Precision.resolve(config.trainer.precision, own)
    device.reset(config, own)
    with timer.phase("data"):
        with world.rank_zero_first():
            splits = datasets.load(config.dataset)
        batches = TrainBatches(splits, config, own, world)
        val = EvalBatches(splits.val, splits, config, own, world)
        test = None
        if splits.test is not None:
            test = EvalBatches(splits.test, splits, config, own, world)
    plan = schedules.lr_plan(config, batches.updates_per_epoch)
    _try_own_code(config, splits.shape)
    of_what = config, splits.sha256, precision.name
    identity = RunIdentity(
        fingerprint(*of_what),
        plan,
        LogSchedule.of(plan, config.trainer, averages.planned(config.averages, plan)),
        fingerprint(*of_what, code=False) if extensions.sources(config) else None,
    )
    here = (identity.run_id, splits.test_sha256)
    if world.broadcast_from_rank_zero(lambda: here) != here:
        raise ConfigError(f"process {world.rank}: has other data or settings than the first one")
    numerics = device.numerics(config, own, precision, world)
    return Setup(
        own, precision, splits, batches, val, test, identity, numerics, config.metrics
    )  # fmt: skip


def build(
    config: Config,
    splits: Splits,
    device: torch.device,
    precision: Precision,
    world: World = SINGLE_PROCESS,
) -> tuple[TrainState, TrainStep]:
    """Return the network, its optimizer and its schedule before the first update, and the update itself.

    The initial weights follow from `config.seed`, the model and the data's shape.
    """
    trainer = config.trainer
    torch.manual_seed(config.seed)
    network = models.build(config.model, splits.shape)
    models.check_batch(network, trainer.batch_size, splits.shape)
    network = world.convert_sync_batch_norm(network, device)
    layout = torch.channels_last if trainer.channels_last else torch.contiguous_format
    network = network.to(device, memory_format=layout)  # type: ignore[call-overload]
    mode = trainer.compile if world.size == 1 else "none"
    by_scaler = precision.name == "fp16"  # which has the optimizer skip updates
    parameters = parameter_groups(network, config.optimizer)
    optimizer = optimizers.build(config.optimizer, parameters, "none" if by_scaler else mode)
    if by_scaler:
        optimizers.start_momenta(optimizer)
    accumulate = config.optimizer.accumulate
    updates_per_epoch = datasets.updates_per_epoch(
        len(splits.train.labels), trainer.batch_size, accumulate
    )
    schedule = schedules.build(config, optimizer, updates_per_epoch)
    forward: Any = world.wrap_ddp(network, device)
    if trainer.compile != mode:  # gradients are averaged within the update
        forward = torch.compile(forward, mode=trainer.compile)
    step = TrainStep(
        forward,
        precision,
        trainer.label_smoothing,
        world,
        world.loss_weight(trainer.batch_size) / accumulate,
        mode,
        accumulate,
        config.optimizer.clip,
    )
    return TrainState(network, optimizer, schedule, precision.scaler()), step
