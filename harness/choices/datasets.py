"""The data sets to choose from. To add one: a class here, its line in `builtin.py`, a file in `conf/dataset/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from omegaconf import MISSING

from harness.config.errors import ConfigError
from harness.config.fields import choice, newer, number, show
from harness.config.schema import Dataset, DatasetShape

if TYPE_CHECKING:
    from harness.training.datasets import Source
    from harness.training.image_files import Folder


@dataclass(unsafe_hash=True)
class Digits(Dataset):
    """The 1,797 8x8 digits that ship inside scikit-learn; they have no test set of their own."""

    test_size: float = number(above=0)

    def shape(self) -> DatasetShape:
        return DatasetShape(1797, 1, 8, 10)

    def read(self) -> tuple[Source, Source | None, Sequence[str]]:
        from harness.training import datasets

        return datasets.read_digits(), None, [str(digit) for digit in range(10)]

    def test_split(self) -> float | None:
        return self.test_size


@dataclass(unsafe_hash=True)
class Synthetic(Dataset):
    """Noisy copies of one random template a class: for trying things out, at any size."""

    test_size: float = number(above=0)
    images: int = number(at_least=1, at_most=1e8)
    image_size: int = number(at_least=1, at_most=1024)
    channels: int = choice(1, 3)  # type: ignore[arg-type]
    classes: int = number(at_least=2, at_most=1e6)
    noise: float = number(at_least=0, at_most=1e6)  # standard deviation, in the templates' own

    def shape(self) -> DatasetShape:
        return DatasetShape(self.images, self.channels, self.image_size, self.classes)

    def read(self) -> tuple[Source, Source | None, Sequence[str]]:
        from harness.training import datasets

        made = datasets.make_synthetic(self.shape(), self.noise, self.split_seed)
        return made, None, [str(label) for label in range(self.classes)]

    def test_split(self) -> float | None:
        return self.test_size


@dataclass(unsafe_hash=True)
class TorchvisionDataset(Dataset):
    """A data set that torchvision reads (and downloads), with its own test set."""

    name: str = choice("fashion_mnist", "mnist", "cifar10", "cifar100", "svhn")
    root: str = MISSING
    download: bool = MISSING

    def shape(self) -> DatasetShape:
        from harness.training import datasets

        return datasets.TORCHVISION_SHAPES[self.name]

    def read(self) -> tuple[Source, Source | None, Sequence[str]]:
        from harness.training import datasets

        root = Path(self.root)
        train, names = datasets.read_torchvision(self.name, root, self.download, train=True)
        test, _ = datasets.read_torchvision(self.name, root, self.download, train=False)
        return train, test, names

    def check(self) -> None:
        from harness.training import datasets

        datasets.fetch(self.name, Path(self.root), self.download)


@dataclass(unsafe_hash=True)
class ImageFolder(Dataset):
    """`root/train/CLASS/*` and `root/test/CLASS/*`, or `root/CLASS/*`, streamed from disk by worker processes."""

    in_memory: ClassVar[bool] = False

    root: str = MISSING
    image_size: int = number(at_least=1, at_most=4096)
    workers: int = number(at_least=0, at_most=256)
    test_size: float | None = newer(None, number(above=0))  # null: what is in test/

    def _find(self) -> Folder:
        from harness.training import image_files

        found = image_files.find(Path(self.root))
        if self.test_size is not None and found.test is not None:
            raise ConfigError(
                f"dataset.test_size={show(self.test_size)}: dataset.root={self.root} has its own test/; "
                "set dataset.test_size=null"
            )
        return found

    def shape(self) -> DatasetShape:
        found = self._find()
        return DatasetShape(len(found.train.labels), 3, self.image_size, len(found.classes))

    def read(self) -> tuple[Source, Source | None, Sequence[str]]:
        from harness.training import datasets

        return datasets.read_image_folder(self, self._find(), self.image_size, self.workers)

    def test_split(self) -> float | None:
        return self.test_size

    def missing_test(self) -> str | None:
        from harness.training import image_files

        if self.test_size is not None or image_files.has_test(Path(self.root)):
            return None
        return f"dataset.root={self.root} has no test/; set dataset.test_size"

    def check(self) -> None:
        from harness.training import image_files

        image_files.check(self._find(), self.workers)

    def unchecked(self) -> int:
        from harness.training import image_files

        return image_files.unseen(self._find())
