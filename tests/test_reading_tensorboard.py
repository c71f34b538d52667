"""TensorBoard's event files: what PyTorch's and our own writer write, and what may become of it."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG, create_summary_metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from harness.config.errors import ConfigError
from harness.files import UnreadableError
from harness.reading import tensorboard_events
from harness.reading.recorded import Recorded
from harness.reading.series import series
from harness.reading.tensorboard_events import read
from harness.runs.tensorboard_run import TensorBoardRun

Points = Mapping[str, list[tuple[int, float]]]
CURVE = (0.25, 0.75, 0.5)


def write(folder: Path, points: Points, **how: Any) -> None:
    with SummaryWriter(str(folder)) as writer:
        for tag, values in points.items():
            for step, value in values:
                writer.add_scalar(tag, value, step, **how)


def settings(recorded: Recorded, run: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(recorded.runs["settings"][run])
    return found


def curve(recorded: Recorded, metric: str, run: int = 0) -> list[tuple[int, float]]:
    rows = recorded.curves.filter(pl.col("run") == run).select("step", metric).drop_nulls()
    return [(step, value) for step, value in rows.iter_rows()]


def said(recorded: Recorded, words: str) -> bool:
    return any(words in note for note in recorded.notes)


def test_runs_of_any_depth_by_their_path(tmp_path: Path) -> None:
    for name in ("a/t_mult=1,seed=0", "a/t_mult=2,seed=0", "b"):
        write(tmp_path / name, {"acc": [(0, 0.5), (9, 0.75)]})
    found = read(tmp_path)
    assert found.runs["run"].to_list() == ["a/t_mult=1,seed=0", "a/t_mult=2,seed=0", "b"]
    assert settings(found, 1) == {"t_mult": 2, "seed": 0}
    assert curve(found, "acc", 2) == [(0, 0.5), (9, 0.75)]
    assert found.runs["status"].to_list() == [None] * 3


def test_all_values_are_read_and_not_a_sample(tmp_path: Path) -> None:
    write(tmp_path, {"loss": [(step, step / 4) for step in range(10_500)]})
    assert curve(read(tmp_path), "loss") == [(step, step / 4) for step in range(10_500)]


@pytest.mark.parametrize(
    ("how", "value", "is_single"),
    [
        ({}, float(np.float32(0.1)), True),
        ({"new_style": True}, float(np.float32(0.1)), True),
        ({"new_style": True, "double_precision": True}, 0.1, False),
    ],
    ids=["simple_value", "tensor of float32", "tensor of float64"],
)
def test_the_forms_of_a_scalar(
    how: dict[str, Any], value: float, is_single: bool, tmp_path: Path
) -> None:
    write(tmp_path, {"acc": [(0, 0.1), (1, 0.1)]}, **how)
    found = read(tmp_path)
    assert curve(found, "acc") == [(0, value), (1, value)]
    assert said(found, "single-precision") == is_single


def test_tags_that_count_different_steps_are_rows_by_step(tmp_path: Path) -> None:
    write(tmp_path, {"loss": [(0, 3.0), (50, 2.0), (99, 1.0)], "acc": [(0, 0.5), (1, 0.75)]})
    found = read(tmp_path)
    assert found.curves["step"].to_list() == [0, 1, 50, 99]
    assert curve(found, "acc") == [(0, 0.5), (1, 0.75)]


def test_a_run_that_was_started_again_goes_on_from_its_step_tag_by_tag(tmp_path: Path) -> None:
    write(tmp_path, {"loss": [(s, 1.0) for s in range(6)], "acc": [(0, 0.1), (1, 0.2), (2, 0.3)]})
    write(tmp_path, {"loss": [(s, 2.0) for s in range(3, 6)], "acc": [(1, 0.5)]})
    found = read(tmp_path)
    assert curve(found, "loss") == [(s, 1.0 if s < 3 else 2.0) for s in range(6)]
    assert [step for step, _ in curve(found, "acc")] == [0, 1]
    assert said(found, "5 values are replaced by a later file")


def test_steps_that_go_back_in_a_file_stay_in_their_order(tmp_path: Path) -> None:
    first = [(step, step / 1024) for step in range(0, 1000, 100)]
    with SummaryWriter(str(tmp_path)) as writer:
        for step, value in first:
            writer.add_scalar("acc", value, step)
            writer.add_scalar("lr", 0.5, step)
            writer.add_scalar("lr", 0.5, step)
        for step, value in ((500, 0.25), (600, 0.125)):
            writer.add_scalar("acc", value, step)
            writer.add_scalar("time", value, step + 50)
    found = read(tmp_path)
    assert curve(found, "acc") == [*first, (500, 0.25), (600, 0.125)]
    assert curve(found, "time") == [(550, 0.25), (650, 0.125)]
    assert curve(found, "lr") == [(step, 0.5) for step, _ in first]
    acc = series(found, "acc")
    assert acc.resumed == [0]
    assert acc.rows.select("step", "value").rows() == [*first[:5], (500, 0.25), (600, 0.125)]


@pytest.mark.parametrize("again", [{"loss": [(550, 2.0), (560, 2.0)]}, {}], ids=["one tag", "none"])
def test_a_purge_step_ends_all_tags_of_earlier_files(again: Points, tmp_path: Path) -> None:
    first = [(step, 0.5) for step in range(0, 1000, 100)]
    write(tmp_path, {"loss": first, "acc": first})
    with SummaryWriter(str(tmp_path), purge_step=550) as writer:
        for tag, values in again.items():
            for step, value in values:
                writer.add_scalar(tag, value, step)
    found = read(tmp_path)
    assert curve(found, "acc") == first[:6]
    assert curve(found, "loss") == [*first[:6], *again.get("loss", [])]
    assert said(found, "8 values are replaced by a later file")


def test_add_hparams_belongs_to_the_run_above(tmp_path: Path) -> None:
    write(tmp_path / "a", {"acc": [(0, 0.5), (7, 0.75)]})
    with SummaryWriter(str(tmp_path / "a")) as writer:
        writer.add_hparams({"lr": 0.1, "seed": 3, "opt": "sgd", "ema": True}, {"final": 0.25})
    found = read(tmp_path)
    assert found.runs["run"].to_list() == ["a"]
    assert settings(found) == {"ema": 1, "lr": 0.1, "opt": "sgd", "seed": 3}
    assert curve(found, "final") == [(7, 0.25)]
    assert curve(found, "acc") == [(0, 0.5), (7, 0.75)]
    assert found.runs["status"].to_list() == [None]  # PyTorch writes a success at once


def lightning_metric(folder: Path, value: float) -> None:
    """Log a final metric as users of Lightning do, whose logger writes `hp_metric` first."""
    from lightning.pytorch.loggers import TensorBoardLogger

    logger = TensorBoardLogger(folder.parent, name="", version=folder.name)
    logger.log_hyperparams({"seed": 1})
    for epoch in range(3):
        logger.log_metrics({"acc": CURVE[epoch], "epoch": epoch}, epoch * 100)
    logger.log_hyperparams({"seed": 1}, {"acc": value})
    logger.finalize("success")


def beside(first: bool, step: int | None = None) -> Callable[[Path, float], None]:
    """Return what writes a curve, and values of `add_hparams` into its folder before or after it."""

    def write(folder: Path, value: float) -> None:
        with SummaryWriter(str(folder)) as writer:
            for epoch in range(0 if first else 3):
                writer.add_scalar("acc", CURVE[epoch], epoch * 100)
            writer.add_hparams({"seed": 1}, {"acc": value, "top": value}, run_name=".", global_step=step)  # fmt: skip
            for epoch in range(3 if first else 0):
                writer.add_scalar("acc", CURVE[epoch], epoch * 100)

    return write


def same_file(folder: Path, value: float) -> None:
    with SummaryWriter(str(folder)) as writer:
        for epoch in range(3):
            writer.add_scalar("acc", CURVE[epoch], epoch * 100)
        for summary in hparams({"seed": 1}, {"acc": value}):  # type: ignore[no-untyped-call]
            writer.file_writer.add_summary(summary)
        writer.add_scalar("acc", value)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(beside(first=False), id="after the curve"),
        pytest.param(beside(first=True), id="before the curve"),
        pytest.param(beside(first=False, step=200), id="at the last step"),
        pytest.param(same_file, id="in the file of the curve"),
        pytest.param(lightning_metric, id="Lightning", marks=pytest.mark.slow),
    ],
)
def test_hparams_beside_a_curve_are_not_its_end(
    write: Callable[[Path, float], None], tmp_path: Path
) -> None:
    write(tmp_path / "a", 0.75)
    found = read(tmp_path)
    assert curve(found, "acc") == [(0, 0.25), (100, 0.75), (200, 0.5)]
    assert settings(found) == {"seed": 1}
    assert "top" not in found.metrics or curve(found, "top") == [(200, 0.75)]
    assert said(found, "that the run has in its curves are left out")
    assert not said(found, "started again")


def test_hparams_without_a_curve_are_final_values(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "a")) as writer:
        for acc in (0.0, 0.75):
            writer.add_hparams({"seed": 1}, {"acc": acc}, run_name=".")
    found = read(tmp_path)
    assert (settings(found), curve(found, "acc")) == ({"seed": 1}, [(0, 0.75)])


def test_several_add_hparams_of_a_writer_are_a_run_each(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for seed in (0, 1):
            writer.add_hparams({"seed": seed}, {"acc": seed / 2}, run_name=f"session{seed}")
    found = read(tmp_path)
    assert found.runs["run"].to_list() == ["session0", "session1"]
    assert [settings(found, run)["seed"] for run in (0, 1)] == [0, 1]
    assert curve(found, "acc", 1) == [(0, 0.5)]
    assert said(found, "above those of runs, and is left out")


def test_add_scalars_are_metrics_of_the_run_above(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "a")) as writer:
        for step in (0, 1):
            writer.add_scalar("lr", 0.5, step)
            writer.add_scalars("top/loss", {"train": 2.0 - step, "val": 3.0}, step)
    found = read(tmp_path)
    assert found.runs["run"].to_list() == ["a"]
    assert set(found.metrics) == {"lr", "top/loss/train", "top/loss/val"}
    assert curve(found, "top/loss/train") == [(0, 2.0), (1, 1.0)]


@pytest.mark.parametrize("names", [("train", "validation"), ("train", "val", "test")])
def test_folders_of_splits_are_one_run(tmp_path: Path, names: tuple[str, ...]) -> None:
    """As Keras writes them, and programs with a writer for each."""
    for run in ("t_mult=1", "t_mult=2"):
        for at, name in enumerate(names):
            write(tmp_path / run / name, {"acc": [(5 + at, 0.5), (9 + at, 0.25 * at)]})
    found = read(tmp_path)
    assert found.runs["run"].to_list() == ["t_mult=1", "t_mult=2"]
    assert [settings(found, run) for run in (0, 1)] == [{"t_mult": 1}, {"t_mult": 2}]
    for at, name in enumerate(names):
        assert curve(found, f"{name}/acc", 1) == [(5 + at, 0.5), (9 + at, 0.25 * at)]


def test_one_folder_of_a_split_alone_is_a_run(tmp_path: Path) -> None:
    write(tmp_path / "a/val", {"acc": [(1, 0.5)]})
    write(tmp_path / "b/val", {"acc": [(1, 0.5)]})
    assert read(tmp_path).runs["run"].to_list() == ["a/val", "b/val"]


def test_a_run_below_another_is_one_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "a", {"acc": [(0, 0.5)]})
    write(tmp_path / "a/fold_1", {"acc": [(0, 0.75)], "loss": [(0, 1.0)]})
    assert read(tmp_path).runs["run"].to_list() == ["a", "a/fold_1"]


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ({"status": "STATUS_SUCCESS", "end_time_secs": 1.5e9}, "complete"),
        ({"status": "STATUS_SUCCESS"}, None),
        ({"status": "STATUS_FAILURE"}, "failed"),
        ({"status": "STATUS_RUNNING"}, "running"),
        ({}, None),
    ],
)
def test_the_end_of_a_session(end: dict[str, Any], status: str | None, tmp_path: Path) -> None:
    content = HParamsPluginData(session_end_info=SessionEndInfo(**end))
    ended = Summary.Value(
        tag=SESSION_END_INFO_TAG, metadata=create_summary_metadata(content), simple_value=0
    )
    ended.ClearField("simple_value")
    events(
        tmp_path, Event(summary=Summary(value=[Summary.Value(tag="acc", simple_value=1), ended]))
    )
    assert read(tmp_path).runs["status"].to_list() == [status]


@pytest.mark.parametrize("status", ["complete", "diverged", None])
def test_our_own_runs_have_their_configuration_and_status(
    status: str | None, tmp_path: Path
) -> None:
    values = {"seed": 3, "optimizer": {"lr": 0.05, "kind": "sgd"}, "tags": ["a"]}
    run = TensorBoardRun(tmp_path, "t_mult=2", values)
    run.log({"step": 0, "val_acc": 0.5})
    run.log({"step": 40, "val_acc": 0.75})
    if status:
        run.finish({"status": status, "test_acc": 0.5}, 0)
    else:
        run._send(lambda writer: writer.close())
    found = read(tmp_path)
    ours = {"seed": 3, "optimizer.lr": 0.05, "optimizer.kind": "sgd", "tags": '["a"]'}
    assert settings(found) == {"t_mult": 2, **ours}
    assert found.runs["status"].to_list() == [status or "unfinished"]
    assert (found.runs["error"][0] is None) == (status == "complete")
    assert curve(found, "val_acc") == [(0, 0.5), (40, 0.75)]


def test_text_of_others_is_no_configuration(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_text("config", '{"lr": 1}')
        writer.add_text("status", "```\nall well\n```")
        writer.add_scalar("acc", 1.0, 0)
    found = read(tmp_path)
    assert (settings(found), found.runs["status"][0]) == ({}, None)


def events(folder: Path, *some: Event) -> Path:
    """Write a file of events as TensorBoard's records; the first one says the version."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "events.out.tfevents.1500000000.host.1.0"
    bodies = [
        one.SerializeToString() for one in (Event(wall_time=1, file_version="brain.Event:2"), *some)
    ]
    path.write_bytes(b"".join(record(body) for body in bodies))
    return path


def record(body: bytes) -> bytes:
    head = struct.pack("<Q", len(body))
    crcs = [struct.pack("<I", masked_crc32c(part)) for part in (head, body)]
    return head + crcs[0] + body + crcs[1]


def scalars(tensor: TensorProto) -> Event:
    plugin = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"), data_class=1
    )
    return Event(summary=Summary(value=[Summary.Value(tag="big", tensor=tensor, metadata=plugin)]))


def shape(*sizes: int) -> TensorShapeProto:
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])


VALUES = [
    Event(step=s, summary=Summary(value=[Summary.Value(tag="acc", simple_value=s)]))
    for s in range(5)
]


def file(*extra: Event) -> Callable[[Path], object]:
    return lambda folder: events(folder, *VALUES, *extra)


def raw(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        path = events(folder, *VALUES)
        path.write_bytes(change(path.read_bytes()))

    return write


def tag(name: str) -> Event:
    return Event(summary=Summary(value=[Summary.Value(tag=name, simple_value=1)]))


def flipped(body: bytes) -> bytes:
    place = len(body) - 10
    return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]


def link(folder: Path) -> None:
    path = events(folder.parent.parent / "outside", *VALUES)
    folder.mkdir(parents=True)
    (folder / path.name).symlink_to(path)
    events(folder.parent / "other", *VALUES)


def large(folder: Path) -> None:
    os.truncate(events(folder, *VALUES), 2**30)


def two_files(folder: Path) -> None:
    events(folder, *VALUES)
    (folder / "events.out.tfevents.1500000001.host.1.0").write_bytes(b"junk of another program")


CASES: dict[str, tuple[Callable[[Path], object], str, int]] = {
    "cut": (raw(lambda body: body[:-3]), "is cut or damaged", 4),
    "cut in a header": (raw(lambda body: body + b"\1\2\3"), "is cut or damaged", 5),
    "a byte changed": (raw(flipped), "is cut or damaged", 4),
    "a record of no event": (raw(lambda body: body + record(b"\xff\xff")), "is cut or damaged", 5),
    "a record of 8 EiB": (raw(lambda body: body + struct.pack("<QI", 2**63, masked_crc32c(struct.pack("<Q", 2**63)))), "is cut or damaged", 5),
    "a record of 1 TiB": (raw(lambda body: body + struct.pack("<QI", 2**40, masked_crc32c(struct.pack("<Q", 2**40)))), "is cut or damaged", 5),
    "empty": (raw(lambda body: b""), "it has no scalars", 0),
    "no scalars": (lambda folder: events(folder), "it has no scalars", 0),
    "another program's": (raw(lambda body: b"# a text file\n" * 9), "is no event file, or damaged", -1),
    "of 1 GiB": (large, "has 1,073,741,824 bytes", -1),
    "one of two files": (two_files, "a file cannot be read; others of the run are read", 5),
    "a link out of the folder": (link, "is a link, which is not followed", 5),
    "a tensor of many": (file(scalars(TensorProto(dtype=1, tensor_shape=shape(3), float_val=[1, 2, 3]))), "no single numbers", 5),
    "a tensor that claims to be vast": (file(scalars(TensorProto(dtype=1, tensor_shape=shape(2**40), float_val=[1]))), "no single numbers", 5),
    "a tensor without its value": (file(scalars(TensorProto(dtype=1))), "no single numbers", 5),
    "a tensor of text": (file(scalars(TensorProto(dtype=7, string_val=[b"x"]))), "no single numbers", 5),
    "a tensor of other bytes": (file(scalars(TensorProto(dtype=2, tensor_content=b"abc"))), "no single numbers", 5),
    "tags that name no metric": (file(tag("run"), tag(""), tag("step")), "are left out: '', 'run', 'step'", 5),
    "too many tags": (file(*(tag(str(n)) for n in range(1_100))), "1,101 columns", -1),
    "a step twice": (file(Event(step=4, summary=Summary(value=[Summary.Value(tag="acc", simple_value=8)]))), "1 values are of a step that has a later one", 5),
    "hparams of another program": (
        file(Event(summary=Summary(value=[Summary.Value(tag="h", metadata=SummaryMetadata(
            plugin_data=SummaryMetadata.PluginData(plugin_name="hparams", content=b"\xff")))]))), "no single numbers", 5),
    "hparams.yaml that is none": (lambda folder: (events(folder, *VALUES), (folder / "hparams.yaml").write_text("[")), "its settings are not known", 5),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_or_odd_file_is_named(name: str, tmp_path: Path) -> None:
    """`rows` are left of it; none (-1) where it is an error of one line."""
    make, says, rows = CASES[name]
    make(tmp_path / "source/run")
    if rows < 0:
        with pytest.raises((ConfigError, UnreadableError), match=says) as raised:
            read(tmp_path / "source")
        assert len(str(raised.value).splitlines()) == 1
        return
    found = read(tmp_path / "source")
    assert len(found.runs) == 1
    assert len(found.curves.filter(pl.col("acc").is_not_null()) if rows else found.curves) == rows
    lines = [*found.notes, *found.runs["error"].drop_nulls()]
    assert any(says in line for line in lines)
    assert all(len(line.splitlines()) == 1 for line in lines)


def test_a_run_that_cannot_be_read_is_no_error_of_the_others(tmp_path: Path) -> None:
    large(tmp_path / "a")
    events(tmp_path / "b", *VALUES)
    found = read(tmp_path)
    assert found.runs["status"].to_list() == ["unreadable", None]
    assert "bytes" in found.runs["error"][0]


def test_values_at_steps_below_0_are_left_out(tmp_path: Path) -> None:
    for seed, step in enumerate((-500, 0)):
        with SummaryWriter(str(tmp_path / f"run{seed}")) as writer:
            writer.add_scalar("acc", 0.5, step)
            writer.add_scalar("acc", 0.75, 7)
            writer.add_scalar("loss", 0.5, 7)
            writer.add_hparams({"seed": seed}, {"top": 0.5}, run_name=".")
    found = read(tmp_path)
    assert any(
        "values of acc at steps below 0 are left out" in note and "run0" in note
        for note in found.notes
    )
    assert [settings(found, run) for run in (0, 1)] == [{"seed": 0}, {"seed": 1}]
    assert curve(found, "acc", 0) == [(7, 0.75)]
    assert curve(found, "loss", 0) == [(7, 0.5)]
    assert curve(found, "acc", 1) == [(0, 0.5), (7, 0.75)]


def test_diverged_values_are_values(tmp_path: Path) -> None:
    write(tmp_path, {"loss": [(0, 1.0), (1, float("nan")), (2, float("inf"))]})
    values = read(tmp_path).curves["loss"]
    assert values.is_nan().to_list() == [False, True, False]
    assert values.is_infinite().to_list() == [False, False, True]


def test_tensorboard_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard_events, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[tensorboard\]'"):
        read(tmp_path)
