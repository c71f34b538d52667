"""Whole sweeps under the launchers that start several processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, verified

from harness.sweeps import callback as sweep

TINY = (
    "dataset=synthetic", "dataset.images=200", "dataset.classes=4", "dataset.image_size=4",
    "model.width=2", "trainer.batch_size=16", "scheduler.t_0=1", "trainer.epochs=3", "tracking=none",
)  # fmt: skip


def train(folder: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    where = [f"hydra.sweep.dir={folder / 'out'}", f"store.dir={folder / 'store'}"]
    own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "-m", *overrides, *TINY, *where],
        cwd=folder, env=own | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def result(folder: Path, number: int) -> dict[str, Any]:
    reported: dict[str, Any] = json.loads((folder / f"out/{number}/result.json").read_text())
    return reported


@pytest.mark.parametrize(
    ("launcher", "threads"),
    [
        (["hydra/launcher=parallel", "hydra.launcher.n_jobs=2"], 2),
        (["hydra/launcher=slurm_local"], 4),
    ],
    ids=["parallel", "slurm_local"],
)
@pytest.mark.slow
def test_a_sweep_ends_in_its_table_and_shares_the_cores(
    tmp_path: Path, launcher: list[str], threads: int
) -> None:
    done = train(tmp_path, *launcher, "scheduler.t_mult=1,2", "seed=0,1", "store.wait=true")
    assert done.returncode == 0, done.stderr
    arms = [line.split()[:2] for line in done.stdout.splitlines()[2:4]]
    assert arms == [["t_mult=1", "2"], ["t_mult=2", "2"]]
    share = max(1, (os.cpu_count() or 1) // threads)
    assert {result(tmp_path, number)["numerics"]["threads"] for number in range(4)} == {share}
    assert verified(tmp_path / "out")


PRETENDED = """
import sys
if any(word.endswith("train.py") for word in sys.orig_argv):
    import torch
    torch.cuda.device_count = lambda: 4
"""
WITNESS = """
import os, time
from pathlib import Path
from harness.extend import *
from torch import nn
@register("witness")
class Witness(Model):
    width: int = number(at_least=1, default=2)

    def build(self, shape):
        if "CUDA_VISIBLE_DEVICES" in os.environ:  # not in the process that plans the sweep
            seen = Path(os.environ["WITNESSED"])
            (seen / str(os.getpid())).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
            end = time.monotonic() + 120
            while len(list(seen.iterdir())) < 4 and time.monotonic() < end:
                time.sleep(0.1)
        return nn.Sequential(nn.Flatten(), nn.Linear(shape.channels * shape.image_size**2, shape.classes))
"""


@pytest.mark.slow
def test_a_sweep_on_four_gpus_that_are_pretended_uses_each_of_them(tmp_path: Path) -> None:
    """Those that the sweep's process counts; its runs train on the CPU, which is all that this machine has."""
    (tmp_path / "sitecustomize.py").write_text(PRETENDED)
    (tmp_path / "witness.py").write_text(WITNESS)
    (tmp_path / "seen").mkdir()
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    own = (f"extensions=[{tmp_path}/witness.py]", "model=witness", "hydra/launcher=parallel")
    seen_in = {"PYTHONPATH": path, "WITNESSED": str(tmp_path / "seen")}
    done = train(tmp_path, *own, "seed=range(0,8)", **seen_in)
    assert done.returncode == 0, done.stderr
    seen = {one.name: one.read_text() for one in (tmp_path / "seen").iterdir()}
    assert sorted(seen.values()) == ["0", "1", "2", "3"], "four processes, each with its own"
    assert {result(tmp_path, number)["status"] for number in range(8)} == {"complete"}


@pytest.mark.slow
def test_a_failed_run_is_visible_and_has_its_traceback_in_the_log(tmp_path: Path) -> None:
    done = train(tmp_path, "hydra/launcher=slurm_local", "trainer.device=cuda:99,cpu")
    assert done.returncode == 1
    assert result(tmp_path, 1)["status"] == "complete"
    last = done.stderr.splitlines()[-1]
    assert "1 of 2 runs failed: device=cuda:99: trainer.device=cuda:99: " in last
    logs = Path(re.findall(r"\(logs in (.*)\)", last)[0])
    said = "".join(path.read_text() for path in logs.glob("*/*.err"))
    assert "Traceback (most recent call last):" in said
    assert "error: 1/2 device=cuda:99: trainer.device=cuda:99: " in said
    path = tmp_path / "out/0/result.json"
    path.write_text(json.dumps(result(tmp_path, 0) | {"status": "interrupted", "error": "stopped"}))
    with pytest.raises(SystemExit, match="1 of 2 runs failed: device=cuda:99: stopped "):
        sweep.end_sweep(tmp_path / "out", None)
