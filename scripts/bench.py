"""What the harness costs, side by side with what users would otherwise use: `make bench`.

Prints a table in Markdown; docs/benchmarks.md holds one, with what was found on the way to it. All
contenders of a row run in turn, on an otherwise idle machine; figures are medians, with the least and
the greatest. The whole takes some two hours on two cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch
from benchmarks import commands, judging, training, verdicts

_SECTIONS = {
    "floor": training.against_the_floor,
    "usual": training.against_usual_programs,
    "augmentation": training.augmentations,
    "averages": training.averages_beside,
    "starts": commands.starts,
    "run": commands.one_more_run,
    "sharing": commands.sharing,
    "parallel": commands.side_by_side,
    "memory": commands.memory,
    "growth": commands.growth,
    "verdict": verdicts.to_a_verdict,
    "judged": judging.judged,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="of each figure, interleaved (5)")
    parser.add_argument(
        "sections", nargs="*", help=f"of {', '.join(_SECTIONS)}; without any, all of them"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - set(_SECTIONS):
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(_SECTIONS)}")
    print(f"{date.today()}, {_machine()}, Python {platform.python_version()}, "
          + ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "lightning", "wandb"))
          + f"; {arguments.repeats} repeats\n\n| what | measured | must be |\n|---|---|---|")  # fmt: skip
    for name in arguments.sections or _SECTIONS:
        begin = time.perf_counter()
        for what, figure, must in _SECTIONS[name](arguments.repeats):
            print(f"| {what} | {figure} | {must} |", flush=True)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)


def _machine() -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores ({name}), {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
