"""A sweep before it is trained: what is unfair about the comparison."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import forked
import pytest
from conftest import ROOT, Main
from test_speeds import planned

from harness.report.charts import MOST_ARMS
from harness.sweeps.preview import write_preview


def preview_of(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return forked.complete(ROOT / "scripts/preview.py", "-m", *overrides, cwd=folder)


def test_the_preview_says_what_is_unfair_before_anything_is_trained(tmp_path: Path) -> None:
    done = preview_of(tmp_path, "scheduler.t_mult=1,2", "trainer.epochs=50", "seed=0,1")
    assert done.returncode == 0
    (folder,) = tmp_path.glob("outputs/preview/*")
    assert done.stdout.splitlines()[-2:] == [
        f"{folder.relative_to(tmp_path)}/preview.html", f"{folder.relative_to(tmp_path)}/preview.png",
    ]  # fmt: skip
    page = (folder / "preview.html").read_text()
    assert "<pre>arm       seeds  epochs" in page
    assert "70% of its peak" in page
    assert (folder / "preview.png").read_bytes().startswith(b"\x89PNG")
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


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["seed=-1"], "seed=-1: must be a whole number ≥ 0 and < 9223372036854775808"),
        (["--lr", "0.1"], "--lr: is no option; did you mean optimizer.lr=VALUE?"),
        (["--tiem", "seed=0,1"], "--tiem: is no option; did you mean --time?"),
        (["--time=yes"], "--time: takes no value; leave =yes out"),
        (["model=[resnet8,resnet20]"], "model=[resnet8,resnet20]: a choice has no brackets; write -m model=resnet8,resnet20"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_command_is_one_line(tmp_path: Path, words: list[str], line: str) -> None:
    done = preview_of(tmp_path, *words)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {line}\n")


@pytest.mark.slow
def test_arms_that_are_the_same_runs_are_no_comparison(tmp_path: Path, main: Main) -> None:
    """With one cycle t_mult changes nothing."""
    words = [
        "dataset=synthetic", "dataset.images=200", "dataset.image_size=4", "model.width=1", "tracking=none",
        "scheduler.t_0=1", "scheduler.t_mult=1,2", "trainer.epochs=1", "seed=range(0,6)",
    ]  # fmt: skip
    same = "t_mult=1 and t_mult=2 are the same runs with these settings"
    assert preview_of(tmp_path, *words).stderr.count(same) == 1
    done = main("-m", *words, f"hydra.sweep.dir={tmp_path}/out", f"store.dir={tmp_path}/store")
    assert done.returncode == 0
    assert done.stderr.count(same) == 1
    (comparison,) = json.loads((tmp_path / "out/verdict.json").read_text())["comparisons"]
    assert comparison["verdict"] == "invalid"
    assert "are the same runs: the factor changes nothing" in comparison["sentence"]


def test_no_more_arms_are_drawn_than_on_a_page(tmp_path: Path) -> None:
    run = planned("model.width=1")
    runs = [replace(run, arm=f"arm {number}") for number in range(MOST_ARMS + 1)]
    page, _ = write_preview(tmp_path, runs, "said")
    text, _, drawing = page.read_text().partition("</pre>")
    assert text.endswith(f"drawn below: the first {MOST_ARMS} of {MOST_ARMS + 1} arms")
    assert f">arm {MOST_ARMS - 1}<" in drawing
    assert f">arm {MOST_ARMS}<" not in drawing
