"""Data sets as splits on the device, and batches as functions of (seed, epoch, index).

To add a data set: a dataclass in `config.py`, a case in `_read`, a file in `conf/dataset/`.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from harness.config import schema as conf
from harness.config.schema import ConfigError
from harness.training import augment, image_files
from harness.training.distributed import ALONE, World

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_EVAL_BATCH = {"cpu": 125, "cuda": 2000}  # on CPUs small batches stay in the cache

S = TypeVar("S", bound="Source")


class Source(Protocol):
    """Labelled images of one size: in memory, or on disk."""

    @property
    def labels(self) -> NDArray[np.int64]: ...

    def subset(self, index: NDArray[np.int64]) -> Self: ...

    def digest(self) -> str:
        """SHA-256 of all that a batch can hold: pixels (or files) and labels, in their order."""
        ...


@dataclass(frozen=True)
class Resident:
    """Images in memory: uint8 `pixels` (images, height, width, channels), int64 `labels`."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def subset(self, index: NDArray[np.int64]) -> Self:
        return type(self)(self.pixels[index], self.labels[index])

    def digest(self) -> str:
        whole = hashlib.sha256(repr(self.pixels.shape).encode())
        whole.update(self.pixels.tobytes())
        whole.update(self.labels.tobytes())
        return whole.hexdigest()


@dataclass(frozen=True)
class Streamed(Dataset[tuple[Tensor, int]]):
    """Image files, decoded by worker processes: resized, and the centre cut out."""

    root: Path
    paths: NDArray[np.object_]  # below `root`
    contents: NDArray[np.object_]  # the SHA-256 of each file
    labels: NDArray[np.int64]
    image_size: int
    workers: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = image_files.decode(self.root / self.paths[index], self.image_size)
        return image, int(self.labels[index])

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


def load(config: conf.Dataset) -> Splits:
    """The splits of `config`. Those of the last two data sets stay in memory between runs.

    Raises `ConfigError` if the data cannot be had, or the sizes of the splits do not fit it.
    """
    if isinstance(config, conf.ImageFolder):
        return _splits(config)  # its files may change from one run to the next
    return _load_resident(config)


@lru_cache(maxsize=2)
def _load_resident(config: conf.Dataset) -> Splits:
    return _splits(config)


def _splits(config: conf.Dataset) -> Splits:
    train, test, names = _read(config)
    rng = np.random.default_rng(config.split_seed)
    if isinstance(config, conf.Digits | conf.Synthetic):
        test, train = _cut(train, config.test_size, "test_size", names, rng)
    val, train = _cut(train, config.val_size, "val_size", names, rng)
    if config.train_size is not None:
        train, _ = _cut(train, config.train_size, "train_size", names, rng)
    match train:
        case Resident(pixels=pixels):
            image_size, channels = pixels.shape[1], pixels.shape[3]
            mean, std = _statistics(pixels)
        case Streamed(image_size=image_size):
            channels = 3
            mean = tuple(255 * m for m in _IMAGENET_MEAN)
            std = tuple(255 * s for s in _IMAGENET_STD)
    shaping = hashlib.sha256("".join(part.digest() for part in (train, val)).encode())
    return Splits(
        train, val, test, len(names), channels, image_size, mean, std,
        shaping.hexdigest(), test and test.digest(),
    )  # fmt: skip


@dataclass(frozen=True)
class Outline:
    """The shape of a data set: `train` images of (channels, image_size, image_size)."""

    train: int
    channels: int
    image_size: int
    classes: int


_TORCHVISION = {  # training images before the validation split, and their shape
    "mnist": Outline(60_000, 1, 28, 10),
    "fashion_mnist": Outline(60_000, 1, 28, 10),
    "cifar10": Outline(50_000, 3, 32, 10),
    "cifar100": Outline(50_000, 3, 32, 100),
    "svhn": Outline(73_257, 3, 32, 10),
}
_TEST_IMAGES = {"svhn": 26_032}  # 10,000 in the others


def outline(config: conf.Dataset) -> Outline:
    """What the splits of `config` will have, without reading an image. Raises `ConfigError`."""
    match config:
        case conf.Digits():
            whole = Outline(1797, 1, 8, 10)
        case conf.Synthetic():
            whole = Outline(config.images, config.channels, config.image_size, config.classes)
        case conf.TorchvisionDataset():
            whole = _TORCHVISION[config.name]
        case conf.ImageFolder():
            found = image_files.find(Path(config.root))
            whole = Outline(len(found.train.labels), 3, config.image_size, len(found.classes))
        case _:
            raise TypeError(f"no data for {type(config).__name__}")
    return replace(whole, train=_training_images(config, whole.train))


def _training_images(config: conf.Dataset, images: int) -> int:
    """How many of `images` are left to train on. Raises `ConfigError` for sizes that do not fit."""
    if isinstance(config, conf.Digits | conf.Synthetic):
        images -= _wanted(config.test_size, images, "test_size")
    images -= _wanted(config.val_size, images, "val_size")
    if config.train_size is not None:
        images = _wanted(config.train_size, images, "train_size")
    return images


def check(config: conf.Dataset) -> None:
    """Decode what has not been decoded before. Raises `ConfigError` for images that cannot be used."""
    if isinstance(config, conf.ImageFolder):
        image_files.check(image_files.find(Path(config.root)), config.workers)


def unchecked(config: conf.Dataset) -> int:
    """How many images `outline` has not looked at, and nobody has decoded before."""
    if isinstance(config, conf.ImageFolder):
        return image_files.unseen(image_files.find(Path(config.root)))
    return 0


def refuse_without_test(config: conf.Config) -> None:
    """Raises `ConfigError` for a claim about the test set where there is none."""
    if config.claim.metric == "test/acc" and isinstance(config.dataset, conf.ImageFolder):
        root = Path(config.dataset.root)
        if not image_files.has_test(root):
            raise ConfigError(
                f"claim.metric=test/acc: dataset.root={root} has no test/; "
                "add it, or use claim.metric=val/acc"
            )


def updates_per_epoch(images: int, batch_size: int) -> int:
    """How many full batches `images` training images make. Raises `ConfigError` for none."""
    if batch_size > images:
        raise ConfigError(
            f"trainer.batch_size={batch_size}: "
            f"must be at most the number of training images, {images}"
        )
    return images // batch_size


def _wanted(size: float, images: int, name: str) -> int:
    """How many of `images` images `dataset.NAME=size` takes. Raises `ConfigError` for a misfit."""
    key = f"dataset.{name}={size:g}"
    if size >= 1 and size != int(size):
        raise ConfigError(f"{key}: must be a share below 1 or a whole number of images")
    wanted = round(size * images) if size < 1 else int(size)
    if not 0 < wanted <= images - (name != "train_size"):
        there = f"there are {images}" + ("" if name == "train_size" else ", and some must be left")
        raise ConfigError(f"{key}: takes {wanted} images, {there}")
    return wanted


def _cut(
    source: S, size: float, name: str, classes: Sequence[str], rng: np.random.Generator
) -> tuple[S, S]:
    """Cut `size` images (a share if below 1) off `source`, of each class its part; and the rest."""
    labels = source.labels
    wanted = _wanted(size, len(labels), name)
    counts = np.bincount(labels, minlength=len(classes))
    exact = counts * wanted / len(labels)
    take = np.floor(exact).astype(np.int64)
    take[np.argsort(take - exact, kind="stable")[: wanted - take.sum()]] += 1
    empty = np.flatnonzero((take == 0) | ((take == counts) & (name != "train_size")))
    if len(empty):
        label = int(empty[np.argmin(counts[empty])])
        why = _why_empty(classes[label], counts, label, bool(take[label]))
        raise ConfigError(f"dataset.{name}={size:g}: {why}")
    order = rng.permutation(len(labels))
    place = np.empty(len(labels), dtype=np.int64)  # of each image among its own class
    for label, count in enumerate(counts):
        place[order[labels[order] == label]] = np.arange(count)
    chosen = place < take[labels]
    return source.subset(np.flatnonzero(chosen)), source.subset(np.flatnonzero(~chosen))


def _why_empty(name: str, counts: NDArray[np.int64], label: int, all_taken: bool) -> str:
    """Why a cut leaves the class `name` without an image on one side, and the fix."""
    count, images = int(counts[label]), int(counts.sum())
    if count < 2:
        has = "one image" if count else "no image"
        return f"class {name} has {has}, and each part needs one; add some"
    enough = -(-images // int(counts.min()))  # where each class's exact part is at least one image
    if all_taken:
        return f"takes all {count} images of class {name}; at most {images - enough} leave some of each class"
    return f"takes none of the {count} images of class {name}; {enough} take some of each class"


def _statistics(pixels: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, from exact counts of the 256 values."""
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


def _read(config: conf.Dataset) -> tuple[Any, Any, Sequence[str]]:
    """The training images, the test images where the data set has its own (else None), the classes."""
    match config:
        case conf.Digits():
            return _digits(), None, [str(digit) for digit in range(10)]
        case conf.Synthetic():
            return _synthetic(config), None, [str(label) for label in range(config.classes)]
        case conf.TorchvisionDataset():
            train, names = _torchvision(config, train=True)
            return train, _torchvision(config, train=False)[0], names
        case conf.ImageFolder():
            return _image_folder(config)
    raise TypeError(f"no data for {type(config).__name__}")


def _digits() -> Resident:
    """What sklearn.datasets.load_digits reads, without the second that its import takes."""
    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "datasets/data/digits.csv.gz"
    table = np.loadtxt(path, delimiter=",", dtype=np.int64)
    return Resident(table[:, :-1].reshape(-1, 8, 8, 1).astype(np.uint8), table[:, -1])


def _synthetic(c: conf.Synthetic) -> Resident:
    rng = np.random.default_rng(c.split_seed)
    shape = (c.image_size, c.image_size, c.channels)
    labels = np.arange(c.images) % c.classes
    templates = rng.standard_normal((c.classes, *shape), dtype=np.float32)
    noise = rng.standard_normal((c.images, *shape), dtype=np.float32)
    values = 128 + 24 * (templates[labels] + c.noise * noise)
    return Resident(np.clip(values, 0, 255).astype(np.uint8), labels)


def _torchvision(config: conf.TorchvisionDataset, train: bool) -> tuple[Resident, Sequence[str]]:
    from torchvision import datasets

    names: Sequence[str] = [str(label) for label in range(_TORCHVISION[config.name].classes)]
    try:
        match config.name:
            case "svhn":
                data: Any = datasets.SVHN(
                    config.root, split="train" if train else "test", download=config.download
                )
                pixels, labels = data.data.transpose(0, 2, 3, 1), data.labels
            case name:
                classes = {
                    "mnist": datasets.MNIST,
                    "fashion_mnist": datasets.FashionMNIST,
                    "cifar10": datasets.CIFAR10,
                    "cifar100": datasets.CIFAR100,
                }
                data = classes[name](config.root, train=train, download=config.download)
                pixels, labels, names = np.asarray(data.data), data.targets, data.classes
        pixels = pixels if pixels.ndim == 4 else pixels[..., None]
        labels = np.asarray(labels, dtype=np.int64)
        _check_torchvision(config.name, train, pixels, labels)
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        fix = (
            "scripts/fetch_fashion_mnist.sh fetches it"
            if config.name == "fashion_mnist"
            else "put them there, set dataset.root, or dataset.download=true"
        )
        reason = " ".join(str(error).split()).rstrip(".") or "a file of another kind"
        raise ConfigError(
            f"dataset.root={config.root}: {config.name} cannot be read there ({reason}); "
            f"its files are looked for in {Path(config.root, _FILES[config.name])}; {fix}"
        ) from error
    return Resident(np.ascontiguousarray(pixels), labels), names


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
    """Raises ValueError for files that hold another data set than `name`."""
    whole = _TORCHVISION[name]
    images = whole.train if train else _TEST_IMAGES.get(name, 10_000)
    shape = (images, whole.image_size, whole.image_size, whole.channels)
    if pixels.shape != shape:
        raise ValueError(f"images of shape {pixels.shape} in place of {shape}")
    if len(labels) != images:
        raise ValueError(f"{images} images, {len(labels)} labels")
    if (strange := set(range(whole.classes)) ^ set(np.unique(labels).tolist())) != set():
        raise ValueError(f"label {min(strange)} is missing, or is of no class")


def _image_folder(config: conf.ImageFolder) -> tuple[Streamed, Streamed | None, Sequence[str]]:
    """The images, each of which has been decoded once, now or before."""
    found = image_files.find(Path(config.root))
    seen = image_files.check(found, config.workers)

    def streamed(part: image_files.Part) -> Streamed:
        return Streamed(
            found.root,
            np.array(part.paths, dtype=object),
            np.array([seen[path].sha256 for path in part.paths], dtype=object),
            part.labels,
            config.image_size,
            config.workers,
        )

    _describe(config, found, seen)
    return streamed(found.train), streamed(found.test) if found.test else None, found.classes


def _describe(
    config: conf.ImageFolder, found: image_files.Folder, seen: dict[str, image_files.Seen]
) -> None:
    """Say what there is, once in this process, and warn of what is probably not meant."""
    images = len(found.train.paths)
    val, train = _wanted(config.val_size, images, "val_size"), _training_images(config, images)
    test = f"{len(found.test.paths):,} to test" if found.test else "none to test: there is no test/"
    left_out = f"; left out: {image_files.say_left_out(found.left_out)}" if found.left_out else ""
    _say(
        f"dataset.root={found.root}: {len(found.classes)} classes, {train:,} images to train, "
        f"{val:,} to validate, {test}{left_out}"
    )
    several = [path for path in found.paths if seen[path].frames > 1]
    if several:
        image_files.warn(
            f"{len(several):,} files hold several frames, of which the first counts, as {several[0]}"
        )
    if not found.test:
        return
    trained = {seen[path].sha256 for path in found.train.paths}
    both = [path for path in found.test.paths if seen[path].sha256 in trained]
    if both:
        image_files.warn(f"{len(both):,} images of test/ are in train/ too, as {both[0]}")
    if lacking := np.setdiff1d(found.train.labels, found.test.labels).tolist():
        image_files.warn(
            f"test/ has no image of {len(lacking)} classes, as {found.classes[lacking[0]]}"
        )


@cache
def _say(line: str) -> None:
    print(line, file=sys.stderr)


# --- batches -------------------------------------------------------------------------------------


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

    def __init__(self, source: Resident, batch_size: int, crop: int, device: torch.device) -> None:
        self.pixels = _pad(torch.from_numpy(source.pixels), crop).to(device)
        self.labels = torch.from_numpy(source.labels).to(device)
        self.batch_size = batch_size

    def __call__(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for rows in torch.split(order.to(self.pixels.device), self.batch_size):
            yield self.pixels, rows, self.labels[rows]


class _FromDisk:
    """Batches of streamed images: the pixels of one batch, and all their rows."""

    def __init__(self, source: Streamed, batch_size: int, crop: int, device: torch.device) -> None:
        import torchvision.transforms.v2.functional  # noqa: F401 - W&B's import hooks fail in workers

        self.crop, self.device = crop, device
        self.order = _Order(batch_size)
        self.loader: DataLoader[tuple[Tensor, int]] = DataLoader(
            source,
            batch_sampler=self.order,
            num_workers=source.workers,
            persistent_workers=source.workers > 0,
            generator=torch.Generator(),  # or each epoch would draw from the network's own
            pin_memory=device.type == "cuda",
        )

    def __call__(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        self.order.images = order
        for pixels, labels in self._loaded():
            padded = _pad(pixels.to(self.device, non_blocking=True), self.crop)
            rows = torch.arange(len(labels), device=self.device)
            yield padded, rows, labels.to(self.device, non_blocking=True)

    def _loaded(self) -> Iterator[tuple[Tensor, Tensor]]:
        try:
            yield from self.loader
        except ConfigError as error:  # a worker's comes with its traceback in the message
            raise ConfigError(str(error).rpartition("ConfigError: ")[2].strip()) from None


class _Order(Sampler[list[int]]):
    """The batches of the images that were asked for last."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.images = torch.empty(0, dtype=torch.int64)

    def __iter__(self) -> Iterator[list[int]]:
        return (rows.tolist() for rows in torch.split(self.images, self.batch_size))

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)


def _pad(pixels: Tensor, crop: int) -> Tensor:
    return F.pad(pixels, (0, 0, crop, crop, crop, crop)) if crop else pixels


def _fetcher(
    source: Source, batch_size: int, crop: int, device: torch.device
) -> _FromMemory | _FromDisk:
    match source:
        case Resident():
            return _FromMemory(source, batch_size, crop, device)
        case Streamed():
            return _FromDisk(source, batch_size, crop, device)
    raise TypeError(f"no batches for {type(source).__name__}")


class TrainBatches:
    """The training batches of every epoch: a function of (seed, epoch, index), on any device.

    Each epoch takes the images in a new order and leaves out the `images % batch_size` last ones,
    so that all batches are of one size. Of each, this process of `world` gets its part.
    """

    def __init__(
        self, splits: Splits, config: conf.Config, device: torch.device, world: World = ALONE
    ) -> None:
        self.images = len(splits.train.labels)
        self.batch_size = config.trainer.batch_size
        self.updates_per_epoch = updates_per_epoch(self.images, self.batch_size)
        self.part = world.part(self.batch_size)
        self.seed, self.crop, self.flip = config.seed, config.dataset.crop, config.dataset.flip
        self.size = (splits.image_size, splits.image_size)
        self.device = device
        self.normalise = Normalise.of(splits, device, config.trainer.channels_last)
        self.own_size = self.part.stop - self.part.start
        self.fetch = _fetcher(splits.train, self.own_size, self.crop, device)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images and labels of the batches from `start` on of epoch `epoch`."""
        generator = _generator(self.seed, epoch)
        used = torch.arange(start * self.batch_size, self.updates_per_epoch * self.batch_size)
        own = used.view(-1, self.batch_size)[:, self.part].flatten()
        order = torch.randperm(self.images, generator=generator)[own]
        moves = augment.draw(self.images, self.crop, self.flip, generator)[own].to(self.device)
        for index, (padded, rows, labels) in enumerate(self.fetch(order)):
            batch = slice(index * self.own_size, (index + 1) * self.own_size)
            yield self.normalise(augment.cut(padded, rows, moves[batch], self.size)), labels


class EvalBatches:
    """All images of a split, in order, without augmentation; the part of this process of `world`."""

    def __init__(
        self,
        source: Source,
        splits: Splits,
        config: conf.Config,
        device: torch.device,
        world: World = ALONE,
    ) -> None:
        self.own = torch.arange(len(source.labels))[world.part(len(source.labels))]
        self.normalise = Normalise.of(splits, device, config.trainer.channels_last)
        self.fetch = _fetcher(source, _EVAL_BATCH[device.type], 0, device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not len(self.own):
            return
        for padded, rows, labels in self.fetch(self.own):
            yield self.normalise(padded[rows]), labels
