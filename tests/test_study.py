"""`make study`: its plan, its choice of LRs, what docs/study/ holds, and the whole on a small scale."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import study
from conftest import ROOT, make_config

from harness.analysis import phase, results
from harness.files import write_json

DOCS = ROOT / study.DOCS


def test_the_plan_is_the_one_that_was_committed() -> None:
    assert json.loads((DOCS / "plan.json").read_text()) == study.study_plan()


def test_nothing_is_run_by_another_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "DOCS", tmp_path)
    with pytest.raises(ValueError, match=r"plan\.json: is not this plan; scripts/study\.py plan"):
        study.run()
    (tmp_path / "plan.json").write_text(json.dumps(study.study_plan() | {"test set": "chosen by"}))
    with pytest.raises(ValueError, match="is not this plan"):
        study.run()
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


LRS = {
    "the best mean": ([(0.1, 90.0), (0.1, 92.0), (0.2, 93.0), (0.2, 88.0)], 0.1),
    "the lower of equals": ([(0.2, 90.0), (0.2, 92.0), (0.1, 92.0), (0.1, 90.0)], 0.1),
    "one that diverged does not count": ([(0.1, 80.0), (0.1, 81.0), (0.2, 93.0), (0.2, None)], 0.1),
    "the highest": ([(0.05, 80.0), (0.1, 81.0), (0.2, 82.0)], 0.2),
}


@pytest.mark.parametrize(("runs", "lr"), LRS.values(), ids=LRS)
def test_the_lr_of_an_arm(runs: list[tuple[float, float | None]], lr: float) -> None:
    others = [("other", 0.1, 50.0, "complete"), ("other", 0.2, 49.0, "complete")]
    rows = [("arm", lr, acc, "complete" if acc else "diverged") for lr, acc in runs]
    table = pl.DataFrame(rows + others, ["level", "lr", "final", "status"], orient="row")
    assert study.best_lrs(table) == {"arm": lr, "other": 0.1}


@pytest.mark.parametrize("cell", study.CELLS, ids=lambda cell: cell.name)
def test_the_arms_are_those_of_conf_with_the_lrs_that_were_tuned(cell: study.Cell) -> None:
    runs = pl.read_csv(DOCS / "runs.csv").filter(cell=cell.name)
    best = study.best_lrs(runs.filter(step="tuning"))
    assert set(best) == set(study.ARMS)
    for arm, lr in best.items():
        tuned = make_config(
            f"hydra.searchpath=[{ROOT / cell.conf}]", f"+tuned={arm}", *cell.settings
        )
        assert tuned == make_config(f"arm={arm}", f"optimizer.lr={lr}", *cell.settings)
        assert set(runs.filter(pl.col("step") != "tuning", level=arm)["lr"]) == {lr}


def test_the_verdicts_follow_from_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """verdict.json from runs.csv, byte for byte, but for the parts that come from histories."""
    runs = pl.read_csv(DOCS / "runs.csv").with_columns(
        nearest_aligned=pl.when(pl.col("step") == "article")
        .then(pl.lit([35.0, 75.0], pl.List(pl.Float64)))
        .otherwise(pl.lit([15.0, 35.0, 75.0], pl.List(pl.Float64)))
    )
    monkeypatch.setattr(results, "anytime", lambda runs: None)
    monkeypatch.setattr(results, "snapshots", lambda runs: None)
    monkeypatch.setattr(phase, "analyze", lambda runs: None)
    written = json.loads((DOCS / "verdict.json").read_text())
    for part in (*written["arms"].values(), written):
        for name in {"anytime", "snapshots", "phase"} & part.keys():
            part[name] = None
    assert json.dumps(study.verdicts(runs), indent=1) == json.dumps(written, indent=1)


def test_the_tables_and_texts_are_those_of_the_verdicts() -> None:
    written = json.loads((DOCS / "verdict.json").read_text())
    tables = (DOCS / "tables.md").read_text()
    for judged in (written["primary"], *written["arms"].values(), *written["short"].values()):
        assert study._differences(judged) in tables
    text = " ".join((ROOT / "docs/study.md").read_text().split())
    for one in written["primary"]["comparisons"]:
        low, high = one["ci95"]
        assert f"{one['mean']:+.2f} | {low:+.2f} to {high:+.2f}" in text


@pytest.mark.slow
def test_a_small_study_from_its_plan_to_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(study, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(study, "SWEEPS", tmp_path / "sweeps")
    monkeypatch.setattr(study, "ARMS", ("times_1", "times_2", "cosine_5", "constant"))
    monkeypatch.setattr(study, "LRS", (0.1, 0.2))
    for name, epochs in {"EPOCHS": 15, "SHORT": 5, "MISALIGNED": 12}.items():
        monkeypatch.setattr(study, name, epochs)
    settings = (
        "dataset=digits",
        "trainer.batch_size=120",
        "model.width=1",
        f"store.dir={tmp_path}/store",
    )
    cell = study.Cell("fashion", settings, seeds=3, others=2, closely=True)
    monkeypatch.setattr(study, "CELLS", (cell,))
    write_json(study.DOCS / "plan.json", study.study_plan())
    study.run()
    study.write_docs()

    docs = study.DOCS
    written = {path.name for path in docs.iterdir()}
    pictures = {"verdict", "phase", "arms_val_acc", "arms_lr", "article_val_acc", "article_lr"}
    assert written == {
        "conf",
        "plan.json",
        "runs.csv",
        "verdict.json",
        "tables.md",
        "report.html",
    } | {f"{name}.png" for name in pictures}
    runs = pl.read_csv(docs / "runs.csv")
    assert dict(runs.group_by("step").len().iter_rows()) == {
        "tuning": 16, "phase": 12, "claim": 6, "arms": 8, "short": 8, "article": 6,
    }  # fmt: skip
    assert set(runs["status"]) == {"complete"}
    again = runs.filter((pl.col("step") == "arms") & pl.col("level").is_in(["times_1", "times_2"]))
    assert set(again["updates_trained"]) == {0}  # the claim's runs, from the store
    verdict = json.loads((docs / "verdict.json").read_text())
    assert [one["n"] for one in verdict["primary"]["comparisons"]] == [3]
    assert verdict["article"]["comparisons"][0]["verdict"] == "invalid"
    best = [row for row in verdict["arms"]["fashion"]["snapshots"] if "times_1" in row["arm"]]
    assert [row["members"] for row in best] == [1, 2, 3]
