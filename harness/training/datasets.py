"""Data sets as splits: training, validation and test images.

`harness/choices/datasets.py` names them.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar
from urllib.error import URLError

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.config import extensions, registry
from harness.config.errors import ConfigError
from harness.config.fields import show
from harness.config.schema import Config, Dataset, DatasetShape
from harness.config.warnings import warn_once
from harness.training import image_files

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

S = TypeVar("S", bound="Source")


class Source(Protocol):
    """Labelled images of one size: in memory, or on disk."""

    @property
    def labels(self) -> NDArray[np.int64]: ...

    @property
    def channels(self) -> int: ...

    @property
    def image_size(self) -> int: ...

    def statistics(self) -> Statistics:
        """Return mean and standard deviation of each channel, in units of pixel values."""
        ...

    def subset(self, index: NDArray[np.int64]) -> Self: ...

    def image(self, index: int, whole: bool) -> Tensor:
        """Return uint8 (height, width, channels); `whole`: as it is stored, of any size."""
        ...

    def digest(self) -> str:
        """Return the SHA-256 of all that a batch can hold: pixels (or files) and labels, in their order."""
        ...


Arrays = tuple[NDArray[np.uint8] | Sequence[str | Path], NDArray[np.int64]]  # images and labels
Statistics = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class InMemoryImages:
    """Images in memory: uint8 `pixels` (images, height, width, channels), int64 `labels`."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def channels(self) -> int:
        return int(self.pixels.shape[3])

    @property
    def image_size(self) -> int:
        return int(self.pixels.shape[1])

    def statistics(self) -> Statistics:
        return _statistics(self.pixels)

    def subset(self, index: NDArray[np.int64]) -> Self:
        return type(self)(self.pixels[index], self.labels[index])

    def image(self, index: int, whole: bool) -> Tensor:
        return torch.from_numpy(self.pixels[index])

    def digest(self) -> str:
        whole = hashlib.sha256(repr(self.pixels.shape).encode())
        whole.update(self.pixels.tobytes())
        whole.update(self.labels.tobytes())
        return whole.hexdigest()


@dataclass(frozen=True)
class ImageFiles:
    """Image files, decoded by worker processes: resized, and the centre cut out."""

    root: Path
    paths: NDArray[np.object_]  # below `root`
    contents: NDArray[np.object_]  # the SHA-256 of each file
    labels: NDArray[np.int64]
    image_size: int
    workers: int
    channels: ClassVar[int] = 3

    def statistics(self) -> Statistics:
        """Return those of ImageNet."""
        mean, std = _IMAGENET_MEAN, _IMAGENET_STD
        return tuple(255 * m for m in mean), tuple(255 * s for s in std)

    def image(self, index: int, whole: bool) -> Tensor:
        path = self.root / self.paths[index]
        return image_files.decode(path, None if whole else self.image_size)

    def subset(self, index: NDArray[np.int64]) -> Self:
        parts = {name: getattr(self, name)[index] for name in ("paths", "contents", "labels")}
        return replace(self, **parts)

    def digest(self) -> str:
        whole = hashlib.sha256(f"{image_files.DECODING} {self.image_size}".encode())
        for path, content, label in zip(self.paths, self.contents, self.labels, strict=True):
            whole.update(os.fsencode(path) + f"\0{label}\0{content}\n".encode())
        return whole.hexdigest()


@dataclass(frozen=True)
class Splits:
    """Training, validation and test images, and what networks and batches need to know of them."""

    train: Source
    val: Source
    test: Source | None
    classes: int
    channels: int
    image_size: int
    mean: tuple[float, ...]  # a value a channel, in units of pixel values
    std: tuple[float, ...]
    sha256: str  # of what weights and histories follow from: `train` and `val`
    test_sha256: str | None

    @property
    def shape(self) -> DatasetShape:
        return DatasetShape(len(self.train.labels), self.channels, self.image_size, self.classes)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the numbers of images."""
        sets = {"train": self.train, "val": self.val, "test": self.test}
        return {name: len(images.labels) for name, images in sets.items() if images is not None}


def _shape_as_read(dataset: Dataset) -> DatasetShape:
    """Return the shape of the training images that `dataset` reads. Raises `ConfigError`."""
    train, _, names = _read_once(dataset)
    channels, size = train.channels, train.image_size
    return DatasetShape(len(train.labels), channels, size, len(names))


@lru_cache(maxsize=2)
def _read_once(dataset: Dataset) -> tuple[Source, Source | None, Sequence[str]]:
    return read(dataset)


def read(dataset: Dataset) -> tuple[Source, Source | None, Sequence[str]]:
    """Return what `dataset` reads; of an extension, its arrays or paths as images. Raises `ConfigError`."""
    if not extensions.source(dataset):
        return dataset.read()  # type: ignore[return-value]  # those of the package read no arrays
    own = f"dataset={registry.kind(dataset)}"
    with extensions.own_code(dataset, "read"):
        found: Any = dataset.read()
    sets, names = _parts(own, found)
    for images, labels in sets:
        _check_labels(own, len(images), labels, names)
    if isinstance(sets[0][0], np.ndarray):
        train, *test = [_in_memory(own, *one) for one in sets]
        if test and test[0].pixels.shape[1:] != train.pixels.shape[1:]:
            raise ConfigError(
                f"{own}: read gives test images of {test[0].pixels.shape[1:]}; must be as those to train "
                f"on, {train.pixels.shape[1:]}"
            )
        return train, test[0] if test else None, names
    size, workers = getattr(dataset, "image_size", None), getattr(dataset, "workers", 0)
    if size is None or dataset.in_memory:
        raise ConfigError(
            f"{own}: read gives paths, which need a field image_size (pixels), and in_memory = False"
        )
    return read_image_folder(dataset, image_files.listed(names, sets), size, workers)


def _parts(own: str, found: Any) -> tuple[list[tuple[Any, NDArray[Any]]], list[str]]:
    """Return the sets that an extension has read, each images and labels, and its classes. Raises `ConfigError`."""
    match found:
        case ((_, _) as train, None | (_, _) as test, list() | tuple() as names):
            sets = [train] if test is None else [train, test]
        case _:
            raise ConfigError(
                f"{own}: read gives {_outline(found)}; must be (images, labels), the same of test images or "
                "None, and a list of the names of the classes"
            )
    for images, _ in sets:
        paths = isinstance(images, list | tuple) and all(isinstance(p, str | Path) for p in images)
        array = isinstance(images, np.ndarray)
        if not (paths or array) or array != isinstance(sets[0][0], np.ndarray):
            raise ConfigError(
                f"{own}: read gives images as {_outline(images)}; must be uint8 arrays, or lists of paths"
            )
        if len(images) == 0:
            raise ConfigError(f"{own}: read gives no images; of test images it may give None")
    if len(names) < 2:
        raise ConfigError(f"{own}: read gives {len(names)} class; must be two or more")
    return [(images, np.asarray(labels)) for images, labels in sets], [*map(str, names)]


def _outline(found: Any) -> str:
    """Return the types of what was found, as (ndarray, NoneType)."""
    if isinstance(found, tuple):
        return f"({', '.join(map(_outline, found))})"
    return type(found).__name__


def _check_labels(own: str, images: int, labels: NDArray[Any], names: Sequence[str]) -> None:
    if labels.dtype.kind not in "iu" or labels.shape != (images,):
        raise ConfigError(
            f"{own}: read gives labels of {labels.dtype} {labels.shape}; must be whole numbers ({images},)"
        )
    if strange := sorted({*np.unique(labels).tolist()} - {*range(len(names))}):
        raise ConfigError(f"{own}: read gives the label {strange[0]}, and {len(names)} classes")


def _in_memory(own: str, pixels: NDArray[Any], labels: NDArray[Any]) -> InMemoryImages:
    """Return arrays of an extension as images. Raises `ConfigError` for what no network could be shown."""
    square = pixels.ndim == 4 and pixels.shape[1] == pixels.shape[2]
    if pixels.dtype != np.uint8 or not square:
        raise ConfigError(
            f"{own}: read gives pixels of {pixels.dtype} {pixels.shape}; must be uint8 (images, size, size, channels)"
        )
    return InMemoryImages(np.ascontiguousarray(pixels), labels.astype(np.int64))


def load(dataset: Dataset) -> Splits:
    """Return the splits of `dataset`. Those of the last two in memory are kept between runs.

    Raises `ConfigError` if the data cannot be had, or the sizes of the splits do not fit it.
    """
    return _load_once(dataset) if dataset.in_memory else _load(dataset)  # files may change


@lru_cache(maxsize=2)
def _load_once(dataset: Dataset) -> Splits:
    return _load(dataset)


def _load(dataset: Dataset) -> Splits:
    once = dataset.in_memory and extensions.source(dataset)
    train, test, names = _read_once(dataset) if once else read(dataset)
    rng = np.random.default_rng(dataset.split_seed)
    if (test_size := dataset.test_split()) is not None:
        test, train = stratified_split(train, test_size, "test_size", names, rng)
    val, train = stratified_split(train, dataset.val_size, "val_size", names, rng)
    if dataset.train_size is not None:
        train, _ = stratified_split(train, dataset.train_size, "train_size", names, rng)
    mean, std = train.statistics()
    shaping = hashlib.sha256("".join(part.digest() for part in (train, val)).encode())
    return Splits(
        train, val, test, len(names), train.channels, train.image_size, mean, std,
        shaping.hexdigest(), None if test is None else test.digest(),
    )  # fmt: skip


TORCHVISION_SHAPES = {  # training images before the validation split, and their shape
    "mnist": DatasetShape(60_000, 1, 28, 10),
    "fashion_mnist": DatasetShape(60_000, 1, 28, 10),
    "cifar10": DatasetShape(50_000, 3, 32, 10),
    "cifar100": DatasetShape(50_000, 3, 32, 100),
    "svhn": DatasetShape(73_257, 3, 32, 10),
}


_TEST_IMAGES = {"svhn": 26_032}  # 10,000 in the others


def training_shape(dataset: Dataset) -> DatasetShape:
    """Return the shape of what is trained on, without reading an image. Raises `ConfigError`."""
    whole = dataset.shape() or _shape_as_read(dataset)
    return replace(whole, train=training_images(dataset, whole.train))


def training_images(dataset: Dataset, images: int) -> int:
    """Return how many of `images` are left to train on. Raises `ConfigError` for sizes that do not fit."""
    if (test_size := dataset.test_split()) is not None:
        images -= split_size(test_size, images, "test_size")
    images -= split_size(dataset.val_size, images, "val_size")
    if dataset.train_size is not None:
        images = split_size(dataset.train_size, images, "train_size")
    return images


def refuse_without_test(config: Config) -> None:
    """Raise `ConfigError` for a claim about the test set where there is none."""
    metric, dataset = config.claim.metric, config.dataset
    if not metric.startswith("test/"):
        return
    missing = dataset.missing_test()
    if missing is None and dataset.shape() is None and _read_once(dataset)[1] is None:
        missing = f"dataset={registry.kind(dataset)} has no test images; have read return some"
    if missing:
        instead = metric.replace("test/", "val/", 1)
        raise ConfigError(f"claim.metric={metric}: {missing}, or use claim.metric={instead}")


def updates_per_epoch(images: int, batch_size: int, accumulate: int) -> int:
    """Return how many updates `images` training images make, each of `accumulate` full batches.

    Raises `ConfigError` for none.
    """
    if batch_size > images:
        raise ConfigError(
            f"trainer.batch_size={batch_size}: "
            f"must be at most the number of training images, {images}"
        )
    if batch_size * accumulate > images:
        raise ConfigError(
            f"optimizer.accumulate={accumulate}: must be at most {images // batch_size}, the batches of "
            f"trainer.batch_size={batch_size} in {images} training images"
        )
    return images // (batch_size * accumulate)


def split_size(size: float, images: int, name: str) -> int:
    """Return how many of `images` images `dataset.NAME=size` takes. Raises `ConfigError` for a misfit."""
    key = f"dataset.{name}={show(size)}"
    if size >= 1 and size != int(size):
        raise ConfigError(f"{key}: must be a share below 1 or a whole number of images")
    wanted = round(size * images) if size < 1 else int(size)
    if not 0 < wanted <= images - (name != "train_size"):
        there = f"there are {images}" + ("" if name == "train_size" else ", and some must be left")
        raise ConfigError(f"{key}: takes {wanted} images, {there}")
    return wanted


def stratified_split(
    source: S, size: float, name: str, classes: Sequence[str], rng: np.random.Generator
) -> tuple[S, S]:
    """Return `size` images (a share if below 1) of `source`, of each class its part, and the rest."""
    labels = source.labels
    wanted = split_size(size, len(labels), name)
    counts = np.bincount(labels, minlength=len(classes))
    exact = counts * wanted / len(labels)
    take = np.floor(exact).astype(np.int64)
    take[np.argsort(take - exact, kind="stable")[: wanted - take.sum()]] += 1
    empty = np.flatnonzero((take == 0) | ((take == counts) & (name != "train_size")))
    if len(empty):
        label = int(empty[np.argmin(counts[empty])])
        why = _why_empty(classes[label], counts, label, bool(take[label]))
        raise ConfigError(f"dataset.{name}={show(size)}: {why}")
    order = rng.permutation(len(labels))
    place = np.empty(len(labels), dtype=np.int64)  # of each image among its own class
    for label, count in enumerate(counts):
        place[order[labels[order] == label]] = np.arange(count)
    chosen = place < take[labels]
    return source.subset(np.flatnonzero(chosen)), source.subset(np.flatnonzero(~chosen))


def _why_empty(name: str, counts: NDArray[np.int64], label: int, all_taken: bool) -> str:
    """Return why a split leaves the class `name` without an image on one side, and the fix."""
    count, images = int(counts[label]), int(counts.sum())
    if count < 2:
        has = "one image" if count else "no image"
        return f"class {name} has {has}, and each part needs one; add some"
    enough = -(-images // int(counts.min()))  # where each class's exact part is at least one image
    if all_taken:
        return f"takes all {count} images of class {name}; at most {images - enough} leave some of each class"
    return f"takes none of the {count} images of class {name}; {enough} take some of each class"


def _statistics(pixels: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, from exact counts of the 256 values."""
    values = np.arange(256)
    counts = np.stack(
        [np.bincount(pixels[..., c].ravel(), minlength=256) for c in range(pixels.shape[3])]
    )
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ values
    std = np.sqrt(share @ values**2 - mean**2)
    if not std.all():
        raise ConfigError(
            f"dataset: channel {int(np.argmin(std))} has the same value in all images"
        )
    return tuple(mean.tolist()), tuple(std.tolist())


# --- reading -------------------------------------------------------------------------------------


def read_digits() -> InMemoryImages:
    """Return what sklearn.datasets.load_digits reads, without the second that its import takes."""
    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "datasets/data/digits.csv.gz"
    table = np.loadtxt(path, delimiter=",", dtype=np.int64)
    return InMemoryImages(table[:, :-1].reshape(-1, 8, 8, 1).astype(np.uint8), table[:, -1])


def make_synthetic(shape: DatasetShape, noise: float, seed: int) -> InMemoryImages:
    """Return noisy copies of one random template a class, `shape.train` images in all."""
    rng = np.random.default_rng(seed)
    size = (shape.image_size, shape.image_size, shape.channels)
    labels = np.arange(shape.train) % shape.classes
    templates = rng.standard_normal((shape.classes, *size), dtype=np.float32)
    noises = rng.standard_normal((shape.train, *size), dtype=np.float32)
    values = 128 + 24 * (templates[labels] + noise * noises)
    return InMemoryImages(np.clip(values, 0, 255).astype(np.uint8), labels)


def read_torchvision(
    name: str, root: Path, download: bool, train: bool
) -> tuple[InMemoryImages, Sequence[str]]:
    """Return the training or the test images, and the names of their classes. Raises `ConfigError`."""
    from torchvision import datasets

    names: Sequence[str] = [str(label) for label in range(TORCHVISION_SHAPES[name].classes)]
    try:
        match name:
            case "svhn":
                data: Any = datasets.SVHN(
                    root, split="train" if train else "test", download=download
                )
                pixels, labels = data.data.transpose(0, 2, 3, 1), data.labels
            case _:
                classes = {
                    "mnist": datasets.MNIST,
                    "fashion_mnist": datasets.FashionMNIST,
                    "cifar10": datasets.CIFAR10,
                    "cifar100": datasets.CIFAR100,
                }
                data = classes[name](root, train=train, download=download)
                pixels, labels, names = np.asarray(data.data), data.targets, data.classes
        pixels = pixels if pixels.ndim == 4 else pixels[..., None]
        labels = np.asarray(labels, dtype=np.int64)
        _check_torchvision(name, train, pixels, labels)
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        raise ConfigError(_why_unreadable(name, root, download, error)) from error
    return InMemoryImages(np.ascontiguousarray(pixels), labels), names


def fetch(name: str, root: Path, download: bool) -> None:
    """Download a data set of which nothing is in `root`, before a run needs it. Raises `ConfigError`."""
    folder = _FILES[name]
    if not any(root.glob(folder if "*" in folder else f"{folder}/*")):
        for train in (True, False):
            read_torchvision(name, root, download, train)


def _why_unreadable(name: str, root: Path, download: bool, error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".") or "a file of another kind"
    place = Path(root, _FILES[name])
    urlopen = re.search(r"<urlopen error (.*?)>", reason)
    offline = isinstance(error, URLError | ConnectionError | TimeoutError)
    if download and (offline or urlopen or reason.startswith("Error downloading")):
        script = "run scripts/fetch_fashion_mnist.sh, " * (name == "fashion_mnist")
        return (
            f"dataset={name}: cannot be downloaded ({urlopen[1] if urlopen else reason}); without a network {script}put "
            f"its files into {place}, or set HARNESS_DATA to the folder that has them; dataset=digits needs no download"
        )
    fix = "put them there, set dataset.root, or dataset.download=true"
    if download:
        fix = "remove them, and they are downloaded again, or set dataset.root"
    if name == "fashion_mnist":
        fix = "scripts/fetch_fashion_mnist.sh fetches it"
    return (
        f"dataset.root={root}: {name} cannot be read there ({reason}); "
        f"its files are looked for in {place}; {fix}"
    )


_FILES = {  # below dataset.root
    "mnist": "MNIST/raw",
    "fashion_mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "svhn": "*_32x32.mat",
}


def _check_torchvision(
    name: str, train: bool, pixels: NDArray[np.uint8], labels: NDArray[np.int64]
) -> None:
    """Raise ValueError for files that hold another data set than `name`."""
    whole = TORCHVISION_SHAPES[name]
    images = whole.train if train else _TEST_IMAGES.get(name, 10_000)
    shape = (images, whole.image_size, whole.image_size, whole.channels)
    if pixels.shape != shape:
        raise ValueError(f"images of shape {pixels.shape} in place of {shape}")
    if len(labels) != images:
        raise ValueError(f"{images} images, {len(labels)} labels")
    if (strange := set(range(whole.classes)) ^ set(np.unique(labels).tolist())) != set():
        raise ValueError(f"label {min(strange)} is missing, or is of no class")


def read_image_folder(
    dataset: Dataset, found: image_files.Folder, image_size: int, workers: int
) -> tuple[ImageFiles, ImageFiles | None, Sequence[str]]:
    """Return the images that were `found`, each of which has been decoded once, now or before."""
    seen = image_files.check(found, workers)

    def files(part: image_files.Part) -> ImageFiles:
        return ImageFiles(
            found.root,
            np.array(part.paths, dtype=object),
            np.array([seen[path].sha256 for path in part.paths], dtype=object),
            part.labels,
            image_size,
            workers,
        )

    _describe(dataset, found, seen)
    return files(found.train), files(found.test) if found.test else None, found.classes


def _describe(
    dataset: Dataset, found: image_files.Folder, seen: dict[str, image_files.Seen]
) -> None:
    """Say what there is, once in this process, and warn of what is probably not meant."""
    images = len(found.train.paths)
    train, tested = training_images(dataset, images), len(found.test.paths) if found.test else 0
    if (test_size := dataset.test_split()) is not None:
        tested = split_size(test_size, images, "test_size")
        images -= tested
    val = split_size(dataset.val_size, images, "val_size")
    test = f"{tested:,} to test" if tested else "none to test: no test/, no dataset.test_size"
    left_out = f"; left out: {image_files.say_left_out(found.left_out)}" if found.left_out else ""
    place = f".root={found.root}" if hasattr(dataset, "root") else f"={registry.kind(dataset)}"
    _say(
        f"dataset{place}: {len(found.classes)} classes, {train:,} images to train, "
        f"{val:,} to validate, {test}{left_out}"
    )
    several = [path for path in found.paths if seen[path].frames > 1]
    if several:
        warn_once(
            f"{len(several):,} files hold several frames, of which the first counts, as {several[0]}"
        )
    if not found.test:
        return
    trained = {seen[path].sha256 for path in found.train.paths}
    both = [path for path in found.test.paths if seen[path].sha256 in trained]
    if both:
        warn_once(f"{len(both):,} images of test/ are in train/ too, as {both[0]}")
    if lacking := np.setdiff1d(found.train.labels, found.test.labels).tolist():
        warn_once(f"test/ has no image of {len(lacking)} classes, as {found.classes[lacking[0]]}")


@cache
def _say(line: str) -> None:
    print(line, file=sys.stderr)
