"""What whole commands cost: starts, runs in a sweep, shared beginnings, processes, memory, growth."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.usual import BATCH, IMAGES, ROOT

Rows = list[tuple[str, str, str]]
_IMPORTS = "import torch, torchvision, wandb, hydra"
_TINY = (
    "dataset=synthetic", "dataset.images=100", "dataset.classes=2", "dataset.image_size=4",
    "model.width=1", "trainer.batch_size=16", "tracking=none",
)  # fmt: skip
_USUAL = "scripts/benchmarks/usual.py"
_BARE = """
import resource, sys
sys.path[:0] = ["scripts", "."]
from benchmarks.training import Loop, settings
import torchvision, wandb
loop = Loop(settings(1))
images, labels = next(loop.batches.epoch(0))
loop.floor(images, labels, 78)
loop.evaluate()
"""


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def start(*words: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a Python process in the project's folder, silent, offline, of which no ledger knows."""
    own = {"WANDB_MODE": "offline", "PYTHONPATH": ".", "HARNESS_LEDGER": ""}
    env = os.environ | own | environment
    return subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=env,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def seconds(*words: str, **environment: str) -> float:
    begin = time.perf_counter()
    process = start(*words, **environment)
    if process.wait():
        raise SystemExit(f"error: {' '.join(words)}: ended with {process.returncode}")
    return time.perf_counter() - begin


def train(where: Path, *overrides: str) -> tuple[str, ...]:
    """Return the command of a run, or with -m of a sweep, in `where`, with its own store."""
    kind = "sweep" if "-m" in overrides else "run"
    return ("train.py", *overrides, f"store.dir={where}/store", f"hydra.{kind}.dir={where}/runs")


def results(where: Path) -> list[dict[str, Any]]:
    paths = sorted((where / "runs").glob("*/result.json"), key=lambda path: int(path.parent.name))
    return [json.loads(path.read_text()) for path in paths]


def _until_first_row() -> float:
    """Return seconds from the start of a run on digits to its first update."""
    with folder() as where:
        words = ("trainer.log_every=1", "trainer.epochs=1", "scheduler=constant")
        history = where / "runs/history.jsonl"
        begin = time.perf_counter()
        process = start(*train(where, *words))
        while not (history.exists() and history.stat().st_size) and process.poll() is None:
            time.sleep(0.002)
        taken = time.perf_counter() - begin
        process.wait()
        return taken


def starts(repeats: int) -> Rows:
    from benchmarks.training import interleaved, ratio

    figures = interleaved(
        repeats,
        {
            "first update": _until_first_row,
            "imports": lambda: seconds("-c", _IMPORTS),
            "import torch": lambda: seconds("-c", "import torch"),
            "--help": lambda: seconds("train.py", "--help"),
            "preview": lambda: seconds("scripts/preview.py", "-m", "scheduler.t_mult=1,2"),
        },
    )
    middle = {name: f"{statistics.median(values):.2f} s" for name, values in figures.items()}
    return [
        ("start of `train.py` to its first update", middle["first update"], ""),
        (f"`{_IMPORTS}`", middle["imports"], ""),
        ("the one against the other", ratio(figures, "first update", "imports"), "≤ 1.3"),
        ("`train.py --help`", middle["--help"], "< 1 s"),
        ("`scripts/preview.py`, two arms", middle["preview"], "< 3 s"),
        ("`import torch` alone", middle["import torch"], ""),
    ]


def one_more_run(repeats: int) -> Rows:
    """Measure twenty runs of an epoch on digits, W&B offline: what is neither training nor evaluation."""
    fixed = []
    for _ in range(repeats):
        with folder() as where:
            seconds(
                *train(where, "-m", "seed=range(0,20)", "trainer.epochs=1", "scheduler=constant")
            )
            paths = [where / f"runs/{number}/result.json" for number in range(20)]
            ends = [path.stat().st_mtime for path in paths]
            recorded = [result["seconds"] for result in results(where)]
        training = [t["fit"] + t["evaluate"] for t in recorded]  # the one evaluation is in both
        fixed += [b - a - t for a, b, t in zip(ends, ends[1:], training[1:], strict=False)]
    return [("one more run in a sweep, beside its training", _middle(fixed, "s"), "≤ 0.30 s")]


def sharing(repeats: int) -> Rows:
    """Measure six arms whose plans begin alike, sharing or not, by the seconds that their runs took."""
    words = ("-m", "scheduler.t_mult=1,2", "trainer.epochs=15,35,75", "tracking=none")
    kept, shares = [], []
    for _ in range(repeats):
        taken, epochs = {}, {}
        for reuse in ("true", "false"):
            with folder() as where:
                seconds(*train(where, *words, f"reuse={reuse}"))
                recorded = results(where)
            taken[reuse] = sum(
                result["seconds"]["total"] for result in recorded[1:]
            )  # after imports
            epochs[reuse] = sum(result["updates_trained"] for result in recorded[1:])
        promised = 1 - epochs["true"] / epochs["false"]
        shares.append(1 - taken["true"] / taken["false"])
        kept.append(shares[-1] / promised)
    return [
        ("sharing saves, of the seconds of all runs but the first", _middle(shares, ""), ""),
        ("… of what the tree promises", _middle(kept, ""), "≥ 0.95"),
    ]


def side_by_side(repeats: int) -> Rows:
    """Compare the parallel launcher with the basic one, and with usual programs, on two cores."""
    digits = ("-m", "seed=range(0,24)", "trainer.epochs=35", "scheduler=constant", "reuse=false")
    fashion = ("-m", "seed=range(0,6)", "trainer.epochs=2", "scheduler=constant", "reuse=false",
               "dataset=fashion_mnist", f"dataset.train_size={IMAGES}")  # fmt: skip
    rows: Rows = []
    for name, words, must in (("digits", digits, "≥ 1.4"), ("Fashion-MNIST", fashion, "≥ 1.1")):
        gains, steady, rates = [], [], []
        for _ in range(repeats):
            taken, busy = {}, {}
            for launcher in ("basic", "parallel"):
                with folder() as where:
                    own = (*words, "tracking=none", f"hydra/launcher={launcher}")
                    taken[launcher] = seconds(*train(where, *own))
                    recorded = results(where)
                busy[launcher] = sum(result["seconds"]["total"] for result in recorded)
            gains.append(taken["basic"] / taken["parallel"])
            steady.append(2 * busy["basic"] / busy["parallel"])
            rates.append(
                2 * 2 * 78 * BATCH / statistics.median(t["seconds"]["fit"] for t in recorded)
            )
        rows.append(
            (f"parallel against basic, {name}, by the seconds of runs", _middle(steady, ""), must)
        )
        rows.append((f"parallel against basic, {name}, whole command", _middle(gains, ""), must))
    usual = [_two_usual_programs() for _ in range(repeats)]
    two = f"{_middle(rates, '')} against {_middle(usual, '')}"
    return [
        *rows,
        ("two at a time, Fashion-MNIST, images/s, against two usual programs", two, "more"),
    ]


def _two_usual_programs() -> float:
    running = [
        subprocess.Popen(
            [sys.executable, _USUAL, "2"], cwd=ROOT, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "."},
        )
        for _ in range(2)
    ]  # fmt: skip
    return sum(float(process.communicate()[0]) for process in running)


def _peak_mib(*words: str) -> float:
    process = start(*words)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"error: {' '.join(words)[:200]}: ended with {process.returncode}")
    return usage.ru_maxrss / 1024


def memory(repeats: int) -> Rows:
    from benchmarks.training import SETTING, interleaved, ratio

    words = [word for word in SETTING if word != "tracking=none"]

    def ours() -> float:
        with folder() as where:
            return _peak_mib(*train(where, *words, "trainer.epochs=1"))

    figures = interleaved(repeats, {"ours": ours, "bare": lambda: _peak_mib("-c", _BARE)})
    grown = _growth_of_a_process(200)
    return [
        ("peak memory of a run on Fashion-MNIST", _middle(figures["ours"], "MiB"), ""),
        ("… against the bare loop's", ratio(figures, "ours", "bare"), "≤ 1.1"),
        ("memory a run adds to its process, over 200 runs", f"{grown:.2f} MiB", "≤ 1 MiB"),
    ]


def _growth_of_a_process(runs: int) -> float:
    """Return MiB of resident memory a run, from the 20th run on."""
    with folder() as where:
        words = ("-m", f"seed=range(0,{runs})", "trainer.epochs=1", "scheduler=constant")
        process = start(*train(where, *words, *_TINY[:-1]))
        sizes = []
        for number in (20, runs - 1):
            path = where / f"runs/{number}/result.json"
            while not path.exists() and process.poll() is None:
                time.sleep(0.01)
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            sizes.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        process.wait()
    return (sizes[1] - sizes[0]) / (runs - 21)


def growth(repeats: int) -> Rows:
    """Measure a tiny net over more and more epochs with a restart each; reports of more and more runs."""
    rows: Rows = []
    for epochs in (10, 100, 1000, 10_000):
        with folder() as where:
            words = ("scheduler.t_0=1", "scheduler.t_mult=1", f"trainer.epochs={epochs}")
            seconds(*train(where, *_TINY, *words, "trainer.evals_per_epoch=1"))
            recorded = json.loads((where / "runs/result.json").read_text())
            size = sum(f.stat().st_size for f in (where / "store").rglob("*") if f.is_file())
        an_update = 1e3 * recorded["seconds"]["fit"] / recorded["updates_trained"]
        rows.append((f"a tiny net, {epochs} epochs, {epochs} cycles: an update, with all that it entails",
                     f"{an_update:.2f} ms, store {size / epochs / 1e3:.0f} kB a cycle", "constant"))  # fmt: skip
    with folder() as where:
        seconds(*train(where, "-m", "seed=range(0,10)", "scheduler.t_mult=1,2", *_TINY))
        for runs in (100, 1000, 10_000):
            _copied(where / "runs", where / str(runs), runs)
            taken = seconds("scripts/report.py", str(where / str(runs)))
            shutil.rmtree(where / str(runs))
            rows.append((f"`scripts/report.py`, {runs} runs", f"{taken:.1f} s", "linear"))
    return rows


def _copied(sweep: Path, to: Path, runs: int) -> None:
    """A sweep of `runs` runs, made of the twenty of `sweep`."""
    plan = json.loads((sweep / "plan.json").read_text())
    known = plan["arms"]
    plan["arms"] = []
    for number in range(runs):
        arm = known[number % len(known)]
        shutil.copytree(sweep / arm["folder"], to / str(number))
        seed = number // len(known) * 10 + arm["seed"]
        changed = {"seed": seed, "name": f"{arm['arm']}, seed={seed}"}
        path = to / str(number) / "result.json"
        result = json.loads(path.read_text())
        result |= {"name": changed["name"], "config": result["config"] | {"seed": seed}}
        path.write_text(json.dumps(result))
        changed |= {"num": number, "folder": str(number)}
        plan["arms"].append(arm | changed)
    plan["claim"]["seeds"] = list(range(runs // 2))
    (to / "plan.json").write_text(json.dumps(plan))


def _middle(values: list[float], unit: str) -> str:
    text = [f"{value:,.0f}" if value > 100 else f"{value:.2f}" for value in
            (statistics.median(values), min(values), max(values))]  # fmt: skip
    return f"{text[0]} {unit}".strip() + f" ({text[1]} to {text[2]})"
