"""What a finished sweep comes to, beyond what its parts test."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Main, make_config

from harness.analysis.verdict import Claim
from harness.config.values import to_dict
from harness.report import summary

# --- through scripts/report.py, on folders of sweeps ---------------------------------------------

TWO = Claim("scheduler.t_mult", "1", ("2",), seeds=(0, 1))
Run = tuple[str, float]  # status, and the last accuracy


def made(
    folder: Path,
    arms: Mapping[str, Sequence[Run]],
    claim: Claim | None,
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int = 4,
) -> Path:
    """The folder of a sweep over `scheduler.t_mult`, without W&B; a missing run has no folder."""
    plan: dict[str, Any] = {"command": ["train.py", "-m"], "claim": claim and claim.to_dict()}
    plan["arms"] = []
    for level, runs in arms.items():
        for seed, (status, final) in zip(seeds, runs, strict=False):
            num, name = len(plan["arms"]), f"t_mult={level}, seed={seed}"
            swept = {"scheduler.t_mult": level, "seed": str(seed)}
            own = {"name": name, "arm": f"t_mult={level}", "swept": swept, "overrides": []}
            shape = {"budget_epochs": epochs, "aligned": True, "nearest_aligned_epochs": [],
                     "updates_per_epoch": 1}  # fmt: skip
            plan["arms"].append(own | {"num": num, "branches": [], "seed": seed, "plan": shape})
            if status != "missing":
                _ended(folder / str(num), own, seed, epochs, status, final)
    folder.mkdir(exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


def _ended(
    folder: Path, own: dict[str, Any], seed: int, epochs: int, status: str, final: float
) -> None:
    """A run that rose by a point an epoch, to `final`; its test accuracy is 100 less that."""
    folder.mkdir(parents=True)
    rows = [
        {"step": epoch, "epoch": float(epoch), "lr": 0.1, "val/acc": final - epochs + epoch}
        for epoch in range(1, epochs + 1)
    ]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.save(folder / "lr.npy", np.full(epochs, 0.1))
    plan = {"updates": epochs, "updates_per_epoch": 1, "budget_epochs": epochs,
            "cycle_end_epochs": [epochs], "restart_epochs": [], "lr_share_at_end": 1.0}  # fmt: skip
    result = own | {
        "config": {**_config(), "seed": seed},
        "status": status, "error": None if status == "complete" else status, "plan": plan,
        "fingerprint": own["name"], "final": {"val/acc": final}, "best": {"val/acc": final},
        "test": {"test/acc": 100 - final}, "seconds": {"total": 1.5},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))


@cache
def _config() -> dict[str, Any]:
    return to_dict(make_config("tracking=none"))


def complete(*finals: float) -> list[Run]:
    return [("complete", final) for final in finals]


def verdict_of(report: Main, out: Path, *sweeps: Path) -> dict[str, Any]:
    done = report(*sweeps, "--out", out)
    assert done.returncode == 0, done.stderr
    verdict: dict[str, Any] = json.loads((out / "verdict.json").read_text())
    return verdict


@pytest.mark.parametrize("status", ["diverged", "interrupted", "failed"])
def test_an_arm_is_what_its_complete_runs_are(tmp_path: Path, report: Main, status: str) -> None:
    """The others have accuracies too, of where they ended; they are counted, and so is their time."""
    first = [*complete(90, 92), (status, 10.0)]
    sweep = made(tmp_path / "sweep", {"1": first, "2": [(status, 20.0)] * 3}, None)
    done = report(sweep)
    assert done.returncode == 0, done.stderr
    one, other = (line.split() for line in done.stdout.splitlines()[2:4])
    figures = ["91.00", "±", "1.41", "91.00", "±", "1.41", "9.00", "±", "1.41"]
    assert one == ["t_mult=1", "2", "of", "3", *figures, "0", "100.0%", "4.5"]
    assert other == ["t_mult=2", "0", "of", "3", "-", "-", "-", "0", "100.0%", "4.5"]


@pytest.mark.parametrize(
    "change",
    [
        {"margin": 0.5}, {"level": 0.01}, {"metric": "test/acc"}, {"baseline": "2", "treatments": ("1",)},
        {"factor": "arm"}, {"inferred": True},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_sweeps_that_judge_different_claims_are_refused(
    tmp_path: Path, report: Main, change: dict[str, Any]
) -> None:
    arms = {"1": complete(90, 91), "2": complete(91, 92)}
    first = made(tmp_path / "first", arms, TWO)
    second = made(tmp_path / "second", arms, dataclasses.replace(TWO, **change))
    done = report(first, second, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert done.stdout == ""
    said = "these sweeps judge different claims: report them one by one"
    assert done.stderr.splitlines()[-1] == f"error: {said}"
    assert not list((tmp_path / "out").iterdir())


def test_sweeps_that_disagree_in_which_is_better_are_refused(tmp_path: Path, report: Main) -> None:
    arms = {"1": complete(90, 91), "2": complete(91, 92)}
    claim = dataclasses.replace(TWO, metric="val/score", unit="")
    first = made(tmp_path / "first", arms, claim)
    second = made(tmp_path / "second", arms, dataclasses.replace(claim, better="lower"))
    done = report(first, second, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: these sweeps disagree in whether higher or lower is better of val/score: report them one by one"
    )


def test_a_run_that_recorded_another_direction_than_the_claim_is_refused(
    tmp_path: Path, report: Main
) -> None:
    claim = dataclasses.replace(TWO, metric="val/score", unit="")
    sweep = made(tmp_path / "sweep", {"1": complete(90, 91), "2": complete(91, 92)}, claim)
    path = sweep / "2/result.json"
    metrics = {"score": {"better": "lower", "unit": ""}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metrics": metrics}))
    done = report(sweep)
    assert "verdict" not in done.stdout
    assert (
        "claim.metric=val/score: higher is better by the claim, lower by the run t_mult=2, seed=0; report what agrees"
    ) in done.stderr
    assert not (sweep / "verdict.json").exists()


def test_the_treatments_and_seeds_of_several_sweeps_add_up(tmp_path: Path, report: Main) -> None:
    first = made(tmp_path / "first", {"1": complete(90, 91), "2": complete(91, 93)}, TWO)
    claim = dataclasses.replace(TWO, treatments=("3",), seeds=(1, 7))
    arms = {"1": complete(91, 92), "3": [*complete(94), ("missing", 0.0)]}
    second = made(tmp_path / "second", arms, claim, seeds=(1, 7))
    verdict = verdict_of(report, tmp_path / "out", first, second)
    assert verdict["claim"]["treatments"] == ["2", "3"]
    assert verdict["claim"]["seeds"] == [0, 1, 7]
    differences = {
        one["treatment"]: {pair["seed"]: pair["difference"] for pair in one["pairs"]}
        for one in verdict["comparisons"]
    }
    assert differences == {"2": {0: 1, 1: 2}, "3": {1: 3}}
    assert verdict["claim_changed"] is False


def test_the_cells_of_a_study_have_its_names(tmp_path: Path) -> None:
    sweeps = [
        made(tmp_path / "first", {"1": complete(90, 91), "2": complete(91, 92)}, TWO),
        made(tmp_path / "second", {"1": complete(80, 81), "2": complete(83, 84)}, TWO),
    ]
    out, ledger = tmp_path / "out", tmp_path / "ledger.jsonl"
    out.mkdir()
    for sweep in sweeps:
        summary.write_summary([sweep], sweep, ledger)
    text, failures = summary.write_summary(sweeps, out, ledger, ["one", "other"])
    assert not failures
    verdict = json.loads((out / "verdict.json").read_text())
    measured = {one["cell"]: (one["n"], one["mean"]) for one in verdict["comparisons"]}
    assert measured == {"one": (2, 1), "other": (2, 3)}
    arms = [line.split("  ")[0] for line in text.splitlines()[2:6]]
    assert arms == ["one: t_mult=1", "other: t_mult=1", "one: t_mult=2", "other: t_mult=2"]


def test_runs_of_other_budgets_are_other_runs(tmp_path: Path, report: Main) -> None:
    arms = {"1": complete(90, 92)}
    sweeps = [made(tmp_path / str(epochs), arms, None, epochs=epochs) for epochs in (4, 8)]
    done = report(*sweeps, sweeps[0], "--out", tmp_path / "out")
    assert done.stdout.splitlines()[2].split()[:2] == ["t_mult=1", "4"]


def test_of_a_run_that_is_in_several_sweeps_the_complete_one_counts(
    tmp_path: Path, report: Main
) -> None:
    stopped = [("interrupted", 50.0), ("missing", 0.0)]
    first = made(tmp_path / "first", {"1": stopped, "2": complete(91, 93)}, TWO)
    second = made(tmp_path / "second", {"1": complete(90, 91), "2": stopped}, TWO)
    for number, sweeps in enumerate(((first, second), (second, first))):
        verdict = verdict_of(report, tmp_path / str(number), *sweeps)
        (compared,) = verdict["comparisons"]
        assert [pair["difference"] for pair in compared["pairs"]] == [1, 2]
        assert compared["left_out"] == []


def test_what_was_trained_is_in_the_verdict_without_folders(tmp_path: Path, report: Main) -> None:
    failed = [*complete(91), ("failed", 0.0)]
    sweep = made(tmp_path / "sweep", {"1": complete(90, 91), "2": failed}, TWO)
    for number in range(4):
        path = sweep / f"{number}/result.json"
        own = json.loads(path.read_text())
        own |= {"images": {"train": 1149, "val": 288, "test": 360}, "numerics": {"device": "cpu"},
                "commit": "06a92ddc0ffe", "dirty": number == 1}  # fmt: skip
        own["tracking"] = f"{sweep}/{number}/wandb/offline-run"
        if own["status"] == "failed":
            own["error"] = f"[Errno 2] No such file: '{tmp_path}/data/x.npz'"
        path.write_text(json.dumps(own))
    plan = json.loads((sweep / "plan.json").read_text())
    plan["command"] = [
        "/home/me/train.py",
        "-m",
        f"hydra.sweep.dir={sweep}",
        "dataset.root=/home/me/x",
    ]
    (sweep / "plan.json").write_text(json.dumps(plan))
    verdict = verdict_of(report, tmp_path / "out", sweep)
    trained = verdict["trained"]
    assert trained["line"].startswith("ResNet-8 · digits, 1,149 train / 288 val · ")
    assert trained["commits"] == [{"commit": "06a92ddc0ffe", "dirty": True}]
    page = (tmp_path / "out/report.html").read_text().partition('id="specs"')[0]
    for shown in ("06a92ddc0ffe, with uncommitted changes", "python train.py -m", "sweep/0/wandb/offline-run",
                  "dataset.root=…/x", "No such file: &#39;data/x.npz"):  # fmt: skip
        assert shown in page
    for text in (page, (tmp_path / "out/verdict.json").read_text()):
        assert "/home/me" not in text
        assert str(tmp_path) not in text


@pytest.mark.parametrize(("metric", "difference"), [("val/acc", 1), ("test/acc", -1)])
def test_a_claim_is_judged_by_its_metric(
    tmp_path: Path, report: Main, metric: str, difference: float
) -> None:
    claim = dataclasses.replace(TWO, metric=metric)
    sweep = made(tmp_path / "sweep", {"1": complete(90, 91), "2": complete(91, 92)}, claim)
    (compared,) = verdict_of(report, tmp_path / "out", sweep)["comparisons"]
    assert [pair["difference"] for pair in compared["pairs"]] == [difference] * 2


@pytest.mark.parametrize("old", [1, 4], ids=["of one run", "of all runs"])
def test_a_claim_that_a_run_was_not_trained_for_is_called_changed(
    tmp_path: Path, report: Main, old: int
) -> None:
    sweep = made(tmp_path / "sweep", {"1": complete(90, 91), "2": complete(91, 92)}, TWO)
    before = dataclasses.replace(TWO, margin=1).sha256()
    for number in range(4):
        path = sweep / f"{number}/result.json"
        sha256 = before if number < old else TWO.sha256()
        path.write_text(json.dumps({**json.loads(path.read_text()), "claim_sha256": sha256}))
    assert verdict_of(report, tmp_path / "out", sweep)["claim_changed"] is True


def test_a_verdict_has_snapshots_and_the_best_so_far_by_arm(tmp_path: Path, report: Main) -> None:
    sweep = made(tmp_path / "sweep", {"1": complete(90, 92), "2": complete(91, 93)}, TWO)
    for number, accuracies in enumerate([[80.0, 82.0], [84.0, 83.0], [70.0]]):
        (sweep / f"{number}/snapshots.json").write_text(json.dumps({"test/acc": accuracies}))
    verdict = verdict_of(report, tmp_path / "out", sweep)
    figures = [
        (one["arm"], one["members"], one["test_acc_mean"], one["sd"])
        for one in verdict["snapshots"]
    ]
    assert sorted(figures) == [
        ("t_mult=1", 1, 82.0, pytest.approx(8**0.5)),
        ("t_mult=1", 2, 82.5, pytest.approx(0.5**0.5)),
        ("t_mult=2", 1, 70.0, None),
    ]
    first, second = verdict["anytime"]
    assert (first["area"], second["area"]) == (91 - 1.5, 92 - 1.5)
    # Arm 1 ends at 90 and 92: 89 is reached after epoch 3 and, by the other, from the first on
    assert first["epochs_to"] == {"86.0": 1.0, "89.0": 2.0, "90.0": 3.0, "91.0": None}
    assert second["epochs_to"] == {"86.0": 1.0, "89.0": 1.5, "90.0": 2.0, "91.0": 3.0}
