"""The machine a run is on: which device, in what state, with what arithmetic."""

from __future__ import annotations

import os
from typing import Any

import torch

from harness.config.errors import ConfigError
from harness.config.schema import Config
from harness.training.distributed import SINGLE_PROCESS, World
from harness.training.loop import Precision


def device(wanted: str, world: World = SINGLE_PROCESS) -> torch.device:
    """Raises `ConfigError` for a GPU that is not there.

    Each of several processes takes the GPU of its own number, or the one that Slurm bound it to.
    """
    found = torch.cuda.device_count()
    if wanted == "auto" and not found:
        return torch.device("cpu")
    if wanted == "auto" or (wanted == "cuda" and found):
        return torch.device("cuda", world.local_rank % found)
    if wanted.startswith("cuda:") and world.size > 1:
        raise ConfigError(
            f"trainer.device={wanted}: is one GPU, and there are {world.size} processes; "
            "use trainer.device=cuda"
        )
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= found:
        has = f"this machine has {found} GPU{'s' * (found != 1)}" if found else "no GPU is found"
        raise ConfigError(f"trainer.device={wanted}: {has}; use trainer.device=auto or cpu")
    return device


def reset(config: Config, device: torch.device) -> None:
    """Set process-wide settings, all of them in every run: several runs may share one process."""
    strict = config.trainer.deterministic
    if strict:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.are_deterministic_algorithms_enabled() != strict:  # a change imports torch's compiler
        torch.use_deterministic_algorithms(strict)
    torch.backends.cudnn.benchmark = not strict
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs, where precision is fp32
    if device.type == "cuda":
        torch.cuda.set_device(device)


def numerics(
    config: Config, device: torch.device, precision: Precision, world: World = SINGLE_PROCESS
) -> dict[str, Any]:
    """Return what changes rounding and nothing else: equal numerics, equal bits."""
    trainer = config.trainer
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "torch": torch.__version__,
        "device": name,
        "processes": world.size,
        "threads": torch.get_num_threads(),
        "precision": precision.name,
        "deterministic": trainer.deterministic or device.type == "cpu",
        "channels_last": trainer.channels_last,
        "compile": trainer.compile,
    }
