"""What users would write instead: the same training by a `DataLoader`, in a plain loop or by Lightning.

A usual program augments image by image with torchvision's v2 transforms and keeps torch's defaults.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import FashionMNIST
from torchvision.transforms import v2

from harness.training.models import ResNet

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGES = 10_000  # to train on, and as many to validate on
BATCH = 128
LR, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4
_MEAN, _STD = (0.286,), (0.353,)

Batches = DataLoader[tuple[Tensor, Tensor]]
Epoch = Callable[
    [], tuple[float, float]
]  # → seconds with validation, validation accuracy in percent


def loaders(workers: int, images: int = IMAGES) -> tuple[Batches, Batches]:
    """Return `images` of Fashion-MNIST to train on, as many to validate on, read and augmented one by one."""
    moved, plain = transforms(28, 2, _MEAN, _STD)
    root = str(ROOT / "data")
    train = Subset(FashionMNIST(root, transform=moved), range(images))
    val = Subset(FashionMNIST(root, transform=plain), range(images, 2 * images))
    own: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
    return (
        DataLoader(train, BATCH, shuffle=True, drop_last=True, **own),
        DataLoader(val, 1000, **own),
    )


def transforms(
    size: int, padding: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[v2.Compose, v2.Compose]:
    """Return what is done to each image for training, with crops and mirror images, and for validation."""
    plain: list[Any] = [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(mean, std),
    ]
    moved = [v2.RandomCrop(size, padding=padding), v2.RandomHorizontalFlip(), *plain]
    return v2.Compose(moved), v2.Compose(plain)


def train_epoch(
    batches: Batches, network: nn.Module, optimizer: torch.optim.Optimizer, scheduler: LRScheduler
) -> None:
    """Train as the loop of a tutorial does; on a GPU in bfloat16, with batches that are copied meanwhile."""
    device = next(network.parameters()).device
    network.train()
    for images, labels in batches:
        images = images.to(device, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()


def plain(workers: int, epochs: int, images: int = IMAGES, width: int = 16) -> Epoch:
    """Train as the loop of a tutorial does."""
    train, val = loaders(workers, images)
    network = ResNet(8, width, 1, 10)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    scheduler = CosineAnnealingLR(optimizer, epochs * len(train))

    def epoch() -> tuple[float, float]:
        begin = time.perf_counter()
        train_epoch(train, network, optimizer, scheduler)
        network.eval()
        correct = 0
        with torch.no_grad():
            for batch, labels in val:
                correct += int((network(batch).argmax(1) == labels).sum())
        return time.perf_counter() - begin, 100 * correct / images

    return epoch


def lightning(workers: int, epochs: int) -> Epoch:
    """Train the same as a `LightningModule`; a trainer's own start and end are not counted."""
    import logging

    import lightning as pl

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    train, val = loaders(workers)
    trained, state = _lightning_module(epochs * len(train)), None
    folder = ROOT / "outputs/bench"

    def epoch() -> tuple[float, float]:
        nonlocal state
        done = 0 if state is None else state["epoch"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = pl.Trainer(
                accelerator="cpu", max_epochs=done + 1, num_sanity_val_steps=0, logger=False,
                enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
                default_root_dir=folder,
            )  # fmt: skip
            path = folder / f"last-{workers}.ckpt"
            trainer.fit(trained, train, val, ckpt_path=path if state else None)
            trainer.save_checkpoint(path)
        state = {"epoch": done + 1}
        return trained.seconds, trained.accuracy

    return epoch


def _lightning_module(updates: int) -> Any:
    """Return the network as a `LightningModule`, with the `seconds` and the `accuracy` (%) of its last epoch."""
    import lightning as pl

    class Classifier(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network: nn.Module = ResNet(8, 16, 1, 10)
            self.seconds = self.accuracy = 0.0

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            images, labels = batch
            return F.cross_entropy(self.network(images), labels)

        def validation_step(self, batch: list[Tensor], index: int) -> None:
            images, labels = batch
            hits = (self.network(images).argmax(1) == labels).float().mean()
            self.log("val/acc", 100 * hits, batch_size=len(labels))

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(
                self.network.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
            )
            scheduler = CosineAnnealingLR(optimizer, updates)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

        def on_train_epoch_start(self) -> None:
            self.begin = time.perf_counter()

        def on_train_epoch_end(self) -> None:  # validation has ended
            self.seconds = time.perf_counter() - self.begin
            self.accuracy = float(self.trainer.callback_metrics["val/acc"])

    return Classifier()


def main() -> None:
    """`epochs` of the plain loop in this process, as one of several side by side: images/s."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("epochs", type=int)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    epoch = plain(0, arguments.epochs)
    seconds = [epoch()[0] for _ in range(arguments.epochs)]
    print(IMAGES // BATCH * BATCH * len(seconds) / sum(seconds))


if __name__ == "__main__":
    main()
