"""`train.py` and the scripts as processes of their own, without the seconds that imports take.

They are forked from a process that has imported everything; all else is as from a shell.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import multiprocessing
import os
import pty
import runpy
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from unittest import mock

from harness.config.hydra_private import last_given

ROOT = Path(__file__).resolve().parent.parent

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["torch", "torch._dynamo", "harness.runs.job", "harness.runs.run", "harness.sweeps.callback",
     "harness.sweeps.preview", "harness.sweeps.wandb_summary", "harness.report.summary", "altair",
     "sklearn.datasets"]
)  # fmt: skip


class Program:
    """A running program.

    What it prints is in the file `log`, what it prints to stderr in `errors` if that is given. With
    `fresh` it has imported nothing, as from a shell.
    """

    def __init__(
        self,
        log: Path,
        *words: str,
        before: Callable[[], object] | None = None,
        errors: Path | None = None,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        fresh: bool = False,
    ) -> None:
        self.log, self.errors = log, errors or log
        environment = dict(os.environ if env is None else env)
        arguments = (log, self.errors, words, before, cwd, environment, fresh)
        self.process = _context.Process(target=_main, args=arguments)
        # The first start also starts the process to fork from, whose threads all others then have.
        with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):
            self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

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


def complete(
    *words: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> CompletedProcess[str]:
    """Return what `python WORDS` came to, with what it printed, as `subprocess.run` does."""
    with tempfile.TemporaryDirectory() as folder:
        out, errors = Path(folder, "out"), Path(folder, "errors")
        program = Program(out, *map(str, words), errors=errors, cwd=cwd, env=env)
        code = program.wait()
        return CompletedProcess(words, code, out.read_text(), errors.read_text())


def _main(
    log: Path,
    errors: Path,
    words: tuple[str, ...],
    before: Callable[[], object] | None,
    cwd: Path,
    environment: dict[str, str],
    fresh: bool,
) -> None:
    for number, path in ((1, log), (2, errors)):
        with path.open("a") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    if before:
        before()
    script, *arguments = last_given(words)
    if fresh:
        os.execv(sys.executable, [sys.executable, script, *arguments])  # noqa: S606
    sys.argv = [script, *arguments]
    sys.path.insert(0, str((ROOT / script).parent))
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which a forked process would leave out


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


def on_a_terminal(words: Iterable[str], leave_at: bytes = b"", **variables: str) -> str:
    """What `python WORDS` writes to a terminal of its own, which is closed once `leave_at` has been written."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 100))
    process = subprocess.Popen(
        [sys.executable, *last_given([*words])], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=its, stderr=its,
        env=os.environ | variables, start_new_session=True,
    )  # fmt: skip
    os.close(its)
    written = b""
    try:
        while (part := os.read(ours, 4096)) and not (leave_at and leave_at in written):
            written += part
    except OSError:  # how a terminal says that all programs have ended
        pass
    os.close(ours)
    assert process.wait() == 0, written.decode()
    return written.decode()
