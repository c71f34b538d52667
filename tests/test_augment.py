"""Random crops and mirror images, against a naive reimplementation; single images, against plain torchvision."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import make_config
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2

from harness.config.errors import ConfigError
from harness.training import augment
from harness.training import datasets as data
from harness.training.augment import CropFlip, PerImage
from harness.training.datasets import InMemoryImages


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


# --- image by image ------------------------------------------------------------------------------

COLOUR = ("dataset=synthetic", "dataset.image_size=16", "dataset.channels=3", "dataset.crop=0")


def per_image(*overrides: str, images: np.ndarray | None = None) -> PerImage:
    """What `overrides` have done to `images`, or to those of the data set."""
    config = make_config(*overrides)
    splits = data.load(config.dataset)
    if images is not None:
        train = InMemoryImages(images, np.zeros(len(images), dtype=np.int64))
        splits = dataclasses.replace(splits, train=train, image_size=images.shape[1])
    found = PerImage.of(config, splits)
    assert found is not None
    return found


def seeded(seed: int, epoch: int, index: int) -> None:
    digest = hashlib.sha256(f"{seed}/{epoch}/{index}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "big") // 2)


CROP, RAND, ERASE = "dataset.resized_crop=0.3", "dataset.rand_augment=9", "dataset.erase=0.9"
GREY = [131.0, 122.0, 140.0]  # nearly the mean of the invented images
STEPS: dict[str, tuple[tuple[str, ...], list[Callable[[Tensor], Tensor]]]] = {
    "resized crop": ((CROP,), [v2.RandomResizedCrop(16, (0.3, 1.0), (3 / 4, 4 / 3))]),
    "RandAugment": ((RAND,), [v2.RandAugment(2, 9, 31)]),
    "erasing": ((ERASE,), [v2.RandomErasing(0.9, (0.02, 0.33), (0.3, 3.3), GREY)]),
    "all": (
        (CROP, RAND, ERASE),
        [v2.RandomResizedCrop(16, (0.3, 1.0)), v2.RandAugment(2, 9), v2.RandomErasing(0.9, value=GREY)],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given", "steps"), STEPS.values(), ids=STEPS)
def test_an_image_is_augmented_as_by_plain_torchvision_under_its_own_seed(
    given: tuple[str, ...], steps: list[Callable[[Tensor], Tensor]]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    config = make_config(*COLOUR, "seed=3", *given)
    splits = dataclasses.replace(data.load(config.dataset), mean=tuple(g + 0.4 for g in GREY))
    augmented = PerImage.of(config, splits)
    augmented = pickle.loads(pickle.dumps(augmented))  # noqa: S301 - as for a worker process
    assert augmented is not None
    changed = 0
    for index, pixels in enumerate(map(torch.from_numpy, images)):
        seeded(3, 7, index)
        expected = pixels.permute(2, 0, 1).contiguous()
        for step in steps:
            expected = step(expected)
        found = augmented(pixels, 7, index)
        assert found.dtype == torch.uint8
        assert torch.equal(found, expected.permute(1, 2, 0))
        changed += not torch.equal(found, pixels)
    assert changed > 10


def test_a_resized_crop_is_at_least_the_given_share_of_the_image() -> None:
    """Where the crop lies is in the pixels: their value is the row, or the column."""
    rows, columns = np.mgrid[0:64, 0:64] * 4
    image = np.stack([rows, columns, 0 * rows], 2).astype(np.uint8)
    augmented = per_image(*COLOUR, "dataset.resized_crop=0.25", images=image[None])
    sizes = []
    for index in range(400):
        cropped = augmented(torch.from_numpy(image), 0, index).double()
        height, width = ((cropped[..., c].max() - cropped[..., c].min()).item() for c in (0, 1))
        sizes.append(((height / 4 + 1) / 64, (width / 4 + 1) / 64))
    share = np.array([height * width for height, width in sizes])
    ratio = np.array([width / height for height, width in sizes])
    rounded = 2.5 / 32  # pixels, and interpolation at the borders
    assert 0.25 * (1 - 2 * rounded) < share.min() < 0.3
    assert 0.9 < share.max() <= 1
    assert 3 / 4 - 2 * rounded < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 4 / 3 + 2 * rounded


def test_as_many_images_are_erased_as_is_asked_for() -> None:
    image = np.zeros((1, 16, 16, 3), dtype=np.uint8)
    augmented = per_image(*COLOUR, "dataset.erase=0.25", images=image)
    shares = [
        (augmented(torch.from_numpy(image[0]), 0, i) > 0).double().mean().item()
        for i in range(1000)
    ]
    boxes = [share for share in shares if share]
    assert len(boxes) == pytest.approx(250, abs=70)  # five standard deviations
    assert 0 < min(boxes) < 0.05
    assert 0.3 < max(boxes) < 0.37


def test_rand_augment_takes_the_largest_pixel_of_small_values_for_white() -> None:
    """The digits have pixels of 0 to 16: as they are, the operations would move them far beyond."""
    config = make_config("dataset=digits", RAND)
    splits = data.load(config.dataset)
    augmented = PerImage.of(config, splits)
    assert augmented is not None
    assert isinstance(splits.train, InMemoryImages)
    changed = 0
    for index, pixels in enumerate(map(torch.from_numpy, splits.train.pixels[:100])):
        seeded(0, 0, index)
        bright = v2.RandAugment(2, 9)(pixels.permute(2, 0, 1) * 15)
        found = augmented(pixels, 0, index)
        assert torch.equal(found, (bright.double() / 15).round().to(torch.uint8).permute(1, 2, 0))
        assert found.max() <= 17
        changed += not torch.equal(found, pixels)
    assert changed > 50


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_small_grey_images_can_be_augmented(size: int) -> None:
    small = ("dataset=synthetic", f"dataset.image_size={size}", "dataset.rand_augment=30")
    augmented = per_image(*small, CROP, ERASE)
    pixels = torch.full((size, size, 1), 200, dtype=torch.uint8)
    for index in range(100):
        assert augmented(pixels, 0, index).shape == (size, size, 1)


def test_rand_augment_of_images_of_other_channels_is_refused() -> None:
    """Its change of colour is of one channel or of three."""
    config = make_config(*COLOUR, RAND)
    splits = dataclasses.replace(data.load(config.dataset), channels=4)
    with pytest.raises(ConfigError) as error:
        PerImage.of(config, splits)
    assert str(error.value) == (
        "dataset.rand_augment=9: needs images of 1 or 3 channels, these have 4; "
        "set dataset.rand_augment=null"
    )


def test_nothing_is_done_to_single_images_unless_it_is_asked_for() -> None:
    config = make_config("dataset=digits")
    assert PerImage.of(config, data.load(config.dataset)) is None
