"""Atomic writes, locks, and reading files that may be damaged or foreign."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import platform
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

if sys.platform == "win32":
    import msvcrt

    _LOCKED_BYTE = 2**30  # behind what is in the file, which others may then read

    def _flock(file: IO[str], mode: int) -> None:
        os.lseek(file.fileno(), _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(file.fileno(), mode, 1)
        os.lseek(file.fileno(), 0, os.SEEK_END)

    _TAKE, _LEAVE = msvcrt.LK_NBLCK, msvcrt.LK_UNLCK
else:
    import fcntl

    def _flock(file: IO[str], mode: int) -> None:
        fcntl.flock(file, mode)

    _TAKE, _LEAVE = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN

MOST_BYTES = 2**28  # of a file that is read whole; two million rows of a history
LOCK_SECONDS = 60.0  # to wait for a lock that others hold for an instant
_POLL_SECONDS = 0.2
_WARNED_OF: set[int] = set()  # file systems without locks
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class UnreadableError(OSError):
    """A file, perhaps someone else's, that is not what it should be; the message names it."""


@contextmanager
def atomic(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Yield a file that takes the name `path`, synced, when the block ends without an error."""
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
    """Return what is in a file of at most `most` bytes. Raises OSError; `UnreadableError` for a larger one, or a device."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise UnreadableError(f"{path}: is not a file")
    if about.st_size > most:
        raise UnreadableError(f"{path}: has {about.st_size:,} bytes, and at most {most:,} are read")
    return path.read_bytes()


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file. Raises OSError; `UnreadableError` for what is no JSON, or no object."""
    try:
        document = json.loads(read(path), parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{path}: is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise UnreadableError(f"{path}: holds no JSON object")
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


def cache_folder() -> Path:
    """Return the folder of what is remembered between commands: HARNESS_CACHE, else one of the user's.

    Raises RuntimeError for a user without a home.
    """
    if given := os.environ.get("HARNESS_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cosine-restarts"


def write_checked(path: Path, body: bytes) -> None:
    """Write `body` behind a line with its SHA-256."""
    with atomic(path) as file:
        file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def read_checked(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return what `write_checked` wrote. Raises as `read`; `UnreadableError` for a damaged file too."""
    checksum, _, body = read(path, most).partition(b"\n")
    if hashlib.sha256(body).hexdigest() != checksum.decode(errors="replace"):
        raise UnreadableError(f"{path}: is damaged")
    return body


class LockedError(OSError):
    """A lock that another process holds; `holder` is that process, in words."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path}: is locked by {holder}; wait for its end")
        self.holder = holder


@contextmanager
def lock(
    path: Path, seconds: float = 0.0, check: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the lock file `path`; the system unlocks it when the process ends, however it ends.

    Wait at most `seconds` for another process, then raise `LockedError`; `check` is called meanwhile, and
    may raise. On a file system without locks: warn, and go on without. The file stays.
    """
    with path.open("a+", encoding="utf-8", errors="replace") as file:
        last = time.monotonic() + seconds
        while not _locked(file):
            if time.monotonic() >= last:
                file.seek(0)
                raise LockedError(path, file.read(200).strip() or "another process")
            check()
            time.sleep(_POLL_SECONDS)
        with suppress(OSError):  # on a full disk the lock holds all the same
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
        try:
            yield
        finally:
            with suppress(
                OSError
            ):  # closing does not unlock while a forked process has the file too
                _flock(file, _LEAVE)


def _locked(file: IO[str]) -> bool:
    """Return whether the lock is held now, as far as the file system has locks."""
    try:
        _flock(file, _TAKE)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        device = os.fstat(file.fileno()).st_dev
        if device not in _WARNED_OF:
            _WARNED_OF.add(device)
            folder = Path(file.name).parent
            logging.getLogger("harness").warning(
                f"{folder}: file locks do not work there ({error.strerror}); nothing but you "
                "keeps two commands from training the same run at once"
            )
    return True
