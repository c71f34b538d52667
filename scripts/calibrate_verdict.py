"""How often is the verdict wrong? `python scripts/calibrate_verdict.py [--sweeps N] [--seed N]`

Draws synthetic sweeps with a known true effect, judges each with the functions that judge real ones,
and prints Markdown tables of what came out; docs/verdict.md holds them. Exits with 1
unless the verdict keeps what it promises: no more than 2.5 % false "supported", intervals that cover
the truth in 94 to 96 % of normal draws, and an effect of 0.5 points found in 95 % of sweeps.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.random import Generator
from tqdm import tqdm

from harness.analysis import paired_stats as paired
from harness.analysis.paired_stats import (
    EQUIVALENT,
    INCONCLUSIVE,
    SUPPORTED,
    SUPPORTED_BELOW_MARGIN,
    WORSE,
    Floats,
)

MARGIN, LEVEL = 0.2, 0.05
EFFECTS = (0.0, 0.1, 0.2, 0.5, 1.0)  # points
SDS = (0.1, 0.3, 0.5)  # points: standard deviation of the pairs' differences
SEEDS = (5, 6, 10, 20, 30)
KINDS = ("normal", "correlated", "heavy")
BEYOND = ("skewed", "coarse")
VERDICTS = (SUPPORTED, SUPPORTED_BELOW_MARGIN, EQUIVALENT, WORSE, INCONCLUSIVE)
_NOISE = (
    3.5  # standard errors: of some 50 estimates of a rate at its bound, one in 90 tables exceeds it
)
_STEP = 100 / 360  # points: one of 360 validation images, as digits has them


@dataclass(frozen=True)
class Setting:
    kind: str
    sd: float
    seeds: int
    effect: float


@dataclass(frozen=True)
class Outcome:
    """Shares of the drawn sweeps that have each verdict, and whose interval covers the true effect."""

    verdicts: dict[str, float]
    covered: float

    @property
    def supported(self) -> float:
        return self.verdicts[SUPPORTED] + self.verdicts[SUPPORTED_BELOW_MARGIN]


Outcomes = dict[Setting, Outcome]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweeps", type=int, default=4000, help="a setting (default 4000)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    settings = [Setting(*one) for one in product(KINDS, SDS, SEEDS, EFFECTS)]
    settings += [Setting(kind, 0.3, seeds, 0.0) for kind, seeds in product(BEYOND, SEEDS)]
    outcomes = {one: calibrate(one, arguments.sweeps, rng) for one in tqdm(settings, disable=None)}
    cases = list(product((2, 6), (6, 10), (False, True)))
    families = {
        (m, n, worse): family(m, n, worse, arguments.sweeps, rng)
        for m, n, worse in tqdm(cases, disable=None)
    }
    print(errors_table(outcomes, arguments.sweeps), end="\n\n")
    print(families_table(families, arguments.sweeps), end="\n\n")
    print(beyond_table(outcomes, arguments.sweeps), end="\n\n")
    print(shares_table(outcomes), end="\n\n")
    kept = list(promises(outcomes, families, arguments.sweeps))
    print("\n".join(f"- {'kept' if holds else 'BROKEN'}: {promise}" for holds, promise in kept))
    sys.exit(not all(holds for holds, _ in kept))


def calibrate(setting: Setting, sweeps: int, rng: Generator) -> Outcome:
    """Return the verdicts on one comparison over that many sweeps of a setting."""
    differences = setting.effect + draw(setting.kind, setting.sd, (sweeps, setting.seeds), rng)
    verdicts = paired.decide(differences, MARGIN, LEVEL)
    low, high = paired.interval(differences, LEVEL)
    covered = (low <= setting.effect) & (setting.effect <= high)
    shares = {verdict: float((verdicts == verdict).mean()) for verdict in VERDICTS}
    return Outcome(shares, float(covered.mean()))


def draw(kind: str, sd: float, shape: tuple[int, ...], rng: Generator) -> Floats:
    """Draw differences of pairs with mean 0 and that standard deviation."""
    match kind:
        case "normal":  # arms that have nothing in common
            baseline, treatment = rng.normal(0, sd / math.sqrt(2), (2, *shape))
        case "correlated" | "coarse":  # arms that share 0.8 of their variance, as equal seeds do
            common = rng.normal(0, sd * math.sqrt(0.8 / 0.4), shape)
            baseline, treatment = common + rng.normal(0, sd * math.sqrt(0.2 / 0.4), (2, *shape))
        case "heavy":  # differences of Student's t with 3 degrees of freedom, whose variance is 3
            baseline, treatment = np.zeros(shape), rng.standard_t(3, shape) * sd / math.sqrt(3)
        case "skewed":  # most pairs a little better, a few much worse
            baseline, treatment = rng.exponential(sd, shape), np.full(shape, sd)
    if kind == "coarse":
        baseline, treatment = (np.rint(arm / _STEP) * _STEP for arm in (baseline, treatment))
    return np.asarray(treatment - baseline, np.float64)


def family(
    comparisons: int, seeds: int, some_worse: bool, sweeps: int, rng: Generator
) -> tuple[float, float]:
    """Return the share of sweeps that support any treatment of no effect: without Holm, and with it.

    All treatments meet the same baseline runs; `some_worse`: half of them lose a point.
    """
    worse = comparisons // 2 if some_worse else 0
    arms = rng.normal(0, 0.3 / math.sqrt(2), (sweeps, comparisons + 1, seeds))
    differences = arms[:, 1:] - arms[:, :1]
    differences[:, :worse] -= 1
    parts = np.array_split(differences, math.ceil(sweeps / 500))  # 2⁹ sums a sweep and comparison
    p = np.concatenate([paired.sign_flip(part) for part in parts])
    adjusted = paired.holm(p, differences.mean(axis=-1))
    verdicts = [paired.decide(differences, MARGIN, LEVEL, given) for given in (None, adjusted)]
    alone, together = (
        float(np.isin(verdict[:, worse:], (SUPPORTED, SUPPORTED_BELOW_MARGIN)).any(axis=1).mean())
        for verdict in verdicts
    )
    return alone, together


# --- tables ----------------------------------------------------------------------------------------


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def errors_table(outcomes: Outcomes, sweeps: int) -> str:
    """Return false "supported", coverage and power: one row a kind, deviation and number of seeds."""
    header = ["pairs", "sd", "seeds", 'false "supported"', "coverage"]
    header += [f"power at {effect:g}" for effect in EFFECTS[1:]]
    rows = []
    for kind, sd, seeds in product(KINDS, SDS, SEEDS):
        by_effect = {effect: outcomes[Setting(kind, sd, seeds, effect)] for effect in EFFECTS}
        found = [by_effect[effect] for effect in EFFECTS[1:]]
        row = [kind, f"{sd:g}", str(seeds), rate(by_effect[0].supported, sweeps)]
        row += [rate(coverage(outcomes, kind, sd, seeds), sweeps * len(EFFECTS))]
        row += [f"{percent(one.supported)} ({percent(one.verdicts[SUPPORTED])})" for one in found]
        rows.append(row)
    return table(header, rows)


def families_table(families: dict[tuple[int, int, bool], tuple[float, float]], sweeps: int) -> str:
    header = [
        "comparisons",
        "seeds",
        "the others",
        'any false "supported", unadjusted',
        "with Holm",
    ]
    rows = [
        [str(m), str(n), "half lose 1 point" if worse else "no effect either", *(rate(r, sweeps) for r in rates)]
        for (m, n, worse), rates in families.items()
    ]  # fmt: skip
    return table(header, rows)


def beyond_table(outcomes: Outcomes, sweeps: int) -> str:
    header = ["pairs", "seeds", 'false "supported"', 'false "worse"', "coverage"]
    rows = []
    for kind, seeds in product(BEYOND, SEEDS):
        one = outcomes[Setting(kind, 0.3, seeds, 0.0)]
        rates = (one.supported, one.verdicts[WORSE], one.covered)
        rows.append([kind, str(seeds), *(rate(share, sweeps) for share in rates)])
    return table(header, rows)


def shares_table(outcomes: Outcomes) -> str:
    header = ["pairs", "sd", "seeds", "effect", *VERDICTS]
    rows = [
        [one.kind, f"{one.sd:g}", str(one.seeds), f"{one.effect:g}"]
        + [percent(outcome.verdicts[verdict]) for verdict in VERDICTS]
        for one, outcome in outcomes.items()
        if one.kind in KINDS
    ]
    return table(header, rows)


def promises(
    outcomes: Outcomes, families: dict[tuple[int, int, bool], tuple[float, float]], sweeps: int
) -> Iterator[tuple[bool, str]]:
    """Yield whether each promise is kept, and the figures that show it."""
    bound = LEVEL / 2 + _NOISE * error(LEVEL / 2, sweeps)
    false = [
        outcome.supported
        for one, outcome in outcomes.items()
        if one.kind in KINDS and not one.effect
    ]
    highest = f"at most {rate(max(false), sweeps)} % of sweeps without effect"
    yield max(false) <= bound, f'false "supported": {highest}; the noise allows {percent(bound)} %'
    any_false = max(with_holm for _, with_holm in families.values())
    yield (
        any_false <= bound,
        f"of several comparisons, with Holm: at most {rate(any_false, sweeps)} %",
    )
    covered = [coverage(outcomes, *one) for one in product(("normal", "correlated"), SDS, SEEDS)]
    coverages = f"coverage of normal pairs: {percent(min(covered))} to {percent(max(covered))} %"
    yield min(covered) >= 0.94 and max(covered) <= 0.96, coverages
    for kind in KINDS:
        one = outcomes[Setting(kind, 0.3, 10, 0.5)]
        strict = f'{percent(one.verdicts[SUPPORTED])} % "supported" outright'
        power = f"{percent(one.supported)} %, {strict}"
        yield one.supported >= 0.95, f"power at 0.5 points, sd 0.3, 10 seeds, {kind}: {power}"


def coverage(outcomes: Outcomes, kind: str, sd: float, seeds: int) -> float:
    """Return the coverage over all effects: the interval moves with the effect."""
    return sum(outcomes[Setting(kind, sd, seeds, e)].covered for e in EFFECTS) / len(EFFECTS)


def error(share: float, sweeps: int) -> float:
    """Return the standard error of a share of that many draws."""
    return math.sqrt(share * (1 - share) / sweeps)


def rate(share: float, sweeps: int) -> str:
    return f"{100 * share:.2f} ± {100 * error(share, sweeps):.2f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    main()
