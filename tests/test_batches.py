"""Batches, against naive reimplementations: a function of seed, epoch and index."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_config
from sklearn.datasets import load_digits
from test_datasets import CPU, batches, equal, in_memory, labelled, make, make_synthetic, pixels
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from harness.config.schema import Config
from harness.training import datasets as data
from harness.training.batches import (
    EvalBatches,
    TrainBatches,
    _batches_at_once,
    _FromMemory,
    _generator,
)
from harness.training.datasets import InMemoryImages, Splits


@pytest.fixture(scope="module")
def augmented() -> tuple[Config, Splits]:
    return make("dataset=digits", "dataset.crop=2", "dataset.flip=true")


PER_IMAGE = ("dataset.resized_crop=0.3", "dataset.rand_augment=9", "dataset.erase=0.5")


@pytest.fixture(scope="module", params=["crop and flip", "per image"])
def either(
    request: pytest.FixtureRequest, augmented: tuple[Config, Splits]
) -> tuple[Config, Splits]:
    """Images augmented by the batch, or one by one too."""
    if request.param == "crop and flip":
        return augmented
    return make_synthetic("dataset.crop=0", "dataset.flip=true", *PER_IMAGE)


@pytest.mark.parametrize("part", [0.0, 0.03, 0.5, 0.97])
def test_an_epoch_from_a_batch_on_is_the_tail_of_the_epoch(
    either: tuple[Config, Splits], part: float
) -> None:
    whole = batches(*either, epoch=3)
    assert len(whole) in (1150 // 32, 128 // 32)
    start = int(part * len(whole))
    assert equal(batches(*either, epoch=3, start=start), whole[start:])


def test_an_image_is_augmented_alike_in_batches_of_any_size() -> None:
    def shown(size: int) -> dict[tuple[int, bytes], int]:
        config, splits = make_synthetic("dataset.crop=0", *PER_IMAGE, f"trainer.batch_size={size}")
        every = batches(config, splits, epoch=2)
        images, labels = (torch.cat(parts) for parts in zip(*every, strict=True))
        return labelled(InMemoryImages(pixels(images, splits), labels.numpy()))

    assert shown(32) == shown(8) == shown(128)


def test_batches_are_a_function_of_seed_and_epoch(either: tuple[Config, Splits]) -> None:
    config, splits = either
    torch.manual_seed(1)
    first = batches(config, splits)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert equal(batches(config, splits), first)
    assert torch.equal(torch.get_rng_state(), state)
    next_epoch = batches(config, splits, epoch=1)
    next_seed = batches(dataclasses.replace(config, seed=1), splits)
    assert not equal(next_epoch, first)
    assert not equal(next_seed, first)
    assert not equal(next_seed, next_epoch)


def test_the_order_of_the_epochs_asked_for_does_not_matter(
    either: tuple[Config, Splits],
) -> None:
    config, splits = either
    train = TrainBatches(splits, config, CPU)
    list(islice(train.epoch(7), 3))
    assert equal(list(train.epoch(2)), batches(config, splits, epoch=2))


def test_an_epoch_holds_every_image_at_most_once_with_its_own_label() -> None:
    config, splits = make_synthetic("trainer.batch_size=25")
    assert len(splits.train.labels) == 128
    taken: Counter[tuple[int, bytes]] = Counter()
    for images, labels in batches(config, splits):
        assert labels.dtype == torch.int64
        assert images.shape == (25, 1, 8, 8)
        taken += labelled(InMemoryImages(pixels(images, splits), labels.numpy()))
    assert taken.total() == 125
    assert max(taken.values()) == 1
    assert taken < labelled(splits.train)


def test_batches_of_updates_that_take_several_are_those_of_large_ones() -> None:
    config, splits = make_synthetic(
        "trainer.batch_size=10", "optimizer.accumulate=3", "dataset.crop=1"
    )
    large, _ = make_synthetic("trainer.batch_size=30", "dataset.crop=1")
    for start in (0, 2):
        small = list(TrainBatches(splits, config, CPU).epoch(1, start))
        whole = list(TrainBatches(splits, large, CPU).epoch(1, start))
        assert len(small) == 3 * len(whole) == 3 * (4 - start), "of 128 images, 8 are left out"
        for number, batch in enumerate(whole):
            images, labels = zip(*small[3 * number : 3 * number + 3], strict=True)
            assert equal([(torch.cat(images), torch.cat(labels))], [batch])


def test_the_images_that_an_epoch_leaves_out_change() -> None:
    config, splits = make_synthetic("trainer.batch_size=25")
    held: Counter[tuple[int, bytes]] = Counter()
    for epoch in range(8):
        for images, labels in batches(config, splits, epoch):
            held += labelled(InMemoryImages(pixels(images, splits), labels.numpy()))
    assert set(held) == set(labelled(splits.train))


def test_every_augmented_image_is_a_crop_of_its_padded_original(
    augmented: tuple[Config, Splits],
) -> None:
    config, splits = augmented
    possible: set[tuple[int, bytes]] = set()
    for image, label in zip(in_memory(splits.train).pixels, splits.train.labels, strict=True):
        possible |= {(int(label), crop) for crop in crops(image)}
    for images, labels in batches(config, splits):
        taken = labelled(InMemoryImages(pixels(images, splits), labels.numpy()))
        assert set(taken) <= possible


@pytest.mark.parametrize("overrides", ["dataset=digits", "dataset=synthetic dataset.channels=3"])
def test_normalised_training_images_have_mean_0_and_deviation_1(overrides: str) -> None:
    config, splits = make(*overrides.split())
    every = torch.cat([x for x, _ in EvalBatches(splits.train, splits, config, CPU)]).double()
    by_channel = every.transpose(0, 1).flatten(1)
    zero = torch.zeros(splits.channels, dtype=torch.float64)
    torch.testing.assert_close(by_channel.mean(1), zero, rtol=0, atol=1e-6)
    torch.testing.assert_close(by_channel.std(1, correction=0), zero + 1, rtol=0, atol=1e-6)


def test_evaluation_shows_every_image_once_in_order() -> None:
    config, splits = make("dataset=digits")
    shown = list(EvalBatches(splits.val, splits, config, CPU))
    images, labels = (torch.cat(parts) for parts in zip(*shown, strict=True))
    assert np.array_equal(pixels(images, splits), in_memory(splits.val).pixels)
    assert np.array_equal(labels.numpy(), splits.val.labels)


def test_channels_last_is_a_layout_and_no_other_values() -> None:
    config, splits = make_synthetic("dataset.channels=3", "dataset.crop=1")
    plain = make_config("trainer.channels_last=false").trainer
    other = dataclasses.replace(config, trainer=dataclasses.replace(plain, batch_size=32))
    last, first = batches(config, splits), batches(other, splits)
    assert equal(last, first)
    assert last[0][0].stride() == (3 * 8 * 8, 1, 8 * 3, 3)
    assert first[0][0].stride() == (3 * 8 * 8, 8 * 8, 8, 1)
    for config_, stride in ((config, (192, 1, 24, 3)), (other, (192, 64, 8, 1))):
        images, _ = next(iter(EvalBatches(splits.val, splits, config_, CPU)))
        assert images.stride() == stride


@pytest.mark.parametrize("flip", ["true", "false"])
def test_images_and_places_in_the_order_are_cropped_anew_in_every_epoch(flip: str) -> None:
    config, splits = make_synthetic(
        "dataset.crop=2", f"dataset.flip={flip}", "trainer.batch_size=8"
    )
    train = TrainBatches(splits, config, CPU)
    of_image, of_place = (np.full((4, 128), -1) for _ in range(2))
    for epoch in range(4):
        order = torch.randperm(train.images, generator=_generator(config.seed, epoch))
        shown = pixels(torch.cat([images for images, _ in train.epoch(epoch)]), splits)
        for place, (image, index) in enumerate(zip(shown, order.tolist(), strict=True)):
            move = crops(in_memory(splits.train).pixels[index]).index(image.tobytes())
            of_image[epoch, index] = of_place[epoch, place] = move
    for moves in (of_image, of_place):
        assert moves.min() >= 0
        different = [len(set(column)) for column in moves.T]
        assert np.mean(different) > 3.5  # of 4 epochs, among 25 or 50 moves


def crops(image: np.ndarray) -> list[bytes]:
    """All crops of an image of 8 x 8 that is padded by two pixels, plain and mirrored."""
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    plain = [padded[dy : dy + 8, dx : dx + 8] for dy in range(5) for dx in range(5)]
    return [crop.tobytes() for crop in (*plain, *(crop[:, ::-1] for crop in plain))]


@pytest.mark.parametrize("model", ["resnet8", "resnet18"])
@pytest.mark.parametrize("channels_last", ["true", "false"])
def test_batches_and_the_forward_pass_stay_on_the_gpu_and_wait_for_nothing(
    augmented: tuple[Config, Splits], model: str, channels_last: str
) -> None:
    """Under FakeTensorMode a CPU tensor in the way raises, and so does whatever needs a value."""
    config = make_config(
        f"model={model}", f"trainer.channels_last={channels_last}", "dataset.flip=true"
    )
    _, splits = augmented
    cuda = torch.device("cuda")
    with FakeTensorMode():
        with cuda:
            network = config.model.build(splits.shape)
        train = TrainBatches(splits, config, cuda).epoch(0)
        val = iter(EvalBatches(splits.val, splits, config, cuda))
        for images, labels in (next(train), next(train), next(val)):
            logits = network(images)
            assert {images.device.type, labels.device.type, logits.device.type} == {"cuda"}
            assert logits.shape == (len(labels), 10)


@pytest.mark.parametrize(
    ("mistake", "error"),
    [
        pytest.param(lambda x: x + torch.zeros(1, 1, 8, 8), RuntimeError, id="mixed devices"),
        pytest.param(lambda x: x.sum().item(), DataDependentOutputException, id="item"),
        pytest.param(lambda x: bool(x.sum() > 0), DataDependentOutputException, id="condition"),
        pytest.param(lambda x: x[x > 0], DynamicOutputShapeException, id="masking"),
    ],
)
def test_pretended_gpu_tensors_show_mixed_devices_and_synchronisation(
    mistake: Callable[[Tensor], Any], error: type[Exception]
) -> None:
    with FakeTensorMode(), pytest.raises(error):
        mistake(torch.zeros(2, 1, 8, 8, device="cuda"))


def test_batches_that_are_made_together_are_the_same(augmented: tuple[Config, Splits]) -> None:
    config, splits = augmented
    train = TrainBatches(splits, config, CPU)
    assert isinstance(train.fetch, _FromMemory)
    train.fetch.batch_size *= 3
    assert len(list(train.epoch(1))) % 3
    assert equal(list(train.epoch(1)), batches(config, splits, epoch=1))
    assert equal(list(train.epoch(1, start=4)), batches(config, splits, epoch=1, start=4))


@pytest.mark.parametrize(
    ("batch_size", "together"),
    [
        pytest.param(128, 2**24 // (4 * 128 * 8 * 8), id="small"),
        pytest.param(2**20, 1, id="large"),
        pytest.param(3, 1, id="others would begin elsewhere than tensors of their own"),
    ],
)
def test_a_gpu_makes_batches_together_up_to_a_size(
    augmented: tuple[Config, Splits], batch_size: int, together: int
) -> None:
    assert _batches_at_once(batch_size, augmented[1]) == together


@pytest.mark.gpu
def test_batches_are_the_same_on_the_gpu(either: tuple[Config, Splits]) -> None:
    config, splits = either
    on_gpu = TrainBatches(splits, config, torch.device("cuda")).epoch(1)
    for (images, labels), (x, y) in zip(on_gpu, batches(config, splits, epoch=1), strict=True):
        torch.testing.assert_close(images.cpu(), x, rtol=1e-6, atol=1e-6)
        assert torch.equal(labels.cpu(), y)


def test_the_digits_are_those_of_scikit_learn() -> None:

    reported, read = load_digits(), data.read_digits()
    assert (read.pixels[..., 0] == reported.images).all()
    assert (read.labels == reported.target).all()
    assert read.pixels.dtype == np.uint8
