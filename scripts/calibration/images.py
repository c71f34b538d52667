"""How often the interval over seeds and images covers the truth, in drawn sweeps."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import scipy
from numpy.random import Generator
from numpy.typing import NDArray

from harness.analysis.images import seeds_by_images

LEVEL = 0.05
PAIRS = 8
IMAGES = (300, 10_000)
SDS = (0.1, 0.5)  # points: of the difference between seeds, on endless images
ACCURACY = 0.9  # of both arms: the true difference is 0
DIFFICULTY = 4.0  # sd between images, of which an update's noise is 1: 5 % change from seed to seed
OWN_DIFFICULTY = {"small": 0.3, "dominates": 2.0}  # what of it an arm does not share with the other
_CERTAIN = 4.5  # standard deviations from where noise decides whether an image is correct

Floats = NDArray[np.float32]


def coverage_rates(sweeps: int = 500, rng: Generator | None = None) -> list[dict[str, Any]]:
    """Return a row a setting: pairs, images, sd (points), image_variance, sweeps, and two shares of the sweeps:
    whose interval over seeds and images covers the true difference (`covered`), and whose interval over
    seeds does (`seeds_alone`)."""
    rng = rng or np.random.default_rng(0)
    rows = []
    for images, sd, (kind, own) in product(IMAGES, SDS, OWN_DIFFICULTY.items()):
        hits = np.zeros(2)
        for _ in range(sweeps):
            baseline, treatment = draw(images, sd, own, rng)
            found = seeds_by_images(baseline, treatment, LEVEL)
            for at, name in enumerate(("ci95", "seeds95")):
                hits[at] += found is not None and found[name][0] <= 0 <= found[name][1]
        covered, alone = (hits / sweeps).tolist()
        rows.append(
            {"pairs": PAIRS, "images": images, "sd": sd, "image_variance": kind, "sweeps": sweeps,
             "covered": covered, "seeds_alone": alone}
        )  # fmt: skip
    return rows


def draw(images: int, sd: float, own: float, rng: Generator) -> NDArray[np.bool_]:
    """Draw which images two equal arms get right: (2, pairs, images).

    An image is correct where mean + difficulty of the image + its own for the arm + effect of the run + noise
    is above 0, all normal; so the accuracy is known, and what the effect of a run must be for `sd`.
    """
    quantile = scipy.stats.norm.ppf(ACCURACY)
    slope = 100 * math.sqrt(2) * scipy.stats.norm.pdf(quantile)
    between_images = 1 + DIFFICULTY**2 + own**2
    of_run = sd * math.sqrt(between_images / (slope**2 - sd**2))
    shift = quantile * math.sqrt(between_images + of_run**2)

    def normal(*shape: int) -> Floats:
        return rng.standard_normal(shape, dtype=np.float32)

    at = np.float32(shift) + np.float32(DIFFICULTY) * normal(images)
    by_arm = at + np.float32(own) * normal(2, 1, images)
    right = np.repeat(by_arm > 0, PAIRS, axis=1)
    open_ = (np.abs(by_arm) < _CERTAIN).any(axis=(0, 1))
    runs = np.float32(of_run) * normal(2, PAIRS, 1)
    right[..., open_] = by_arm[..., open_] + runs + normal(2, PAIRS, int(open_.sum())) > 0
    return np.asarray(right, np.bool_)
