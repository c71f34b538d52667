"""When a run writes checkpoints, which it keeps, and from which it starts."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection
from functools import cache
from typing import Any

from harness.runs.signals import Interrupted
from harness.store import store as trajectory
from harness.store.checkpoint import Damaged, Prefix, RowsFile, read_state
from harness.store.identity import Trajectory
from harness.store.store import Store
from harness.training.distributed import World
from harness.training.loop import Row, TrainState
from harness.training.schedules import Plan


def kept(keep: str, plan: Plan, branches: Collection[int]) -> frozenset[int]:
    """After which updates checkpoints are kept; the end is written last, with the test's metrics."""
    match keep:
        case "cycles":
            return frozenset({*plan.cycle_ends, *branches, plan.updates})
        case "last":
            return frozenset({plan.updates})
    return frozenset()


def restore(store: Store, t: Trajectory, state: TrainState) -> Prefix | None:
    """Take `state` to the longest stored prefix of the run; None, and `state` as it was, without one.

    A file that does not fit is named in a warning and passed over.
    """
    weights = sum(tensor.nbytes for tensor in state.network.state_dict().values())
    most = 4 * weights + 2**20  # bytes: with two moments a parameter, and the generators
    for prefix in store.prefixes(t):
        try:
            saved = read_state(prefix, most)
        except Damaged as error:
            trajectory.warn(f"{prefix.path}: {error}; it is passed over")
            continue
        before = copy.deepcopy(state.snapshot())
        try:
            if saved["updates"] != prefix.step:
                raise ValueError(f"it is of update {saved['updates']}")
            state.restore(saved)
        except Exception as error:  # whatever a foreign file makes torch raise, half applied
            state.restore(before)
            reason = " ".join(str(error).split())[:200]
            trajectory.warn(f"{prefix.path}: {reason}; it is passed over")
            continue
        return prefix
    return None


def hand_on(origin: Prefix | None, state: TrainState, world: World) -> Prefix | None:
    """The first process's `origin`, and `state` as it is there."""
    if world.size == 1:
        return origin
    origin, saved = world.from_first(lambda: (origin, state.snapshot() if origin else None))
    if world.rank and saved:
        state.restore(saved)
    return origin


class Checkpoints:
    """When a run writes checkpoints, and which of them it takes away again."""

    def __init__(
        self,
        store: Store | None,
        t: Trajectory,
        numerics: dict[str, Any],
        state: TrainState,
        rows: list[Row],
        origin: Prefix | None,
        keep: frozenset[int],
        every_seconds: float,
    ) -> None:
        self._store, self._trajectory, self._numerics = store, t, numerics
        self._state, self._rows, self._origin = state, rows, origin
        self._rows_file = RowsFile()
        self._keep, self._every_seconds = keep, every_seconds
        self._begin = self._last = time.monotonic()
        self._passing = origin.path if origin and not (origin.kept or origin.step in keep) else None
        same = origin is None or (origin.exact and origin.numerics == numerics)
        self._exact = origin is None or (same and numerics["deterministic"])

    def source(self) -> dict[str, Any]:
        """For the result: where the run comes from."""
        origin = self._origin
        if origin and not self._exact:
            _warn_inexact(origin.numerics, self._numerics)
        return {
            "parent": origin.key if origin else None,
            "updates_reused": origin.step if origin else 0,
            "updates_trained": 0,
            "seconds_reused": origin.seconds if origin else 0.0,
            "exact": self._exact,
        }

    def due(self) -> bool:
        """Whether the last update asks for a checkpoint."""
        done = self._state.updates
        if self._store is None or done == self._trajectory.plan.updates:
            return False
        return done in self._keep or time.monotonic() - self._last >= self._every_seconds

    def after_update(self, signal: int | None, due: bool) -> None:
        """Raises `Interrupted`, with the checkpoint written, if a signal asked for it."""
        kept = self._state.updates in self._keep
        if signal is not None:
            self._save(kept)
            raise Interrupted(signal)
        if due:
            self._save(kept)

    def tested(self, test_sha256: str | None) -> tuple[Row, None] | None:
        """The stored metrics of the test set of this digest, if the run is over and has them."""
        origin = self._origin
        over = origin is not None and origin.step == self._trajectory.plan.updates
        if origin and over and origin.test and origin.test_sha256 == test_sha256:
            return origin.test, None
        return None

    def finish(self, test: Row, test_sha256: str | None, keep: str) -> None:
        """Keep the end, with the test's metrics; with `keep` none, nothing is left of the run."""
        if not test and self._origin and self._origin.is_end:
            return  # perhaps with the metrics of another test set
        if keep != "none":
            self._save(kept=True, test=test, test_sha256=test_sha256 if test else None)
        elif self._passing and self._store:
            self._store.drop(self._passing)
            self._rows_file.remove(self._passing.parent)

    def _save(self, kept: bool, test: Row | None = None, test_sha256: str | None = None) -> None:
        state = self._state.snapshot()  # `Diverged` comes from every process, with a store or not
        if self._store is None or self._state.not_finite():
            return  # weights that are not finite stay so, which the next loss or evaluation shows
        before = self._origin.seconds if self._origin else 0.0
        path = self._store.save(
            self._trajectory,
            self._state.updates,
            state,
            rows=self._rows,
            rows_file=self._rows_file,
            numerics=self._numerics,
            exact=self._exact,
            kept=kept,
            seconds=before + time.monotonic() - self._begin,
            test=test,
            test_sha256=test_sha256,
        )
        self._last = time.monotonic()
        if path is None:
            return
        if self._passing and self._passing != path:
            self._store.drop(self._passing)
        self._passing = None if kept else path


@cache
def _warned_of(difference: str) -> None:
    trajectory.warn(
        f"starts from a checkpoint of other numerics ({difference}): results are close, not bit-equal"
    )


def _warn_inexact(there: dict[str, Any], here: dict[str, Any]) -> None:
    differing = [
        f"{n} {there.get(n)} there, {here[n]} here" for n in here if there.get(n) != here[n]
    ]
    _warned_of("; ".join(differing) or "it had such a beginning itself, or is not deterministic")
