"""Runs that are killed end like runs that are not: `scripts/verify_resume.py`, on several recipes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import golden
import pytest
from conftest import ROOT

pytestmark = pytest.mark.timeout(600)  # longer than the script waits until it says what hangs

RECIPES = {
    "digits": (),
    "dropout": (
        "model=torchvision", "model.arch=mobilenet_v3_small", "dataset=synthetic",
        "dataset.image_size=32", "dataset.images=300", "trainer.epochs=6", "scheduler.t_0=2",
    ),
    "adamw": ("optimizer=adamw", "optimizer.lr=1e-3"),
    "one_cycle": ("scheduler=one_cycle", "trainer.evals_per_epoch=2"),
    "image_folder": (
        "dataset=image_folder", "dataset.image_size=8", "dataset.crop=1", "trainer.batch_size=32",
        "model=torchvision", "model.arch=resnet18", "model.stem=small", "trainer.epochs=3",
        "scheduler.t_0=1",
    ),
    "per_image": (
        "dataset=synthetic", "dataset.images=600", "dataset.channels=3", "dataset.resized_crop=0.3",
        "dataset.rand_augment=9", "dataset.erase=0.5", "trainer.epochs=6", "scheduler.t_0=2",
    ),
}  # fmt: skip


def verify(*arguments: str) -> str:
    script = ROOT / "scripts/verify_resume.py"
    done = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_run_killed_and_stopped_again_and_again_ends_the_same() -> None:
    printed = verify("--kills", "10")
    assert printed.splitlines()[-1] == "equal, bit for bit"
    assert "10 kills" in printed
    for signal in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"):
        assert signal in printed
    assert " 0 starts from the middle" not in printed


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "digits"])
def test_other_recipes_end_the_same(recipe: str, tmp_path: Path) -> None:
    extra: tuple[str, ...] = ()
    if recipe == "image_folder":
        extra = (f"dataset.root={golden.write_images(tmp_path)}",)
    assert "equal, bit for bit" in verify("--kills", "4", *RECIPES[recipe], *extra)
