"""Files that are written whole or not at all, locks, and the reading of files that anyone may have written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness import files


def test_a_file_is_replaced_when_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new/file.txt"
    for content in ("first", "second"):
        with files.atomic(path, "w") as file:
            file.write(content)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == content
    assert [one.name for one in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("error", [ValueError("half"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(type(error)), files.atomic(path, "w") as file:  # noqa: PT012
        file.write("new")
        raise error
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["file.txt"]


def test_a_written_file_is_as_readable_as_others(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_json(tmp_path / "one.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "one.json").stat().st_mode & 0o777 == 0o640


def test_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    document = {"name": "größe–学習", "value": 0.1, "list": [1, None, True]}
    files.write_json(tmp_path / "one.json", document)
    assert files.read_json(tmp_path / "one.json") == document
    assert "größe–学習" in (tmp_path / "one.json").read_text("utf-8")


def test_what_is_written_with_its_checksum_is_read_unless_it_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "new/one.js"
    files.write_checked(path, b"one\ntwo")
    assert files.read_checked(path) == b"one\ntwo"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(files.UnreadableError, match="is damaged"):
        files.read_checked(path)
    with pytest.raises(FileNotFoundError):
        files.read_checked(tmp_path / "other.js")


def test_a_number_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "one.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b'{"a": NaN}', "NaN is not finite"),
        (b'{"a": 1e999}', "1e999 is not finite"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1]", "holds no JSON object"),
    ],
)
def test_what_is_no_json_object_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "one.json"
    path.write_bytes(content)
    with pytest.raises(OSError, match=reason) as error:
        files.read_json(path)
    assert str(error.value).startswith(f"{path}: ")


def test_devices_and_files_that_are_too_large_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(11))
    assert files.read(tmp_path / "large", most=11) == bytes(11)
    with pytest.raises(OSError, match="has 11 bytes, and at most 10 are read"):
        files.read(tmp_path / "large", most=10)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is not a file"):
        files.read(tmp_path / "pipe")


def test_a_lock_that_is_held_names_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    calls: list[None] = []
    with files.lock(path):
        with (
            pytest.raises(OSError, match=f"is locked by process {os.getpid()} on "),
            files.lock(path, seconds=0.5, check=lambda: calls.append(None)),
        ):
            pytest.fail("it was held")
        assert calls, "the caller was asked meanwhile"
    with files.lock(path):
        pass
    assert path.exists()


def test_a_wait_for_a_lock_ends_by_what_the_caller_raises(tmp_path: Path) -> None:
    def stop() -> None:
        raise InterruptedError

    with (
        files.lock(tmp_path / "lock"),
        pytest.raises(InterruptedError),
        files.lock(tmp_path / "lock", seconds=60, check=stop),
    ):
        pytest.fail("it was held")
