"""stdin, stdout and stderr as other programs leave them: closed, a pipe without a reader, a terminal that is gone."""

from __future__ import annotations

import errno
import io
import os
import sys

BARS = "HARNESS_BARS"  # set while a sweep draws bars on the terminal, also for the processes that it starts
ERASE = "\x1b[J"  # all that is behind and below the cursor
_GONE = (errno.EPIPE, errno.EIO)


class _Output(io.FileIO):
    """A stream without a reader drops what is written to it."""

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            if error.errno not in _GONE:
                raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())  # for what C code and other processes write, too
        os.close(nowhere)
        return super().write(data)  # type: ignore[arg-type]


class _Guarded(io.TextIOWrapper):
    """stdout or stderr after `secure`. What is printed takes the place of bars, which are then drawn below it."""

    def write(self, text: str) -> int:
        erase = BARS in os.environ and self.isatty()
        return super().write(ERASE + text if erase else text)


def secure() -> None:
    """Open streams that are closed, and let nothing that is printed end the program.

    Files opened later would otherwise take the numbers of closed streams, and what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream, first = getattr(sys, name), getattr(sys, f"__{name}__")
        if stream is first and not isinstance(stream, _Guarded):
            setattr(sys, name, _opened(number, stream))
            setattr(sys, f"__{name}__", getattr(sys, name))


def _opened(number: int, like: io.TextIOWrapper | None) -> _Guarded:
    if like:
        like.flush()
    return _Guarded(
        io.BufferedWriter(_Output(number, "w", closefd=False)),
        encoding=like.encoding if like else "utf-8",
        errors=like.errors if like else "backslashreplace",
        line_buffering=not like or like.line_buffering or like.write_through,
        write_through=bool(like and like.write_through),
    )
