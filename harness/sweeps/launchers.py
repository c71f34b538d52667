"""Hydra's launchers before they start jobs: what they need, and warnings of what fails much later."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from types import FrameType
from typing import Any, Never

from omegaconf import DictConfig, open_dict, read_write

from harness.config.errors import ConfigError
from harness.config.warnings import warn
from harness.runs import gpu_share, run_dir
from harness.runs.signals import RunInterruptedError
from harness.sweeps import ray_launcher

_SACCT = ("sacct", "-o", "JobID,State,NodeList", "--parsable2", "-j", "1")  # as submitit calls it


def check_launcher(launcher: Any) -> None:
    """Raise `ConfigError` for settings of Hydra's launcher that cannot work, before anything is written."""
    if not isinstance(launcher, DictConfig):
        raise ConfigError(
            f"hydra.launcher={launcher}: a launcher is chosen by hydra/launcher={launcher}"
        )
    match str(launcher._target_).rpartition(".")[2]:
        case "JoblibLauncher":
            jobs = launcher.n_jobs
            if not jobs:
                raise ConfigError(
                    f"hydra.launcher.n_jobs={jobs}: must be a number of processes, or -1 for as many as there are "
                    "GPUs, or cores"
                )
        case "SlurmLauncher":
            setup = launcher.get("extra_setup")
            if isinstance(setup, str) or not all(isinstance(one, str) for one in setup or ()):
                raise ConfigError(
                    f"hydra.launcher.extra_setup={setup}: must be a list of shell commands, as in "
                    "\"hydra.launcher.extra_setup=['module load cuda']\""
                )
        case "RayLauncher":
            ray_launcher.check_settings(launcher)


def prepare_launcher(config: DictConfig, jobs: int) -> None:
    """Prepare this process for Hydra's launcher of `jobs` jobs, and `config` for what machines have.

    Raises `ConfigError` where there is no Slurm.
    """
    launcher = config.hydra.launcher
    match str(launcher._target_).rpartition(".")[2]:
        case "LocalLauncher":  # starts all at once
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        case "JoblibLauncher":
            share_gpus(config)
        case "SlurmLauncher":
            merge_extra_setup(config)
            _prepare_slurm(launcher, str(config.hydra.sweep.dir))


def share_gpus(config: DictConfig) -> None:
    """Let each of the processes of hydra/launcher=parallel see one GPU; `n_jobs=-1` becomes one process a GPU.

    Without effect where `trainer.device` says which device runs take.
    """
    words = (word.lstrip("+").partition("=") for word in run_dir.task_overrides(config.hydra))
    given = {value for key, _, value in words if key == "trainer.device"} | {config.trainer.device}
    devices = visible_gpus() if given <= {"auto", "cuda"} else []
    if not devices:
        return
    import joblib

    launcher = config.hydra.launcher
    if launcher.n_jobs == -1:
        with read_write(config):
            launcher.n_jobs = len(devices)
    gpu_share.offer(devices, joblib.effective_n_jobs(launcher.n_jobs))


def visible_gpus() -> list[str]:
    """Return the GPUs of this machine that processes may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count, given = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[:count] if given and count else [str(n) for n in range(count)]


def merge_extra_setup(config: DictConfig) -> None:
    """Put the commands of `hydra.launcher.extra_setup`, which submitit's plugin does not know, before the preset's."""
    launcher = config.hydra.launcher
    with read_write(config), open_dict(launcher):
        launcher.setup = [*(launcher.pop("extra_setup", None) or []), *(launcher.setup or [])]


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
