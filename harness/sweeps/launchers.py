"""Hydra's launchers before they start jobs: what they need, and warnings of what fails much later."""

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
from harness.config.warnings import warn
from harness.runs.signals import RunInterruptedError

_SACCT = ("sacct", "-o", "JobID,State,NodeList", "--parsable2", "-j", "1")  # as submitit calls it


def prepare_launcher(settings: DictConfig, jobs: int) -> None:
    """Prepare this process for Hydra's launcher of `jobs` jobs; `settings` is Hydra's configuration.

    Raises `ConfigError` where there is no Slurm.
    """
    launcher = settings.launcher
    match str(launcher._target_).rpartition(".")[2]:
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
        warn(
            f"hydra.launcher.timeout_min={launcher.timeout_min}: up to 10 minutes every preemption "
            f"counts as one of the hydra.launcher.max_num_timeout={launcher.max_num_timeout} time-outs"
        )
    sacct = subprocess.run(_SACCT, capture_output=True, text=True, check=False)
    if sacct.returncode:
        warn(
            f"sacct does not answer ({' '.join(sacct.stderr.split())}): if a job is killed or cancelled, "
            f"this command waits for ever; then press Ctrl-C and run scripts/report.py {folder}"
        )
    commands = (
        f"squeue --name={launcher.name} shows the jobs, scancel --name={launcher.name} cancels them"
    )
    print(commands, file=sys.stderr)

    def stop_waiting(number: int, frame: FrameType | None) -> Never:
        print(f"\nthe jobs go on: {commands}; scripts/report.py {folder}", file=sys.stderr)
        raise KeyboardInterrupt if number == signal.SIGINT else RunInterruptedError(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop_waiting)
