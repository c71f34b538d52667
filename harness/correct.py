"""Which images a run classifies correctly at its end: one bit an image, in a file that may come from anyone."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.files import UnreadableError, atomic
from harness.files import read as read_bytes

FILE = "correct.npz"  # in a run's folder
SPLITS = ("val", "test")
_NAME = re.compile(
    rf"({'|'.join(SPLITS)})(@(ema|cycle_ends|tail):[\d.e-]{{1,30}})?(?P<number>_images)?"
)
_MOST_BYTES = 2**26  # 250 million images a split

Bits = NDArray[np.bool_]


def metric(split: str) -> str:
    """Return the accuracy that the bits of a split give: `val/acc`, of an average of weights `val/acc@ema:0.99`."""
    name, at, average = split.partition("@")
    return f"{name}/acc{at}{average}"


def write(path: Path, correct: Mapping[str, Bits]) -> None:
    """Write, by atomic rename, the bits of some of `SPLITS`, (images,) each, in the order of the split's indices.

    Those of an average of weights are a split `val@ema:0.99`. A split has two arrays in the file: its bits,
    packed by `numpy.packbits`, and `SPLIT_images`, their number.
    """
    arrays: dict[str, Any] = {split: np.packbits(bits) for split, bits in correct.items()}
    arrays |= {f"{split}_images": np.int64(len(bits)) for split, bits in correct.items()}
    with atomic(path) as file:
        np.savez(file, **arrays)


def read(path: Path) -> dict[str, Bits]:
    """Return what `write` wrote. Raises FileNotFoundError; `UnreadableError` for a file of any other kind."""
    content = read_bytes(path, _MOST_BYTES)
    try:
        parts = zipfile.ZipFile(io.BytesIO(content)).infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise ValueError("it is compressed")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            names = {name: _NAME.fullmatch(name) for name in arrays.files}
            if strange := [name for name, known in names.items() if not known]:
                raise ValueError(f"it has {min(strange)}")
            return {
                name: _unpacked(arrays[name], arrays[f"{name}_images"])
                for name, known in names.items()
                if known and not known["number"]
            }
    except Exception as error:  # a foreign file can make numpy raise anything
        reason = " ".join(str(error).split())[:200]
        raise UnreadableError(f"{path}: does not hold bits of images ({reason})") from error


def _unpacked(packed: NDArray[Any], images: NDArray[Any]) -> Bits:
    kinds = f"{packed.dtype} {packed.ndim} {images.dtype} {images.ndim}"
    if kinds != "uint8 1 int64 0" or not 0 < images <= 8 * len(packed) < images + 8:
        raise ValueError(f"{images} images of {packed.dtype}, shape {packed.shape}")
    return np.unpackbits(packed, count=int(images)).astype(np.bool_)


def accuracy(bits: Bits) -> float:
    """Return the share of correct images in percent: the very number that evaluating them gives."""
    return 100 * int(bits.sum()) / len(bits)
