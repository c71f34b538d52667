"""The identity of a run, and the store of checkpoints under it.

The weights after `k` updates follow from the fingerprint and `plan.lr[:k]`, and from nothing else.
So a checkpoint is stored under (fingerprint, k, SHA-256 of `plan.lr[:k]`), and a run starts from the
longest stored prefix of its own plan. That is resuming, extending a finished run, never training a
finished one again, and sharing what several have in common.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import secrets
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import files
from harness.config.schema import Config, without_added
from harness.files import atomic, write_json
from harness.training.loop import Cadence, Row
from harness.training.schedules import Plan

# Raised when the same configuration comes to train differently, or is stored differently.
FORMAT = 3
_MOST_STATE_BYTES = 2**36  # of a checkpoint, where nothing says how large it should be
_POLL = 0.5  # seconds between two looks at whether waiting is over
_HEARTBEAT = 5.0  # seconds between two signs of life of a run that others may wait for
_REMEMBERED = ("diverged", "refused")  # ends that follow from what a key holds
_STALE = 60.0  # seconds without one after which nobody waits any longer


def fingerprint(config: Config, data: str, precision: str) -> str:
    """`FORMAT` and SHA-256 over all that shapes the weights but the schedule and the length.

    `data` is the hash of the content of training and validation images, `precision` the one in use,
    never `auto`. What changes rounding only (device, threads, processes, versions, memory format,
    compilation) is not in it. Nor is a key that has the value of before it existed (`config.added`).
    """
    c = without_added(config)
    del c["optimizer"]["lr"]  # in the plan
    shaping: dict[str, Any] = {
        "seed": c["seed"],
        "model": c["model"],
        "optimizer": c["optimizer"],
        "data": data,
        "augmentation": _named(c["dataset"], "crop", "flip"),
        "trainer": _named(c["trainer"], "batch_size", "label_smoothing"),
        "precision": precision,
    }
    return f"{FORMAT}-{hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()}"


def _named(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


@dataclass(frozen=True)
class Trajectory:
    """The weights that a run passes through, and what it records of them."""

    fingerprint: str
    plan: Plan
    cadence: Cadence

    @property
    def run_id(self) -> str:
        """16 hexadecimal digits that name the whole run, on W&B too."""
        whole = self.fingerprint.encode() + self.plan.lr.tobytes()
        return hashlib.sha256(whole).hexdigest()[:16]


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of all parameters and buffers, a `state_dict`."""
    whole = hashlib.sha256()
    for name, tensor in state.items():
        values: Any = tensor.detach().cpu().contiguous().numpy()
        whole.update(f"{name} {values.dtype} {values.shape}\n".encode())
        whole.update(values)
    return whole.hexdigest()


@dataclass(frozen=True)
class Prefix:
    """A stored checkpoint, as the JSON beside it tells."""

    path: Path  # of that JSON; the weights are in `file` beside it
    fingerprint: str
    step: int
    plan_sha256: str
    file: str
    sha256: str
    rows_file: str  # beside it too: the history is the first `rows_bytes` of this file
    rows_bytes: int
    rows_sha256: str
    numerics: dict[str, Any]
    exact: bool  # one machine's arithmetic made it, from the first update on
    kept: bool  # a cycle end, a branch or an end; not just where a run stood
    seconds: float  # of training up to here, whoever did it
    test: Row | None  # the test set's metrics if a run ended here, empty without a test set
    test_sha256: str | None  # of the test set that `test` is about

    @property
    def key(self) -> str:
        return f"{self.fingerprint}/{self.path.stem}"

    @property
    def is_end(self) -> bool:
        return self.test is not None

    @cached_property
    def rows(self) -> list[Row]:
        """The history up to here, checked against its checksum. Raises `Damaged`."""
        path = self.path.parent / self.rows_file
        try:
            content = files.read(path)[: self.rows_bytes]
            if hashlib.sha256(content).hexdigest() != self.rows_sha256:
                raise Damaged(f"{self.path}: {path.name} does not begin with the rows that it says")
            rows = [_row(json.loads(line)) for line in content.splitlines()]
        except (OSError, TypeError, ValueError, RecursionError) as error:
            raise Damaged(f"{self.path}: {path.name} cannot be read ({error})") from error
        return rows


def _row(values: Any) -> Row:
    """A line of a history. Raises TypeError for anything else."""
    numbers = isinstance(values, dict) and all(
        type(v) in (int, float) and math.isfinite(v) for v in values.values()
    )
    if not numbers or type(values.get("step")) is not int:
        raise TypeError("a line is not a row of a history")
    return dict(values)


class Damaged(Exception):
    """A file of the store that is not what it should be."""


def read_prefix(path: Path) -> Prefix:
    """The checkpoint that the JSON at `path` describes. Raises `Damaged`."""
    try:
        document = files.read_json(path)
        if document.pop("format") != FORMAT:
            raise Damaged(f"{path} is of another format")
        prefix = Prefix(path=path, **document)
        inside = all(Path(name).name == name for name in (prefix.file, prefix.rows_file))
        if not inside or prefix.fingerprint != path.parent.name:
            raise Damaged(f"{path} does not belong here")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Damaged(f"{path} cannot be read ({type(error).__name__})") from error
    return prefix


def read_state(prefix: Prefix, most: int = _MOST_STATE_BYTES) -> dict[str, Any]:
    """The state that `TrainState.restore` takes, checked against its checksum, of at most `most` bytes.

    Raises `Damaged`, also for what would unpack to more than the file holds.
    """
    path = prefix.path.parent / prefix.file
    try:
        content = files.read(path, most)
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({error})") from error
    if hashlib.sha256(content).hexdigest() != prefix.sha256:
        raise Damaged(f"{path} does not have the checksum that {prefix.path.name} says")
    try:
        packed = zipfile.ZipFile(io.BytesIO(content)).infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in packed):
            raise Damaged(f"{path} is compressed, which no checkpoint is")
        state: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
    except Damaged:
        raise
    except Exception as error:  # whatever torch makes of a foreign file
        raise Damaged(f"{path} is not a checkpoint ({type(error).__name__})") from error
    return state


class RowsFile:
    """The rows of a run under way, in a file that only grows and that only this process writes.

    Each checkpoint names the part that is there so far, so that none costs more than those before.
    """

    def __init__(self) -> None:
        self._name = f"{secrets.token_hex(16)}.rows"
        self._count, self._bytes, self._hash = 0, 0, hashlib.sha256()

    def extend(self, folder: Path, rows: list[Row]) -> dict[str, Any]:
        """Append those of `rows` that are not there yet. Returns what a `Prefix` says of its rows.

        Raises OSError; the next call then begins where the last good one ended.
        """
        path = folder / self._name
        if not path.exists():  # the first time, or someone has tidied up
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._count, self._bytes, self._hash = 0, 0, hashlib.sha256()
        new = "".join(
            json.dumps(row, allow_nan=False) + "\n" for row in rows[self._count :]
        ).encode()
        with path.open("r+b") as file:
            file.seek(self._bytes)
            file.write(new)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        self._count, self._bytes = len(rows), self._bytes + len(new)
        self._hash.update(new)
        return {
            "rows_file": self._name,
            "rows_bytes": self._bytes,
            "rows_sha256": self._hash.hexdigest(),
        }

    def remove(self, folder: Path) -> None:
        with suppress(OSError):
            (folder / self._name).unlink()


@dataclass(frozen=True)
class Store:
    """Checkpoints of all runs: `folder/FINGERPRINT/STEP-PLAN.json`, weights and rows beside them.

    Several processes and machines may share the folder: a checkpoint is there once its JSON is, which
    comes last and whole, by renaming.
    """

    folder: Path

    def prefixes(self, t: Trajectory) -> Iterator[Prefix]:
        """The stored prefixes of `t` with all that it would have recorded, the longest first.

        Damaged files are named in a warning and passed over.
        """
        found: dict[int, list[Path]] = {}
        for path in (self.folder / t.fingerprint).glob("*-*.json"):
            number = path.stem.partition("-")[0]
            if number.isdecimal() and int(number) <= t.plan.updates:
                found.setdefault(int(number), []).append(path)
        hashes = dict(plan_hashes(t.plan, found))
        for step in sorted(found, reverse=True):
            for path in found[step]:
                if path.stem != stem(step, hashes[step]):
                    continue
                try:
                    prefix = read_prefix(path)
                    serves = prefix.plan_sha256 == hashes[step] and t.cadence.covers(
                        prefix.rows, step
                    )
                except Damaged as error:
                    warn(f"{error}; it is passed over")
                    continue
                if serves:
                    yield prefix

    def save(
        self,
        t: Trajectory,
        step: int,
        state: dict[str, Any],
        *,
        rows: list[Row],
        rows_file: RowsFile,
        numerics: dict[str, Any],
        exact: bool,
        kept: bool,
        seconds: float,
        test: Row | None = None,
        test_sha256: str | None = None,
    ) -> Path | None:
        """Store `state` after `step` updates. Returns the path of the new file's JSON.

        None: it was not written, since there is one already and this one need not be kept, or since
        the store is full or read-only; that costs a warning, not the run.
        """
        ((_, plan_sha256),) = plan_hashes(t.plan, [step])
        path = self.folder / t.fingerprint / f"{stem(step, plan_sha256)}.json"
        if path.exists() and not kept:
            return None
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getbuffer()
        sha256 = hashlib.sha256(content).hexdigest()
        file = f"{path.stem}-{sha256[:16]}.pt"
        document = {
            "format": FORMAT, "fingerprint": t.fingerprint, "step": step, "plan_sha256": plan_sha256,
            "file": file, "sha256": sha256, "numerics": numerics, "exact": exact, "kept": kept,
            "seconds": round(seconds, 3), "test": test,
            "test_sha256": test_sha256,
        }  # fmt: skip
        try:
            document |= rows_file.extend(path.parent, rows)
            with atomic(path.parent / file) as opened:
                opened.write(content)
            write_json(path, document)
        except OSError as error:
            warn(f"no checkpoint of update {step}: {error}; training goes on")
            return None
        return path

    def drop(self, path: Path) -> None:
        """Remove a checkpoint that a later one has replaced; its rows are the later one's too."""
        try:
            file = read_prefix(path).file
            path.unlink(missing_ok=True)
            (path.parent / file).unlink(missing_ok=True)
        except (Damaged, OSError) as error:
            warn(f"{path} is left behind: {error}")

    def older(self) -> list[Path]:
        """The folders of older formats, which no run of this version looks into."""
        if not self.folder.is_dir():
            return []
        names = (name for name in os.listdir(self.folder) if _FINGERPRINT.fullmatch(name))
        return [self.folder / name for name in sorted(names) if _format(name) < FORMAT]

    def warn_of_older(self) -> None:
        """Say, once in this process, what is there that a run of this version cannot use."""
        try:
            older = self.older()
        except OSError:
            return  # a run says itself what it cannot read
        if older:
            _warn_once(
                f"the checkpoints of {len(older)} fingerprints in {self.folder} are of an older format "
                "and are not used; scripts/store.py prune --older-formats removes them"
            )

    # --- outcomes: bad ends that follow from the key, so that the same command does not repeat them ---

    def _outcome(self, t: Trajectory) -> Path:
        return self.folder / t.fingerprint / f"{t.run_id}.outcome"

    def outcome(self, t: Trajectory) -> dict[str, Any] | None:
        """How the run ended when it last ended badly: `status`, `error`, `rows`; else None.

        Failures for reasons that are not in the key, which earlier versions noted, do not count.
        """
        path = self._outcome(t)
        try:
            document = files.read_json(path)
            end = {name: document[name] for name in ("status", "error", "rows")}
            return end if end["status"] in _REMEMBERED else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            warn(f"{path} cannot be read ({type(error).__name__}); it is passed over")
            return None

    def note_outcome(self, t: Trajectory, status: str, error: str | None, rows: list[Row]) -> None:
        """Remember a run that diverged or was refused; forget it once it is complete."""
        path = self._outcome(t)
        try:
            if status == "complete":
                path.unlink(missing_ok=True)
            else:
                write_json(path, {"status": status, "error": error, "rows": rows})
        except OSError as failure:
            warn(f"the run's outcome is not noted: {failure}")

    # --- claims: which checkpoints a run under way is going to write ----------------------------

    @contextmanager
    def training(
        self,
        t: Trajectory,
        keep: Iterable[int],
        wait: bool,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[Callable[[], None]]:
        """Tell others which checkpoints are on their way; yields a sign of life to be called often.

        With `wait`, first wait while another run is on its way to a longer prefix of `t` than any
        that is stored; `check` is called meanwhile, and may raise.
        """
        own = self.folder / t.fingerprint / f"{t.run_id}.training"
        coming = [list(pair) for pair in plan_hashes(t.plan, keep)]
        try:
            own.parent.mkdir(parents=True, exist_ok=True)
            while True:
                with files.lock(own.parent / "training.lock", files.LOCK_SECONDS, check):
                    if not (wait and self._worth_waiting(own, t)):
                        write_json(own, coming)
                        break
                check()
                time.sleep(_POLL)
        except OSError as error:
            warn(f"other runs cannot wait for this one: {error}")
        last = time.monotonic()

        def alive() -> None:
            nonlocal last
            if time.monotonic() - last > _HEARTBEAT:
                last = time.monotonic()
                with suppress(OSError):
                    own.touch()

        try:
            yield alive
        finally:
            with suppress(OSError):
                own.unlink()

    def _worth_waiting(self, own: Path, t: Trajectory) -> bool:
        stored = next((prefix.step for prefix in self.prefixes(t)), 0)
        for path in own.parent.glob("*.training"):
            try:
                if path == own or abs(time.time() - path.stat().st_mtime) > _STALE:
                    continue  # dead, or a clock was set: then a beginning may be trained twice
                coming: dict[int, str] = dict(json.loads(files.read(path)))
            except (OSError, ValueError, TypeError, RecursionError):
                continue  # it has just ended, or it is not ours
            longer = [step for step in coming if stored < step <= t.plan.updates]
            if any(coming[step] == plan for step, plan in plan_hashes(t.plan, longer)):
                return True
        return False


_FINGERPRINT = re.compile(r"(?:(\d{1,9})-)?[0-9a-f]{64}")  # the first two formats had no number


def _format(fingerprint: str) -> int:
    number = _FINGERPRINT.fullmatch(fingerprint)
    return int(number[1] or 0) if number else FORMAT


def stem(step: int, plan_sha256: str) -> str:
    """The name of a checkpoint's files, but for their endings."""
    return f"{step:09d}-{plan_sha256[:32]}"


def plan_hashes(plan: Plan, steps: Iterable[int]) -> Iterator[tuple[int, str]]:
    """(step, SHA-256 of `plan.lr[:step]`) for each of `steps`, in rising order, in one pass."""
    whole, done = hashlib.sha256(), 0
    for step in sorted(steps):
        whole.update(plan.lr[done:step].tobytes())
        done = step
        yield step, whole.hexdigest()


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


_warn_once = cache(warn)
