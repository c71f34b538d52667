"""C2 on made-up histories whose phase is known, and `anytime` by hand."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import correlation
from typing import Any

import numpy as np
import polars as pl
import pytest
from calibration.phase import CYCLES, phase_rates

from harness.analysis import phase, run_tables

PER_EPOCH = 4  # evaluations; an update each


def runs(folder: Path, shapes: list[Any], cycle: int = 5, cycles: int = 6) -> pl.DataFrame:
    """Runs of `cycles` warm restarts whose accuracy is `shape(time in cycle, cycle number)`."""
    rows = []
    for number, shape in enumerate(shapes):
        place = folder / str(number)
        place.mkdir(parents=True)
        steps = np.arange(1, cycles * cycle * PER_EPOCH + 1)
        within = ((steps - 1) % (cycle * PER_EPOCH) + 1) / PER_EPOCH
        lr = 0.05 * (1 + np.cos(np.pi * (within - 1 / PER_EPOCH) / cycle))
        acc = [shape(t, (s - 1) // (cycle * PER_EPOCH)) for t, s in zip(within, steps, strict=True)]
        history = [
            {"step": int(s), "epoch": s / PER_EPOCH, "lr": float(r), "val/acc": float(a)}
            for s, r, a in zip(steps, lr, acc, strict=True)
        ]
        (place / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
        np.save(place / "lr.npy", lr)
        ends = [float(cycle * (k + 1)) for k in range(cycles)]
        plan = {"cycle_end_epochs": ends, "budget_epochs": ends[-1]}
        (place / "result.json").write_text(json.dumps({"plan": plan}))
        rows.append({"arm": "a", "status": "complete", "folder": str(place), "final": acc[-1]})
    return pl.DataFrame(rows)


def peaks_at_ends(t: float, k: int) -> float:
    return 80 + 2 * t  # from 80.5 after the restart to 90 at the end of each cycle


def test_a_history_in_phase_is_seen_as_such(tmp_path: Path) -> None:
    judged = phase.analyze(runs(tmp_path, [peaks_at_ends] * 3))
    assert judged is not None
    (arm,) = judged["arms"]
    assert arm["runs"] == 3
    assert arm["drop_points"]["mean"] == pytest.approx(90 - 82)
    assert arm["drop_points"]["ci95"] == pytest.approx([8, 8])
    assert arm["recovery_epochs"] == {"median": pytest.approx(5), "recovered": 12, "of": 12}
    assert arm["correlation_with_lr"]["mean"] < -0.9
    assert arm["best_position"]["lr_rank"] == 0
    assert arm["best_position"]["cycles"] == 3 * 5  # with the one that ends the budget
    assert arm["best_position"]["p"] == pytest.approx(20.0**-15)
    assert judged["sentence"].startswith(
        "One epoch after the LR's minimum, validation accuracy has dropped by 8.00"
    )
    assert judged["sentence"].endswith(
        "Within a cycle, accuracy (less its trend) is best at a low LR more often than by chance (p ≤ 0.05)."
    )
    at_zero = [point for point in judged["profile"] if point["offset_epochs"] == 0]
    assert at_zero == [{"arm": "a", "offset_epochs": 0.0, "mean": 0.0, "low": 0.0, "high": 0.0}]
    offsets = [point["offset_epochs"] for point in judged["profile"]]
    assert (min(offsets), max(offsets)) == (-2.5, 2.5)


def test_a_history_out_of_phase_is_not(tmp_path: Path) -> None:
    judged = phase.analyze(runs(tmp_path, [lambda t, k: 90 - 2 * abs(t - 2.5)] * 3))
    assert judged is not None
    (arm,) = judged["arms"]
    assert arm["best_position"]["lr_rank"] == pytest.approx(10 / 19, abs=0.005)  # in mid-cycle
    assert arm["best_position"]["p"] > 0.5
    assert arm["drop_points"]["mean"] == pytest.approx(-2)
    assert judged["sentence"].endswith(
        "validation accuracy has risen by 2.00 [2.00, 2.00] points. Within a cycle, accuracy (less its trend) is "
        "best no more often at a low LR than by chance (p > 0.05)."
    )


def test_of_several_arms_the_sentence_says_in_how_many(tmp_path: Path) -> None:
    follow, stay = (lambda t, k: 80 + 2 * t), (lambda t, k: 90 - 2 * abs(t - 2.5))
    arms = [
        runs(tmp_path / name, [shape] * 2).with_columns(arm=pl.lit(name))
        for name, shape in (("a", follow), ("b", stay), ("c", follow))
    ]
    judged = phase.analyze(pl.concat(arms))
    assert judged is not None
    assert judged["sentence"] == (
        "One epoch after the LR's minimum, validation accuracy is lower in 2 of 3 arms, by 8.00 to 8.00 points. "
        "Within a cycle, accuracy (less its trend) is best at a low LR more often than by chance in a, c (p ≤ 0.05)."
    )


@pytest.mark.parametrize(
    ("mean", "ci95", "words"),
    [
        (0.524, [0.4, 0.648], "dropped by 0.52 [0.40, 0.65] points"),
        (0.1, [-0.2, 0.4], "dropped by 0.10 [−0.20, 0.40] points"),
        (-0.1, [-0.4, 0.2], "risen by 0.10 [−0.20, 0.40] points"),
        (-0.001, None, "dropped by 0.00 points"),
    ],
)
def test_how_far_accuracy_moved_has_no_sign(
    mean: float, ci95: list[float] | None, words: str
) -> None:
    assert phase.moved(mean, ci95) == words


def test_noise_has_no_phase(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    judged = phase.analyze(runs(tmp_path, [lambda t, k: 80 + rng.standard_normal()] * 8))
    assert judged is not None
    (arm,) = judged["arms"]
    low, high = arm["correlation_with_lr"]["ci95"]
    assert low < 0 < high
    assert 0.01 < arm["best_position"]["p"] < 0.99
    assert arm["best_position"]["lr_rank"] == pytest.approx(0.5, abs=0.1)


def test_a_trend_is_no_phase(tmp_path: Path) -> None:
    """Rising accuracy is highest at the end of every cycle, whatever the LR does; so is noise on it."""
    rng = np.random.default_rng(0)

    def rising(t: float, k: int) -> float:
        return float(60 + 5 * np.log(5 * k + t) + 0.3 * (5 * k + t) + 0.1 * rng.standard_normal())

    judged = phase.analyze(runs(tmp_path, [rising] * 6))
    assert judged is not None
    assert 0.05 < judged["arms"][0]["best_position"]["p"] < 0.95


def test_a_run_against_the_claim_outweighs_none_that_supports_it(tmp_path: Path) -> None:
    """p = 1 of one run was a z of −4.75; ranks are summed, and 0 and 1 weigh the same."""

    def falls(t: float, k: int) -> float:
        return 90 - 2 * t

    judged = phase.analyze(runs(tmp_path, [peaks_at_ends, falls]))
    assert judged is not None
    best = judged["arms"][0]["best_position"]
    assert best["lr_rank"] == 0.5
    assert best["p"] == pytest.approx(
        0.5, abs=0.05
    )  # half of what is as likely as its mirror image


def test_equal_accuracies_share_their_rank(tmp_path: Path) -> None:
    judged = phase.analyze(runs(tmp_path, [lambda t, k: 10]))  # of a network that learns nothing
    assert judged is not None
    best = judged["arms"][0]["best_position"]
    assert best["lr_rank"] == 0.5
    assert best["p"] > 0.5


def test_every_sum_of_ranks_by_hand() -> None:
    """Two evaluations, and three: six equally likely pairs of best ones."""
    sums = phase.sums_by_chance([np.array([0, 100]), np.array([0, 50, 100])])
    assert {at: float(p) for at, p in enumerate(sums) if p} == pytest.approx(
        {0: 1 / 6, 50: 1 / 6, 100: 2 / 6, 150: 1 / 6, 200: 1 / 6}
    )


@pytest.mark.parametrize("cycles", [1, 2])
def test_without_a_second_trough_nothing_is_said(tmp_path: Path, cycles: int) -> None:
    assert phase.analyze(runs(tmp_path, [peaks_at_ends], cycles=cycles)) is None


def test_a_recovery_that_does_not_come_is_counted_as_such(tmp_path: Path) -> None:
    def sinking(t: float, k: int) -> float:
        return 90 - k + 0.1 * t

    judged = phase.analyze(runs(tmp_path, [sinking]))
    assert judged is not None
    assert judged["arms"][0]["recovery_epochs"] == {"median": None, "recovered": 0, "of": 4}


def test_every_figure_by_hand(tmp_path: Path) -> None:
    """An evaluation an epoch; cycles of two epochs, of which the first, a wild one, counts nowhere."""
    after = [80, 85, 81, 84, 82, 83, 80, 86]  # epochs 3 to 10; troughs at epochs 4, 6 and 8
    lr = [0.1, 0.01, 0.08, 0.01, 0.09, 0.02, 0.1, 0.01, 0.07, 0.03]
    rows = [
        {"step": epoch, "epoch": float(epoch), "lr": lr[epoch - 1], "val/acc": float(acc)}
        for epoch, acc in enumerate([5, 99, *after], start=1)
    ]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.save(tmp_path / "lr.npy", lr)
    plan = {"cycle_end_epochs": [2.0, 4.0, 6.0, 8.0, 10.0], "budget_epochs": 10.0}
    (tmp_path / "result.json").write_text(json.dumps({"plan": plan}))
    judged = phase.analyze(
        pl.DataFrame([{"arm": "a", "status": "complete", "folder": str(tmp_path), "final": 86.0}])
    )
    assert judged is not None
    (arm,) = judged["arms"]
    assert arm["drop_points"] == {"mean": pytest.approx((4 + 2 + 3) / 3), "ci95": None}
    # 85 and 84 do not come back before the next trough; 83 does two epochs after it, as 86
    assert arm["recovery_epochs"] == {"median": 2.0, "recovered": 1, "of": 3}
    # Partial correlation, given log(epoch), of what lies behind the first cycle
    log = np.log(range(3, 11)).tolist()
    one, other, both = correlation(after, log), correlation(lr[2:], log), correlation(after, lr[2:])
    partial = (both - one * other) / np.sqrt((1 - one**2) * (1 - other**2))
    assert arm["correlation_with_lr"]["mean"] == pytest.approx(partial)
    # Best of cycles of two evaluations: 85, 84, 83 and 86, each at the lower LR; once in 2⁴ by chance
    assert arm["best_position"] == {"lr_rank": 0.0, "cycles": 4, "p": 1 / 16}
    profile = {point["offset_epochs"]: point["mean"] for point in judged["profile"]}
    assert profile == pytest.approx({-1: -(5 + 3 + 1) / 3, 0: 0, 1: -(4 + 2 + 3) / 3})


def test_size_and_power() -> None:
    """Within four standard errors of 5 % where evaluations are independent; sure of 13 points from one run."""
    rows = phase_rates(400, np.random.default_rng(0))
    rates = {tuple(row.values())[:-2]: row["rate"] for row in rows}
    for cycles in CYCLES:
        for runs in (1, 6):
            assert rates[cycles, runs, 0, 0.0, "logarithm"] <= 0.05 + 4 * 0.011
            assert rates[cycles, runs, 0, 0.5, "logarithm"] <= 0.05 + 4 * 0.011
            assert rates[cycles, runs, 13, 0.5, "logarithm"] >= 0.85
        assert rates[cycles, 6, 3, 0.5, "logarithm"] >= 0.95


def test_anytime_by_hand(tmp_path: Path) -> None:
    (one,) = run_tables.anytime(runs(tmp_path, [peaks_at_ends], cycles=2)) or []
    assert list(one["epochs_to"]) == ["85.0", "88.0", "89.0", "90.0"]
    assert list(one["epochs_to"].values()) == [2.5, 4, 4.5, 5]
    rising = np.array([80 + 2 * t / 4 for t in range(1, 21)])
    assert one["area"] == pytest.approx((rising.sum() + 20 * 90) / 40)


def test_a_goal_that_one_run_does_not_reach_has_no_time(tmp_path: Path) -> None:
    table = runs(tmp_path, [lambda t, k: 80 + 2 * t, lambda t, k: 76 + 2 * t], cycles=2)
    (one,) = run_tables.anytime(table) or []  # ends of 90 and 86, goals from their mean
    assert one["epochs_to"] == {"83.0": 2.5, "86.0": 4.0, "87.0": None, "88.0": None}
