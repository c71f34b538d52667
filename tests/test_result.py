"""What a run came to, and `result.json`, which says it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from harness.runs.result import (
    Complete,
    Diverged,
    Evaluation,
    Failed,
    Identity,
    Interrupted,
    Outcome,
    Provenance,
    RunResult,
    outcome_of,
    read_complete,
)
from harness.runs.signals import RunInterruptedError
from harness.training.distributed import PeerLostError

HEAD = {
    "status", "error", "name", "arm", "group", "config", "overrides", "swept", "claim_sha256",
    "restarts", "seconds",
}  # fmt: skip
IDENTITY = {
    "run_id", "fingerprint", "plan", "numerics", "data_sha256", "test_sha256", "images", "no_test",
}  # fmt: skip
PROVENANCE = {
    "parent", "updates_reused", "seconds_reused", "exact", "updates_trained", "commit", "dirty",
}  # fmt: skip


def begun() -> RunResult:
    return RunResult(
        "a seed=1", "a", "sweep", {"seed": 1}, ["seed=1"], {"optimizer.lr": "0.1"}, "c" * 64, 2
    )


def complete() -> RunResult:
    result = begun()
    result.identity = Identity(
        "id", "3-f", {"updates": 8}, {"device": "cpu"}, "d" * 64, None, {"val": 9}
    )
    result.provenance = Provenance("3-f/000000004-p", 4, 1.5, True, 4)
    result.evaluated([{"step": 4, "val/acc": 70.0}, {"step": 8, "val/acc": 60.0}, {"step": 9}])
    result.evaluations["test"] = Evaluation({}, "there is no test set")
    result.outcome = Complete("e" * 64)
    result.tracking = ""
    result.seconds = {"fit": 2.5}
    return result


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RunInterruptedError(signal.SIGTERM), Interrupted("stopped by SIGTERM")),
        (KeyboardInterrupt(), Interrupted("stopped by SIGINT")),
        (PeerLostError(), Interrupted(str(PeerLostError()))),
        (ValueError(" too small\n"), Failed("too small")),
        (MemoryError(), Failed("MemoryError")),
        (SystemExit(3), Failed()),
        (GeneratorExit(), Failed()),
    ],
)
def test_an_exception_says_how_the_run_ends(error: BaseException, outcome: Outcome) -> None:
    assert outcome_of(error) == outcome


def test_the_metrics_have_the_best_of_the_evaluations() -> None:
    result = begun()
    result.metrics = {
        "acc": {"better": "higher", "unit": "%"}, "loss": {"better": "lower", "unit": ""},
    }  # fmt: skip
    assert result.to_json()["metrics"] == result.metrics
    rows = [
        {"step": n, "val/acc": 9.0 * n, "val/loss": loss}
        for n, loss in ((1, 2.0), (2, 1.5), (3, 1.75))
    ]
    result.evaluated([*rows, {"step": 4}])
    result.outcome = Complete("e" * 64)
    document = result.to_json()
    assert document["metrics"] == {
        "acc": {"better": "higher", "unit": "%", "best": 27.0},
        "loss": {"better": "lower", "unit": "", "best": 1.5},
    }
    assert RunResult.from_json(document).metrics == document["metrics"]


def test_the_file_has_the_keys_of_what_the_run_got_to() -> None:
    result, whole = begun(), complete()
    assert result.to_json().keys() == HEAD
    assert (result.to_json()["status"], result.to_json()["error"]) == ("failed", None)
    result.identity = whole.identity
    assert result.to_json().keys() == HEAD | IDENTITY
    result.provenance = whole.provenance
    assert result.to_json().keys() == HEAD | IDENTITY | PROVENANCE
    result.evaluated([])
    result.outcome, result.tracking = Diverged("the loss is nan"), ""
    diverged = HEAD | IDENTITY | PROVENANCE | {"final", "best", "tracking"}
    assert result.to_json().keys() == diverged
    assert result.to_json()["error"] == "the loss is nan"
    assert whole.to_json().keys() == diverged | {"test", "weights_sha256"}


def test_the_last_and_the_best_evaluation_are_those_of_the_history() -> None:
    document = complete().to_json()
    assert document["final"] == {"step": 8, "val/acc": 60.0}
    assert document["best"] == {"step": 4, "val/acc": 70.0}
    assert (document["test"], document["no_test"]) == ({}, "there is no test set")


def test_a_complete_result_is_read_back_as_it_was(tmp_path: Path) -> None:
    assert RunResult.from_json(complete().to_json()) == complete()
    complete().write(tmp_path)
    assert read_complete(tmp_path) == complete()


def test_a_run_that_is_not_complete_has_no_complete_result(tmp_path: Path) -> None:
    assert read_complete(tmp_path) is None
    for outcome in (Failed("no memory"), Interrupted("stopped by SIGTERM"), Diverged("nan")):
        result = complete()
        result.outcome = outcome
        result.write(tmp_path)
        assert read_complete(tmp_path) is None
