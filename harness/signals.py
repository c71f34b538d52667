"""Signals that end a run: noticed at the next update, when the checkpoint can be written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(SystemExit):
    """A run stopped by a signal; like a program that the signal killed, it exits with 128 + its number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number
        self.signal = signal.Signals(number).name

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int]]:
        return type(self), (self.number,)  # as joblib brings it from a worker process


class Stop:
    """The signal that asked the run to stop, if one did. A second Ctrl-C stops it at once.

    SIGUSR2 counts before others: batch systems send it to a job that is to go on later.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number != signal.SIGUSR2:
            self.number = number

    def check(self) -> None:
        """Raises `Interrupted` if a signal has come."""
        if self.number is not None:
            raise Interrupted(self.number)


@contextmanager
def stopping() -> Iterator[Stop]:
    """Catch the signals that end a run, in the main thread; the handlers from before come back."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in _STOPPING}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
