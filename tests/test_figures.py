"""What pairs show alone and together: several comparisons, grids of LRs, one answer over cells."""

from __future__ import annotations

import numpy as np
import pytest
from test_sentences import cells
from test_verdict import WEAK, around, judged, lost, noise, only, rows, run

from harness.analysis import paired_stats
from harness.analysis.states import (
    ANY_SUPPORTED,
    INCONCLUSIVE,
    INTERIM,
    NO_GAIN,
    SUPPORTED,
    SUPPORTED_UNSURE,
    WORSE,
)
from harness.analysis.verdict import Claim


def test_all_of_eight_pairs_in_favour_win_among_six_comparisons() -> None:
    document = judged(cells(*"abcdef", differences=[*around(0.5), 0.45, 0.55]))
    assert [one["verdict"] for one in document["comparisons"]] == [SUPPORTED] * 6
    assert all(one["p_adjusted"] <= 0.05 for one in document["comparisons"])


def test_seven_pairs_cannot_decide_six_cells_and_eight_can() -> None:
    seven = [*around(-0.5), -0.5]
    document = judged(cells(*"abcdef", differences=seven))
    assert [one["verdict"] for one in document["comparisons"]] == [NO_GAIN] * 6
    assert document["comparisons"][0]["by_itself"] == WORSE
    eight = judged(cells(*"abcdef", differences=[*seven, -0.5]))
    assert [one["verdict"] for one in eight["comparisons"]] == [WORSE] * 6
    open_ones = judged(cells(*"abcdef", differences=[*around(0.5), 0.5]))["comparisons"]
    said = "“supported” by itself; 7 pairs cannot decide 6 comparisons, 8 can"
    assert said in open_ones[0]["sentence"]
    assert (
        "about 8 pairs would show so large a difference, with 80 % power"
        in open_ones[0]["sentence"]
    )


def test_what_is_decided_by_itself_needs_the_pairs_that_show_it_among_all() -> None:
    alone = only(rows(WEAK))
    assert alone["verdict"] == SUPPORTED_UNSURE
    assert "as large as here" not in alone["pairs_needed"]
    arms = rows(WEAK, cell="a")
    arms += [row for at, cell in enumerate("bcdef") for row in rows(noise(at), cell=cell)]
    first, *others = judged(arms)["comparisons"]
    assert (first["by_itself"], first["verdict"]) == (SUPPORTED_UNSURE, INCONCLUSIVE)
    sd = paired_stats.sd_limit(first["sd"], 8)
    assert first["pairs_needed"]["as large as here"] == paired_stats.pairs_needed(
        sd, first["mean"], 0.05 / 6
    )
    assert all("as large as here" not in one["pairs_needed"] for one in others)


def test_effects_at_the_margin_are_controlled_together() -> None:
    """Six effects of just the margin: by themselves some would be above it."""
    rng = np.random.default_rng(1)
    by_itself = together = 0
    for _ in range(40):
        arms = [r for c in "abcdef" for r in rows(rng.normal(0.2, 0.1, 8).tolist(), cell=c)]
        comparisons = judged(arms)["comparisons"]
        by_itself += any(one["by_itself"] == SUPPORTED for one in comparisons)
        together += any(one["verdict"] == SUPPORTED for one in comparisons)
    assert by_itself >= 3
    assert together <= 2


def test_one_answer_over_cells() -> None:
    document = judged(cells("a", "b", "c", differences=around(0.5)))
    (over,) = document["over_cells"]
    assert (over["treatment"], over["cells"], over["verdict"]) == ("2", 3, SUPPORTED)
    assert over["mean"] == pytest.approx(0.5)
    assert over["between_cells_sd"] == over["i2"] == 0
    assert "Over 3 cells, scheduler.t_mult=2: supported, +0.50 points (" in document["sentence"]
    mixed = cells("a", "b", differences=around(0.5)) + rows(around(-0.5), cell="c")
    (over,) = judged(mixed)["over_cells"]
    assert over["verdict"] == INCONCLUSIVE
    assert over["between_cells_sd"] == pytest.approx(3**-0.5, rel=0.01)
    assert judged(rows(around(0.5)))["over_cells"] == []


def test_the_answer_over_cells_counts_diverged_and_awaited_runs_and_names_cells_left_out() -> None:
    arms = []
    for cell in "abc":
        own = rows(around(0.5) + around(0.5)[:4], cell=cell)
        own[-3:] = [lost(row, "diverged", 10.0) for row in own[-3:]]
        arms += own
    (over,) = judged(arms)["over_cells"]
    assert over["verdict"] == INCONCLUSIVE
    claim = Claim("scheduler.t_mult", "1", ("2",), seeds=tuple(range(8)))
    eight = [*around(0.5), 0.5, 0.5]
    waiting = rows(eight, cell="d")
    waiting[1:8] = [lost(row, "missing") for row in waiting[1:8]]
    document = judged([*cells(*"abc", differences=eight), *waiting], claim)
    assert (document["over_cells"][0]["verdict"], document["over_cells"][0]["of"]) == (INTERIM, 4)
    none = rows([0.0] * 8, cell="d")
    (over,) = judged([*cells(*"abc", differences=eight), *none])["over_cells"]
    assert over["cells"] == 4
    assert over["verdict"] != SUPPORTED, "eight differences of 0 count, too"
    few = judged([*cells(*"ab", differences=eight), *rows([0.5], cell="c")])
    assert "Over 2 of 3 cells" in few["sentence"]


def test_a_grid_is_no_family_for_several_treatments_either() -> None:
    """Six comparisons, each against five LRs: what decides is what decides six against one."""
    rng = np.random.default_rng(7)
    claim = Claim("t", "0", tuple("123456"), tuned_over="optimizer.lr")
    supported = dict.fromkeys((1, 5), 0)
    for _ in range(12):
        seeds = rng.normal(0, 0.1, 8)
        arms = [
            run(
                level,
                seed,
                90 + (level != "0") * 0.45 + seeds[seed] + rng.normal(0, 0.25),
                tuned="0.1",
            )
            for level in "0123456"
            for seed in range(8)
        ]
        for lrs in supported:
            more = [
                run(
                    "0",
                    seed,
                    80 + seeds[seed] + rng.normal(0, 0.25),
                    tuned=f"0.{lr}",
                    name=f"{lr} {seed}",
                )
                for lr in range(2, lrs + 1)
                for seed in range(8)
            ]
            found = judged([*arms, *more], claim)["comparisons"]
            supported[lrs] += sum(one["verdict"] in ANY_SUPPORTED for one in found)
    assert supported[5] == supported[1] > 20, "LRs that are easily beaten change nothing"
