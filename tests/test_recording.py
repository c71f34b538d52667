"""Rows of a run under way, from its loop to the history, and its end."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from conftest import make_config

from harness.config.values import to_dict
from harness.runs.context import RunContext
from harness.runs.recording import Recorder
from harness.runs.result import (
    Complete,
    Evaluation,
    Failed,
    Identity,
    Interrupted,
    Outcome,
    Provenance,
    RunResult,
)
from harness.runs.run_dir import RunInfo
from harness.runs.signals import RunInterruptedError
from harness.training import schedules
from harness.training.loop import Row

CONFIG = make_config("trainer.epochs=2", "scheduler.t_0=2")  # and tracking=none
PLAN = schedules.lr_plan(CONFIG, 10)
ROWS: list[Row] = [
    {"step": step, "epoch": step / 10, "lr": 0.1, "val/acc": 50.0 + step} for step in (5, 10, 20)
]


def recorder(folder: Path, begin: list[Row]) -> tuple[Recorder, RunResult, RunContext]:
    result = RunResult("run", "", None, to_dict(CONFIG), [], {}, None, 0)
    result.identity = Identity("id", "3-f", PLAN.describe(), {}, "d" * 64, None, {"val": 9})
    result.provenance = Provenance(None, 0, 0.0, True)
    ctx = RunContext(CONFIG, RunInfo(folder, "run"))
    return Recorder(ctx, PLAN, result, begin), result, ctx


@pytest.mark.parametrize("given", [0, 2])
def test_each_row_is_in_the_history_at_once(tmp_path: Path, given: int) -> None:
    recording, result, ctx = recorder(tmp_path, ROWS[:given])
    with recording:
        for count, row in enumerate(ROWS[given:], start=given + 1):
            recording.record(row)
            recording.tick()
            written = (tmp_path / "history.jsonl").read_text().splitlines()
            assert [json.loads(line) for line in written] == recording.rows == ROWS[:count]
        result.evaluated(recording.rows)
        result.evaluations["test"] = Evaluation({}, "there is no test set")
        result.outcome = Complete("e" * 64)
    assert result.outcome == Complete("e" * 64)
    assert result.tracking == ""
    assert set(ctx.timer) == {"tracking"}
    assert [path.name for path in tmp_path.iterdir()] == ["history.jsonl"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RuntimeError("no memory"), Failed("no memory")),
        (RunInterruptedError(signal.SIGUSR1), Interrupted("stopped by SIGUSR1")),
        (KeyboardInterrupt(), Interrupted("stopped by SIGINT")),
        (SystemExit(1), Failed()),
    ],
)
def test_an_exception_passes_through_and_is_the_outcome(
    tmp_path: Path, error: BaseException, outcome: Outcome
) -> None:
    recording, result, _ = recorder(tmp_path, ROWS[:1])
    result.outcome = Complete("e" * 64)
    with pytest.raises(type(error)) as raised, recording:
        raise error
    assert raised.value is error
    assert result.outcome == outcome
    assert result.tracking == ""
    with pytest.raises(ValueError, match="closed file"):
        recording.record(ROWS[1])
