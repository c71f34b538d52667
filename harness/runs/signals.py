"""Signals that end a run: noticed at the next update, when the checkpoint can be written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Never

# Windows lacks three of them, and has the last
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGBREAK")
STOPPING = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
_RECEIVED: list[int] = []
_LATER = getattr(signal, "SIGUSR2", None)


class RunInterruptedError(SystemExit):
    """A run stopped by a signal; like a program that the signal killed, it exits with 128 + its number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number
        self.signal = signal.Signals(number).name

    def __reduce__(self) -> tuple[type[RunInterruptedError], tuple[int]]:
        return type(self), (self.number,)  # as joblib brings it from a worker process


class Stop:
    """The signal that asked the run to stop, if one did. A second Ctrl-C stops it at once.

    SIGUSR2 counts before others: batch systems send it to a job that is to go on later.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.before: dict[int, Any] = {}

    def catch(self) -> None:
        """Note from now on the signals that end a run, if this is the main thread.

        Those that are ignored stay so: nohup ignores SIGHUP, a shell's `&` SIGINT.
        """
        if threading.current_thread() is threading.main_thread():
            caught = [n for n in STOPPING if signal.getsignal(n) is not signal.SIG_IGN]
            self.before = {number: signal.signal(number, self) for number in caught}

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number is None or self.number != _LATER:
            self.number = number

    def check(self) -> None:
        """Raise `RunInterruptedError` if a signal has come."""
        if self.number is not None:
            raise RunInterruptedError(self.number)

    def pass_on(self) -> None:
        """Send a signal that came too late to stop the run again, as if it came after the run."""
        if self.number is not None:
            signal.raise_signal(self.number)


@contextmanager
def stopping(stop: Stop) -> Iterator[Stop]:
    """Let `stop` catch signals within the block; the handlers from before come back at its end.

    That end must come after all that a stopped run still writes: several processes are stopped by
    the signal that reaches the first, and it reaches the others a moment later.
    """
    try:
        yield stop
    finally:
        for number, handler in stop.before.items():
            signal.signal(number, handler)


@contextmanager
def raised() -> Iterator[None]:
    """Raise `RunInterruptedError` for signals within the block that would otherwise kill the process at once.

    Other handlers stay, as that of Ctrl-C; a run within the block has its own.
    """
    _RECEIVED.clear()
    caught: list[int] = []
    if threading.current_thread() is threading.main_thread():
        caught = [number for number in STOPPING if signal.getsignal(number) is signal.SIG_DFL]
    for number in caught:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def _raise(number: int, frame: FrameType | None) -> Never:
    _RECEIVED.append(number)
    raise RunInterruptedError(number)


def received() -> int | None:
    """Return the last signal that `raised` raised, for code whose caller may have got another exception for it."""
    return _RECEIVED[-1] if _RECEIVED else None
