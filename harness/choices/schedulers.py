"""The schedules to choose from. To add one: a class here, its line in `builtin.py`, a file in `conf/scheduler/`."""

from __future__ import annotations

import hashlib
import math
import operator
import os
from bisect import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from harness import files
from harness.config.errors import ConfigError
from harness.config.fields import choice, duration, newer, number, show
from harness.config.schema import Scheduler

if TYPE_CHECKING:
    from torch import optim
    from torch.optim.lr_scheduler import LRScheduler

    from harness.training.schedules import Durations

_MOST_BYTES_OF_LIST = 2**26  # some million values


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

    t_0: float = duration(above=0)
    t_mult: int = number(at_least=1, at_most=1e6)
    eta_min: float = number(at_least=0)
    decay: float = newer(1.0, number(above=0, at_most=1))  # of the peak, from cycle to cycle
    cycle_warmup: float = newer(0.0, duration(at_least=0))  # the rise that begins each cycle

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup and self.cycle_warmup:
            raise ConfigError(
                f"scheduler.warmup={show(self.warmup)}: the first cycle too begins with "
                f"scheduler.cycle_warmup={show(self.cycle_warmup)}; leave one of them 0"
            )

    def build(self, optimizer: optim.Optimizer, durations: Durations) -> LRScheduler:
        from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR

        first = durations.steps("t_0", self.t_0)
        if self.decay == 1 and self.cycle_warmup == 0:
            return CosineAnnealingWarmRestarts(optimizer, first, self.t_mult, self.eta_min)
        warmup = durations.steps("cycle_warmup", self.cycle_warmup)
        lowest = self.eta_min / durations.peak_lr
        cycle = partial(_cycle, first, self.t_mult)
        return LambdaLR(optimizer, partial(_warm_restarts, cycle, self.decay, warmup, lowest))

    def check(self, durations: Durations) -> None:
        durations.check_minimum("eta_min", self.eta_min)
        durations.check_fits("t_0", self.t_0)
        first = durations.steps("t_0", self.t_0)
        if durations.steps("cycle_warmup", self.cycle_warmup) >= first:
            raise ConfigError(
                f"scheduler.cycle_warmup={show(self.cycle_warmup)}: must be shorter than the first "
                f"cycle, scheduler.t_0={show(self.t_0)}"
            )
        number, *_ = _cycle(first, self.t_mult, durations.total - durations.warmup - 1)
        peak = durations.peak_lr * self.decay**number
        if peak <= self.eta_min:
            raise ConfigError(
                f"scheduler.decay={show(self.decay)}: leaves cycle {number + 1} a peak of {show(peak)}, "
                f"which must be above scheduler.eta_min={show(self.eta_min)}; raise scheduler.decay"
            )

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

    def cycle_ends(self, durations: Durations) -> Iterable[int]:
        return ()


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

    def cycle_ends(self, durations: Durations) -> Iterable[int]:
        return ()


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

    def cycle_ends(self, durations: Durations) -> Iterable[int]:
        return ()


@dataclass
class Polynomial(Scheduler):
    """From the peak to zero at the end of the budget, as a power of what is left of it."""

    power: float = number(above=0, at_most=1e3)  # 1: linear; 2: falls faster at first

    def build(self, optimizer: optim.Optimizer, durations: Durations) -> LRScheduler:
        from torch.optim.lr_scheduler import LambdaLR

        total = durations.total - durations.warmup
        return LambdaLR(optimizer, partial(_polynomial, total, self.power))

    def cycle_ends(self, durations: Durations) -> Iterable[int]:
        return [durations.updates]


@dataclass
class WSD(Scheduler):
    """Constant, then a cooldown to zero (Hägele et al. 2024, arXiv 2405.18392)."""

    cooldown: float = duration(above=0)  # the length of the cooldown that ends the budget
    shape: str = newer("linear", choice("linear", "1-sqrt", "cosine"))  # of the cooldown

    def build(self, optimizer: optim.Optimizer, durations: Durations) -> LRScheduler:
        from torch.optim.lr_scheduler import LambdaLR

        total = durations.total - durations.warmup
        length = durations.steps("cooldown", self.cooldown)
        return LambdaLR(optimizer, partial(_cooldown, total, length, shape=self.shape))

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


@dataclass
class Piecewise(Scheduler):
    """Straight lines between points `epoch:share` (with `unit: batch` `update:share`) of the peak."""

    points: list[str] = MISSING  # the first at 0; the LR stays what it is at the last

    def __post_init__(self) -> None:
        super().__post_init__()
        given = f"scheduler.points={show(self.points)}"
        places = [place for place, _ in self._points()]
        rising = all(low <= high <= 1e9 for low, high in pairwise(places))
        if len(places) < 2 or places[0] != 0 or not rising:
            raise ConfigError(f"{given}: must be two or more, rising from 0, as in [0:1,30:0]")
        for place in places:
            if places.count(place) > 2:
                raise ConfigError(f"{given}: has three points at {show(place)}; a jump takes two")
        _check_shares(given, [share for _, share in self._points()])

    def _points(self) -> list[tuple[float, float]]:
        """Return place and share of each point. Raises `ConfigError` for one that cannot be read."""
        points = []
        for point in self.points:
            place, _, share = point.partition(":")
            try:
                points.append((float(place), float(share)))
            except ValueError:
                raise ConfigError(
                    f"scheduler.points={point}: must be epoch:share, as in [0:1,30:0]; in a file in "
                    'quotes, ["0:1", "30:0"]'
                ) from None
        return points

    def build(self, optimizer: optim.Optimizer, durations: Durations) -> LRScheduler:
        from torch.optim.lr_scheduler import LambdaLR

        places = [durations.steps("points", place) for place, _ in self._points()]
        shares = [share for _, share in self._points()]
        return LambdaLR(optimizer, partial(_interpolate, places, shares))

    def check(self, durations: Durations) -> None:
        durations.check_fits("points", self._points()[-1][0], "the last point")


@dataclass
class LRList(Scheduler):
    """A share of the peak for each epoch, or with `interval: batch` for each update, after warm-up."""

    values: list[float] | None = number(at_least=0, at_most=1)
    file: str | None = MISSING  # in place of `values`: numbers, with spaces, commas or new lines
    sha256: str | None = MISSING  # of the file; null: of what it holds now

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.values is None) == (self.file is None):
            raise ConfigError(
                "scheduler.values: a list of shares of the peak, or scheduler.file=PATH; give one of them"
            )
        if self.values is not None:
            _check_shares(f"scheduler.values={show(self.values)}", self.values)
        elif self.file is not None:
            self.file = os.path.abspath(self.file)  # it is recorded, and read from other folders
            self.sha256 = self.sha256 or hashlib.sha256(self._content()).hexdigest()

    def build(self, optimizer: optim.Optimizer, durations: Durations) -> LRScheduler:
        from torch.optim.lr_scheduler import LambdaLR

        return LambdaLR(optimizer, partial(_value, self._shares()))

    def check(self, durations: Durations) -> None:
        given, needed = len(self._shares()), durations.total - durations.warmup
        if given != needed:
            key = "values" if self.file is None else f"file={self.file}"
            each = "epoch" if durations.config.interval == "epoch" else "update"
            after = f" after scheduler.warmup={show(self.warmup)}" if self.warmup else ""
            raise ConfigError(
                f"scheduler.{key}: has {given} values; {durations.budget} takes {needed}{after}, one an {each}"
            )

    def _content(self) -> bytes:
        try:
            return files.read(Path(str(self.file)), _MOST_BYTES_OF_LIST)
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"scheduler.file={self.file}: cannot be read: {reason}") from None

    def _shares(self) -> list[float]:
        """Return the values, those of the file as it was. Raises `ConfigError` for a file that is another one."""
        if self.values is not None:
            return self.values
        content, given = self._content(), f"scheduler.file={self.file}"
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ConfigError(f"{given}: holds other values than when the run was planned")
        try:
            shares = [float(word) for word in content.decode().replace(",", " ").split()]
        except ValueError as error:
            raise ConfigError(f"{given}: must hold numbers only; {error}") from None
        _check_shares(given, shares)
        return shares


def _check_shares(given: str, shares: Sequence[float]) -> None:
    """Raise `ConfigError` unless `shares` of the peak lie between 0 and 1, which is among them."""
    largest = max(shares, default=0.0)
    if not all(0 <= share < math.inf for share in shares) or largest == 0:
        raise ConfigError(f"{given}: must be numbers from 0 to 1, shares of the peak")
    if largest != 1:
        raise ConfigError(
            f"{given}: are shares of the peak, of which the largest is 1, not {show(largest)}; for LRs "
            f"divide them by {show(largest)} and give optimizer.lr={show(largest)}"
        )


def _constant(step: int) -> float:
    return 1.0


def _cooldown(total: int, length: int, step: int, shape: str = "linear") -> float:
    """Return 1 until `length` steps before `total`, then what falls to 0 at `total`."""
    left = min(1.0, max(0, total - step) / length)
    match shape:
        case "1-sqrt":
            return 1 - math.sqrt(1 - left)
        case "cosine":
            return (1 - math.cos(math.pi * left)) / 2
    return left


def _polynomial(total: int, power: float, step: int) -> float:
    return math.pow(max(0, total - step) / total, power)


def _cycle(first: int, t_mult: int, step: int) -> tuple[int, int, int]:
    """Return the number (from 0), the first step and the length of the cycle that `step` is in."""
    if t_mult == 1:
        return step // first, step - step % first, first
    number, start, length = 0, 0, first
    while step >= start + length:
        number, start, length = number + 1, start + length, length * t_mult
    return number, start, length


def _warm_restarts(
    cycle: Callable[[int], tuple[int, int, int]],
    decay: float,
    warmup: int,
    lowest: float,
    step: int,
) -> float:
    """Return the LR of warm restarts, as `lowest`, in shares of the first peak.

    In each cycle a line rises for `warmup` steps to its peak, which the next step has, and half a
    cosine falls for the rest. Without warm-up it is timm's `CosineLRScheduler` with `cycle_decay`.
    """
    number, start, length = cycle(step)
    position = step - start
    if position < warmup:
        share = (position + 1) / (warmup + 1)
    else:
        share = (1 + math.cos(math.pi * (position - warmup) / (length - warmup))) / 2
    return lowest + (decay**number - lowest) * share


def _interpolate(places: Sequence[int], shares: Sequence[float], step: int) -> float:
    """Return the share at `step` on straight lines; of two points at one place the second counts."""
    after = bisect(places, step)
    if after == len(places):
        return shares[-1]
    (start, end), (low, high) = places[after - 1 : after + 1], shares[after - 1 : after + 1]
    return low + (high - low) * (step - start) / (end - start)


def _value(values: Sequence[float], step: int) -> float:
    return values[min(step, len(values) - 1)]  # a scheduler is stepped once after the last update
