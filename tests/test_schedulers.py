"""Each schedule against its closed form, in which every position in a cycle is an integer."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from conftest import make_config

from harness.config.errors import ConfigError
from harness.training import schedules

PEAK = 0.1  # optimizer.lr of conf/optimizer/sgd.yaml
LR = Callable[[int], float]  # scheduler step → LR


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


# --- what does not fit ---------------------------------------------------------------------------


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
            "scheduler.t_0=36: does not fit into the budget, trainer.epochs=35; lower scheduler.t_0, or raise trainer.epochs",
            id="t_0 longer than the budget",
        ),
        pytest.param(
            "scheduler.t_0=34 scheduler.warmup=2",
            "scheduler.t_0=34: does not fit into the budget, trainer.epochs=35 with scheduler.warmup=2; lower scheduler.t_0, or raise trainer.epochs",
            id="t_0 longer than warmup leaves",
        ),
        pytest.param(
            "scheduler.t_0=30 scheduler.warmup=120 scheduler.unit=batch",
            "scheduler.t_0=30: does not fit into the budget, trainer.epochs=35 (140 updates) with scheduler.warmup=120; lower scheduler.t_0, or raise trainer.epochs",
            id="t_0 in updates",
        ),
        pytest.param(
            "scheduler=one_cycle trainer.epochs=1 scheduler.interval=epoch",
            "trainer.epochs=1: one_cycle cannot rise and fall in one step of the scheduler; raise trainer.epochs",
            id="one_cycle of one step",
        ),
        pytest.param(
            "scheduler=wsd scheduler.cooldown=35.25",
            "scheduler.cooldown=35.25: does not fit into the budget, trainer.epochs=35; lower scheduler.cooldown, or raise trainer.epochs",
            id="cooldown longer than the budget",
        ),
        pytest.param(
            "scheduler=step scheduler.step_size=50 trainer.epochs=10",
            "scheduler.step_size=50: does not fit into the budget, trainer.epochs=10; lower scheduler.step_size, or raise trainer.epochs",
            id="no step within the budget",
        ),
        pytest.param(
            "scheduler=multistep scheduler.milestones=[15,25] trainer.epochs=10",
            "scheduler.milestones=15: does not fit into the budget, trainer.epochs=10; lower scheduler.milestones, or raise trainer.epochs",
            id="no milestone within the budget",
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
