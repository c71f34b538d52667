"""The calibration: what it draws, that the verdict keeps what it promises, and that a broken promise shows."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import calibrate_verdict
import numpy as np
import pytest
from calibration import designs, looks, tuning
from calibration.designs import Rate
from conftest import ROOT


@pytest.fixture(scope="module")
def tables() -> dict[str, list[designs.Row]]:
    rng = np.random.default_rng(1)
    return {
        name: list(make(max(1, 400 // share), rng))
        for name, (make, share) in calibrate_verdict.DESIGNS.items()
    }


def test_every_promise_is_kept(tables: dict[str, Any]) -> None:
    kept = list(calibrate_verdict.promises(tables))
    assert [promise for holds, promise in kept if not holds] == []
    assert len(kept) >= 30


@pytest.mark.parametrize(
    ("table", "column", "share"),
    [
        ("fixed", 'false "supported"', 0.09),
        ("fixed", 'strictly "supported" at the margin', 0.09),
        ("fixed", "coverage", 0.9),
        ("several", "with max-t", 0.2),
        ("several", "at the margin, with max-t", 0.2),
        ("several", "power for the one of 0.5", 0.0),
        ("tuned", 'false "supported", over every LR', 0.09),
        ("tuned", "power at 0.5, over every LR", 0.5),
        ("breaking", '"supported" where a run broke', 0.05),
        ("other_images", "seeds × images", 0.5),
        ("over_cells", "coverage", 0.8),
        ("looks_over_cells", "coverage", 0.8),
        ("looks", 'false "supported"', 0.09),
        ("looks", 'false "supported", without futility', 0.09),
        ("looks", 'strictly "supported" at the margin', 0.09),
        ("looks", 'strictly "supported" at the margin, without futility', 0.09),
        ("looks", "coverage", 0.8),
        ("looks", "power lost", 0.15),
        ("looks", "pairs at 0", 22),
        ("looks", "pairs at 0.2", 22),
        ("looks", "pairs at 0.5", 10),
        ("looks_several", 'any false "supported"', 0.2),
        ("looks_several", 'any strictly "supported" at the margin', 0.2),
        ("looks_skewed", 'false "supported" without remark', 0.2),
        ("looks_replayed", "as with all 16", 0.9),
        ("looks_replayed", "pairs", 14),
        ("tuned_by_plan", 'false "supported", over every LR', 0.2),
        ("unpaired", 'false "supported"', 0.09),
    ],
)
def test_a_broken_promise_shows(
    tables: dict[str, Any], table: str, column: str, share: float
) -> None:
    broken = [row | {column: _like(row[column], share)} for row in tables[table]]
    kept = calibrate_verdict.promises(tables | {table: broken})
    assert not all(holds for holds, _ in kept)


def _like(value: Rate | float, share: float) -> Rate | float:
    return Rate(share, value.draws) if isinstance(value, Rate) else share


def test_what_other_rules_would_do(tables: dict[str, Any]) -> None:
    """The faults that the rules are there for do show in the draws."""
    several, tuned = (
        [row for row in tables[name] if row["sd"] == 0.3] for name in ("several", "tuned")
    )
    assert np.mean([row['any false "supported", each by itself'].share for row in several]) > 0.06
    assert several[0]["power with Holm"].share == 0, "six pairs never decided six comparisons"
    assert tuned[-1]['false "supported", at the tuned LRs'].share > 0.1
    assert tables["peeking"][-1]['false "supported"'].share > 0.1
    for name in ("looks", "looks_skewed"):
        skewed = [row for row in tables[name] if row["pairs of"] == "skewed"]
        assert max(row['false "supported"'].share for row in skewed) > 0.06
    by_plan = tables["tuned_by_plan"]
    assert np.mean([row['false "supported", at the tuned LRs'].share for row in by_plan]) > 0.03
    alone = [row["seeds alone"].share for row in tables["other_images"]]
    assert min(alone) < 0.8


def test_the_study_would_have_stopped_early() -> None:
    """docs/verdict.md: the 16 pairs of Fashion-MNIST in 2,000 orders."""
    rows = looks.looks_replayed(2000, np.random.default_rng(3))
    found = {(row["at most"], row["decide"]): row for row in rows}
    pairs = {plan: row["pairs"] for plan, row in found.items()}
    assert pairs == pytest.approx(
        {(16, "zero"): 7.2, (16, "margin"): 10.4, (30, "zero"): 8.8, (30, "margin"): 12.8}, abs=0.2
    )
    assert all(row["as with all 16"].share == row["decided"].share == 1 for row in found.values())


def test_a_grid_goes_on_to_where_accuracy_is_best() -> None:
    octaves = np.arange(len(tuning.LRS))
    for best, chosen in enumerate(tuning.LRS):
        index, tried = tuning.tune(np.tile(-(np.abs(octaves - best) ** 2.0), (5, 1)))
        assert tuning.LRS[index] == chosen
        assert tried[tuning.LRS.index("0.05") : tuning.LRS.index("0.2") + 1].all()
        assert tried.sum() == 3 + min(3, max(0, abs(best - 4)))


@pytest.mark.parametrize("kind", [*designs.KINDS, *designs.BEYOND])
def test_draws_have_the_spread_that_they_name(kind: str) -> None:
    drawn = designs.draw(kind, 0.3, (1000, 100), np.random.default_rng(2))
    assert drawn.mean() == pytest.approx(0, abs=0.005)
    assert drawn.std() == pytest.approx(0.3, rel=0.2 if kind == "coarse" else 0.1)


def test_tables_as_csv_have_a_column_for_each_error(tmp_path: Path) -> None:
    calibrate_verdict.write_csv(tmp_path / "t.csv", [{"pairs": 6, "rate": Rate(0.025, 10_000)}])
    with (tmp_path / "t.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"pairs": "6", "rate": "2.50", "rate ±": "0.16"}]


@pytest.mark.slow
def test_the_script_prints_tables_and_ends_well() -> None:
    command = [sys.executable, "scripts/calibrate_verdict.py", "--sweeps", "1500"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "| normal | 0.3 | 10 | " in done.stdout
    assert "\n- BROKEN" not in done.stdout
