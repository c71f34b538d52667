"""What the harness does and costs on a GPU, in one table: `scripts/gpu_check.sh`, ten minutes.

Every part runs in a process of its own, has its own limit of seconds and prints its rows as it has them. Parts that time
nothing run at once. Exits with 1 if a row is not as it must be. The images are invented: no data set is read.
`--device cpu` tries all that a CPU can, on a small scale.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from typing import NamedTuple

import torch
import torchvision
from benchmarks import gpu_promises, gpu_speed
from benchmarks.gpu_speed import Row, Rows


class Part(NamedTuple):
    rows: Callable[[torch.device], Rows]
    seconds: int  # after which it is cut off


_PARTS = {
    "waits": Part(gpu_promises.no_waits, 100),
    "memory": Part(gpu_promises.out_of_memory, 100),
    "scaler": Part(gpu_promises.skipped_updates, 100),
    "killed": Part(gpu_promises.killed_runs, 100),
    "resumed": Part(gpu_promises.resumed_states, 100),
    "tests": Part(gpu_promises.gpu_tests, 100),
    "eager": Part(gpu_speed.eager, 145),
    "compiled": Part(gpu_speed.compiled, 200),
    "together": Part(gpu_speed.together, 60),
    "usual": Part(gpu_speed.usual_programs, 55),
    "features": Part(gpu_speed.what_features_cost, 90),
}
_UNTIMED = ("waits", "memory", "scaler", "killed", "resumed", "tests")  # which run at once


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "parts", nargs="*", help=f"of {', '.join(_PARTS)}; without any, all of them"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(_PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(_PARTS)}")
    # whether there is a GPU is asked in other processes: one that has used it cannot be forked
    print(f"{date.today()}, {_machine(arguments.device)}, {os.cpu_count()} cores, Python "
          f"{platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}"
          f"\n\n| what | measured | must be |\n|---|---|---|", flush=True)  # fmt: skip
    parts = arguments.parts or list(_PARTS)
    groups = [[p for p in parts if p in _UNTIMED], *([p] for p in parts if p not in _UNTIMED)]
    held = [_held(group, arguments.device) for group in groups]
    sys.exit(not all(held))


def _machine(device: str) -> str:
    if device == "cpu":
        return f"CPU ({platform.machine()})"
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        return found.splitlines()[0].replace(", ", ", driver ")
    except (OSError, subprocess.CalledProcessError, IndexError):
        sys.exit(
            "error: gpu_check: no CUDA GPU is found here; run it where nvidia-smi lists one, or with --device cpu"
        )


def _held(names: list[str], device: str) -> bool:
    """Run parts at once. Return whether all their rows are as they must be, and are all there."""
    fork = multiprocessing.get_context("fork")
    started = {name: fork.Process(target=_part, args=(name, device)) for name in names}
    begin = time.perf_counter()
    for process in started.values():
        process.start()
    held = True
    try:
        for name, process in started.items():
            process.join(max(0, begin + _PARTS[name].seconds - time.perf_counter()))
            if process.is_alive():
                _print(Row(f"{name}: cut off after {_PARTS[name].seconds} s", "", holds=False))
            held = held and process.exitcode == 0
    finally:
        for process in started.values():
            with suppress(ProcessLookupError, TypeError):  # with what it has started
                os.killpg(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
            process.join()
    print(f"{', '.join(names)}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    return held


def _part(name: str, device: str) -> None:
    os.setsid()
    held = True
    try:
        for row in _PARTS[name].rows(torch.device(device, 0)):
            _print(row)
            held = held and row.holds
    except Exception as error:
        traceback.print_exc()
        _print(
            Row(name, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", holds=False)
        )
        held = False
    sys.stdout.flush()
    os._exit(not held)  # whatever torch still has running


def _print(row: Row) -> None:
    print(
        f"| {row.what} | {row.measured}{'' if row.holds else ' **NO**'} | {row.must} |", flush=True
    )


if __name__ == "__main__":
    main()
