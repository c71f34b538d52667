"""The schedules to choose from. To add one: a class here, its line in `builtin.py`, a file in `conf/scheduler/`."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, repeat
from typing import TYPE_CHECKING, ClassVar

from harness.config.errors import ConfigError
from harness.config.fields import duration, number, show
from harness.config.schema import Scheduler

if TYPE_CHECKING:
    from torch import optim
    from torch.optim.lr_scheduler import LRScheduler

    from harness.training.schedules import Durations


@dataclass
class Cosine(Scheduler):
    """CosineAnnealingLR: down in `t_max`, up in the next `t_max`, and so on."""

    t_max: float | None = duration(above=0)  # null: all of the budget that warm-up leaves
    eta_min: float = number(at_least=0)

    def build(self, optimizer: optim.Optimizer, durations: Durations) -> LRScheduler:
        from torch.optim.lr_scheduler import CosineAnnealingLR

        return CosineAnnealingLR(optimizer, self._half_period(durations), self.eta_min)

    def check(self, durations: Durations) -> None:
        durations.check_minimum("eta_min", self.eta_min)

    def cycle_ends(self, durations: Durations) -> Iterable[int]:
        """Return the odd multiples of `t_max`."""
        if self.t_max is None:
            return [durations.updates]
        first = self._half_period(durations)
        return map(durations.updates_after, accumulate(repeat(2 * first), initial=first))

    def _half_period(self, durations: Durations) -> int:
        if self.t_max is None:
            return durations.total - durations.warmup
        return durations.steps("t_max", self.t_max)


@dataclass
class CosineWarm(Scheduler):
    """CosineAnnealingWarmRestarts (SGDR, Loshchilov & Hutter 2017)."""

    restarts: ClassVar[bool] = True

    t_0: float = duration(above=0)
    t_mult: int = number(at_least=1, at_most=1e6)
    eta_min: float = number(at_least=0)

    def build(self, optimizer: optim.Optimizer, durations: Durations) -> LRScheduler:
        from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

        first = durations.steps("t_0", self.t_0)
        return CosineAnnealingWarmRestarts(optimizer, first, self.t_mult, self.eta_min)

    def check(self, durations: Durations) -> None:
        durations.check_minimum("eta_min", self.eta_min)
        durations.check_fits("t_0", self.t_0)

    def cycle_ends(self, durations: Durations) -> Iterable[int]:
        """Return t_0, t_0 (1 + t_mult), t_0 (1 + t_mult + t_mult^2), ..."""
        first = durations.steps("t_0", self.t_0)
        lengths = accumulate(repeat(self.t_mult), operator.mul, initial=first)
        return map(durations.updates_after, accumulate(lengths))


@dataclass
class Step(Scheduler):
    """StepLR: times `gamma` every `step_size`."""

    step_size: float = duration(above=0)
    gamma: float = number(above=0, at_most=1)

    def build(self, optimizer: optim.Optimizer, durations: Durations) -> LRScheduler:
        from torch.optim.lr_scheduler import StepLR

        return StepLR(optimizer, durations.steps("step_size", self.step_size), self.gamma)

    def check(self, durations: Durations) -> None:
        durations.check_fits("step_size", self.step_size)


@dataclass
class MultiStep(Scheduler):
    """MultiStepLR: times `gamma` at each milestone."""

    milestones: list[float] = duration(above=0)
    gamma: float = number(above=0, at_most=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.milestones or sorted(set(self.milestones)) != self.milestones:
            raise ConfigError(
                f"scheduler.milestones={show(self.milestones)}: must be rising, with at least one"
            )

    def build(self, optimizer: optim.Optimizer, durations: Durations) -> LRScheduler:
        from torch.optim.lr_scheduler import MultiStepLR

        steps = [durations.steps("milestones", milestone) for milestone in self.milestones]
        return MultiStepLR(optimizer, steps, self.gamma)

    def check(self, durations: Durations) -> None:
        durations.check_fits("milestones", self.milestones[0])


@dataclass
class Linear(Scheduler):
    """Linearly from the peak to zero at the end of the budget."""

    def build(self, optimizer: optim.Optimizer, durations: Durations) -> LRScheduler:
        from torch.optim.lr_scheduler import LambdaLR

        total = durations.total - durations.warmup
        return LambdaLR(optimizer, partial(_cooldown, total, total))

    def cycle_ends(self, durations: Durations) -> Iterable[int]:
        return [durations.updates]


@dataclass
class Constant(Scheduler):
    """The peak throughout."""

    def build(self, optimizer: optim.Optimizer, durations: Durations) -> LRScheduler:
        from torch.optim.lr_scheduler import LambdaLR

        return LambdaLR(optimizer, _constant)


@dataclass
class WSD(Scheduler):
    """Constant, then a linear cooldown to zero (Hägele et al. 2024)."""

    cooldown: float = duration(above=0)  # the length of the cooldown that ends the budget

    def build(self, optimizer: optim.Optimizer, durations: Durations) -> LRScheduler:
        from torch.optim.lr_scheduler import LambdaLR

        total = durations.total - durations.warmup
        length = durations.steps("cooldown", self.cooldown)
        return LambdaLR(optimizer, partial(_cooldown, total, length))

    def check(self, durations: Durations) -> None:
        durations.check_fits("cooldown", self.cooldown)

    def cycle_ends(self, durations: Durations) -> Iterable[int]:
        return [durations.updates]


@dataclass
class OneCycle(Scheduler):
    """OneCycleLR's learning rate (Smith & Topin 2018); the momentum is left alone."""

    pct_start: float = number(above=0, below=1)  # share of the budget in which the LR rises
    div_factor: float = number(at_least=1)
    final_div_factor: float = number(at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup:
            raise ConfigError(
                f"scheduler.warmup={show(self.warmup)}: one_cycle rises by itself; "
                "set scheduler.pct_start and leave scheduler.warmup=0"
            )

    def build(self, optimizer: optim.Optimizer, durations: Durations) -> LRScheduler:
        from torch.optim.lr_scheduler import OneCycleLR

        return OneCycleLR(
            optimizer,
            max_lr=optimizer.param_groups[0]["lr"],
            total_steps=durations.total - durations.warmup,
            pct_start=self.pct_start,
            div_factor=self.div_factor,
            final_div_factor=self.final_div_factor,
            cycle_momentum=False,
        )

    def check(self, durations: Durations) -> None:
        if durations.total == 1:
            raise ConfigError(
                f"{durations.budget}: one_cycle cannot rise and fall in one step of the scheduler; "
                "raise trainer.epochs"
            )
        if self.pct_start * durations.total <= 1:
            raise ConfigError(
                f"scheduler.pct_start={show(self.pct_start)}: leaves no update in which the LR rises; "
                f"must be above 1 / {durations.total} here"
            )

    def cycle_ends(self, durations: Durations) -> Iterable[int]:
        return [durations.updates]


def _constant(step: int) -> float:
    return 1.0


def _cooldown(total: int, length: int, step: int) -> float:
    """Return 1 until `length` steps before `total`, then linearly to 0 at `total`."""
    return min(1.0, max(0, total - step) / length)
