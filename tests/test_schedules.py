"""The LR plan: restarts, cycles, units, and that it can be entered at any update."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import essential, make_config
from hypothesis import assume, given
from hypothesis import strategies as st
from test_schedulers import PEAK, cycles
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR

from harness.choices.schedulers import (
    WSD,
    Constant,
    Cosine,
    CosineWarm,
    Linear,
    MultiStep,
    OneCycle,
    Piecewise,
    Polynomial,
    Step,
)
from harness.config.errors import ConfigError
from harness.config.schema import Config, Scheduler
from harness.training import schedules
from harness.training.schedules import Durations, Schedule


@pytest.fixture(scope="module")
def base() -> Config:
    return make_config()


def with_schedule(base: Config, scheduler: Scheduler, epochs: float) -> Config:
    trainer = dataclasses.replace(base.trainer, epochs=epochs)
    return dataclasses.replace(base, scheduler=scheduler, trainer=trainer)


def attach(config: Config, updates_per_epoch: int) -> tuple[Schedule, Optimizer]:
    """The schedule on an optimizer that has stepped: torch wants that before `advance`."""
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.optimizer.lr)
    schedule = schedules.build(config, optimizer, updates_per_epoch)
    optimizer.step()
    return schedule, optimizer


# --- warm restarts at every boundary -------------------------------------------------------------


@pytest.mark.parametrize("t_mult", essential(range(1, 11), 3))
def test_warm_restarts_are_exact_at_every_restart_up_to_epoch_10000(
    base: Config, t_mult: int
) -> None:
    epochs = 10_000
    for t_0 in range(1, 51):
        scheduler = CosineWarm(
            warmup=0, interval="batch", unit="epoch", t_0=t_0, t_mult=t_mult, eta_min=0
        )
        schedule, optimizer = attach(with_schedule(base, scheduler, epochs), 1)
        group = optimizer.param_groups[0]
        lr = [group["lr"]]
        for updates in range(1, epochs):
            schedule.advance(updates)
            lr.append(group["lr"])

        start, length = np.zeros(epochs, dtype=np.int64), np.zeros(epochs, dtype=np.int64)
        for (begin, cycle), (end, _) in pairwise(cycles(t_0, t_mult)):
            start[begin:end], length[begin:end] = begin, cycle
            if end >= epochs:
                break
        position = np.arange(epochs) - start
        expected = PEAK * (1 + np.cos(np.pi * (position / length))) / 2
        error = np.abs(np.array(lr) - expected)
        assert error.max() <= 1e-12 * PEAK, f"t_0={t_0}, epoch {error.argmax()}"


@pytest.mark.parametrize(
    ("t_0", "t_mult", "epoch"),
    [
        pytest.param(1, 3, 121, id="T_0=1,T_mult=3"),
        pytest.param(2, 3, 242, id="T_0=2,T_mult=3"),
        pytest.param(5, 3, 605, id="T_0=5,T_mult=3"),
        pytest.param(1, 10, 111, id="T_0=1,T_mult=10"),
    ],
)
def test_restarts_that_torch_misses_when_given_the_epoch_are_at_the_peak(
    t_0: int, t_mult: int, epoch: int
) -> None:
    torchs = CosineAnnealingWarmRestarts(
        SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK), t_0, t_mult, eta_min=0.001
    )
    torchs.step(epoch)
    assert torchs.get_last_lr() == [pytest.approx(0.001)]

    plan = schedules.lr_plan(
        make_config(
            f"scheduler.t_0={t_0}",
            f"scheduler.t_mult={t_mult}",
            "scheduler.eta_min=0.001",
            f"trainer.epochs={epoch + 1}",
        ),
        updates_per_epoch=1,
    )
    assert plan.lr[epoch] == pytest.approx(PEAK, rel=1e-12)
    assert plan.lr[epoch - 1] < PEAK
    assert epoch in plan.restarts


# --- cycles and alignment ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "updates_per_epoch", "restarts", "ends", "nearest"),
    [
        pytest.param(
            "scheduler.t_0=5 scheduler.t_mult=2 trainer.epochs=75", 3, [15, 45, 105],
            [15, 45, 105, 225], [], id="cosine_warm: 5, 15, 35, 75, aligned",
        ),
        pytest.param(
            "scheduler.t_0=5 scheduler.t_mult=2 trainer.epochs=50", 3, [15, 45, 105],
            [15, 45, 105], [105, 225], id="cosine_warm: the article's figure ends in mid-cycle",
        ),
        pytest.param(
            "scheduler.t_0=5 scheduler.t_mult=1 trainer.epochs=25", 1, [5, 10, 15, 20],
            [5, 10, 15, 20, 25], [], id="cosine_warm: equal cycles",
        ),
        pytest.param(
            "scheduler.t_0=2 scheduler.t_mult=2 trainer.epochs=20", 5, [10, 30, 70], [10, 30, 70],
            [70, 150], id="cosine_warm: the article's second program restarts at 2, 6, 14",
        ),
        pytest.param(
            "scheduler.t_0=5 scheduler.t_mult=3 trainer.epochs=5", 2, [], [10], [],
            id="cosine_warm: one cycle and no restart",
        ),
        pytest.param(
            "scheduler.t_0=3 scheduler.t_mult=2 scheduler.warmup=2 scheduler.interval=epoch trainer.epochs=11",
            4, [20], [20, 44], [], id="cosine_warm: warmup puts every cycle off",
        ),
        pytest.param(
            "scheduler.t_0=3 scheduler.t_mult=2 scheduler.interval=epoch trainer.epochs=9.5", 4,
            [12, 36], [12, 36], [36, 84], id="cosine_warm: half an epoch too long",
        ),
        pytest.param(
            "scheduler=cosine scheduler.t_max=5 trainer.epochs=25", 2, [], [10, 30, 50], [],
            id="cosine: odd multiples of t_max, aligned",
        ),
        pytest.param(
            "scheduler=cosine scheduler.t_max=5 trainer.epochs=20", 2, [], [10, 30], [30, 50],
            id="cosine: an even multiple of t_max is a peak",
        ),
        pytest.param(
            "scheduler=cosine scheduler.t_max=9 trainer.epochs=5", 2, [], [], [18],
            id="cosine: longer than the budget",
        ),
        pytest.param(
            "scheduler=cosine scheduler.warmup=1 trainer.epochs=5", 2, [], [10], [],
            id="cosine: one single anneal after the warm-up",
        ),
        pytest.param("scheduler=linear trainer.epochs=5", 2, [], [10], [], id="linear"),
        pytest.param("scheduler=wsd trainer.epochs=9", 2, [], [18], [], id="wsd"),
        pytest.param("scheduler=one_cycle trainer.epochs=9", 2, [], [18], [], id="one_cycle"),
        pytest.param("scheduler=constant trainer.epochs=5", 2, [], [], [], id="constant"),
        pytest.param("scheduler=step trainer.epochs=35", 2, [], [], [], id="step"),
        pytest.param("scheduler=multistep trainer.epochs=35", 2, [], [], [], id="multistep"),
    ],
)  # fmt: skip
def test_cycles_restarts_and_the_nearest_aligned_budgets(
    overrides: str, updates_per_epoch: int, restarts: list[int], ends: list[int], nearest: list[int]
) -> None:
    plan = schedules.lr_plan(make_config(*overrides.split()), updates_per_epoch)
    assert list(plan.restarts) == restarts
    assert list(plan.cycle_ends) == ends
    assert list(plan.nearest_aligned) == nearest
    assert plan.aligned == (not nearest)
    assert (schedules.misalignment(plan) is None) == plan.aligned
    for restart in plan.restarts:
        assert plan.lr[restart] == pytest.approx(PEAK, rel=1e-12)
        assert plan.lr[restart - 1] < PEAK


def test_the_articles_budget_of_50_epochs_ends_at_69_percent_of_the_peak() -> None:
    overrides = ("scheduler.t_0=5", "scheduler.t_mult=2", "trainer.epochs=50")
    plan = schedules.lr_plan(make_config(*overrides), updates_per_epoch=200)
    # the last update is number 2999 of the cycle's 8000
    assert plan.share_at_end == pytest.approx((1 + math.cos(math.pi * 2999 / 8000)) / 2, rel=1e-12)
    assert schedules.misalignment(plan) == (
        "trainer.epochs=50 ends in mid-cycle, with the LR at 69% of its peak; "
        "the nearest budgets that end a cycle: 35 and 75"
    )


def test_where_no_budget_ends_a_cycle_t_max_is_to_be_lowered() -> None:
    config = make_config("scheduler=cosine", "scheduler.t_max=2e6", "trainer.epochs=5")
    assert schedules.misalignment(schedules.lr_plan(config, updates_per_epoch=2)) == (
        "trainer.epochs=5 ends in mid-cycle, with the LR at 100% of its peak; lower scheduler.t_max"
    )


@given(st.data())
def test_a_budget_that_a_misalignment_names_ends_the_warning(
    base: Config, data: st.DataObject
) -> None:
    config = with_schedule(base, data.draw(st.composite(any_scheduler)()), epochs=20)
    updates_per_epoch = data.draw(st.integers(1, 7))
    message = schedules.misalignment(schedules.lr_plan(config, updates_per_epoch))
    for budget in re.findall(r"[\d.]+", message.rpartition(":")[2]) if message else []:
        followed = with_schedule(base, config.scheduler, float(budget))
        assert schedules.misalignment(schedules.lr_plan(followed, updates_per_epoch)) is None


@pytest.mark.parametrize("t_0", [7, 12_345])
def test_budgets_that_a_misalignment_names_are_aligned(t_0: int) -> None:
    overrides = ("scheduler.unit=batch", f"scheduler.t_0={t_0}", "scheduler.t_mult=1")
    message = schedules.misalignment(
        schedules.lr_plan(make_config(*overrides, "trainer.epochs=40"), 391)
    )
    assert message is not None
    budgets = re.findall(r"[\d.]+", message.rpartition(":")[2])
    assert len(budgets) == 2
    for budget in budgets:
        assert schedules.lr_plan(make_config(*overrides, f"trainer.epochs={budget}"), 391).aligned


# --- what a schedule does not say is derived from its LRs ---------------------------------------


def underived(scheduler: Scheduler) -> Scheduler:
    """The same schedule, which does not say where its cycles end."""
    silent = type("Silent", (type(scheduler),), {"cycle_ends": lambda self, durations: None})
    values = {f.name: getattr(scheduler, f.name) for f in dataclasses.fields(scheduler)}
    return cast(Scheduler, silent(**values))


def shortest_cycle(config: Config, updates_per_epoch: int) -> int:
    """Scheduler steps in the shortest fall of the LR that the schedule may have."""
    durations = Durations.of(config, updates_per_epoch)
    match config.scheduler:
        case CosineWarm(t_0=length, cycle_warmup=warmup):
            return durations.steps("t_0", length) - durations.steps("cycle_warmup", warmup)
        case Cosine(t_max=float() | int() as length):
            return durations.steps("t_max", length)
        case WSD(cooldown=length):
            return durations.steps("cooldown", length)
    return durations.total - durations.warmup


@given(st.data())
def test_what_is_derived_from_the_lrs_is_what_the_built_in_schedules_say(
    base: Config, data: st.DataObject
) -> None:
    scheduler = data.draw(st.composite(any_scheduler)())
    updates_per_epoch = data.draw(st.integers(1, 7))
    epochs = data.draw(st.integers(20 * updates_per_epoch, 40 * updates_per_epoch))
    config = with_schedule(base, scheduler, epochs / updates_per_epoch)
    # the LR falls in no cycle of one step; equal cycles of two are also CosineAnnealingLR's with t_max=1
    assume(shortest_cycle(config, updates_per_epoch) > 1)
    said = schedules.lr_plan(config, updates_per_epoch)
    derived = schedules.lr_plan(
        dataclasses.replace(config, scheduler=underived(scheduler)), updates_per_epoch
    )
    assert derived.describe() == said.describe()


@given(
    t_0=st.integers(2, 30), t_mult=st.integers(1, 3), warmup=st.integers(0, 5),
    by_epoch=st.booleans(), unit=st.sampled_from(["epoch", "batch"]), more=st.integers(0, 200),
    updates_per_epoch=st.integers(1, 5), eta_min=st.sampled_from([0.0, 0.01]), up_and_down=st.booleans(),
)  # fmt: skip
def test_derived_cycles_of_warm_restarts_and_of_cosines(
    base: Config, t_0: int, t_mult: int, warmup: int, by_epoch: bool, unit: str, more: int,
    updates_per_epoch: int, eta_min: float, up_and_down: bool,
) -> None:  # fmt: skip
    interval = "epoch" if by_epoch else "batch"
    unit = "epoch" if by_epoch else unit
    common: dict[str, Any] = {"warmup": warmup, "interval": interval, "unit": unit, "eta_min": eta_min}  # fmt: skip
    scheduler: Scheduler = CosineWarm(**common, t_0=t_0, t_mult=t_mult)
    if up_and_down:
        scheduler = Cosine(**common, t_max=t_0)
    least = (warmup + t_0) * (updates_per_epoch if unit == "epoch" else 1)
    config = with_schedule(base, scheduler, (least + more) / updates_per_epoch)
    silent = dataclasses.replace(config, scheduler=underived(scheduler))
    derived = schedules.lr_plan(silent, updates_per_epoch)
    said = schedules.lr_plan(config, updates_per_epoch)
    assert derived.describe() == said.describe()


@dataclass
class Shape(Scheduler):
    """A schedule of the user's, which says nothing of cycles: a function of step and number of steps."""

    shape: Any = None

    def build(self, optimizer: Optimizer, durations: Durations) -> LambdaLR:
        return LambdaLR(
            optimizer, lambda step: self.shape(step, durations.total - durations.warmup)
        )


def listed(*shares: float) -> Callable[[int, int], float]:
    """Those LRs, and no further ones but where a scheduler is stepped after the last update."""
    return lambda step, total: [*shares, shares[-1]][step]


def saw(step: int, total: int) -> float:
    return 1 - step % 4 / 4


SHAPES: dict[str, tuple[Callable[[int, int], float], int, list[int], list[int], list[int]]] = {
    # shape, budget; restarts, cycle ends, nearest aligned budgets, for 1 update an epoch
    "equal cycles": (saw, 12, [4, 8], [4, 8, 12], []),
    "equal cycles, one cut off": (saw, 10, [4, 8], [4, 8], [8, 12]),
    "less than the first cycle": (saw, 3, [], [], [4]),
    "decayed peaks": (
        lambda step, total: saw(step, 0) * 0.3 ** (step // 4), 14, [4, 8, 12], [4, 8, 12], [12, 16],
    ),
    "peaks that grow": (lambda step, total: saw(step, 0) * (1 + step // 4), 9, [4, 8], [4, 8], [8, 12]),
    "a minimum that is held": (
        lambda step, total: max(0.5, saw(step, 0)), 9, [4, 8], [4, 8], [8, 12],
    ),
    "a rise of several steps": (
        lambda step, total: [0.4, 0.7, 1, 0.5, 0.2, 0.1][step % 6], 12, [6], [6, 12], [],
    ),
    "a line down and up": (lambda step, total: abs(5 - step % 10) / 5, 20, [], [5, 15], [15, 25]),
    "slowly up": (
        lambda step, total: [1, 0.5, 0, 0.25, 0.5, 0.75][step % 6], 11, [3, 9], [3, 9], [9, 15],
    ),
    "a warm-up of its own": (lambda step, total: min(1, (step + 1) / 5), 20, [], [], []),
    "a fall without a rise": (lambda step, total: 1 / (1 + step), 20, [], [], []),
    "a constant with rounding": (lambda step, total: 1 + step % 2 * 1e-15, 20, [], [], []),
    "a minimum with rounding": (
        lambda step, total: saw(step, 0) if step % 4 < 2 else 0.3 + step % 2 * 1e-15, 8, [4], [4, 8], [],
    ),
    "shares of the budget": (lambda step, total: 1 - step / total, 20, [], [20], []),
    "three cycles, whatever the budget": (
        lambda step, total: 1 - step % (total / 3) / (total / 3), 12, [4, 8], [4, 8, 12], [],
    ),
    "a rise over the budget": (lambda step, total: (step + 1) / total, 20, [], [], []),
    "of one length, at its minimum": (listed(1, 0.5, 1, 0.5, 0.2), 5, [2], [2, 5], []),
    "of one length, not at its minimum": (listed(1, 0.5, 1, 0.5, 0.6), 5, [2, 4], [2, 4], [4]),
    "cycles, then the minimum for good": (
        lambda step, total: saw(step, 0) if step < 8 else 0.1, 10, [4], [4, 10], [],
    ),
    "a last fall to what the LR stays at": (
        lambda step, total: saw(step, 0) if step < 7 else 0.1, 7, [4], [4, 7], [],
    ),
    "cycles, then the peak for good": (
        lambda step, total: saw(step, 0) if step < 8 else 1, 10, [4, 8], [4, 8], [8],
    ),
    "a first cycle of more than four budgets": (
        lambda step, total: 1 - step % 50 / 50, 10, [], [], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("shape", "epochs", "restarts", "ends", "nearest"), SHAPES.values(), ids=SHAPES)  # fmt: skip
def test_cycles_are_derived_from_the_lrs(
    base: Config,
    shape: Callable[[int, int], float],
    epochs: int,
    restarts: list[int],
    ends: list[int],
    nearest: list[int],
) -> None:
    for warmup, interval, per_epoch in ((0, "batch", 1), (0, "epoch", 3), (2, "batch", 1)):
        if warmup and shape(0, epochs) < 1:
            continue  # the LR then falls where warm-up ends
        scheduler = Shape(warmup=warmup, interval=interval, unit="epoch", shape=shape)
        config = with_schedule(base, scheduler, warmup + epochs)
        plan = schedules.lr_plan(config, per_epoch)
        for found, expected in (
            (plan.restarts, restarts),
            (plan.cycle_ends, ends),
            (plan.nearest_aligned, nearest),
        ):
            assert list(found) == [(warmup + step) * per_epoch for step in expected]
        assert plan.aligned == (not nearest)
        assert (schedules.misalignment(plan) is None) == plan.aligned


def test_half_an_epoch_ends_the_last_cycle_of_a_schedule_that_depends_on_the_budget(
    base: Config,
) -> None:
    scheduler = Shape(
        warmup=0, interval="epoch", unit="epoch", shape=lambda step, total: 1 - step / total
    )
    plan = schedules.lr_plan(with_schedule(base, scheduler, 9.5), 4)
    assert (plan.cycle_ends, plan.aligned) == ((38,), True)


@pytest.mark.parametrize(("ahead", "most"), [(10_000, 400), (50, 150)])
def test_deriving_takes_a_limited_number_of_steps(
    base: Config, monkeypatch: pytest.MonkeyPatch, ahead: int, most: int
) -> None:
    monkeypatch.setattr(schedules, "_MOST_STEPS_AHEAD", ahead)
    steps = []

    def counted(step: int, total: int) -> float:
        steps.append(step)
        return 1.0

    scheduler = Shape(warmup=0, interval="epoch", unit="epoch", shape=counted)
    schedules.lr_plan(with_schedule(base, scheduler, 100), 1)
    assert max(steps) == most


# --- units ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "per_unit", "steps"),
    [
        pytest.param(5, 200, 1000, id="whole epochs"),
        pytest.param(2.5, 4, 10, id="half an epoch"),
        pytest.param(2.33333, 3, 7, id="thirds, as people write them"),
        pytest.param(0.1, 30, 3, id="tenths, which floats do not hold"),
        pytest.param(1 / 391, 391, 1, id="one update"),
        pytest.param(0, 391, 0, id="nothing"),
        pytest.param(300, 5005, 1_501_500, id="ImageNet"),
    ],
)
def test_whole_durations_become_steps(value: float, per_unit: int, steps: int) -> None:
    assert schedules.to_updates("key", value, per_unit) == steps


@pytest.mark.parametrize(
    ("steps", "per_unit", "text"),
    [(10, 1, "10"), (20, 1, "20"), (100, 10, "10"), (1_000_000, 1, "1000000"), (7, 3, "2.33333"), (5, 4, "1.25"),
     (1, 391, "0.0025575"), (12_345_679, 10, "1234567.9")],
)  # fmt: skip
def test_numbers_of_epochs_are_written_out(steps: int, per_unit: int, text: str) -> None:
    assert schedules.shortest(steps, per_unit) == text


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["trainer.epochs=15.5", "scheduler.interval=epoch", "scheduler.t_0=15.5"], "scheduler.t_0=15.5: is not a whole number of epochs, which scheduler.interval=epoch needs; the nearest are 15 and 16"),
        (["trainer.epochs=1234567", "scheduler.t_0=1"], "trainer.epochs=1234567: must be a number > 0 and ≤ 1000000"),
        (["trainer.epochs=1234.56789"], "trainer.epochs=1234.56789: is not a whole number of updates at 4 an epoch; the nearest are 1234.5 (4938 updates) and 1234.75 (4939 updates)"),
        (["scheduler.t_0=123456.75"], "scheduler.t_0=123456.75: does not fit into the budget, trainer.epochs=35; lower scheduler.t_0, or raise trainer.epochs"),
        (["optimizer.lr=0.00001234567", "scheduler.eta_min=0.1"], "scheduler.eta_min=0.1: must be below the peak, optimizer.lr=1.234567e-05"),
    ],
)  # fmt: skip
def test_a_refusal_shows_numbers_as_they_were_given(overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        schedules.lr_plan(make_config(*overrides), 4)
    assert str(error.value) == line


@given(st.floats(0.001, 1000), st.integers(2, 10_000))
def test_the_nearest_values_that_a_refusal_names_are_accepted(value: float, per_unit: int) -> None:
    try:
        schedules.to_updates("key", value, per_unit)
    except ConfigError as error:
        named = re.findall(r"([\d.e+-]+) \((\d+) updates?\)", str(error))
        assert named
        for fit, steps in named:
            assert schedules.to_updates("key", float(fit), per_unit) == int(steps)
            assert abs(int(steps) - value * per_unit) < 1


# --- fast forward --------------------------------------------------------------------------------


def any_scheduler(draw: st.DrawFn) -> Scheduler:
    """A schedule that fits into 20 epochs."""
    interval = draw(st.sampled_from(["batch", "epoch"]))
    unit = draw(st.sampled_from(["epoch", "batch"])) if interval == "batch" else "epoch"
    common: dict[str, Any] = {"interval": interval, "unit": unit, "warmup": draw(st.integers(0, 6))}
    length = draw(st.integers(1, 12))
    eta_min = draw(st.sampled_from([0.0, 0.03]))
    gamma = draw(st.sampled_from([0.1, 0.5]))
    return draw(
        st.sampled_from(
            [
                Cosine(**common, t_max=length, eta_min=eta_min),
                Cosine(**common, t_max=None, eta_min=eta_min),
                CosineWarm(**common, t_0=length, t_mult=draw(st.integers(1, 3)), eta_min=eta_min),
                CosineWarm(
                    **common, t_0=length, t_mult=draw(st.integers(1, 3)), eta_min=0, decay=0.7
                ),
                CosineWarm(
                    **common | {"warmup": 0}, t_0=length + 4, t_mult=2, eta_min=0, cycle_warmup=2
                ),
                Step(**common, step_size=length, gamma=gamma),
                MultiStep(**common, milestones=[length, length + 3], gamma=gamma),
                Linear(**common),
                Constant(**common),
                Polynomial(**common, power=draw(st.sampled_from([0.5, 2.0]))),
                WSD(**common, cooldown=length, shape=draw(st.sampled_from(["1-sqrt", "cosine"]))),
                Piecewise(**common, points=["0:0.5", f"{length}:1", f"{length + 1}:0.2"]),
                OneCycle(
                    **common | {"warmup": 0}, pct_start=0.3, div_factor=25, final_div_factor=1e4
                ),
            ]
        )
    )


@given(st.data())
def test_fast_forward_is_that_many_advances(base: Config, data: st.DataObject) -> None:
    config = with_schedule(base, data.draw(st.composite(any_scheduler)()), epochs=20)
    updates_per_epoch = data.draw(st.integers(1, 4))
    updates = data.draw(st.integers(0, 20 * updates_per_epoch - 1))
    stepped, one = attach(config, updates_per_epoch)
    jumped, other = attach(config, updates_per_epoch)
    for done in range(1, updates + 1):
        stepped.advance(done)
    jumped.fast_forward(updates)
    plan = schedules.lr_plan(config, updates_per_epoch)
    for done in range(updates, plan.updates):
        used = one.param_groups[0]["lr"], other.param_groups[0]["lr"]
        assert used == (plan.lr[done], plan.lr[done])
        stepped.advance(done + 1)
        jumped.advance(done + 1)
