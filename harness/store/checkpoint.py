"""One stored checkpoint: a JSON file, with files for the weights and the rows of the history in the same folder."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import secrets
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from harness import correct, files
from harness.correct import Bits
from harness.store.identity import FORMAT
from harness.training.loop import Row

MOST_STATE_BYTES = 2**36  # of a checkpoint, where nothing says how large it should be


class CorruptCheckpointError(Exception):
    """A file of the store that is not what it should be."""


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What is known of a checkpoint beside its weights and its rows."""

    numerics: dict[str, Any]
    bitwise: bool  # one machine's arithmetic made it, from the first update on
    permanent: bool  # a cycle end, a branch or an end; not just the progress of a run
    seconds: float  # of training up to here, over all runs that share it
    test: Row | None = None  # the test set's metrics if a run ended here, empty without a test set
    test_sha256: str | None = None  # of the test set that `test` is about
    commit: str | None = None  # of the program that made the last update
    dirty: bool | None = None  # whether its files were changed since that commit
    averages: dict[str, list[int] | None] = field(
        default_factory=dict
    )  # by name, `Average.sampled`

    @property
    def is_end(self) -> bool:
        return self.test is not None


_JSON_NAMES = {"bitwise": "exact", "permanent": "kept"}  # as files have had them from the beginning


@dataclass(frozen=True, kw_only=True)
class Checkpoint(CheckpointInfo):
    """A stored checkpoint, as its JSON describes it."""

    path: Path  # of that JSON; the weights are in `file` in the same folder
    fingerprint: str
    step: int
    plan_sha256: str
    file: str
    sha256: str
    rows_file: str  # in the same folder: the history is the first `rows_bytes` of this file
    rows_bytes: int
    rows_sha256: str

    @property
    def key(self) -> str:
        return f"{self.fingerprint}/{self.path.stem}"

    @cached_property
    def rows(self) -> list[Row]:
        """Return the history up to here, checked against its checksum. Raises `CorruptCheckpointError`."""
        path = self.path.parent / self.rows_file
        try:
            content = files.read(path)[: self.rows_bytes]
            if hashlib.sha256(content).hexdigest() != self.rows_sha256:
                raise CorruptCheckpointError(
                    f"{self.path}: {path.name} does not begin with the rows that it says"
                )
            rows = [_row(json.loads(line)) for line in content.splitlines()]
        except (OSError, TypeError, ValueError, RecursionError) as error:
            raise CorruptCheckpointError(
                f"{self.path}: {path.name} cannot be read ({error})"
            ) from error
        return rows


def _row(values: Any) -> Row:
    """Return a line of a history. Raises TypeError for anything else."""
    numbers = isinstance(values, dict) and all(
        type(v) in (int, float) and math.isfinite(v) for v in values.values()
    )
    if not numbers or type(values.get("step")) is not int:
        raise TypeError("a line is not a row of a history")
    return dict(values)


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint that the JSON at `path` describes. Raises `CorruptCheckpointError`."""
    try:
        document = files.read_json(path)
        if document.pop("format") != FORMAT:
            raise CorruptCheckpointError(f"{path} is of another format")
        for name, on_disk in _JSON_NAMES.items():
            document[name] = document.pop(on_disk)
        checkpoint = Checkpoint(path=path, **document)
        if not isinstance(checkpoint.averages, dict):
            raise CorruptCheckpointError(f"{path} has averages of another kind")
        inside = all(Path(name).name == name for name in (checkpoint.file, checkpoint.rows_file))
        if not inside or checkpoint.fingerprint != path.parent.name:
            raise CorruptCheckpointError(f"{path} does not belong here")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptCheckpointError(f"{path} cannot be read ({type(error).__name__})") from error
    return checkpoint


def info_to_json(info: CheckpointInfo) -> dict[str, Any]:
    """Return what the JSON beside a checkpoint says of it, but for its files."""
    values = dataclasses.asdict(info) | {"seconds": round(info.seconds, 3)}
    if not info.averages:
        del values["averages"]
    return {_JSON_NAMES.get(name, name): value for name, value in values.items()}


def read_state(checkpoint: Checkpoint, most: int = MOST_STATE_BYTES) -> dict[str, Any]:
    """Return the state that `TrainState.restore` takes, checked against its checksum, of at most `most` bytes.

    Raises `CorruptCheckpointError`, also for what would unpack to more than the file holds.
    """
    path = checkpoint.path.parent / checkpoint.file
    try:
        content = files.read(path, most)
    except OSError as error:
        raise CorruptCheckpointError(f"{path} cannot be read ({error})") from error
    if hashlib.sha256(content).hexdigest() != checkpoint.sha256:
        raise CorruptCheckpointError(
            f"{path} does not have the checksum that {checkpoint.path.name} says"
        )
    try:
        packed = zipfile.ZipFile(io.BytesIO(content)).infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in packed):
            raise CorruptCheckpointError(f"{path} is compressed, which no checkpoint is")
        state: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
    except CorruptCheckpointError:
        raise
    except Exception as error:  # a foreign file can make torch raise anything
        raise CorruptCheckpointError(
            f"{path} is not a checkpoint ({type(error).__name__})"
        ) from error
    return state


def correct_path(path: Path) -> Path:
    """Return where, beside a checkpoint's JSON, stands which images it classifies correctly."""
    return path.with_suffix(".npz")


def read_correct(checkpoint: Checkpoint) -> dict[str, Bits]:
    """Return by split which images an end classifies correctly; empty where that was not stored.

    Raises `CorruptCheckpointError`, also where they do not give the accuracy that the checkpoint has.
    """
    path = correct_path(checkpoint.path)
    try:
        found = correct.read(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CorruptCheckpointError(str(error)) from error
    recorded = (checkpoint.rows[-1] if checkpoint.rows else {}) | (checkpoint.test or {})
    for split, bits in found.items():
        if correct.accuracy(bits) != recorded.get(correct.metric(split)):
            raise CorruptCheckpointError(
                f"{path}: does not give the {correct.metric(split)} of its checkpoint"
            )
    return found


class RowsFile:
    """The rows of a run under way, in a file that only grows and that only this process writes.

    Each checkpoint names the part that is there so far, so that none costs more than those before.
    """

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows
        self._name = f"{secrets.token_hex(16)}.rows"
        self._count, self._bytes, self._hash = 0, 0, hashlib.sha256()

    def extend(self, folder: Path) -> dict[str, Any]:
        """Append the rows that are not there yet. Return what a `Checkpoint` says of its rows.

        Raises OSError; the next call then begins where the last good one ended.
        """
        path = folder / self._name
        if not path.exists():  # the first time, or someone has tidied up
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._count, self._bytes, self._hash = 0, 0, hashlib.sha256()
        new = "".join(
            json.dumps(row, allow_nan=False) + "\n" for row in self._rows[self._count :]
        ).encode()
        with path.open("r+b") as file:
            file.seek(self._bytes)
            file.write(new)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        self._count, self._bytes = len(self._rows), self._bytes + len(new)
        self._hash.update(new)
        return {
            "rows_file": self._name,
            "rows_bytes": self._bytes,
            "rows_sha256": self._hash.hexdigest(),
        }

    def remove(self, folder: Path) -> None:
        with suppress(OSError):
            (folder / self._name).unlink()
