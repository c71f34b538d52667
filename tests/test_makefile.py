"""The Makefile looks at Python before it installs anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

# a stand-in for a Python that is too old: this one, which gives another version
OLD = f"""#!/bin/sh
case "$1" in
  -c) code=$2; shift 2
      exec {sys.executable} -c "import sys; sys.version_info = (3, 9, 2); code = sys.argv.pop(1); exec(code)" "$code" "$@" ;;
  -m) [ "$2" = pip ] ;;
  *) exit 1 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def old_python(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(OLD)
    path.chmod(0o755)
    return path


def errors(checkout: Path, *words: str) -> list[str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", *words], cwd=checkout, env=outside, capture_output=True, text=True, check=False
    )
    return [line for line in done.stderr.splitlines() if not line.startswith("make: ")]


def test_a_python_that_is_too_old_installs_nothing(checkout: Path) -> None:
    old = old_python(checkout / "old/python")
    assert errors(checkout, "sweep", f"PYTHON={old}") == [
        f"error: {old} is Python 3.9, and 3.11 or later is needed: the same command with PYTHON=python3.11"
    ]
    assert not (checkout / ".venv").exists()


def test_an_environment_of_a_python_that_is_too_old_is_named(checkout: Path) -> None:
    old_python(checkout / ".venv/bin/python")
    (checkout / ".venv/installed").touch()
    assert errors(checkout, "test") == [
        "error: .venv/bin/python is Python 3.9, and 3.11 or later is needed: "
        "rm -rf .venv, then the same command with PYTHON=python3.11"
    ]


def test_an_environment_whose_python_is_gone_is_named(checkout: Path) -> None:
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to(checkout / "gone/python")
    assert errors(checkout, "check") == [
        "error: .venv has no working Python with pip: rm -rf .venv, then the same command again"
    ]


def test_a_python_that_will_do_passes(checkout: Path) -> None:
    assert errors(checkout, "python", f"PYTHON={sys.executable}") == []
