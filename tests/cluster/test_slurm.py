"""Sweeps on a real Slurm: runs that are preempted, timed out, requeued, cancelled and killed.

What is interrupted must end like what is not, bit for bit.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, verified

from cluster.conftest import LONG, sweep_under_way

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("slurm")]

SMALL = ("cpus_per_task=1", "mem_gb=1", "partition=main")


def until(condition: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    """What `condition` returns once that is true; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {seconds} s in vain: {what}"
        time.sleep(0.1)
    return found


@dataclass
class Sweep:
    """A sweep that is under way on the cluster."""

    folder: Path
    process: subprocess.Popen[str]

    def result(self, number: int) -> dict[str, Any]:
        path = self.folder / f"{number}/result.json"
        result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return result

    def rows(self, number: int) -> bytes:
        path = self.folder / f"{number}/history.jsonl"
        return path.read_bytes() if path.exists() else b""

    def wait_for_rows(self, *numbers: int, rows: int = 100) -> None:
        for number in numbers:
            until(lambda: self.rows(number).count(b"\n") > rows, f"rows; {self.log()}")  # noqa: B023

    def jobs(self) -> dict[int, str]:
        """Slurm's id of each run's job."""
        folders = (self.folder / ".submitit").glob("[0-9]*_[0-9]*")
        return {int(folder.name.partition("_")[2]): folder.name for folder in folders}

    def job(self) -> str:
        """Slurm's id of the only job."""
        return str(until(lambda: squeue("%A"), "a job")[0])

    def log(self) -> str:
        return "\n".join(path.read_text() for path in self.folder.glob(".submitit/*/*.err"))

    def end(self) -> tuple[int, str, str]:
        """Exit code and output, once the sweep is over."""
        out, err = self.process.communicate(timeout=180)
        return self.process.returncode, out, err


Launch = Callable[..., Sweep]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start `train.py -m hydra/launcher=slurm …` in a folder of the test's."""
    started: list[subprocess.Popen[str]] = []

    def start(*overrides: str) -> Sweep:
        words = [*(f"hydra.launcher.{word}" for word in SMALL), *overrides]
        started.append(sweep_under_way(tmp_path, "hydra/launcher=slurm", *words))
        return Sweep(tmp_path / "out", started[-1])

    yield start
    for process in started:
        process.kill()
        process.communicate()
    subprocess.run(["scancel", "--user", str(os.getuid())], check=False)
    until(lambda: not squeue("%A"), "an empty queue")


def squeue(form: str, *options: str) -> list[str]:
    words = ["squeue", "--noheader", f"--format={form}", *options]
    return subprocess.check_output(words, text=True).split()


def shown(job: str) -> dict[str, str]:
    """What the controller knows of a job."""
    reported = subprocess.check_output(["scontrol", "--oneliner", "show", "job", job], text=True)
    return dict(word.partition("=")[::2] for word in reported.split())


def slurm_does(*words: str) -> str:
    return subprocess.check_output(words, text=True).strip()


def ended_like(whole: tuple[str, bytes], sweep: Sweep, number: int = 0) -> None:
    assert (sweep.result(number)["weights_sha256"], sweep.rows(number)) == whole, sweep.log()


def test_a_sweep_is_a_job_array_and_ends_in_its_table(launch: Launch) -> None:
    sweep = launch("scheduler.t_mult=1,2", "seed=0,1", "scheduler.t_0=1", "trainer.epochs=3",
                   "tracking.mode=offline", "hydra.launcher.timeout_min=20",
                   "hydra.launcher.extra_setup=['echo prepared >&2']")  # fmt: skip
    code, out, err = sweep.end()
    assert code == 0, err + sweep.log()
    assert [line.split()[:2] for line in out.splitlines()[2:4]] == [
        ["t_mult=1", "2"],
        ["t_mult=2", "2"],
    ]
    assert "verdict: " in out
    assert not re.search(r"warning: (?!2 seeds an arm)", err)
    assert re.search(r"scancel --name=train-\S+ cancels them", err)
    assert {sweep.result(number)["numerics"]["threads"] for number in range(4)} == {1}
    assert sweep.log().count("prepared") == 4
    assert len(list(sweep.folder.glob("*/wandb/offline-run-*"))) == 4
    assert verified(sweep.folder)


@pytest.mark.parametrize(
    "notice",
    [
        pytest.param("USR2@120", id="the signal that submitit asks for"),
        pytest.param("TERM@120", id="SIGTERM, as from most clusters"),
    ],
)
def test_a_preempted_run_makes_room_and_goes_on(
    launch: Launch, whole: tuple[str, bytes], notice: str
) -> None:
    sweep = launch(*LONG, "tracking=wandb", "tracking.mode=offline",
                   f"+hydra.launcher.additional_parameters.signal={notice}")  # fmt: skip
    sweep.wait_for_rows(0)
    urgent = ["--partition=urgent", "--cpus-per-task=8", "--output=/dev/null", "--wrap=sleep 1"]
    other = slurm_does("sbatch", "--parsable", *urgent)
    begun = time.monotonic()
    until(lambda: shown(other)["JobState"] in ("RUNNING", "COMPLETED"), "the urgent job")
    assert time.monotonic() - begun < 10, "the run left before its grace time was over"
    first = sweep.result(0)
    assert first["status"] == "interrupted"
    code, _, err = sweep.end()
    assert code == 0, err + sweep.log()
    second = sweep.result(0)
    assert second["restarts"] == 1
    assert second["run_id"] == first["run_id"]
    assert second["updates_reused"] >= first["updates_trained"] > 0
    ended_like(whole, sweep)
    assert len(list(sweep.folder.glob("0/wandb/offline-run-*"))) == 1
    assert len(list(sweep.folder.glob("0/wandb/replaced-offline-run-*"))) == 1


def test_a_run_goes_on_after_its_time_limit_as_often_as_it_may(
    launch: Launch, whole: tuple[str, bytes]
) -> None:
    sweep = launch(*LONG, "trainer.epochs=2,100000", "tracking=none", "hydra.launcher.timeout_min=1",
                   "hydra.launcher.signal_delay_s=10", "hydra.launcher.max_num_timeout=1")  # fmt: skip
    code, out, err = sweep.end()
    assert code == 1
    assert "hydra.launcher.timeout_min=1: up to 10 minutes every preemption counts" in err
    assert "epochs=2  " in out, "the table is there"
    assert "1 of 2 runs failed: epochs=100000: stopped by SIGUSR2 (logs in " in err, sweep.log()
    assert "timed-out too many times" in sweep.log()
    result = sweep.result(1)
    assert result["restarts"] == 1
    assert result["updates_reused"] > 0
    rows, other = sweep.rows(1), whole[1]  # the plans are alike as far as both go
    common = min(len(rows), len(other))
    assert rows[:common] == other[:common]


def test_a_run_that_is_requeued_by_hand_goes_on(launch: Launch, whole: tuple[str, bytes]) -> None:
    sweep = launch(*LONG, "tracking=none")
    sweep.wait_for_rows(0)
    slurm_does("scontrol", "requeue", sweep.job())
    code, _, err = sweep.end()
    assert code == 0, err + sweep.log()
    assert sweep.result(0)["restarts"] == 1
    ended_like(whole, sweep)


def test_a_cancelled_run_stays_so_and_the_others_are_reported(
    launch: Launch, whole: tuple[str, bytes]
) -> None:
    overrides = (*LONG, "tracking=none", "seed=0,1")
    sweep = launch(*overrides)
    sweep.wait_for_rows(0, 1)
    slurm_does("scancel", sweep.jobs()[0])
    code, out, err = sweep.end()
    assert code == 1
    assert "1 of 2" in out
    assert "1 of 2 runs failed: seed=0: stopped by SIGTERM" in err
    other = sweep.result(1)
    assert other["status"] == "complete"
    assert not squeue("%A")
    code, _, err = launch(*overrides).end()
    assert code == 0, err + sweep.log()
    assert sweep.result(0)["updates_reused"] > 0
    assert sweep.result(1) == other
    ended_like(whole, sweep)


def test_a_killed_run_names_the_report_which_the_others_reach(
    launch: Launch, whole: tuple[str, bytes]
) -> None:
    overrides = (*LONG, "tracking=none", "seed=0,1")
    sweep = launch(*overrides)
    sweep.wait_for_rows(0, 1)
    os.kill(process_of(sweep.jobs()[0]), signal.SIGKILL)
    code, _, err = sweep.end()
    assert code == 1
    assert "Traceback" not in err
    assert f"ended without a result (FAILED; log: {sweep.folder}/.submitit/" in err
    assert f"scripts/report.py {sweep.folder} makes the report" in err
    until(lambda: sweep.result(1).get("status") == "complete", "the other run")
    script = [sys.executable, str(ROOT / "scripts/report.py"), str(sweep.folder)]
    assert "1 of 2" in subprocess.check_output(script, text=True)
    until(lambda: not squeue("%A"), "an empty queue")
    code, _, err = launch(*overrides).end()
    assert code == 0, err + sweep.log()
    ended_like(whole, sweep)


def process_of(job: str) -> int:
    """The process of submitit that runs `job`, found by its environment."""
    array, _, task = job.partition("_")
    wanted = {f"SLURM_ARRAY_JOB_ID={array}".encode(), f"SLURM_ARRAY_TASK_ID={task}".encode()}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if (
            b"submitit.core._submit" in command
            and b"srun" not in command
            and wanted <= set(environment)
        ):
            return int(folder.name)
    raise AssertionError(f"no process of job {job}")


def test_ctrl_c_says_how_to_cancel_the_jobs_that_go_on(launch: Launch) -> None:
    endless = "trainer.epochs=20000"  # however long the parent takes to end, the job is still there
    sweep = launch(*LONG, endless, "tracking=none")
    sweep.wait_for_rows(0)
    sweep.process.send_signal(signal.SIGINT)
    code, _, err = sweep.end()
    assert code == 128 + signal.SIGINT
    assert err.splitlines()[-1] == "interrupted"
    (name,) = set(re.findall(r"the jobs go on: .*scancel --name=(\S+) cancels them", err))
    assert squeue("%t", f"--name={name}") == ["R"]
    slurm_does("scancel", f"--name={name}")
    until(lambda: sweep.result(0).get("status") == "interrupted", "the run to stop")
