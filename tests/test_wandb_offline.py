"""The logs that wandb writes are read: whole, cut off, damaged, of several attempts."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import wandb

from harness.config.errors import ConfigError
from harness.files import UnreadableError
from harness.reading import wandb_offline
from harness.reading.recorded import Recorded

ROWS = 2_000
CONFIG: dict[str, Any] = {"seed": 3, "scheduler": {"t_mult": 2, "t_0": 1.5}, "layers": [1, 2]}


def record(
    folder: Path, rows: list[tuple[int, dict[str, Any]]], exit_code: int = 0, **more: Any
) -> Path:
    """The folder of an offline run of these rows."""
    summary = more.pop("summary", {})
    run = wandb.init(
        mode="offline", dir=folder, project="p", settings=wandb.Settings(silent=True, console="off"),
        reinit="create_new", **more,
    )  # fmt: skip
    for step, row in rows:
        run.log(row, step=step)
    run.summary.update(summary)
    own = Path(run.dir).parent
    run.finish(exit_code=exit_code)
    wandb.teardown()  # the log is written to its end when wandb's service has ended
    return own


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run of 2,000 rows."""
    folder = tmp_path_factory.mktemp("whole")
    rows = [(step, {"loss": 1 / (step + 3)}) for step in range(ROWS)]
    record(folder, rows, id="one", name="the one", group="g", config=CONFIG, summary={"test": 0.1})
    return folder


def log_of(folder: Path) -> Path:
    (found,) = folder.glob("wandb/*run-*/run-*.wandb")
    return found


def test_a_run_is_whole(whole: Path) -> None:
    folders = (whole, whole / "wandb", log_of(whole).parent, whole / "wandb/latest-run")
    for folder in folders:
        found = wandb_offline.read(folder)
        assert found.notes == ()
        (run,) = found.runs.to_dicts()
        assert (run["run"], run["status"], run["error"]) == ("the one", "complete", None)
        assert json.loads(run["settings"]) == {
            "group": "g", "seed": 3, "scheduler.t_mult": 2, "scheduler.t_0": 1.5, "layers": "[1, 2]",
        }  # fmt: skip
        assert found.metrics == ["loss", "test"]
        losses = found.curves.filter(found.curves["loss"].is_not_null())
        assert losses["loss"].to_list() == [1 / (step + 3) for step in range(ROWS)]
        assert losses["step"].to_list() == list(range(ROWS))
        assert found.curves.rows()[-1] == (0, ROWS - 1, None, 0.1), "what only the summary has"


def test_values_of_all_kinds(tmp_path: Path) -> None:
    row = {
        "nan": math.nan, "inf": math.inf, "low": -math.inf, "tiny": 5e-324, "count": 7, "a": {"b": {"c": 2}},
        "text": "so", "yes": True, "shape": wandb.Histogram([1, 2]), "step": 5, "run": 4,
    }  # fmt: skip
    record(tmp_path, [(5, row)], config={"nothing": None, "wrong": math.nan})
    found = wandb_offline.read(tmp_path)
    (values,) = found.curves.drop("run").to_dicts()
    assert math.isnan(values.pop("nan"))
    assert values == {"step": 5, "inf": math.inf, "low": -math.inf, "tiny": 5e-324, "count": 7, "a.b.c": 2}  # fmt: skip
    assert found.notes == ("columns without numbers are left out: run, shape, text, yes",)


ENDS = {
    "failed": ({}, ("failed", "it ended with exit code 1")),
    "diverged": ({"status": "diverged"}, ("diverged", "it ended with exit code 1")),
    "a status of somebody else": ({"status": "fine"}, ("failed", "it ended with exit code 1")),
}


@pytest.mark.parametrize("name", ENDS)
def test_how_a_run_ended(tmp_path: Path, name: str) -> None:
    summary, end = ENDS[name]
    record(tmp_path, [(0, {"loss": 1.0})], exit_code=1, summary=summary)
    assert wandb_offline.read(tmp_path).runs.select("status", "error").row(0) == end


def write_log(folder: Path, steps: list[str]) -> None:
    """A log, in a folder of its own, of a run with a loss at these steps, which are JSON."""
    record_type = import_module("wandb.proto.wandb_internal_pb2").Record
    run, *rows = records = [record_type() for _ in range(len(steps) + 1)]
    run.run.run_id = folder.name
    for row, step in zip(rows, steps, strict=True):
        for key, value in (("loss", "0.5"), ("_step", step)):
            row.history.item.add(key=key, value_json=value)
    bodies = [one.SerializeToString() for one in records]
    chunks = [
        struct.pack("<IHB", zlib.crc32(body, zlib.crc32(b"\1")), len(body), 1) + body
        for body in bodies
    ]
    folder.mkdir()
    (folder / "run-a.wandb").write_bytes(b":W&B\xe1\xbe\x00" + b"".join(chunks))


@pytest.mark.parametrize("step", ["Infinity", "NaN", "1e300", str(2**63), '"x"', "[1]", "null"])
def test_a_log_is_read_up_to_a_step_that_is_none(tmp_path: Path, step: str) -> None:
    write_log(tmp_path / "run-1", ["0", "1", step, "3"])
    write_log(tmp_path / "run-2", ["0", "1", "2", "3"])
    found = wandb_offline.read(tmp_path)
    assert found.curves["step"].to_list() == [0, 1, 0, 1, 2, 3]
    assert found.notes == (f"logs are read up to where they are damaged: {tmp_path}/run-1/run-a.wandb has a damaged record",)  # fmt: skip


def test_attempts_are_one_run(tmp_path: Path) -> None:
    for first, loss in ((0, 1.0), (3, 2.0)):
        rows = [(step, {"loss": loss}) for step in range(first, first + 5 - first // 3)]
        folder = record(tmp_path, rows, id="again", name=f"from {first}")
        folder.rename(folder.with_name(f"{first}-{folder.name}"))
    found = wandb_offline.read(tmp_path)
    assert found.curves["loss"].to_list() == [1.0] * 3 + [2.0] * 4
    assert found.curves["step"].to_list() == list(range(7))
    assert found.notes == (
        "several attempts are one run, each from its first step in place of those before: from 3 (2)",
    )


def read_or_line(folder: Path) -> Recorded | str:
    """What is read, or the one line that says why nothing is."""
    try:
        return wandb_offline.read(folder)
    except UnreadableError as error:
        line = str(error)
    assert "\n" not in line
    return line


CRASH = """
import os, signal, sys, time, wandb
run = wandb.init(mode="offline", dir=sys.argv[1], project="p", settings=wandb.Settings(
    silent=True, console="off", x_transaction_log_flush_interval=0.01))
run.log({"loss": 0.5})
run.log({"loss": 0.25})
while not any(b"0.5" in open(os.path.join(at, one), "rb").read()
              for at, _, names in os.walk(sys.argv[1]) for one in names if one.endswith(".wandb")):
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_is_unfinished(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CRASH, tmp_path], check=False, timeout=60)
    found = wandb_offline.read(tmp_path)
    assert found.runs["status"].to_list() == ["unfinished"]
    assert found.runs["error"][0].endswith(": it is running, or was killed")
    assert found.curves["loss"].to_list()[0] == 0.5


def test_a_log_that_is_cut_off_is_read_up_to_there(whole: Path, tmp_path: Path) -> None:
    log = log_of(whole).read_bytes()
    path = tmp_path / "run-1/run-one.wandb"
    path.parent.mkdir()
    before = 0
    for cut in (
        0,
        5,
        7,
        20,
        500,
        2**15 - 3,
        2**15 + 3,
        *range(50_000, len(log), 60_001),
        len(log) - 1,
    ):
        path.write_bytes(log[:cut])
        found = read_or_line(tmp_path)
        if isinstance(found, str):
            assert cut <= 500
            assert found.startswith(f"{path}: ")
            continue
        number = len(found.curves["loss"].drop_nulls()) if "loss" in found.metrics else 0
        assert before <= number <= ROWS
        before = number
        assert found.runs["status"].to_list() == ["unfinished"]
        assert all(str(path) in note for note in found.notes)
    assert before == ROWS


def test_random_bytes_never_raise_anything_else(whole: Path, tmp_path: Path) -> None:
    log, numbers = log_of(whole).read_bytes()[:70_000], random.Random(0)
    path = tmp_path / "run-1/run-one.wandb"
    path.parent.mkdir()
    for _ in range(30):
        wrong = bytearray(log)
        place = numbers.randrange(len(log))
        wrong[place : place + 9] = numbers.randbytes(9)
        path.write_bytes(wrong)
        found = read_or_line(tmp_path)
        assert place < 3_000 if isinstance(found, str) else len(found.notes) == 1


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no wandb/\*run-\*/run-ID.wandb below it$"):
        wandb_offline.read(tmp_path)


def test_an_unreadable_log_among_others_is_named(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "wandb", tmp_path / "wandb", symlinks=True)
    (tmp_path / "wandb/run-2").mkdir()
    (tmp_path / "wandb/run-2/run-two.wandb").write_bytes(os.urandom(100))
    (tmp_path / "wandb/run-3").symlink_to(whole / "wandb")
    found = wandb_offline.read(tmp_path)
    assert len(found.runs) == 1
    assert found.notes == (
        "links out of the folder are not followed: wandb/run-3",
        f"not read: {tmp_path}/wandb/run-2/run-two.wandb: is no log of wandb, or of a version that is not known",
    )
