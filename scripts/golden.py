"""Golden records: do small runs still end, bit for bit, as they did?

    python scripts/golden.py compare COMMIT    train every case in a worktree of COMMIT and here
    python scripts/golden.py renew             write tests/golden/ anew, from this checkout

`tests/test_golden.py` holds this checkout against the records.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "tests/golden"

_TRAINER = [
    "tracking=none", "trainer.batch_size=32", "trainer.epochs=3", "trainer.log_every=2",
]  # fmt: skip
_DATA = ["dataset=synthetic", "dataset.images=400", "dataset.classes=4"]
_SMALL = [*_TRAINER, *_DATA, "model.width=4"]
_WARM = ["scheduler=cosine_warm", "scheduler.t_0=1"]

# Overrides of the runs of each case, one after another with one store; the last run is recorded.
CASES: dict[str, list[list[str]]] = {
    "constant": [[*_SMALL, "scheduler=constant"]],
    "cosine": [[*_SMALL, "scheduler=cosine", "scheduler.t_max=1"]],
    "cosine_warm": [[*_TRAINER, *_WARM, "dataset=digits", "model.width=4"]],
    "step": [[*_SMALL, "scheduler=step", "scheduler.step_size=1"]],
    "multistep": [[*_SMALL, "scheduler=multistep", "scheduler.milestones=[1,2.5]"]],
    "linear": [[*_SMALL, "scheduler=linear"]],
    "wsd": [[*_SMALL, "scheduler=wsd", "scheduler.cooldown=1"]],
    "one_cycle": [[*_SMALL, "scheduler=one_cycle"]],
    "polynomial": [[*_SMALL, "scheduler=polynomial"]],
    "piecewise": [[*_SMALL, "scheduler=piecewise", "scheduler.points=[0:0.5,1:1,3:0.1]"]],
    "list": [[*_SMALL, "scheduler=list", "scheduler.values=[0.5,1,0.1]"]],
    "cycle_warmup": [
        [*_SMALL, *_WARM, "scheduler.decay=0.5", "scheduler.cycle_warmup=0.5"],
    ],
    "adamw": [[*_SMALL, *_WARM, "optimizer=adamw", "optimizer.lr=1e-3"]],
    "dropout": [
        [*_TRAINER, *_DATA, *_WARM, "dataset.image_size=32", "model=torchvision",
         "model.arch=mobilenet_v3_small", "trainer.label_smoothing=0.1"],
    ],
    "crop_flip": [[*_SMALL, *_WARM, "dataset.crop=1", "dataset.flip=true", "dataset.channels=3"]],
    "per_image": [
        [*_SMALL, *_WARM, "dataset.channels=3", "dataset.resized_crop=0.3", "dataset.rand_augment=9",
         "dataset.erase=0.5"],
    ],
    "evals_within_epochs": [[*_SMALL, *_WARM, "trainer.evals_per_epoch=3"]],
    "unit_batch": [[*_SMALL, "scheduler=cosine_warm", "scheduler.unit=batch", "scheduler.t_0=5"]],
    "interval_epoch": [[*_SMALL, *_WARM, "scheduler.interval=epoch"]],
    "warmup": [[*_SMALL, *_WARM, "scheduler.warmup=0.5", "trainer.epochs=3.5"]],
    "image_folder": [
        [*_TRAINER, *_WARM, "model.width=4", "dataset=image_folder", "dataset.image_size=8",
         "dataset.crop=1", "dataset.val_size=0.2"],
    ],
    "from_store": [
        [*_SMALL, *_WARM, "scheduler.t_mult=1"],
        [*_SMALL, *_WARM, "scheduler.t_mult=2"],
    ],
    "resumed": [[*_SMALL, *_WARM, "trainer.epochs=63", "trainer.log_every=100"]],
}  # fmt: skip
_ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}  # as in the tests
INTERRUPTED_AFTER = {"resumed": 20}  # rows of the history, by the case


def commands(case: str, folder: Path) -> list[list[str]]:
    """Return the overrides of each run of `case`; the recorded run's folder is `folder/CASE`."""
    runs = []
    for number, overrides in enumerate(CASES[case], start=1):
        last = number == len(CASES[case])
        home = folder / (case if last else f"{case}.{number}")
        words = [*overrides, f"hydra.run.dir={home}", f"store.dir={folder / f'{case}.store'}"]
        if "dataset=image_folder" in words:
            words.append(f"dataset.root={folder / 'images'}")
        runs.append(words)
    return runs


def write_images(root: Path) -> Path:
    """Write some of scikit-learn's digits as PNG files: `train/CLASS/*.png`, `test/CLASS/*.png`."""
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images[:260], digits.target, strict=False)):
        path = root / ("test" if number >= 200 else "train") / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype("uint8")).save(path)
    return root


def rows(run: Path) -> int:
    """Return how many rows the history of `run` has."""
    path = run / "history.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def record(run: Path) -> dict[str, Any]:
    """Return what must stay the same of a run: its history and its end, and on what they were made."""
    result = json.loads((run / "result.json").read_text())
    if result["status"] != "complete":
        raise SystemExit(f"{run}: {result['status']}: {result['error']}")
    names = ("run_id", "fingerprint", "weights_sha256", "data_sha256", "test", "updates_reused")
    kept = {name: result[name] for name in names}
    if INTERRUPTED_AFTER.get(run.name):
        del kept["updates_reused"]  # depends on when the signal came
    return {
        "numerics": result["numerics"] | {"cpu": _cpu()},
        **kept,
        "history": (run / "history.jsonl").read_text(),
    }


def _cpu() -> str:
    """Return the model of the CPU and the instructions that torch uses: they change rounding."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, 'unknown')}, {torch.backends.cpu.get_cpu_capability()}"


def train(checkout: Path, folder: Path, cases: Iterable[str] = CASES) -> dict[str, dict[str, Any]]:
    """Train `cases` with the code of `checkout`, a process each; return their records."""
    write_images(folder / "images")
    found = {}
    for case in cases:
        for overrides in commands(case, folder):
            command = [sys.executable, "train.py", *overrides]
            if limit := INTERRUPTED_AFTER.get(case):
                _interrupt(command, checkout, folder / case, limit)
            subprocess.run(
                command, cwd=checkout, check=True, env=_ENVIRONMENT, stderr=subprocess.DEVNULL
            )
        found[case] = record(folder / case)
        print(f"{checkout.name}: {case}", file=sys.stderr)
    return found


def _interrupt(command: list[str], checkout: Path, run: Path, limit: int) -> None:
    process = subprocess.Popen(command, cwd=checkout, env=_ENVIRONMENT, stderr=subprocess.DEVNULL)
    while process.poll() is None and rows(run) < limit:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    if process.wait() == 0:
        raise SystemExit(f"{run}: was complete before it could be interrupted")


@contextmanager
def _worktree(commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="golden.") as folder:
        path = Path(folder) / commit.replace("/", "_")
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(path), commit], check=True)
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], check=True)


def compare(commit: str) -> int:
    """Print every case that differs between `commit`, which has it, and this checkout; return how many do."""
    with tempfile.TemporaryDirectory(prefix="golden.") as folder, _worktree(commit) as checkout:
        records = checkout / RECORDS.relative_to(ROOT)
        cases = [case for case in CASES if (records / f"{case}.json").exists()]
        then = train(checkout, Path(folder) / "then", cases)
        now = train(ROOT, Path(folder) / "now", cases)
    unlike = 0
    for case in cases:
        names = [name for name in now[case] if now[case][name] != then[case][name]]
        unlike += bool(names)
        print(f"{case}: {'differs in ' + ', '.join(names) if names else 'equal, bit for bit'}")
    return unlike


def renew() -> None:
    """Write `tests/golden/CASE.json` for every case."""
    with tempfile.TemporaryDirectory(prefix="golden.") as folder:
        for case, found in train(ROOT, Path(folder)).items():
            (RECORDS / f"{case}.json").write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    modes = parser.add_subparsers(dest="mode", required=True, metavar="compare|renew")
    modes.add_parser("compare").add_argument("commit", metavar="COMMIT")
    modes.add_parser("renew")
    arguments = parser.parse_args()
    if arguments.mode == "renew":
        renew()
    elif unlike := compare(arguments.commit):
        raise SystemExit(f"error: {unlike} of {len(CASES)} cases differ")


if __name__ == "__main__":
    main()
