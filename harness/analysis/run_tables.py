"""Tables of runs: arms as text, the accuracy at any time, snapshot ensembles, histories that disagree."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.analysis import averages
from harness.analysis.measured import of_metric
from harness.analysis.number_text import share_range
from harness.analysis.results import arms, history, lr
from harness.analysis.scale import Scale
from harness.files import read_json


def disagreements(runs: pl.DataFrame) -> list[str]:
    """List the pairs of runs whose histories differ although their trajectories are the same so far.

    Equal work must give equal results, so each is a fault: of determinism, or of the data.
    """
    found = []
    begun = averages.of_runs(runs).filter(pl.col("fingerprint").is_not_null())
    for (_,), same_beginning in begun.group_by("fingerprint", maintain_order=True):
        plans = [(lr(Path(run["folder"])), run) for run in same_beginning.to_dicts()]
        plans.sort(key=lambda pair: pair[0].astype(">f8").tobytes())  # long common prefixes adjoin
        for (one, run), (other, after) in pairwise(plans):
            step = _first_difference(Path(run["folder"]), Path(after["folder"]), common(one, other))
            if step is not None:
                found.append(
                    f"{run['name']} and {after['name']} begin alike but differ at update {step}"
                )
    return found


def common(one: NDArray[np.float64], other: NDArray[np.float64]) -> int:
    """Return how many updates two LR plans have in common from the first on."""
    shorter = min(len(one), len(other))
    different = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(different[0]) if len(different) else shorter


def _first_difference(one: Path, other: Path, updates: int) -> int | None:
    """Return the first update with a metric that both histories have with different values."""
    rows = history(one).filter(pl.col("step") <= updates)
    both = rows.join(history(other), on="step", suffix=" of the other")
    metrics = [name for name in rows.columns if name != "step"]
    differ = [pl.col(name) != pl.col(f"{name} of the other") for name in metrics]
    step: int | None = both.filter(pl.any_horizontal(differ))["step"].min()  # type: ignore[assignment]
    return step


def anytime(runs: pl.DataFrame) -> list[dict[str, Any]] | None:
    """Return, for each arm, how good the best accuracy so far is during training, on average over its runs.

    `area` is its mean over epochs (percent); `epochs_to` the mean number of epochs until it reaches
    an accuracy, null unless all runs do. The accuracies are 5, 2, 1 and 0 points below the first
    arm's mean final one. A maximum over epochs is optimistic: none of this enters a verdict.
    """
    done = averages.of_runs(runs).filter(pl.col("status") == "complete")
    if done.is_empty():
        return None
    first = done.filter(pl.col("arm") == done["arm"][0])["final"].mean()
    assert isinstance(first, float)
    goals = [round(first - below, 2) for below in (5, 2, 1, 0)]
    found = []
    for (arm,), group in done.group_by("arm", maintain_order=True):
        curves = [_best_so_far(Path(folder)) for folder in group["folder"]]
        areas = [np.average(best, weights=np.diff(epoch, prepend=0)) for epoch, best in curves]
        epochs_to = {
            str(goal): float(np.mean([epoch[np.argmax(best >= goal)] for epoch, best in curves]))
            if all(best[-1] >= goal for _, best in curves)
            else None
            for goal in goals
        }
        found.append({"arm": arm, "area": float(np.mean(areas)), "epochs_to": epochs_to})
    return found


def _best_so_far(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows = history(folder).filter(pl.col("val/acc").is_finite())
    return rows["epoch"].to_numpy(), np.maximum.accumulate(rows["val/acc"].to_numpy())


def snapshots(runs: pl.DataFrame) -> list[dict[str, Any]] | None:
    """Return, for each arm, the test accuracy of the mean prediction of its runs' last m cycle ends.

    From the `snapshots.json` that `scripts/snapshot_ensemble.py` writes into run folders.
    """
    rows = [
        {"arm": run["arm"], "members": members, "acc": acc}
        for run in averages.of_runs(runs).to_dicts()
        if (path := Path(run["folder"]) / "snapshots.json").exists()
        for members, acc in enumerate(read_json(path)["test/acc"], start=1)
    ]
    if not rows:
        return None
    table = pl.DataFrame(rows).group_by("arm", "members", maintain_order=True)
    return table.agg(
        pl.col("acc").mean().alias("test_acc_mean"), pl.col("acc").std().alias("sd")
    ).to_dicts()


def table(runs: pl.DataFrame, scale: Scale | None = None) -> str:
    """Return the table of the arms as text, with the metric of a claim, its `scale`, in place of acc."""
    name, unit, places = "acc", " %", 2
    if scale and not scale.is_accuracy:
        name, unit, places = scale.name, f" {scale.unit}".rstrip(), scale.places_shown
    header = ["arm", "seeds", f"final val/{name}{unit}", f"best val/{name}{unit}", f"test/{name}{unit}", "restarts",
              "LR at end, % of peak", "seconds, all seeds"]  # fmt: skip
    rows = arms(of_metric(runs, name)).to_dicts()
    return columns(header, [_cells(row, places) for row in rows])


def table_of_others(runs: pl.DataFrame, scale: Scale) -> str:
    """Return the same of runs that another program recorded, without columns of which nothing is known."""
    header = [
        "arm",
        "runs",
        f"last {scale.values}",
        "best, optimistic",
        "",
        "restarts",
        "LR at end, % of peak",
    ]
    rows = [
        _cells(row, scale.places_shown)[:-1] for row in arms(of_metric(runs, scale.name)).to_dicts()
    ]
    known = [at for at in range(len(header)) if any(row[at] != "-" for row in rows)]
    if all(row[2] == row[3] for row in rows):  # as of final values
        known = [at for at in known if at != 3]
    return columns([header[at] for at in known], [[row[at] for at in known] for row in rows])


def columns(header: list[str], rows: list[list[str]]) -> str:
    """Return a table as text: the first column aligned to the left, the others to the right."""
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


def _cells(arm: dict[str, Any], places: int) -> list[str]:
    def mean(name: str) -> str:
        if arm[name] is None:
            return "-"
        sd = arm[f"{name}_sd"]
        return f"{arm[name]:.{places}f}" + (f" ± {sd:.{places}f}" if sd is not None else "")

    seeds = str(arm["seeds"]) if arm["seeds"] == arm["of"] else f"{arm['seeds']} of {arm['of']}"
    share = "-" if arm["lr_share_at_end"] is None else f"{arm['lr_share_at_end']:.1%}"
    share += share_range(arm["lr_share_low"], arm["lr_share_high"])
    seconds = "-" if arm["seconds"] is None else f"{arm['seconds']:.1f}"
    restarts = "-" if arm["restarts"] is None else str(arm["restarts"])
    return [
        arm["arm"], seeds, *map(mean, ["final", "best", "test"]), restarts, share, seconds,
    ]  # fmt: skip
