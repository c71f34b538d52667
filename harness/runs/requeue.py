"""What a sweep on other machines or processes needs: warnings before it starts, a requeue after a stop."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from types import FrameType
from typing import Never

from omegaconf import DictConfig

from harness.config.errors import ConfigError
from harness.runs.signals import RunInterruptedError

_SACCT = ("sacct", "-o", "JobID,State,NodeList", "--parsable2", "-j", "1")  # as submitit asks it


def prepare(settings: DictConfig, jobs: int) -> None:
    """Look at Hydra's launcher before it submits `jobs` jobs; `settings` is Hydra's configuration.

    Raises `ConfigError` where there is no Slurm. Warns of what would end badly much later.
    """
    launcher = settings.launcher
    match str(launcher._target_).rpartition(".")[2]:
        case "JoblibLauncher":  # as by Ctrl-C: else its processes outlive this one
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        case "LocalLauncher":  # starts all at once
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        case "SlurmLauncher":
            _prepare_slurm(launcher, str(settings.sweep.dir))


def _prepare_slurm(launcher: DictConfig, folder: str) -> None:
    for program in ("sbatch", "sacct"):
        if not shutil.which(program):
            raise ConfigError(
                f"hydra/launcher=slurm: there is no {program} here; log in to a cluster, "
                "or use hydra/launcher=parallel"
            )
    if launcher.timeout_min <= 10:
        _warn(
            f"hydra.launcher.timeout_min={launcher.timeout_min}: up to 10 minutes every preemption "
            f"counts as one of the hydra.launcher.max_num_timeout={launcher.max_num_timeout} time-outs"
        )
    asked = subprocess.run(_SACCT, capture_output=True, text=True, check=False)
    if asked.returncode:
        _warn(
            f"sacct does not answer ({' '.join(asked.stderr.split())}): if a job is killed or cancelled, "
            f"this command waits for ever; then press Ctrl-C and run scripts/report.py {folder}"
        )
    jobs = (
        f"squeue --name={launcher.name} shows the jobs, scancel --name={launcher.name} cancels them"
    )
    print(jobs, file=sys.stderr)

    def interrupted(number: int, frame: FrameType | None) -> Never:
        print(f"\nthe jobs go on: {jobs}; scripts/report.py {folder}", file=sys.stderr)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupted)


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def in_a_job() -> bool:
    """Whether submitit runs this process, so that its stderr is the log of one job."""
    return "SUBMITIT_EXECUTOR" in os.environ


def hand_over(stop: RunInterruptedError) -> bool:
    """Let submitit act on the signal that stopped a run, whose checkpoint is written.

    Its handlers are those from before ours. That of SIGUSR2 requeues the job and exits, or raises
    if it may not. That of SIGTERM does nothing, and the job is to end with a result, as cancelled.
    False where the job is to end without one: nobody waits for it, or it will start again.
    """
    if not in_a_job():
        return False
    number = stop.number
    if number == signal.SIGTERM:
        shown = _shown_by_slurm()
        if shown.get("JobState") == "RUNNING" and shown.get("PreemptTime", "None") != "None":
            number = signal.SIGUSR2  # Slurm does not requeue a job that ends in its grace time
        elif int(shown.get("Restarts", 0)) > int(os.environ.get("SLURM_RESTART_COUNT", 0)):
            return False  # Slurm is requeuing it
    handler = signal.getsignal(number)
    if callable(handler):
        handler(number, None)
    return True


def _shown_by_slurm() -> dict[str, str]:
    """What Slurm says of this job; nothing if this is none of its."""
    from submitit import JobEnvironment

    job = JobEnvironment()
    if job.cluster != "slurm":
        return {}
    command = ["scontrol", "--oneliner", "show", "job", job.job_id]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {name: value for name, _, value in (word.partition("=") for word in shown.split())}
