"""What a run hands to submitit when a signal stops it, and what a requeued job goes on with."""

from __future__ import annotations

import json
import pickle
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import forked
import pytest
from conftest import make_config
from test_clusters import TINY
from test_launchers import program, programs  # noqa: F401

from harness.config.errors import ConfigError
from harness.config.values import changes, to_dict
from harness.runs import requeue
from harness.runs.context import PhaseTimer, RunContext
from harness.runs.run import run
from harness.runs.run_dir import RunInfo
from harness.runs.setup import build, prepare
from harness.runs.signals import RunInterruptedError, Stop, stopping
from harness.store.store import Store


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


def test_sigusr2_counts_before_others() -> None:
    with stopping(Stop()) as stop:
        stop.catch()
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGTERM):
            signal.raise_signal(number)
    assert stop.number == signal.SIGUSR2
    with pytest.raises(RunInterruptedError):
        stop.check()


def test_an_interruption_comes_whole_from_another_process() -> None:
    there = pickle.loads(pickle.dumps(RunInterruptedError(signal.SIGTERM)))  # noqa: S301
    assert (there.number, there.signal, there.code) == (signal.SIGTERM, "SIGTERM", 143)


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


def test_a_run_goes_on_only_with_the_configuration_it_began_with(tmp_path: Path) -> None:
    def start(*overrides: str, claim: str = "first") -> dict[str, Any]:
        changed = make_config(*TINY, f"store.dir={tmp_path / 'store'}", *overrides)
        return run(RunContext(changed, RunInfo(tmp_path, "run", claim_sha256=claim))).to_json()

    first = start()
    before = (tmp_path / "result.json").read_bytes()
    with pytest.raises(ConfigError) as error:
        start("scheduler.t_mult=1", "model.width=4")
    assert str(error.value) == (
        "model.width=4 (was 2), scheduler.t_mult=1 (was 2): not what the run in "
        f"{tmp_path} began with; undo that, or take another folder (hydra.run.dir, hydra.sweep.dir)"
    )
    assert (tmp_path / "result.json").read_bytes() == before
    second = start("retry=true", "trainer.checkpoint_every=1", "claim.margin=1", claim="second")
    assert second["weights_sha256"] == first["weights_sha256"]
    assert second["restarts"] == 0, "what is complete stays as it is"
    assert second["claim_sha256"] == "first", "what it was trained for cannot change on the way"


def test_changes_are_told_key_by_key() -> None:
    then, now = make_config("tracking=none"), make_config("scheduler=linear", "reuse=false")
    assert changes(to_dict(then), to_dict(now)) == [
        "scheduler.eta_min=null (was 0)", "scheduler.kind=linear (was cosine_warm)",
        "scheduler.t_0=null (was 5)", "scheduler.t_mult=null (was 2)",
    ]  # fmt: skip
