"""Folders of labelled images: which files they hold, whether each can be decoded, and the pixels.

Every file is decoded once before training. What was found is remembered by path, size and time of
modification, so that a folder is not read whole at every start.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from harness import files
from harness.config.errors import ConfigError
from harness.config.warnings import warn_once

# Raised when the same files come to give other pixels. It is in the digest of the data.
DECODING = 1

SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".gif", ".bmp", ".dib", ".tif", ".tiff",
     ".webp", ".ppm", ".pgm", ".pbm", ".pnm"}
)  # fmt: skip
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM")  # others may run programs
_BACKGROUND = "white"  # behind pixels that are transparent
_BITS_PER_SAMPLE = 258  # a tag of TIFF
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
_SHOWN = 20  # files that an error names
_GRANULE_NS = 2 * 10**9  # the coarsest time of modification, FAT's
_SAVE_SECONDS = 60.0  # between two times that what was found is written, while files are read
_MOST_MEMORY = 2**34  # bytes of what is remembered of a folder


# --- which files there are -----------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """The images to train on or to test: `paths` below the root, and the number of each one's class."""

    paths: tuple[str, ...]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Folder:
    """The images of `root/train/CLASS/` and, if there is one, of `root/test/CLASS/`; or of `root/CLASS/`."""

    root: Path
    classes: tuple[str, ...]
    train: Part
    test: Part | None
    left_out: Counter[str]  # files by extension

    @property
    def paths(self) -> tuple[str, ...]:
        return self.train.paths + (self.test.paths if self.test else ())


def listed(classes: Sequence[str], sets: Sequence[tuple[Any, NDArray[np.int64]]]) -> Folder:
    """Return the files of a list, to train on and, if `sets` has a second one, to test with; with their labels."""
    whole = [[os.path.abspath(path) for path in paths] for paths, _ in sets]
    root = os.path.commonpath([os.path.dirname(path) for paths in whole for path in paths])
    parts = [
        Part(tuple(os.path.relpath(path, root) for path in paths), np.asarray(labels, np.int64))
        for paths, (_, labels) in zip(whole, sets, strict=True)
    ]
    return Folder(
        Path(root), tuple(classes), parts[0], parts[1] if len(parts) > 1 else None, Counter()
    )


def find(root: Path) -> Folder:
    """Return the images below `root`, without reading any. Raises `ConfigError` for what is no data set."""
    left_out: Counter[str] = Counter()
    part = "" if _is_flat(root) else "train/"
    train = _by_class(root, part, left_out)
    where = f"dataset.root={_shown(root)}"
    if len(train) < 2:
        has = f"one class only, {_shown(*train)}" if train else "no class"
        raise ConfigError(
            f"{where}: {f'{part} has {has}'.strip()}; "
            f"needs a folder for each of at least two classes, {part}CLASS/IMAGE"
        )
    for name, paths in train.items():
        if not paths:
            raise ConfigError(
                f"{where}: {part}{_shown(name)} has no image{_but(left_out)}; add some, or remove it"
            )
    test = _by_class(root, "test/", left_out) if has_test(root) else None
    if test is not None and not any(test.values()):
        raise ConfigError(
            f"{where}: test/ has no image{_but(left_out)}; needs test/CLASS/IMAGE files, or no test/"
        )
    if strange := [name for name in test or () if name not in train]:
        raise ConfigError(f"{where}: test/{_shown(strange[0])} is a class that train/ lacks")
    classes = tuple(train)
    tested = None if test is None else _part(test, classes)
    return Folder(root, classes, _part(train, classes), tested, left_out)


def has_test(root: Path) -> bool:
    return os.path.lexists(root / "test")


def _is_flat(root: Path) -> bool:
    """Return whether `root` has a folder for each class, and none that is named after a split."""
    try:
        found = list(root.iterdir())
    except OSError:
        return False
    folders = [path for path in found if path.is_dir() and not _is_hidden(path.name)]
    is_a_split = root.name.lower() in _SPLITS and (root.parent / "train").is_dir()
    holds_splits = any(path.name.lower() in _SPLITS for path in found)
    one_level_off = any((folder / "train").is_dir() for folder in folders)
    return bool(folders) and not (is_a_split or holds_splits or one_level_off)


def _split_alone(root: Path) -> str:
    """Return what to do with a folder that is named after a split, where there is no train/; "" without one."""
    splits = (
        [path.name for path in root.iterdir() if path.name.lower() in _SPLITS]
        if root.is_dir()
        else []
    )
    return (
        f"; {_shown(splits[0])} is the name of a split: rename it, or add train/" if splits else ""
    )


def _part(by_class: dict[str, list[str]], classes: Sequence[str]) -> Part:
    number = {name: index for index, name in enumerate(classes)}
    counts = [len(paths) for paths in by_class.values()]
    labels = np.repeat(np.array([number[name] for name in by_class], dtype=np.int64), counts)
    return Part(tuple(path for paths in by_class.values() for path in paths), labels)


def _by_class(root: Path, part: str, left_out: Counter[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        with os.scandir(root / part) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if _is_hidden(entry.name):
                    continue
                if entry.is_dir():
                    found[entry.name] = list(_images(root, entry.path, left_out))
                else:
                    left_out["in no class's folder"] += 1
    except OSError as error:
        raise ConfigError(
            f"dataset.root={_shown(root)}: {error.strerror} ({_shown(error.filename)}); "
            f"needs {part}CLASS/IMAGE {'or CLASS/IMAGE ' * (part == 'train/')}files{_elsewhere(root)}{_split_alone(root)}"
        ) from error
    return found


def _images(root: Path, folder: str, left_out: Counter[str]) -> Iterator[str]:
    """Return the paths below `root` of the images in `folder` and its subfolders, sorted folder by folder."""

    def refuse(error: OSError) -> None:
        raise error

    begin = len(os.path.join(root, ""))
    for base, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for name in sorted(names):
            suffix = os.path.splitext(name)[1].lower()
            if _is_hidden(name):
                continue
            if suffix in SUFFIXES:
                yield os.path.join(base, name)[begin:]
            else:
                left_out[suffix or "without an extension"] += 1


def _is_hidden(name: str) -> bool:
    """Return whether a system or a program made it for itself: .DS_Store, .ipynb_checkpoints, __MACOSX."""
    return name.startswith(".") or name == "__MACOSX"


def _elsewhere(root: Path) -> str:
    """Return a hint where train/ is one level up or down."""
    try:
        near = [root.parent, *(child for child in sorted(root.iterdir()) if child.is_dir())]
    except OSError:
        near = [root.parent]
    found = [folder for folder in near if (folder / "train").is_dir()]
    return f"; did you mean dataset.root={_shown(found[0])}?" if found else ""


def say_left_out(left_out: Counter[str]) -> str:
    return ", ".join(f"{count:,} {_shown(what)}" for what, count in left_out.most_common(8))


def _but(left_out: Counter[str]) -> str:
    return f" (left out: {say_left_out(left_out)})" if left_out else ""


def _shown(name: str | Path) -> str:
    """Return a file's name as text that can be printed and written, also for bytes that are no text."""
    return os.fsencode(name).decode(errors="backslashreplace")


# --- pixels --------------------------------------------------------------------------------------


class _Unusable(ValueError):
    """Why a file is not an image that can be trained on."""


def decode(path: Path, size: int | None) -> Tensor:
    """Return the image as uint8 (size, size, 3): its shorter side resized, its centre cut out.

    Without a `size` it is returned as it is. Raises `ConfigError` for a file that cannot be used.
    """
    from torchvision.transforms.v2 import functional as v2

    try:
        image: Tensor = v2.pil_to_tensor(_rgb(_content(path))[0])
    except _Unusable as error:
        raise ConfigError(f"dataset.root: {_shown(path)} {error}") from error
    if size is not None:
        image = v2.center_crop(v2.resize(image, [size], antialias=True), [size])
    return image.permute(1, 2, 0)


def _content(path: Path) -> bytes:
    try:
        return files.read(path)
    except OSError as error:
        raise _Unusable(f"cannot be read ({error.strerror or error})") from error


def _rgb(content: bytes) -> tuple[Image.Image, int]:
    """Return the first frame as 8-bit RGB, upright, on a white ground; and how many frames there are."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(BytesIO(content), formats=_FORMATS) as file,
        ):
            if _is_deep(file):
                raise _Unusable("has more than 8 bits a channel; save it with 8")
            image = ImageOps.exif_transpose(file)
            if image.has_transparency_data:
                ground = Image.new("RGBA", image.size, _BACKGROUND)
                image = Image.alpha_composite(ground, image.convert("RGBA"))
            return image.convert("RGB"), getattr(file, "n_frames", 1)
    except (_Unusable, MemoryError):
        raise
    except Exception as error:  # decoders raise nearly anything
        raise _Unusable("is not an image that can be read") from error


def _is_deep(file: Image.Image) -> bool:
    """Return whether a channel has more than 8 bits, of which Pillow would give the low ones or round."""
    if file.mode[0] in "IF":
        return True
    arguments = [tile[3] for tile in getattr(file, "tile", [])]
    match file.format:
        case "PNG":  # as in RGB;16B
            return any(";16" in str(argument) for argument in arguments)
        case "PPM":  # the mode and the largest value
            return any(isinstance(a, tuple) and a[1] > 255 for a in arguments)
        case "TIFF":
            bits: tuple[int, ...] = file.tag_v2.get(_BITS_PER_SAMPLE, (1,))  # type: ignore[attr-defined]
            return max(bits) > 8
    return False


# --- what each file holds, once ------------------------------------------------------------------


class Seen(NamedTuple):
    """What reading a file has shown. `problem` says why it cannot be used."""

    size: int  # bytes
    modified: int  # ns since 1970, of the file system
    sha256: str  # of the content
    frames: int
    problem: str = ""


class _Files(Dataset[tuple[str, Seen]]):
    """Files of a folder, to be read by worker processes."""

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self.root, self.paths = root, paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, Seen]:
        path = self.paths[index]
        return path, _see(self.root / path)


def _see(path: Path) -> Seen:
    try:
        about = path.stat()  # before it is read: a change in between is then one afterwards
        content = _content(path)
        sha256 = hashlib.sha256(content).hexdigest()
        return Seen(about.st_size, about.st_mtime_ns, sha256, _rgb(content)[1])
    except (OSError, _Unusable) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return Seen(0, 0, "", 0, str(reason))


def check(folder: Folder, workers: int) -> dict[str, Seen]:
    """Return what each file of `folder` holds; those that are not remembered are decoded now, by `workers`.

    Raises `ConfigError` that names all that cannot be used.
    """
    seen = _remembered(folder)
    unseen = [path for path in folder.paths if path not in seen]
    if not unseen:
        return seen
    begin = time.time_ns()
    last = time.monotonic()
    try:
        for path, one in _read_all(folder.root, unseen, workers):
            seen[path] = one
            if time.monotonic() - last > _SAVE_SECONDS:
                _remember(folder, seen, begin)
                last = time.monotonic()
    finally:
        _remember(folder, seen, begin)
    bad = [(path, seen[path].problem) for path in unseen if seen[path].problem]
    if len(bad) == 1:
        raise ConfigError(f"dataset.root: {_shown(folder.root / bad[0][0])} {bad[0][1]}")
    if bad:
        named = "; ".join(f"{_shown(path)} {problem}" for path, problem in bad[:_SHOWN])
        more = f"; and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""
        raise ConfigError(
            f"dataset.root={_shown(folder.root)}: {len(bad):,} files cannot be used: {named}{more}"
        )
    return seen


def _read_all(root: Path, paths: Sequence[str], workers: int) -> Iterator[tuple[str, Seen]]:
    terminal = sys.stderr.isatty()
    loader: DataLoader[tuple[str, Seen]] = DataLoader(
        _Files(root, paths),
        batch_size=16,
        num_workers=min(workers, len(paths) // 64),
        collate_fn=list,
        generator=torch.Generator(),  # or it would draw from the network's own
    )
    with tqdm(
        total=len(paths),
        desc=f"{_shown(root)}: decoding each image once",
        unit="image",
        leave=False,
        delay=0.0 if terminal else 10.0,  # seconds
        mininterval=0.1 if terminal else 10.0,
    ) as bar:
        for batch in loader:
            yield from batch
            bar.update(len(batch))


def unseen(folder: Folder) -> int:
    """Return how many files of `folder` have not been decoded yet as they are now."""
    return len(folder.paths) - len(_remembered(folder))


# --- memory --------------------------------------------------------------------------------------


def _remembered(folder: Folder) -> dict[str, Seen]:
    """Return what was found of the files that have not changed since."""
    try:
        body = files.read_checked(_memory(folder.root), _MOST_MEMORY)
    except FileNotFoundError:
        return {}
    except (OSError, RuntimeError) as error:
        warn_once(f"what was known of the images cannot be read: {error}; they are decoded again")
        return {}
    document = json.loads(body)
    known = document["files"] if document["decoding"] == _version() else {}
    root = str(folder.root)
    found = {}
    for path in folder.paths:
        one = Seen(*known[path]) if path in known else None
        if one and (one.size, one.modified) == _now(os.path.join(root, path)):
            found[path] = one
    return found


def _now(path: str) -> tuple[int, int] | None:
    """Return the size and the time of modification of a file; None for one that is gone."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns


def _remember(folder: Folder, seen: dict[str, Seen], begin: int) -> None:
    """Write what was found, but of files that may have changed in the instant in which they were read."""
    keep = {
        path: one
        for path, one in seen.items()
        if not one.problem and one.modified + _GRANULE_NS < begin
    }
    body = json.dumps({"decoding": _version(), "files": keep}, separators=(",", ":")).encode()
    try:
        files.write_checked(_memory(folder.root), body)
    except (OSError, RuntimeError) as error:
        warn_once(f"what was found of the images is not remembered: {error}; set HARNESS_CACHE")


def _memory(root: Path) -> Path:
    """Return the file that remembers `root`. Raises RuntimeError for a user without a home."""
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return files.cache_folder() / f"images-{name}.json"


def _version() -> str:
    return f"{DECODING}, Pillow {PIL.__version__}"
