"""Locks, signals and streams as other programs, file systems and terminals leave them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import forked
import pytest
from forked import Program, ends, results
from PIL import Image

from harness import files
from harness.training.loop import TrainStep

TINY = (
    "dataset=synthetic", "dataset.images=200", "dataset.classes=4", "dataset.image_size=4",
    "model.width=2", "trainer.batch_size=16", "trainer.log_every=1", "scheduler.t_0=1",
    "scheduler.t_mult=1", "tracking=none",
)  # fmt: skip


IMAGES = (
    "dataset=image_folder", "dataset.workers=2", "dataset.image_size=8", "dataset.val_size=4",
    "model.width=2", "trainer.batch_size=4", "trainer.log_every=1", "tracking=none",
)  # fmt: skip


def command(folder: Path, *overrides: str, base: tuple[str, ...] = TINY) -> tuple[str, ...]:
    multirun = ("-m",) if "seed=0,1" in overrides else ()
    return (
        "train.py", *multirun, *base, "trainer.epochs=3", f"store.dir={folder}/store",
        f"hydra.run.dir={folder}/run", f"hydra.sweep.dir={folder}/sweep", *overrides,
    )  # fmt: skip


def result(folder: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads((folder / "run/result.json").read_text())
    return document


def long(
    folder: Path,
    *overrides: str,
    base: tuple[str, ...] = TINY,
    before: Callable[[], object] | None = None,
) -> Program:
    """A run that has begun and will not end by itself."""
    forever = ("trainer.epochs=30000", "trainer.checkpoint_every=1000")
    program = Program(
        folder / "log", *command(folder, *forever, *overrides, base=base), before=before
    )
    history = folder / "run/history.jsonl"
    program.until(lambda: history.exists() and history.stat().st_size > 2000)
    return program


# --- locks ---------------------------------------------------------------------------------------


def without_locks(number: int) -> None:
    """A stand-in for NFS or Lustre that is mounted without locks."""

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    fcntl.flock = flock


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_costs_one_warning(tmp_path: Path, number: int) -> None:
    before = partial(without_locks, number)
    for epochs in (2, 3):  # the second time, all lock files are there
        folder = f"hydra.sweep.dir={tmp_path}/sweep{epochs}"
        words = command(tmp_path, "seed=0,1", f"trainer.epochs={epochs}", folder)
        program = Program(tmp_path / f"log{epochs}", *words, before=before)
        assert program.wait() == 0, program.said
        warned = [line for line in program.said.splitlines() if line.startswith("warning: ")]
        assert len(warned) == 1, program.said
        assert f"file locks do not work there ({os.strerror(number)})" in warned[0]
        assert len(ends(tmp_path / f"sweep{epochs}")) == 2


def locked_store(folder: Path) -> Path:
    """The lock of a run's beginning in the store."""
    assert forked.run(folder / "first", *command(folder))[0] == 0
    (path,) = folder.glob("store/*/training.lock")
    (folder / "run").rename(folder / "before")
    return path


def impatient() -> None:
    files.LOCK_SECONDS = 0.3


@pytest.mark.slow
def test_a_lock_that_is_never_released_costs_a_warning(tmp_path: Path) -> None:
    path = locked_store(tmp_path)
    with files.lock(path):
        program = Program(tmp_path / "log", *command(tmp_path), before=impatient)
        assert program.wait() == 0, program.said
    warned = [line for line in program.said.splitlines() if line.startswith("warning: ")]
    holder = f"process {os.getpid()} on {os.uname().nodename}"
    assert warned == [
        f"warning: other runs cannot wait for this one: {path}: is locked by {holder}; wait for its end"
    ]
    assert result(tmp_path)["status"] == "complete"


def test_a_signal_ends_the_wait_for_a_lock(tmp_path: Path) -> None:
    path = locked_store(tmp_path)
    with files.lock(path):
        program = Program(tmp_path / "log", *command(tmp_path))
        descriptors = Path(f"/proc/{program.process.pid}/fd")
        program.until(lambda: str(path) in {os.path.realpath(fd) for fd in descriptors.iterdir()})
        os.kill(program.process.pid or 0, signal.SIGTERM)
        assert program.wait() == 128 + signal.SIGTERM, program.said
    assert result(tmp_path)["error"] == "stopped by SIGTERM"


def test_a_process_that_dies_leaves_no_lock(tmp_path: Path) -> None:
    long(tmp_path).kill()
    path = tmp_path / "run/.lock"
    assert path.read_text().startswith("process ")
    with files.lock(path):
        assert path.read_text() == f"process {os.getpid()} on {os.uname().nodename}"


# --- signals -------------------------------------------------------------------------------------


def test_a_lost_connection_stops_a_run_like_a_signal(tmp_path: Path) -> None:
    program = long(tmp_path)
    os.kill(program.process.pid or 0, signal.SIGHUP)
    assert program.wait() == 128 + signal.SIGHUP
    assert (result(tmp_path)["status"], result(tmp_path)["error"]) == (
        "interrupted",
        "stopped by SIGHUP",
    )
    assert len(list(tmp_path.glob("store/*/*.pt"))) > 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT], ids=["nohup", "background"])
@pytest.mark.slow
def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path, number: signal.Signals) -> None:
    program = long(tmp_path, before=partial(signal.signal, number, signal.SIG_IGN))
    pid, history = program.process.pid or 0, tmp_path / "run/history.jsonl"
    os.kill(pid, number)
    size = history.stat().st_size
    program.until(lambda: history.stat().st_size > size + 20_000)
    os.kill(pid, signal.SIGTERM)
    assert program.wait() == 128 + signal.SIGTERM
    assert result(tmp_path)["error"] == "stopped by SIGTERM"


def signalled_at_the_end(number: int, failing: bool = False) -> None:
    """A signal after the last update of a run, in its last evaluation, which may fail then."""
    evaluate = TrainStep.evaluate

    def then(self: TrainStep, *args: object) -> object:
        if "test" in args:
            os.kill(os.getpid(), number)
            if failing:
                raise RuntimeError("the end of another process")
        return evaluate(self, *args)  # type: ignore[arg-type]

    TrainStep.evaluate = then  # type: ignore[method-assign, assignment]


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name
)
def test_a_signal_after_a_runs_last_update_stops_the_sweep(
    tmp_path: Path, number: signal.Signals
) -> None:
    words = command(tmp_path, "seed=0,1")
    program = Program(tmp_path / "log", *words, before=partial(signalled_at_the_end, number))
    assert program.wait() == 128 + number, program.said
    assert "Traceback" not in program.said
    assert "the sweep has stopped; the same command goes on from there" in program.said
    assert list(results(tmp_path / "sweep")) == ["0"]
    assert len(ends(tmp_path / "sweep")) == 1, "the run itself is complete"
    again, said = forked.run(tmp_path / "log2", *words)
    assert again == 0, said
    assert len(ends(tmp_path / "sweep")) == 2


def test_a_failure_that_a_signal_led_to_is_an_interruption(tmp_path: Path) -> None:
    before = partial(signalled_at_the_end, signal.SIGTERM, failing=True)
    program = Program(tmp_path / "log", *command(tmp_path), before=before)
    assert program.wait() == 128 + signal.SIGTERM, program.said
    assert result(tmp_path)["status"] == "interrupted"
    code, said = forked.run(tmp_path / "log2", *command(tmp_path))
    assert code == 0, "it is not remembered as a failure: " + said


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [one for child in map(int, children) for one in (child, *descendants(child))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda n: getattr(n, "name", "")
)
def test_a_signal_that_ends_those_that_read_images_too_is_no_failure(
    tmp_path: Path, number: signal.Signals
) -> None:
    for part in ("train", "test"):
        for image in range(24):
            path = tmp_path / "images" / part / f"class{image % 2}" / f"{image}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (image, 0, 0)).save(path)
    program = long(tmp_path, f"dataset.root={tmp_path}/images", base=IMAGES)
    pid = program.process.pid or 0
    below = descendants(pid)
    assert len(below) >= 2
    for process in (pid, *below):
        with suppress(ProcessLookupError):
            os.kill(process, number)
    assert program.wait() == 128 + number, program.said
    assert result(tmp_path)["error"] == f"stopped by {number.name}"
    assert not list(tmp_path.glob("store/*/*.outcome")), "no failure is remembered"
