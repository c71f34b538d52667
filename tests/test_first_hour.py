"""The walks of docs/first_hour.md, command by command, from a fresh clone: they end well and leave what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, need
from PIL import Image

PAGE = ROOT / "docs/first_hour.md"
WALKS = ["A student", "A lab engineer", "A reviewer"]


def section(title: str) -> str:
    """Return a walk, the part of the page under a heading that begins with `title`."""
    found = re.search(rf"^## {title}.*?(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found
    return found[0]


def commands(walk: str) -> str:
    """Return the lines of a walk that a shell runs: those of its indented blocks."""
    return "".join(re.findall(r"^    (.*\n|\n(?=    ))", walk, re.MULTILINE))


def left(walk: str) -> set[str]:
    """Return the files that a walk says it leaves, one a line of its block of text, with patterns."""
    found = re.search(r"^It leaves.*?```text\n(.*?)```", walk, re.DOTALL | re.MULTILINE)
    assert found
    return {line.split()[0] for line in found[1].splitlines()}


def files(folder: Path) -> set[str]:
    """Return the files that git does not have in a checkout, without hidden ones; runs by number and what W&B writes are one each."""
    words = ["git", "ls-files", "--others"]
    listed = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout
    found = set()
    for line in listed.splitlines():
        if line.startswith(("trajectories/", "ledger.jsonl")) or re.search(
            r"(^|/)(\.|__pycache__)", line
        ):
            continue
        line = re.sub(r"/wandb/.*", "/wandb/", re.sub(r"/\d+/", "/N/", line))
        found.add(re.sub(r"/\d{4}-\d\d-\d\d[^/]*/", "/DATE/", line))
    return found


def picture_of(sweep: Path) -> Path:
    """Return a picture as the README has it, of the sweep that its caption names."""
    need(bool(shutil.which("chromium")), "needs chromium: apt-get install chromium")
    words = [
        sys.executable,
        str(ROOT / "scripts/readme_picture.py"),
        str(sweep),
        "--out",
        str(sweep / "new.png"),
    ]
    subprocess.run(words, check=True)
    return sweep / "new.png"


def distance(one: Path, other: Path) -> float:
    """Return the share of pixels that differ clearly between two pictures of one size."""
    pixels = [np.asarray(Image.open(path).convert("L"), dtype=np.int16) for path in (one, other)]
    assert pixels[0].shape == pixels[1].shape
    return float((abs(pixels[0] - pixels[1]) > 64).mean())


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with what this checkout has changed since its last commit."""
    folder = tmp_path_factory.mktemp("first_hour") / "cosine-restarts"
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    words = ["git", "ls-files", "--modified", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_each_walk_ends_well_and_leaves_what_the_page_says(clone: Path) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(clone),
    }  # fmt: skip
    environment.pop("HARNESS_LEDGER", None)
    before = files(clone)
    for title in WALKS:
        walk = section(title)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands(walk)],
            cwd=clone, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert files(clone) - before == left(walk), title
        before = files(clone)
    assert distance(picture_of(clone / "sweeps/first"), ROOT / "docs/pictures/report.png") < 0.05
