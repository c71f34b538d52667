"""The store: what shapes a key, what a run starts from, what survives damage."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_config

from harness.config.schema import Config
from harness.runs.context import PhaseTimer, RunContext
from harness.runs.run import run
from harness.runs.run_dir import RunInfo
from harness.runs.setup import prepare
from harness.runs.signals import RunInterruptedError
from harness.store import identity
from harness.store import store as trajectory
from harness.store.checkpoint import read_checkpoint, read_state
from harness.store.identity import FORMAT, plan_hashes
from harness.store.store import Store
from harness.training import datasets as data
from harness.training import device as machine
from harness.training.distributed import World
from harness.training.loop import LogSchedule, Row

TINY = (
    "dataset=synthetic",
    "dataset.images=160",
    "dataset.classes=4",
    "dataset.image_size=4",
    "dataset.crop=1",
    "model.width=2",
    "trainer.batch_size=16",
    "trainer.log_every=1",
    "trainer.checkpoint_every=1e6",
    "scheduler.t_0=2",
    "trainer.epochs=6",
)


def tiny(*overrides: str) -> Config:
    """The tiny configuration; where an override chooses a group, TINY's keys of it are left out."""
    groups = {word.partition("=")[0] for word in overrides if "." not in word.partition("=")[0]}
    kept = [word for word in TINY if word.partition("=")[0].partition(".")[0] not in groups]
    return make_config(*kept, *overrides)


@pytest.fixture
def train(tmp_path: Path) -> Any:
    """`train(*overrides)` runs the tiny configuration in a folder of its own; all share a store."""
    number = 0

    def train(*overrides: str, branches: frozenset[int] = frozenset()) -> tuple[Any, list[Any]]:
        nonlocal number
        number += 1
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        settings = tiny(*overrides)
        settings = replace(settings, store=replace(settings.store, dir=str(tmp_path / "store")))
        result = run(RunContext(settings, RunInfo(folder, "test", branch_steps=branches))).to_json()
        rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        return result, rows

    return train


def same(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    """Equal weights and equal histories."""
    return bool(one[0]["weights_sha256"] == other[0]["weights_sha256"] and one[1] == other[1])


# --- what is in the key --------------------------------------------------------------------------


def fingerprint(settings: Config) -> str:
    precision = "fp32" if settings.trainer.precision == "auto" else settings.trainer.precision
    return identity.fingerprint(settings, data.load(settings.dataset).sha256, precision)


# --- what a run starts from ----------------------------------------------------------------------


def test_a_finished_run_is_found_not_trained(train: Any) -> None:
    first, again = train(), train()
    assert (first[0]["updates_trained"], first[0]["updates_reused"]) == (36, 0)
    assert (again[0]["updates_trained"], again[0]["updates_reused"]) == (0, 36)
    assert same(first, again)
    assert again[0]["test"] == first[0]["test"]
    assert again[0]["parent"].startswith(first[0]["fingerprint"])


def test_checkpoints_of_an_older_format_are_named_once_and_passed_over(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = train()
    store = tmp_path / "store"
    now = store / first["fingerprint"]
    assert now.name.startswith(f"{FORMAT}-")
    for name in ("0" * 64, "1" * 64, f"{FORMAT - 1}-{'2' * 64}"):
        shutil.copytree(now, store / name)
    shutil.copytree(now, store / f"{FORMAT + 1}-{'3' * 64}")
    shutil.rmtree(now)
    capsys.readouterr()
    for seed in (0, 1):
        again, _ = train(f"seed={seed}")
        assert (again["status"], again["updates_reused"]) == ("complete", 0)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warnings == [
        f"warning: the checkpoints of 3 fingerprints in {store} are of an older format and are not "
        "used; scripts/store.py prune --older-formats removes them"
    ]


@pytest.mark.parametrize(
    ("first", "then", "reused"),
    [
        pytest.param((), ("trainer.epochs=14",), 36, id="extension of a finished run"),
        pytest.param(("trainer.epochs=14",), (), 36, id="the beginning of a longer run"),
        pytest.param(("scheduler.t_mult=1",), ("scheduler.t_mult=2",), 12, id="the first cycle"),
        pytest.param(
            ("scheduler=constant",), ("scheduler=constant", "trainer.epochs=9"), 36, id="constant"
        ),
    ],
)
def test_runs_share_their_beginning(
    train: Any, first: tuple[str, ...], then: tuple[str, ...], reused: int
) -> None:
    train(*first)
    shared = train(*then)
    alone = train(*then, "reuse=false")
    assert shared[0]["updates_reused"] == reused
    assert shared[0]["updates_trained"] == alone[0]["updates_trained"] - reused
    assert same(shared, alone)


def test_a_branch_that_the_sweep_announced_is_kept(train: Any) -> None:
    base = ("scheduler=step", "scheduler.gamma=0.5")
    train(*base, "scheduler.step_size=3", branches=frozenset({18}))
    assert train(*base, "scheduler.step_size=4")[0]["updates_reused"] == 18


def test_reuse_false_neither_reads_nor_writes_the_store(train: Any, tmp_path: Path) -> None:
    result, _ = train("reuse=false")
    assert result["updates_trained"] == 36
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("keep", "left", "reused"),
    [("cycles", {12, 36}, 36), ("last", {36}, 36), ("none", set(), 0)],
    ids=["cycles", "last", "none"],
)
def test_what_is_kept(train: Any, tmp_path: Path, keep: str, left: set[int], reused: int) -> None:
    train(f"store.keep={keep}", "trainer.checkpoint_every=0")
    found = {int(path.stem.split("-")[0]) for path in (tmp_path / "store").glob("*/*-*.json")}
    weights = list((tmp_path / "store").glob("*/*.pt"))
    assert (found, len(weights)) == (left, len(left))
    assert not list((tmp_path / "store").glob("*/*.training")), "nobody waits for what is over"
    assert train(f"store.keep={keep}")[0]["updates_reused"] == reused


def stopped_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Where a run is stopped by a signal that came during update number `step`."""
    agree, asked = World.all_reduce_stop_and_save, 0

    def interrupted(self: World, number: int | None, due: bool) -> tuple[int | None, bool]:
        nonlocal asked
        asked += 1
        if asked == step:
            number = signal.SIGTERM
        return agree(self, number, due)

    monkeypatch.setattr(World, "all_reduce_stop_and_save", interrupted)
    return pytest.raises(RunInterruptedError)


def checkpoints(folder: Path) -> dict[int, dict[str, Any]]:
    """What the store in `folder` holds, by step."""
    documents = [json.loads(path.read_text()) for path in folder.glob("*/*-*.json")]
    return {document["step"]: document for document in documents}


def test_a_run_that_was_stopped_at_a_cycle_end_keeps_it(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, stopped_at(12, patched):
        train()
    assert train()[0]["updates_reused"] == 12
    assert {12, 36} == checkpoints(tmp_path / "store").keys()
    assert train("scheduler.t_mult=1")[0]["updates_reused"] == 12


def test_a_checkpoint_that_another_run_has_made_permanent_is_not_removed(
    train: Any, tmp_path: Path
) -> None:
    train()
    store = Store(tmp_path / "store")
    kept = sorted(store.folder.glob("*/*-*.json"))
    assert kept
    for path in kept:
        store.drop(path)
        assert read_state(read_checkpoint(path))


def test_a_branch_that_another_run_stopped_at_is_kept(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = ("scheduler=step", "scheduler.gamma=0.5")
    with monkeypatch.context() as patched, stopped_at(18, patched):
        train(*base, "scheduler.step_size=3")
    first = train(*base, "scheduler.step_size=3", branches=frozenset({18}))
    assert first[0]["updates_reused"] == 18
    assert train(*base, "scheduler.step_size=4")[0]["updates_reused"] == 18


def test_where_another_run_stopped_is_an_end_for_the_run_that_ends_there(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, stopped_at(36, patched):
        train("trainer.epochs=8", "scheduler=constant")
    shorter = train("scheduler=constant")
    assert (shorter[0]["updates_reused"], shorter[0]["updates_trained"]) == (36, 0)
    end = checkpoints(tmp_path / "store")[36]
    assert (end["kept"], end["test"]) == (True, shorter[0]["test"])


# --- what was recorded ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recorded", "wanted"),
    [
        pytest.param("trainer.evals_per_epoch=1", "trainer.evals_per_epoch=3", id="evaluations"),
        pytest.param("trainer.log_every=6", "trainer.log_every=1", id="rows of updates"),
        pytest.param("trainer.log_every=4", "trainer.log_every=3", id="rows of other updates"),
    ],
)
def test_a_coarser_history_does_not_serve(train: Any, recorded: str, wanted: str) -> None:
    train(recorded)
    fine = train(wanted)
    assert fine[0]["updates_reused"] == 0
    assert same(fine, train(wanted, "reuse=false"))


@pytest.mark.parametrize(
    ("step", "without"),
    [
        pytest.param(20, "", id="a row of an update"),
        pytest.param(24, "", id="a row with an evaluation"),
        pytest.param(24, "val/", id="the evaluation of a row"),
        pytest.param(36, "", id="the last row"),
    ],
)
def test_a_history_that_lacks_something_does_not_serve(
    train: Any, tmp_path: Path, step: int, without: str
) -> None:
    """As a store that was written by hand or by other code; the prefix before it still serves."""
    whole = train()
    kept = [
        {name: value for name, value in row.items() if not name.startswith(without)}
        if row["step"] == step else row
        for row in whole[1]
    ]  # fmt: skip
    (path,) = (tmp_path / "store").glob("*/000000036-*.json")
    _rows_instead(path, "".join(json.dumps(row) + "\n" for row in kept if row).encode())
    again = train()
    assert again[0]["updates_reused"] == 12
    assert same(whole, again)


def test_a_finer_history_serves_without_its_extra_rows(train: Any) -> None:
    train("trainer.evals_per_epoch=3", "trainer.log_every=1")
    coarse = train("trainer.evals_per_epoch=1", "trainer.log_every=4")
    assert coarse[0]["updates_reused"] == 36
    assert same(coarse, train("trainer.evals_per_epoch=1", "trainer.log_every=4", "reuse=false"))


def test_cadence_covers_only_complete_histories() -> None:
    cadence = LogSchedule(4, frozenset({6, 12}))
    rows: list[Row] = [{"step": 4}, {"step": 8}, {"step": 6, "val/acc": 1.0}]
    assert cadence.covers(rows, 11)
    assert not cadence.covers(rows, 12)
    assert not cadence.covers(rows[:2], 8)
    assert cadence.select([{"step": 5, "lr": 1.0}, {"step": 8, "lr": 1.0, "val/acc": 1.0}]) == [
        {"step": 8, "lr": 1.0}
    ]


# --- numerics ------------------------------------------------------------------------------------


def test_other_numerics_are_reused_but_marked(
    train: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    train()
    longer = train("trainer.epochs=14", "trainer.channels_last=false")
    assert longer[0]["updates_reused"] == 36
    assert longer[0]["exact"] is False
    assert "channels_last True there, False here" in capsys.readouterr().err
    longest = train("trainer.epochs=30", "trainer.channels_last=false")
    assert longest[0]["exact"] is False, "an inexact beginning stays one"


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_run_that_goes_on_is_exact_only_where_arithmetic_is_deterministic(
    train: Any, monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    """A CPU that says so, as a stand-in for a GPU."""
    numerics = machine.numerics
    monkeypatch.setattr(
        machine, "numerics", lambda *args: numerics(*args) | {"deterministic": deterministic}
    )
    first, _ = train()
    longer, _ = train("trainer.epochs=14")
    assert (first["exact"], longer["updates_reused"]) == (True, 36)
    assert longer["exact"] is deterministic


# --- runs that ended badly -----------------------------------------------------------------------


def test_a_diverged_run_is_reported_and_tried_again_on_request(train: Any) -> None:
    hot = ("optimizer.lr=1e5",)
    first, again, retried = train(*hot), train(*hot), train(*hot, "retry=true")
    assert [r[0]["status"] for r in (first, again, retried)] == ["diverged"] * 3
    assert first[0]["updates_trained"] > 0
    assert "updates_trained" not in again[0]
    assert "retry=true" in again[0]["error"]
    assert retried[0]["updates_trained"] > 0
    assert first[1] == again[1] == retried[1]
    assert all(row["train/loss"] < float("inf") for row in first[1])


def test_a_failure_that_an_earlier_version_noted_does_not_count(train: Any, tmp_path: Path) -> None:
    """Those were of any kind: a key that was missing, a disk that was full."""
    hot = ("optimizer.lr=1e5",)
    train(*hot)
    (noted,) = tmp_path.rglob("*.outcome")
    noted.write_text(noted.read_text().replace("diverged", "failed"))
    assert train(*hot)[0]["updates_trained"] > 0


# --- damage --------------------------------------------------------------------------------------


def _rewritten(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _rows_instead(path: Path, content: bytes) -> None:
    """The checkpoint of the JSON at `path` has the history `content`, and its checksum."""
    (path.parent / "other.rows").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    _rewritten(path, rows_file="other.rows", rows_bytes=len(content), rows_sha256=sha256)


# --- several at once -----------------------------------------------------------------------------


def _child(settings: Config, folder: Path) -> None:
    folder.mkdir()
    run(RunContext(settings, RunInfo(folder, "child"))).to_json()


def _result(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


@pytest.mark.slow
def test_two_processes_that_write_the_same_keys_both_succeed(tmp_path: Path) -> None:
    settings = tiny(f"store.dir={tmp_path / 'store'}", "trainer.checkpoint_every=0")
    processes = multiprocessing.get_context("spawn")
    both = [
        processes.Process(target=_child, args=(settings, tmp_path / name)) for name in ("a", "b")
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
    one, other = _result(tmp_path / "a"), _result(tmp_path / "b")
    assert one["status"] == other["status"] == "complete"
    assert one["weights_sha256"] == other["weights_sha256"]
    store = Store(tmp_path / "store")
    for path in store.folder.glob("*/*-*.json"):
        read_state(read_checkpoint(path))


def test_an_arm_that_waits_starts_from_the_common_part(train: Any, tmp_path: Path) -> None:
    settings = tiny(f"store.dir={tmp_path / 'store'}", "scheduler.t_mult=1")
    other = prepare(settings, PhaseTimer()).identity
    done: list[Any] = []
    waiting = threading.Thread(target=lambda: done.append(train("store.wait=true")))
    with Store(tmp_path / "store").lease(other, [12, 24, 36], wait=False):
        waiting.start()
        waiting.join(1.5)
        assert waiting.is_alive(), "it waits while the other run has not got to update 12"
        train("scheduler.t_mult=1")
        waiting.join(30)
    assert done[0][0]["updates_reused"] == 12


@pytest.mark.timeout(60)
def test_nobody_waits_for_what_is_stored(train: Any, tmp_path: Path) -> None:
    train("scheduler.t_mult=1")
    settings = tiny(f"store.dir={tmp_path / 'store'}", "scheduler.t_mult=1", "trainer.epochs=12")
    other = prepare(settings, PhaseTimer()).identity
    with Store(tmp_path / "store").lease(other, [12, 24], wait=False):
        assert train("store.wait=true")[0]["updates_reused"] == 12


@pytest.mark.timeout(60)
@pytest.mark.parametrize("age", [100, -(10**6)], ids=["of long ago", "of a clock set back"])
def test_nobody_waits_for_a_run_that_is_dead(train: Any, tmp_path: Path, age: int) -> None:
    settings = tiny(f"store.dir={tmp_path / 'store'}", "scheduler.t_mult=1")
    other = prepare(settings, PhaseTimer()).identity
    claim = tmp_path / "store" / other.fingerprint / "0123456789abcdef.training"
    claim.parent.mkdir(parents=True)
    claim.write_text(json.dumps([list(pair) for pair in plan_hashes(other.plan, [12])]))
    os.utime(claim, (time.time() - age, time.time() - age))
    assert train("store.wait=true")[0]["updates_trained"] == 36


def test_a_run_under_way_gives_signs_of_life(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trajectory, "_HEARTBEAT", 0)
    t = prepare(tiny(), PhaseTimer()).identity
    with Store(tmp_path).lease(t, [12], wait=False) as alive:
        (claim,) = tmp_path.glob("*/*.training")
        os.utime(claim, (0, 0))
        alive()
        assert time.time() - claim.stat().st_mtime < 60
    assert not claim.exists()


def test_a_lease_stays_when_an_earlier_process_of_the_same_run_ends(tmp_path: Path) -> None:
    store, run = Store(tmp_path), prepare(tiny(), PhaseTimer()).identity
    with ExitStack() as later:
        with store.lease(run, [12], wait=False):
            later.enter_context(store.lease(run, [12], wait=False))
        (lease,) = tmp_path.glob("*/*.training")
    assert not lease.exists()
