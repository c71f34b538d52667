"""Augmentation: of one image through torchvision; crops and mirror images of a batch by one indexed copy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor

from harness.config.errors import ConfigError
from harness.config.schema import Config, Dataset
from harness.training.datasets import InMemoryImages, Splits

Transform = Callable[[Tensor], Tensor]  # of uint8 (channels, height, width)


@dataclass(frozen=True)
class PerImage:
    """What is done to each image by itself, before crops and mirror images.

    What becomes of it follows from (seed, epoch, index), not from its batch, its process or the order.
    """

    seed: int
    transforms: tuple[Transform, ...]
    crops: bool  # it takes images of any size

    @classmethod
    def of(cls, config: Config, splits: Splits) -> Self | None:
        """Return what `config` has done to each training image; None for nothing. Raises `ConfigError`."""
        dataset, train = config.dataset, splits.train
        if dataset.resized_crop is dataset.rand_augment is dataset.erase is None:
            return None
        if dataset.rand_augment is not None and splits.channels not in (1, 3):
            raise ConfigError(
                f"dataset.rand_augment={dataset.rand_augment}: needs images of 1 or 3 channels, these have "
                f"{splits.channels}; set dataset.rand_augment=null"
            )
        largest = int(train.pixels.max()) if isinstance(train, InMemoryImages) else 255
        steps = _transforms(dataset, splits.image_size, splits.mean, largest)
        return cls(config.seed, steps, dataset.resized_crop is not None)

    def __call__(self, image: Tensor, epoch: int, index: int) -> Tensor:
        """Return the image `index`, uint8 (height, width, channels), as it is in epoch `epoch`."""
        digest = hashlib.sha256(f"{self.seed}/{epoch}/{index}".encode()).digest()
        image = image.permute(2, 0, 1)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.default_generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            for transform in self.transforms:
                image = transform(image)
        return image.permute(1, 2, 0)


def _transforms(
    dataset: Dataset, image_size: int, mean: Sequence[float], largest: int
) -> tuple[Transform, ...]:
    """Return what is done to each image, in this order.

    `mean` is the pixel value of each channel to erase with, `largest` the largest that images have.
    """
    from torchvision.transforms import v2

    found: list[Transform] = []
    if dataset.resized_crop is not None:
        found.append(v2.RandomResizedCrop(image_size, scale=(dataset.resized_crop, 1.0)))
    if dataset.rand_augment is not None:
        randomly = v2.RandAugment(num_ops=2, magnitude=dataset.rand_augment)
        factor = 255 // largest  # its operations are made for pixels of 0 to 255
        found.append(randomly if factor == 1 else partial(_scaled, randomly, factor))
    if dataset.erase is not None:
        found.append(v2.RandomErasing(dataset.erase, value=[round(value) for value in mean]))
    return tuple(found)


def _scaled(transform: Transform, factor: int, image: Tensor) -> Tensor:
    return (transform(image * factor) / factor).round().to(torch.uint8)


@dataclass(frozen=True)
class CropFlip:
    """Where the crop begins and whether it is mirrored, for each image of an epoch, in its order.

    `dy`, `dx` (int64, in pixels of the padded image) and `flip` (bool), each of shape (images,).
    """

    dy: Tensor
    dx: Tensor
    flip: Tensor

    def __getitem__(self, part: slice | Tensor) -> CropFlip:
        return CropFlip(self.dy[part], self.dx[part], self.flip[part])

    def to(self, device: torch.device) -> CropFlip:
        return CropFlip(self.dy.to(device), self.dx.to(device), self.flip.to(device))


def sample(images: int, crop: int, flip: bool, generator: torch.Generator) -> CropFlip:
    """Return those of `images` images, drawn on the CPU: the same on every device."""
    dy, dx = torch.randint(0, 2 * crop + 1, (2, images), generator=generator)
    mirrored = torch.rand(images, generator=generator) < (0.5 if flip else 0.0)
    return CropFlip(dy, dx, mirrored)


def apply(padded: Tensor, index: Tensor, moves: CropFlip, size: tuple[int, int]) -> Tensor:
    """Return the images `padded[index]`, cut to `size` and mirrored as `moves` say.

    `padded` is uint8 (images, height + 2 crop, width + 2 crop, channels), `index` int64 (batch,).
    Returns uint8 (batch, height, width, channels): one gather, no loop, no synchronisation.
    """
    height, width = size
    device = padded.device
    rows = moves.dy[:, None] + torch.arange(height, device=device)
    across = torch.arange(width, device=device)
    columns = moves.dx[:, None] + torch.where(moves.flip[:, None], width - 1 - across, across)
    return padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]
