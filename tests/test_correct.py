"""The file that says which images a run classifies correctly: written, read, damaged, foreign."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import correct
from harness.files import UnreadableError


@pytest.mark.parametrize("images", [1, 7, 8, 9, 360, 10_000])
def test_what_is_written_is_read(images: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(images)
    bits = {"val": rng.random(images) < 0.7, "test": rng.random(images + 3) < 0.5}
    correct.write(tmp_path / "c.npz", bits)
    found = correct.read(tmp_path / "c.npz")
    assert list(found) == ["val", "test"]
    assert all(np.array_equal(found[split], bits[split]) for split in bits)
    assert all(found[split].dtype == np.bool_ for split in bits)
    assert (tmp_path / "c.npz").stat().st_size < images / 4 + 1200, "a bit an image"


def test_a_split_may_be_missing(tmp_path: Path) -> None:
    correct.write(tmp_path / "c.npz", {"val": np.ones(5, np.bool_)})
    assert list(correct.read(tmp_path / "c.npz")) == ["val"]
    with pytest.raises(FileNotFoundError):
        correct.read(tmp_path / "none.npz")


def test_the_accuracy_is_the_number_that_an_evaluation_records() -> None:
    for images in (3, 7, 288, 10_000):
        for right in range(0, images, 1 + images // 50):
            bits = np.arange(images) < right
            assert correct.accuracy(bits) == 100 * float(right) / float(images)


class Opens:
    """Unpickled, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def npz(**arrays: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


GOOD: dict[str, Any] = {"val": np.array([255], np.uint8), "val_images": np.int64(8)}
FOREIGN = {
    "empty": lambda path: path.write_bytes(b""),
    "no archive": lambda path: path.write_bytes(b"correct" * 99),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Opens(path.parent / "opened"))),
    "objects": npz(val=np.array([Opens(Path("opened"))], object), val_images=np.int64(1)),
    "compressed": lambda path: np.savez_compressed(path, **GOOD),
    "no number of images": npz(val=GOOD["val"]),
    "more images than bits": npz(**GOOD | {"val_images": np.int64(9)}),
    "fewer images than bits": npz(val=np.zeros(2, np.uint8), val_images=np.int64(8)),
    "a negative number of images": npz(**GOOD | {"val_images": np.int64(-8)}),
    "no image": npz(val=np.zeros(0, np.uint8), val_images=np.int64(0)),
    "floats": npz(**GOOD | {"val": np.array([1.0])}),
    "a table": npz(**GOOD | {"val": np.ones((1, 1), np.uint8)}),
    "another array": npz(**GOOD, train=np.ones(1)),
    "a folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in FOREIGN.items()])
def test_another_file_is_refused_in_one_line(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    make(path)
    with pytest.raises(UnreadableError, match=r"c\.npz: [^\n]+$"):
        correct.read(path)
    assert not (tmp_path / "opened").exists()
    assert not Path("opened").exists()


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    correct.write(path, {"val": np.ones(400, np.bool_)})
    whole = path.read_bytes()
    for damaged in (whole[:-30], whole.replace(b"\xff" * 50, b"\xff" * 49 + b"\0")):
        path.write_bytes(damaged)
        with pytest.raises(UnreadableError):
            correct.read(path)


def test_an_archive_that_says_it_is_endless_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("val.npy", "w") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (2**50,)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(UnreadableError):
        correct.read(path)
    with path.open("wb") as large:
        large.truncate(2**26 + 1)
    with pytest.raises(UnreadableError, match="at most"):
        correct.read(path)
