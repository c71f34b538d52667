"""The walks of docs/first_hour.md, command by command, from a fresh clone: they end well and leave what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PAGE = ROOT / "docs/first_hour.md"
WALKS = ["A student", "A lab engineer", "A reviewer"]


def section(title: str) -> str:
    """Return a walk, the part of the page under a heading that begins with `title`."""
    found = re.search(rf"^## {title}.*?(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found
    return found[0]


def commands(walk: str) -> str:
    """Return the lines of a walk that a shell runs."""
    return "".join(re.findall(r"^```sh\n(.*?)^```", walk, re.DOTALL | re.MULTILINE))


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


# the same commands with less training: in the clone the defaults are smaller
SMALLER = {
    "trainer/default.yaml": ("\nepochs: 35 ", "\nepochs: 10 "),
    "dataset/digits.yaml": ("\ntrain_size: null ", "\ntrain_size: 300 "),
    "model/resnet8.yaml": ("\nwidth: 16 ", "\nwidth: 4 "),
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with what this checkout has changed since its last commit, and with smaller defaults."""
    folder = tmp_path_factory.mktemp("first_hour") / "cosine-restarts"
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    words = ["git", "ls-files", "--modified", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name, (default, smaller) in SMALLER.items():
        text = (folder / "conf" / name).read_text()
        assert text.count(default) == 1
        (folder / "conf" / name).write_text(text.replace(default, smaller))
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
