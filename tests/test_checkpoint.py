"""The file that describes a stored checkpoint."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from harness.store.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    CorruptCheckpointError,
    info_to_json,
    read_checkpoint,
)
from harness.store.identity import FORMAT

FINGERPRINT = f"{FORMAT}-{'f' * 64}"
ROWS = [{"step": 5, "lr": 0.1}, {"step": 10, "lr": 0.05, "val/acc": 50.0}]
WRITTEN = "".join(f"{json.dumps(row)}\n" for row in ROWS).encode()
INFO = CheckpointInfo(
    numerics={"device": "cpu"}, bitwise=True, permanent=False, seconds=1.23456, test={"test/acc": 9.0}
)  # fmt: skip


def write(folder: Path, **other: Any) -> Path:
    """A checkpoint's JSON and its rows below `folder`; keys in `other` have other values, None removes."""
    path = folder / FINGERPRINT / "000000010-p.json"
    path.parent.mkdir()
    (path.parent / "a.rows").write_bytes(WRITTEN + b'{"step": 15}\n')  # the run went on
    document = {
        "format": FORMAT, "fingerprint": FINGERPRINT, "step": 10, "plan_sha256": "p", "file": "a.pt",
        "sha256": "s", "rows_file": "a.rows", "rows_bytes": len(WRITTEN),
        "rows_sha256": hashlib.sha256(WRITTEN).hexdigest(), **info_to_json(INFO), **other,
    }  # fmt: skip
    path.write_text(json.dumps({name: v for name, v in document.items() if v is not None}))
    return path


def test_on_disk_are_the_names_of_stores_written_before() -> None:
    assert info_to_json(INFO) == {
        "numerics": {"device": "cpu"}, "exact": True, "kept": False, "seconds": 1.235,
        "test": {"test/acc": 9.0}, "test_sha256": None, "commit": None, "dirty": None,
    }  # fmt: skip


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write(tmp_path, test_sha256="t")
    checkpoint = read_checkpoint(path)
    wanted = dataclasses.replace(INFO, seconds=1.235, test_sha256="t")
    own = {f.name: getattr(checkpoint, f.name) for f in dataclasses.fields(CheckpointInfo)}
    assert CheckpointInfo(**own) == wanted
    assert checkpoint.key == f"{FINGERPRINT}/000000010-p"
    assert checkpoint.rows == ROWS
    assert checkpoint.is_end


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"format": FORMAT - 1}, "is of another format"),
        ({"format": FORMAT + 1}, "is of another format"),
        ({"format": None}, r"cannot be read \(KeyError\)"),
        ({"fingerprint": f"{FORMAT}-{'0' * 64}"}, "does not belong here"),
        ({"file": "../a.pt"}, "does not belong here"),
        ({"file": "/tmp/a.pt"}, "does not belong here"),
        ({"rows_file": "../a.rows"}, "does not belong here"),
        ({"rows_file": 5}, r"cannot be read \(TypeError\)"),
        ({"kept": None, "permanent": True}, r"cannot be read \(KeyError\)"),
        ({"unknown": 1}, r"cannot be read \(TypeError\)"),
    ],
)
def test_a_file_that_is_no_checkpoint_of_this_folder_is_refused(
    tmp_path: Path, other: dict[str, Any], said: str
) -> None:
    path = write(tmp_path, **other)
    with pytest.raises(CorruptCheckpointError, match=said) as error:
        read_checkpoint(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    "line", [b'{"step": 5.5}\n', b'{"lr": 0.1}\n', b'{"step": 5, "lr": NaN}\n', b"[5]\n"]
)
def test_lines_that_are_no_rows_are_refused_with_the_right_checksum_too(
    tmp_path: Path, line: bytes
) -> None:
    path = write(tmp_path, rows_bytes=len(line), rows_sha256=hashlib.sha256(line).hexdigest())
    (path.parent / "a.rows").write_bytes(line)
    with pytest.raises(CorruptCheckpointError, match="not a row of a history"):
        _ = read_checkpoint(path).rows


def test_rows_that_were_changed_are_refused(tmp_path: Path) -> None:
    checkpoint: Checkpoint = read_checkpoint(write(tmp_path))
    rows = checkpoint.path.parent / checkpoint.rows_file
    rows.write_bytes(WRITTEN.replace(b"50.0", b"51.0"))
    with pytest.raises(CorruptCheckpointError, match="does not begin with the rows"):
        _ = checkpoint.rows
