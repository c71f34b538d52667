"""A real Slurm on this machine, for the tests of this folder."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, make_config, need

from harness.config.hydra_private import last_given
from harness.runs.context import RunContext
from harness.runs.run import run
from harness.runs.run_dir import RunInfo

EPOCHS = 500  # about ten seconds of training
LONG = (
    "dataset=synthetic",
    "dataset.images=200",
    "dataset.classes=4",
    "dataset.image_size=4",
    "model.width=2",
    "trainer.batch_size=16",
    "scheduler=constant",
    f"trainer.epochs={EPOCHS}",
    "trainer.checkpoint_every=1",
)

SCRIPT = Path(__file__).parent / "slurm_up.sh"


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`sbatch` and the like talk to a Slurm of one node, with the partitions main and urgent."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SLURM_TEST_DIR", str(tmp_path_factory.mktemp("slurm")))
        environment.setenv("SLURM_TEST_PORT", str(10_000 + os.getpid() % 100 * 200))
        started = subprocess.run([SCRIPT, "start"], capture_output=True, text=True, check=False)
        packages = "apt-get install slurmctld slurmd slurm-client munge"
        need(started.returncode != 3, f"{started.stderr.strip()}; {packages}")
        assert started.returncode == 0, started.stderr
        for export in shlex.split(subprocess.check_output([SCRIPT, "env"], text=True))[1:]:
            name, _, value = export.partition("=")
            environment.setenv(name, os.path.expandvars(value))
        try:
            yield
        finally:
            subprocess.run([SCRIPT, "stop"], check=True)


def trained(folder: Path, *overrides: str) -> tuple[str, bytes]:
    """Weights and history of a run in this process, without a break and without a store."""
    config = make_config(*overrides, "reuse=false")
    result = run(RunContext(config, RunInfo(folder, "here"))).to_json()
    return result["weights_sha256"], (folder / "history.jsonl").read_bytes()


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """Weights and history of the long run without a break."""
    return trained(tmp_path_factory.mktemp("whole"), *LONG)


def sweep_under_way(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start `train.py -m …` in a folder, its sweep in `out` there, its checkpoints in `store`."""
    where = [f"hydra.sweep.dir={folder / 'out'}", f"store.dir={folder / 'store'}"]
    command = [sys.executable, str(ROOT / "train.py"), "-m"]
    return subprocess.Popen(
        last_given([*command, *words, *where]), cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
