"""`python scripts/study.py`, the studies of `conf/study/`, and what docs/study/ holds of the one that was published."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import polars as pl
import pytest
from conftest import ROOT, make_config

from harness.analysis import measured, results
from harness.analysis.number_text import signed
from harness.analysis.verdict import Claim, judge
from harness.config.study import load
from harness.report import tables

DOCS = ROOT / "docs/study"
PRIMARY = Claim("tuned", "times_1", ("times_2",))
CELLS = ("fashion", "digits", "digits_resnet20")


# --- the command ---------------------------------------------------------------------------------


def test_the_help_lists_the_studies() -> None:
    done = forked.complete("scripts/study.py", "--help")
    assert done.returncode == 0
    for name in ("quick", "t_mult", "template"):
        assert f"  {name:12} {load([f'study={name}']).question}" in done.stdout


def test_a_template_is_a_study_and_its_cost_is_said_without_training(tmp_path: Path) -> None:
    done = forked.complete(
        "scripts/study.py", "study=template", "--plan", f"folder={tmp_path}/mine"
    )
    assert done.returncode == 0, done.stderr
    assert "resnet20        longer    16     640" in done.stdout
    assert "at most 212 runs, 4880 epochs, more where" in done.stdout
    assert not (tmp_path / "mine").exists()


def test_another_plan_under_the_same_name_is_refused(tmp_path: Path) -> None:
    folder, words = tmp_path / "mine", ["study=quick", f"folder={tmp_path}/mine"]
    folder.mkdir()
    written = json.dumps({"fixed": load(words).fixed()})
    (folder / "study.json").write_text(written)
    other = ["claim.margin=0.5", "seeds=9", "launch=[tracking=none]"]
    done = forked.complete("scripts/study.py", *words, *other)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"error: {folder}: has another plan: claim.margin=0.5 (was 0.2), seeds."
    )
    assert done.stderr.endswith("or another folder (folder=PATH)\n")
    assert len(done.stderr.splitlines()) == 1
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("study.json", written)]
    assert forked.complete("scripts/study.py", *words, "--plan", *other[2:]).returncode == 0


# the quick study with a fifth of its training; two looks remain, and tuning in every cell
SHORTER = ("budget=2", "seeds=8", "claim.tuning_seeds=2", "sweeps.longer.budget=4")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_quick_study_from_its_plan_to_its_page(tmp_path: Path) -> None:
    """Stopped once in its first sweep; then the same command goes on to the end, and finds all at the third time."""
    out, store = tmp_path / "quick", tmp_path / "store"
    ledger = {"HARNESS_LEDGER": str(tmp_path / "ledger.jsonl")}
    launch = f"launch=[hydra/launcher=parallel,tracking=none,store.dir={store}]"
    words = ["scripts/study.py", "study=quick", *SHORTER, f"folder={out}", launch]
    begun = forked.Program(tmp_path / "log", *words, env=os.environ | ledger)
    begun.until(lambda: forked.results(out / "wide/claim/tuning"))
    begun.send_signal(signal.SIGTERM)
    assert begun.wait() == 1
    assert (
        begun.said.splitlines()[-1]
        == f"error: {out}/wide/claim: stopped before its end; the same command goes on"
    )
    assert not begun_programs(out), "no train.py is left behind"
    assert not (out / "verdict.json").exists()

    done = forked.complete(*words, env=os.environ | ledger)
    assert done.returncode == 0, done.stderr
    assert "narrow, claim\n" in done.stdout
    verdict = json.loads((out / "verdict.json").read_text())
    cells = {one["cell"]: one for one in verdict["comparisons"]}
    assert {*cells} == {"wide", "narrow", "small_batches"}
    assert {one["stopped"] for one in cells.values()} <= {"decided", "undecidable", None}
    assert verdict["provenance"]["other_claims"] == [], "a cell of the study is no other claim"
    runs = pl.read_csv(out / "runs.csv")
    assert set(runs["status"]) == {"complete"}
    assert set(runs["sweep"]) == {"claim", "claim tuning", "longer"}
    for cell, one in cells.items():
        claim = runs.filter(cell=cell, sweep="claim")
        assert len(claim) == 2 * one["n"]
        assert dict(claim.select("level", "lr").unique().iter_rows()) == chosen(
            out / cell / "claim"
        )
    longer = runs.filter(sweep="longer")
    assert dict(longer.select("level", "lr").unique().iter_rows()) == chosen(out / "wide/claim")
    assert tables.differences(verdict) in (out / "tables.md").read_text()
    names = {
        "study.json",
        "verdict.json",
        "report.html",
        "tables.md",
        "runs.csv",
        "history.parquet",
    }
    names |= {"verdict.png", "lr.png", "val_acc.png", "looks.png", *cells}
    assert {path.name for path in out.iterdir()} == names

    ends = {path: path.stat().st_mtime_ns for path in out.glob("**/history.jsonl")}
    again = forked.complete(*words, env=os.environ | ledger)
    assert again.returncode == 0, again.stderr
    assert "hours, one run at a time" in again.stdout
    assert ends == {path: path.stat().st_mtime_ns for path in out.glob("**/history.jsonl")}
    assert json.loads((out / "verdict.json").read_text()) == verdict


def begun_programs(out: Path) -> list[str]:
    """Return the commands of running programs that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"hydra.sweep.dir={out}" in command:
            found.append(command)
    return found


def chosen(sweep: Path) -> dict[str, float]:
    tuning = results.read_plan(sweep)["tuning"]
    return {one["arm"].removeprefix("arm="): float(one["value"]) for one in tuning["arms"]}


# --- the published study -------------------------------------------------------------------------


def test_the_published_plan_is_the_one_that_was_committed() -> None:
    sha256 = hashlib.sha256((DOCS / "plan.json").read_bytes()).hexdigest()
    assert sha256 == "1861140e0c8ea1b7db45baab6370b52eb7bdc5e3395250877c268cbd25067e15"


@pytest.mark.parametrize("cell", CELLS)
def test_the_published_arms_have_the_lrs_that_were_tuned(cell: str) -> None:
    settings = load(["study=t_mult"]).cells[cell]
    runs = pl.read_csv(DOCS / "runs.csv").filter(cell=cell)
    best = best_lrs(runs.filter(step="tuning"))
    assert len(best) == 7
    for arm, lr in best.items():
        path = f"hydra.searchpath=[{DOCS / 'conf' / cell}]"
        tuned = make_config(path, f"+tuned={arm}", *settings)
        assert tuned == make_config(f"arm={arm}", f"optimizer.lr={lr}", *settings)
        assert set(runs.filter(pl.col("step") != "tuning", level=arm)["lr"]) == {lr}


def best_lrs(runs: pl.DataFrame) -> dict[str, float]:
    """Return the LR of each arm by the published plan: the best mean, the lower of equals, none that diverged."""
    tried = (
        runs.group_by("level", "lr")
        .agg(pl.col("final").mean(), whole=(pl.col("status") == "complete").all())
        .filter("whole")
        .sort("final", "lr", descending=[True, False])
        .unique("level", keep="first", maintain_order=True)
    )
    return dict(tried.select("level", "lr").iter_rows())


def test_the_published_verdicts_follow_from_the_runs() -> None:
    """verdict.json from runs.csv, byte for byte, but for the parts that come from histories."""
    runs = pl.read_csv(DOCS / "runs.csv").with_columns(
        nearest_aligned=pl.when(pl.col("step") == "article")
        .then(pl.lit([35.0, 75.0], pl.List(pl.Float64)))
        .otherwise(pl.lit([15.0, 35.0, 75.0], pl.List(pl.Float64)))
    )
    written = json.loads((DOCS / "verdict.json").read_text())
    for part in (*written["arms"].values(), written):
        for name in {"anytime", "snapshots", "phase"} & part.keys():
            part[name] = None
    assert json.dumps(verdicts(runs), indent=1) == json.dumps(written, indent=1)


def verdicts(runs: pl.DataFrame) -> dict[str, Any]:
    unread = {"anytime": None, "snapshots": None}
    return {
        "primary": compare(PRIMARY, runs.filter(step="claim")),
        "arms": {cell: against_times_1(runs, "arms", cell) | unread for cell in CELLS},
        "one_cosine": compare(replace(PRIMARY, baseline="one_cosine"), runs.filter(step="arms")),
        "short": {cell: against_times_1(runs, "short", cell) for cell in CELLS},
        "article": against_times_1(runs, "article", "fashion"),
        "phase": None,
    }


def against_times_1(runs: pl.DataFrame, step: str, cell: str) -> dict[str, Any]:
    table = runs.filter(step=step, cell=cell).with_columns(cell=pl.lit(""))
    levels = table["level"].unique(maintain_order=True).to_list()
    rivals = tuple(level for level in levels if level == "one_cosine")
    return compare(replace(PRIMARY, treatments=tuple(levels[1:]), rivals=rivals), table)


def compare(claim: Claim, runs: pl.DataFrame) -> dict[str, Any]:
    return judge(claim, measured.with_values(runs, claim))


def test_the_published_texts_are_those_of_the_verdicts() -> None:
    written = json.loads((DOCS / "verdict.json").read_text())
    text = " ".join((ROOT / "docs/study.md").read_text().split())
    for one in written["primary"]["comparisons"]:
        low, high = one["ci95"]
        assert f"{signed(one['mean'])} | {signed(low)} to {signed(high)}" in text
