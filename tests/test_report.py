"""The report of a sweep, made again by the script."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import forked
import pytest
from conftest import ROOT, Main
from forked import Program, ends
from test_callback import SWEEP
from test_faults import Resize, disk, sweep, undisturbed  # noqa: F401

PARTS = ("lr.png", "val_acc.png", "runs.csv", "history.parquet", "report.html")


@pytest.mark.parametrize("multirun", [False, True], ids=["alone", "of a sweep"])
@pytest.mark.slow
def test_a_run_has_a_page_of_its_own(
    main: Main, report: Main, tmp_path: Path, multirun: bool, with_pages: None
) -> None:
    words = (*SWEEP[1:-1], "tracking=none", f"store.dir={tmp_path}/store")
    if multirun:
        done = main("-m", *words, "seed=4,5", f"hydra.sweep.dir={tmp_path}/sweep")
        folder = tmp_path / "sweep/1"
    else:
        done = main(*words, "seed=5", f"hydra.run.dir={tmp_path}/run")
        folder = tmp_path / "run"
        assert done.stdout.splitlines() == [f"{folder}/{name}" for name in PARTS]
        assert done.stdout.splitlines()[-1] == f"{folder}/report.html"
    assert done.returncode == 0, done.stderr
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    done = report(folder)
    assert done.returncode == 0, done.stderr
    assert "no verdict: there is one run, and nothing to compare it with" in done.stdout
    said = done.stdout.splitlines()
    assert said[-1] == f"{folder}/report.html"
    assert {f"{folder}/lr.png", f"{folder}/val_acc.png"} <= {*said}
    page = (folder / "report.html").read_text()
    assert "python train.py dataset=synthetic" in page
    assert "seed=5" in page
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


def test_a_single_run_ends_with_its_page_which_cannot_make_it_fail(
    main: Main, report: Main, tmp_path: Path, with_pages: None
) -> None:
    (tmp_path / "mine/arm").mkdir(parents=True)
    (tmp_path / "mine/arm/own.yaml").write_text("# @package _global_\noptimizer:\n  lr: 0.05\n")
    run = tmp_path / "run"
    (run / "lr.png").mkdir(parents=True)
    done = main("--config-dir", tmp_path / "mine", *SWEEP[1:-1], "tracking=none", "arm=own", "reuse=false", f"hydra.run.dir={run}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{run}/{name}" for name in PARTS[1:]]
    last = done.stderr.splitlines()[-1]
    assert last.startswith("warning: lr.png: ")
    assert last.endswith(f"; later: python scripts/report.py {run}")
    page = (run / "report.html").read_text()
    assert "python train.py --config-dir &#39;…/mine&#39; " in page


def test_a_run_that_was_refused_is_reported_with_its_error(
    main: Main, report: Main, tmp_path: Path
) -> None:
    words = *SWEEP[1:-1], "tracking=none", "reuse=false", f"hydra.run.dir={tmp_path}"
    refused = main(*words, "scheduler.t_0=1000")
    assert refused.returncode == 1
    assert not refused.stdout
    done = report(tmp_path)
    assert done.returncode == 0, done.stderr
    error = refused.stderr.strip().removeprefix("error: ")
    assert f": failed: {error}\n" in done.stdout
    page = (tmp_path / "report.html").read_text()
    assert "correct what the error names" in page
    assert "give the same command again" not in page


def test_a_single_run_is_refused_in_the_folder_of_a_sweep(main: Main, tmp_path: Path) -> None:
    """It would overwrite the sweep's page, or take the place of a planned run."""
    sweep = tmp_path / "sweep"
    words = *SWEEP[1:-1], "tracking=none", "reuse=false"
    swept = main("-m", *words, "seed=0,1", "trainer.device=cuda:7", f"hydra.sweep.dir={sweep}")
    assert swept.returncode == 1
    before = {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()}
    for folder in (sweep, sweep / "0"):
        done = main(*words, f"hydra.run.dir={folder}")
        assert done.returncode == 1
        assert f"hydra.run.dir={folder}: belongs to the sweep in {sweep}" in done.stderr
    assert {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()} == before
    assert main(*words, f"hydra.run.dir={sweep}/own").returncode == 0


def test_a_folder_of_sweeps_names_one(report: Main, tmp_path: Path) -> None:
    """The single run beside them would be reported, as if there was nothing else."""
    for path in ("first/plan.json", "second/plan.json", "run/config.json"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text("{}")
    first, second = tmp_path / "first", tmp_path / "second"
    assert report(tmp_path).stderr == (
        f"error: {tmp_path}: holds sweeps; name one, {second}, or several, {first} {second} --out DIR\n"
    )


@pytest.mark.slow
def test_a_stdout_that_cannot_show_a_sign_shows_another(tmp_path: Path, main: Main) -> None:
    words = (
        *SWEEP,
        "seed=0,1",
        "tracking=none",
        f"hydra.sweep.dir={tmp_path}/sweep",
        "reuse=false",
    )
    assert "±" in main(*words).stdout
    said = subprocess.run(
        [sys.executable, str(ROOT / "scripts/report.py"), f"{tmp_path}/sweep"],
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert rb"\xb1" in said.stdout


@pytest.mark.slow
def test_a_report_that_cannot_be_written_leaves_the_runs_and_is_made_later(
    tmp_path: Path, disk: tuple[Path, Resize], undisturbed: dict[str, tuple[str, str]]
) -> None:
    folder, resize = disk
    resize("600k")  # the page alone has 0.9 MB
    code, said = forked.run(tmp_path / "log", *sweep(tmp_path, f"hydra.sweep.dir={folder}/sweep"))
    assert code == 0, "all runs are there"
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith("warning: report.html: [Errno 28] No space left on device")
    assert last.endswith(f"; later: python scripts/report.py {folder}/sweep")
    assert ends(folder / "sweep") == undisturbed
    assert not (folder / "sweep/report.html").exists()
    resize("16m")
    code, said = forked.run(tmp_path / "log2", "scripts/report.py", str(folder / "sweep"))
    assert code == 0, said
    assert (folder / "sweep/report.html").read_text().rstrip().endswith("</html>")


@pytest.mark.slow
def test_kills_in_the_report_leave_the_old_one_or_the_new_one(
    tmp_path: Path, undisturbed: dict[str, tuple[str, str]]
) -> None:
    code, said = forked.run(tmp_path / "log", *sweep(tmp_path))
    assert code == 0, said
    rng, killed = random.Random(1), 0
    for number in range(15):
        program = Program(tmp_path / f"log{number}", "scripts/report.py", str(tmp_path / "sweep"))
        program.process.join(rng.uniform(0.05, 2))
        killed += program.process.is_alive()
        program.kill()
        assert (tmp_path / "sweep/report.html").read_text().rstrip().endswith("</html>")
        json.loads((tmp_path / "sweep/verdict.json").read_text())
        assert ends(tmp_path / "sweep") == undisturbed
    assert killed >= 8
