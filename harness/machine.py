"""The machine a run is on: which device, in what state, with what arithmetic."""

from __future__ import annotations

import os
from typing import Any

import torch

from harness.config import Config, ConfigError
from harness.loop import Precision


def device(wanted: str) -> torch.device:
    """Raises `ConfigError` for a GPU that is not there."""
    found = torch.cuda.device_count()
    if wanted == "auto":
        return torch.device("cuda", 0) if found else torch.device("cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= found:
        has = f"this machine has {found} GPU{'s' * (found != 1)}" if found else "no GPU is found"
        raise ConfigError(f"trainer.device={wanted}: {has}; use trainer.device=auto or cpu")
    return device


def reset(config: Config, device: torch.device) -> None:
    """Process-wide settings, all set by every run: several runs may share one process."""
    strict = config.trainer.deterministic
    if strict:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(strict)
    torch.backends.cudnn.benchmark = not strict
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs, where precision is fp32
    if device.type == "cuda":
        torch.cuda.set_device(device)


def numerics(config: Config, device: torch.device, precision: Precision) -> dict[str, Any]:
    """What changes rounding but not the trajectory: equal numerics, equal bits."""
    trainer = config.trainer
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "torch": torch.__version__,
        "device": name,
        "threads": torch.get_num_threads(),
        "precision": precision.name,
        "deterministic": trainer.deterministic or device.type == "cpu",
        "channels_last": trainer.channels_last,
        "compile": trainer.compile,
    }
