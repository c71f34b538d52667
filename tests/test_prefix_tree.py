"""What the runs of a sweep share."""

from __future__ import annotations

from conftest import make_config

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


def test_seeds_share_nothing_and_equal_runs_share_all() -> None:
    assert len(prefix_tree.prefix_trees([plan("a"), plan("b", "seed=1")])) == 2
    roots = prefix_tree.prefix_trees([plan("a"), plan("b", "tracking=wandb")])
    assert [node.runs[0].name for root in roots for node in root] == ["a"]
    assert prefix_tree.epochs_to_train(roots) == 35
