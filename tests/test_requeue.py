"""What a run hands to submitit when a signal stops it, and what a requeued job goes on with."""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import forked
import pytest
from conftest import make_config
from test_clusters import TINY
from test_launchers import program, programs  # noqa: F401

from harness.runs import requeue
from harness.runs.context import PhaseTimer, RunContext
from harness.runs.run import run
from harness.runs.run_dir import RunInfo
from harness.runs.setup import build, prepare
from harness.runs.signals import RunInterruptedError, Stop, stopping
from harness.store.store import Store


def test_a_job_of_ray_is_a_job_that_submitit_knows_nothing_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SUBMITIT_EXECUTOR", raising=False)
    assert not requeue.in_a_job()
    monkeypatch.setenv(requeue.IN_RAY, "1")
    assert requeue.in_a_job()
    assert not requeue.forward_signal_to_submitit(RunInterruptedError(signal.SIGTERM))


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The signals that submitit's handlers, which this process now has, were called with."""
    calls: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGUSR2)
    before = {n: signal.signal(n, lambda number, frame: calls.append(number)) for n in numbers}
    yield calls
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_stopped_run_is_handed_to_the_handler_from_before(
    handled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with stopping(Stop()) as stop:
        stop.catch()
        signal.raise_signal(signal.SIGUSR2)
    assert (stop.number, handled) == (signal.SIGUSR2, [])
    stopped = RunInterruptedError(signal.SIGUSR2)
    monkeypatch.delenv("SUBMITIT_EXECUTOR", raising=False)
    assert not requeue.forward_signal_to_submitit(stopped), "no launcher waits for it"
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    assert requeue.forward_signal_to_submitit(stopped)
    assert handled == [signal.SIGUSR2]


@pytest.mark.parametrize(
    ("state", "handler"),
    [
        ("JobState=RUNNING PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime=2026-01-01T00:01:00",
         signal.SIGUSR2),
        ("JobState=RUNNING PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime=None", signal.SIGTERM),
        ("JobState=COMPLETING Restarts=1", signal.SIGTERM),
        ("JobState=COMPLETING Restarts=2", None),
    ],
    ids=["preempted", "a signal by hand", "cancelled", "requeued"],
)  # fmt: skip
def test_sigterm_requeues_a_preempted_job_only(
    programs: Path,
    handled: list[int],
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    handler: int | None,
) -> None:
    job = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "8", "SLURM_RESTART_COUNT": "1"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    program(programs / "scontrol", f"echo JobId=8 '{state}'")
    program(programs / "srun", "exit 1")
    assert requeue.forward_signal_to_submitit(RunInterruptedError(signal.SIGTERM)) == (
        handler is not None
    )
    assert handled == [handler] * (handler is not None)


def test_a_signal_ends_the_wait_for_another_run(tmp_path: Path) -> None:
    other = make_config(*TINY, "scheduler.t_mult=1", f"store.dir={tmp_path / 'store'}")
    prepared = prepare(other, PhaseTimer())
    build(other, prepared.splits, prepared.device, prepared.precision)  # imports, for seconds
    identity = prepared.identity
    waiting = make_config(*TINY, "store.wait=true", f"store.dir={tmp_path / 'store'}")
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGUSR2))
    try:
        with Store(tmp_path / "store").lease(identity, [8], wait=False):
            signal.setitimer(signal.ITIMER_REAL, 1)
            with pytest.raises(RunInterruptedError):
                run(RunContext(waiting, RunInfo(tmp_path, "run"))).to_json()
    finally:
        signal.signal(signal.SIGALRM, before)
    reported = json.loads((tmp_path / "result.json").read_text())
    assert (reported["status"], reported["error"]) == ("interrupted", "stopped by SIGUSR2")


def test_signals_that_come_while_a_run_ends_do_not_cut_its_end_off(tmp_path: Path) -> None:
    """As Slurm and torchrun send them: to each process of a run, of which the first has reported everything."""
    arguments = (*TINY, "trainer.epochs=10000", f"store.dir={tmp_path / 'store'}", "reuse=false")
    words = (*arguments, f"hydra.run.dir={tmp_path}/run")
    started = forked.Program(tmp_path / "log", "train.py", *words)
    history = tmp_path / "run/history.jsonl"
    while started.process.is_alive():
        if history.exists() and history.stat().st_size:
            with suppress(ProcessLookupError):  # it has ended since
                started.send_signal(signal.SIGTERM)  # again and again
    assert "stopped by SIGTERM" in started.said
    assert json.loads((tmp_path / "run/result.json").read_text())["status"] == "interrupted"
