"""torch's schedulers in units of updates, and the LR plan that they make.

Users say epochs; `build` turns every duration into whole scheduler steps once. Update `g` (counted
from 0) uses the schedule's value at epoch `g / updates_per_epoch`, the article's
`step(epoch + batch / iters)` without its float error: torch's `step()` without an argument counts
in integers, `step(epoch)` finds the cycle with a logarithm and misses boundaries.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.lr_scheduler import LRScheduler

from harness.config import schema as conf
from harness.config.schema import Config, ConfigError

_TOLERANCE = 1e-4  # of a step: how far from a whole number a duration may be, for 2.33333 epochs


@dataclass(frozen=True)
class Plan:
    """The LR of every update of a run, and where its cycles lie.

    `lr[g]` (float64) is the LR that update `g` uses. `restarts` holds the updates at which the LR
    jumps back to its peak, `cycle_ends` the numbers of updates done at which it has come down to
    its minimum; both lie within the budget, and are empty for schedules without cycles.
    """

    lr: NDArray[np.float64]
    updates_per_epoch: int
    restarts: tuple[int, ...]
    cycle_ends: tuple[int, ...]
    aligned: bool  # the budget ends where a cycle does, or there are no cycles
    nearest_aligned: tuple[int, ...]  # in updates, around the budget, of those that may be given

    @property
    def updates(self) -> int:
        return len(self.lr)

    @property
    def share_at_end(self) -> float:
        """The last update's LR, as a share of the peak."""
        return float(self.lr[-1] / self.lr.max())

    def epochs(self, updates: int) -> float:
        return updates / self.updates_per_epoch

    def describe(self) -> dict[str, Any]:
        """What is worth knowing of the plan, in epochs, as plain values."""
        return {
            "updates": self.updates,
            "updates_per_epoch": self.updates_per_epoch,
            "budget_epochs": self.epochs(self.updates),
            "restart_epochs": [self.epochs(update) for update in self.restarts],
            "cycle_end_epochs": [self.epochs(update) for update in self.cycle_ends],
            "aligned": self.aligned,
            "nearest_aligned_epochs": [self.epochs(update) for update in self.nearest_aligned],
            "lr_share_at_end": self.share_at_end,
            "lr_mean": float(self.lr.mean()),
        }


@dataclass(frozen=True)
class Schedule:
    """A torch scheduler, stepped *after* the optimizer, once every `updates_per_step` updates."""

    scheduler: LRScheduler
    updates_per_step: int

    def advance(self, updates: int) -> None:
        """Set the LR of the next update, `updates` being done."""
        if updates % self.updates_per_step == 0:
            self.scheduler.step()

    def fast_forward(self, updates: int) -> None:
        """From the start to where `updates` are done, by the steps that training would take."""
        with _without_training():
            for _ in range(updates // self.updates_per_step):
                self.scheduler.step()


@contextmanager
def _without_training() -> Iterator[None]:
    """Where a scheduler is stepped on its own, which torch otherwise warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        yield


@dataclass(frozen=True)
class Durations:
    """The unit conversion: everything that `build` needs, in scheduler steps."""

    config: conf.Scheduler
    updates: int
    updates_per_epoch: int

    @property
    def updates_per_step(self) -> int:
        return self.updates_per_epoch if self.config.interval == "epoch" else 1

    @property
    def total(self) -> int:
        return -(-self.updates // self.updates_per_step)

    def steps(self, name: str, value: float) -> int:
        """`value` epochs (or batches) in scheduler steps. Raises `ConfigError` if not whole."""
        key = f"scheduler.{name}"
        if self.config.interval == "epoch":
            return whole(key, value, 1, "epochs, which scheduler.interval=epoch needs")
        if self.config.unit == "batch":
            return whole(key, value, 1, "updates, which scheduler.unit=batch counts")
        return whole(key, value, self.updates_per_epoch)

    @property
    def warmup(self) -> int:
        return self.steps("warmup", self.config.warmup)

    def anneal(self, t_max: float | None) -> int:
        """Return the steps in which a cosine comes down; null: all that warm-up leaves."""
        return self.total - self.warmup if t_max is None else self.steps("t_max", t_max)

    @property
    def budget(self) -> str:
        """Return the budget for messages, also in the unit of the durations."""
        epochs = f"trainer.epochs={self.updates / self.updates_per_epoch:g}"
        return epochs if self.config.unit == "epoch" else f"{epochs} ({self.updates} updates)"


def whole(key: str, value: float, per_unit: int, what: str = "") -> int:
    """`value * per_unit` if that is a whole number; else a `ConfigError` with the nearest values.

    `what` are the things counted, if not the updates of an epoch.
    """
    steps = round(value * per_unit)
    if abs(value * per_unit - steps) > _TOLERANCE:
        low, high = math.floor(value * per_unit), math.ceil(value * per_unit)
        fits = [
            shortest(n, per_unit) + f" ({n} update{'s' * (n != 1)})" * (per_unit > 1)
            for n in (low, high)
            if n > 0
        ]
        raise ConfigError(
            f"{key}={value:g}: is not a whole number of {what or f'updates at {per_unit} an epoch'}; "
            f"the nearest {'are' if len(fits) > 1 else 'is'} {' and '.join(fits)}"
        )
    if value > 0 and steps == 0:
        raise ConfigError(f"{key}={value:g}: is too short; the least is {shortest(1, per_unit)}")
    return steps


def shortest(steps: int, per_unit: int) -> str:
    """The shortest decimal number of epochs that `whole` takes for `steps`."""
    numbers = (f"{steps / per_unit:.{digits}f}" for digits in range(18))
    return next(n for n in numbers if abs(float(n) * per_unit - steps) <= _TOLERANCE / 2)


def total_updates(config: Config, updates_per_epoch: int) -> int:
    return whole("trainer.epochs", config.trainer.epochs, updates_per_epoch)


def build(config: Config, optimizer: Optimizer, updates_per_epoch: int) -> Schedule:
    """The torch scheduler of `config`, attached to `optimizer`. Raises `ConfigError` for a misfit."""
    d = Durations(config.scheduler, total_updates(config, updates_per_epoch), updates_per_epoch)
    _check(config, d)
    warmup = d.warmup
    if warmup == 0:
        return Schedule(_torch_scheduler(d, optimizer, d.total), d.updates_per_step)
    first = torch_schedulers.LinearLR(optimizer, 1 / (warmup + 1), 1.0, warmup)
    then = _torch_scheduler(d, optimizer, d.total - warmup)
    return Schedule(
        torch_schedulers.SequentialLR(optimizer, [first, then], [warmup]), d.updates_per_step
    )


def _torch_scheduler(d: Durations, optimizer: Optimizer, total: int) -> LRScheduler:
    match d.config:
        case conf.Cosine(t_max=t_max, eta_min=eta_min):
            return torch_schedulers.CosineAnnealingLR(optimizer, d.anneal(t_max), eta_min)
        case conf.CosineWarm(t_0=t_0, t_mult=t_mult, eta_min=eta_min):
            return torch_schedulers.CosineAnnealingWarmRestarts(
                optimizer, d.steps("t_0", t_0), t_mult, eta_min
            )
        case conf.Step(step_size=step_size, gamma=gamma):
            return torch_schedulers.StepLR(optimizer, d.steps("step_size", step_size), gamma)
        case conf.MultiStep(milestones=milestones, gamma=gamma):
            steps = [d.steps("milestones", m) for m in milestones]
            return torch_schedulers.MultiStepLR(optimizer, steps, gamma)
        case conf.Linear():
            return torch_schedulers.LambdaLR(optimizer, partial(_cooldown, total, total))
        case conf.Constant():
            return torch_schedulers.LambdaLR(optimizer, _constant)
        case conf.WSD(cooldown=cooldown):
            return torch_schedulers.LambdaLR(
                optimizer, partial(_cooldown, total, d.steps("cooldown", cooldown))
            )
        case conf.OneCycle() as c:
            return torch_schedulers.OneCycleLR(
                optimizer,
                max_lr=optimizer.param_groups[0]["lr"],
                total_steps=total,
                pct_start=c.pct_start,
                div_factor=c.div_factor,
                final_div_factor=c.final_div_factor,
                cycle_momentum=False,
            )
    raise TypeError(f"no schedule for {type(d.config).__name__}")


def _constant(step: int) -> float:
    return 1.0


def _cooldown(total: int, length: int, step: int) -> float:
    """1 until `length` steps before `total`, then linearly to 0 at `total`."""
    return min(1.0, max(0, total - step) / length)


def _check(config: Config, d: Durations) -> None:
    s = d.config
    if d.warmup >= d.total:
        raise ConfigError(
            f"scheduler.warmup={s.warmup:g}: must be shorter than the budget, {d.budget}"
        )
    if getattr(s, "eta_min", 0) >= config.optimizer.lr:
        raise ConfigError(
            f"scheduler.eta_min={s.eta_min:g}: must be below the peak, "  # type: ignore[attr-defined]
            f"optimizer.lr={config.optimizer.lr:g}"
        )
    match s:
        case conf.OneCycle() if d.total == 1:
            raise ConfigError(
                f"{d.budget}: one_cycle cannot rise and fall in one step of the scheduler; "
                "raise trainer.epochs"
            )
        case conf.OneCycle(pct_start=pct_start) if pct_start * d.total <= 1:
            raise ConfigError(
                f"scheduler.pct_start={pct_start:g}: leaves no update in which the LR rises; "
                f"must be above 1 / {d.total} here"
            )
        case conf.CosineWarm(t_0=length):
            name = "t_0"
        case conf.WSD(cooldown=length):
            name = "cooldown"
        case _:
            return
    if d.warmup + d.steps(name, length) > d.total:
        raise ConfigError(
            f"scheduler.{name}={length:g}: does not fit into the budget, {d.budget}"
            + (f" with scheduler.warmup={s.warmup:g}" if s.warmup else "")
        )


class _Rate(Optimizer):
    """A learning rate for a scheduler to move; torch's optimizers import its compiler, for seconds."""

    def __init__(self, lr: float) -> None:
        self.defaults = {"lr": lr}
        self.param_groups = [{"params": [], "lr": lr}]


def plan(config: Config, updates_per_epoch: int) -> Plan:
    """The plan of `config`, made by stepping the very scheduler that training steps."""
    optimizer = _Rate(config.optimizer.lr)
    schedule = build(config, optimizer, updates_per_epoch)
    updates = total_updates(config, updates_per_epoch)
    lr = np.empty(updates)
    group = optimizer.param_groups[0]
    with _without_training():
        for begin in range(0, updates, schedule.updates_per_step):
            lr[begin : begin + schedule.updates_per_step] = group["lr"]
            schedule.scheduler.step()
    d = Durations(config.scheduler, updates, updates_per_epoch)
    ends = _cycle_ends(d)
    inside = tuple(end for end in ends if end <= updates)
    restarts = tuple(
        end for end in inside if end < updates and isinstance(config.scheduler, conf.CosineWarm)
    )
    aligned = not ends or updates in ends
    nearest = (*inside[-1:], *(end for end in ends if end > updates))
    allowed = tuple(end for end in nearest if end <= conf.MOST_EPOCHS * updates_per_epoch)
    return Plan(lr, updates_per_epoch, restarts, inside, aligned, () if aligned else allowed)


def _cycle_ends(d: Durations) -> list[int]:
    """All cycle ends up to the first at or after the budget, in updates.

    A cycle ends where the LR has come down to its minimum: for `cosine` at odd multiples of
    `t_max`, for `cosine_warm` at t_0, t_0 (1 + t_mult), t_0 (1 + t_mult + t_mult^2), ...
    """
    match d.config:
        case conf.Linear() | conf.WSD() | conf.OneCycle() | conf.Cosine(t_max=None):
            return [d.updates]
        case conf.Cosine(t_max=t_max):
            first = d.anneal(t_max)
            lengths = accumulate(repeat(2 * first), initial=first)
        case conf.CosineWarm(t_0=t_0, t_mult=t_mult):
            cycle = accumulate(repeat(t_mult), operator.mul, initial=d.steps("t_0", t_0))
            lengths = accumulate(cycle)
        case _:
            return []
    ends = []
    for length in lengths:
        ends.append(d.updates_per_step * (d.warmup + length))
        if ends[-1] >= d.updates:
            break
    return ends


def misalignment(plan: Plan) -> str | None:
    """One line if the budget ends in mid-cycle: the LR's share there, and the nearest budgets."""
    if plan.aligned:
        return None
    fits = " and ".join(shortest(end, plan.updates_per_epoch) for end in plan.nearest_aligned)
    advice = f"the nearest budgets that end a cycle: {fits}" if fits else "lower scheduler.t_max"
    return (
        f"trainer.epochs={plan.epochs(plan.updates):g} ends in mid-cycle, with the LR at "
        f"{plan.share_at_end:.0%} of its peak; {advice}"
    )
