"""How far a difference holds for other images of the same kind, beside other seeds: seeds × images.

From the bits that runs keep of their last evaluation (`harness/correct.py`). docs/verdict.md has the model
and how often its interval covers the truth (`scripts/calibration/images.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy
from numpy.typing import NDArray

from harness import correct
from harness.analysis import averages, paired_stats, results, states
from harness.analysis.pairing import level_key
from harness.correct import Bits
from harness.files import UnreadableError

_REMEMBERED = 256  # runs whose bits are kept in memory: a baseline's are used with every treatment


def read_correct(folder: Path) -> dict[str, Bits] | None:
    """Return by split (`val`, `test`) which images a run classified correctly at its end; None if it kept none.

    Those of an average of weights are under `val@ema:0.99`. Arrays (images,), in the order of the split's indices. Raises `UnreadableError` for another kind of file.
    """
    path = folder / correct.FILE
    return correct.read(path) if path.exists() else None


@dataclass(frozen=True)
class Components:
    """Mean squares of differences with crossed random effects of `pairs` pairs and `images` images.

    The difference of one pair on one image is a mean, an effect of the pair, one of the image, and a
    remainder; the expected mean squares are those of a two-way layout without replication (Searle, Casella &
    McCulloch 1992, ch. 4). An estimate of a variance that would be negative is 0.
    """

    pairs: int
    images: int
    remainder: float  # variance of one difference, as are the next two
    of_pairs: float
    of_images: float

    @classmethod
    def of(cls, differences: NDArray[np.float64]) -> Components:
        """Return the components of `differences` (pairs, images), two of each or more."""
        pairs, images = differences.shape
        by_pair, by_image = differences.mean(axis=1), differences.mean(axis=0)
        mean = by_pair.mean()
        within_pairs = images * np.square(by_pair - mean).sum()
        within_images = pairs * np.square(by_image - mean).sum()
        rest = np.square(differences - mean).sum() - within_pairs - within_images
        remainder = max(0.0, float(rest) / ((pairs - 1) * (images - 1)))
        return cls(
            pairs, images, remainder,
            max(0.0, float(within_pairs / (pairs - 1) - remainder) / images),
            max(0.0, float(within_images / (images - 1) - remainder) / pairs),
        )  # fmt: skip

    def parts(self, pairs: int, images: int) -> tuple[float, float, float]:
        """Return what seeds, images and the remainder give of the variance of the mean over so many of them."""
        return self.of_pairs / pairs, self.of_images / images, self.remainder / (pairs * images)

    def half_width(self, pairs: int, images: int, level: float) -> float:
        """Return half the width of the 1-`level` interval of the mean over so many pairs and images.

        Student's t with Satterthwaite's (1946) degrees of freedom of the sum of mean squares.
        """
        seeds, others, rest = self.parts(pairs, images)
        variance = seeds + others + rest
        free = (pairs - 1, images - 1, (pairs - 1) * (images - 1))
        counted = (seeds + rest if seeds else 0.0, others + rest if others else 0.0)
        squares = (*counted, rest * (1 - (seeds > 0) - (others > 0)))
        spread = sum(square**2 / df for square, df in zip(squares, free, strict=True))
        if not spread:
            return 0.0
        quantile = scipy.special.stdtrit(variance**2 / spread, 1 - level / 2)
        return float(quantile * math.sqrt(variance))


def seeds_by_images(baseline: Bits, treatment: Bits, level: float) -> dict[str, Any] | None:
    """Return how large the mean difference is for other seeds and other images of the same distributions.

    `baseline` and `treatment`, (pairs, images), hold which images are correct. Numbers are points; intervals
    are at 1 - `level`: `seeds95` over seeds on these images, `ci95` over both. `shares` is what seeds, images and
    the remainder give of the variance of the mean; `half_width` that of `ci95` `now`, and as it is expected
    with twice the pairs (`seeds`) or twice the images (`images`); `more` names the one that narrows it more.
    None with fewer than two pairs or images, or where all differences are equal.
    """
    pairs, images = baseline.shape
    if min(pairs, images) < 2:
        return None
    differences = 100 * (treatment.astype(np.float64) - baseline)
    found = Components.of(differences)
    parts = found.parts(pairs, images)
    if not sum(parts):
        return None
    by_pair = differences.mean(axis=1)
    mean = float(by_pair.mean())
    half = {
        "now": found.half_width(pairs, images, level),
        "seeds": found.half_width(2 * pairs, images, level),
        "images": found.half_width(pairs, 2 * images, level),
    }
    names = ("seeds", "images", "remainder")
    return {
        "pairs": pairs,
        "images": images,
        "mean": mean,
        "seeds95": [float(end) for end in paired_stats.interval(by_pair, level)],
        "ci95": [mean - half["now"], mean + half["now"]],
        "shares": {name: part / sum(parts) for name, part in zip(names, parts, strict=True)},
        "half_width": half,
        "more": "seeds" if half["seeds"] <= half["images"] else "images",
    }


@dataclass(frozen=True)
class _Run:
    """What a complete run recorded of its last evaluation."""

    recorded: dict[str, float]  # by metric, percent
    correct: dict[str, Bits]
    data: dict[str, str | None]  # by split, the SHA-256 of its images
    fault: str = ""


def _read_run(folder: Path, average: str) -> _Run:
    result = results.result(folder)
    with results.this_version(folder / "result.json"):
        recorded = averages.metrics_of(
            {**result.get("final", {}), **result.get("test", {})}, average
        )
        data = {"val": result.get("data_sha256"), "test": result.get("test_sha256")}
    try:
        every = read_correct(folder) or {}
        names = {averages.metric(split, average): split for split in correct.SPLITS}
        bits = {split: every[name] for name, split in names.items() if name in every}
    except UnreadableError as error:
        return _Run(recorded, {}, data, str(error))
    for split, own in bits.items():
        if correct.accuracy(own) != recorded.get(f"{split}/acc"):
            fault = f"{folder / correct.FILE}: does not give the {split}/acc of its run"
            return _Run(recorded, {}, data, fault)
    return _Run(recorded, bits, data)


def add_images(judged: dict[str, Any], runs: pl.DataFrame, level: float) -> None:
    """Add `images` to each comparison of `judged`: by split what `seeds_by_images` returns, at `level`.

    Where that cannot be had a split has `ci95` null and the `reason`. `runs` has the columns folder, cell, level,
    seed, status and, with `tuned_over`, tuned. Raises `UnreadableError` for a result.json that is not of this version.
    """
    folders: dict[tuple[Any, ...], list[tuple[Path, str]]] = {}
    for run, average in zip(runs.to_dicts(), averages.of_table(runs), strict=True):
        if run["status"] == "complete" and run["level"] is not None:
            key = (run["cell"], level_key(run["level"]), run.get("tuned"), run["seed"])
            folders.setdefault(key, []).append((Path(run["folder"]), average))
    read = lru_cache(_REMEMBERED)(_read_run)
    metric = judged["claim"]["metric"]
    for comparison in judged["comparisons"]:
        arms = [
            _runs_of(comparison, arm, metric, folders, read) for arm in ("baseline", "treatment")
        ]
        comparison["images"] = {
            split: _over_images(comparison, arms, split, level) for split in correct.SPLITS
        }


def _runs_of(
    comparison: dict[str, Any],
    arm: str,
    metric: str,
    folders: dict[tuple[Any, ...], list[tuple[Path, str]]],
    read: Callable[[Path, str], _Run],
) -> list[_Run]:
    """Return the runs of an arm's pairs, in their order: of a seed the one that has the pair's value."""
    found = []
    tuned = (comparison.get("tuned") or {}).get(arm)
    for pair in comparison["pairs"]:
        key = (comparison["cell"], level_key(comparison[arm]), tuned, pair["seed"])
        runs = starmap(read, folders.get(key, []))
        found += [run for run in runs if run.recorded.get(metric) == pair[arm]][:1]
    return found


def _over_images(
    comparison: dict[str, Any], arms: Sequence[Sequence[_Run]], split: str, level: float
) -> dict[str, Any]:
    if reason := _why_not(comparison, arms, split):
        return {"ci95": None, "reason": reason}
    baseline, treatment = (np.stack([run.correct[split] for run in arm]) for arm in arms)
    found = seeds_by_images(baseline, treatment, level)
    return found or {"ci95": None, "reason": "all differences between the runs are equal"}


def _why_not(comparison: dict[str, Any], arms: Sequence[Sequence[_Run]], split: str) -> str:
    """Return why there is no interval over the images of a split, or ""."""
    runs = [run for arm in arms for run in arm]
    if comparison.get("verdict") == states.INVALID:
        return states.INVALID
    if len(runs) < 4 or len(runs) < 2 * len(comparison["pairs"]):
        return "fewer than two pairs"
    if fault := next((run.fault for run in runs if run.fault), ""):
        return fault
    if lacking := sum(split not in run.correct for run in runs):
        return f"{lacking} of {len(runs)} runs kept no bits of {split} images in {correct.FILE}"
    if len({run.data[split] for run in runs}) > 1:
        return (
            "the images differ between the runs; where they follow the seed, the interval over seeds "
            "holds for other images too"
        )
    return ""
