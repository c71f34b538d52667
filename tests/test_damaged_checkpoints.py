"""Checkpoints that are damaged, foreign or half written."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from test_store import TINY, _rewritten, _rows_instead, same, tiny, train  # noqa: F401

from harness.store.checkpoint import RowsFile
from harness.training.loop import Row


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
    reported = capsys.readouterr().err
    assert "000000036-" in reported
    assert "passed over" in reported


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
