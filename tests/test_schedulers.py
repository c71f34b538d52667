"""Each schedule against its closed form, in which every position in a cycle is an integer."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Main, make_config
from torch.optim import SGD

from harness.config.compose import Composed
from harness.config.errors import ConfigError
from harness.config.registry import KINDS
from harness.config.schema import Config
from harness.config.values import from_dict, to_dict, without_added
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


def decaying_restarts(
    t_0: int, t_mult: int, decay: float = 1.0, warmup: int = 0, eta_min: float = 0.0
) -> LR:
    """SGDR whose n-th peak is decay**n of the first (timm's `cycle_decay`), and whose cycles begin with a line up.

    timm has no warm-up in every cycle. katsura-jp's CosineAnnealingWarmupRestarts has, as a part of the
    cycle, too; there the first update uses `eta_min`, here the first step of `warmup` + 1 above it.
    """

    def lr(step: int) -> float:
        number, start, length = next(
            (n, s, m) for n, (s, m) in enumerate(cycles(t_0, t_mult)) if step < s + m
        )
        height, position = PEAK * decay**number - eta_min, step - start
        if position < warmup:
            return eta_min + height * (position + 1) / (warmup + 1)
        share = (position - warmup) / (length - warmup)
        return eta_min + height * (1 + math.cos(math.pi * share)) / 2

    return lr


def polynomial(total: int, power: float) -> LR:
    """timm's PolyLRScheduler, torch's PolynomialLR: to zero at `total`."""
    return lambda step: PEAK * (1 - step / total) ** power


def wsd(total: int, length: int, cooldown: Callable[[float], float]) -> LR:
    """Hägele et al. 2024 (arXiv 2405.18392), section 3 and appendix: `cooldown` of the share done of the last part."""
    return lambda step: PEAK * cooldown(max(0, step - (total - length)) / length)


def lines(*points: tuple[float, float]) -> LR:
    places, shares = zip(*points, strict=True)
    return lambda step: float(PEAK * np.interp(step, places, shares))


def values(*shares: float) -> LR:
    return lambda step: PEAK * shares[step]


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
        pytest.param(
            "scheduler.t_0=3 scheduler.t_mult=2 scheduler.decay=0.5 scheduler.eta_min=0.001 scheduler.warmup=1 trainer.epochs=22",
            4, 88, warmed(4, decaying_restarts(12, 2, 0.5, eta_min=0.001)), id="cosine_warm: decayed peaks after a warm-up",
        ),
        pytest.param(
            "scheduler.t_0=2 scheduler.t_mult=1 scheduler.decay=0.9 scheduler.interval=epoch trainer.epochs=9.5",
            4, 38, held(4, decaying_restarts(2, 1, 0.9)), id="cosine_warm: decayed peaks of equal cycles, by epoch",
        ),
        pytest.param(
            "scheduler.t_0=3 scheduler.t_mult=2 scheduler.cycle_warmup=0.5 scheduler.eta_min=0.01 trainer.epochs=21",
            4, 84, decaying_restarts(12, 2, warmup=2, eta_min=0.01), id="cosine_warm: a warm-up in every cycle",
        ),
        pytest.param(
            "scheduler.t_0=8 scheduler.t_mult=1 scheduler.cycle_warmup=7 scheduler.decay=0.8 scheduler.unit=batch trainer.epochs=10",
            4, 40, decaying_restarts(8, 1, 0.8, 7), id="cosine_warm: hardly anything but warm-up, in batches",
        ),
        pytest.param(
            "scheduler=polynomial trainer.epochs=6", 7, 42, polynomial(42, 2), id="polynomial",
        ),
        pytest.param(
            "scheduler=polynomial scheduler.power=0.5 scheduler.warmup=2 scheduler.interval=epoch trainer.epochs=6.5", 4, 26,
            held(4, warmed(2, polynomial(5, 0.5))), id="polynomial: a root, by epoch, warm-up, half an epoch at the end",
        ),
        pytest.param(
            "scheduler=wsd scheduler.cooldown=2 scheduler.shape=1-sqrt scheduler.warmup=0.5 trainer.epochs=5", 4, 20,
            warmed(2, wsd(18, 8, lambda done: 1 - math.sqrt(done))), id="wsd: 1-sqrt",
        ),
        pytest.param(
            "scheduler=wsd scheduler.cooldown=5 scheduler.shape=cosine scheduler.interval=epoch trainer.epochs=9", 4, 36,
            held(4, wsd(9, 5, lambda done: (1 + math.cos(math.pi * done)) / 2)), id="wsd: cosine, by epoch",
        ),
        pytest.param(
            "scheduler=piecewise scheduler.points=[0:0.2,2.5:1,5:0.1] scheduler.warmup=1 trainer.epochs=8", 4, 32,
            warmed(4, lines((0, 0.2), (10, 1), (20, 0.1))), id="piecewise: the LR stays after the last point",
        ),
        pytest.param(
            "scheduler=piecewise scheduler.points=[0:1,3:0,3:0.5,6:0] scheduler.interval=epoch trainer.epochs=6", 4, 24,
            held(4, values(1, 2 / 3, 1 / 3, 0.5, 1 / 3, 0.5 / 3)), id="piecewise: a jump",
        ),
        pytest.param(
            "scheduler=piecewise scheduler.points=[0:0,3:1,9:0.25] scheduler.unit=batch trainer.epochs=3", 3, 9,
            lines((0, 0), (3, 1), (9, 0.25)), id="piecewise: in updates",
        ),
        pytest.param(
            "scheduler=list scheduler.values=[1,0.5,0.25,0] trainer.epochs=3.5", 4, 14,
            held(4, values(1, 0.5, 0.25, 0)), id="list: an epoch each, half an epoch at the end",
        ),
        pytest.param(
            "scheduler=list scheduler.values=[0.1,1,0.3] scheduler.interval=batch scheduler.warmup=1 trainer.epochs=2.5", 2, 5,
            warmed(2, values(0.1, 1, 0.3)), id="list: an update each, after the warm-up",
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


TIMMS = [
    ("scheduler=cosine", 140, "CosineLRScheduler", {"t_initial": 140}, 0),
    ("scheduler=cosine scheduler.eta_min=0.01 scheduler.warmup=5", 140, "CosineLRScheduler",
     {"t_initial": 120, "lr_min": 0.01}, 20),
    ("scheduler.t_0=5 scheduler.t_mult=1", 140, "CosineLRScheduler",
     {"t_initial": 20, "cycle_limit": 99}, 0),
    ("scheduler.t_0=5 scheduler.t_mult=2 scheduler.eta_min=0.01 scheduler.warmup=1", 140,
     "CosineLRScheduler", {"t_initial": 20, "cycle_mul": 2, "cycle_limit": 99, "lr_min": 0.01}, 4),
    ("scheduler.t_0=5 scheduler.t_mult=2 scheduler.decay=0.5 scheduler.eta_min=0.01", 140,
     "CosineLRScheduler",
     {"t_initial": 20, "cycle_mul": 2, "cycle_limit": 99, "cycle_decay": 0.5, "lr_min": 0.01}, 0),
    ("scheduler.t_0=4 scheduler.t_mult=1 scheduler.decay=0.9 scheduler.warmup=2", 140,
     "CosineLRScheduler", {"t_initial": 16, "cycle_limit": 99, "cycle_decay": 0.9}, 8),
    ("scheduler=step scheduler.step_size=3 scheduler.gamma=0.5 scheduler.warmup=1", 140,
     "StepLRScheduler", {"decay_t": 12, "decay_rate": 0.5}, 4),
    # timm's milestones apply one step earlier: "milestone m applies at t == m - 1"
    ("scheduler=multistep scheduler.milestones=[10,20] scheduler.warmup=1", 140,
     "MultiStepLRScheduler", {"decay_t": [41, 81], "decay_rate": 0.1}, 4),
    ("scheduler=linear", 140, "PolyLRScheduler", {"t_initial": 140, "power": 1.0}, 0),
    ("scheduler=polynomial scheduler.warmup=2", 140, "PolyLRScheduler",
     {"t_initial": 132, "power": 2.0}, 8),
    ("scheduler=polynomial scheduler.power=0.5", 140, "PolyLRScheduler", {"t_initial": 140}, 0),
    *((f"scheduler=wsd scheduler.cooldown=10 scheduler.shape={shape} scheduler.warmup=2", 140,
       "WSDLRScheduler", {"t_initial": 132, "decay_t": 40, "decay_fn": shape}, 8)
      for shape in ("linear", "1-sqrt", "cosine")),
]  # fmt: skip
NOT_IN_TIMM = {
    "constant",
    "one_cycle",
    "piecewise",
    "list",
}  # timm has `tanh` and `plateau` beside those compared


def test_every_schedule_is_compared_with_timm_or_has_none_there() -> None:
    words = (case[0].partition(" ")[0].partition("=") for case in TIMMS)
    compared = {name if key == "scheduler" else "cosine_warm" for key, _, name in words}
    assert compared | NOT_IN_TIMM == {*KINDS["scheduler"]}
    assert not compared & NOT_IN_TIMM


@pytest.mark.parametrize(("overrides", "updates", "timms", "settings", "warmup"), TIMMS)
@pytest.mark.slow  # timm takes seconds to import
def test_a_plan_is_that_of_timm(
    overrides: str, updates: int, timms: str, settings: dict[str, Any], warmup: int
) -> None:
    import timm.scheduler

    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    if warmup:
        settings = settings | {"warmup_t": warmup, "warmup_lr_init": PEAK / (warmup + 1)}
        if timms != "WSDLRScheduler":  # whose warm-up is always a prefix
            settings["warmup_prefix"] = True
    scheduler = getattr(timm.scheduler, timms)(optimizer, **settings)
    expected = []
    for update in range(updates):
        scheduler.step(update)
        expected.append(optimizer.param_groups[0]["lr"])
    plan = schedules.lr_plan(make_config(*overrides.split()), updates_per_epoch=4)
    np.testing.assert_allclose(plan.lr, expected, rtol=0, atol=1e-12 * PEAK)


# --- values from a file --------------------------------------------------------------------------


def from_file(path: Path, *overrides: str) -> Config:
    return make_config("scheduler=list", f"scheduler.file={path}", "trainer.epochs=3", *overrides)


@pytest.mark.parametrize("text", ["1 0.5 0.25", "1,0.5,\n0.25\n", "1.0\n5e-1\n.25"])
def test_a_file_of_values_is_the_list_of_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "shares.txt").write_text(text)
    plan = schedules.lr_plan(from_file(tmp_path / "shares.txt"), 2)
    assert plan.lr.tolist() == [PEAK * share for share in (1, 1, 0.5, 0.5, 0.25, 0.25)]


def test_what_a_file_holds_is_a_part_of_the_plan_of_a_sweep(tmp_path: Path) -> None:
    file = tmp_path / "shares.txt"
    file.write_text("1 0.5 0.25")
    planned = from_file(file)
    assert Composed(from_file(file), {}).sha256 == Composed(planned, {}).sha256
    file.write_text("1 0.5 0.3")
    assert Composed(from_file(file), {}).sha256 != Composed(planned, {}).sha256
    recorded = from_dict(to_dict(planned))
    assert recorded == planned
    with pytest.raises(ConfigError) as error:
        schedules.lr_plan(recorded, 2)
    assert str(error.value) == (
        f"scheduler.file={file}: holds other values than when the run was planned"
    )
    file.unlink()
    assert from_dict(to_dict(planned)) == planned, "a report needs no file"


def test_a_file_is_recorded_with_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shares.txt").write_text("1 0.5 0.25")
    monkeypatch.chdir(tmp_path)
    recorded = to_dict(from_file(Path("shares.txt")))["scheduler"]
    assert recorded["file"] == str(tmp_path / "shares.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0.5", "has 2 values; trainer.epochs=3 takes 3, one an epoch"),
        ("1 half 0", "must hold numbers only; could not convert string to float: 'half'"),
        ("", "must be numbers from 0 to 1, shares of the peak"),
        ("1 nan 0", "must be numbers from 0 to 1, shares of the peak"),
        ("1 -1 0", "must be numbers from 0 to 1, shares of the peak"),
        ("0.4 0.2 0", "are shares of the peak, of which the largest is 1, not 0.4; for LRs divide them "
         "by 0.4 and give optimizer.lr=0.4"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_list_of_shares(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "shares.txt"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        schedules.lr_plan(from_file(file), 2)
    assert str(error.value) == f"scheduler.file={file}: {message}"


def test_a_file_that_is_not_there_or_no_file(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "none", "No such file or directory"),
        (tmp_path, f"{tmp_path}: is not a file"),
    ):
        with pytest.raises(ConfigError) as error:
            from_file(path)
        assert str(error.value) == f"scheduler.file={path}: cannot be read: {reason}"


def test_a_run_goes_on_with_the_file_that_it_began_with_alone(tmp_path: Path, main: Main) -> None:
    file = tmp_path / "shares.txt"
    words = [
        "dataset=synthetic", "dataset.images=80", "dataset.image_size=4", "dataset.classes=4",
        "model.width=1", "tracking=none", "trainer.epochs=2", "trainer.batch_size=16", "scheduler=list",
        f"scheduler.file={file}",
        f"store.dir={tmp_path}/store", f"hydra.run.dir={tmp_path}/run",
    ]  # fmt: skip
    file.write_text("1 0.5")
    assert main(*words).returncode == 0
    lr = np.load(tmp_path / "run/lr.npy")
    assert {*lr.tolist()} == {PEAK, PEAK / 2}
    file.write_text("1 0.1")
    edited = main(*words)
    assert edited.returncode == 1
    assert edited.stderr.startswith("error: scheduler.sha256=")
    assert "not what the run in" in edited.stderr
    file.write_text("1 0.5")
    assert "is complete" in main(*words).stderr


# --- what stores and sweeps of before know ------------------------------------------------------


@pytest.mark.parametrize(
    ("scheduler", "keys"),
    [
        ("cosine_warm", {"t_0", "t_mult", "eta_min"}),
        ("wsd", {"cooldown"}),
    ],
)
def test_what_changes_nothing_is_not_in_the_hash_of_a_run(scheduler: str, keys: set[str]) -> None:
    kept = without_added(make_config(f"scheduler={scheduler}"))["scheduler"]
    assert kept.keys() == keys | {"kind", "warmup", "interval", "unit"}


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
            "scheduler.cycle_warmup=5",
            "scheduler.cycle_warmup=5: must be shorter than the first cycle, scheduler.t_0=5",
            id="a cycle of nothing but warm-up",
        ),
        pytest.param(
            "scheduler.cycle_warmup=1 scheduler.warmup=2",
            "scheduler.warmup=2: the first cycle too begins with scheduler.cycle_warmup=1; leave one of them 0",
            id="two warm-ups",
        ),
        pytest.param(
            "scheduler.decay=0.5 scheduler.eta_min=0.025",
            "scheduler.decay=0.5: leaves cycle 3 a peak of 0.025, which must be above scheduler.eta_min=0.025; raise scheduler.decay",
            id="a peak at the floor",
        ),
        pytest.param(
            "scheduler=piecewise scheduler.points=[0:1,36:0]",
            "scheduler.points: the last point, 36, does not fit into the budget, trainer.epochs=35; lower the last point, or raise trainer.epochs",
            id="a point beyond the budget",
        ),
        pytest.param(
            "scheduler=piecewise scheduler.points=[0:0,1:0,1:1,1:0,3:0]",
            "scheduler.points=[0:0,1:0,1:1,1:0,3:0]: has three points at 1; a jump takes two",
            id="a peak of no length",
        ),
        pytest.param(
            "scheduler=piecewise scheduler.points=[0:0,1:0,1.00001:1,1.00002:0,3:0]",
            "scheduler=piecewise: the LR of all updates is 0; one must be above 0",
            id="a peak within one update",
        ),
        pytest.param(
            "scheduler=piecewise scheduler.points=[0:1,20.9:0]",
            "scheduler.points=20.9: is not a whole number of updates at 4 an epoch; "
            "the nearest are 20.75 (83 updates) and 21 (84 updates)",
            id="a point between two updates",
        ),
        pytest.param(
            "scheduler=list scheduler.values=[1,0.5,0] scheduler.warmup=2",
            "scheduler.values: has 3 values; trainer.epochs=35 takes 33 after scheduler.warmup=2, one an epoch",
            id="too few values",
        ),
        pytest.param(
            "scheduler=list scheduler.values=[1,0.5,0] scheduler.interval=batch trainer.epochs=0.5",
            "scheduler.values: has 3 values; trainer.epochs=0.5 takes 2, one an update",
            id="too many values",
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
    with pytest.raises(ConfigError) as error:
        schedules.lr_plan(make_config(*overrides.split()), updates_per_epoch=4)
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
