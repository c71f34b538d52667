"""`runs.csv` and `history.parquet`: what runs came to, for other programs (docs/results.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from harness.analysis import averages, measured, results
from harness.config.one_line_errors import Attempts
from harness.files import atomic

_RUN = {
    "sweep": pl.String, "run": pl.String, "arm": pl.String, "cell": pl.String, "level": pl.String,
    "seed": pl.Int64,
}  # fmt: skip
_COLUMNS: tuple[str | pl.Expr, ...] = (
    *_RUN, "status", "final", "best", "test", "lr", "budget", "aligned", "restarts", "lr_share_at_end",
    "updates_per_epoch", "updates_trained", "updates_reused", pl.col("seconds").cast(pl.Float64).round(1), "name", "run_id",
    "fingerprint", "commit", "dirty", "error",
)  # fmt: skip


def write_data_files(
    out: Path, runs: pl.DataFrame, steps: Attempts, sweeps: Sequence[Path] = ()
) -> list[Path]:
    """Write `runs`, as `results.read` gives them, and their histories into `out`; return the files.

    Each is a step of `steps`. The column `sweep` is taken from `runs`, else it names that folder of `sweeps` which
    has the run.
    """
    written = []
    placed = _with_places(runs, sweeps)
    with steps.step("runs.csv"):
        with atomic(out / "runs.csv") as file:
            runs_table(placed).write_csv(file)
        written.append(out / "runs.csv")
    with steps.step("history.parquet"):
        with atomic(out / "history.parquet") as file:
            histories(placed).write_parquet(file)
        written.append(out / "history.parquet")
    return written


def _with_places(runs: pl.DataFrame, sweeps: Sequence[Path]) -> pl.DataFrame:
    """Return `runs` with `sweep` and `run`, the folder's path below the sweep's, or its name if it is in none."""
    folders = [Path(folder) for folder in runs["folder"]]
    homes = [next((s for s in sweeps if s in one.parents), one.parent) for one in folders]
    names = _names(homes)
    columns = {
        "sweep": [names[home] for home in homes],
        "run": [one.relative_to(home).as_posix() for one, home in zip(folders, homes, strict=True)],
    }
    if "sweep" in runs.columns:
        del columns["sweep"]
    return runs.with_columns(pl.Series(k, values, dtype=pl.String) for k, values in columns.items())


def _names(folders: Sequence[Path]) -> dict[Path, str]:
    """Return the name of each folder, with as many of those above it as set it apart from the others."""
    parts = {folder: folder.resolve().parts for folder in dict.fromkeys(folders)}
    distinct = set(parts.values())
    return {
        folder: next(
            str(Path(*own[-length:]))
            for length in range(1, len(own) + 1)
            if sum(other[-length:] == own[-length:] for other in distinct) == 1
        )
        for folder, own in parts.items()
    }


def runs_table(runs: pl.DataFrame) -> pl.DataFrame:
    """Return the columns of `runs.csv`: the fixed ones, then a `swept.KEY` for each key that was swept, then
    `final.NAME`, `best.NAME` and `test.NAME` for each metric beside acc.
    """
    swept = [json.loads(text) for text in runs["swept"]]
    keys = dict.fromkeys(key for own in swept for key in own if key != "seed")
    own = (
        pl.Series(f"swept.{key}", [one.get(key) for one in swept], dtype=pl.String) for key in keys
    )
    of_metrics = (
        measured.of_metric(runs, name)[part].alias(f"{part}.{name}")
        for name in measured.recorded(runs)
        if name != "acc"
        for part in ("final", "best", "test")
    )
    return runs.select(*_COLUMNS).with_columns(*own, *of_metrics)


def histories(runs: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of all histories, each with what says whose it is."""
    others = measured.own_names(measured.recorded(runs))
    tables = [
        results.history(row.pop("folder"), average, others).select(
            *(pl.lit(value, _RUN[name]).alias(name) for name, value in row.items()), pl.all()
        )
        for row, average in zip(
            runs.select("folder", *_RUN).to_dicts(), averages.of_table(runs), strict=True
        )
    ]
    return pl.concat(tables) if tables else pl.DataFrame(schema=_RUN)
