"""Which of the processes of a run this one is, as torchrun or Slurm set it; needs no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.config.errors import ConfigError


@dataclass(frozen=True)
class ProcessRank:
    """This process among all that train one run; `address` is of the rendezvous, None if alone."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those of its node
    address: str | None = None

    def __str__(self) -> str:
        return f"process {self.rank} of {self.size}"


def process_rank(env: Mapping[str, str] = os.environ) -> ProcessRank:
    """Return the rank that torchrun gave, else that of a Slurm step of several tasks; alone without one.

    An allocation of several tasks makes no difference to a process that no `srun` started.
    """
    if "RANK" in env and "WORLD_SIZE" in env:
        rank, size = int(env["RANK"]), int(env["WORLD_SIZE"])
        return _process_rank(rank, size, int(env.get("LOCAL_RANK", 0)), "env://")
    size = int(env.get("SLURM_STEP_NUM_TASKS", 1))
    rank, local_rank = int(env.get("SLURM_PROCID", 0)), int(env.get("SLURM_LOCALID", 0))
    return _process_rank(rank, size, local_rank, _slurm_address(env) if size > 1 else "")


def _process_rank(rank: int, size: int, local_rank: int, address: str) -> ProcessRank:
    return ProcessRank(rank, size, local_rank, address) if size > 1 else ProcessRank()


def _slurm_address(env: Mapping[str, str]) -> str:
    """Return the address of the step's first node, with a port that steps which share it do not share."""
    alone = env.get("SLURM_STEP_NUM_NODES") == "1"
    host = "127.0.0.1" if alone else first_host(env["SLURM_STEP_NODELIST"])
    number = 31 * int(env["SLURM_JOB_ID"]) + int(env.get("SLURM_STEP_ID", 0))
    port = 12_000 + number % 20_000  # below the ports that systems give out themselves
    return f"tcp://{env.get('MASTER_ADDR', host)}:{env.get('MASTER_PORT', port)}"


def first_host(nodes: str) -> str:
    """Return the first of Slurm's list of nodes: `node[03-05,9],gpu1` → `node03`."""
    return re.sub(r"\[(\d+)[^]]*\]", r"\1", nodes).partition(",")[0]


def refuse_sweep() -> None:
    """Raise `ConfigError` for a sweep that torchrun or srun started: its runs have their own.

    The first process alone says so; the others just exit.
    """
    own = process_rank()
    if own.rank:
        raise SystemExit(1)
    if own.size > 1:
        raise ConfigError(
            f"-m: is started once, not by {own.size} processes; for several processes a run, "
            f"use hydra/launcher=slurm hydra.launcher.tasks_per_node={own.size}"
        )
