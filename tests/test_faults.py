"""Disks that fill up, processes that are killed, clocks that jump, folders that go: nothing is lost."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import forked
import numpy as np
import pytest
from conftest import ROOT, Main, need, verified
from filelock import FileLock
from forked import Program, ends, results
from PIL import Image

from harness.store.checkpoint import read_checkpoint, read_state
from harness.store.identity import weights_sha256

TINY = (
    "dataset=synthetic", "dataset.images=200", "dataset.classes=4", "dataset.image_size=4",
    "model.width=2", "trainer.batch_size=16", "trainer.log_every=1", "scheduler.t_0=1",
    "trainer.epochs=3", "tracking=none",
)  # fmt: skip
SWEEP = ("train.py", "-m", *TINY, "scheduler.t_mult=1,2", "seed=0,1")
LONG = (
    "train.py",
    *TINY,
    "trainer.epochs=300",
    "scheduler.t_0=100",
    "trainer.checkpoint_every=0.1",
)


def sweep(folder: Path, *overrides: str) -> tuple[str, ...]:
    return (*SWEEP, f"store.dir={folder}/store", f"hydra.sweep.dir={folder}/sweep", *overrides)


def run(folder: Path, *overrides: str) -> tuple[str, ...]:
    return (*LONG, f"store.dir={folder}/store", f"hydra.run.dir={folder}/run", *overrides)


def history(folder: Path) -> str:
    return (folder / "history.jsonl").read_text()


def result(folder: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads((folder / "result.json").read_text())
    return document


def check_store(folder: Path) -> int:
    """Every checkpoint that is there is whole. Returns their number."""
    paths = list(folder.glob("*/*-*.json"))
    for path in paths:
        prefix = read_checkpoint(path)
        assert read_state(prefix)["updates"] == prefix.step
        assert prefix.rows[-1]["step"] <= prefix.step
    return len(paths)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """The ends of `SWEEP` that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code, said = forked.run(folder / "log", *sweep(folder))
    assert code == 0, said
    found = ends(folder / "sweep")
    assert len(found) == 4
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Weights and history of `LONG` that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    code, said = forked.run(folder / "log", *run(folder))
    assert code == 0, said
    return str(result(folder / "run")["weights_sha256"]), history(folder / "run")


def assert_whole(folder: Path, whole: tuple[str, str]) -> None:
    assert result(folder)["status"] == "complete"
    assert (result(folder)["weights_sha256"], history(folder)) == whole


# --- full disks ----------------------------------------------------------------------------------

Resize = Callable[[str], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Resize]]:
    """A file system of its own in memory, and how to give it another size."""
    need(os.geteuid() == 0, "mounting a small file system takes root")
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options: str) -> None:
        subprocess.run(["mount", *options], check=True)

    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    yield folder, lambda size: mount("-o", f"remount,size={size}", str(folder))
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_store_costs_warnings(
    tmp_path: Path, disk: tuple[Path, Resize], undisturbed: dict[str, tuple[str, str]]
) -> None:
    folder, resize = disk
    resize("64k")
    code, said = forked.run(tmp_path / "log", *sweep(tmp_path, f"store.dir={folder}"))
    assert code == 0, said
    assert "no checkpoint of update" in said
    assert "No space left on device" in said
    assert ends(tmp_path / "sweep") == undisturbed
    assert 0 < check_store(folder) < 10
    assert not list(folder.glob("*/.*.pt*")), "nothing half written is left"


@pytest.mark.slow
def test_a_history_that_cannot_be_written_ends_the_run_which_then_goes_on(
    tmp_path: Path, disk: tuple[Path, Resize], whole: tuple[str, str]
) -> None:
    folder, resize = disk
    resize("160k")
    where = f"hydra.run.dir={folder}/run"
    code, said = forked.run(tmp_path / "log", *run(tmp_path, where))
    assert code == 1
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: [Errno 28] No space left on device")
    written = history(folder / "run")
    assert whole[1].startswith(written), "the part that fitted is right"
    assert not (folder / "run/result.json").exists() or result(folder / "run")["status"] == "failed"
    resize("4m")
    code, said = forked.run(tmp_path / "log2", *run(tmp_path, where))
    assert code == 0, said
    assert_whole(folder / "run", whole)
    assert int(str(result(folder / "run")["updates_reused"])) > 0


@pytest.mark.slow
def test_a_result_that_cannot_be_written_is_none(
    tmp_path: Path, disk: tuple[Path, Resize], main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up after the last row of the history."""
    folder, _ = disk
    real = weights_sha256

    def full(network: object) -> str:
        with (folder / "ballast").open("wb") as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
                file.flush()
        return real(network)  # type: ignore[arg-type]

    monkeypatch.setattr("harness.runs.run.weights_sha256", full)
    words = (*TINY, f"store.dir={tmp_path}/store", f"hydra.run.dir={folder}/run")
    done = main(*words)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: [Errno 28] No space left on device")
    assert not (folder / "run/result.json").exists()
    assert len(list((folder / "run").glob(".*json*"))) == 0, "nothing half written is left"
    monkeypatch.undo()
    (folder / "ballast").unlink()
    code, said = forked.run(tmp_path / "log", "train.py", *words)
    assert code == 0, said
    assert "0 epochs trained, 3 reused" in said


# --- kills ---------------------------------------------------------------------------------------

ROUNDS, KILLS = 10, 6  # sweeps, and how often each is killed before it may end


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_at_any_instant_of_a_sweep_lose_and_double_nothing(
    tmp_path: Path, undisturbed: dict[str, tuple[str, str]]
) -> None:
    rng = random.Random(0)
    fates = []
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        words = sweep(folder, "trainer.checkpoint_every=0.02")
        seen: dict[str, bytes] = {}
        for kill in range(KILLS):
            program = Program(folder / f"log{kill}", *words)
            program.process.join(rng.uniform(0.05, 2))
            fates.append("ended" if program.process.exitcode == 0 else "killed")
            program.kill()
            check_store(folder / "store")
            assert ends(folder / "sweep").items() <= undisturbed.items()
            for name, content in seen.items():
                assert (folder / name).read_bytes() == content, "what was complete stays"
            complete = ends(folder / "sweep")
            seen |= {
                f"sweep/{run}/result.json": (folder / f"sweep/{run}/result.json").read_bytes()
                for run in complete
            }
            for page in (folder / "sweep").glob("*.html"):
                assert page.read_text().rstrip().endswith("</html>")
            for path in (folder / "sweep").glob("*.json"):
                json.loads(path.read_text())
        code, said = forked.run(folder / "log", *words)
        assert code == 0, said
        assert ends(folder / "sweep") == undisturbed
        assert check_store(folder / "store") >= 8
        assert len(json.loads((folder / "sweep/plan.json").read_text())["arms"]) == 4
        assert (folder / "sweep/verdict.json").exists()
        assert verified(folder / "sweep")
    assert fates.count("killed") >= 50, fates


# --- two at once ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_sweeps_at_once_in_one_folder_train_each_run_once(
    tmp_path: Path, undisturbed: dict[str, tuple[str, str]]
) -> None:
    words = sweep(tmp_path, "reuse=false")
    both = [Program(tmp_path / f"log{number}", *words) for number in range(2)]
    for program in both:
        program.wait()
        assert "Traceback" not in program.said
    code, said = forked.run(tmp_path / "log", *words)
    assert code == 0, said
    assert ends(tmp_path / "sweep") == undisturbed
    starts = [path.read_text().splitlines() for path in (tmp_path / "sweep").glob("*/starts.txt")]
    assert [len(lines) for lines in starts] == [1, 1, 1, 1]


@pytest.mark.slow
def test_a_run_that_another_process_trains_is_refused(tmp_path: Path) -> None:
    first = Program(tmp_path / "log", *run(tmp_path, "trainer.epochs=30000"))
    first.until(lambda: (tmp_path / "run/history.jsonl").exists())
    code, said = forked.run(tmp_path / "log2", *run(tmp_path, "trainer.epochs=30000"))
    assert code == 1
    assert said == (
        f"error: {tmp_path}/run: process {first.process.pid} on {os.uname().nodename} is training this "
        "run; wait for its end, or take another folder (hydra.run.dir, hydra.sweep.dir)\n"
    )
    assert first.process.is_alive()
    first.kill()


@pytest.mark.slow
def test_a_run_that_another_process_trains_is_missing_from_the_sweep(
    tmp_path: Path, main: Main
) -> None:
    """Its seeds begin high: how many runs a range has does not follow from its end."""
    words = ("-m", *TINY, "seed=range(200000,200002)", "reuse=false")
    with FileLock(tmp_path / "sweep/1/.lock"):
        done = main(*words, f"hydra.sweep.dir={tmp_path}/sweep")
    assert done.returncode == 1
    first, *_, last = done.stderr.splitlines()
    assert first == f"sweep in {tmp_path}/sweep: 2 runs, 6 epochs"
    assert last == "error: 1 of 2 runs failed: seed=200001: left no result"
    assert [result["status"] for result in results(tmp_path / "sweep").values()] == ["complete"]


@pytest.mark.slow
def test_a_sweep_of_other_runs_is_refused(tmp_path: Path, main: Main) -> None:
    assert main(*sweep(tmp_path)[1:]).returncode == 0
    before = (tmp_path / "sweep/plan.json").read_bytes()
    for seeds in ("0,1,2", "0", "0,2"):  # more, fewer, others
        done = main(*sweep(tmp_path, f"seed={seeds}")[1:])
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith(
            f"error: hydra.sweep.dir={tmp_path}/sweep: holds the sweep of other runs, 4 by"
        )
        assert line.endswith("; take another folder")
        assert (tmp_path / "sweep/plan.json").read_bytes() == before


@pytest.mark.slow
def test_eight_processes_share_a_store(
    tmp_path: Path, undisturbed: dict[str, tuple[str, str]]
) -> None:
    programs = []
    for number in range(8):
        own = f"hydra.sweep.dir={tmp_path}/{number}"
        programs.append(
            Program(tmp_path / f"log{number}", *sweep(tmp_path, own, "store.wait=true"))
        )
    assert [program.wait() for program in programs] == [0] * 8, [p.said for p in programs]
    for number in range(8):
        assert ends(tmp_path / str(number)) == undisturbed
    assert check_store(tmp_path / "store") >= 8
    trained = sum(
        int(str(result["updates_trained"]))
        for number in range(8)
        for result in results(tmp_path / str(number)).values()
    )
    alone = 8 * 4 * 24
    assert trained < alone, f"{trained} updates of {alone}: what one has done serves the others"


# --- clocks --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("jump", ["+3 days", "-3 days"])
def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, undisturbed: dict[str, tuple[str, str]], jump: str
) -> None:
    need(shutil.which("faketime"), "needs faketime: apt install faketime")
    seen = tmp_path / "clock"
    seen.write_text("+0 days")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    environment = os.environ | {
        "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(seen), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    words = sweep(tmp_path, "store.wait=true", "trainer.checkpoint_every=0.05")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    while process.poll() is None and not (tmp_path / "sweep/0/history.jsonl").exists():
        time.sleep(0.002)
    replaced = tmp_path / "clock.new"
    replaced.write_text(jump)
    replaced.rename(seen)
    assert process.wait() == 0, (tmp_path / "log").read_text()
    assert ends(tmp_path / "sweep") == undisturbed
    first, last = (
        datetime.fromisoformat((tmp_path / f"sweep/{n}/starts.txt").read_text().strip())
        for n in (0, 3)
    )
    assert abs(last - first) > timedelta(days=2), "the runs did see it jump"
    assert check_store(tmp_path / "store") >= 8


# --- what is removed during a run ------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_folder_that_is_removed_ends_the_run_which_then_goes_on(
    tmp_path: Path, whole: tuple[str, str]
) -> None:
    program = Program(tmp_path / "log", *run(tmp_path))
    path = tmp_path / "run/history.jsonl"
    program.until(lambda: path.exists() and path.stat().st_size > 20_000)
    os.kill(program.process.pid or 0, signal.SIGSTOP)  # so that nothing is made while it is removed
    shutil.rmtree(tmp_path / "run")
    os.kill(program.process.pid or 0, signal.SIGCONT)
    assert program.wait() == 1
    assert "Traceback" not in program.said
    assert program.said.splitlines()[-1].startswith(
        f"error: {path}: was removed while the run wrote to it"
    )
    assert not (tmp_path / "run").exists()
    code, said = forked.run(tmp_path / "log2", *run(tmp_path))
    assert code == 0, said
    assert_whole(tmp_path / "run", whole)
    assert int(str(result(tmp_path / "run")["updates_reused"])) > 0


def test_a_half_written_last_line_is_no_row(tmp_path: Path) -> None:
    from harness.analysis import results as reader

    (tmp_path / "history.jsonl").write_text(
        '{"step": 1, "epoch": 0.5, "val/acc": 50.0}\n{"step": 2, "ep'
    )
    rows = reader.history(tmp_path)
    assert rows["step"].to_list() == [1]
    assert rows["val/acc"].to_list() == [50.0]


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_run_which_then_goes_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for number in range(40):
            path = tmp_path / "images" / part / f"class{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    words = [
        "train.py", "dataset=image_folder", f"dataset.root={tmp_path}/images", "dataset.workers=2",
        "dataset.image_size=8", "dataset.val_size=4", "model.width=2", "trainer.batch_size=4",
        "trainer.epochs=60", "scheduler.t_0=2", "tracking=none", f"store.dir={tmp_path}/store",
        f"hydra.run.dir={tmp_path}/run",
    ]  # fmt: skip
    program = Program(tmp_path / "log", *words)
    path = tmp_path / "run/history.jsonl"
    program.until(lambda: path.exists() and path.stat().st_size > 2000)
    listed = Path(f"/proc/{program.process.pid}/task/{program.process.pid}/children").read_text()
    os.kill(int(listed.split()[0]), signal.SIGKILL)
    assert program.wait() == 1
    ours = f'File "{ROOT}/harness'  # torch's other reader may print a traceback of its own
    assert ours not in program.said
    assert program.said.splitlines()[-1].startswith(
        "error: dataset.workers: a process that reads images died, perhaps for want of memory; "
        "lower dataset.workers or trainer.batch_size (DataLoader worker (pid"
    )
    assert result(tmp_path / "run")["status"] == "failed"
    code, said = forked.run(tmp_path / "log2", *words)
    assert code == 0, said
    assert int(str(result(tmp_path / "run")["updates_reused"])) > 0


# --- memory, and numbers that are none -----------------------------------------------------------


def _limit(megabytes: int) -> None:
    """No more address space than there is now and `megabytes`."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20,) * 2)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("dataset.images=100000000", "dataset.image_size=64"), id="data"),
        pytest.param(("model.width=4096", "dataset.images=400"), id="network"),
        pytest.param(
            ("dataset.images=4000", "dataset.image_size=32", "model.width=256", "trainer.batch_size=2000"),
            id="batch",
        ),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_out_of_memory_is_one_line_that_says_what_to_lower(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    words = run(tmp_path, *overrides)
    program = Program(tmp_path / "log", *words, before=partial(_limit, 1000))
    assert program.wait() == 1
    assert "Traceback" not in program.said
    assert program.said.splitlines()[-1].startswith(
        "error: out of memory: lower trainer.batch_size, the model's size (model.width) or the data's"
    )
    assert result(tmp_path / "run")["status"] == "failed"


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(tmp_path: Path, main: Main) -> None:
    words = ("-m", *TINY, "optimizer.lr=0.1,1e5", f"hydra.sweep.dir={tmp_path}/sweep",
             f"store.dir={tmp_path}/store")  # fmt: skip
    done = main(*words)
    assert done.returncode == 0, done.stderr
    said = results(tmp_path / "sweep")
    assert [one["status"] for one in said.values()] == ["complete", "diverged"]
    assert "the loss of update" in str(said["1"]["error"])
    assert "NaN" not in history(tmp_path / "sweep/1")
