"""The store: what shapes a key, what a run starts from, what survives damage."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_config
from PIL import Image
from torch import nn

from harness.choices.optimizers import SGD
from harness.config.errors import ConfigError
from harness.config.fields import added, number
from harness.config.registry import KINDS
from harness.config.schema import Config
from harness.config.values import from_dict, to_dict
from harness.runs.context import PhaseTimer, RunContext
from harness.runs.run import run
from harness.runs.run_dir import RunInfo
from harness.runs.setup import prepare
from harness.runs.signals import RunInterruptedError
from harness.store import identity
from harness.store import store as trajectory
from harness.store.checkpoint import RowsFile, read_checkpoint, read_state
from harness.store.identity import FORMAT, plan_hashes, weights_sha256
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
        settings = tiny(f"store.dir={tmp_path / 'store'}", *overrides)
        result = run(RunContext(settings, RunInfo(folder, "test", branch_steps=branches))).to_json()
        rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        return result, rows

    return train


def same(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    """Equal weights and equal histories."""
    return bool(one[0]["weights_sha256"] == other[0]["weights_sha256"] and one[1] == other[1])


# --- what is in the key --------------------------------------------------------------------------

MODEL = ("model=torchvision", "model.arch=resnet18", "model.stem=small")
MOVES: dict[str, tuple[tuple[str, ...], str]] = {
    "model/resnet.depth": ((), "model.depth=14"),
    "model/resnet.width": ((), "model.width=4"),
    "model/torchvision.arch": (MODEL, "model.arch=resnet34"),
    "model/torchvision.stem": ((*MODEL, "dataset.image_size=32"), "model.stem=imagenet"),
    "dataset/synthetic.val_size": ((), "dataset.val_size=0.3"),
    "dataset/synthetic.test_size": ((), "dataset.test_size=0.3"),
    "dataset/synthetic.train_size": ((), "dataset.train_size=80"),
    "dataset/synthetic.split_seed": ((), "dataset.split_seed=1"),
    "dataset/synthetic.crop": ((), "dataset.crop=0"),
    "dataset/synthetic.flip": ((), "dataset.flip=true"),
    "dataset/synthetic.images": ((), "dataset.images=200"),
    "dataset/synthetic.image_size": ((), "dataset.image_size=8"),
    "dataset/synthetic.channels": ((), "dataset.channels=3"),
    "dataset/synthetic.classes": ((), "dataset.classes=5"),
    "dataset/synthetic.noise": ((), "dataset.noise=2"),
    "dataset/digits.val_size": (("dataset=digits",), "dataset.val_size=0.3"),
    "dataset/digits.test_size": (("dataset=digits",), "dataset.test_size=0.3"),
    "dataset/digits.train_size": (("dataset=digits",), "dataset.train_size=200"),
    "dataset/digits.split_seed": (("dataset=digits",), "dataset.split_seed=1"),
    "dataset/digits.crop": (("dataset=digits",), "dataset.crop=2"),
    "dataset/digits.flip": (("dataset=digits",), "dataset.flip=true"),
    "optimizer/sgd.weight_decay": ((), "optimizer.weight_decay=1e-3"),
    "optimizer/sgd.momentum": ((), "optimizer.momentum=0.5"),
    "optimizer/sgd.nesterov": ((), "optimizer.nesterov=true"),
    "optimizer/adamw.weight_decay": (("optimizer=adamw",), "optimizer.weight_decay=1e-3"),
    "optimizer/adamw.beta1": (("optimizer=adamw",), "optimizer.beta1=0.8"),
    "optimizer/adamw.beta2": (("optimizer=adamw",), "optimizer.beta2=0.9"),
    "optimizer/adamw.eps": (("optimizer=adamw",), "optimizer.eps=1e-6"),
    "trainer/default.batch_size": ((), "trainer.batch_size=8"),
    "trainer/default.label_smoothing": ((), "trainer.label_smoothing=0.1"),
    "trainer/default.precision": ((), "trainer.precision=bf16"),
    "seed": ((), "seed=1"),
}
STAYS: dict[str, tuple[tuple[str, ...], str]] = {
    "trainer/default.epochs": ((), "trainer.epochs=8"),
    "trainer/default.device": ((), "trainer.device=cpu"),
    "trainer/default.deterministic": ((), "trainer.deterministic=true"),
    "trainer/default.compile": ((), "trainer.compile=default"),
    "trainer/default.channels_last": ((), "trainer.channels_last=false"),
    "trainer/default.evals_per_epoch": ((), "trainer.evals_per_epoch=2"),
    "trainer/default.log_every": ((), "trainer.log_every=5"),
    "trainer/default.checkpoint_every": ((), "trainer.checkpoint_every=1"),
    "store/default.dir": ((), "store.dir=elsewhere"),
    "store/default.keep": ((), "store.keep=last"),
    "store/default.wait": ((), "store.wait=true"),
    "claim/default.factor": ((), "claim.factor=scheduler.t_mult"),
    "claim/default.baseline": ((), "claim.baseline=1"),
    "claim/default.treatments": ((), "claim.treatments=[2]"),
    "claim/default.metric": ((), "claim.metric=test/acc"),
    "claim/default.margin": ((), "claim.margin=0.5"),
    "claim/default.level": ((), "claim.level=0.01"),
    "tracking/wandb.mode": (("tracking=wandb",), "tracking.mode=offline"),
    "tracking/wandb.project": (("tracking=wandb",), "tracking.project=other"),
    "tracking/wandb.entity": (("tracking=wandb",), "tracking.entity=someone"),
    "tracking/wandb.tags": (("tracking=wandb",), "tracking.tags=[a]"),
    "reuse": ((), "reuse=false"),
    "retry": ((), "retry=true"),
}
IN_THE_PLAN = {  # they move the LR, which is the other part of the key
    "optimizer/sgd.lr", "optimizer/adamw.lr",
    *(f"scheduler/{kind}.{f.name}" for kind, node in KINDS["scheduler"].items() for f in dataclasses.fields(node)),
}  # fmt: skip
BY_CONTENT = {  # data sets that are not here: their content and their own split are hashed
    *(f"dataset/{kind}.{f.name}" for kind in ("torchvision", "image_folder")
      for f in dataclasses.fields(KINDS["dataset"][kind])),
}  # fmt: skip


def fingerprint(settings: Config) -> str:
    precision = "fp32" if settings.trainer.precision == "auto" else settings.trainer.precision
    return identity.fingerprint(settings, data.load(settings.dataset).sha256, precision)


@pytest.mark.parametrize(
    ("base", "change", "moves"),
    [
        pytest.param(base, change, moves, id=field)
        for table, moves in ((MOVES, True), (STAYS, False))
        for field, (base, change) in table.items()
    ],
)
def test_the_fingerprint_holds_what_shapes_the_weights_and_nothing_else(
    base: tuple[str, ...], change: str, moves: bool
) -> None:
    before, after = tiny(*base), tiny(*base, change)
    assert (fingerprint(before) != fingerprint(after)) == moves


def test_every_field_is_classified() -> None:
    fields = {
        f"{group}/{kind}.{f.name}"
        for group, kinds in KINDS.items()
        for kind, node in kinds.items()
        for f in dataclasses.fields(node)
    }
    fields |= {f.name for f in dataclasses.fields(Config)} - set(KINDS)
    assert fields == {*MOVES, *STAYS, *IN_THE_PLAN, *BY_CONTENT}


@dataclasses.dataclass
class LaterSGD(SGD):
    """SGD as it may become."""

    clip: float = added(0.0, number(at_least=0))
    averaged: bool = added(False)
    warm: int | None = added(None)


@pytest.mark.parametrize(
    ("given", "same"),
    [
        pytest.param({}, True, id="all as before"),
        pytest.param({"clip": 1.0}, False, id="another number"),
        pytest.param({"averaged": True}, False, id="another truth"),
        pytest.param({"warm": 0}, False, id="zero, which is not null"),
    ],
)
def test_a_key_that_is_added_later_costs_no_checkpoint_while_it_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], same: bool
) -> None:
    before = tiny()
    recorded, known = to_dict(before), fingerprint(before)
    monkeypatch.setitem(KINDS["optimizer"], "sgd", LaterSGD)
    read = from_dict(recorded)
    assert read.optimizer == LaterSGD(**vars(before.optimizer), clip=0.0, averaged=False, warm=None)
    after = dataclasses.replace(read, optimizer=dataclasses.replace(read.optimizer, **given))
    assert (fingerprint(after) == known) == same


def test_a_key_that_is_added_later_is_checked_like_others() -> None:
    sgd = vars(tiny().optimizer)
    with pytest.raises(ConfigError, match=r"optimizer\.clip=-1: must be a number ≥ 0"):
        LaterSGD(**sgd, clip=-1, averaged=False, warm=None)
    with pytest.raises(ConfigError, match=r"optimizer\.averaged: has no value"):
        LaterSGD(**sgd, clip=0, warm=None)


def test_one_changed_image_in_a_folder_moves_the_key(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in "ab":
            (tmp_path / part / label).mkdir(parents=True)
            for shade in range(4):
                Image.new("RGB", (8, 8), (60 * shade, 0, 0)).save(
                    tmp_path / part / label / f"{shade}.png"
                )
    settings = tiny(
        "dataset=image_folder",
        f"dataset.root={tmp_path}",
        "dataset.image_size=8",
        "dataset.val_size=2",
        "dataset.workers=0",
    )
    before = fingerprint(settings)
    assert fingerprint(settings) == before
    Image.new("RGB", (8, 8), (1, 0, 0)).save(tmp_path / "train/a/0.png")
    assert fingerprint(settings) != before


CHANGES: dict[str, Any] = {
    "the last weight": lambda network: network[0].weight.data[-1, -1].add_(1e-3),
    "a buffer": lambda network: network[1].running_var[0].add_(1e-3),
    "its type": lambda network: network.double(),
    "a name": lambda network: network.add_module("1", network[0]),
    "a shape": lambda network: setattr(network[0].weight, "data", network[0].weight.data.T),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_hash_of_weights_is_of_all_of_them(change: Any) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = weights_sha256(network.state_dict())
    assert weights_sha256(network.state_dict()) == before
    change(network)
    assert weights_sha256(network.state_dict()) != before


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
    rows: list[dict[str, float]] = [{"step": s} for s in (4, 8)] + [{"step": 6, "val/acc": 1.0}]
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


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut_rows(path: Path) -> None:
    """The last row of the history that the checkpoint needs is half there."""
    rows = path.parent / json.loads(path.read_text())["rows_file"]
    rows.write_bytes(rows.read_bytes()[:-20])


def _words_for_bytes(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rows_bytes": "all"}))


def _foreign(path: Path) -> None:
    """A sound checkpoint of another network, under this one's name."""
    torch.save({"network": {"weight": torch.zeros(3)}, "optimizer": {}, "scaler": {}}, path)
    beside = next(p for p in path.parent.glob("000000036-*.json"))
    document = json.loads(beside.read_text())
    document["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    beside.write_text(json.dumps(document))


def _signed(path: Path) -> None:
    """Whoever changed the weights at `path` wrote their checksum too."""
    (beside,) = path.parent.glob("000000036-*.json")
    document = json.loads(beside.read_text())
    document["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    beside.write_text(json.dumps(document))


def _packed(path: Path) -> None:
    """Compressed, as a file that unpacks to a thousand times its size would be."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    _signed(path)


def _endless(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(10 * 2**30)  # takes no space


def _changed(path: Path, **values: Any) -> None:
    state = torch.load(path, weights_only=True)
    torch.save(state | values, path)
    _signed(path)


def _large_moments(path: Path) -> None:
    """Four bytes that say they are 10^12 numbers."""
    huge = torch.zeros(1, 1).expand(10**6, 10**6)
    _changed(path, optimizer={0: {"momentum_buffer": huge}})


def _rewritten(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _rows_instead(path: Path, content: bytes) -> None:
    """The checkpoint of the JSON at `path` has the history `content`, and its checksum."""
    (path.parent / "other.rows").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    _rewritten(path, rows_file="other.rows", rows_bytes=len(content), rows_sha256=sha256)


def _rows_of_words(path: Path) -> None:
    _rows_instead(path, b'{"step": "first"}\n')


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        pytest.param(".pt", _flip, id="a flipped bit"),
        pytest.param(".pt", lambda p: p.write_bytes(p.read_bytes()[:-100]), id="truncated"),
        pytest.param(".pt", lambda p: p.write_bytes(b""), id="empty"),
        pytest.param(".pt", Path.unlink, id="weights gone"),
        pytest.param(".pt", _foreign, id="another network"),
        pytest.param(".json", lambda p: p.write_text("{"), id="half a JSON"),
        pytest.param(".json", _cut_rows, id="half a row"),
        pytest.param(".json", _words_for_bytes, id="another type"),
        pytest.param(".json", lambda p: p.write_text("[]"), id="another JSON"),
        pytest.param(".json", lambda p: p.write_text('{"format": 99}'), id="another format"),
        pytest.param(".pt", _packed, id="compressed"),
        pytest.param(".pt", _endless, id="ten gigabytes"),
        pytest.param(".pt", _large_moments, id="moments of another shape"),
        pytest.param(".pt", lambda p: _changed(p, updates=12), id="of another update"),
        pytest.param(".pt", lambda p: _changed(p, optimizer=[1]), id="a list of moments"),
        pytest.param(".pt", _pipe, id="a pipe"),
        pytest.param(".json", _endless, id="ten gigabytes of JSON"),
        pytest.param(".json", lambda p: p.write_text("[" * 10**6), id="deep JSON"),
        pytest.param(".json", _rows_of_words, id="rows of words"),
        pytest.param(".json", lambda p: _rewritten(p, rows_bytes=-5), id="less than nothing"),
        pytest.param(".json", lambda p: _rewritten(p, file="../x.pt"), id="a path that leads out"),
        pytest.param(".json", lambda p: _rewritten(p, step="36"), id="a step in words"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_next_shorter_one_serves(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, damage: Any
) -> None:
    whole = train()
    (path,) = (tmp_path / "store").glob(f"*/000000036-*{suffix}")
    damage(path)
    again = train()
    assert again[0]["updates_reused"] == 12
    assert same(whole, again)
    told = capsys.readouterr().err
    assert "000000036-" in told
    assert "passed over" in told


def test_a_checkpoint_that_fits_in_part_leaves_nothing_behind(train: Any, tmp_path: Path) -> None:
    """Its weights load, its optimizer is missing, and there is no shorter one: a fresh start."""
    whole = train("store.keep=last")
    (path,) = (tmp_path / "store").glob("*/000000036-*.pt")
    state = torch.load(path, weights_only=True)
    state["network"] = {name: torch.ones_like(value) for name, value in state["network"].items()}
    del state["optimizer"]
    torch.save(state, path)
    beside = next(path.parent.glob("000000036-*.json"))
    document = json.loads(beside.read_text())
    document["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    beside.write_text(json.dumps(document))
    again = train("store.keep=last")
    assert again[0]["updates_reused"] == 0
    assert same(whole, again)


def test_a_pickle_is_not_executed(train: Any, tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    train()
    (path,) = (tmp_path / "store").glob("*/000000036-*.pt")
    (beside,) = (tmp_path / "store").glob("*/000000036-*.json")
    path.write_bytes(pickle.dumps(Bomb()))
    document = json.loads(beside.read_text())
    document["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    beside.write_text(json.dumps(document))
    assert train()[0]["updates_reused"] == 12
    assert not (tmp_path / "exploded").exists()


def test_a_store_that_cannot_be_written_costs_a_warning(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    result, rows = train()
    assert result["status"] == "complete"
    assert "no checkpoint of update" in capsys.readouterr().err
    assert rows[-1]["step"] == 36


def test_a_history_that_is_gone_is_no_beginning(train: Any, tmp_path: Path) -> None:
    whole = train()
    (rows,) = (tmp_path / "store").glob("*/*.rows")
    rows.unlink()
    again = train()
    assert again[0]["updates_reused"] == 0
    assert same(whole, again)


def test_rows_that_someone_removes_from_under_a_run_are_written_anew(tmp_path: Path) -> None:
    rows: list[Row] = [{"step": float(step)} for step in range(9)]
    written = rows[:4]
    file = RowsFile(written)
    file.extend(tmp_path)
    (path,) = tmp_path.glob("*.rows")
    path.unlink()
    written += rows[4:]
    part = file.extend(tmp_path)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows
    assert part["rows_bytes"] == path.stat().st_size


def test_what_a_failed_write_left_behind_is_overwritten(tmp_path: Path) -> None:
    rows: list[Row] = [{"step": float(step)} for step in range(9)]
    written = rows[:4]
    file = RowsFile(written)
    before = file.extend(tmp_path)
    (path,) = tmp_path.glob("*.rows")
    with path.open("a") as opened:
        opened.write('{"step": 4.0}\n{"ste')
    assert path.stat().st_size > before["rows_bytes"]
    written += rows[4:]
    part = file.extend(tmp_path)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows
    assert part["rows_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_checkpoint_costs_no_more_late_in_a_run_than_early(train: Any, tmp_path: Path) -> None:
    train("scheduler.t_0=1", "scheduler.t_mult=1", "trainer.epochs=40", "trainer.log_every=1")
    paths = sorted((tmp_path / "store").glob("*/*-*.json"))
    assert len(paths) == 40
    sizes = [path.stat().st_size for path in paths[:-1]]  # the last has the test's metrics too
    assert max(sizes) < min(sizes) + 50
    assert len(list((tmp_path / "store").glob("*/*.rows"))) == 1


# --- several at once -----------------------------------------------------------------------------


def _child(settings: Config, folder: Path) -> None:
    folder.mkdir()
    run(RunContext(settings, RunInfo(folder, "child"))).to_json()


def _result(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


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
