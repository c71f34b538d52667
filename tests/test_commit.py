"""The commit of the program, as git says it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.store.commit import VARIABLE, Commit, commit_of, for_copies, program_commit


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "package").mkdir()
    (tmp_path / "package/a.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "a")
    return tmp_path


def test_changed_files_are_told_from_new_ones(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")[:12]
    assert commit_of(repository / "package") == Commit(head, False)
    (repository / "outputs.txt").write_text("what a run leaves")
    assert commit_of(repository / "package") == Commit(head, False)
    (repository / "package/a.py").write_text("a = 2\n")
    assert commit_of(repository / "package") == Commit(head, True)
    git(repository, "add", ".")
    assert commit_of(repository / "package") == Commit(head, True)


def test_without_a_commit_nothing_is_known(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == Commit(None, None)
    assert commit_of(tmp_path / "not there") == Commit(None, None)
    git(tmp_path, "init", "-q")
    assert commit_of(tmp_path) == Commit(None, None)


def test_a_folder_that_git_does_not_trust_has_no_commit(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")  # which may trust every folder
    assert commit_of(repository) == Commit(None, None)


def test_without_git_there_is_no_commit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    assert commit_of(repository) == Commit(None, None)


def test_a_copy_without_its_repository_has_the_commit_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program_commit.cache_clear()
    monkeypatch.setenv(VARIABLE, "0123456789abcdef-dirty")
    assert program_commit() == Commit("0123456789ab", True)
    assert for_copies() == {VARIABLE: "0123456789ab-dirty"}
    program_commit.cache_clear()
    monkeypatch.setenv(VARIABLE, "0123456789ab")
    assert program_commit() == Commit("0123456789ab", False)
    program_commit.cache_clear()
