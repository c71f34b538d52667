"""The store of checkpoints, which several processes and machines may share.

A run starts from the longest stored beginning of its own LR plan. That is resuming, extending a finished
run, never training a finished one again, and sharing what several have in common.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness import correct, files
from harness.config.schema import Config
from harness.config.values import to_dict
from harness.config.warnings import warn, warn_once
from harness.correct import Bits
from harness.files import atomic, read_json, write_json
from harness.store.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    CorruptCheckpointError,
    RowsFile,
    correct_path,
    info_to_json,
    read_checkpoint,
)
from harness.store.identity import _FINGERPRINT, FORMAT, RunIdentity, _format, plan_hashes, stem
from harness.training.loop import Row

ABOUT = "about.json"  # in the folder of a fingerprint: what that stands for, for people
_POLL = 0.5  # seconds between two looks at whether waiting is over
_HEARTBEAT = 5.0  # seconds between two signs of life of a run that others may wait for
_REMEMBERED = ("diverged", "refused")  # ends that follow from what a key holds
_STALE = 60.0  # seconds without one after which other runs stop waiting


@dataclass(frozen=True)
class Store:
    """The checkpoints of all runs: `folder/FINGERPRINT/STEP-PLAN.json`, weights and rows beside them.

    Several processes and machines may share the folder: a checkpoint is there once its JSON is, which
    comes last and whole, by renaming.
    """

    folder: Path

    def checkpoints(self, run: RunIdentity) -> Iterator[Checkpoint]:
        """Yield the stored beginnings of `run` with all that it would have recorded, the longest first.

        Damaged files are named in a warning and passed over.
        """
        found: dict[int, list[Path]] = {}
        for path in (self.folder / run.fingerprint).glob("*-*.json"):
            number = path.stem.partition("-")[0]
            if number.isdecimal() and int(number) <= run.plan.updates:
                found.setdefault(int(number), []).append(path)
        hashes = dict(plan_hashes(run.plan, found))
        for step in sorted(found, reverse=True):
            for path in found[step]:
                if path.stem != stem(step, hashes[step]):
                    continue
                try:
                    checkpoint = read_checkpoint(path)
                    serves = (
                        checkpoint.plan_sha256 == hashes[step]
                        and run.log_schedule.has_averages(checkpoint.averages, step)
                        and run.log_schedule.covers(checkpoint.rows, step)
                    )
                except CorruptCheckpointError as error:
                    warn(f"{error}; it is passed over")
                    continue
                if serves:
                    yield checkpoint

    def save(
        self,
        run: RunIdentity,
        step: int,
        state: dict[str, Any],
        rows_file: RowsFile,
        info: CheckpointInfo,
    ) -> Path | None:
        """Store `state` after `step` updates. Return the path of the new file's JSON.

        None: it was not written, since there is one already and this one is not permanent, or since
        the store is full or read-only; that costs a warning, not the run.
        """
        ((_, plan_sha256),) = plan_hashes(run.plan, [step])
        path = self._path(run, step, plan_sha256)
        if path.exists() and not info.permanent:
            return None
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getbuffer()
        sha256 = hashlib.sha256(content).hexdigest()
        file = f"{path.stem}-{sha256[:16]}.pt"
        document = {
            "format": FORMAT, "fingerprint": run.fingerprint, "step": step,
            "plan_sha256": plan_sha256, "file": file, "sha256": sha256, **info_to_json(info),
        }  # fmt: skip
        try:
            document |= rows_file.extend(path.parent)
            with atomic(path.parent / file) as opened:
                opened.write(content)
            write_json(path, document)
        except OSError as error:
            warn(f"no checkpoint of update {step}: {error}; training goes on")
            return None
        return path

    def _path(self, run: RunIdentity, step: int, plan_sha256: str) -> Path:
        return self.folder / run.fingerprint / f"{stem(step, plan_sha256)}.json"

    def save_correct(self, run: RunIdentity, bits: Mapping[str, Bits]) -> None:
        """Store which images the end of `run` classifies correctly, if the store has that end.

        What cannot be written costs a warning, not the run.
        """
        ((step, plan_sha256),) = plan_hashes(run.plan, [run.plan.updates])
        path = self._path(run, step, plan_sha256)
        try:
            if path.exists():
                correct.write(correct_path(path), bits)
        except OSError as error:
            warn(f"{correct_path(path).name} is not stored: {error}")

    def drop(self, path: Path) -> None:
        """Remove a checkpoint that a later one has replaced, unless another run has made it permanent."""
        try:
            checkpoint = read_checkpoint(path)
            if checkpoint.permanent:
                return
            path.unlink(missing_ok=True)
            (path.parent / checkpoint.file).unlink(missing_ok=True)
        except (CorruptCheckpointError, OSError) as error:
            warn(f"{path} is left behind: {error}")

    def older(self) -> list[Path]:
        """Return the folders of older formats, which no run of this version looks into."""
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
            warn_once(
                f"the checkpoints of {len(older)} fingerprints in {self.folder} are of an older format "
                "and are not used; scripts/store.py prune --older-formats removes them"
            )

    def note_settings(self, run: RunIdentity, config: Config) -> None:
        """Write down, once, the settings that the fingerprint of `run` stands for; nothing reads them but people."""
        path = self.folder / run.fingerprint / ABOUT
        settings = to_dict(config)
        about: dict[str, Any] = {name: settings[name] for name in ("model", "dataset", "seed")}
        with suppress(OSError):  # a store that is full or read-only, which `save` says
            if not path.exists():
                about["updates_per_epoch"] = run.plan.updates_per_epoch
                write_json(path, about | {"apart_from_code": run.apart_from_code})

    def has_other_code(self, run: RunIdentity) -> bool:
        """Return whether there are checkpoints of the same settings, made by other code of an extension."""
        if run.apart_from_code is None:
            return False
        for path in self.folder.glob(f"*/{ABOUT}"):
            with suppress(OSError, ValueError, AttributeError):
                same = read_json(path).get("apart_from_code") == run.apart_from_code
                if same and path.parent.name != run.fingerprint:
                    return True
        return False

    # --- outcomes: bad ends that follow from the key, so that the same command does not repeat them ---

    def _outcome(self, run: RunIdentity) -> Path:
        return self.folder / run.fingerprint / f"{run.run_id}.outcome"

    def outcome(self, run: RunIdentity) -> dict[str, Any] | None:
        """Return how the run ended if it last ended badly: `status`, `error`, `rows`; else None.

        Failures for reasons that are not in the key, which earlier versions noted, do not count.
        """
        path = self._outcome(run)
        try:
            document = files.read_json(path)
            end = {name: document[name] for name in ("status", "error", "rows")}
            return end if end["status"] in _REMEMBERED else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            warn(f"{path} cannot be read ({type(error).__name__}); it is passed over")
            return None

    def note_outcome(
        self, run: RunIdentity, status: str, error: str | None, rows: list[Row]
    ) -> None:
        """Remember a run that diverged or was refused; forget it once it is complete."""
        path = self._outcome(run)
        try:
            if status == "complete":
                path.unlink(missing_ok=True)
            else:
                write_json(path, {"status": status, "error": error, "rows": rows})
        except OSError as failure:
            warn(f"the run's outcome is not noted: {failure}")

    # --- leases: which checkpoints a run under way is going to write ----------------------------

    @contextmanager
    def lease(
        self,
        run: RunIdentity,
        keep: Iterable[int],
        wait: bool,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[Callable[[], None]]:
        """Announce which checkpoints a run will write; yield a heartbeat to be called often.

        With `wait`, first wait while another run is on its way to a longer checkpoint of `run` than any
        that is stored; `check` is called meanwhile, and may raise.
        """
        own = self.folder / run.fingerprint / f"{run.run_id}.training"
        coming: list[list[Any]] = [list(pair) for pair in plan_hashes(run.plan, keep)]
        for entry in coming if run.log_schedule.averages else ():
            entry.append({one.name: one.sampled(entry[0]) for one in run.log_schedule.averages})
        inode = None
        try:
            own.parent.mkdir(parents=True, exist_ok=True)
            while True:
                with files.lock(own.parent / "training.lock", files.LOCK_SECONDS, check):
                    if not (wait and self._worth_waiting(own, run)):
                        write_json(own, coming)
                        inode = own.stat().st_ino
                        break
                check()
                time.sleep(_POLL)
        except OSError as error:
            warn(f"other runs cannot wait for this one: {error}")
        last = time.monotonic()

        def heartbeat() -> None:
            nonlocal last
            if time.monotonic() - last > _HEARTBEAT:
                last = time.monotonic()
                with suppress(OSError):
                    own.touch()

        try:
            yield heartbeat
        finally:
            with suppress(OSError):
                if own.stat().st_ino == inode:  # else another process has the same run under way
                    own.unlink()

    def _worth_waiting(self, own: Path, run: RunIdentity) -> bool:
        stored = next((checkpoint.step for checkpoint in self.checkpoints(run)), 0)
        for path in own.parent.glob("*.training"):
            try:
                if path == own or abs(time.time() - path.stat().st_mtime) > _STALE:
                    continue  # dead, or a clock was set: then a beginning may be trained twice
                entries = json.loads(files.read(path))
                coming = {
                    int(step): str(plan)
                    for step, plan, *kept in entries
                    if run.log_schedule.has_averages(dict(*kept), int(step))
                }
            except (OSError, ValueError, TypeError, RecursionError):
                continue  # it has just ended, or it is not ours
            longer = [step for step in coming if stored < step <= run.plan.updates]
            if any(coming[step] == plan for step, plan in plan_hashes(run.plan, longer)):
                return True
        return False
