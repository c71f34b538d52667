"""Run folders → tables. Reads files only, whoever wrote them: what is not of this version is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.analysis import arms as arms_of
from harness.analysis.sweep_plan import run_folder
from harness.config.errors import ConfigError
from harness.config.values import section_from_dict
from harness.files import UnreadableError, read_json
from harness.files import read as read_bytes

_HISTORY = {
    "step": pl.Int64, "epoch": pl.Float64, "lr": pl.Float64,
    "train/loss": pl.Float64, "val/acc": pl.Float64, "val/loss": pl.Float64,
}  # fmt: skip
_TAIL_BYTES = 4096  # of a history that usually hold its last evaluation
_FROM_RESULT = (
    "fingerprint", "run_id", "updates_trained", "updates_reused", "exact", "tracking",
)  # fmt: skip


def read(sweep: Path) -> pl.DataFrame:
    """One row a run of the sweep's plan; a run that left no result has the status `missing`.

    Columns: num, folder, name, arm, seed; level (of the claim's factor) and cell (what else is
    swept); status, error; `final`, `best` (val/acc in percent), `test` (test/acc in percent);
    budget and nearest_aligned (epochs), aligned; restarts (of the LR), lr_share_at_end;
    fingerprint, run_id, updates_per_epoch, updates_trained, updates_reused, exact, seconds;
    tracking (W&B page or folder), claim_sha256 (of the claim when the run began).

    Name, arm, seed, level and cell are what the run recorded of itself, those of the plan while it left
    no result. Raises `ConfigError` without a plan; `UnreadableError` for files that are not of this version.
    """
    return rows_of(plan(sweep), folders(sweep), sweep / "plan.json")


def rows_of(document: dict[str, Any], homes: Sequence[Path], path: Path) -> pl.DataFrame:
    """As `read`, of a plan whose runs are in the folders `homes`; `path` is named in errors."""
    factor = (document["claim"] or {}).get("factor")
    rows = [
        _row(home, run, factor, recorded="gathered" not in document)
        for home, run in zip(homes, document["arms"], strict=True)
    ]
    with this_version(path):
        return pl.DataFrame(rows, infer_schema_length=None)


def plan(sweep: Path) -> dict[str, Any]:
    """The sweep's `plan.json`. Raises `ConfigError` if there is none."""
    path = sweep / "plan.json"
    if not path.exists():
        raise ConfigError(f"{sweep}: is not the folder of a sweep: it has no plan.json")
    return read_json(path)


def folders(sweep: Path) -> list[Path]:
    """The folder of each planned run of a sweep, in the order of the plan; some may not be there yet."""
    document = plan(sweep)
    with this_version(sweep / "plan.json"):
        return [sweep / run_folder(run) for run in document["arms"]]


def gathered(paths: Sequence[Path]) -> tuple[dict[str, Any], list[Path]]:
    """A plan made afterwards of runs that none was made for, as those of W&B agents; and their folders.

    `paths` are run folders, or folders with run folders in them. Names, arms and levels are what differs
    between the configurations that the runs recorded. Raises `ConfigError` where there is no run.
    """
    homes: list[Path] = []
    for path in dict.fromkeys(paths):
        below = sorted(path.glob("*/config.json"))
        found = [path] if (path / "config.json").exists() else [file.parent for file in below]
        if not found:
            raise ConfigError(
                f"{path}: has neither the plan.json of a sweep nor the config.json of a run"
            )
        homes += [home for home in found if home not in homes]
    configs = []
    for home in homes:
        with this_version(home / "config.json"):
            configs.append(read_json(home / "config.json")["config"])
    runs = []
    for number, (home, config) in enumerate(zip(homes, configs, strict=True)):
        shape = {"budget_epochs": config["trainer"]["epochs"]} | result(home).get("plan", {})
        runs.append({"num": number, "seed": config["seed"], "plan": shape})
    for run, swept in zip(runs, arms_of.config_differences(configs), strict=True):
        run |= arms_of.label_run(swept)
    with this_version(homes[0] / "config.json"):
        settings: Any = section_from_dict("claim", configs[0]["claim"])
    question = arms_of.infer_question_afterwards(settings, runs)
    claim = question.claim and replace(question.claim, seeds=())  # nobody planned any
    return {
        "gathered": True,
        **replace(question, claim=claim).for_plan(),
        "arms": runs,
        "command": ["scripts/report.py", *map(str, paths)],
    }, homes


def result(folder: Path) -> dict[str, Any]:
    """A run's `result.json`; empty while there is none."""
    path = folder / "result.json"
    return read_json(path) if path.exists() else {}


@contextmanager
def this_version(path: Path) -> Iterator[None]:
    """Raises `UnreadableError` where the content of the file at `path` is not what the block expects."""
    try:
        yield
    except (
        LookupError, TypeError, AttributeError, ValueError, EOFError, MemoryError,
        pl.exceptions.PolarsError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200]
        raise UnreadableError(
            f"{path}: is not of this version ({type(error).__name__}: {reason})"
        ) from error


def _row(
    folder: Path, planned: dict[str, Any], factor: str | None, recorded: bool
) -> dict[str, Any]:
    """`recorded`: names are those that the run recorded, else those of the plan."""
    own = result(folder)
    with this_version(folder / "result.json" if own else folder.parent / "plan.json"):
        named = own if own and recorded else planned
        swept = named.get("swept", planned["swept"])
        schedule, shape = own.get("plan", {}), planned["plan"]
        return {
            "num": planned["num"],
            "folder": str(folder),
            "name": named["name"],
            "arm": named["arm"],
            "seed": own["config"]["seed"] if own else planned["seed"],
            "level": swept.get(factor),
            "cell": arms_of.cell(swept, factor),
            "status": own.get("status", "missing"),
            "error": own.get("error") or (None if own else "left no result"),
            "final": own.get("final", {}).get("val/acc"),
            "best": own.get("best", {}).get("val/acc"),
            "test": own.get("test", {}).get("test/acc"),
            "budget": shape["budget_epochs"],
            "aligned": shape.get("aligned"),
            "nearest_aligned": shape.get("nearest_aligned_epochs"),
            "restarts": len(schedule["restart_epochs"]) if schedule else None,
            "lr_share_at_end": schedule.get("lr_share_at_end"),
            "seconds": own.get("seconds", {}).get("total"),
            **{name: own.get(name) for name in _FROM_RESULT},
            "claim_sha256": own.get("claim_sha256") if recorded else None,
            "updates_per_epoch": shape.get("updates_per_epoch"),
        }


def history(folder: Path) -> pl.DataFrame:
    """The whole rows of one run's `history.jsonl`, null where a row lacks a metric; none without one.

    A last line that is being written is left out, and so is what is no metric of ours.
    """
    path = folder / "history.jsonl"
    content = read_bytes(path) if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        return pl.DataFrame(schema=_HISTORY)
    with this_version(path):
        return pl.read_ndjson(BytesIO(whole), schema=_HISTORY)


def last_row(folder: Path, metric: str = "step") -> dict[str, Any]:
    """Return the last whole row of a run's history that has `metric`, as it was written; empty without one.

    Only the end of the file is read: sweeps have thousands of runs. Raises OSError if there is no history.
    """
    path = folder / "history.jsonl"
    size, tail = path.stat().st_size, _TAIL_BYTES
    while True:
        with path.open("rb") as file:
            file.seek(max(0, size - tail))
            lines = file.read().splitlines(keepends=True)
        for line in reversed(lines):
            if line.startswith(b"{") and line.endswith(b"\n") and f'"{metric}"'.encode() in line:
                row: dict[str, Any] = json.loads(line)
                return row
        if tail >= size:
            return {}
        tail *= 16


def lr(folder: Path) -> NDArray[np.float64]:
    """The LR of every update of the run's plan."""
    path = folder / "lr.npy"
    with this_version(path):
        plan = np.load(BytesIO(read_bytes(path)), allow_pickle=False)
        if plan.dtype != np.float64 or plan.ndim != 1:
            raise TypeError(f"{plan.dtype}, {plan.ndim} dimensions")
    return np.asarray(plan)


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
    """The first update with a metric that both histories have, and not the same."""
    rows = history(one).filter(pl.col("step") <= updates)
    both = rows.join(history(other), on="step", suffix=" of the other")
    metrics = [name for name in _HISTORY if name != "step"]
    unlike = [pl.col(name) != pl.col(f"{name} of the other") for name in metrics]
    step: int | None = both.filter(pl.any_horizontal(unlike))["step"].min()  # type: ignore[assignment]
    return step


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


def anytime(runs: pl.DataFrame) -> list[dict[str, Any]] | None:
    """For each arm: how good the best-so-far accuracy is along the way, on average over its runs.

    `area` is its mean over epochs (percent); `epochs_to` the mean number of epochs until it reaches
    an accuracy, null unless all runs do. The accuracies lie 5, 2, 1 and 0 points below the first
    arm's mean final one. A maximum over epochs is optimistic: none of this enters a verdict.
    """
    done = runs.filter(pl.col("status") == "complete")
    if done.is_empty():
        return None
    first = done.filter(pl.col("arm") == done["arm"][0])["final"].mean()
    assert isinstance(first, float)
    goals = [round(first - below, 2) for below in (5, 2, 1, 0)]
    arms = []
    for (arm,), group in done.group_by("arm", maintain_order=True):
        curves = [_best_so_far(Path(folder)) for folder in group["folder"]]
        areas = [
            float(np.average(best, weights=np.diff(epoch, prepend=0))) for epoch, best in curves
        ]
        reached = {
            str(goal): [_first(epoch, best >= goal) for epoch, best in curves] for goal in goals
        }
        arms.append(
            {
                "arm": arm,
                "area": float(np.mean(areas)),
                "epochs_to": {
                    goal: None
                    if None in times
                    else float(np.mean([t for t in times if t is not None]))
                    for goal, times in reached.items()
                },
            }
        )
    return arms


def _best_so_far(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows = history(folder).filter(pl.col("val/acc").is_not_null())
    return rows["epoch"].to_numpy(), np.maximum.accumulate(rows["val/acc"].to_numpy())


def _first(epoch: NDArray[np.float64], holds: NDArray[np.bool_]) -> float | None:
    return float(epoch[np.argmax(holds)]) if holds.any() else None


def snapshots(runs: pl.DataFrame) -> list[dict[str, Any]] | None:
    """For each arm: test accuracy of the mean prediction of the last m cycle ends, over its runs.

    From the `snapshots.json` that `scripts/snapshot_ensemble.py` leaves in run folders.
    """
    rows = [
        {"arm": run["arm"], "members": members, "acc": acc}
        for run in runs.to_dicts()
        if (path := Path(run["folder"]) / "snapshots.json").exists()
        for members, acc in enumerate(read_json(path)["test/acc"], start=1)
    ]
    if not rows:
        return None
    table = pl.DataFrame(rows).group_by("arm", "members", maintain_order=True)
    return table.agg(
        pl.col("acc").mean().alias("test_acc_mean"), pl.col("acc").std().alias("sd")
    ).to_dicts()


def table(runs: pl.DataFrame) -> str:
    """The arms as text, to be printed."""
    header = ["arm", "seeds", "final val/acc %", "best val/acc %", "test/acc %", "restarts",
              "LR at end", "seconds"]  # fmt: skip
    return columns(header, [_cells(row) for row in arms(runs).to_dicts()])


def columns(header: list[str], rows: list[list[str]]) -> str:
    """A table as text: the first column to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [header, rule, *rows]
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
