"""Throughput of the training loop against the bare arithmetic, side by side: `make bench`.

The floor is forward, backward and SGD on one fixed batch, with the same network, memory format and
threads. Both are measured in turn, several times; the medians are printed.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir

from harness import config, data, schedules
from harness.loop import Cadence, Precision, fit
from harness.run import build

_ROOT = Path(__file__).parent.parent
_SETTING = [
    "model=resnet8",
    "dataset=fashion_mnist",
    f"dataset.root={_ROOT / 'data'}",
    "dataset.train_size=10000",
    "scheduler=constant",
    "tracking=none",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="of each, interleaved")
    parser.add_argument("--updates", type=int, default=78, help="of batch 128 in each repeat")
    arguments = parser.parse_args()

    config.register()
    with initialize_config_dir(str(_ROOT / "conf"), version_base="1.3"):
        settings = config.load(compose("config", [*_SETTING, "trainer.epochs=1"]))
    splits = data.load(settings.dataset)
    contenders = {"fit": _fit(settings, splits), "bare": _bare(settings, splits)}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        contender(10)
    for _ in range(arguments.repeats):
        for name, contender in contenders.items():
            begin = time.perf_counter()
            contender(arguments.updates)
            seconds[name].append(time.perf_counter() - begin)

    images = arguments.updates * settings.trainer.batch_size
    rate = {name: images / statistics.median(s) for name, s in seconds.items()}
    paired = [b / f for f, b in zip(seconds["fit"], seconds["bare"], strict=True)]
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}; medians of {arguments.repeats} interleaved repeats")  # fmt: skip
    print(f"bare forward + backward + SGD  {rate['bare']:8.0f} images/s")
    print(f"fit                            {rate['fit']:8.0f} images/s")
    print(f"fit / bare                     {statistics.median(paired):8.3f} "
          f"(pair by pair {min(paired):.3f} to {max(paired):.3f})")  # fmt: skip


def _fit(settings: config.Config, splits: data.Splits) -> Callable[[int], None]:
    device = torch.device("cpu")
    state, step = build(settings, splits, device, Precision("fp32", device))
    batches = data.TrainBatches(splits, settings, device)

    def run(updates: int) -> None:
        settings.trainer.epochs = updates / batches.updates_per_epoch
        plan = schedules.plan(settings, batches.updates_per_epoch)
        state.updates = 0
        cadence = Cadence(settings.trainer.log_every, frozenset())
        fit(state, step, plan, batches, cadence, dict, lambda row: None, lambda: None)

    return run


def _bare(settings: config.Config, splits: data.Splits) -> Callable[[int], None]:
    device = torch.device("cpu")
    state, _ = build(settings, splits, device, Precision("fp32", device))
    images, labels = next(data.TrainBatches(splits, settings, device).epoch(0))

    def run(updates: int) -> None:
        for _ in range(updates):
            F.cross_entropy(state.network(images), labels).backward()  # type: ignore[no-untyped-call]
            state.optimizer.step()
            state.optimizer.zero_grad()

    return run


if __name__ == "__main__":
    main()
