"""Rates of right and wrong verdicts where sweeps go on until they are decided, and the numbers of pairs they take.

What judges is what judges real sweeps, `harness/analysis/sequential.py`.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from calibration import designs
from calibration.designs import COMPARISONS, LEVEL, MARGIN, SDS, Rate, Row, supported
from harness.analysis import paired_stats as paired
from harness.analysis import states
from harness.analysis.paired_stats import Floats
from harness.analysis.sequential import (
    LOOKS,
    QUESTIONS,
    Design,
    Standing,
    boundaries,
    default_looks,
    look,
)
from harness.analysis.states import SUPPORTED, Evidence

KINDS = ("normal", "heavy", "skewed")
_STUDY = Path(__file__).parents[2] / "docs" / "study" / "runs.csv"


def judge(
    design: Design, differences: Floats, futility: bool = True
) -> tuple[Standing, NDArray[np.int64]]:
    """Return what (sweeps, comparisons, pairs) come to, and after how many pairs each comparison stopped."""
    standing = None
    there = [pairs for pairs in design.looks if pairs <= differences.shape[-1]]
    stopped = np.full(differences.shape[:-1], there[-1])
    for number, pairs in enumerate(there):
        open_ = ~standing.settled if standing else np.ones_like(stopped, np.bool_)
        standing = look(design, number, differences, standing)
        if not futility:
            nobody = np.zeros_like(standing.undecidable)
            standing = dataclasses.replace(standing, undecidable=nobody)
        stopped[open_ & standing.settled] = pairs
    assert standing is not None
    return standing, stopped


def looks(sweeps: int, rng: Generator) -> Iterator[Row]:
    """One comparison of at most 30 pairs, judged at eight looks: errors, power against 30 pairs, and pairs taken.

    Power: of a gain at 0.2, or, where the question is the margin, of one above it at 0.5.
    """
    for kind, sd, question in product(KINDS, SDS, QUESTIONS):
        design = Design(LOOKS, LEVEL, MARGIN, question)
        noise = designs.draw(kind, sd, (sweeps, 1, LOOKS[-1]), rng)
        effects = (0.0, MARGIN, 0.5)
        found = {effect: judge(design, noise + effect) for effect in effects}
        without = {effect: judge(design, noise + effect, futility=False) for effect in effects[:2]}
        covered = [
            (standing.evidence.low <= effect) & (standing.evidence.high >= effect)
            for effect, (standing, _) in found.items()
        ]
        asked, effect = (states.ANY_SUPPORTED, MARGIN) if question == "zero" else (SUPPORTED, 0.5)
        power = Rate.of(np.isin(found[effect][0].state, asked))
        of_all = Rate.of(np.isin(designs.decide(noise + effect), asked))
        yield {
            "pairs of": kind, "sd": sd, "decide": question,
            'false "supported"': Rate.of(supported(found[0][0].state)),
            'false "supported", without futility': Rate.of(supported(without[0][0].state)),
            'strictly "supported" at the margin': Rate.of(found[MARGIN][0].state == SUPPORTED),
            'strictly "supported" at the margin, without futility': Rate.of(without[MARGIN][0].state == SUPPORTED),
            "coverage": min(map(Rate.of, covered), key=lambda rate: rate.share),
            "undecidable at 0": Rate.of(found[0][0].undecidable),
            "power": power,
            "power lost": Rate(max(0.0, of_all.share - power.share), sweeps),
            **{f"pairs at {e:g}": round(float(found[e][1].mean()), 2) for e in effects},
        }  # fmt: skip


def looks_skewed(sweeps: int, rng: Generator) -> Iterator[Row]:
    """How often bootstrap-t, at the look where a sweep stopped, leads to another state ("remark"): no effect, sd 0.3.

    The remark is counted in one sweep of ten, and in each that reads "supported".
    """
    design = Design(LOOKS, LEVEL, MARGIN)
    for kind in KINDS:
        noise = designs.draw(kind, 0.3, (sweeps, 1, LOOKS[-1]), rng)
        standing, stopped = judge(design, noise)
        false = supported(standing.state[:, 0])
        some = np.arange(sweeps) % 10 == 0
        remark = np.array(
            [
                (some[at] or false[at])
                and standing.state[at, 0] != _by_bootstrap_t(noise[at, 0, : stopped[at, 0]])
                for at in range(sweeps)
            ]
        )
        yield {
            "pairs of": kind,
            "remark": Rate.of(remark[some]),
            'false "supported"': Rate.of(false),
            'false "supported" without remark': Rate.of(false & ~remark),
        }


def looks_over_cells(sweeps: int, rng: Generator) -> Iterator[Row]:
    """The one answer over cells that each stop where they are decided: coverage, and false "supported" without effect."""
    for cells, between in product((2, 3, 6), (0.0, 0.3)):
        effects = rng.normal(0, between, (sweeps, cells, 1))
        d = effects + rng.normal(0, 0.3, (sweeps, cells, LOOKS[-1]))
        _, stopped = judge(Design(LOOKS, LEVEL, MARGIN), d)
        taken = np.where(np.arange(LOOKS[-1]) < stopped[..., None], d, np.nan)
        errors = np.nanstd(taken, axis=-1, ddof=1) / np.sqrt(stopped)
        pooled: Any = paired.over_cells(np.nanmean(taken, axis=-1), errors, (LEVEL, 2 * LEVEL))
        (low, high), inner = pooled["intervals"]
        state = states.decide(Evidence.of_intervals((low, high), inner, MARGIN), MARGIN)
        yield {
            "cells": cells, "sd between cells": between,
            "coverage": Rate.of((low <= 0) & (high >= 0)),
            'false "supported"': Rate.of(supported(state)),
        }  # fmt: skip


def _by_bootstrap_t(differences: Floats) -> str:
    number = LOOKS.index(len(differences))
    levels = [2 * boundaries(LOOKS, alpha)[number] for alpha in (LEVEL / 2, LEVEL)]
    ends = paired.bootstrap_t(differences, levels)
    assert ends is not None
    return str(states.decide(Evidence.of_intervals(ends[0], ends[1], MARGIN), MARGIN))


def looks_several(sweeps: int, rng: Generator) -> Iterator[Row]:
    """Six treatments that share a baseline, at eight looks: one better by half a point, or all by just the margin.

    A run is one of seven arms; the baseline goes on as long as any treatment does.
    """
    for sd, question in product(SDS, QUESTIONS):
        design = Design(LOOKS, LEVEL, MARGIN, question)
        arms = rng.normal(0, sd / math.sqrt(2), (sweeps, COMPARISONS + 1, LOOKS[-1]))
        noise = arms[:, 1:] - arms[:, :1]
        one = np.where(np.arange(COMPARISONS) == 0, 0.5, 0)[:, None]
        standing, stopped = judge(design, noise + one)
        at_margin, _ = judge(design, noise + MARGIN)
        asked = states.ANY_SUPPORTED if question == "zero" else SUPPORTED
        runs = stopped.sum(axis=1) + stopped.max(axis=1)
        yield {
            "sd": sd, "decide": question,
            'any false "supported"': Rate.of(supported(standing.state)[:, 1:].any(axis=1)),
            'any strictly "supported" at the margin': Rate.of((at_margin.state == SUPPORTED).any(axis=1)),
            "power for the one of 0.5": Rate.of(np.isin(standing.state[:, 0], asked)),
            "its pairs": round(float(stopped[:, 0].mean()), 2),
            "runs of 210": round(float(runs.mean()), 1),
        }  # fmt: skip


def study_pairs() -> Floats:
    """Return the published study's differences on Fashion-MNIST, times_2 minus times_1, by seed."""
    with _STUDY.open() as file:
        runs = [row for row in csv.DictReader(file) if row["step"] == "claim"]
    value = {
        (run["level"], int(run["seed"])): float(run["final"])
        for run in runs
        if run["cell"] == "fashion"
    }
    seeds = sorted({seed for _, seed in value})
    return np.array([value["times_2", seed] - value["times_1", seed] for seed in seeds]).round(9)


def looks_replayed(sweeps: int, rng: Generator) -> Iterator[Row]:
    """The 16 Fashion-MNIST pairs of the published study in random orders, in plans of at most 16 and 30 pairs.

    "as with all 16": the state says of the sign (better, worse, neither) what it is with all pairs.
    """
    pairs = study_pairs()
    of_all = _sign(designs.decide(pairs))
    orders = rng.permuted(np.tile(pairs, (sweeps, 1, 1)), axis=-1)
    for most, question in product((len(pairs), LOOKS[-1]), QUESTIONS):
        standing, stopped = judge(Design(default_looks(most), LEVEL, MARGIN, question), orders)
        yield {
            "at most": most, "decide": question,
            "pairs": round(float(stopped.mean()), 2),
            "decided": Rate.of(standing.decided),
            "as with all 16": Rate.of(_sign(standing.state) == of_all),
        }  # fmt: skip


def _sign(state: NDArray[np.str_]) -> NDArray[np.int64]:
    return np.asarray(supported(state).astype(np.int64) - (state == states.WORSE))
