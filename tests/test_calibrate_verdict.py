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
from calibration import designs
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
    assert len(kept) >= 14


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
    ],
)
def test_a_broken_promise_shows(
    tables: dict[str, Any], table: str, column: str, share: float
) -> None:
    broken = [row | {column: Rate(share, row[column].draws)} for row in tables[table]]
    kept = calibrate_verdict.promises(tables | {table: broken})
    assert not all(holds for holds, _ in kept)


def test_what_other_rules_would_do(tables: dict[str, Any]) -> None:
    """The faults that the rules are there for do show in the draws."""
    several, tuned = (
        [row for row in tables[name] if row["sd"] == 0.3] for name in ("several", "tuned")
    )
    assert np.mean([row['any false "supported", each by itself'].share for row in several]) > 0.06
    assert several[0]["power with Holm"].share == 0, "six pairs never decided six comparisons"
    assert tuned[-1]['false "supported", at the tuned LRs'].share > 0.1
    assert tables["peeking"][-1]['false "supported"'].share > 0.1
    alone = [row["seeds alone"].share for row in tables["other_images"]]
    assert min(alone) < 0.8


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
