"""The commit of the program, taken when a run trains."""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

VARIABLE = "HARNESS_COMMIT"
_DIRTY = "-dirty"  # behind the hash in that variable, if files were changed since
_SECONDS = 10.0  # that git may take
_DIGITS = 12  # of the commit's hash


class Commit(NamedTuple):
    """The first digits of a commit's hash, and whether the files that it names were changed since.

    Both None where git does not say.
    """

    commit: str | None = None
    dirty: bool | None = None


@cache
def program_commit() -> Commit:
    """Return the commit of the program as it stands when a process first asks.

    Where the program is a copy without its repository, the environment may have it (`VARIABLE`).
    """
    if given := os.environ.get(VARIABLE):
        return Commit(given.removesuffix(_DIRTY)[:_DIGITS], given.endswith(_DIRTY))
    return commit_of(Path(__file__).parent)


def for_copies() -> dict[str, str]:
    """Return the variable that tells copies of the program its commit; none where it is not known."""
    commit, dirty = program_commit()
    return {VARIABLE: commit + _DIRTY * bool(dirty)} if commit else {}


def commit_of(folder: Path) -> Commit:
    """Return the commit of the repository that `folder` is in.

    None without git, without a repository, and where git does not trust the folder's owner.
    """
    command = ["git", "--no-optional-locks", "-C", str(folder)]
    command += ["status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return Commit()
    head = re.search(r"^# branch\.oid ([0-9a-f]+)$", asked.stdout, re.MULTILINE)
    if asked.returncode or not head:
        return Commit()
    return Commit(head[1][:_DIGITS], bool(re.search(r"^[^#]", asked.stdout, re.MULTILINE)))
