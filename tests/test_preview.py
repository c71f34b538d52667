"""A sweep before it is trained: what its runs share, and what is unfair."""

from __future__ import annotations

import subprocess
from pathlib import Path

import forked
from conftest import ROOT, make_config

from harness.runs.setup import lr_plan
from harness.sweeps import prefix_tree


def plan(name: str, *overrides: str) -> prefix_tree.PlannedRun:
    config = make_config(*overrides)
    return prefix_tree.PlannedRun(name, name, config, lr_plan(config))


def test_the_tree_of_the_budgets_and_multipliers() -> None:
    planned = [
        plan(f"{t_mult} {epochs} {seed}", f"scheduler.t_mult={t_mult}", f"trainer.epochs={epochs}",
             f"seed={seed}")
        for t_mult in (1, 2) for epochs in (15, 35, 75) for seed in (0, 1)
    ]  # fmt: skip
    roots = prefix_tree.prefix_trees(planned)
    assert prefix_tree.total_epochs(planned) == 500
    assert prefix_tree.epochs_to_train(roots) == 2 * (75 + 70 - 1 / 8), (
        "the restart's peak is shared"
    )
    parts = prefix_tree.branch_steps(roots)
    assert parts["1 75 0"] == {41, 120, 280}
    assert parts["2 35 1"] == {41, 120, 280}
    assert prefix_tree.draw_trees(roots).splitlines()[:4] == [
        "epochs 0–5.125, shared by 6",
        "├ epochs 5.125–15, shared by 3: ends 1 15 0",
        "│ └ epochs 15–35, shared by 2: ends 1 35 0",
        "│   └ epochs 35–75: ends 1 75 0",
    ]


def preview_of(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return forked.complete(ROOT / "scripts/preview.py", "-m", *overrides, cwd=folder)


def test_the_preview_says_what_is_unfair_before_anything_is_trained(tmp_path: Path) -> None:
    done = preview_of(tmp_path, "scheduler.t_mult=1,2", "trainer.epochs=50", "seed=0,1")
    assert done.returncode == 0
    page = (tmp_path / "outputs/preview/preview.html").read_text()
    assert "<pre>arm       seeds  epochs" in page
    assert "70% of its peak" in page
    assert (tmp_path / "outputs/preview/preview.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("**/result.json"))
    assert [line.split()[:3] for line in done.stdout.splitlines()[2:4]] == [
        ["t_mult=1", "2", "50"], ["t_mult=2", "2", "50"],
    ]  # fmt: skip
    assert done.stderr.splitlines() == [
        "warning: t_mult=2: trainer.epochs=50 ends in mid-cycle, with the LR at 70% of its peak; "
        "the nearest budgets that end a cycle: 35 and 75",
        "warning: the arms do not end alike, an unfair comparison: LR at the end 0% in t_mult=1, "
        "70% in t_mult=2",
        "warning: 2 seeds an arm: a verdict over 1 comparison needs at least 6, as in 'seed=range(0,6)'",
    ]


def test_seeds_share_nothing_and_equal_runs_share_all() -> None:
    assert len(prefix_tree.prefix_trees([plan("a"), plan("b", "seed=1")])) == 2
    roots = prefix_tree.prefix_trees([plan("a"), plan("b", "tracking=wandb")])
    assert [node.runs[0].name for root in roots for node in root] == ["a"]
    assert prefix_tree.epochs_to_train(roots) == 35
