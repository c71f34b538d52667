"""Updates on a GPU, plain and compiled, against the bare arithmetic: `make bench-gpu`.

The floor is forward, backward and torch's fused SGD on one fixed batch, not compiled; `step` is the
harness's update on that batch, which must not wait for the GPU; `fit` is the whole loop. All are
measured in turn, several times; medians are printed, as a table in Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir

from harness.choices.builtin import register
from harness.config.compose import load
from harness.runs.setup import build
from harness.training import datasets, device, schedules
from harness.training.batches import TrainBatches
from harness.training.loop import Precision
from harness.training.loop import updates as train

_ROOT = Path(__file__).parent.parent
_CUDA = torch.device("cuda", 0)
_SETTING = (
    "dataset=synthetic dataset.images=10000 optimizer.lr=0.01 scheduler=constant tracking=none"
)
_WORKLOADS = {
    "ResNet-18, as on CIFAR-10": [
        "model=resnet18", "dataset.image_size=32", "dataset.channels=3", "dataset.crop=4", "dataset.flip=true",
    ],
    "ResNet-8, as on Fashion-MNIST": ["model=resnet8", "dataset.image_size=28", "dataset.crop=2"],
}  # fmt: skip
_MODES = ("none", "default", "reduce-overhead")
Run = Callable[[int], None]  # so many updates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="of each, interleaved")
    parser.add_argument("--updates", type=int, default=100, help="of batch 128 in each repeat")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: bench-gpu: no CUDA GPU is found here; run it where nvidia-smi lists one")
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    register()
    print(f"{torch.cuda.get_device_name()}, driver {driver}, torch {torch.__version__}; medians of "
          f"{arguments.repeats} interleaved repeats of {arguments.updates} updates, batch 128\n\n"
          f"    python {' '.join(sys.argv)}")  # fmt: skip
    for name, overrides in _WORKLOADS.items():
        table = _table(overrides, arguments.repeats, arguments.updates)
        print(f"\n**{name}**, images/s\n\n{table}")


def _table(overrides: list[str], repeats: int, updates: int) -> str:
    runs: dict[tuple[str, ...], Run] = {}
    for precision, last, mode in product(("fp32", "bf16"), ("true", "false"), _MODES):
        setting = (f"precision={precision}", f"channels_last={last}", f"compile={mode}")
        parts = _parts([*overrides, *(f"trainer.{key}" for key in setting)])
        runs |= {(precision, last, mode, part): run for part, run in parts.items()}
    first = {key: _seconds(run, 10) for key, run in runs.items()}
    seconds: dict[tuple[str, ...], list[float]] = {key: [] for key in runs}
    for _ in range(repeats):
        for key, run in runs.items():
            seconds[key].append(_seconds(run, updates))
    rate = {key: 128 * updates / statistics.median(s) for key, s in seconds.items()}
    titles = (
        "precision | channels-last | compile | first 10 updates | step | fit | floor | fit / floor"
    )
    lines = [f"| {titles} |", "|---" * 8 + "|"]
    for key in product(("fp32", "bf16"), ("true", "false"), _MODES):
        step, whole, floor = rate[*key, "step"], rate[*key, "fit"], rate[*key[:2], "none", "floor"]
        cells = f"{first[*key, 'step']:.1f} s | {step:.0f} | {whole:.0f} | {floor:.0f} | {whole / floor:.2f}"
        lines.append(f"| {' | '.join(key)} | {cells} |")
    return "\n".join(lines)


def _parts(overrides: list[str]) -> dict[str, Run]:
    """The step, the whole loop and, not compiled, the floor; each with a network of its own."""
    with initialize_config_dir(str(_ROOT / "conf"), version_base="1.3"):
        settings = load(compose("config", [*_SETTING.split(), *overrides]))
    device.reset(settings, _CUDA)
    splits = datasets.load(settings.dataset)
    precision = Precision(settings.trainer.precision, _CUDA)
    batches = TrainBatches(splits, settings, _CUDA)
    images, labels = next(batches.epoch(0))
    state, step = build(settings, splits, _CUDA, precision)
    trained, trained_step = build(settings, splits, _CUDA, precision)
    bare, _ = build(settings, splits, _CUDA, precision)

    def one_batch(updates: int) -> None:
        for index in range(updates):
            torch.cuda.set_sync_debug_mode("error" if index >= 5 else "default")
            step.train(state, images, labels)
        torch.cuda.set_sync_debug_mode("default")

    def whole(updates: int) -> None:
        settings.trainer.epochs = updates / batches.updates_per_epoch
        plan = schedules.lr_plan(settings, batches.updates_per_epoch)
        trained.updates = 0
        for lr in train(trained, trained_step, plan, batches):
            if trained.updates % settings.trainer.log_every == 0:
                trained.row(plan, lr)

    def floor(updates: int) -> None:
        for _ in range(updates):
            with precision.autocast():
                loss = F.cross_entropy(bare.network(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            bare.optimizer.step()
            bare.optimizer.zero_grad()

    parts: dict[str, Run] = {"step": one_batch, "fit": whole}
    return parts | {"floor": floor} if settings.trainer.compile == "none" else parts


def _seconds(run: Run, updates: int) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    run(updates)
    torch.cuda.synchronize()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
