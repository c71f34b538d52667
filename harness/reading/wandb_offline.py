"""Runs in the folders that wandb writes: `wandb/*run-*/run-ID.wandb`, offline or online."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from harness import files
from harness.config.errors import ConfigError
from harness.files import UnreadableError
from harness.reading.recorded import (
    MOST_ROWS,
    Recorded,
    RunRecord,
    collect,
    listed,
    refuse_more,
    unreadable,
)
from harness.reading.wandb_values import Rows, ended, left_out_note, settings

KIND = "W&B run folders"
UNFINISHED = "unfinished"
# The log is LevelDB's: blocks of 32 KiB, in them chunks with a CRC-32, a length and a type.
_BLOCK = 2**15
_CHUNK = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_MAGIC = b":W&B\xe1\xbe\x00"


def read(folder: Path) -> Recorded:
    """Return the runs below `folder`. Several attempts at a run (of one id) are one run.

    Nothing but the logs is read, and nothing of hidden folders but `.wandb`. Raises `ConfigError` where there are no
    logs, or more rows than are read; `UnreadableError` where none of them can be read.
    """
    logs, notes = _logs(folder)
    if not logs:
        raise ConfigError(f"{folder}: there is no wandb/*run-*/run-ID.wandb below it")
    attempts: dict[tuple[str, str, str], list[_Attempt]] = {}
    errors: list[UnreadableError] = []
    rows = 0
    for path in logs:
        try:
            attempt = _read_log(path)
        except UnreadableError as error:
            errors.append(error)
            continue
        refuse_more("rows", rows := rows + len(attempt.rows), MOST_ROWS)
        about = attempt.run
        attempts.setdefault((about.entity, about.project, about.run_id), []).append(attempt)
    if not attempts:
        raise errors[0]
    notes += [f"not read: {error}" for error in errors[:20]]
    if len(errors) > 20:
        notes.append(f"not read: {len(errors) - 20:,} more logs")
    merged = [_merge(found) for found in attempts.values()]
    notes += _attempt_notes(list(attempts.values())) + left_out_note(rows for _, rows in merged)
    return collect(KIND, [record for record, _ in merged], notes)


def _logs(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the logs below a folder, and a note on links out of it, which are not followed."""
    found, outside = [], []
    root = folder.resolve()
    for name, folders, names in os.walk(folder):
        here = Path(name)
        for other in [*folders, *(one for one in names if one.endswith(".wandb"))]:
            link = here / other
            if link.is_symlink() and not link.resolve().is_relative_to(root):
                outside.append(str(link.relative_to(folder)))
        folders[:] = sorted(one for one in folders if not one.startswith(".") or one == ".wandb")
        if "run-" in here.resolve().name:
            found += [
                here / one
                for one in sorted(names)
                if one.startswith("run-")
                and one.endswith(".wandb")
                and not (here / one).is_symlink()
            ]
    notes = [f"links out of the folder are not followed: {listed(outside, 5)}"] if outside else []
    return found, notes


@dataclass
class _Attempt:
    """What one log says of its run; `rows` by step."""

    path: Path
    run: Any = None  # wandb's RunRecord
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    exit_code: int | None = None
    damage: str | None = None

    @property
    def started(self) -> tuple[int, int, str]:
        start = self.run.start_time
        return start.seconds, start.nanos, self.path.parent.name

    def take(self, record: Any) -> None:
        """Take over what a record says. Raises ValueError for values that are no JSON, and for steps beyond 64 bits."""
        match record.WhichOneof("record_type"):
            case "run":
                self.run = record.run
                _update(self.config, record.run.config)
                _update(self.summary, record.run.summary)
            case "config":
                _update(self.config, record.config)
            case "summary":
                _update(self.summary, record.summary)
            case "history":
                row: dict[str, Any] = {}
                for item in record.history.item:
                    _put(row, _path(item), _value(item))
                step = record.history.step.num if record.history.HasField("step") else row["_step"]
                if not -(2**63) <= step < 2**63:
                    raise ValueError("a step that is no number, or beyond 64 bits")
                self.rows.setdefault(int(step), {}).update(row)
            case "exit":
                self.exit_code = record.exit.exit_code


def _path(item: Any) -> Sequence[str]:
    return list(item.nested_key) or [item.key]


def _value(item: Any) -> Any:
    """Return the value of a history's item: JSON, or in a field of its type."""
    match item.WhichOneof("value"):
        case None | "none":
            return json.loads(item.value_json) if item.value_json else None
        case "json":
            return json.loads(item.json)
        case typed:
            return getattr(item, typed)


def _update(target: dict[str, Any], changes: Any) -> None:
    for item in changes.update:
        _put(target, _path(item), json.loads(item.value_json))
    for item in changes.remove:
        *parents, last = _path(item)
        inner = target
        for key in parents:
            inner = inner.get(key, {})
        inner.pop(last, None)


def _put(target: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        inner = target.get(key)
        if not isinstance(inner, dict):
            inner = target[key] = {}
        target = inner
    target[path[-1]] = value


class _DamageError(Exception):
    """A log that is cut off, or whose checksums do not fit."""


@cache
def _wire() -> tuple[Any, type[Exception]]:
    """Return wandb's type of a record, and what protobuf raises where bytes are none."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # wandb's reports about itself
    record = import_module("wandb.proto.wandb_internal_pb2").Record
    return record, import_module("google.protobuf.message").DecodeError


def _read_log(path: Path) -> _Attempt:
    """Return what a log says, up to where it is damaged. Raises `UnreadableError` if no run is in it."""
    try:
        log = files.read(path)
    except UnreadableError:
        raise
    except OSError as error:
        raise unreadable(path, error.strerror or "cannot be read") from error
    if not log.startswith(_MAGIC):
        raise unreadable(path, "is no log of wandb, or of a version that is not known")
    attempt = _Attempt(path)
    try:
        for body in _records(log):
            _take(attempt, body)
    except _DamageError as error:
        attempt.damage = str(error)
    if attempt.run is None:
        raise unreadable(path, attempt.damage or "holds no run")
    return attempt


def _take(attempt: _Attempt, body: bytes) -> None:
    record, decode_error = _wire()
    wrong = (decode_error, ValueError, LookupError, TypeError, AttributeError, RecursionError)
    try:
        attempt.take(record.FromString(body))
    except wrong as error:
        raise _DamageError("has a damaged record") from error


def _records(log: bytes) -> Iterator[bytes]:
    """Yield the records of a log (github.com/wandb/wandb, core/pkg/leveldb/record.go). Raises `_DamageError`."""
    place, parts = len(_MAGIC), list[bytes]()
    while place < len(log):
        if (left := _BLOCK - place % _BLOCK) < _CHUNK.size:
            place += left
            continue
        begin = place + _CHUNK.size
        if begin > len(log):
            raise _DamageError(f"is cut off at byte {place:,}")
        checksum, length, kind = _CHUNK.unpack_from(log, place)
        body = log[begin : begin + length]
        if length < len(body) or (begin + length > len(log) and _FULL <= kind <= _LAST):
            raise _DamageError(f"is cut off at byte {place:,}")
        known = _FULL <= kind <= _LAST and length + _CHUNK.size <= left
        if not known or zlib.crc32(body, zlib.crc32(bytes([kind]))) != checksum:
            raise _DamageError(f"is damaged at byte {place:,}")
        if (kind in (_FULL, _FIRST)) == bool(parts):
            raise _DamageError(f"is damaged at byte {place:,}")
        parts.append(body)
        place = begin + length
        if kind in (_FULL, _LAST):
            yield b"".join(parts)
            parts.clear()
    if parts:
        raise _DamageError(f"is cut off at byte {place:,}")


def _merge(attempts: list[_Attempt]) -> tuple[RunRecord, Rows]:
    """Return the run of some attempts: each goes on from its first step, in place of those before it."""
    attempts.sort(key=lambda one: one.started)
    newest = attempts[-1]
    steps: dict[int, dict[str, Any]] = {}
    config: dict[str, Any] = {}
    for one in attempts:
        first = min(one.rows, default=None)
        if first is not None:
            steps = {step: row for step, row in steps.items() if step < first}
        steps |= one.rows
        config |= one.config
    rows = Rows()
    for step, row in sorted(steps.items()):
        rows.add(step, row)
    rows.add_summary(newest.summary)
    status, error = _end(newest)
    about = newest.run
    labels = {"group": about.run_group, "job_type": about.job_type, "sweep": about.sweep_id}
    record = RunRecord(
        name=about.display_name or about.run_id,
        settings=settings(config, labels, about.tags),
        rows=rows.frame(),
        where=str(newest.path.parent),
        status=status,
        error=error,
    )
    return record, rows


def _end(newest: _Attempt) -> tuple[str, str | None]:
    if newest.exit_code is None:
        why = f"its log {newest.damage}" if newest.damage else "its log has no end"
        return UNFINISHED, f"{why}: it is running, or was killed"
    return ended(newest.exit_code, newest.summary)


def _attempt_notes(runs: Sequence[Sequence[_Attempt]]) -> list[str]:
    """Return what is to be said of runs with several attempts, and of damaged logs."""
    several = {
        one[-1].run.display_name or one[-1].run.run_id: len(one) for one in runs if len(one) > 1
    }
    damaged = [f"{one.path} {one.damage}" for run in runs for one in run if one.damage]
    return _note(
        "several attempts are one run, each from its first step in place of those before",
        [f"{name} ({number})" for name, number in several.items()],
    ) + _note("logs are read up to where they are damaged", damaged)


def _note(what: str, names: Sequence[str]) -> list[str]:
    return [f"{what}: {listed(names, 5)}"] if names else []
