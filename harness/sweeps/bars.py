"""What a sweep shows on a terminal: a bar for itself, and below it one for each run that is under way.

All are drawn by the process of the sweep, from the files that runs write: runs in other processes would
write over each other's bars.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

from tqdm import tqdm

from harness.analysis import results, sweep_plan
from harness.config import streams
from harness.config.errors import ConfigError
from harness.config.fields import decimal
from harness.files import UnreadableError
from harness.runs import progress

_PAUSE = 0.5  # seconds between two looks at the files, or more where a look takes long
_ENDS = ("complete", "diverged", "failed")
_BAR = "{desc} {percentage:3.0f} %{postfix} |{bar}| {elapsed}<{remaining}"
_WIDEST = 40  # characters of a label
_GONE = (
    errno.EIO,
    errno.EPIPE,
    errno.ENOTTY,
)  # of a terminal, and of what stands in its place then


@contextmanager
def shown(sweep: Callable[[], Path]) -> Iterator[None]:
    """Draw the bars of the folder that `sweep` returns, of each moment, while the block runs on a terminal."""
    if not progress.on_terminal():
        yield
        return
    os.environ[streams.BARS] = "1"
    over = Event()
    thread = Thread(target=_draw, args=(sweep, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        del os.environ[streams.BARS]


def _draw(sweep: Callable[[], Path], over: Event) -> None:
    state, planned, pause = None, None, 0.0
    try:
        while not over.wait(pause):
            begin = time.monotonic()
            with suppress(ConfigError, OSError):  # files that cannot be read now: until next time
                folder = sweep()
                now = folder, (folder / "plan.json").stat().st_mtime_ns  # arms that tune add runs
                if state is None or now != planned:
                    state, planned = SweepState(folder, begin), now
                state.look(begin)
            if state:
                columns, lines = os.get_terminal_size(sys.stderr.fileno())
                _write(state.lines(begin, columns or 80, lines or 24))
            pause = max(_PAUSE, 20 * (time.monotonic() - begin))
        _write([])
    except OSError as error:
        if error.errno not in _GONE:
            raise


def _write(lines: list[str]) -> None:
    """Write lines in place of those before, in one piece; the cursor goes back to where they begin."""
    up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
    frame = f"\r{streams.ERASE}" + "\r\n".join(lines) + f"{up}\r"
    os.write(sys.stderr.fileno(), frame.encode(errors="replace"))


@dataclass
class RunState:
    """A planned run as its files tell."""

    label: str
    folder: Path
    budget: float  # epochs
    updates_per_epoch: int
    images: int  # an update
    shared: int  # updates that an earlier run of the sweep trains for it
    status: str = ""  # once it has ended
    trained: float = 0.0  # epochs since the sweep began
    under_way: bool = False
    row: dict[str, Any] = field(default_factory=dict)  # the last of its history since it began
    seen: tuple[float, dict[str, Any]] = (0.0, {})  # when it had one first, and the row then

    def __post_init__(self) -> None:
        self._before = self._files()
        if results.result(self.folder).get("status") == "complete":
            self.status = "complete"

    def _files(self) -> tuple[int, int]:
        """Return what changes when the run ends, and what when it begins."""
        result, starts = self.folder / "result.json", self.folder / "starts.txt"
        return (
            result.stat().st_mtime_ns if result.exists() else 0,
            starts.stat().st_size if starts.exists() else 0,
        )

    @property
    def left(self) -> float:
        """Return how many epochs it is from its end."""
        if self.status:
            return 0.0
        return self.budget - float(self.row.get("epoch", self.shared / self.updates_per_epoch))

    @property
    def done(self) -> float:
        """Return how many epochs of it there are, trained now or before."""
        return self.budget if self.status else float(self.row.get("epoch", 0.0))

    def look(self, now: float) -> None:
        if self.status:
            return
        ended, begun = self._files()
        self.under_way, self.row = begun != self._before[1] and not ended, {}
        if ended and ended != self._before[0]:
            result = results.result(self.folder)
            if result.get("status") in _ENDS:
                self.status = result["status"]
                self.trained = result.get("updates_trained", 0) / self.updates_per_epoch
        elif self.under_way and (self.folder / "history.jsonl").exists():
            self.row = results.last_row(self.folder)
            if self.row:
                evaluated = results.last_row(self.folder, "val/acc")
                self.row = self.row | {"val/acc": evaluated.get("val/acc")}
                self.seen = self.seen if self.seen[1] else (now, self.row)
                self.trained = max(0.0, self.row["epoch"] - self.seen[1]["epoch"])

    def line(self, now: float, width: int, columns: int) -> str:
        """Return its bar in less than `columns` characters, with the label in `width`."""
        if not self.row:
            return bar(self.label, width, Fraction(0, 0, 1), "starts", 0.0, columns)
        since, first = self.seen
        seconds = max(now - since, 1e-9)
        updates = max(0, self.row["step"] - first["step"])
        shown = {name: self.row.get(name) for name in ("epoch", "val/acc")}
        text = progress.describe(shown, self.budget, updates * self.images / seconds)
        total = round(self.budget * self.updates_per_epoch)
        part = Fraction(self.row["step"], first["step"], total)
        return bar(self.label, width, part, text, seconds, columns)


def _images_an_update(config: dict[str, Any]) -> int:
    accumulate: int = config["optimizer"].get("accumulate", 1)  # older plans lack it
    return accumulate * int(config["trainer"]["batch_size"])


class SweepState:
    """A sweep as its files tell, since it was begun or goes on."""

    def __init__(self, folder: Path, now: float) -> None:
        plan = results.read_plan(folder)
        self._begin = now
        self._name = "tuning" if folder.name == "tuning" else "sweep"
        self._most = "at most " * bool((plan["claim"] or {}).get("looks"))
        count = len(plan["arms"])
        self.runs = [
            RunState(
                f"{number}/{count} {run['name']}",
                (folder / sweep_plan.run_folder(run)).absolute(),
                run["plan"]["budget_epochs"],
                run["plan"]["updates_per_epoch"],
                _images_an_update(plan["config"] | run["differs"]),
                run.get("shared", 0),
            )
            for number, run in enumerate(plan["arms"], start=1)
        ]

    def look(self, now: float) -> None:
        """Read what runs have written since the last look."""
        for run in self.runs:
            with suppress(UnreadableError):
                run.look(now)

    def lines(self, now: float, columns: int, rows: int) -> list[str]:
        """Return the bar of the sweep and those of runs under way, as many as a terminal of this size takes."""
        status = Counter(run.status for run in self.runs)
        done, budget, trained, left = (
            sum(getattr(run, name) for run in self.runs)
            for name in ("done", "budget", "trained", "left")
        )
        text = (
            f"{len(self.runs) - status['']} of {self._most}{len(self.runs)} runs, "
            f"{decimal(round(done, 1))} of {self._most}{decimal(budget)} epochs"
        )
        text += f", {status['failed']} failed" * (status["failed"] > 0)
        under_way = [run for run in self.runs if run.under_way]
        drawn = under_way[: max(1, rows - 3)]
        width = min(_WIDEST, max(len(run.label) for run in [*drawn, *self.runs[-1:]]))
        part = Fraction(trained, 0, trained + left)
        lines = [bar(self._name, width, part, text, now - self._begin, columns)]
        lines += [run.line(now, width, columns) for run in drawn]
        more = len(under_way) - len(drawn)
        return lines + [f"and {more} more runs"[: columns - 1]] * (more > 0)


class Fraction(NamedTuple):
    """How much of something is done: `done` of `total`, of which `first` was there before time was taken."""

    done: float
    first: float
    total: float


def bar(label: str, width: int, part: Fraction, text: str, seconds: float, columns: int) -> str:
    """Return a bar in at most `columns - 1` characters, with the time that the rest takes at this pace."""
    line: str = tqdm.format_meter(
        part.done, max(part.total, 1e-9), seconds, ncols=columns - 1, initial=part.first, bar_format=_BAR,
        prefix=f"{label[:width]}:".ljust(width + 1), postfix=text, ascii=not _utf8(),
    )  # fmt: skip
    return line


def _utf8() -> bool:
    return "utf" in (sys.stderr.encoding or "").lower()
