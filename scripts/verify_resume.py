"""Does a run that is killed again and again end like one that is not? `python scripts/verify_resume.py [OVERRIDES]`

Trains a run without a break; then the same run, killed with SIGKILL at random instants and stopped
by each signal that a run notices, until all have happened and it is done. Prints the hashes of the
weights and of the history of both, and exits with 1 unless they are equal, or if a start hangs.

    python scripts/verify_resume.py                                  ten kills, four signals, digits
    python scripts/verify_resume.py optimizer=adamw optimizer.lr=1e-3
    python scripts/verify_resume.py --kills 30 dataset=fashion_mnist trainer.epochs=3 scheduler.t_0=1
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import json
import math
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

from hydra import initialize_config_dir

from harness.choices.builtin import register
from harness.config.schema import Config
from harness.runs.context import RunContext
from harness.runs.run import run
from harness.runs.run_dir import RunInfo
from harness.runs.signals import STOPPING
from harness.sweeps.compose import compose

_ROOT = Path(__file__).resolve().parent.parent
_SIGNALS = tuple(one for one in STOPPING if one.name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"))
_HUNG = 200.0  # seconds without a new row, or with a signal that ends nothing


@dataclass
class Report:
    """What happened to the interrupted run."""

    kills: int = 0
    signals: list[str] = field(default_factory=list)
    rounds: int = 0
    mid_epoch: int = 0  # starts from the middle of an epoch
    ends: set[tuple[str, str]] = field(default_factory=set)  # hashes of weights and history


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10, help="SIGKILLs, at least (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the instants (default 0)")
    parser.add_argument("overrides", nargs="*", help="as for train.py")
    arguments = parser.parse_args()
    if sys.platform == "win32":
        sys.exit("error: interrupts runs by signals that Windows lacks; use Linux, macOS or WSL 2")
    register(arguments.overrides)
    with initialize_config_dir(str(_ROOT / "conf"), version_base="1.3"):
        settings = compose(
            ["trainer.epochs=15", "tracking=none", "trainer.log_every=1", *arguments.overrides]
        ).config
    with tempfile.TemporaryDirectory(prefix="verify_resume.") as folder:
        whole, report = verify(settings, Path(folder), arguments.kills, arguments.seed)
    print(f"without a break   weights {whole[0][:16]}  history {whole[1][:16]}")
    for end in sorted(report.ends):
        print(f"interrupted       weights {end[0][:16]}  history {end[1][:16]}")
    print(
        f"{report.kills} kills, {', '.join(report.signals)}; {report.mid_epoch} starts from the middle "
        f"of an epoch; complete {report.rounds} times"
    )
    equal = report.ends == {whole}
    print("equal, bit for bit" if equal else "DIFFERENT")
    sys.exit(not equal)


def verify(settings: Config, folder: Path, kills: int, seed: int) -> tuple[tuple[str, str], Report]:
    """Return the hashes of the run without a break, and what came of interrupting it."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["harness.runs.run", "sklearn.datasets", "torch._dynamo"])

    def start(place: Path, store: Path) -> BaseProcess:
        own = replace(settings.store, dir=str(store))
        changed = replace(settings, store=own)
        changed.trainer = replace(settings.trainer, checkpoint_every=0.05)
        process = processes.Process(target=_quiet_run, args=(changed, place))
        process.start()
        return process

    _go_on(start(folder / "whole", folder / "store"), folder / "whole")
    whole, rows = _hashes(folder / "whole"), _rows(folder / "whole")

    rng, report = random.Random(seed), Report()  # noqa: S311
    todo: list[signal.Signals] = [signal.SIGKILL] * kills + list(_SIGNALS)
    rng.shuffle(todo)
    number = 0
    while todo or not report.rounds:
        place, store = folder / str(number), folder / f"store{report.rounds}"
        number += 1
        process = start(place, store)
        if todo and _strike(process, place, todo[-1], rng.randrange(rows // 4 + 1), rng):
            struck = todo.pop()
            if struck == signal.SIGKILL:
                report.kills += 1
            else:
                report.signals.append(struck.name)
        else:
            _go_on(process, place)
            report.ends.add(_hashes(place))
            report.rounds += 1
        report.mid_epoch += _began_in_mid_epoch(place)
    return whole, report


def _quiet_run(settings: Config, place: Path) -> None:
    register()
    place.mkdir()
    multiprocessing.set_start_method("fork", force=True)  # of data workers, as in train.py
    sys.stderr = (place / "stderr").open("w", buffering=1)
    faulthandler.register(signal.SIGQUIT, chain=True)
    run(RunContext(settings, RunInfo(place, "verify")))


def _strike(
    process: BaseProcess, place: Path, number: signal.Signals, rows: int, rng: random.Random
) -> bool:
    """Send the signal once `rows` rows are trained; whether it hit a run under way.

    By rows, not by seconds: so it hits, and the next start gets further, at any speed of the machine.
    """
    _go_on(process, place, rows=0)
    _go_on(process, place, rows=_rows(place) + rows)
    process.join(rng.uniform(0, 0.02))  # somewhere within an update
    if not process.is_alive() or process.pid is None:
        return False
    os.kill(process.pid, number)
    _go_on(process, place)
    expected = -number if number == signal.SIGKILL else 128 + number
    return process.exitcode is not None and process.exitcode == expected


def _go_on(process: BaseProcess, place: Path, rows: float = math.inf) -> None:
    """Wait until the history has `rows` rows, or the process has ended; say where it hangs if it does."""
    there, since = _rows(place), time.monotonic()
    while there < rows and process.is_alive():
        process.join(0.005)
        if (now := _rows(place)) != there:
            there, since = now, time.monotonic()
        elif time.monotonic() - since > _HUNG and process.pid is not None:
            os.kill(process.pid, signal.SIGQUIT)
            process.join()
            sys.exit(
                f"hangs, {there} rows, nothing new for {_HUNG:g} s\n{(place / 'stderr').read_text()}"
            )


def _rows(place: Path) -> int:
    """Return how many rows the history has; -1 before there is one."""
    try:
        return (place / "history.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return -1


def _began_in_mid_epoch(place: Path) -> bool:
    """Return whether the first row that this start trained itself did not begin an epoch."""
    result = place / "result.json"
    if not result.exists():
        return False
    recorded = json.loads(result.read_text())
    return bool(recorded.get("updates_reused", 0) % recorded["plan"]["updates_per_epoch"])


def _hashes(place: Path) -> tuple[str, str]:
    result = json.loads((place / "result.json").read_text())
    assert result["status"] == "complete", result["error"]
    history = hashlib.sha256((place / "history.jsonl").read_bytes()).hexdigest()
    return result["weights_sha256"], history


if __name__ == "__main__":
    main()
