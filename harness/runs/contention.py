"""Whether the threads of a run wait for cores that other processes use: each update then waits for the last of them."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, NamedTuple

from harness.config.warnings import warn

_EVERY = 5.0  # seconds that are looked at
_TOO_MUCH = 0.25  # of the time in which threads could run, if they wait as long for a core


class CoreTimes(NamedTuple):
    """Seconds of all threads of this process: on a core, and ready to run while others were on it."""

    running: float
    waiting: float

    @classmethod
    def now(cls) -> CoreTimes:
        """Read Linux's counters; they are 0 on a system that has none."""
        running = waiting = 0
        for path in Path("/proc/self/task").glob("*/schedstat"):
            with suppress(OSError):  # a thread that has ended
                on_core, ready, _ = map(int, path.read_text().split())
                running, waiting = running + on_core, waiting + ready
        return cls(running / 1e9, waiting / 1e9)


def share_waited(before: CoreTimes, after: CoreTimes) -> float:
    """Return for which share of the time in which threads could have run they waited for a core."""
    running, waiting = (max(0.0, b - a) for a, b in zip(before, after, strict=True))
    return waiting / max(running + waiting, 1e-9)


class Contention:
    """Warns, once in a process, of a run on the CPU whose `threads` wait for cores."""

    _warned: ClassVar[bool] = False

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._last, self._before = time.monotonic(), CoreTimes.now()

    def look(self) -> None:
        """Look at the time since the last look, if that is long enough."""
        now = time.monotonic()
        if Contention._warned or self._threads < 2 or now - self._last < _EVERY:
            return
        before, self._last, self._before = self._before, now, CoreTimes.now()
        if (share := share_waited(before, self._before)) > _TOO_MUCH:
            Contention._warned = True
            warn(
                f"the {self._threads} threads of this run wait for a core {share:.0%} of the time, as other processes "
                "use them too, and all threads wait for the last: it may be much faster with OMP_NUM_THREADS=1 "
                "before the command, or on an idle machine"
            )
