"""`train.py` and `scripts/report.py` as processes that can be killed, without the seconds that imports take.

They are forked from a process that has imported everything; all else is as from a shell.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import ROOT

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["forked", "torch", "harness.runs.job", "harness.runs.run", "harness.sweeps.callback",
     "harness.sweeps.preview", "harness.sweeps.wandb_summary", "harness.report.summary", "altair"]
)  # fmt: skip


class Program:
    """A running program; what it prints is in `log`."""

    def __init__(self, log: Path, *words: str, before: Callable[[], object] | None = None) -> None:
        self.log = log
        self.process = _context.Process(target=_main, args=(log, words, before))
        self.process.start()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def wait(self) -> int:
        self.process.join()
        code = self.process.exitcode
        assert code is not None
        return code

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds; it is an error if the program ends before."""
        while not condition():
            assert self.process.is_alive(), self.said
            time.sleep(0.002)


def run(log: Path, *words: str) -> tuple[int, str]:
    program = Program(log, *words)
    return program.wait(), program.said


def _main(log: Path, words: tuple[str, ...], before: Callable[[], object] | None) -> None:
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(ROOT)
    if before:
        before()
    script, *arguments = words
    sys.argv = [script, *arguments]
    sys.path.insert(0, str((ROOT / script).parent))
    runpy.run_path(str(ROOT / script), run_name="__main__")


# --- what runs leave -----------------------------------------------------------------------------


def results(sweep: Path) -> dict[str, dict[str, Any]]:
    """What the runs of a sweep say they came to, by their number."""
    found = {}
    for path in sorted(sweep.glob("*/result.json")):
        with contextlib.suppress(FileNotFoundError):  # a run that begins again takes it away
            found[path.parent.name] = json.loads(path.read_text())
    return found


def ends(sweep: Path) -> dict[str, tuple[str, str]]:
    """Weights and history of each complete run, by its number."""
    return {
        number: (result["weights_sha256"], (sweep / number / "history.jsonl").read_text())
        for number, result in results(sweep).items()
        if result["status"] == "complete"
    }
