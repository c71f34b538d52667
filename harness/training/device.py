"""The machine a run is on: which device, in what state, with what arithmetic."""

from __future__ import annotations

import os
from typing import Any

import torch

from harness.config.errors import ConfigError
from harness.config.schema import Config, Trainer
from harness.training.distributed import SINGLE_PROCESS, World
from harness.training.loop import Precision

_KNOWN = ("cuda", "xpu", "mps")  # CUDA and ROCm, Intel, Apple
_NAMES = {"cuda": "GPU", "xpu": "Intel GPU", "mps": "Apple GPU"}


def device(wanted: str, world: World = SINGLE_PROCESS) -> torch.device:
    """Return the device that `trainer.device=WANTED` means. Raises `ConfigError` for one that is not there.

    Each of several processes takes the GPU of its own number, or the one that Slurm bound it to.
    """
    kind, _, number = (_accelerator() if wanted == "auto" else wanted).partition(":")
    if kind == "cpu":
        return torch.device("cpu")
    found = _count(kind)
    if int(number or 0) >= found:
        name = _NAMES[kind]
        has = (
            f"this machine has {found} {name}{'s' * (found != 1)}"
            if found
            else f"no {name} is found"
        )
        raise ConfigError(f"trainer.device={wanted}: {has}; use trainer.device=auto or cpu")
    if kind != "cuda" and world.size > 1:
        raise ConfigError(
            f"trainer.device={wanted}: {kind} takes one process a run, and there are {world.size}; "
            "start one, or use trainer.device=cpu"
        )
    if number and world.size > 1:
        raise ConfigError(
            f"trainer.device={wanted}: is one GPU, and there are {world.size} processes; "
            "use trainer.device=cuda"
        )
    return torch.device(kind, int(number) if number else world.local_rank % found)


def _accelerator() -> str:
    """Return the kind of device that torch finds here, `cpu` without one that is known."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found and found.type in _KNOWN else "cpu"


def _count(kind: str) -> int:
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    return int(torch.get_device_module(kind).device_count())


def check(trainer: Trainer, device: torch.device) -> None:
    """Raise `ConfigError` for what a kind of device cannot do."""
    if device.type in ("cpu", "cuda"):
        return
    if trainer.deterministic:
        raise ConfigError(
            f"trainer.deterministic=true: is for CUDA and CPUs; on {device.type} repeats may differ"
        )
    if trainer.compile == "reduce-overhead" or (trainer.compile != "none" and device.type == "mps"):
        raise ConfigError(
            f"trainer.compile={trainer.compile}: does not work on {device.type}; use trainer.compile=none"
        )


def reset(config: Config, device: torch.device) -> None:
    """Set process-wide settings, all of them in every run: several runs may share one process."""
    strict = config.trainer.deterministic
    if strict:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.are_deterministic_algorithms_enabled() != strict:  # a change imports torch's compiler
        torch.use_deterministic_algorithms(strict)
    torch.backends.cudnn.benchmark = not strict
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs, where precision is fp32
    if device.type in ("cuda", "xpu"):
        torch.get_device_module(device).set_device(device)


def numerics(
    config: Config, device: torch.device, precision: Precision, world: World = SINGLE_PROCESS
) -> dict[str, Any]:
    """Return what changes rounding and nothing else: equal numerics, equal bits."""
    trainer = config.trainer
    return {
        "torch": torch.__version__,
        "device": _name(device),
        "processes": world.size,
        "threads": torch.get_num_threads(),
        "precision": precision.name,
        "deterministic": trainer.deterministic or device.type == "cpu",
        "channels_last": trainer.channels_last,
        "compile": trainer.compile,
    }


def _name(device: torch.device) -> str:
    if device.type in ("cuda", "xpu"):
        return str(torch.get_device_module(device).get_device_name(device))
    return device.type
