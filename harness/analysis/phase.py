"""The article's claim C2: accuracy is best where the LR is lowest, and falls as the LR rises again.

Measured in the validation histories of complete runs. The first cycle is left out: there accuracy rises
whatever the LR does. A *trough* is a cycle end inside the budget, where the LR is at its minimum.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy
from numpy.typing import NDArray

from harness.analysis import paired_stats as paired
from harness.analysis import results

_NEAR = 1  # evaluations: how close to a trough a maximum of accuracy counts as being at it


def analyze(runs: pl.DataFrame) -> dict[str, Any] | None:
    """Return the evidence of complete runs on C2; None if no run has two cycles.

    For each arm: the mean drop from a trough to one epoch later (points), the time until accuracy is
    back (epochs), the correlation of detrended accuracy with the LR, and the share of local maxima
    of accuracy within one evaluation of a trough against the same after all circular shifts.
    Intervals are 95 % t intervals over runs.
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
    share, null_share, p = _maxima(acc[after], [t - int(np.argmax(after)) for t in troughs])
    return {
        "drop_points": float(np.mean([_drop(epoch, acc, t) for t in troughs])),
        "recovery_epochs": _recoveries(epoch, acc, troughs, following),
        "correlation_with_lr": _correlation(epoch[after], acc[after], lr[after]),
        "maxima_at_minima": (share, null_share, p),
        "profile": _profile(epoch, acc, ends),
    }


def _drop(epoch: NDArray[np.float64], acc: NDArray[np.float64], trough: int) -> float:
    """Return accuracy at the trough minus accuracy one epoch later."""
    later = int(np.argmin(np.abs(epoch - epoch[trough] - 1)))
    return float(acc[trough] - acc[later])


def _recoveries(
    epoch: NDArray[np.float64], acc: NDArray[np.float64], troughs: list[int], ends: list[float]
) -> list[float | None]:
    """Return the epochs from each trough until accuracy is back; None where the next cycle ends before."""
    times: list[float | None] = []
    for trough, end in zip(troughs, ends, strict=True):
        back = (np.arange(len(acc)) > trough) & (acc >= acc[trough]) & (epoch <= end + 1e-9)
        times.append(float(epoch[back][0] - epoch[trough]) if back.any() else None)
    return times


def _correlation(
    epoch: NDArray[np.float64], acc: NDArray[np.float64], lr: NDArray[np.float64]
) -> float | None:
    """Return Pearson's r of the LR with accuracy, both less their straight line over log(epoch)."""
    x = np.vander(np.log(epoch), 2)

    def detrended(y: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(y - x @ np.linalg.lstsq(x, y, rcond=None)[0])

    one, other = detrended(acc), detrended(lr)
    if one.std() < 1e-12 or other.std() < 1e-12:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def _maxima(acc: NDArray[np.float64], troughs: list[int]) -> tuple[float | None, float, float]:
    """Return the share of accuracy's local maxima near a trough, its mean over all circular shifts, and p."""
    inner = np.arange(1, len(acc) - 1)
    maxima = inner[(acc[inner] > acc[inner - 1]) & (acc[inner] >= acc[inner + 1])]
    if not len(maxima):
        return None, 0.0, 1.0
    near = np.zeros(len(acc), dtype=bool)
    for trough in troughs:
        near[max(0, trough - _NEAR) : trough + _NEAR + 1] = True
    shares = np.array([np.roll(near, shift)[maxima].mean() for shift in range(len(acc))])
    return float(shares[0]), float(shares.mean()), float((shares >= shares[0] - 1e-12).mean())


def _profile(
    epoch: NDArray[np.float64], acc: NDArray[np.float64], ends: list[float]
) -> dict[float, float]:
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
    maxima = [run["maxima_at_minima"] for run in runs if run["maxima_at_minima"][0] is not None]
    # Stouffer's method: the shifts of different runs are independent
    z = [scipy.stats.norm.isf(np.clip(p, 1e-6, 1 - 1e-6)) for _, _, p in maxima]
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
        "maxima_at_minima": {
            "share": float(np.mean([share for share, _, _ in maxima])) if maxima else None,
            "null_share": float(np.mean([null for _, null, _ in maxima])) if maxima else None,
            "p": float(scipy.stats.norm.sf(np.sum(z) / np.sqrt(len(z)))) if maxima else None,
        },
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
    drops = []
    for arm in arms:
        drop, interval = arm["drop_points"]["mean"], arm["drop_points"]["ci95"]
        shown = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
        runs = f"{arm['runs']} run{'s' * (arm['runs'] != 1)}"
        drops.append(f"{drop:.2f}{shown} points in {arm['arm']} ({runs})")
    return (
        f"One epoch after the LR's minimum, validation accuracy has dropped by {'; '.join(drops)}."
    )
