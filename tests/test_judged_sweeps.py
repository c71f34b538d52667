"""What surrounds the arithmetic of a verdict, end to end through the command line: pooling, LRs, divergence, plans."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import numpy as np
import polars as pl
import pytest
from conftest import ROOT, Main, verified

TINY = ("trainer.epochs=3", "scheduler.t_0=1", "trainer.batch_size=500", "model.width=1", "tracking=none",
        "scheduler.t_mult=1,3")  # fmt: skip

Sweep = Callable[..., tuple[Path, str]]


@pytest.fixture
def sweep(main: Main, tmp_path: Path) -> Sweep:
    """`python train.py -m OVERRIDES` into the folder `name`: the folder, and what was printed on stderr."""

    def train(name: str, *overrides: str) -> tuple[Path, str]:
        own = {override.partition("=")[0] for override in overrides}
        words = [word for word in TINY if word.partition("=")[0] not in own]
        where = (f"hydra.sweep.dir={tmp_path / name}", f"store.dir={tmp_path / 'store'}")
        return tmp_path / name, main("-m", *words, *where, *overrides).stderr

    return train


def verdict(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "verdict.json").read_text())
    return document


def judged(report: Main, tmp_path: Path, *sweeps: Path) -> dict[str, Any]:
    report(*map(str, sweeps), "--out", str(tmp_path / "out"))
    return verdict(tmp_path / "out")


def cells(document: dict[str, Any]) -> list[tuple[str, int]]:
    return [(one["cell"], one["n"]) for one in document["comparisons"]]


@pytest.mark.slow
def test_sweeps_of_two_data_sets_are_two_cells(sweep: Sweep, report: Main, tmp_path: Path) -> None:
    digits, _ = sweep("digits", "seed=0,1,2")
    synthetic, _ = sweep("synthetic", "seed=3,4", "dataset=synthetic")
    found = [("dataset=digits", 3), ("dataset=synthetic", 2)]
    assert cells(judged(report, tmp_path, digits, synthetic)) == found
    assert cells(judged(report, tmp_path, synthetic, digits)) == found


@pytest.mark.slow
def test_sweeps_at_two_lrs_are_two_cells_in_any_order(
    sweep: Sweep, report: Main, tmp_path: Path
) -> None:
    one, _ = sweep("one", "seed=0", "optimizer.lr=0.1")
    other, _ = sweep("other", "seed=0,1", "optimizer.lr=0.01")
    first, second = (judged(report, tmp_path, *pair) for pair in ((one, other), (other, one)))
    assert cells(first) == [("optimizer.lr=0.01", 2), ("optimizer.lr=0.1", 1)]
    assert first["comparisons"] == second["comparisons"]


@pytest.mark.slow
def test_more_seeds_of_the_same_settings_are_pooled(
    sweep: Sweep, report: Main, tmp_path: Path
) -> None:
    one, _ = sweep("one", "seed=0,1", "trainer.checkpoint_every=7")
    other, _ = sweep("other", "seed=2,3", "claim.margin=0.2", "store.keep=last")
    assert cells(judged(report, tmp_path, one, other)) == [("", 4)]


@pytest.mark.slow
def test_arms_with_files_of_their_own_are_one_cell(main: Main, tmp_path: Path) -> None:
    main("-m", "arm=times_1,linear", "claim.factor=arm", "seed=0,1", "trainer.epochs=5", "model.width=1",
         "trainer.batch_size=500", "tracking=none", f"hydra.sweep.dir={tmp_path / 's'}",
         f"store.dir={tmp_path / 'store'}")  # fmt: skip
    assert cells(verdict(tmp_path / "s")) == [("", 2)]


@pytest.mark.slow
def test_a_treatment_is_held_against_the_baseline_at_every_lr(sweep: Sweep) -> None:
    folder, said = sweep(
        "tuned", "seed=0", "optimizer.lr=0.05,0.1", "claim.factor=scheduler.t_mult",
        "claim.tuned_over=optimizer.lr", "claim.baseline=1.0",
    )  # fmt: skip
    assert "judged by: scheduler.t_mult=3 against 1 at each optimizer.lr, 2 comparisons" in said
    document = verdict(folder)
    assert document["claim"]["baseline"] == "1", "1.0 is 1"
    assert document["claim"]["tuned_over"] == "optimizer.lr"
    tuned = [one["tuned"] for one in document["comparisons"]]
    assert [one["treatment"] for one in tuned] == ["0.05", "0.1"]
    assert [[a["value"] for a in one["against"]] for one in tuned] == [["0.05", "0.1"]] * 2
    assert "t_mult=3 at optimizer.lr=0.05: " in document["sentence"]


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("claim.tuned_over=optimizer.lr", "claim.tuned_over=optimizer.lr: is not swept; sweep it"),
        ("claim.tuned_over=scheduler.t_mult", "tuned_over=scheduler.t_mult: must be another key"),
        ("claim.rivals=[4]", "claim.rivals=4: scheduler.t_mult has the levels 1, 3"),
        ("claim.rivals=[1]", "rivals: 1 must be among the treatments"),
        ("claim.baseline=2", "claim.baseline=2: scheduler.t_mult has the levels 1, 3"),
    ],
)
def test_claims_that_make_no_sense(sweep: Sweep, override: str, error: str) -> None:
    folder, said = sweep("none", "seed=0,1", override)
    assert error in said
    assert not (folder / "plan.json").exists()


@pytest.mark.slow
def test_an_arm_with_its_own_lr_is_said(main: Main, tmp_path: Path) -> None:
    conf = tmp_path / "conf" / "arm"
    conf.mkdir(parents=True)
    for name, lr in (("small", 0.05), ("large", 0.2)):
        head = "# @package _global_\ndefaults:\n  - override /scheduler: linear\n"
        (conf / f"{name}.yaml").write_text(f"{head}optimizer:\n  lr: {lr}\n")
    main("--config-dir", str(tmp_path / "conf"), "-m", "arm=small,large", "seed=0,1", "trainer.epochs=1",
         "model.width=1", "trainer.batch_size=500", "tracking=none", "claim.factor=arm",
         f"hydra.sweep.dir={tmp_path / 's'}", f"store.dir={tmp_path / 'store'}")  # fmt: skip
    (comparison,) = verdict(tmp_path / "s")["comparisons"]
    assert comparison["n"] == 2
    assert "Given these LRs: 0.2 against 0.05." in comparison["sentence"]


@pytest.mark.slow
def test_a_sweep_says_before_training_that_its_seeds_are_too_few(sweep: Sweep) -> None:
    _, one = sweep("one", "seed=0,1")
    assert "2 seeds an arm: a verdict over 1 comparison needs at least 6" in one
    _, cells = sweep("cells", "optimizer.lr=0.1,0.2", "seed=0,1", "claim.factor=scheduler.t_mult")
    assert "a verdict over 2 comparisons needs at least 7" in cells
    _, level = sweep("level", "seed=0,1", "claim.level=0.01")
    assert "needs at least 8" in level


@pytest.mark.slow
def test_a_sweep_that_goes_on_announces_what_is_left(sweep: Sweep) -> None:
    folder, said = sweep("half", "seed=0,1")
    assert "4 runs, 12 epochs" in said
    for number in (0, 3):
        path = folder / str(number) / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "interrupted"}))
    _, again = sweep("half", "seed=0,1")
    assert "2 of 4 runs are complete; 2 runs, 6 epochs" in again
    _, nothing = sweep("half", "seed=0,1")
    assert "4 of 4 runs are complete; nothing is left to train" in nothing


@pytest.mark.slow
def test_a_run_that_fails_for_its_surroundings_is_missing_and_the_verdict_interim(
    sweep: Sweep, report: Main
) -> None:
    folder, _ = sweep("failed", "seed=range(0,2)", "scheduler.t_mult=1,2")
    path = folder / "3" / "result.json"
    lost = {"status": "failed", "error": "[Errno 28] No space left on device"}
    path.write_text(json.dumps(json.loads(path.read_text()) | lost))
    report(str(folder))
    (comparison,) = verdict(folder)["comparisons"]
    assert (comparison["verdict"], comparison["n"], comparison["planned"]) == ("interim", 1, 2)
    assert "interim, 1 of 2 pairs" in comparison["sentence"]
    assert comparison["intention_to_treat"] is None


@pytest.mark.slow
def test_a_network_that_cannot_be_built_follows_from_the_configuration(sweep: Sweep) -> None:
    folder, _ = sweep(
        "refused", "seed=0,1", "model=torchvision", "model.name=vgg11", "model.width=null"
    )
    for number in range(4):
        result = folder / str(number) / "result.json"
        if result.exists():
            assert json.loads(result.read_text()).get("refused") is True


def test_image_counts_are_recorded(sweep: Sweep) -> None:
    folder, _ = sweep("sizes", "seed=0")
    result = json.loads((folder / "0" / "result.json").read_text())
    assert result["images"]["val"] == 288
    assert verdict(folder)["comparisons"][0]["one_image"] == pytest.approx(100 / 288)


# --- other metrics -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_claim_about_loss_is_judged_by_gains(sweep: Sweep, report: Main, tmp_path: Path) -> None:
    words = ("seed=range(0,6)", "claim.metric=val/loss", "claim.margin=0.02", "trainer.epochs=5")
    folder, said = sweep(
        "lrs", *words, "scheduler.t_mult=1", "optimizer.lr=0.05,0.0001", "claim.factor=optimizer.lr"
    )
    assert "val/loss after the last update, lower is better, margin 0.02\n" in said
    (own,) = verdict(folder)["comparisons"]
    results = [json.loads((folder / str(n) / "result.json").read_text()) for n in range(12)]
    assert results[0]["metrics"]["loss"].keys() == {"better", "unit", "best"}
    finals = {(r["config"]["optimizer"]["lr"], r["config"]["seed"]): r for r in results}
    for pair in own["pairs"]:
        one, other = (finals[lr, pair["seed"]]["final"]["val/loss"] for lr in (0.05, 0.0001))
        assert (pair["baseline"], pair["treatment"]) == (one, other)
        assert pair["difference"] == pytest.approx(other - one, abs=1e-9)
    assert own["verdict"] == "worse", "the loss at the least LR is higher"
    assert own["mean"] > 0
    assert own["test"]["mean"] == pytest.approx(
        np.mean(
            [
                finals[0.0001, n]["test"]["test/loss"] - finals[0.05, n]["test"]["test/loss"]
                for n in range(6)
            ]
        )
    )
    assert "in val/loss, lower is better (95 % interval +" in own["sentence"]
    assert "images" not in own
    table = pl.read_csv(folder / "runs.csv")
    assert table["final.loss"].to_list() == [r["final"]["val/loss"] for r in results]
    assert table["best.loss"].to_list() == [r["metrics"]["loss"]["best"] for r in results]
    page = (folder / "report.html").read_text()
    assert "baseline (val/loss, lower is better)" in page, "the title of an axis"
    assert "val/loss and learning rate by epoch" in page
    assert (folder / "val_loss.png").exists()
    assert not (folder / "val_acc.png").exists()
    assert verified(folder)
    again = judged(report, tmp_path, folder)
    assert again["comparisons"] == verdict(folder)["comparisons"]


@pytest.mark.slow
def test_looks_and_tuning_follow_the_metric(sweep: Sweep) -> None:
    folder, said = sweep(
        "tuned", "trainer.epochs=4", "claim.metric=val/loss", "claim.margin=0.02", "claim.until=decided", "claim.most=8",
        "claim.tune=optimizer.lr", "claim.grid=[0.0001,0.01,0.05]", "claim.tuning_seeds=2", "scheduler.t_mult=1,3",
    )  # fmt: skip
    assert "pairs; in val/loss, lower is better (repeated 95 % interval):" in said
    tuned = json.loads((folder / "plan.json").read_text())["tuning"]
    assert (tuned["metric"], tuned["better"]) == ("val/loss", "lower")
    for arm in tuned["arms"]:
        means = {value: sum(own) / len(own) for value, own in arm["tried"].items()}
        assert arm["best"] == min(means, key=lambda value: means[value])
    assert "Mean val/loss after the last update" in (folder / "report.html").read_text()
    assert verified(folder)


@pytest.mark.slow
def test_a_metric_of_ones_own_is_judged_and_reported_without_its_code(tmp_path: Path) -> None:
    small = [word for word in TINY if not word.startswith("scheduler.t_mult")]
    words = (
        "-m", *small, "extensions=[examples/own_metric.py]", "metrics=[calibration]", "scheduler.t_mult=1,2",
        "claim.metric=val/calibration", "claim.margin=0.5", "seed=range(0,6)", f"store.dir={tmp_path}/store",
    )  # fmt: skip
    folder = tmp_path / "sweep"
    done = forked.complete("train.py", *words, f"hydra.sweep.dir={folder}")
    assert done.returncode == 0, done.stderr
    claim = verdict(folder)["claim"]
    assert (claim["better"], claim["metric"], "unit" in claim) == (
        "lower",
        "val/calibration",
        False,
    )
    assert "points of val/calibration, lower is better" in verdict(folder)["sentence"]
    header = (folder / "runs.csv").read_text().partition("\n")[0]
    assert header.endswith("final.calibration,best.calibration,test.calibration")
    assert "val/calibration" in pl.read_parquet(folder / "history.parquet").columns
    before = verdict(folder)["comparisons"]
    environment = {k: v for k, v in os.environ.items() if k != "HARNESS_EXTENSIONS"}
    done = forked.complete("scripts/report.py", folder, env=environment)
    assert done.returncode == 0, done.stderr
    assert verdict(folder)["comparisons"] == before
    code = {"HARNESS_EXTENSIONS": str(ROOT / "examples/own_metric.py")}
    done = forked.complete("scripts/verify_sweep.py", folder, env=os.environ | code)
    assert "all rows hold" in done.stdout, done.stderr
    result = folder / "3/result.json"
    document = json.loads(result.read_text())
    document["metrics"]["calibration"]["better"] = "higher"
    result.write_text(json.dumps(document))
    done = forked.complete("scripts/report.py", folder, env=environment)
    assert (
        "claim.metric=val/calibration: lower is better (in %) by the claim, higher (in %) by the run"
        in done.stderr
    )
    done = forked.complete("scripts/verify_sweep.py", folder, env=os.environ | code)
    assert (
        "which of its metrics are better, or their units, are not what their code says"
        in done.stderr
    )
