"""Many runs in one process, many processes at once: nothing leaks, and every history is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT

TINY = (
    "dataset=synthetic", "dataset.images=100", "dataset.classes=2", "dataset.image_size=4",
    "model.width=1", "trainer.batch_size=16", "trainer.epochs=1", "scheduler=constant",
    "trainer.log_every=1", "tracking.mode=offline", "store.keep=none",
)  # fmt: skip
# pairs of runs that differ in nothing that shapes them
TWICE = ("seed=range(0,100)", "trainer.checkpoint_every=100000,1000000")
SAMPLES = (20, 110, 199)  # after which runs the process is looked at
MARK = f"soak-{uuid.uuid4().hex}"


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    files: int
    threads: int
    children: int
    megabytes: float

    @classmethod
    def by(cls, pid: int) -> Held:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        reported = dict(line.split(":", 1) for line in status)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return cls(
            len(os.listdir(f"/proc/{pid}/fd")),
            int(reported["Threads"]),
            len(children),
            int(reported["VmRSS"].split()[0]) / 1024,
        )


def start(folder: Path, *overrides: str) -> subprocess.Popen[bytes]:
    """At the lowest priority: twenty processes leave a test beside them a tenth of the cores else."""
    where = (f"hydra.sweep.dir={folder}/sweep", f"store.dir={folder}/store")
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            ["nice", "-n", "19", sys.executable, "train.py", "-m", *TINY, *overrides, *where],
            cwd=ROOT, env=os.environ | {"SOAK": MARK, "WANDB_MODE": "offline"},
            stdout=log, stderr=log,
        )  # fmt: skip


def histories(sweep: Path, runs: int) -> list[str]:
    for number in range(runs):
        result = json.loads((sweep / f"{number}/result.json").read_text())
        assert result["status"] == "complete", result["error"]
    return [(sweep / f"{number}/history.jsonl").read_text() for number in range(runs)]


def left_behind() -> list[str]:
    """Processes that were started for these tests and are still there."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if MARK.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has just ended
    return found


def assert_nothing_left() -> None:
    """joblib's resource tracker ends a moment after the process that it served."""
    deadline = time.monotonic() + 20
    while left_behind() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_behind() == []


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Held], list[str]]:
    """200 runs in one process: what it held on the way, and their histories."""
    folder = tmp_path_factory.mktemp("many")
    process = start(folder, *TWICE)
    held = []
    for number in SAMPLES:
        path = folder / f"sweep/{number}/result.json"
        while not path.exists():
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.01)
        held.append(Held.by(process.pid))
    assert process.wait() == 0, (folder / "log").read_text()
    return held, histories(folder / "sweep", 200)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_200_runs_in_one_process_leave_nothing_open(many: tuple[list[Held], list[str]]) -> None:
    held, _ = many
    first, *_, last = held
    print(held)
    assert last.files <= first.files + 3
    assert last.threads <= first.threads + 3
    assert last.children <= first.children
    assert last.megabytes - first.megabytes < 0.5 * (SAMPLES[-1] - SAMPLES[0])
    assert_nothing_left()


@pytest.mark.slow
def test_each_of_200_histories_is_whole_and_its_own(many: tuple[list[Held], list[str]]) -> None:
    _, written = many
    for history in written:
        assert [json.loads(line)["step"] for line in history.splitlines()] == list(range(1, 5))
    pairs = [(written[number], written[number + 1]) for number in range(0, 200, 2)]
    assert all(one == other for one, other in pairs)
    assert len(set(written)) == 100, "a history of its own for each seed"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_at_once_are_as_one_after_the_other(
    tmp_path: Path, many: tuple[list[Held], list[str]]
) -> None:
    _, written = many
    launcher = ("hydra/launcher=parallel", "hydra.launcher.n_jobs=20")
    process = start(tmp_path, "seed=range(0,40)", *launcher)
    assert process.wait() == 0, (tmp_path / "log").read_text()
    assert histories(tmp_path / "sweep", 40) == written[0:80:2]
    assert_nothing_left()
