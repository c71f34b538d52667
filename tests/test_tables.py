"""Tables of a study in Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
from conftest import ROOT

from harness.report import tables


def lines(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def test_the_published_tables_follow_from_the_published_verdicts() -> None:
    verdict = json.loads((ROOT / "docs/study/verdict.json").read_text())
    published = (ROOT / "docs/study/tables.md").read_text()
    judged = [verdict["primary"], *verdict["arms"].values(), *verdict["short"].values()]
    for one in [*judged, verdict["one_cosine"]]:
        assert tables.differences(one) in published
    assert tables.phase(verdict) in published


def test_a_comparison_that_is_invalid_or_judged_in_looks() -> None:
    shown = {"treatment": "b", "cell": "", "n": 8, "mean": 0.5, "ci95": [0.1, 0.9]}
    comparisons = [
        shown | {"p_adjusted": None, "verdict": "supported, size unsure"},
        shown | {"p_adjusted": None, "verdict": "invalid", "cell": "c"},
    ]
    table = tables.differences({"claim": {"looks": [6, 8]}, "comparisons": comparisons})
    header, _, *rows = lines(table)
    assert header[-2:] == ["repeated 95 % interval", "verdict"]
    assert rows == [
        ["b", "8", "+0.50", "+0.10 to +0.90", "supported, size unsure"],
        ["b, c", "8", "–", "–", "invalid"],
    ]
    fixed = tables.differences({"claim": {}, "comparisons": comparisons})
    assert lines(fixed)[3] == ["b, c", "8", "–", "–", "–", "invalid"]


def run(folder: Path, arm: str, final: float | None, lr: float = 0.1) -> dict[str, Any]:
    return {
        "arm": f"arm={arm}", "level": arm, "lr": lr, "status": "complete" if final else "diverged",
        "final": final, "best": final, "test": final, "folder": str(folder),
    }  # fmt: skip


def test_arms_are_means_of_their_complete_runs(tmp_path: Path) -> None:
    row = {"step": 1, "epoch": 1.0, "lr": 0.1, "val/acc": 80.0}
    (tmp_path / "history.jsonl").write_text(json.dumps(row) + "\n")
    runs = [run(tmp_path, "a", acc) for acc in (90.0, 92.0, None)] + [run(tmp_path, "b", None, 0.2)]
    assert lines(tables.arms(pl.DataFrame(runs, infer_schema_length=None)))[2:] == [
        ["a", "0.1", "2 of 3", *["91.00 ± 12.71"] * 3, "80.00"],
        ["b", "0.2", "0 of 1", "–", "–", "–", "–"],
    ]


def test_the_values_that_arms_tried_and_chose() -> None:
    record = {
        "keys": ["optimizer.lr"],
        "arms": [
            {"arm": "arm=a", "value": "0.1", "tried": {"0.1": [90.0, 91.0], "0.2": [90.0, None]}},
            {"arm": "arm=b", "value": "0.05", "tried": {"0.1": [90.0, 90.0], "0.05": [99.0, 98.0]}},
        ],
    }
    table, rule = tables.tuning({"claim": {"factor": "arm"}, "tuning": record}).split("\n\n")
    assert rule.startswith("Mean `val/acc` on the tuning seeds; bold: chosen")
    assert lines(table) == [
        ["arm", "lr=0.05", "lr=0.1", "lr=0.2"],
        ["---", "---:", "---:", "---:"],
        ["a", "–", "**90.50**", "diverged"],
        ["b", "**98.50**", "90.00", "–"],
    ]
    assert tables.tuning({"claim": {"factor": "arm"}}) == ""


def test_two_keys_are_a_column_a_pair() -> None:
    tried = {"0.1, 10": [90.0, 91.0], "0.1, 9": [80.0, 81.0]}
    record = {
        "keys": ["optimizer.lr", "trainer.batch_size"],
        "arms": [{"arm": "t_mult=2", "value": "0.1, 10", "tried": tried}],
    }
    table = tables.tuning({"claim": {"factor": "scheduler.t_mult"}, "tuning": record})
    assert lines(table)[0] == ["arm", "lr=0.1, batch_size=9", "lr=0.1, batch_size=10"]
    assert lines(table)[2] == ["2", "80.50", "**90.50**"]


def test_snapshot_ensembles_of_arms_with_more_and_fewer_cycles(tmp_path: Path) -> None:
    runs = []
    for number, (arm, accuracies) in enumerate([("a", [80, 90]), ("a", [82, 92]), ("b", [70])]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "snapshots.json").write_text(json.dumps({"test/acc": accuracies}))
        runs.append(run(folder, arm, 90.0))
    runs.append(run(tmp_path, "constant", 90.0))
    assert lines(tables.snapshots(pl.DataFrame(runs))) == [
        ["arm", "1 member", "2 members"],
        ["---", "---:", "---:"],
        ["a", "81.00", "91.00"],
        ["b", "70.00", "–"],
    ]


def test_accuracy_around_the_minima_of_one_run_has_no_interval() -> None:
    alone = {"mean": 0.5, "ci95": None}
    back = {"median": None, "recovered": 0, "of": 2}
    arm = {
        "arm": "a", "runs": 1, "drop_points": alone, "correlation_with_lr": alone,
        "recovery_epochs": back, "best_position": {"lr_rank": None, "p": None},
    }  # fmt: skip
    assert lines(tables.phase({"phase": {"arms": [arm]}}))[2] == [
        "a", "1", "0.50", "– (0 of 2 came back)", "+0.50", "– (p = –)",
    ]  # fmt: skip
    assert tables.phase({"phase": None}) == ""
