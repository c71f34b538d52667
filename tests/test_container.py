"""The README's commands as in a container: a user without an account, `HOME=/`, no locale, no terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, need

USER = 12345
SHORT = ("scheduler.t_0=1", "trainer.epochs=3", "model.width=1", "dataset.train_size=200")
COMMANDS: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("train.py", "--help"), ()),
    (
        ("train.py", "scheduler=wsd", "trainer.epochs=20", *SHORT[2:], "hydra.run.dir=run"),
        ("run/result.json", "run/history.jsonl"),
    ),
    (
        ("train.py", "-m", *SHORT, "scheduler.t_mult=1,2", "hydra.sweep.dir=sweep"),
        ("sweep/report.html", "sweep/verdict.json", "sweep/val_acc.png"),
    ),
    (("scripts/preview.py", "-m", *SHORT, "scheduler.t_mult=1,2"), ("outputs/preview/*/preview.html",)),
    (("scripts/report.py", "sweep", "--out", "again"), ("again/report.html", "again/lr.png")),
]  # fmt: skip


def run(cwd: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As a user who may read all and write to `cwd` alone."""
    found = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups",
         "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
         sys.executable, str(ROOT / words[0]), *words[1:]],
        cwd=cwd, env=found | environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    need(os.geteuid() == 0, "changing the user takes root")
    os.chown(tmp_path, USER, USER)
    return tmp_path


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "POSIX": {"HOME": "/", "LC_ALL": "POSIX"},
    "ASCII, no home": {"PYTHONIOENCODING": "ascii"},
}


@pytest.mark.slow
@pytest.mark.parametrize("surroundings", ENVIRONMENTS)
def test_the_readmes_commands_work(folder: Path, surroundings: str) -> None:
    environment = ENVIRONMENTS[surroundings]
    for words, files in COMMANDS:
        store = ["store.dir=store"] if words[0] == "train.py" and len(words) > 2 else []
        done = run(folder, *words, *store, **environment)
        assert done.returncode == 0, (words, done.stderr)
        for line in ("Traceback", "cannot", "ERROR", "denied", "failed"):
            assert line not in done.stderr, (words, done.stderr)
        for name in files:
            (path,) = folder.glob(name)
            assert path.stat().st_uid == USER
    owners = {path.lstat().st_uid for path in folder.rglob("*")}
    assert owners == {USER}
