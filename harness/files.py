"""Writing so that a crash leaves the old file or the new one, never a part; reading what may be anyone's."""

from __future__ import annotations

import json
import math
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

MOST_BYTES = 2**28  # of a file that is read whole; two million rows of a history


class Unreadable(OSError):
    """A file, perhaps someone else's, that is not what it should be; the message names it."""


@contextmanager
def atomic(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """A file that takes the name `path`, synced, when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read(path: Path, most: int = MOST_BYTES) -> bytes:
    """What is in a file of at most `most` bytes. Raises OSError; `Unreadable` for a larger one, or a device."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise Unreadable(f"{path}: is not a file")
    if about.st_size > most:
        raise Unreadable(f"{path}: has {about.st_size:,} bytes, and at most {most:,} are read")
    return path.read_bytes()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file. Raises OSError; `Unreadable` for what is no JSON, or no object."""
    try:
        document = json.loads(read(path), parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{path}: is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise Unreadable(f"{path}: holds no JSON object")
    return document


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number


def write_json(path: Path, document: object) -> None:
    with atomic(path, "w") as file:
        json.dump(document, file, indent=1, allow_nan=False, ensure_ascii=False)
        file.write("\n")
