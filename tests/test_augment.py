"""Random crops and mirror images, against a naive reimplementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from harness.training import augment
from harness.training.augment import CropFlip


@given(st.data())
def test_cut_is_a_crop_and_a_mirror_image_of_each_image(given: st.DataObject) -> None:
    number = given.draw
    images, batch = number(st.integers(1, 4)), number(st.integers(1, 5))
    height, width, channels = (number(st.integers(1, most)) for most in (5, 5, 3))
    crop = number(st.integers(0, 3))
    shape = (images, height + 2 * crop, width + 2 * crop, channels)
    padded = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))

    def each(values: st.SearchStrategy[int]) -> Tensor:
        return torch.tensor(number(st.lists(values, min_size=batch, max_size=batch)))

    index, dy, dx, flip = (
        each(st.integers(0, most)) for most in (images - 1, 2 * crop, 2 * crop, 1)
    )
    cut = augment.apply(padded, index, CropFlip(dy, dx, flip.bool()), (height, width))
    for i in range(batch):
        naive = padded[index[i], dy[i] : dy[i] + height, dx[i] : dx[i] + width]
        assert torch.equal(cut[i], naive.flip(1) if flip[i] else naive)


@pytest.mark.parametrize("flip", [True, False])
def test_crops_take_every_pair_of_offsets_with_either_side_alike_often(flip: bool) -> None:
    """Offsets that hang together, or on the flip, would show some crops too often, others never."""
    moves = augment.sample(50_000, 2, flip, torch.Generator().manual_seed(0))
    kinds = (moves.dy * 5 + moves.dx) * 2 + moves.flip.long()
    counts = torch.bincount(kinds, minlength=50).view(25, 2)
    drawn = counts if flip else counts[:, :1]
    assert counts.sum() == drawn.sum()
    expected = 50_000 / drawn.numel()
    assert (drawn - expected).abs().max() < 5 * expected**0.5  # five standard deviations


@pytest.mark.parametrize("flip", [True, False])
def test_moves_take_every_offset_and_mirror_half_of_the_images_or_none(flip: bool) -> None:
    moves = augment.sample(10_000, 2, flip, torch.Generator().manual_seed(0))
    for offsets in (moves.dy, moves.dx):
        counts = torch.bincount(offsets, minlength=5)
        assert len(counts) == 5
        assert (counts - 2000).abs().max() < 200  # five standard deviations
    assert moves.flip.sum().item() == pytest.approx(5000 * flip, abs=250)
    again = augment.sample(10_000, 2, flip, torch.Generator().manual_seed(0))
    assert torch.equal(moves.dy, again.dy)
    assert torch.equal(moves.flip, again.flip)
