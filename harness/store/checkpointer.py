"""When a run writes checkpoints, which it keeps, and from which it starts."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config.schema import MOST_AVERAGES
from harness.config.warnings import warn, warn_once
from harness.correct import Bits
from harness.store.checkpoint import (
    MOST_STATE_BYTES,
    Checkpoint,
    CheckpointInfo,
    CorruptCheckpointError,
    RowsFile,
    read_correct,
    read_state,
)
from harness.store.commit import Commit, program_commit
from harness.store.identity import RunIdentity
from harness.store.store import Store
from harness.training.distributed import World
from harness.training.loop import Row, TrainState
from harness.training.schedules import LRPlan


def steps_to_keep(keep: str, plan: LRPlan, branch_steps: Collection[int]) -> frozenset[int]:
    """Return after which updates checkpoints are kept; the end is written last, with the test's metrics."""
    match keep:
        case "cycles":
            return frozenset({*plan.cycle_ends, *branch_steps, plan.updates})
        case "last":
            return frozenset({plan.updates})
    return frozenset()


def _most_state_bytes(state: TrainState, averages: int) -> int:
    """Return how large a checkpoint of `state` may be: weights, gradients' moments, averages, generators, names.

    What an optimizer of the user's keeps may be of any size.
    """
    if not state.has_plain_moments:
        return MOST_STATE_BYTES
    sizes: list[int] = [tensor.nbytes + 2**12 for tensor in state.network.state_dict().values()]
    return (4 + min(averages, MOST_AVERAGES)) * sum(sizes) + 2**20


def restore(store: Store, run: RunIdentity, state: TrainState) -> Checkpoint | None:
    """Take `state` to the longest stored beginning of the run; None, and `state` as it was, without one.

    A file that does not fit is named in a warning and passed over.
    """
    for checkpoint in store.checkpoints(run):
        most = _most_state_bytes(state, len(checkpoint.averages))
        try:
            saved = read_state(checkpoint, most)
        except CorruptCheckpointError as error:
            warn(f"{checkpoint.path}: {error}; it is passed over")
            continue
        before = copy.deepcopy(state.snapshot())
        try:
            if saved["updates"] != checkpoint.step:
                raise ValueError(f"it is of update {saved['updates']}")
            state.restore(saved)
        except Exception as error:  # a foreign file can make torch raise anything, half applied
            state.restore(before)
            reason = " ".join(str(error).split())[:200]
            warn(f"{checkpoint.path}: {reason}; it is passed over")
            continue
        return checkpoint
    return None


def broadcast_state(
    origin: Checkpoint | None, state: TrainState, world: World
) -> Checkpoint | None:
    """Return the first process's `origin`, and take `state` to what it is there."""
    if world.size == 1:
        return origin
    origin, saved = world.broadcast_from_rank_zero(
        lambda: (origin, state.snapshot() if origin else None)
    )
    if world.rank and saved:
        state.restore(saved)
    return origin


@dataclass
class Checkpointer:
    """Writes the checkpoints of a run, and removes those that only marked its progress."""

    store: Store | None
    run: RunIdentity
    numerics: dict[str, Any]
    state: TrainState
    rows: list[Row]  # of the history, which grows
    origin: Checkpoint | None  # from which the run starts
    keep: frozenset[int]  # after which updates checkpoints are permanent
    every_seconds: float
    exact: bool = field(init=False)  # one machine's arithmetic makes the whole run
    commit: Commit = field(init=False)  # of the program that makes the last update

    def __post_init__(self) -> None:
        origin = self.origin
        self._rows_file = RowsFile(self.rows)
        self._begin = self._last = time.monotonic()
        self._temporary: Path | None = None
        if origin and not (origin.permanent or origin.step in self.keep):
            self._temporary = origin.path
        same = origin is None or (origin.bitwise and origin.numerics == self.numerics)
        self.exact = origin is None or (same and self.numerics["deterministic"])
        whole = origin is not None and origin.step == self.run.plan.updates
        self.commit = Commit(origin.commit, origin.dirty) if origin and whole else program_commit()
        if origin and not self.exact:
            _warn_inexact(origin.numerics, self.numerics)

    def due(self) -> bool:
        """Return whether the last update asks for a checkpoint."""
        done = self.state.updates
        if self.store is None or done == self.run.plan.updates:
            return False
        return done in self.keep or time.monotonic() - self._last >= self.every_seconds

    def save(self) -> None:
        """Write a checkpoint of the state as it is.

        Raises `DivergedError`, in every process, if a loss since the last row is not finite.
        """
        self._save(self.state.updates in self.keep)

    def tested(self, test_sha256: str | None) -> Row | None:
        """Return the stored metrics of the test set of this digest, if the run is over and has them."""
        origin, updates, own = self.origin, self.run.plan.updates, self.run.log_schedule
        if origin and self.starts_at_end and origin.test and origin.test_sha256 == test_sha256:
            whole = own.tells(origin.test, "test/acc", updates)
            return own.own(origin.test, updates) if whole else None
        return None

    @property
    def starts_at_end(self) -> bool:
        return self.origin is not None and self.origin.step == self.run.plan.updates

    def correct(self) -> dict[str, Bits]:
        """Return what the store has of which images the end, that the run starts at, classifies correctly.

        A damaged file is named in a warning and passed over.
        """
        try:
            return read_correct(self.origin) if self.origin else {}
        except CorruptCheckpointError as error:
            warn(f"{error}; it is passed over")
            return {}

    def keep_correct(self, correct: Mapping[str, Bits]) -> None:
        """Store which images the end of the run classifies correctly, beside its checkpoint."""
        if self.store:
            self.store.save_correct(self.run, correct)

    def finish(self, test: Row, test_sha256: str | None, keep: str) -> None:
        """Keep the end, with the test's metrics; with `keep` none, no checkpoint is left of the run."""
        if not test and self.origin and self.origin.is_end:
            return  # perhaps with the metrics of another test set
        if keep != "none":
            self._save(True, test, test_sha256 if test else None)
        elif self._temporary and self.store:
            self.store.drop(self._temporary)
            self._rows_file.remove(self._temporary.parent)

    def _save(
        self, permanent: bool, test: Row | None = None, test_sha256: str | None = None
    ) -> None:
        state = self.state.snapshot()
        if self.store is None or self.state.not_finite():
            return  # weights that are not finite stay so, which the next loss or evaluation shows
        before, averages = self.origin.seconds if self.origin else 0.0, self.state.averages
        info = CheckpointInfo(
            numerics=self.numerics,
            bitwise=self.exact,
            permanent=permanent,
            seconds=before + time.monotonic() - self._begin,
            test=test,
            test_sha256=test_sha256,
            averages=averages.sampled(self.state.updates) if averages else {},
            **self.commit._asdict(),
        )
        path = self.store.save(self.run, self.state.updates, state, self._rows_file, info)
        self._last = time.monotonic()
        if path is None:
            return
        if self._temporary and self._temporary != path:
            self.store.drop(self._temporary)
        self._temporary = None if permanent else path


def _warn_inexact(there: dict[str, Any], here: dict[str, Any]) -> None:
    differing = [
        f"{n} {there.get(n)} there, {here[n]} here" for n in here if there.get(n) != here[n]
    ]
    why = "; ".join(differing) or "it had such a beginning itself, or is not deterministic"
    warn_once(
        f"starts from a checkpoint of other numerics ({why}): results are close, not bit-equal"
    )
