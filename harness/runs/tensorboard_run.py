"""TensorBoard's event file that shows a history."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.errors import ConfigError
from harness.config.warnings import warn
from harness.runs.run_dir import short
from harness.training.loop import Row

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_FLUSH_SECONDS = 10  # how long a row may take to be seen


def check() -> None:
    """Raise `ConfigError` if the package is missing."""
    if find_spec("tensorboard") is None:
        raise ConfigError(
            "tracking=tensorboard: the package tensorboard is missing; pip install -e '.[tensorboard]'"
        )


class TensorBoardRun:
    """The event file of a run, in a folder below the run's that has the run's name, which TensorBoard shows.

    A run that goes on writes it anew: the rows it starts with, then its own. Each row has the tags and the step that
    it has in the history. A file that cannot be written costs a warning, not the run.
    """

    def __init__(self, folder: Path, name: str, values: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder / short(re.sub(r"[^\w.,=+ -]", "_", name, flags=re.ASCII))
        for old in self._folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(self._folder), flush_secs=_FLUSH_SECONDS)
        self._lost, self._last = False, 0
        self._text("config", json.dumps(values, indent=1))

    @property
    def where(self) -> str:
        return str(self._folder)

    def log(self, row: Row) -> None:
        """Write the metrics of a row, as single-precision numbers."""
        self._last = int(row["step"])
        self._scalars({name: value for name, value in row.items() if name != "step"})

    def finish(self, summary: dict[str, Any], exit_code: int) -> None:
        """Write how the run ended and the test's metrics, at the step of the last row."""
        self._scalars({k: v for k, v in summary.items() if isinstance(v, int | float)})
        self._text("status", summary["status"])
        self._send(lambda writer: writer.close())

    def _scalars(self, metrics: Row) -> None:
        def write(writer: SummaryWriter) -> None:
            for name, value in metrics.items():
                writer.add_scalar(name, value, self._last)

        self._send(write)

    def _text(self, name: str, text: str) -> None:
        self._send(lambda writer: writer.add_text(name, f"```\n{text}\n```", self._last))

    def _send(self, what: Callable[[SummaryWriter], object]) -> None:
        if self._lost:
            return
        try:
            what(self._writer)
        except Exception as error:  # of the file, or of the thread that writes it
            self._lost = True
            warn(f"TensorBoard: {self._folder}: {error}; history.jsonl has all rows")
