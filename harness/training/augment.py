"""Batched augmentation: random crops and mirror images of a whole batch by one indexed copy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
