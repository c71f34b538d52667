"""What it costs to judge runs of others: a Parquet file of thousands of runs."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.commands import Rows, folder, start

RUNS, ROWS, ARMS = 10_000, 1_000, 4


def judged(repeats: int) -> Rows:
    """Judge four arms of 2,500 pairs, of which 1,000 rows a run are recorded: seconds and peak memory of the command."""
    times, peaks = [], []
    with folder() as where:
        write(where / "runs.parquet", RUNS, ROWS)
        for _ in range(repeats):
            begin = time.perf_counter()
            process = start(
                "scripts/judge.py", str(where / "runs.parquet"), "--factor", "t_mult", "--baseline", "1",
                "--metric", "val_acc", "--out", str(where / "out"),
            )  # fmt: skip
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                raise SystemExit("error: scripts/judge.py failed")
            times.append(time.perf_counter() - begin)
            peaks.append(usage.ru_maxrss / 2**20)
    what = f"`scripts/judge.py`, {RUNS:,} runs of {ROWS:,} rows from Parquet"
    middle = statistics.median(times)
    return [
        (what, f"{middle:.1f} s ({min(times):.1f} to {max(times):.1f})", "≤ 60 s"),
        ("… its peak memory", f"{max(peaks):.2f} GiB", "≤ 2 GiB"),
    ]


def write(path: Path, runs: int, rows: int) -> None:
    """Write `runs` runs of a claim about t_mult, in long form: run, t_mult, seed, step, lr, val_acc, val_loss."""
    rng = np.random.default_rng(0)
    run = np.repeat(np.arange(runs), rows)
    step = np.tile(np.arange(1, rows + 1), runs)
    accuracy = 90 * (1 - np.exp(-step / (rows / 5))) + np.abs(rng.normal(0, 0.3, runs * rows))
    pl.DataFrame(
        {
            "run": run,
            "t_mult": 1 + run % ARMS,
            "seed": run // ARMS,
            "step": step,
            "lr": 0.05 * (1 + np.cos(np.pi * step / rows)),
            "val_acc": accuracy,
            "val_loss": 3 - accuracy / 50,
        }
    ).write_parquet(path)
