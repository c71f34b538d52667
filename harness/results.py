"""Run folders → tables. Reads files only."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray


def read(sweep: Path) -> pl.DataFrame:
    """One row a run of the sweep's plan; a run that left no result has the status `missing`.

    Columns: num, folder, name, arm, status, error, `final`, `best` (val/acc in percent), `test`
    (test/acc in percent), fingerprint, updates_per_epoch, restarts (of the LR), lr_share_at_end, aligned, seconds.
    """
    arms = json.loads((sweep / "plan.json").read_text())["arms"]
    return pl.DataFrame([_row(sweep, arm) for arm in arms], infer_schema_length=None)


def _row(sweep: Path, arm: dict[str, Any]) -> dict[str, Any]:
    folder = sweep / str(arm["num"])
    path = folder / "result.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    plan = result.get("plan", {})
    return {
        "num": arm["num"],
        "folder": str(folder),
        "name": arm["name"],
        "arm": arm["arm"],
        "status": result.get("status", "missing"),
        "error": result.get("error") or (None if result else "left no result"),
        "final": result.get("final", {}).get("val/acc"),
        "best": result.get("best", {}).get("val/acc"),
        "test": result.get("test", {}).get("test/acc"),
        "fingerprint": result.get("fingerprint"),
        "updates_per_epoch": plan.get("updates_per_epoch"),
        "restarts": len(plan["restart_epochs"]) if plan else None,
        "lr_share_at_end": plan.get("lr_share_at_end"),
        "aligned": plan.get("aligned"),
        "seconds": result.get("seconds", {}).get("total"),
    }


def history(folder: Path) -> pl.DataFrame:
    """The rows of one run's `history.jsonl`, null where a row lacks a metric."""
    return pl.read_ndjson(folder / "history.jsonl", infer_schema_length=None)


def lr(folder: Path) -> NDArray[np.float64]:
    """The LR of every update of the run's plan."""
    plan: NDArray[np.float64] = np.load(folder / "lr.npy", allow_pickle=False)
    return plan


def disagreements(runs: pl.DataFrame) -> list[str]:
    """Pairs of runs that begin alike, yet whose histories differ before their plans part.

    Equal work must give equal answers, so each is a fault: of determinism, or of the data.
    """
    found = []
    begun = runs.filter(pl.col("fingerprint").is_not_null())
    for (_,), kin in begun.group_by("fingerprint", maintain_order=True):
        plans = [(lr(Path(run["folder"])), run) for run in kin.to_dicts()]
        plans.sort(key=lambda pair: pair[0].astype(">f8").tobytes())  # likest next to each other
        for (one, run), (other, after) in pairwise(plans):
            step = _first_difference(Path(run["folder"]), Path(after["folder"]), common(one, other))
            if step is not None:
                found.append(
                    f"{run['name']} and {after['name']} begin alike but differ at update {step}"
                )
    return found


def common(one: NDArray[np.float64], other: NDArray[np.float64]) -> int:
    """How many updates two plans begin alike."""
    shorter = min(len(one), len(other))
    parting = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(parting[0]) if len(parting) else shorter


def _first_difference(one: Path, other: Path, updates: int) -> int | None:
    rows, others = (_rows_by_step(folder) for folder in (one, other))
    for step, row in rows.items():
        if step > updates:
            return None
        twin = others.get(step, row)
        if any(row[name] != twin[name] for name in row.keys() & twin.keys()):
            return step
    return None


def _rows_by_step(folder: Path) -> dict[int, dict[str, float]]:
    path = folder / "history.jsonl"
    if not path.exists():
        return {}
    rows = map(json.loads, path.read_text().splitlines())
    return {int(row["step"]): row for row in rows}


def arms(runs: pl.DataFrame) -> pl.DataFrame:
    """One row an arm, in the order of the sweep: means and standard deviations over its seeds.

    Accuracies are over the runs that are complete; `seeds` counts those, `of` counts all.
    """
    done = pl.col("status") == "complete"
    accuracies = ["final", "best", "test"]
    return runs.group_by("arm", maintain_order=True).agg(
        done.sum().alias("seeds"),
        pl.len().alias("of"),
        *(pl.col(name).filter(done).mean().alias(name) for name in accuracies),
        *(pl.col(name).filter(done).std().alias(f"{name}_sd") for name in accuracies),
        pl.col("restarts").max(),
        pl.col("lr_share_at_end").max(),
        pl.col("seconds").sum(),
    )


def table(runs: pl.DataFrame) -> str:
    """The arms as text, to be printed."""
    header = ["arm", "seeds", "final val/acc %", "best val/acc %", "test/acc %", "restarts",
              "LR at end", "seconds"]  # fmt: skip
    lines = [header, *(_cells(row) for row in arms(runs).to_dicts())]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [header, rule, *lines[1:]]
    )


def _cells(arm: dict[str, Any]) -> list[str]:
    def accuracy(name: str) -> str:
        if arm[name] is None:
            return "-"
        spread = arm[f"{name}_sd"]
        return f"{arm[name]:.2f}" + (f" ± {spread:.2f}" if spread is not None else "")

    seeds = str(arm["seeds"]) if arm["seeds"] == arm["of"] else f"{arm['seeds']} of {arm['of']}"
    share = "-" if arm["lr_share_at_end"] is None else f"{arm['lr_share_at_end']:.1%}"
    seconds = "-" if arm["seconds"] is None else f"{arm['seconds']:.1f}"
    restarts = "-" if arm["restarts"] is None else str(arm["restarts"])
    return [
        arm["arm"], seeds, *map(accuracy, ["final", "best", "test"]), restarts, share, seconds,
    ]  # fmt: skip
