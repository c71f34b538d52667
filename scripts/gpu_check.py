"""What the harness does and costs on a GPU, in one table: `scripts/gpu_check.sh`, ten minutes.

Every part runs in a process of its own, has its own limit of seconds and prints its rows at once, so that a table that is
cut off holds. Exits with 1 if a row is not as it must be. The images are invented: no data set is read.
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
    "waits": Part(gpu_promises.no_waits, 40),
    "eager": Part(gpu_speed.eager, 120),
    "killed": Part(gpu_promises.killed_runs, 120),
    "resumed": Part(gpu_promises.resumed_states, 120),
    "scaler": Part(gpu_promises.skipped_updates, 40),
    "memory": Part(gpu_promises.out_of_memory, 40),
    "tests": Part(gpu_promises.gpu_tests, 150),
    "compiled": Part(gpu_speed.compiled, 240),
    "usual": Part(gpu_speed.usual_programs, 60),
    "together": Part(gpu_speed.together, 90),
    "features": Part(gpu_speed.what_features_cost, 120),
}


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
    held = [_held(name, arguments.device) for name in arguments.parts or _PARTS]
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


def _held(name: str, device: str) -> bool:
    """Return whether all rows of a part are as they must be, and are all there."""
    begin, part = time.perf_counter(), _PARTS[name]
    process = multiprocessing.get_context("fork").Process(target=_part, args=(name, device))
    process.start()
    try:
        process.join(part.seconds)
        in_time = not process.is_alive()
    finally:
        with suppress(ProcessLookupError, TypeError):  # with what it has started
            os.killpg(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
        process.join()
    if not in_time:
        _print(Row(f"{name}: cut off after {part.seconds} s", "", holds=False))
    print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    return in_time and process.exitcode == 0


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
