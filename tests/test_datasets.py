"""Splits, batches and augmentation, against naive reimplementations where there is one."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_config, need
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from harness.choices.datasets import TorchvisionDataset
from harness.config.errors import ConfigError
from harness.config.schema import Config, DatasetShape
from harness.training import datasets as data
from harness.training import image_files
from harness.training.batches import EvalBatches, TrainBatches
from harness.training.datasets import InMemoryImages, Source, Splits

CPU = torch.device("cpu")
Batch = tuple[Tensor, Tensor]


def make(*overrides: str) -> tuple[Config, Splits]:
    config = make_config("trainer.batch_size=32", *overrides)
    return config, data.load(config.dataset)


def make_synthetic(*overrides: str) -> tuple[Config, Splits]:
    sizes = ("dataset.images=200", "dataset.image_size=8", "dataset.classes=4")
    return make("dataset=synthetic", *sizes, *overrides)


def batches(config: Config, splits: Splits, epoch: int = 0, start: int = 0) -> list[Batch]:
    return list(TrainBatches(splits, config, CPU).epoch(epoch, start))


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) and torch.equal(x, y)
        for (a, x), (b, y) in zip(first, second, strict=True)
    )


def pixels(images: Tensor, splits: Splits) -> np.ndarray:
    """Normalised images back as uint8 (images, height, width, channels)."""
    values = images.permute(0, 2, 3, 1) * torch.tensor(splits.std) + torch.tensor(splits.mean)
    assert (values - values.round()).abs().max() < 1e-3
    return values.round().to(torch.uint8).numpy()


def in_memory(source: Source | None) -> InMemoryImages:
    assert isinstance(source, InMemoryImages)
    return source


def labelled(source: Source | None) -> Counter[tuple[int, bytes]]:
    images = in_memory(source)
    return Counter((int(y), x.tobytes()) for x, y in zip(images.pixels, images.labels, strict=True))


# --- splits --------------------------------------------------------------------------------------


def test_the_splits_of_the_digits_are_all_of_the_digits_once() -> None:
    _, splits = make("dataset=digits")
    digits = load_digits()
    everything = InMemoryImages(digits.images.astype(np.uint8), digits.target)
    parts = [labelled(part) for part in (splits.train, splits.val, splits.test)]
    assert parts[0] + parts[1] + parts[2] == labelled(everything)


@pytest.mark.parametrize(
    ("overrides", "train", "val", "test"),
    [
        pytest.param("", 1150, 288, 359, id="shares: of what is left"),
        pytest.param("dataset.val_size=100 dataset.test_size=97", 1600, 100, 97, id="counts"),
        pytest.param("dataset.train_size=0.5", 575, 288, 359, id="half of the training set"),
        pytest.param("dataset.train_size=50", 50, 288, 359, id="fifty images"),
        pytest.param("dataset.train_size=1150", 1150, 288, 359, id="all, as a count"),
    ],
)
def test_splits_have_the_wanted_sizes_and_every_class_its_part(
    overrides: str, train: int, val: int, test: int
) -> None:
    _, splits = make("dataset=digits", *overrides.split())
    share = np.bincount(load_digits().target) / 1797
    parts = in_memory(splits.train), in_memory(splits.val), in_memory(splits.test)
    for part, size in zip(parts, (train, val, test), strict=True):
        assert len(part.labels) == size
        assert np.abs(np.bincount(part.labels) - share * size).max() <= 2


def test_a_smaller_training_set_leaves_validation_and_test_alone() -> None:
    _, whole = make("dataset=digits")
    _, half = make("dataset=digits", "dataset.train_size=0.5")
    assert half.val.digest() == whole.val.digest()
    assert in_memory(half.test).digest() == in_memory(whole.test).digest()
    assert labelled(half.train) < labelled(whole.train)


def test_splits_follow_from_split_seed_only() -> None:
    _, splits = make("dataset=digits")
    _, same = make("dataset=digits", "seed=5", "dataset.crop=3", "dataset.flip=true")
    _, other = make("dataset=digits", "dataset.split_seed=1")
    assert same.sha256 == splits.sha256
    assert other.sha256 != splits.sha256
    assert labelled(other.val) != labelled(splits.val)


def test_loading_does_not_touch_the_global_generators() -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].tolist()  # noqa: NPY002
    make("dataset=digits", "dataset.split_seed=77")
    make_synthetic("dataset.split_seed=77")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before[1]  # noqa: NPY002


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        pytest.param(
            "dataset.val_size=2.5",
            "dataset.val_size=2.5: must be a share below 1 or a whole number of images",
            id="two and a half images",
        ),
        pytest.param(
            "dataset.val_size=1438",
            "dataset.val_size=1438: takes 1438 images, there are 1438, and some must be left",
            id="no training images",
        ),
        pytest.param(
            "dataset.test_size=5000",
            "dataset.test_size=5000: takes 5000 images, there are 1797, and some must be left",
            id="more than there are",
        ),
        pytest.param(
            "dataset.val_size=0.0001",
            "dataset.val_size=0.0001: takes 0 images, there are 1438, and some must be left",
            id="less than one image",
        ),
        pytest.param(
            "dataset.val_size=9",
            "dataset.val_size=9: takes none of the 139 images of class 8; 11 take some of each class",
            id="nine images for ten classes",
        ),
        pytest.param(
            "dataset.val_size=1432",
            "dataset.val_size=1432: takes all 139 images of class 8; at most 1427 leave some of each class",
            id="six training images for ten classes",
        ),
        pytest.param(
            "dataset.train_size=5",
            "dataset.train_size=5: takes none of the 111 images of class 8; 11 take some of each class",
            id="five of all training images",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(overrides: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make("dataset=digits", *overrides.split())
    assert str(error.value) == message


@pytest.mark.parametrize("size", [11, 1427])
def test_the_size_that_a_refusal_names_is_enough(size: int) -> None:
    _, splits = make("dataset=digits", f"dataset.val_size={size}")
    for part in (splits.train, splits.val):
        assert np.bincount(part.labels, minlength=10).all()


def assert_outlined(config: Config, splits: Splits) -> None:
    expected = DatasetShape(
        len(splits.train.labels), splits.channels, splits.image_size, splits.classes
    )
    assert data.training_shape(config.dataset) == expected


@pytest.mark.parametrize(
    "overrides",
    [
        "dataset=digits",
        "dataset=digits dataset.val_size=100 dataset.test_size=97 dataset.train_size=0.3",
        "dataset=synthetic dataset.channels=3 dataset.image_size=5 dataset.classes=3 dataset.train_size=77",
    ],
)
def test_the_outline_of_a_data_set_is_that_of_its_splits(overrides: str) -> None:
    assert_outlined(*make(*overrides.split()))


def test_a_batch_larger_than_the_training_set_is_refused() -> None:
    config, splits = make("dataset=digits", "trainer.batch_size=1151")
    with pytest.raises(ConfigError) as error:
        TrainBatches(splits, config, CPU)
    assert str(error.value) == (
        "trainer.batch_size=1151: must be at most the number of training images, 1150"
    )


def test_images_without_any_contrast_are_refused() -> None:
    with pytest.raises(ConfigError, match="channel 1 has the same value in all images"):
        data._statistics(
            np.stack([np.arange(4), np.full(4, 7)], -1).astype(np.uint8)[:, None, None]
        )


@pytest.mark.parametrize("dataset", ["fashion_mnist", "mnist", "cifar10", "cifar100", "svhn"])
def test_data_that_is_not_there_is_refused_with_the_mend(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        make(f"dataset={dataset}", f"dataset.root={tmp_path}", "dataset.download=false")
    looked_for = {
        "fashion_mnist": "FashionMNIST/raw; scripts/fetch_fashion_mnist.sh fetches it",
        "mnist": "MNIST/raw; put them there, set dataset.root, or dataset.download=true",
        "cifar10": "cifar-10-batches-py; put them there, set dataset.root, or dataset.download=true",
        "cifar100": "cifar-100-python; put them there, set dataset.root, or dataset.download=true",
        "svhn": "*_32x32.mat; put them there, set dataset.root, or dataset.download=true",
    }
    assert str(error.value).startswith(f"dataset.root={tmp_path}: {dataset} cannot be read there (")
    assert str(error.value).endswith(
        f"its files are looked for in {tmp_path}/{looked_for[dataset]}"
    )
    assert "\n" not in str(error.value)


def test_fashion_mnist_is_what_its_authors_say() -> None:
    config = make_config("dataset=fashion_mnist", "dataset.download=false")
    assert isinstance(config.dataset, TorchvisionDataset)
    raw = Path(config.dataset.root) / "FashionMNIST" / "raw"
    need(
        (raw / "train-images-idx3-ubyte").exists(),
        f"Fashion-MNIST is not in {raw.parent.parent}: run scripts/fetch_fashion_mnist.sh",
    )
    splits = data.load(config.dataset)
    assert_outlined(config, splits)
    parts = in_memory(splits.train), in_memory(splits.val), in_memory(splits.test)
    assert [part.pixels.shape for part in parts] == [
        (50_000, 28, 28, 1), (10_000, 28, 28, 1), (10_000, 28, 28, 1),
    ]  # fmt: skip
    assert [np.bincount(part.labels).tolist() for part in parts] == [
        [5_000] * 10, [1_000] * 10, [1_000] * 10,
    ]  # fmt: skip
    assert parts[2].labels[:4].tolist() == [
        9,
        2,
        1,
        1,
    ]  # ankle boot, pullover, trousers, trousers
    assert np.array(splits.mean) / 255 == pytest.approx(0.2860, abs=1e-3)
    assert np.array(splits.std) / 255 == pytest.approx(0.3530, abs=1e-3)


# --- the content's hash --------------------------------------------------------------------------


def test_the_digest_changes_with_one_pixel_and_with_one_label() -> None:
    _, splits = make("dataset=digits")
    source = in_memory(splits.train)
    brighter, relabelled = source.pixels.copy(), source.labels.copy()
    brighter[-1, -1, -1, -1] ^= 1
    relabelled[-1] = (relabelled[-1] + 1) % 10
    swapped = source.subset(np.roll(np.arange(len(source.labels)), 1))
    same = InMemoryImages(source.pixels.copy(), source.labels.copy())
    changed = [
        InMemoryImages(brighter, source.labels),
        InMemoryImages(source.pixels, relabelled),
        swapped,
    ]
    assert same.digest() == source.digest()
    assert len({source.digest(), *(other.digest() for other in changed)}) == 4


# --- image folders -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 real digits of three classes as PNG files: 40 of each to train, 10 to test."""
    root = tmp_path_factory.mktemp("folder")
    digits = load_digits()
    for label in range(3):
        images = digits.images[digits.target == label][:50].astype(np.uint8) * 15
        for i, image in enumerate(images):
            path = root / ("train" if i < 40 else "test") / f"class{label}" / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return root


def make_folder(root: Path, *overrides: str) -> tuple[Config, Splits]:
    common = ("dataset=image_folder", f"dataset.root={root}", "dataset.image_size=8")
    return make(*common, "dataset.workers=0", "dataset.crop=1", *overrides)


def test_an_image_folder_is_read_as_it_is(folder: Path) -> None:
    config, splits = make_folder(folder)
    assert (splits.classes, splits.channels, splits.image_size) == (3, 3, 8)
    assert_outlined(config, splits)
    assert splits.test is not None
    assert [len(p.labels) for p in (splits.train, splits.val, splits.test)] == [108, 12, 30]
    images, labels = next(iter(EvalBatches(splits.test, splits, config, CPU)))
    digits = load_digits()
    expected = [digits.images[digits.target == label][40:50] * 15 for label in range(3)]
    assert np.array_equal(labels, np.repeat(np.arange(3), 10))
    for channel in range(3):
        assert np.array_equal(pixels(images, splits)[..., channel], np.concatenate(expected))


def test_larger_images_are_resized_and_their_centre_is_cut_out(tmp_path: Path) -> None:
    stripes = np.zeros((8, 24), dtype=np.uint8)
    stripes[:, 8:16] = 200  # the middle square
    Image.fromarray(stripes).resize((96, 32), Image.Resampling.NEAREST).save(tmp_path / "wide.png")
    decoded = image_files.decode(tmp_path / "wide.png", 8)
    assert decoded.shape == (8, 8, 3)
    assert decoded.dtype == torch.uint8
    assert (decoded[:, 1:-1] == 200).all()
    assert image_files.decode(tmp_path / "wide.png", None).shape == (32, 96, 3)


def test_resized_crops_are_of_the_whole_file(folder: Path, tmp_path: Path) -> None:
    """The centre alone would never show what is left and right of it."""
    root = Path(shutil.copytree(folder, tmp_path / "wide"))
    stripes = np.tile(np.arange(96, dtype=np.uint8), (32, 1))
    for path in root.glob("train/*/*.png"):
        Image.fromarray(stripes).save(path)
    config, splits = make_folder(root, "dataset.crop=0", "dataset.resized_crop=0.1")
    shown = np.concatenate([pixels(images, splits) for images, _ in batches(config, splits)])
    assert shown.shape[1:] == (8, 8, 3)
    assert shown.min() < 10
    assert shown.max() > 85


PER_IMAGE = ("dataset.crop=0", "dataset.resized_crop=0.3", "dataset.rand_augment=9", "dataset.erase=0.5")  # fmt: skip


@pytest.mark.parametrize(("start", "augmented"), [(0, ()), (2, ()), (2, PER_IMAGE)])
def test_worker_processes_change_nothing(
    folder: Path, start: int, augmented: tuple[str, ...]
) -> None:
    alone = make_folder(folder, *augmented)
    two = make_folder(folder, "dataset.workers=2", *augmented)
    assert alone[1].sha256 == two[1].sha256
    train = TrainBatches(two[1], two[0], CPU)
    next(train.epoch(5))  # left in the middle, as at the end of a budget
    for epoch in (0, 1):
        assert equal(list(train.epoch(epoch, start)), batches(*alone, epoch, start))


@pytest.mark.parametrize("augmented", [(), PER_IMAGE], ids=["crop and flip", "per image"])
def test_streamed_batches_are_those_of_the_same_images_in_memory(
    folder: Path, augmented: tuple[str, ...]
) -> None:
    config, splits = make_folder(folder, "dataset.flip=true", *augmented)
    train = splits.train
    decoded = np.stack([train.image(i, whole=False).numpy() for i in range(len(train.labels))])
    resident = dataclasses.replace(splits, train=InMemoryImages(decoded, splits.train.labels))
    assert equal(batches(config, splits), batches(config, resident))


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_does_not_touch_the_global_generator(folder: Path, workers: int) -> None:
    config, splits = make_folder(folder, f"dataset.workers={workers}")
    state = torch.get_rng_state()
    batches(config, splits)
    list(EvalBatches(splits.val, splits, config, CPU))
    assert torch.equal(torch.get_rng_state(), state)


def test_an_image_folders_hash_is_its_content_wherever_it_lies(
    folder: Path, tmp_path: Path
) -> None:
    def sha256(root: Path) -> str:
        splits = make_folder(root)[1]
        return f"{splits.sha256} {splits.test_sha256}"

    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    before = sha256(folder)
    assert sha256(copied) == before
    path = copied / "train" / "class0" / "00.png"
    image = np.asarray(Image.open(path)).copy()
    image[0, 0] ^= 1
    Image.fromarray(image).save(path)
    changed = sha256(copied)
    assert changed != before
    path.rename(copied / "train" / "class1" / "relabelled.png")
    assert sha256(copied) not in (before, changed)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_breaks_while_a_run_lasts_is_named_in_one_line(
    folder: Path, tmp_path: Path, workers: int
) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    broken = copied / "test" / "class1" / "45.png"
    config, splits = make_folder(copied, f"dataset.workers={workers}")
    broken.write_bytes(broken.read_bytes()[:60])
    assert splits.test is not None
    with pytest.raises(ConfigError) as error:
        list(EvalBatches(splits.test, splits, config, CPU))
    assert str(error.value) == f"dataset.root: {broken} is not an image that can be read"


@pytest.mark.slow
def test_a_folder_without_training_images_is_refused_with_the_fix(
    folder: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    shutil.rmtree(copied / "train")
    with pytest.raises(ConfigError) as error:
        make_folder(copied)
    assert str(error.value).startswith(f"dataset.root={copied}: ")
    assert str(error.value).endswith(
        "needs train/CLASS/IMAGE or CLASS/IMAGE files; test is the name of a split: rename it, or add train/"
    )


@pytest.mark.parametrize("lacking", ["class0", "class1", "class2"])
@pytest.mark.parametrize("emptied", [True, False])
def test_a_test_set_that_lacks_a_class_keeps_the_labels_of_the_others(
    folder: Path, tmp_path: Path, lacking: str, emptied: bool
) -> None:
    """Numbering the classes of test/ by themselves would mislabel them."""
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    shutil.rmtree(copied / "test" / lacking)
    if emptied:
        (copied / "test" / lacking).mkdir()
    _, splits = make_folder(copied)
    assert isinstance(splits.test, data.ImageFiles)
    assert splits.classes == 3
    named = [path.split("/")[1] for path in splits.test.paths]
    assert Counter(named) == {f"class{n}": 10 for n in range(3) if f"class{n}" != lacking}
    assert [f"class{label}" for label in splits.test.labels] == named


def test_a_class_of_the_test_set_alone_is_refused(folder: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    shutil.copytree(copied / "test" / "class0", copied / "test" / "class00")
    with pytest.raises(ConfigError) as error:
        make_folder(copied)
    assert str(error.value) == f"dataset.root={copied}: test/class00 is a class that train/ lacks"
