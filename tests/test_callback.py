"""What happens around the jobs of a sweep: at its end what fails costs a warning, not the rest."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import forked
import pytest
import vl_convert
from conftest import Main

from harness.analysis import phase, run_tables
from harness.analysis import verdict as claims
from harness.report import page as report
from harness.report import summary
from harness.runs.progress import Progress

SWEEP = (
    "-m", "dataset=synthetic", "dataset.images=200", "dataset.classes=4", "dataset.image_size=4",
    "model.width=1", "trainer.batch_size=50", "trainer.epochs=3", "scheduler.t_0=1",
    "scheduler.t_mult=1,2",
)  # fmt: skip
FILES = ("verdict.json", "lr.png", "val_acc.png", "verdict.png", "report.html")


def raising(error: Exception) -> Callable[..., NoReturn]:
    def broken(*args: object, **kwargs: object) -> NoReturn:
        raise error

    return broken


FULL = OSError(errno.ENOSPC, "No space left on device")
FAULTS: dict[str, tuple[object, str, Callable[..., Any], tuple[str, ...], str]] = {
    "the table": (run_tables, "table", raising(ValueError("too wide")), (), "table: ValueError: too wide"),
    "what begins alike": (
        run_tables, "disagreements", raising(ValueError("odd")), (),
        "comparison of runs that begin alike: ValueError: odd",
    ),
    "the verdict": (
        claims, "judge", raising(ZeroDivisionError("division by zero")),
        ("verdict.json", "verdict.png"),
        "verdict: ZeroDivisionError: division by zero",
    ),
    "a part of the verdict": (
        phase, "analyze", raising(ValueError("odd")), ("verdict.json", "verdict.png"),
        "verdict: ValueError: odd",
    ),
    "the verdict's file": (
        summary, "write_json", raising(FULL), ("verdict.json",),
        "verdict.json: [Errno 28] No space left on device",
    ),
    "pictures without fonts": (
        vl_convert, "vegalite_to_png", raising(OSError("no fonts are found")),
        ("lr.png", "val_acc.png", "verdict.png"), "lr.png: no fonts are found",
    ),
    "the page": (
        report, "write_page", raising(FULL), ("report.html",),
        "report.html: [Errno 28] No space left on device",
    ),
}  # fmt: skip


AT_THE_START = ("the arms do not end alike", "1 seed an arm: ")  # of the sweep, before it trains


def warnings_at_the_end(stderr: str) -> list[str]:
    """The warnings of a sweep but those about its plan."""
    lines = [line for line in stderr.splitlines() if line.startswith("warning: ")]
    return [line for line in lines if not line.removeprefix("warning: ").startswith(AT_THE_START)]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.slow
def test_what_cannot_be_made_costs_a_warning_and_not_the_rest(
    tmp_path: Path, main: Main, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    where, name, broken, missing, reason = FAULTS[fault]
    sweep = tmp_path / "sweep"
    monkeypatch.setattr(where, name, broken)
    done = main(*SWEEP, "tracking=none", "reuse=false", f"hydra.sweep.dir={sweep}")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    warnings = warnings_at_the_end(done.stderr)
    assert warnings[0].startswith(f"warning: {reason}")
    assert warnings[0].endswith(f"; later: python scripts/report.py {sweep}")
    assert {file for file in FILES if not (sweep / file).exists()} == set(missing)
    assert ("final val/acc %" in done.stdout) == (fault != "the table")
    assert ("verdict: " in done.stdout) == ("verdict.json" not in missing or "file" in fault)
    if fault != "the page" and "pictures" not in fault and fault != "the verdict's file":
        assert reason in (sweep / "report.html").read_text(), "the page says what it lacks"
    said = forked.complete("scripts/report.py", sweep)
    assert (said.returncode, said.stderr) == (0, "")
    assert all((sweep / file).exists() for file in FILES)


def test_a_page_needs_no_git(tmp_path: Path, main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = main(*SWEEP, "tracking=none", f"hydra.sweep.dir={tmp_path}/sweep", "reuse=false")
    assert (done.returncode, warnings_at_the_end(done.stderr)) == (0, [])
    assert all((tmp_path / "sweep" / file).exists() for file in FILES)
    assert json.loads((tmp_path / "sweep/verdict.json").read_text())["provenance"]["commits"] == []


@pytest.mark.parametrize("method", ["tick", "show", "end"])
def test_a_terminal_that_is_gone_does_not_end_a_run(
    tmp_path: Path, main: Main, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(Progress, method, raising(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    done = main(*SWEEP[1:-1], "tracking=none", f"hydra.run.dir={tmp_path}/run", "reuse=false")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/result.json").read_text())["status"] == "complete"


def test_an_experiment_that_is_a_sweep_says_so_without_m(main: Main, tmp_path: Path) -> None:
    done = main("experiment=phase_claim", "trainer.epochs=1", "scheduler.t_0=1", "trainer.evals_per_epoch=1",
                "tracking=none", f"hydra.run.dir={tmp_path / 'run'}", f"store.dir={tmp_path / 'store'}")  # fmt: skip
    assert done.returncode == 0
    assert "warning: this experiment is a sweep over arm, seed, which takes -m" in done.stderr
