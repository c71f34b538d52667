"""Images/s on a GPU: the loop, its update alone, the bare arithmetic, a usual program, several runs at once.

The data are invented (`dataset=synthetic`), of the sizes of real ones: no network learns much, all do the same work.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, Dataset

from benchmarks import usual
from benchmarks.training import Figures, Loop, interleaved, now, ratio, settings
from harness.config.schema import Config
from harness.runs.context import RunContext
from harness.runs.run import run
from harness.runs.run_dir import RunInfo
from harness.training import datasets, models
from harness.training.datasets import InMemoryImages
from harness.training.device import reset

_BATCH = 128
_COLOURS = ("dataset.channels=3", "dataset.crop=4")


def images(updates: int) -> str:
    """Return the override of a data set, an epoch of which has so many updates."""
    return f"dataset.images={updates * _BATCH + 400}"


NETS = {
    "ResNet-8, 28 px": (
        "model=resnet8", "dataset.image_size=28", "dataset.channels=1", "dataset.crop=2", images(120),
    ),
    "ResNet-20, 32 px": ("model=resnet20", "dataset.image_size=32", *_COLOURS, images(80)),
    "ResNet-18, 32 px": ("model=resnet18", "dataset.image_size=32", *_COLOURS, images(60)),
    "ResNet-18, 64 px": ("model=resnet18", "dataset.image_size=64", *_COLOURS, images(30)),
}  # fmt: skip
_EAGER, _GRAPHS = "eager", "compiled, CUDA graphs"
_MODES = {_EAGER: "none", "compiled": "default", _GRAPHS: "reduce-overhead"}
_WINDOW = 3.0  # seconds for which runs go on at once


class Row(NamedTuple):
    what: str
    measured: str
    must: str = ""
    holds: bool = True


Rows = Iterator[Row]


def setting(device: torch.device, net: str) -> tuple[str, ...]:
    """Return the overrides of all that is measured with a network; on a CPU, where it is only tried, it is small."""
    small = () if device.type == "cuda" else ("model.width=2", images(10))
    return (
        "dataset=synthetic", "dataset.val_size=200", "dataset.test_size=200", "dataset.flip=true",
        "optimizer.lr=0.01", "scheduler=cosine", f"trainer.batch_size={_BATCH}", "tracking=none",
        f"trainer.device={device.type}", *NETS[net], *small,
    )  # fmt: skip


def loop(device: torch.device, net: str, *overrides: str, epochs: int = 12) -> Loop:
    config = settings(epochs, *overrides, base=setting(device, net))
    reset(config, device)
    return Loop(config, device)


def eager(device: torch.device) -> Rows:
    names = ("bf16", "fp32") if device.type == "cpu" else ("bf16", "fp16", "fp32")
    for net, precision in product(_nets(device), names):
        yield _against_the_floor(device, net, precision, _EAGER)


def compiled(device: torch.device) -> Rows:
    """The most telling first: each is compiled for half a minute."""
    nets = _nets(device)
    if device.type == "cpu":
        todo = [(nets[0], "fp32", "compiled")]
    else:
        todo = [(net, "bf16", _GRAPHS) for net in nets]
        todo += [
            (nets[0], p, m) for p, m in (("bf16", "compiled"), ("fp32", _GRAPHS), ("fp16", _GRAPHS))
        ]
    for net, precision, mode in todo:
        yield _against_the_floor(device, net, precision, mode)


def _nets(device: torch.device) -> list[str]:
    return list(NETS)[: None if device.type == "cuda" else 1]


def _against_the_floor(device: torch.device, net: str, precision: str, mode: str) -> Row:
    plain = [net, f"trainer.precision={precision}"]
    own = [*plain, f"trainer.compile={_MODES[mode]}"]
    with _Peak(device) as peak:
        begin = now(device)
        fit = loop(device, *own)
        fit.epoch(evaluations=False)
        first = now(device) - begin
    alone, bare = loop(device, *own), loop(device, *plain)
    images, labels = next(bare.batches.epoch(0))
    updates = fit.plan.updates_per_epoch
    figures = interleaved(
        3,
        {
            "fit": lambda: fit.images / fit.epoch(evaluations=False)[0],
            "step": lambda: fit.images / alone.step_alone(images, labels, updates),
            "bare": lambda: fit.images / bare.floor(images, labels, updates),
        },
    )
    waits = (
        ""
        if device.type == "cpu"
        else waiting(lambda: alone.step.train(alone.state, images, labels))
    )
    return Row(
        f"{net}, {precision}, {mode}",
        f"{_rates(figures)}; fit/step {ratio(figures, 'fit', 'step')}, fit/bare "
        f"{ratio(figures, 'fit', 'bare')}; first epoch {first:.1f} s; {peak.mib} MiB at most; waits: {waits or 'none'}",
        "no waits",
        not waits,
    )


def _rates(figures: Figures) -> str:
    medians = {name: statistics.median(values) for name, values in figures.items()}
    return ", ".join(f"{name} {value:,.0f}" for name, value in medians.items()) + " images/s"


class _Peak:
    """The largest amount of GPU memory, in `mib`, that is in use at once within the block; 0 on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.cuda, self.mib = device.type == "cuda", 0

    def __enter__(self) -> _Peak:
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        return self

    def __exit__(self, *error: object) -> None:
        if self.cuda:
            self.mib = (torch.cuda.max_memory_allocated() - self.before) >> 20


def waiting(update: Callable[[], object]) -> str:
    """Return the line of code where one of 20 calls waits for the GPU; nothing if none does."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            update()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in frames[:-4:-1])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""


class _Pictures(Dataset[Any]):
    """Images one by one, as torchvision's CIFAR10 gives them: through PIL and the transforms."""

    def __init__(self, config: Config) -> None:
        splits = datasets.load(config.dataset)
        assert isinstance(splits.train, InMemoryImages)
        self.images, self.labels = splits.train.pixels, splits.train.labels
        mean, std = ([v / 255 for v in values] for values in (splits.mean, splits.std))
        self.transform, _ = usual.transforms(splits.image_size, config.dataset.crop, mean, std)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.images[index].squeeze())
        return self.transform(image), int(self.labels[index])


def usual_programs(device: torch.device) -> Rows:
    """A tutorial's loop in bfloat16, `channels_last`, whose workers augment image by image."""
    cores = len(os.sched_getaffinity(0))
    for net in _nets(device):
        rates = {n: _usual_rate(device, net, n) for n in sorted({min(4, cores), cores})}
        fit = loop(device, net, "trainer.precision=auto")
        rate = [fit.images / fit.epoch(evaluations=False)[0] for _ in range(4)][1:]
        own = statistics.median(rate)
        each = ", ".join(f"{rate:,.0f} with {n} workers" for n, rate in rates.items())
        yield Row(
            f"{net}: `DataLoader` program, images/s",
            f"{each}; `fit` {own:,.0f}, {own / max(rates.values()):.2f} times the better",
        )


def _usual_rate(device: torch.device, net: str, workers: int) -> float:
    config = settings(9, base=setting(device, net))
    network = models.build(config.model, datasets.load(config.dataset).shape)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    batches: usual.Batches = DataLoader(
        _Pictures(config), _BATCH, shuffle=True, drop_last=True, num_workers=workers,
        persistent_workers=True, pin_memory=device.type == "cuda",
    )  # fmt: skip
    scheduler = CosineAnnealingLR(optimizer, 9 * len(batches))
    usual.train_epoch(batches, network, optimizer, scheduler)
    begin = now(device)
    for _ in range(2):
        usual.train_epoch(batches, network, optimizer, scheduler)
    return 2 * len(batches) * _BATCH / (now(device) - begin)


def what_features_cost(device: torch.device) -> Rows:
    """`fit` with an average of weights, with augmentations by the batch on the GPU and one by one on the CPU."""
    yield from _whole_run(device)
    few = images(20) if device.type == "cuda" else "seed=0"
    contenders = {
        "crops and mirror images, by the batch on the device": (),
        "without": ("dataset.crop=0", "dataset.flip=false"),
        "with averages.ema=[0.999]": ("averages.ema=[0.999]",),
        "with dataset.erase=0.25, one by one on the CPU": ("dataset.erase=0.25", few),
        "with dataset.rand_augment=9, one by one on the CPU": ("dataset.rand_augment=9", few),
    }
    cases = list(
        product(_nets(device)[:2], (_EAGER, _GRAPHS) if device.type == "cuda" else (_EAGER,))
    )
    for net, mode in cases[:3]:
        own = (net, f"trainer.compile={_MODES[mode]}")
        loops = {what: loop(device, *own, *words) for what, words in contenders.items()}
        fit = {
            what: lambda one=one: one.images / one.epoch(evaluations=False)[0]
            for what, one in loops.items()
        }
        for what, values in interleaved(3, fit).items():
            yield Row(
                f"{net}, {mode}: `fit`, {what}, images/s", f"{statistics.median(values):,.0f}"
            )


def _whole_run(device: torch.device) -> Rows:
    """All that a run does beside its updates: history, store, evaluations."""
    epochs = 10 if device.type == "cuda" else 2
    for compile_ in ("none", "reduce-overhead") if device.type == "cuda" else ("none",):
        config = settings(
            epochs, f"trainer.compile={compile_}", base=setting(device, "ResNet-8, 28 px")
        )
        with TemporaryDirectory() as folder:
            config.store.dir = f"{folder}/store"
            result = run(RunContext(config, RunInfo(Path(folder, "run"), "run")))
        assert result.identity
        seconds = result.seconds
        images = result.identity.plan["updates"] * _BATCH
        yield Row(
            f"ResNet-8, 28 px, compile={compile_}: a whole run of {epochs} epochs, its loop with store and history",
            f"{images / (seconds['fit'] - seconds['evaluate']):,.0f} images/s; seconds: "
            + ", ".join(f"{phase} {value:.2f}" for phase, value in seconds.items()),
        )


def together(device: torch.device) -> Rows:
    """Runs that train at once on one GPU, a process each, against one alone."""
    cases = [
        ("ResNet-8, 28 px", _EAGER),
        ("ResNet-8, 28 px", _GRAPHS),
        ("ResNet-18, 32 px", _EAGER),
    ]
    for net, mode in cases if device.type == "cuda" else cases[:1]:
        rates = _side_by_side(device, (net, f"trainer.compile={_MODES[mode]}"), (1, 2, 4))
        yield Row(
            f"{net}, {mode}: one, two, four runs at once, images/s of all",
            ", ".join(f"{rate:,.0f}" for rate in rates.values())
            + "; "
            + ", ".join(f"{rates[n] / rates[1]:.2f} times for {n}" for n in (2, 4)),
        )


def _side_by_side(
    device: torch.device, what: tuple[str, str], numbers: tuple[int, ...]
) -> Mapping[int, float]:
    """Return by number of runs the images/s of all. All are started, and the first so many train."""
    context = multiprocessing.get_context("fork")  # of a process that has not used the GPU
    most = max(numbers)
    barrier = context.Barrier(most)
    ends: list[Connection] = []
    processes = []
    for index in range(most):
        here, there = context.Pipe(duplex=False)
        ends.append(here)
        arguments = (device, what, index, numbers, barrier, there)
        processes.append(context.Process(target=_one_of_several, args=arguments))
        processes[-1].start()
        there.close()
    try:
        images = [[end.recv() for _ in numbers] for end in ends]
    finally:
        for process in processes:
            process.kill()
            process.join()
    return {n: sum(own[i] for own in images) for i, n in enumerate(numbers)}


def _one_of_several(
    device: torch.device,
    what: tuple[str, str],
    index: int,
    numbers: tuple[int, ...],
    barrier: Barrier,
    there: Connection,
) -> None:
    torch.set_num_threads(1)
    own = loop(device, *what, epochs=300)
    own.epoch(evaluations=False)
    for number in numbers:
        barrier.wait(120)
        images, begin = 0, time.perf_counter()
        while index < number and time.perf_counter() - begin < _WINDOW:
            own.epoch(evaluations=False)
            images += own.images
        there.send(images / (time.perf_counter() - begin))
    barrier.wait(120)
