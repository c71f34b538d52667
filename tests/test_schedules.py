"""The LR plan against closed forms, in which every position in a cycle is an integer."""

from __future__ import annotations

import dataclasses
import math
import re
from bisect import bisect
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import make_config
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from harness.choices.schedulers import (
    WSD,
    Constant,
    Cosine,
    CosineWarm,
    Linear,
    MultiStep,
    OneCycle,
    Step,
)
from harness.config.errors import ConfigError
from harness.config.schema import Config, Scheduler
from harness.training import schedules
from harness.training.schedules import Schedule

PEAK = 0.1  # optimizer.lr of conf/optimizer/sgd.yaml
LR = Callable[[int], float]  # scheduler step → LR


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


# --- the closed forms ----------------------------------------------------------------------------


def cosine(t_max: int, eta_min: float = 0.0) -> LR:
    def lr(step: int) -> float:
        return (
            eta_min + (PEAK - eta_min) * (1 + math.cos(math.pi * (step % (2 * t_max)) / t_max)) / 2
        )

    return lr


def cycles(t_0: int, t_mult: int) -> Iterator[tuple[int, int]]:
    """(first step, length) of each cycle of warm restarts."""
    start, length = 0, t_0
    while True:
        yield start, length
        start, length = start + length, length * t_mult


def cosine_warm(t_0: int, t_mult: int, eta_min: float = 0.0) -> LR:
    def lr(step: int) -> float:
        start, length = next((s, n) for s, n in cycles(t_0, t_mult) if step < s + n)
        return cosine(length, eta_min)(step - start)

    return lr


def decay(*milestones: int, gamma: float) -> LR:
    return lambda step: PEAK * gamma ** bisect(milestones, step)


def line_to_zero(total: int, length: int) -> LR:
    """Constant, and over the last `length` of `total` steps down to zero."""
    return lambda step: PEAK * min(1, (total - step) / length)


def one_cycle(total: int, pct_start: float, div: float, final_div: float) -> LR:
    top, last = pct_start * total - 1, total - 1
    low, lowest = PEAK / div, PEAK / div / final_div

    def blend(start: float, end: float, share: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

    def lr(step: int) -> float:
        if step <= top:
            return blend(low, PEAK, step / top)
        return blend(PEAK, lowest, (step - top) / (last - top))

    return lr


def warmed(warmup: int, then: LR) -> LR:
    return lambda step: PEAK * (step + 1) / (warmup + 1) if step < warmup else then(step - warmup)


def held(updates: int, then: LR) -> LR:
    return lambda update: then(update // updates)


# --- warm restarts at every boundary -------------------------------------------------------------


@pytest.mark.parametrize("t_mult", range(1, 11))
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


# --- whole plans ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "updates_per_epoch", "updates", "expected"),
    [
        pytest.param(
            "scheduler=cosine scheduler.t_max=5 trainer.epochs=50", 200, 10_000, cosine(1000),
            id="cosine: the article's first program, by its comments",
        ),
        pytest.param(
            "scheduler=cosine scheduler.t_max=5 scheduler.unit=batch trainer.epochs=50", 200, 10_000,
            cosine(5), id="cosine: the article's first program, by its code",
        ),
        pytest.param(
            "scheduler=cosine trainer.epochs=7", 3, 21, cosine(21), id="cosine: one single anneal",
        ),
        pytest.param(
            "scheduler=cosine scheduler.warmup=2 trainer.epochs=7", 3, 21, warmed(6, cosine(15)),
            id="cosine: one single anneal after the warm-up",
        ),
        pytest.param(
            "scheduler=cosine scheduler.warmup=5 scheduler.unit=batch trainer.epochs=7", 3, 21,
            warmed(5, cosine(16)), id="cosine: one single anneal, warm-up in batches",
        ),
        pytest.param(
            "scheduler=cosine scheduler.interval=epoch scheduler.warmup=2 trainer.epochs=6.5", 4, 26,
            held(4, warmed(2, cosine(5))), id="cosine: one single anneal by epoch, half an epoch at the end",
        ),
        pytest.param(
            "scheduler=cosine scheduler.t_max=2.5 scheduler.eta_min=0.01 scheduler.warmup=1.5 trainer.epochs=11",
            4, 44, warmed(6, cosine(10, 0.01)), id="cosine: fractions, warmup, eta_min",
        ),
        pytest.param(
            "scheduler=cosine scheduler.t_max=3 scheduler.interval=epoch trainer.epochs=9.5", 4, 38,
            held(4, cosine(3)), id="cosine: by epoch, half an epoch at the end",
        ),
        pytest.param(
            "scheduler.t_0=5 scheduler.t_mult=1 trainer.epochs=50", 200, 10_000, cosine_warm(1000, 1),
            id="cosine_warm: the article's first program, by its comments",
        ),
        pytest.param(
            "scheduler.t_0=5 scheduler.t_mult=1 scheduler.unit=batch trainer.epochs=50", 200, 10_000,
            cosine_warm(5, 1), id="cosine_warm: the article's first program, by its code",
        ),
        pytest.param(
            "scheduler.t_0=2 scheduler.t_mult=2 trainer.epochs=20", 5, 100, cosine_warm(10, 2),
            id="cosine_warm: the article's second program",
        ),
        pytest.param(
            "scheduler.t_0=0.2 scheduler.t_mult=3 scheduler.eta_min=0.05 scheduler.warmup=2 trainer.epochs=12.4",
            5, 62, warmed(10, cosine_warm(1, 3, 0.05)), id="cosine_warm: first cycle of one update, warmup",
        ),
        pytest.param(
            "scheduler.t_0=3 scheduler.t_mult=2 scheduler.interval=epoch scheduler.warmup=2 trainer.epochs=30",
            7, 210, held(7, warmed(2, cosine_warm(3, 2))), id="cosine_warm: by epoch, warmup",
        ),
        pytest.param(
            "scheduler.t_0=9 scheduler.unit=batch scheduler.warmup=4 trainer.epochs=10", 4, 40,
            warmed(4, cosine_warm(9, 2)), id="cosine_warm: by batch, warmup in batches",
        ),
        pytest.param(
            "scheduler=step scheduler.step_size=1.5 scheduler.gamma=0.5 trainer.epochs=8", 2, 16,
            decay(3, 6, 9, 12, 15, gamma=0.5), id="step: every one and a half epochs",
        ),
        pytest.param(
            "scheduler=step scheduler.step_size=2 scheduler.interval=epoch scheduler.warmup=1 trainer.epochs=6",
            3, 18, held(3, warmed(1, decay(2, 4, gamma=0.1))), id="step: by epoch, warmup",
        ),
        pytest.param(
            "scheduler=multistep trainer.epochs=35", 3, 105, decay(45, 75, gamma=0.1),
            id="multistep: defaults",
        ),
        pytest.param(
            "scheduler=multistep scheduler.milestones=[1,2.5] scheduler.gamma=0.5 scheduler.warmup=1 trainer.epochs=5",
            4, 20, warmed(4, decay(4, 10, gamma=0.5)), id="multistep: milestones count from the end of warmup",
        ),
        pytest.param(
            "scheduler=linear trainer.epochs=6", 7, 42, line_to_zero(42, 42), id="linear",
        ),
        pytest.param(
            "scheduler=linear scheduler.warmup=2 scheduler.interval=epoch trainer.epochs=6", 7, 42,
            held(7, warmed(2, line_to_zero(4, 4))), id="linear: by epoch, warmup",
        ),
        pytest.param(
            "scheduler=linear scheduler.interval=epoch trainer.epochs=6.5", 4, 26,
            held(4, line_to_zero(7, 7)), id="linear: by epoch, half an epoch at the end",
        ),
        pytest.param("scheduler=constant trainer.epochs=3", 5, 15, lambda step: PEAK, id="constant"),
        pytest.param(
            "scheduler=constant scheduler.warmup=2 trainer.epochs=3", 5, 15,
            warmed(10, lambda step: PEAK), id="constant: warmup",
        ),
        pytest.param(
            "scheduler=wsd scheduler.cooldown=1.5 scheduler.warmup=0.5 trainer.epochs=5", 4, 20,
            warmed(2, line_to_zero(18, 6)), id="wsd: warmup, stable, cooldown",
        ),
        pytest.param(
            "scheduler=wsd scheduler.cooldown=9 scheduler.unit=batch trainer.epochs=5", 4, 20,
            line_to_zero(20, 9), id="wsd: cooldown in batches",
        ),
        pytest.param(
            "scheduler=wsd scheduler.cooldown=3 scheduler.interval=epoch scheduler.warmup=1 trainer.epochs=6.5",
            4, 26, held(4, warmed(1, line_to_zero(6, 3))), id="wsd: by epoch, half an epoch at the end",
        ),
        pytest.param(
            "scheduler=one_cycle trainer.epochs=20", 5, 100, one_cycle(100, 0.3, 25, 1e4),
            id="one_cycle: defaults",
        ),
        pytest.param(
            "scheduler=one_cycle scheduler.pct_start=0.45 scheduler.div_factor=10 scheduler.interval=epoch trainer.epochs=20",
            5, 100, held(5, one_cycle(20, 0.45, 10, 1e4)), id="one_cycle: by epoch",
        ),
        pytest.param(
            "scheduler=one_cycle scheduler.interval=epoch trainer.epochs=9.5", 4, 38,
            held(4, one_cycle(10, 0.3, 25, 1e4)), id="one_cycle: by epoch, half an epoch at the end",
        ),
    ],
)  # fmt: skip
def test_a_plan_is_its_closed_form(
    overrides: str, updates_per_epoch: int, updates: int, expected: LR
) -> None:
    plan = schedules.lr_plan(make_config(*overrides.split()), updates_per_epoch)
    assert plan.updates == updates
    assert plan.lr.dtype == np.float64
    closed_form = [expected(update) for update in range(updates)]
    # CosineAnnealingLR multiplies from step to step: over many periods its roundings add up
    tolerance = 1e-11 if "scheduler=cosine " in overrides else 1e-12
    np.testing.assert_allclose(plan.lr, closed_form, rtol=0, atol=tolerance * PEAK)


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
    ("overrides", "message"),
    [
        pytest.param(
            "scheduler.t_0=2.3",
            "scheduler.t_0=2.3: is not a whole number of updates at 4 an epoch; "
            "the nearest are 2.25 (9 updates) and 2.5 (10 updates)",
            id="t_0 between two updates",
        ),
        pytest.param(
            "trainer.epochs=35.1",
            "trainer.epochs=35.1: is not a whole number of updates at 4 an epoch; "
            "the nearest are 35 (140 updates) and 35.25 (141 updates)",
            id="budget between two updates",
        ),
        pytest.param(
            "scheduler=multistep scheduler.milestones=[10,20.9]",
            "scheduler.milestones=20.9: is not a whole number of updates at 4 an epoch; "
            "the nearest are 20.75 (83 updates) and 21 (84 updates)",
            id="milestone between two updates",
        ),
        pytest.param(
            "scheduler.interval=epoch scheduler.t_0=2.5",
            "scheduler.t_0=2.5: is not a whole number of epochs, which scheduler.interval=epoch needs; "
            "the nearest are 2 and 3",
            id="half an epoch, by epoch",
        ),
        pytest.param(
            "scheduler.unit=batch scheduler.t_0=2.5",
            "scheduler.t_0=2.5: is not a whole number of updates, which scheduler.unit=batch counts; "
            "the nearest are 2 and 3",
            id="half a batch",
        ),
        pytest.param(
            "scheduler.t_0=0.00001",
            "scheduler.t_0=1e-05: is too short; the least is 0.25",
            id="less than an update",
        ),
        pytest.param(
            "scheduler.warmup=35",
            "scheduler.warmup=35: must be shorter than the budget, trainer.epochs=35",
            id="nothing but warmup",
        ),
        pytest.param(
            "scheduler.t_0=36",
            "scheduler.t_0=36: does not fit into the budget, trainer.epochs=35",
            id="t_0 longer than the budget",
        ),
        pytest.param(
            "scheduler.t_0=34 scheduler.warmup=2",
            "scheduler.t_0=34: does not fit into the budget, trainer.epochs=35 with scheduler.warmup=2",
            id="t_0 longer than warmup leaves",
        ),
        pytest.param(
            "scheduler.t_0=30 scheduler.warmup=120 scheduler.unit=batch",
            "scheduler.t_0=30: does not fit into the budget, trainer.epochs=35 (140 updates) with scheduler.warmup=120",
            id="t_0 in updates",
        ),
        pytest.param(
            "scheduler=one_cycle trainer.epochs=1 scheduler.interval=epoch",
            "trainer.epochs=1: one_cycle cannot rise and fall in one step of the scheduler; raise trainer.epochs",
            id="one_cycle of one step",
        ),
        pytest.param(
            "scheduler=wsd scheduler.cooldown=35.25",
            "scheduler.cooldown=35.25: does not fit into the budget, trainer.epochs=35",
            id="cooldown longer than the budget",
        ),
        pytest.param(
            "scheduler.eta_min=0.1",
            "scheduler.eta_min=0.1: must be below the peak, optimizer.lr=0.1",
            id="eta_min at the peak",
        ),
        pytest.param(
            "scheduler=cosine scheduler.eta_min=0.5 optimizer.lr=0.25",
            "scheduler.eta_min=0.5: must be below the peak, optimizer.lr=0.25",
            id="eta_min above the peak",
        ),
    ],
)  # fmt: skip
def test_a_schedule_that_does_not_fit_is_refused_with_the_mend(
    overrides: str, message: str
) -> None:
    config = make_config(*overrides.split())
    with pytest.raises(ConfigError) as error:
        schedules.lr_plan(config, updates_per_epoch=4)
    assert str(error.value) == message


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


@pytest.mark.parametrize(
    ("total", "pct_start", "refused"),
    [
        pytest.param(1, 0.3, "^trainer.epochs=1: ", id="one update"),
        pytest.param(2, 0.3, "must be above 1 / 2 here$", id="no time to rise"),
        pytest.param(2, 0.5, "must be above 1 / 2 here$", id="just no time to rise"),
        pytest.param(2, 0.51, None, id="just time to rise"),
        pytest.param(10, 0.1, "must be above 1 / 10 here$", id="a rise of one update"),
        pytest.param(10, 0.11, None, id="a rise of a little more than one update"),
        pytest.param(30, 0.9, None, id="hardly a fall"),
        pytest.param(30, 0.99, None, id="a fall within one update"),
    ],
)
def test_one_cycle_has_a_plan_or_a_refusal_for_every_length(
    total: int, pct_start: float, refused: str | None
) -> None:
    config = make_config(
        "scheduler=one_cycle", f"scheduler.pct_start={pct_start}", f"trainer.epochs={total}"
    )
    if refused:
        with pytest.raises(ConfigError, match=refused):
            schedules.lr_plan(config, updates_per_epoch=1)
        return
    lr = schedules.lr_plan(config, updates_per_epoch=1).lr
    closed_form = one_cycle(total, pct_start, 25, 1e4)
    np.testing.assert_allclose(lr, [closed_form(update) for update in range(total)], rtol=1e-12)


# --- fast forward --------------------------------------------------------------------------------


def any_scheduler(draw: st.DrawFn) -> Scheduler:
    """A schedule that fits into 20 epochs."""
    interval = draw(st.sampled_from(["batch", "epoch"]))
    unit = draw(st.sampled_from(["epoch", "batch"])) if interval == "batch" else "epoch"
    common = {"interval": interval, "unit": unit, "warmup": draw(st.integers(0, 6))}
    length = draw(st.integers(1, 12))
    eta_min = draw(st.sampled_from([0.0, 0.03]))
    gamma = draw(st.sampled_from([0.1, 0.5]))
    return draw(
        st.sampled_from(
            [
                Cosine(**common, t_max=length, eta_min=eta_min),
                Cosine(**common, t_max=None, eta_min=eta_min),
                CosineWarm(**common, t_0=length, t_mult=draw(st.integers(1, 3)), eta_min=eta_min),
                Step(**common, step_size=length, gamma=gamma),
                MultiStep(**common, milestones=[length, length + 3], gamma=gamma),
                Linear(**common),
                Constant(**common),
                WSD(**common, cooldown=length),
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
