"""torch's schedulers in units of updates, and the LR plan that they make.

Users say epochs; `build` turns every duration into whole scheduler steps once. Update `g` (counted
from 0) uses the schedule's value at epoch `g / updates_per_epoch`, the article's
`step(epoch + batch / iters)` without its float error: torch's `step()` without an argument counts
in integers, `step(epoch)` finds the cycle with a logarithm and misses boundaries.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice, tee, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.lr_scheduler import LRScheduler

from harness.config import extensions, registry
from harness.config.errors import ConfigError
from harness.config.fields import decimal, show
from harness.config.schema import MOST_EPOCHS, Config, Scheduler

_TOLERANCE = 1e-4  # of a step: how far from a whole number a duration may be, for 2.33333 epochs
_NOISE = 1e-12  # of the peak: what rounding adds to an LR
_LONGER = 4  # times the budget: how far cycles are looked for ...
_REPEATED = 1_000  # steps of a schedule of the user's that must be the same when it is built again
_MOST_STEPS_AHEAD = 200_000  # ... but not further than this, which takes a second or two


@dataclass(frozen=True)
class LRPlan:
    """The LR of every update of a run, and the ends of its cycles.

    `lr[g]` (float64) is the LR that update `g` uses. `restarts` holds the updates at which the LR
    jumps back to its peak, `cycle_ends` the numbers of updates done at which it has come down to
    its minimum; both are within the budget, and are empty for schedules without cycles.
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
        """Return the last update's LR, as a share of the peak."""
        return float(self.lr[-1] / self.lr.max())

    def epochs(self, updates: int) -> float:
        return updates / self.updates_per_epoch

    def describe(self) -> dict[str, Any]:
        """Return the plan's main properties, in epochs, as plain values."""
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
            self._step(1)

    def fast_forward(self, updates: int) -> None:
        """Go from the start to where `updates` are done, by the steps that training would take."""
        with _without_training():
            self._step(updates // self.updates_per_step)

    def _step(self, times: int) -> None:
        _take_factors_out(self.scheduler.optimizer)
        for _ in range(times):
            self.scheduler.step()
        _put_factors_in(self.scheduler.optimizer)


def _take_factors_out(optimizer: Optimizer) -> None:
    """Give every parameter group the LR that the schedule left it with, for the next step of the schedule.

    So `eta_min` and the like are in proportion too: torch's schedulers take them for an LR of all groups.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["schedule_lr"]


def _put_factors_in(optimizer: Optimizer) -> None:
    """Give every parameter group its constant multiple of the schedule's LR, which updates use."""
    for group in optimizer.param_groups:
        group["schedule_lr"] = group["lr"]
        group["lr"] *= group["lr_factor"]


@contextmanager
def _without_training() -> Iterator[None]:
    """Let a scheduler be stepped without an optimizer step, of which torch otherwise warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        yield


@dataclass(frozen=True)
class Durations:
    """The unit conversion: everything that a scheduler is built of, in scheduler steps."""

    config: Scheduler
    peak_lr: float
    updates: int
    updates_per_epoch: int

    @classmethod
    def of(cls, config: Config, updates_per_epoch: int) -> Durations:
        """Return those of a run. Raises `ConfigError` for a budget that is no whole number of updates."""
        updates = to_updates("trainer.epochs", config.trainer.epochs, updates_per_epoch)
        return cls(config.scheduler, config.optimizer.lr, updates, updates_per_epoch)

    @property
    def updates_per_step(self) -> int:
        return self.updates_per_epoch if self.config.interval == "epoch" else 1

    @property
    def total(self) -> int:
        return -(-self.updates // self.updates_per_step)

    def steps(self, name: str, value: float) -> int:
        """Return `value` epochs (or batches) in scheduler steps. Raises `ConfigError` if not whole."""
        key = f"scheduler.{name}"
        if self.config.interval == "epoch":
            return to_updates(key, value, 1, "epochs, which scheduler.interval=epoch needs")
        if self.config.unit == "batch":
            return to_updates(key, value, 1, "updates, which scheduler.unit=batch counts")
        return to_updates(key, value, self.updates_per_epoch)

    @property
    def warmup(self) -> int:
        return self.steps("warmup", self.config.warmup)

    @property
    def budget(self) -> str:
        """Return the budget for messages, also in the unit of the durations."""
        epochs = f"trainer.epochs={decimal(self.updates / self.updates_per_epoch)}"
        return epochs if self.config.unit == "epoch" else f"{epochs} ({self.updates} updates)"

    def updates_after(self, steps: int) -> int:
        """Return how many updates are done `steps` scheduler steps after warm-up."""
        return self.updates_per_step * (self.warmup + steps)

    def check_minimum(self, name: str, lr: float) -> None:
        """Raise `ConfigError` unless the lowest LR is below the peak."""
        if lr >= self.peak_lr:
            raise ConfigError(
                f"scheduler.{name}={show(lr)}: must be below the peak, optimizer.lr={show(self.peak_lr)}"
            )

    def check_fits(self, name: str, length: float, part: str = "") -> None:
        """Raise `ConfigError` unless `length` epochs (or batches) and warm-up fit into the budget.

        `part` says what of a key it is that has this length, where that is not its value.
        """
        if self.warmup + self.steps(name, length) > self.total:
            warmup, key = self.config.warmup, f"scheduler.{name}"
            given = f"{key}: {part}, {show(length)}," if part else f"{key}={show(length)}:"
            raise ConfigError(
                f"{given} does not fit into the budget, {self.budget}"
                + (f" with scheduler.warmup={show(warmup)}" if warmup else "")
                + f"; lower {part or key}, or raise trainer.epochs"
            )


def to_updates(key: str, value: float, per_unit: int, what: str = "") -> int:
    """Return `value * per_unit` if that is a whole number; else raise `ConfigError` with the nearest values.

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
            f"{key}={show(value)}: is not a whole number of {what or f'updates at {per_unit} an epoch'}; "
            f"the nearest {'are' if len(fits) > 1 else 'is'} {' and '.join(fits)}"
        )
    if value > 0 and steps == 0:
        raise ConfigError(
            f"{key}={show(value)}: is too short; the least is {shortest(1, per_unit)}"
        )
    return steps


def shortest(steps: int, per_unit: int) -> str:
    """Return the shortest decimal number of epochs that `to_updates` takes for `steps`."""
    numbers = (f"{steps / per_unit:.{digits}f}" for digits in range(18))
    return next(n for n in numbers if abs(float(n) * per_unit - steps) <= _TOLERANCE / 2)


def build(config: Config, optimizer: Optimizer, updates_per_epoch: int) -> Schedule:
    """Return the torch scheduler of `config`, attached to `optimizer`. Raises `ConfigError` for a misfit.

    A parameter group that has an LR of its own keeps its ratio to `optimizer.lr`.
    """
    durations = Durations.of(config, updates_per_epoch)
    scheduler, warmup = config.scheduler, durations.warmup
    if warmup >= durations.total:
        raise ConfigError(
            f"scheduler.warmup={show(scheduler.warmup)}: must be shorter than the budget, "
            f"{durations.budget}"
        )
    with extensions.own_code(scheduler, "check"):
        scheduler.check(durations)
    peak = config.optimizer.lr
    for group in optimizer.param_groups:
        group.setdefault("lr_factor", group["lr"] / peak)
        group["lr"] = peak
    torchs: LRScheduler
    if warmup == 0:
        torchs = _after_warmup(scheduler, optimizer, durations)
    else:
        rise = torch_schedulers.LinearLR(optimizer, 1 / (warmup + 1), 1.0, warmup)
        after = _after_warmup(scheduler, optimizer, durations)
        torchs = torch_schedulers.SequentialLR(optimizer, [rise, after], [warmup])
    _put_factors_in(optimizer)
    return Schedule(torchs, durations.updates_per_step)


def _after_warmup(scheduler: Scheduler, optimizer: Optimizer, durations: Durations) -> LRScheduler:
    with extensions.own_code(scheduler, "build"):
        built = scheduler.build(optimizer, durations)
    if not isinstance(built, LRScheduler) or built.optimizer is not optimizer:
        what = f"a {type(built).__name__}" + " of another optimizer" * isinstance(
            built, LRScheduler
        )
        raise ConfigError(
            f"{_name(scheduler)}: build returns {what}, not an LRScheduler of the optimizer that it is given"
        )
    return built


def _name(scheduler: Scheduler) -> str:
    return f"scheduler={registry.kind(scheduler)}"


class _LRHolder(Optimizer):
    """A learning rate for a scheduler to move; torch's optimizers import its compiler, for seconds."""

    def __init__(self, lr: float) -> None:
        self.defaults = {"lr": lr}
        self.param_groups = [{"params": [], "lr": lr}]


def lr_plan(config: Config, updates_per_epoch: int) -> LRPlan:
    """Return the LR plan of `config`, made by stepping the very scheduler that training steps.

    Cycle ends that its schedule does not give are derived from the LRs.
    """
    optimizer = _LRHolder(config.optimizer.lr)
    schedule = build(config, optimizer, updates_per_epoch)
    durations = Durations.of(config, updates_per_epoch)
    updates = durations.updates
    lr = np.empty(updates)
    group = optimizer.param_groups[0]
    with _without_training():
        for begin in range(0, updates, schedule.updates_per_step):
            lr[begin : begin + schedule.updates_per_step] = group["lr"]
            with extensions.own_code(config.scheduler, "step"):
                schedule.scheduler.step()
    _check_lr(config.scheduler, lr, group)
    if extensions.source(config.scheduler):
        _check_repeats(config, lr, durations)
    with extensions.own_code(config.scheduler, "cycle_ends"):
        given = config.scheduler.cycle_ends(durations)
        ends = None if given is None else _until(updates, _rising(config.scheduler, given))
    if ends is None:
        ends = _derive_cycle_ends(config, durations, lr)
    inside = tuple(end for end in ends if end <= updates)
    restarts = tuple(end for end in inside if end < updates and lr[end] >= lr[end - 1])
    aligned = not ends or updates in ends
    nearest = (*inside[-1:], *(end for end in ends if end > updates))
    allowed = tuple(end for end in nearest if end <= MOST_EPOCHS * updates_per_epoch)
    return LRPlan(lr, updates_per_epoch, restarts, inside, aligned, () if aligned else allowed)


def _check_lr(scheduler: Scheduler, lr: NDArray[np.float64], group: dict[str, Any]) -> None:
    """Raise `ConfigError` for an LR that no optimizer can use, and for a schedule that moves more than the LR."""
    wrong = np.flatnonzero(~(np.isfinite(lr) & (lr >= 0)))
    others = group.keys() & {"momentum", "betas", "eps", "weight_decay"}
    if len(wrong):
        fault = f"the LR of update {wrong[0] + 1} is {lr[wrong[0]]}; must be a number ≥ 0"
    elif others:
        fault = f"sets {', '.join(sorted(others))}; a schedule moves the LR alone"
    elif not lr.any():
        fault = "the LR of all updates is 0; one must be above 0"
    else:
        return
    raise ConfigError(f"{_name(scheduler)}: {fault}")


def _check_repeats(config: Config, lr: NDArray[np.float64], durations: Durations) -> None:
    """Raise `ConfigError` unless the schedule, built once more, gives the same LRs at the beginning."""
    optimizer = _LRHolder(config.optimizer.lr)
    scheduler = build(config, optimizer, durations.updates_per_epoch).scheduler
    for step, then in enumerate(lr[:: durations.updates_per_step][:_REPEATED].tolist()):
        if (now := optimizer.param_groups[0]["lr"]) != then:
            raise ConfigError(
                f"{_name(config.scheduler)}: the LR of step {step + 1} is {then} the first time, then "
                f"{now}; it must follow from the keys and the step alone"
            )
        with _without_training():
            scheduler.step()


def _rising(scheduler: Scheduler, ends: Iterable[int]) -> Iterator[int]:
    """Yield `ends`, which the user's code may give. Raises `ConfigError` unless they are whole, and rise from 1."""
    last = 0
    for end in ends:
        if not isinstance(end, int | np.integer) or end <= last:
            raise ConfigError(
                f"{_name(scheduler)}: cycle_ends gives {end} after {last}; must be rising numbers of updates"
            )
        yield (last := end)


@_without_training()
def _derive_cycle_ends(config: Config, durations: Durations, lr: NDArray[np.float64]) -> list[int]:
    """Return the numbers of updates done at which cycles end, up to the first at or after the budget.

    They are the minima that a rise follows, in the `lr` of the budget and of a longer one. A schedule
    whose LRs depend on the budget, or that does not go on after it, ends its last cycle with the
    budget; so does one whose LR does not change after it. Without a rise there are no cycles.
    """
    updates, per_step = durations.updates, durations.updates_per_step
    steps: list[float] = lr[::per_step].tolist()
    if_last = [min(per_step * end, updates) for end in minima([*steps, math.inf])]
    longer = _longer_lrs(config, durations)
    if any(one != other for one, other in zip_longest(steps, islice(longer, len(steps)))):
        return if_last
    seen: list[float] = []

    def ahead() -> Iterator[float]:
        for after in longer:
            seen.append(after)
            yield after

    ends = _until(updates, (per_step * end for end in minima(chain(steps, ahead()))))
    stays = not seen or max(seen) - min(seen) <= _NOISE * max(steps)
    return if_last if ends and ends[-1] < updates and stays else ends


def _longer_lrs(config: Config, durations: Durations) -> Iterator[float]:
    """Yield the LR of each scheduler step of a longer budget, as many as there are.

    A schedule may be made for one length only, and its code, perhaps the user's, fail on others.
    """
    per_epoch, per_step = durations.updates_per_epoch, durations.updates_per_step
    total = min(_LONGER * durations.total, durations.total + _MOST_STEPS_AHEAD)
    epochs = min(total * per_step / per_epoch, MOST_EPOCHS)
    optimizer = _LRHolder(config.optimizer.lr)
    try:
        longer = replace(config, trainer=replace(config.trainer, epochs=epochs))
        scheduler = build(longer, optimizer, per_epoch).scheduler
        for _ in range(Durations.of(longer, per_epoch).total):
            yield optimizer.param_groups[0]["lr"]
            scheduler.step()
    except Exception:
        return


def minima(lrs: Iterable[float]) -> Iterator[int]:
    """Yield after how many steps the LR has come down to a minimum that is followed by a rise.

    The step at the minimum, of several the last, is counted; but not where the LR turns, rising as it
    fell: so does the half period of `CosineAnnealingLR` count. The rise of a warm-up, which no fall
    precedes, ends no cycle.
    """
    before, now, after, later = tee(lrs, 4)
    next(after, None)
    next(islice(later, 1, None), None)
    windows = zip(chain([math.inf], before), now, after, chain(later, [-math.inf]), strict=False)
    peak = high = low = 0.0
    for step, (last, lr, following, beyond) in enumerate(windows):
        if lr > high:
            high = low = lr
        peak, low = max(peak, lr), min(low, lr)
        noise = _NOISE * peak
        if high - low > noise and following - low > noise:
            turns = abs(following - last) <= noise and following < beyond < math.inf
            yield step if turns else step + 1
            high = low = following


def _until(updates: int, ends: Iterable[int]) -> list[int]:
    """Return all of the rising `ends` up to the first at or after `updates`."""
    found = []
    for end in ends:
        found.append(end)
        if end >= updates:
            break
    return found


def misalignment(plan: LRPlan) -> str | None:
    """Return one line if the budget ends in mid-cycle: the LR's share there, and the nearest budgets."""
    if plan.aligned:
        return None
    fits = " and ".join(shortest(end, plan.updates_per_epoch) for end in plan.nearest_aligned)
    advice = f"the nearest budgets that end a cycle: {fits}" if fits else "lower scheduler.t_max"
    return (
        f"trainer.epochs={decimal(plan.epochs(plan.updates))} ends in mid-cycle, with the LR at "
        f"{plan.share_at_end:.0%} of its peak; {advice}"
    )
