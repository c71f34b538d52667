"""A job of hydra/launcher=ray, in a process of Ray's on this machine or another."""

from __future__ import annotations

import os
import platform
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.choices.builtin import register
from harness.config import extensions
from harness.config.errors import ConfigError
from harness.files import LockedError, lock
from harness.runs.signals import RunInterruptedError

LOG = "job.log"  # in a run's folder: what its processes have printed
EXTENSIONS = "extensions"  # the folder of their code in what is shipped
TOKEN = ".ray_token"  # in folders that all nodes are to see # noqa: S105
_NOTE = re.compile(r"\d{4}-\d\d-\d\dT\S+ (begin|end): ")  # lines of our own
_LOST_SECONDS = 120.0  # until the process of a node that was lost has noticed, and is gone
_GRACE_SECONDS = 60.0  # for a command to fetch the last results, after which none is there to do so


class NodeStoppedError(Exception):
    """A signal that was not the sweep's stopped a run: its node, or its process, is to go. Ray starts the job again."""


@dataclass(frozen=True)
class Shared:
    """What all jobs of a sweep are given, by the process that launches it.

    `tokens` has what is in the token of each folder that nodes are to see, `hydra` Hydra's context and
    singletons and the task function, to be read once the `extensions` are loaded that they may refer to.
    """

    cwd: str
    tokens: dict[str, str]
    environment: dict[str, str]
    extensions: list[str]
    hydra: bytes


def unseen(cwd: str, tokens: dict[str, str]) -> str | None:
    """Return the first folder that this node does not see; None if it sees all."""
    if not os.path.isdir(cwd):
        return cwd
    for folder, token in tokens.items():
        with suppress(OSError):
            if Path(folder, TOKEN).read_text() == token:
                continue
        return folder
    return None


def execute(shared: Shared, job: bytes) -> Any:
    """Run the job whose composed configuration `job` holds, and return Hydra's `JobReturn`.

    Raises `ConfigError` if this node does not see the sweep, `NodeStoppedError` if its node is to go.
    """
    import ray.cloudpickle as pickle
    from hydra.core.singleton import Singleton
    from hydra.core.utils import run_job, setup_globals

    if folder := unseen(shared.cwd, shared.tokens):
        raise ConfigError(f"hydra/launcher=ray: node {platform.node()} does not see {folder}")
    shipped = Path(__file__).parents[2] / EXTENSIONS
    os.chdir(shared.cwd)
    os.environ.pop(extensions.VARIABLE, None)  # of the process that has started Ray
    os.environ.update(shared.environment)
    register()
    extensions.load_shipped(shipped, shared.extensions)
    context, task_function, singletons = pickle.loads(shared.hydra)
    setup_globals()
    Singleton.set_state(singletons)
    config = pickle.loads(job)
    with _logged(Path(config.hydra.sweep.dir, config.hydra.sweep.subdir)):
        try:
            return run_job(
                hydra_context=context,
                config=config,
                task_function=task_function,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        except RunInterruptedError as stop:
            if stop.number == signal.SIGINT:  # as Ray cancels a job
                raise KeyboardInterrupt from stop
            raise NodeStoppedError(f"stopped by {stop.signal}") from None


@contextmanager
def _logged(folder: Path) -> Iterator[None]:
    """Write what is printed to the log in a run's folder, once no lost process is at the run any more."""
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(LockedError), lock(folder / ".lock", _LOST_SECONDS):
        pass  # where it is still held, the run says so
    saved = [os.dup(number) for number in (1, 2)]
    with (folder / LOG).open("a") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)
    try:
        _note("begin")
        yield
        _note("end")
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, before in zip((1, 2), saved, strict=True):
            os.dup2(before, number)
            os.close(before)


def last_line(folder: Path) -> str:
    """Return the last line that a run has printed, as how it ended; "" without any."""
    with suppress(OSError):
        lines = (folder / LOG).read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if line and not _NOTE.match(line)), "")
    return ""


def _note(what: str) -> None:
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    values = ", ".join(f"{name}={os.environ.get(name, '')}" for name in names)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    print(f"{now} {what}: {platform.node()}, process {os.getpid()}, {values}", flush=True)


class Jobs:
    """Jobs of a sweep, handed to Ray one by one. `options` are those of `ray.remote`."""

    def __init__(self, options: dict[str, Any], shared: Shared) -> None:
        import ray

        self._task, self._shared = ray.remote(**options)(execute), ray.put(shared)

    def start(self, folder: str, job: bytes) -> list[Any]:
        """Return the reference to the result of a job, in a list, which Ray hands on as it is."""
        return [self._task.remote(self._shared, job)]


class LeftJobs(Jobs):
    """An actor whose jobs outlive the command that starts it; it ends a while after them."""

    def __init__(self, options: dict[str, Any], shared: Shared) -> None:
        super().__init__(options, shared)
        self._references: dict[str, Any] = {}
        self._last = time.monotonic()
        threading.Thread(target=self._end, daemon=True).start()

    def start(self, folder: str, job: bytes) -> list[Any]:
        """Do as `Jobs.start`; a job in this folder that has not ended is not started again."""
        self._last = time.monotonic()
        if folder not in self._references or self._ended([self._references[folder]]):
            (self._references[folder],) = super().start(folder, job)
        return [self._references[folder]]

    def running(self) -> bool:
        """Return whether a job has not ended."""
        return not self._ended([*self._references.values()])

    def _ended(self, references: list[Any]) -> bool:
        import ray

        if not references:
            return True
        return not ray.wait(references, num_returns=len(references), timeout=0)[1]

    def _end(self) -> None:
        while time.monotonic() < self._last + _GRACE_SECONDS or self.running():
            time.sleep(_GRACE_SECONDS)
        os._exit(0)
