"""Batches as functions of (seed, epoch, index)."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from harness.config.errors import ConfigError
from harness.config.schema import Config
from harness.training import augment
from harness.training.augment import PerImage
from harness.training.datasets import ImageFiles, InMemoryImages, Source, Splits, updates_per_epoch
from harness.training.distributed import SINGLE_PROCESS, World

_EVAL_BATCH = {
    "cpu": 125,
    "cuda": 2000,
    "xpu": 2000,
    "mps": 2000,
}  # on CPUs small batches stay in the cache
_AT_ONCE = 2**24  # bytes of training batches that a GPU makes together: small ones wait for the CPU
_ALIGNED = 512  # bytes: where tensors begin on a GPU, on which their arithmetic may depend


@dataclass(frozen=True)
class Normalise:
    """uint8 (batch, height, width, channels) → float32 (batch, channels, height, width)."""

    mean: Tensor
    scale: Tensor
    channels_last: bool

    @classmethod
    def of(cls, splits: Splits, device: torch.device, channels_last: bool) -> Normalise:
        mean = torch.tensor(splits.mean, dtype=torch.float32, device=device)
        std = torch.tensor(splits.std, dtype=torch.float32, device=device)
        return cls(mean, 1 / std, channels_last)

    def __call__(self, pixels: Tensor) -> Tensor:
        images = pixels.float().sub_(self.mean).mul_(self.scale).permute(0, 3, 1, 2)
        return images if self.channels_last else images.contiguous()


def _generator(seed: int, epoch: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class _FromMemory:
    """Batches of resident images: all pixels, padded once, with the rows that a batch takes."""

    def __init__(
        self, source: InMemoryImages, batch_size: int, crop: int, device: torch.device
    ) -> None:
        self.pixels = _pad(torch.from_numpy(source.pixels), crop).to(device)
        self.labels = torch.from_numpy(source.labels).to(device)
        self.batch_size = batch_size

    def __call__(self, order: Tensor, epoch: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for rows in torch.split(order.to(self.pixels.device), self.batch_size):
            yield self.pixels, rows, self.labels[rows]


class _Images(Dataset[tuple[Tensor, int]]):
    """Images and labels one by one; an item is (epoch, index)."""

    def __init__(self, source: Source, per_image: PerImage | None) -> None:
        self.source, self.per_image = source, per_image
        self.whole = per_image is not None and per_image.crops

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = item
        image = self.source.image(index, self.whole)
        if self.per_image is not None:
            image = self.per_image(image, epoch, index)
        return image, int(self.source.labels[index])


class _OneByOne:
    """Batches of images that are read or augmented one by one: the pixels of one batch, and all their rows."""

    def __init__(self, images: _Images, batch_size: int, crop: int, device: torch.device) -> None:
        import torchvision.transforms.v2.functional  # noqa: F401 - W&B's import hooks fail in workers

        self.images, self.crop, self.device = images, crop, device
        self.order = _Order(batch_size)
        workers = images.source.workers if isinstance(images.source, ImageFiles) else 0
        self.loader: DataLoader[tuple[Tensor, int]] = DataLoader(
            images,
            batch_sampler=self.order,
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # or each epoch would draw from the network's own
            pin_memory=device.type == "cuda",
        )

    def __call__(self, order: Tensor, epoch: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        self.order.epoch, self.order.images = epoch, order
        for pixels, labels in self._loaded():
            padded = _pad(pixels.to(self.device, non_blocking=True), self.crop)
            rows = torch.arange(len(labels), device=self.device)
            yield padded, rows, labels.to(self.device, non_blocking=True)

    def beside(self) -> _OneByOne:
        """Return one with worker processes of its own."""
        return _OneByOne(self.images, self.order.batch_size, self.crop, self.device)

    def _loaded(self) -> Iterator[tuple[Tensor, Tensor]]:
        try:
            yield from self.loader
        except ConfigError as error:  # a worker's comes with its traceback in the message
            raise ConfigError(str(error).rpartition("ConfigError: ")[2].strip()) from None
        except (EOFError, ConnectionError) as error:  # torch may read before it sees that one died
            raise RuntimeError("DataLoader worker ended while it sent images") from error


class _Order(Sampler[list[tuple[int, int]]]):
    """The batches of the images that were asked for last, each as (epoch, index)."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.epoch, self.images = 0, torch.empty(0, dtype=torch.int64)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for rows in torch.split(self.images, self.batch_size):
            yield [(self.epoch, row) for row in rows.tolist()]

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)


def _pad(pixels: Tensor, crop: int) -> Tensor:
    return F.pad(pixels, (0, 0, crop, crop, crop, crop)) if crop else pixels


def _fetcher(
    source: Source,
    batch_size: int,
    crop: int,
    device: torch.device,
    per_image: PerImage | None = None,
    at_once: int = 1,
) -> _FromMemory | _OneByOne:
    if isinstance(source, InMemoryImages) and per_image is None:
        return _FromMemory(source, at_once * batch_size, crop, device)
    return _OneByOne(_Images(source, per_image), batch_size, crop, device)


def _batches_at_once(batch_size: int, splits: Splits) -> int:
    size = 4 * batch_size * splits.channels * splits.image_size**2
    return max(1, _AT_ONCE // size) if size % _ALIGNED == 0 else 1


class TrainBatches:
    """The training batches of every epoch: a function of (seed, epoch, index), on any device.

    An update takes `accumulate` batches. Each epoch takes the images in a new order and leaves out the
    last ones, too few for an update. Of each batch, this process of `world` gets its part.
    """

    def __init__(
        self, splits: Splits, config: Config, device: torch.device, world: World = SINGLE_PROCESS
    ) -> None:
        self.images = len(splits.train.labels)
        self.batch_size = config.trainer.batch_size
        self.accumulate = config.optimizer.accumulate
        self.updates_per_epoch = updates_per_epoch(self.images, self.batch_size, self.accumulate)
        self.shard = world.shard(self.batch_size)
        self.seed, self.crop, self.flip = config.seed, config.dataset.crop, config.dataset.flip
        self.size = (splits.image_size, splits.image_size)
        self.device = device
        self.normalise = Normalise.of(splits, device, config.trainer.channels_last)
        self.own_size = self.shard.stop - self.shard.start
        per_image = PerImage.of(config, splits)
        at_once = _batches_at_once(self.own_size, splits) if device.type == "cuda" else 1
        self.fetch = _fetcher(splits.train, self.own_size, self.crop, device, per_image, at_once)

    def beside(self) -> TrainBatches:
        """Return the same batches, to be read while an epoch of these is under way."""
        if isinstance(self.fetch, _FromMemory):
            return self
        other = copy.copy(self)
        other.fetch = self.fetch.beside()
        return other

    def last(self, images: int) -> Iterator[Tensor]:
        """Yield the images of the last updates of the first epoch, as many as take `images` of all processes."""
        updates = -(-images // (self.batch_size * self.accumulate))
        return (own for own, _ in self.epoch(0, max(0, self.updates_per_epoch - updates)))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images and labels of epoch `epoch`, batch by batch, from update `start` of it on."""
        generator = _generator(self.seed, epoch)
        size = self.batch_size * self.accumulate
        used = torch.arange(start * size, self.updates_per_epoch * size)
        own = used.view(-1, self.batch_size)[:, self.shard].flatten()
        order = torch.randperm(self.images, generator=generator)[own]
        moves = augment.sample(self.images, self.crop, self.flip, generator)[own].to(self.device)
        begin = 0
        for padded, rows, labels in self.fetch(order, epoch):
            part = slice(begin, begin + len(rows))
            begin = part.stop
            images = self.normalise(augment.apply(padded, rows, moves[part], self.size))
            parts = (torch.split(whole, self.own_size) for whole in (images, labels))
            yield from zip(*parts, strict=True)


class EvalBatches:
    """All images of a split, in order, without augmentation; the part of this process of `world`."""

    def __init__(
        self,
        source: Source,
        splits: Splits,
        config: Config,
        device: torch.device,
        world: World = SINGLE_PROCESS,
    ) -> None:
        self.images = len(source.labels)
        self.own = torch.arange(self.images)[world.shard(self.images)]
        self.normalise = Normalise.of(splits, device, config.trainer.channels_last)
        self.fetch = _fetcher(source, _EVAL_BATCH[device.type], 0, device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not len(self.own):
            return
        for padded, rows, labels in self.fetch(self.own):
            yield self.normalise(padded[rows]), labels
