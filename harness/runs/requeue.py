"""A run under submitit that a signal stops: whether its job is requeued, or ends with a result."""

from __future__ import annotations

import os
import signal
import subprocess

from harness.runs.signals import RunInterruptedError

IN_RAY = "HARNESS_IN_RAY"  # in the environment of a job of hydra/launcher=ray


def in_a_job() -> bool:
    """Return whether submitit, or Ray, runs this process, so that its stderr is the log of one job."""
    return "SUBMITIT_EXECUTOR" in os.environ or IN_RAY in os.environ


def forward_signal_to_submitit(stop: RunInterruptedError) -> bool:
    """Let submitit act on the signal that stopped a run, whose checkpoint is written.

    Its handlers are those from before ours. That of SIGUSR2 requeues the job and exits, or raises
    if it may not. That of SIGTERM does nothing, and the job is to end with a result, as cancelled.
    Return False where the job is to end without one: nothing waits for it, or it will start again.
    """
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return False
    number = stop.number
    if number == signal.SIGTERM:
        job = scontrol_show_job()
        if job.get("JobState") == "RUNNING" and job.get("PreemptTime", "None") != "None":
            number = signal.SIGUSR2  # Slurm does not requeue a job that ends in its grace time
        elif int(job.get("Restarts", 0)) > int(os.environ.get("SLURM_RESTART_COUNT", 0)):
            return False  # Slurm is requeuing it
    handler = signal.getsignal(number)
    if callable(handler):
        handler(number, None)
    return True


def scontrol_show_job() -> dict[str, str]:
    """Return what `scontrol show job` prints of this job; nothing if it is not one of Slurm's."""
    from submitit import JobEnvironment

    job = JobEnvironment()
    if job.cluster != "slurm":
        return {}
    command = ["scontrol", "--oneliner", "show", "job", job.job_id]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {name: value for name, _, value in (word.partition("=") for word in shown.split())}
