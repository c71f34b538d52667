"""Launchers: what they say before they start, and what a stopped or failed run does under them."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import forked
import pytest
from conftest import ROOT, make_config, verified
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

from harness.config.errors import ConfigError
from harness.config.one_line_errors import explain
from harness.config.values import changes, to_dict
from harness.runs import requeue
from harness.runs.context import PhaseTimer, RunContext
from harness.runs.run import run
from harness.runs.run_dir import RunInfo
from harness.runs.setup import build, prepare
from harness.runs.signals import RunInterruptedError, Stop, stopping
from harness.store.store import Store
from harness.sweeps import callback as sweep
from harness.sweeps.launchers import prepare_launcher

TINY = (
    "dataset=synthetic", "dataset.images=200", "dataset.classes=4", "dataset.image_size=4",
    "model.width=2", "trainer.batch_size=16", "scheduler.t_0=1", "trainer.epochs=3", "tracking=none",
)  # fmt: skip


def train(folder: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    where = [f"hydra.sweep.dir={folder / 'out'}", f"store.dir={folder / 'store'}"]
    own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "-m", *overrides, *TINY, *where],
        cwd=folder, env=own | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def result(folder: Path, number: int) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / f"out/{number}/result.json").read_text())
    return told


# --- whole sweeps --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("launcher", "threads"),
    [
        (["hydra/launcher=parallel", "hydra.launcher.n_jobs=2"], 2),
        (["hydra/launcher=slurm_local"], 4),
    ],
    ids=["parallel", "slurm_local"],
)
@pytest.mark.slow
def test_a_sweep_ends_in_its_table_and_shares_the_cores(
    tmp_path: Path, launcher: list[str], threads: int
) -> None:
    done = train(tmp_path, *launcher, "scheduler.t_mult=1,2", "seed=0,1", "store.wait=true")
    assert done.returncode == 0, done.stderr
    arms = [line.split()[:2] for line in done.stdout.splitlines()[2:4]]
    assert arms == [["t_mult=1", "2"], ["t_mult=2", "2"]]
    share = max(1, (os.cpu_count() or 1) // threads)
    assert {result(tmp_path, number)["numerics"]["threads"] for number in range(4)} == {share}
    assert verified(tmp_path / "out")


@pytest.mark.slow
def test_a_failed_run_is_visible_and_has_its_traceback_in_the_log(tmp_path: Path) -> None:
    done = train(tmp_path, "hydra/launcher=slurm_local", "trainer.device=cuda:99,cpu")
    assert done.returncode == 1
    assert result(tmp_path, 1)["status"] == "complete"
    last = done.stderr.splitlines()[-1]
    assert "1 of 2 runs failed: device=cuda:99: trainer.device=cuda:99: " in last
    logs = Path(re.findall(r"\(logs in (.*)\)", last)[0])
    said = "".join(path.read_text() for path in logs.glob("*/*.err"))
    assert "Traceback (most recent call last):" in said
    assert "error: 1/2 device=cuda:99: trainer.device=cuda:99: " in said
    path = tmp_path / "out/0/result.json"
    path.write_text(json.dumps(result(tmp_path, 0) | {"status": "interrupted", "error": "stopped"}))
    with pytest.raises(SystemExit, match="1 of 2 runs failed: device=cuda:99: stopped "):
        sweep.end_sweep(tmp_path / "out")


# --- before the first job ------------------------------------------------------------------------


def settings(*overrides: str) -> Any:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        words = ["hydra/launcher=slurm", "hydra.sweep.dir=SWEEP", *overrides]
        words += ["hydra.job.name=train", "hydra.job.num=0", "hydra.runtime.output_dir=."]
        return compose("config", words, return_hydra_config=True).hydra


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Slurm whose `sacct` answers, and nothing else on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    before = signal.getsignal(signal.SIGINT)
    for name in ("sbatch", "sacct"):
        program(tmp_path / name, "exit 0")
    yield tmp_path
    signal.signal(signal.SIGINT, before)


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_sweep_says_how_to_see_and_cancel_its_jobs(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_launcher(settings("hydra.launcher.name=N"), jobs=2)
    told = "squeue --name=N shows the jobs, scancel --name=N cancels them"
    assert capsys.readouterr().err == f"{told}\n"
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert capsys.readouterr().err == f"\nthe jobs go on: {told}; scripts/report.py SWEEP\n"


def test_what_would_end_badly_is_said_first(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(programs / "sacct", "echo Slurm accounting storage is disabled >&2; exit 1")
    prepare_launcher(settings("hydra.launcher.timeout_min=10"), jobs=2)
    assert capsys.readouterr().err.splitlines()[:2] == [
        "warning: hydra.launcher.timeout_min=10: up to 10 minutes every preemption counts as one of "
        "the hydra.launcher.max_num_timeout=20 time-outs",
        "warning: sacct does not answer (Slurm accounting storage is disabled): if a job is killed or "
        "cancelled, this command waits for ever; then press Ctrl-C and run scripts/report.py SWEEP",
    ]


def test_without_a_slurm_the_sweep_does_not_begin(programs: Path) -> None:
    (programs / "sbatch").unlink()
    with pytest.raises(ConfigError, match=r"^hydra/launcher=slurm: there is no sbatch here; "):
        prepare_launcher(settings(), jobs=2)


@pytest.mark.parametrize(
    ("preset", "plugin", "extra"),
    [
        ("slurm", "submitit_slurm", "slurm"),
        ("slurm_local", "submitit_local", "slurm"),
        ("parallel", "joblib", "parallel"),
    ],
)
def test_a_missing_plugin_is_one_line_with_the_command(
    monkeypatch: pytest.MonkeyPatch, preset: str, plugin: str, extra: str
) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        known = ConfigStore.instance().repo["hydra"]["launcher"]
        monkeypatch.delitem(known, f"{plugin}.yaml")
        with pytest.raises(Exception) as error:
            compose("config", [f"hydra/launcher={preset}"], return_hydra_config=True)
    mend = f"pip install -e '.[{extra}]'"
    assert explain(error.value) == f"hydra/launcher: a package is missing; {mend}"


# --- jobs that were killed, as the waiting process learns it ---------------------------------------


def test_a_lost_job_names_its_log_and_the_report() -> None:
    UncompletedJobError = type("UncompletedJobError", (RuntimeError,), {})
    text = (
        "Job 7_0 (task: 0) with path /a b/out/.submitit/7_0/7_0_0_result.pkl\n"
        "has not produced any output (state: CANCELLED by 0)\nError stream produced:\n---\nmore"
    )
    assert explain(UncompletedJobError(text)) == (
        "job 7_0 ended without a result (CANCELLED by 0; log: /a b/out/.submitit/7_0). The other jobs "
        "go on; when they have ended, scripts/report.py /a b/out makes the report"
    )


# --- handing over to submitit --------------------------------------------------------------------


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
    told = json.loads((tmp_path / "result.json").read_text())
    assert (told["status"], told["error"]) == ("interrupted", "stopped by SIGUSR2")


def test_signals_that_come_while_a_run_ends_do_not_cut_its_end_off(tmp_path: Path) -> None:
    """As Slurm and torchrun send them: to each process of a run, of which the first has told all."""
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


# --- what a requeued job goes on with ------------------------------------------------------------


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
