"""How often is the verdict wrong? `python scripts/calibrate_verdict.py [--sweeps N] [--seed N] [--csv DIR]`

Draws synthetic sweeps with a known true effect, judges each with the functions that judge real ones,
and prints a Markdown table for each design; docs/verdict.md and docs/verdict/ hold them. Exits with 1
unless the verdict keeps its promises, which are printed last, each with its Monte-Carlo error.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from inspect import cleandoc
from pathlib import Path

import numpy as np
from calibration import designs
from calibration.designs import LEVEL, Rate, Row
from calibration.images import coverage_rates
from calibration.looks import (
    looks,
    looks_over_cells,
    looks_replayed,
    looks_several,
    looks_skewed,
)
from calibration.peeking import peeking_rates
from calibration.phase import phase_rates
from calibration.tuning import tuned_by_plan
from numpy.random import Generator
from tqdm import tqdm

_NOISE = 3.5  # standard errors: of some 70 rates at their bound, one in 60 runs of the script has one that exceeds it


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweeps", type=int, default=4000, help="a setting (default 4000)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    parser.add_argument("--csv", type=Path, metavar="DIR", help="write the tables there, too")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    tables: dict[str, list[Row]] = {}
    for name, (make, share) in tqdm(DESIGNS.items(), disable=None):
        tables[name] = list(make(max(1, arguments.sweeps // share), rng))
    for name, rows in tables.items():
        print(f"## {name}\n\n{cleandoc(DESIGNS[name][0].__doc__ or '')}\n\n{markdown(rows)}\n")
        if arguments.csv:
            write_csv(arguments.csv / f"{name}.csv", rows)
    kept = list(promises(tables))
    print("\n".join(f"- {'kept' if holds else 'BROKEN'}: {promise}" for holds, promise in kept))
    sys.exit(not all(holds for holds, _ in kept))


def other_images(sweeps: int, rng: Generator) -> Iterator[Row]:
    """Whether intervals cover the difference on other images: of seeds alone, and of seeds and images."""
    for row in coverage_rates(sweeps, rng):
        shares = {name: Rate(row.pop(name), sweeps) for name in ("covered", "seeds_alone")}
        del row["sweeps"]
        yield {**row, "seeds × images": shares["covered"], "seeds alone": shares["seeds_alone"]}


def peeking(sweeps: int, rng: Generator) -> Iterator[Row]:
    """False "supported" of whoever looks after every pair from the sixth on, and stops at the first one."""
    for pairs, share in peeking_rates(sweeps, rng).items():
        yield {"gives up at": pairs, 'false "supported"': Rate(share, sweeps)}


def best_positions(sweeps: int, rng: Generator) -> Iterator[Row]:
    """Where in a cycle accuracy is best (C2): p ≤ 0.05 where the LR does nothing, and where it does."""
    for row in phase_rates(sweeps, rng):
        del row["error"]
        yield row | {"rate": Rate(row["rate"], sweeps)}


DESIGNS = {  # with the share of the sweeps that each draws: some cost more
    "fixed": (designs.fixed, 1),
    "several": (designs.several, 4),
    "tuned": (designs.tuned, 1),
    "breaking": (designs.breaking, 1),
    "over_cells": (designs.over_cells, 1),
    "other_images": (other_images, 20),
    "peeking": (peeking, 1),
    "best_positions": (best_positions, 8),
    "looks": (looks, 1),
    "looks_several": (looks_several, 4),
    "looks_skewed": (looks_skewed, 4),
    "looks_replayed": (looks_replayed, 1),
    "tuned_by_plan": (tuned_by_plan, 8),
    "looks_over_cells": (looks_over_cells, 4),
    "unpaired": (designs.unpaired_arms, 1),
}


def markdown(rows: Sequence[Row]) -> str:
    """Return a table whose header is the keys of the rows."""
    lines = [
        list(rows[0]),
        ["---"] * len(rows[0]),
        *([str(v) for v in row.values()] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write a table; a rate has a column for its percent and one for its standard error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for at, row in enumerate(rows):
            cells: dict[str, object] = {}
            for name, value in row.items():
                if isinstance(value, Rate):
                    cells |= {
                        name: f"{100 * value.share:.2f}",
                        f"{name} ±": f"{100 * value.error:.2f}",
                    }
                else:
                    cells[name] = value
            if at == 0:
                writer.writerow(cells)
            writer.writerow(cells.values())


def promises(tables: dict[str, list[Row]]) -> Iterator[tuple[bool, str]]:
    """Yield whether each promise is kept, and the figures that show it."""
    fixed = [row for row in tables["fixed"] if row["pairs of"] in designs.KINDS]
    yield _at_most(LEVEL / 2, fixed, 'false "supported"', "one comparison without effect")
    yield _at_most(
        LEVEL / 2, fixed, 'strictly "supported" at the margin', "one comparison at the margin"
    )
    normal = [row["coverage"] for row in fixed if row["pairs of"] != "heavy"]
    share = np.mean([rate.share for rate in normal])
    error = Rate(0.95, sum(rate.draws for rate in normal)).error
    yield (
        abs(share - 0.95) <= _NOISE * error,
        f"coverage of normal pairs: {100 * share:.2f} ± {100 * error:.2f} %",
    )
    yield _at_least(0.95, _at(fixed, pairs=10), "power at 0.5", "one comparison, 10 pairs, sd 0.3")
    several = tables["several"]
    yield _at_most(
        LEVEL / 2, several, "with max-t", "any of five without effect, beside one of 0.5"
    )
    yield _at_most(LEVEL / 2, several, "at the margin, with max-t", "any of six at the margin")
    for pairs, least in ((6, 0.30), (8, 0.74), (10, 0.92)):
        what = f"one of six comparisons, {pairs} pairs, sd 0.3"
        yield _at_least(least, _at(several, pairs=pairs), "power for the one of 0.5", what)
    tuned = tables["tuned"]
    yield _at_most(
        LEVEL / 2, tuned, 'false "supported", over every LR', "equal arms with tuned LRs"
    )
    yield _at_least(
        0.85, _at(tuned, pairs=10), "power at 0.5, over every LR", "tuned LRs, 10 pairs, sd 0.3"
    )
    broken = [row for row in tables["breaking"] if not row["effect of runs that do not break"]]
    yield _at_most(
        0.001, broken, '"supported" where a run broke', "a treatment of which a tenth breaks"
    )
    images = tables["other_images"]
    yield _at_least(0.93, images, "seeds × images", "other images, 8 pairs")
    over = tables["over_cells"]
    yield _at_least(0.95, over, "coverage", "the mean over cells")
    yield _unpaired(tables["unpaired"])
    yield from _looks(tables)
    by_plan = tables["tuned_by_plan"]
    yield _at_most(
        LEVEL / 2, by_plan, 'false "supported", over every LR', "equal arms with LRs tuned by plan"
    )


def _unpaired(rows: list[Row]) -> tuple[bool, str]:
    equal = [row for row in rows if row["runs"] == "normal" and row["baseline"] == row["treatment"]]
    return _at_most(0.03, equal, 'false "supported"', "unpaired normal runs, arms of one size")


def _looks(tables: dict[str, list[Row]]) -> Iterator[tuple[bool, str]]:
    """Yield the promises of sweeps that go on until they are decided."""
    symmetric = [row for row in tables["looks"] if row["pairs of"] != "skewed"]
    for column in (
        'false "supported"', 'false "supported", without futility', 'strictly "supported" at the margin',
        'strictly "supported" at the margin, without futility',
    ):  # fmt: skip
        yield _at_most(LEVEL / 2, symmetric, column, "one comparison, eight looks")
    yield _at_least(0.95, symmetric, "coverage", "one comparison, eight looks")
    usual = [row for row in symmetric if row["pairs of"] == "normal" and row["sd"] == 0.3]
    yield _at_most(0.04, usual, "power lost", "eight looks to 30 pairs, sd 0.3")
    zero = [row for row in usual if row["decide"] == "zero"]
    for effect, most in ((0, 20.5), (0.2, 20.5), (0.5, 9.3)):
        yield _mean_at_most(most, zero, f"pairs at {effect:g}", "eight looks to 30 pairs, sd 0.3")
    over = tables["looks_over_cells"]
    yield _at_least(0.95, over, "coverage", "the mean over cells that stopped at looks")
    several = tables["looks_several"]
    for column in ('any false "supported"', 'any strictly "supported" at the margin'):
        yield _at_most(LEVEL / 2, several, column, "six comparisons, eight looks")
    skewed = [row for row in tables["looks_skewed"] if row["pairs of"] == "skewed"]
    yield _at_most(
        LEVEL / 2, skewed, 'false "supported" without remark', "skewed pairs, eight looks"
    )
    replayed = tables["looks_replayed"]
    yield _at_least(0.99, replayed, "as with all 16", "the study's pairs in other orders")
    for question, most in (("zero", 9), ("margin", 13)):
        asked = [row for row in replayed if row["decide"] == question]
        yield _mean_at_most(most, asked, "pairs", f"the study's pairs, decide={question}")


def _at(rows: Sequence[Row], pairs: int) -> list[Row]:
    return [row for row in rows if row["pairs"] == pairs and row["sd"] == 0.3]


def _at_most(bound: float, rows: Sequence[Row], column: str, what: str) -> tuple[bool, str]:
    worst: Rate = max((row[column] for row in rows), key=lambda rate: rate.share)
    allowed = bound + _NOISE * Rate(bound, worst.draws).error
    text = f"{what}: {column}: at most {worst} %; {100 * bound:g} % and the noise allow {100 * allowed:.2f} %"
    return worst.share <= allowed, text


def _at_least(bound: float, rows: Sequence[Row], column: str, what: str) -> tuple[bool, str]:
    worst: Rate = min((row[column] for row in rows), key=lambda rate: rate.share)
    allowed = bound - _NOISE * Rate(bound, worst.draws).error
    text = f"{what}: {column}: at least {worst} %; {100 * bound:g} % and the noise ask for {100 * allowed:.2f} %"
    return worst.share >= allowed, text


def _mean_at_most(bound: float, rows: Sequence[Row], column: str, what: str) -> tuple[bool, str]:
    worst: float = max(row[column] for row in rows)
    return worst <= bound, f"{what}: {column}: at most {worst:g} on average, {bound:g} promised"


if __name__ == "__main__":
    main()
