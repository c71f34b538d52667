"""What a run shows of itself: a bar on a terminal, a few lines elsewhere."""

from __future__ import annotations

import io
import sys

import pytest
from conftest import Clock, make_config

from harness.config import streams
from harness.runs import progress
from harness.runs.progress import Progress
from harness.runs.result import (
    Complete,
    Diverged,
    Evaluation,
    Failed,
    Interrupted,
    Outcome,
    Provenance,
    RunResult,
)
from harness.training import schedules

PLAN = schedules.lr_plan(make_config("trainer.epochs=4", "scheduler.t_0=4"), 10)  # 40 updates
EVALUATED = {"step": 20, "epoch": 2.0, "lr": 0.05, "val/acc": 91.234}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_without_a_terminal_an_evaluation_is_a_line_every_ten_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Progress("1/2 t_mult=1", PLAN, 10, 8)
    steps = ((3, 12), (8, 14), (11, 16), (12, 18), (20, 19), (22, 20))
    for seconds, step in steps:
        clock.now = 100 + seconds
        row = {"step": step, "epoch": step / 10, "lr": 0.05}
        shown.show(row if step == 19 else {**row, "val/acc": step + 0.5})
    # Update 16 is the sixth that this process did, at 8 images each in 11 seconds; 19 has no accuracy
    assert capsys.readouterr().err.splitlines() == [
        "1/2 t_mult=1: epoch 1.6/4, lr 0.05, val/acc 16.50 %, 4 img/s",
        "1/2 t_mult=1: epoch 2/4, lr 0.05, val/acc 20.50 %, 4 img/s",
    ]


def ended(outcome: Outcome) -> RunResult:
    return RunResult("run", "", None, {}, [], {}, None, 0, outcome)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_bar_goes_on_from_what_was_there(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = Progress("run", PLAN, 19, 8)
    assert "run: 48 %" in terminal.getvalue()
    shown.tick()
    clock.now += 2
    shown.show(EVALUATED)
    shown.show({"step": 21, "epoch": 2.1, "lr": 0.04, "train/loss": 0.3})
    shown.end(ended(Interrupted("stopped by SIGTERM")))
    last = terminal.getvalue().split("\r")[-1]
    assert last.startswith("run: 50 %, epoch 2.1/4, lr 0.04, val/acc 91.23 %, 8 img/s |")


def test_in_a_sweep_that_draws_bars_a_run_draws_none(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(streams.BARS, "1")
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = Progress("1/2 seed=0", PLAN, 0, 8)
    shown.tick()
    clock.now += 60
    shown.show(EVALUATED)
    assert terminal.getvalue() == ""
    shown.end(ended(Diverged("the loss is nan")))
    assert terminal.getvalue() == "1/2 seed=0: diverged: the loss is nan\n"


@pytest.mark.parametrize(
    ("trained", "reused", "reported"),
    [
        (40, 0, "4 epochs trained"),
        (10, 30, "1 epoch trained, 3 reused"),
        (5, 35, "0.5 epochs trained, 3.5 reused"),
        (0, 40, "0 epochs trained, 4 reused"),
    ],
)
def test_the_end_says_what_was_trained_and_what_was_there(
    clock: Clock, capsys: pytest.CaptureFixture[str], trained: int, reused: int, reported: str
) -> None:
    shown = Progress("run", PLAN, reused, 8)
    clock.now += 2.5
    result = ended(Complete("0" * 64))
    result.provenance = Provenance(None, reused, 0.0, True, trained)
    result.evaluations = {
        "final": Evaluation({"val/acc": 91.234}), "test": Evaluation({"test/acc": 89.0})
    }  # fmt: skip
    shown.end(result)
    line = f"run: val/acc 91.23 %, test/acc 89.00 % ({reported}, training 2.5 s)\n"
    assert capsys.readouterr().err == line


def test_the_end_has_metrics_of_the_users_own(capsys: pytest.CaptureFixture[str]) -> None:
    result = ended(Complete("0" * 64))
    result.provenance = Provenance(None, 0, 0.0, True, 40)
    result.metrics = {name: {} for name in ("acc", "loss", "ece")}
    result.evaluations = {
        "final": Evaluation({"val/acc": 91.0, "val/loss": 0.3, "val/ece": 0.012346}),
        "test": Evaluation({"test/acc": 89.0, "test/loss": 0.4, "test/ece": 2.0}),
    }
    Progress("run", PLAN, 0, 8).end(result)
    assert (
        "val/acc 91.00 %, val/ece 0.01235, test/acc 89.00 %, test/ece 2 ("
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (Diverged("the loss is nan"), "run: diverged: the loss is nan\n"),
        (Failed("no memory"), ""),
        (Interrupted("stopped by SIGTERM"), ""),
    ],
)
def test_a_bad_end_is_said_once(
    capsys: pytest.CaptureFixture[str], outcome: Outcome, line: str
) -> None:
    Progress("run", PLAN, 0, 8).end(ended(outcome))
    assert capsys.readouterr().err == line
