"""The article's claim C2: accuracy is best where the LR is lowest, and falls as the LR rises again.

Measured in the validation histories of complete runs. The first cycle is left out: there accuracy rises
whatever the LR does. A *trough* is a cycle end inside the budget, where the LR is at its minimum.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy
from numpy.typing import NDArray

from harness.analysis import paired_stats as paired
from harness.analysis import results
from harness.analysis.number_text import fixed
from harness.analysis.paired_stats import Floats

Best = tuple[
    NDArray[np.int64], NDArray[np.int64]
]  # rank of a cycle's best evaluation, ranks of all
_LEVEL = 0.05  # of p


def analyze(runs: pl.DataFrame) -> dict[str, Any] | None:
    """Return the evidence of complete runs on C2; None if no run has two cycles.

    For each arm: the mean drop from a trough to one epoch later (points), the time until accuracy is
    back (epochs), the correlation of detrended accuracy with the LR, and at which of a cycle's LRs
    accuracy is best. Intervals are 95 % t intervals over runs.
    """
    arms = []
    for (arm,), group in runs.filter(pl.col("status") == "complete").group_by(
        "arm", maintain_order=True
    ):
        folders = [Path(folder) for folder in group["folder"]]
        measured = [one for one in map(_measure, folders) if one is not None]
        if measured:
            arms.append({"arm": arm, **_aggregate(measured)})
    if not arms:
        return None
    profile = [
        {"arm": arm["arm"], "offset_epochs": point["offset_epochs"], "mean": point["mean"],
         "low": (point["ci95"] or [None])[0], "high": (point["ci95"] or [None])[-1]}
        for arm in arms
        for point in arm.pop("profile")
    ]  # fmt: skip
    return {"sentence": _sentence(arms), "arms": arms, "profile": profile}


def _measure(folder: Path) -> dict[str, Any] | None:
    plan = results.result(folder)["plan"]
    rows = results.history(folder).filter(pl.col("val/acc").is_not_null())
    epoch, acc = rows["epoch"].to_numpy(), rows["val/acc"].to_numpy()
    lr = results.lr(folder)[rows["step"].to_numpy() - 1]
    ends = [end for end in plan["cycle_end_epochs"] if end < plan["budget_epochs"]]
    if len(ends) < 2 or len(epoch) < 8:
        return None
    troughs = [int(np.flatnonzero(np.isclose(epoch, end))[0]) for end in ends[1:]]
    following = [*ends[2:], plan["budget_epochs"]]
    after = epoch > ends[0]
    whole = [end for end in plan["cycle_end_epochs"] if end <= plan["budget_epochs"]]
    return {
        "drop_points": float(np.mean([_drop(epoch, acc, t) for t in troughs])),
        "recovery_epochs": _recoveries(epoch, acc, troughs, following),
        "correlation_with_lr": _correlation(epoch[after], acc[after], lr[after]),
        "best": best_ranks(epoch, acc, lr, whole),
        "profile": _profile(epoch, acc, ends),
    }


def _drop(epoch: Floats, acc: Floats, trough: int) -> float:
    """Return accuracy at the trough minus accuracy one epoch later."""
    later = int(np.argmin(np.abs(epoch - epoch[trough] - 1)))
    return float(acc[trough] - acc[later])


def _recoveries(
    epoch: Floats, acc: Floats, troughs: list[int], ends: list[float]
) -> list[float | None]:
    """Return the epochs from each trough until accuracy is back; None where the next cycle ends before."""
    times: list[float | None] = []
    for trough, end in zip(troughs, ends, strict=True):
        back = (np.arange(len(acc)) > trough) & (acc >= acc[trough]) & (epoch <= end + 1e-9)
        times.append(float(epoch[back][0] - epoch[trough]) if back.any() else None)
    return times


def _correlation(epoch: Floats, acc: Floats, lr: Floats) -> float | None:
    """Return Pearson's r of the LR with accuracy, both less their straight line over log(epoch)."""
    trend = np.vander(np.log(epoch), 2)
    one, other = _residuals(acc, trend), _residuals(lr, trend)
    if one.std() < 1e-12 or other.std() < 1e-12:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def _residuals(y: Floats, x: Floats) -> Floats:
    return np.asarray(y - x @ np.linalg.lstsq(x, y, rcond=None)[0])


def best_ranks(epoch: Floats, acc: Floats, lr: Floats, ends: list[float]) -> list[Best]:
    """Return for each cycle but the first the rank of the LR where accuracy is best, and all its ranks.

    A rank is the share of the cycle's other evaluations that have a lower LR, in whole percent: 0 at the
    lowest LR, 100 at the highest; equals count half. Best is accuracy less its trend, a + b·log(epoch) +
    c·epoch by least squares; of equals the mean rank. `acc` is (evaluations,), or (runs, evaluations) for
    a rank of each run; `ends` (epochs) are those of the whole cycles. A cycle of one evaluation has no rank.
    """
    trend = np.column_stack([np.ones_like(epoch), np.log(epoch), epoch])
    inside = (epoch > ends[0] + 1e-9) & (epoch <= ends[-1] + 1e-9)
    rest = np.full_like(acc, np.nan)
    rest[..., inside] = _residuals(acc[..., inside].T, trend[inside]).T
    found = []
    for start, end in pairwise(ends):
        cycle = (epoch > start + 1e-9) & (epoch <= end + 1e-9)
        if cycle.sum() > 1:
            shares = (scipy.stats.rankdata(lr[cycle]) - 1) / (cycle.sum() - 1)
            highest = rest[..., cycle].max(axis=-1, keepdims=True)
            best = rest[..., cycle] >= highest - 1e-9
            found.append((_percent(best @ shares / best.sum(axis=-1)), _percent(shares)))
    return found


def _percent(shares: Floats) -> NDArray[np.int64]:
    return np.asarray(np.rint(100 * shares), dtype=np.int64)


def sums_by_chance(cycles: list[NDArray[np.int64]]) -> Floats:
    """Return the probability of each sum of ranks where any evaluation of a cycle is best equally often."""
    sums = np.ones(1)
    for ranks in cycles:
        sums = np.convolve(sums, np.bincount(ranks, minlength=101) / len(ranks))
    return sums


def _best_position(cycles: list[Best]) -> dict[str, Any]:
    """Return the mean rank (a share), and p: how often chance alone puts it so low or lower.

    The sum over all cycles of all runs has its exact distribution, so that no run's p is clipped or combined.
    """
    if not cycles:
        return {"lr_rank": None, "cycles": 0, "p": None}
    total = sum(int(rank) for rank, _ in cycles)
    by_chance = sums_by_chance([ranks for _, ranks in cycles])
    return {
        "lr_rank": total / len(cycles) / 100,
        "cycles": len(cycles),
        "p": min(1.0, float(by_chance[: total + 1].sum())),
    }


def _profile(epoch: Floats, acc: Floats, ends: list[float]) -> dict[float, float]:
    """Return accuracy around troughs, less that at the trough, by epochs since it; within half a cycle."""
    half = min(np.diff(ends)) / 2
    around: dict[float, list[float]] = {}
    for end in ends[1:]:
        at = acc[np.isclose(epoch, end)][0]
        for offset, value in zip(epoch - end, acc - at, strict=True):
            if abs(offset) <= half + 1e-9:
                around.setdefault(round(float(offset), 6), []).append(float(value))
    return {offset: float(np.mean(values)) for offset, values in sorted(around.items())}


def _aggregate(runs: list[dict[str, Any]]) -> dict[str, Any]:
    recoveries = [time for run in runs for time in run["recovery_epochs"]]
    back = [time for time in recoveries if time is not None]
    correlations = [r for run in runs if (r := run["correlation_with_lr"]) is not None]
    offsets = sorted({offset for run in runs for offset in run["profile"]})
    return {
        "runs": len(runs),
        "drop_points": _interval([run["drop_points"] for run in runs]),
        "recovery_epochs": {
            "median": float(np.median(back)) if back else None,
            "recovered": len(back),
            "of": len(recoveries),
        },
        "correlation_with_lr": _interval(correlations),
        "best_position": _best_position([cycle for run in runs for cycle in run["best"]]),
        "profile": [
            {"offset_epochs": offset, **_interval([run["profile"][offset] for run in runs if offset in run["profile"]])}
            for offset in offsets
        ],
    }  # fmt: skip


def _interval(values: list[float]) -> dict[str, Any]:
    """Return the mean and its 95 % t interval; the interval is null below two values."""
    if not values:
        return {"mean": None, "ci95": None}
    ends = paired.interval(np.array(values), 0.05) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "ci95": ends and [float(end) for end in ends]}


def _sentence(arms: list[dict[str, Any]]) -> str:
    """Return in how many arms accuracy follows the LR; of a single one, how far."""
    drops = [round(arm["drop_points"]["mean"], 2) for arm in arms]
    lower = [drop for drop in drops if drop > 0]
    by = f", by {fixed(min(lower))} to {fixed(max(lower))} points" if lower else ""
    change = f"is lower in {len(lower)} of {len(arms)} arms{by}"
    if len(arms) == 1:
        change = f"has {moved(**arms[0]['drop_points'])}"
    ranked = [arm for arm in arms if arm["best_position"]["p"] is not None]
    low = [arm["arm"] for arm in ranked if arm["best_position"]["p"] <= _LEVEL]
    where = (
        "at a low LR more often than by chance"
        if low
        else "no more often at a low LR than by chance"
    )
    named = f" in {', '.join(low)}" if 0 < len(low) < len(arms) else ""
    return f"One epoch after the LR's minimum, validation accuracy {change}." + (
        f" Within a cycle, accuracy (less its trend) is best {where}{named} (p {'≤' if low else '>'} {_LEVEL:g})."
        * bool(ranked)
    )


def moved(mean: float, ci95: list[float] | None) -> str:
    """Return how far accuracy has come from that at the minimum: `dropped by 0.52 [0.40, 0.64] points`, or risen."""
    rose = round(mean, 2) < 0
    ends = sorted(-end if rose else end for end in ci95 or ())
    shown = f" [{fixed(ends[0])}, {fixed(ends[1])}]" if ends else ""
    return f"{'risen' if rose else 'dropped'} by {fixed(abs(mean))}{shown} points"
