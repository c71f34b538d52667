"""One way to warn: a line on stderr that begins with `warning:`."""

from __future__ import annotations

import logging
import sys
from functools import cache


class _CurrentStderr(logging.Handler):
    """Print each record on the stderr of that moment, which `streams.secure` and tests replace."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


_LOGGER = logging.getLogger("harness")
_LOGGER.setLevel(logging.WARNING)
_LOGGER.propagate = False  # Hydra's or a launcher's handlers would print the line again
if not _LOGGER.handlers:
    _LOGGER.addHandler(_CurrentStderr())


def warn(message: str) -> None:
    """Print `warning: MESSAGE` on stderr."""
    _LOGGER.warning(message)


warn_once = cache(warn)  # in this process
