"""Throughput in one process: the loop, its floor, the usual programs, evaluation, arithmetic."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import usual
from benchmarks.usual import IMAGES, ROOT, Epoch
from harness.choices.builtin import register
from harness.config.compose import load
from harness.config.schema import Config
from harness.runs.context import PhaseTimer
from harness.runs.evaluator import Evaluator
from harness.runs.setup import build, prepare
from harness.training import averages, batches, datasets, schedules
from harness.training.distributed import SINGLE_PROCESS
from harness.training.loop import LogSchedule, Precision, Row, TrainState, TrainStep, updates

CPU = torch.device("cpu")
SETTING = (
    "model=resnet8", "dataset=fashion_mnist", f"dataset.root={ROOT / 'data'}", "dataset.crop=2",
    "dataset.flip=true", f"dataset.train_size={IMAGES}", f"dataset.val_size={IMAGES}",
    "scheduler=cosine", "tracking=none",
)  # fmt: skip
_MATRIX = 2048
_LARGE = (
    "dataset=synthetic", "dataset.image_size=224", "dataset.channels=3", "dataset.images=512",
    "dataset.flip=true", "scheduler=cosine", "tracking=none",
)  # fmt: skip
_DIGITS_EPOCHS = 5  # a figure; one has 8 updates
_AUGMENTATIONS = {
    "none": ("dataset.crop=0", "dataset.flip=false"),
    "crop, mirror images": (),
    "resized_crop=0.25": ("dataset.crop=0", "dataset.resized_crop=0.25"),
    "rand_augment=9": ("dataset.rand_augment=9",),
    "erase=0.25": ("dataset.erase=0.25",),
    "all three": (
        "dataset.crop=0", "dataset.resized_crop=0.25", "dataset.rand_augment=9", "dataset.erase=0.25",
    ),
}  # fmt: skip

Figures = dict[str, list[float]]  # contender → a figure a repeat, in the order of the repeats


def interleaved(repeats: int, contenders: Mapping[str, Callable[[], float]]) -> Figures:
    """Run each contender in turn, `repeats` times, after one time that does not count.

    Each time another one begins: what a contender leaves to the next one falls on all.
    """
    figures: Figures = {name: [] for name in contenders}
    names = list(contenders)
    for repeat in range(repeats + 1):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            figure = contenders[name]()
            if repeat:
                figures[name].append(figure)
    return figures


def ratio(figures: Figures, of: str, to: str) -> str:
    """Return the median of the ratio of two contenders, pair by pair, with its least and greatest."""
    pairs = [a / b for a, b in zip(figures[of], figures[to], strict=True)]
    return f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})"


def settings(epochs: float, *overrides: str, base: Sequence[str] = SETTING) -> Config:
    from hydra import compose, initialize_config_dir

    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        given = [*base, f"trainer.epochs={epochs}", f"scheduler.t_max={epochs}", *overrides]
        return load(compose("config", given))


class Loop:
    """The harness's own loop, epoch by epoch, with validation or without."""

    def __init__(self, config: Config, device: torch.device = CPU) -> None:
        self.device = device
        self.precision = Precision.resolve(config.trainer.precision, device)
        splits = datasets.load(config.dataset)
        self.state, self.step = build(config, splits, device, self.precision)
        self.batches = batches.TrainBatches(splits, config, device)
        self.val = batches.EvalBatches(splits.val, splits, config, device)
        self.plan = schedules.lr_plan(config, self.batches.updates_per_epoch)
        self.log_every = config.trainer.log_every
        if planned := averages.planned(config.averages, self.plan):
            self.state.averages = averages.Averages(self.state.network, planned)

    def epoch(self, evaluations: bool) -> tuple[float, float]:
        """Return seconds, and validation accuracy in percent (0 without validation)."""
        end = self.state.updates + self.plan.updates_per_epoch
        plan = replace(self.plan, lr=self.plan.lr[:end])
        log_schedule = LogSchedule(self.log_every, frozenset({end} if evaluations else ()))
        rows: list[Row] = []
        begin = now(self.device)
        for lr in updates(self.state, self.step, plan, self.batches):
            if log_schedule.is_row(self.state.updates):
                rows.append(self.state.row(plan, lr))
                if self.state.updates in log_schedule.evaluations:
                    rows[-1] |= self.evaluate()
        return now(self.device) - begin, float(rows[-1].get("val/acc", 0))

    def evaluate(self) -> Row:
        return self.step.evaluate(self.state.network, self.val, "val")

    def floor(self, images: torch.Tensor, labels: torch.Tensor, updates: int) -> float:
        """Return the seconds of forward, backward and SGD on one fixed batch, `updates` times, not compiled."""
        network, optimizer = self.state.network, self.state.optimizer
        begin = now(self.device)
        for _ in range(updates):
            with self.precision.autocast():
                loss = F.cross_entropy(network(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        return now(self.device) - begin

    def step_alone(self, images: torch.Tensor, labels: torch.Tensor, updates: int) -> float:
        """Return the seconds of the harness's own update on one fixed batch, `updates` times."""
        begin = now(self.device)
        for _ in range(updates):
            self.step.train(self.state, images, labels)
        return now(self.device) - begin

    @property
    def images(self) -> int:
        return self.plan.updates_per_epoch * self.batches.batch_size


def now(device: torch.device) -> float:
    """Return a time in seconds at which the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def against_the_floor(repeats: int) -> list[tuple[str, str, str]]:
    config = settings(repeats + 1)
    loop, bare = Loop(config), Loop(config)
    images, labels = next(bare.batches.epoch(0))
    updates = loop.plan.updates_per_epoch

    def evaluation() -> float:
        begin = time.perf_counter()
        loop.evaluate()
        return IMAGES / (time.perf_counter() - begin)

    figures = interleaved(
        repeats,
        {
            "fit": lambda: loop.images / loop.epoch(evaluations=False)[0],
            "floor": lambda: loop.images / bare.floor(images, labels, updates),
            "evaluation": evaluation,
        },
    )
    rows = [(f"{name}, images/s", _median(values), "") for name, values in figures.items()]
    return [
        *rows,
        ("`fit` against the floor", ratio(figures, "fit", "floor"), "≥ 0.95"),
        ("evaluation against training", ratio(figures, "evaluation", "fit"), "≥ 3.5"),
        *_arithmetic(bare, images, labels, statistics.median(figures["fit"])),
    ]


def _arithmetic(
    bare: Loop, images: torch.Tensor, labels: torch.Tensor, rate: float
) -> list[tuple[str, str, str]]:
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(bare.state.network(images), labels).backward()  # type: ignore[no-untyped-call]
    bare.state.optimizer.zero_grad()
    per_image = counter.get_total_flops() / len(images)
    a, b = torch.randn(2, _MATRIX, _MATRIX)

    def product() -> float:
        begin = time.perf_counter()
        torch.mm(a, b)
        return 2 * _MATRIX**3 / (time.perf_counter() - begin)

    best = max(product() for _ in range(10))
    achieved = rate * per_image
    return [
        ("FLOP an image, forward and backward", f"{per_image / 1e6:.1f} M", ""),
        (f"best product of {_MATRIX} x {_MATRIX} matrices", f"{best / 1e9:.0f} GFLOP/s", ""),
        ("`fit` achieves", f"{achieved / 1e9:.0f} GFLOP/s, {achieved / best:.0%} of it", ""),
        ("where its time goes", profile(bare.step, bare.state, images, labels), ""),
    ]


def profile(step: TrainStep, state: TrainState, images: torch.Tensor, labels: torch.Tensor) -> str:
    """Return the kernels that take most of an update, by their share of the time on the CPU."""
    group = state.optimizer.param_groups[0]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
        for _ in range(10):
            F.cross_entropy(step.forward(images), labels).backward()  # type: ignore[no-untyped-call]
            group["lr"] = 0.0
            state.optimizer.step()
            state.optimizer.zero_grad()
    events: list[Any] = list(recorded.key_averages())
    whole = sum(event.self_cpu_time_total for event in events)
    top = sorted(events, key=lambda event: -event.self_cpu_time_total)[:7]
    return ", ".join(
        f"{event.key.removeprefix('aten::')} {event.self_cpu_time_total / whole:.0%}"
        for event in top
    )


def against_usual_programs(repeats: int) -> list[tuple[str, str, str]]:
    """Compare epochs of training with a validation at each end; all train as many, under the same LRs."""
    epochs = repeats + 1
    loop = Loop(settings(epochs))
    compiled = Loop(settings(epochs, "trainer.compile=default"))
    contenders: dict[str, Epoch] = {
        "harness": partial(loop.epoch, evaluations=True),
        "harness, compiled": partial(compiled.epoch, evaluations=True),
        "DataLoader, no workers": usual.plain(0, epochs),
        "DataLoader, 2 workers": usual.plain(2, epochs),
        "Lightning, no workers": usual.lightning(0, epochs),
        "Lightning, 2 workers": usual.lightning(2, epochs),
    }
    last: dict[str, float] = {}

    def timed(name: str) -> float:
        seconds, last[name] = contenders[name]()
        return loop.images / seconds

    figures = interleaved(repeats, {name: partial(timed, name) for name in contenders})
    rows = [
        (f"{name}: images/s, accuracy after {epochs} epochs", f"{_median(values)}, {last[name]:.1f} %", "")
        for name, values in figures.items()
    ]  # fmt: skip
    for kind in ("DataLoader", "Lightning"):
        best = max(
            (name for name in figures if name.startswith(kind)),
            key=lambda name: statistics.median(figures[name]),
        )
        rows += [
            (f"harness against {best}", ratio(figures, "harness", best), "≥ 1.9"),
            ("… compiled", ratio(figures, "harness, compiled", best), ""),
        ]
    return rows


def augmentations(repeats: int) -> list[tuple[str, str, str]]:
    """Compare what augmentations of single images cost: by themselves, in CPU time, and in training."""
    alone = {
        f"batches of {size}, {name}": partial(_batches_alone, settings(1, *given, base=base))
        for size, base in (("28 x 28", SETTING), ("224 x 224 x 3", _LARGE))
        for name, given in _AUGMENTATIONS.items()
    }
    loops = {
        f"`fit` at 28 x 28, {name}": Loop(settings(repeats + 1, *given))
        for name, given in _AUGMENTATIONS.items()
    }
    rows = [
        (f"{name}, µs of CPU time an image", _median(values), "")
        for name, values in interleaved(repeats, alone).items()
    ]
    fit = {
        name: lambda loop=loop: loop.images / loop.epoch(evaluations=False)[0]
        for name, loop in loops.items()
    }
    figures = interleaved(repeats, fit)
    return rows + [(f"{name}, images/s", _median(values), "") for name, values in figures.items()]


def averages_beside(repeats: int) -> list[tuple[str, str, str]]:
    """Compare updates and evaluations with three exponential averages of the weights with those without."""
    base = ("dataset=digits", "scheduler=cosine", "tracking=none", "trainer.log_every=1")
    epochs = _DIGITS_EPOCHS * (repeats + 1)
    plain = Loop(settings(epochs, base=base))
    config = settings(epochs, "averages.ema=[0.9,0.99,0.999]", base=base)
    loop, setup = Loop(config), prepare(config, PhaseTimer())
    evaluator = Evaluator(SINGLE_PROCESS, setup, loop.step, loop.state)

    def fit(loop: Loop) -> float:
        return sum(loop.epoch(evaluations=False)[0] for _ in range(_DIGITS_EPOCHS))

    def milliseconds(evaluate: Callable[[], Row]) -> float:
        begin = time.perf_counter()
        evaluate()
        return 1e3 * (time.perf_counter() - begin)

    fits = interleaved(repeats, {"with": partial(fit, loop), "without": partial(fit, plain)})
    evaluations = interleaved(
        repeats,
        {
            "without": partial(milliseconds, loop.evaluate),
            "with": partial(milliseconds, evaluator.val),
        },
    )
    pairs = zip(evaluations["with"], evaluations["without"], strict=True)
    each = [(both - own) / len(config.averages.names()) for both, own in pairs]
    return [
        (
            "updates with three averages, seconds of those without",
            ratio(fits, "with", "without"),
            "",
        ),
        ("evaluation of the run, ms", _median(evaluations["without"]), ""),
        ("… of an average, batch norms recalibrated, ms", _median(each), ""),
    ]


def _batches_alone(config: Config) -> float:
    every = batches.TrainBatches(datasets.load(config.dataset), config, CPU)
    begin = time.process_time()
    images = sum(len(labels) for _, labels in every.epoch(0))
    return 1e6 * (time.process_time() - begin) / images


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f}"
