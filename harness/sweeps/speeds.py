"""How long an epoch takes: of runs that are recorded, or measured in a few updates."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from harness.config.errors import ConfigError
from harness.config.fields import decimal
from harness.config.schema import Config
from harness.config.values import to_dict
from harness.files import read_json
from harness.sweeps.prefix_tree import PrefixNode, epochs_to_train, total_epochs

_MOST_READ = 2_000  # results of runs, the newest folders first
_MEASURED_S = 3.0  # of updates
_WARM_UP = 3  # updates before those
_NUMERICS = ("device", "processes", "precision", "deterministic", "channels_last", "compile")


def workload(config: dict[str, Any], numerics: dict[str, Any]) -> str:
    """Return what is equal for runs whose epochs take as long; `numerics` as `result.json` has them."""
    trainer = config["trainer"]
    parts = [config["model"], config["dataset"], trainer["batch_size"], trainer["evals_per_epoch"]]
    return json.dumps([*parts, [numerics.get(name) for name in _NUMERICS]], sort_keys=True)


def workload_here(config: Config) -> str:
    """Return the `workload` of `config` on this machine; one that no run has, if it cannot run here."""
    from harness.training import device
    from harness.training.loop import Precision

    numerics = {}
    with suppress(ConfigError):  # as on the login node of a cluster: no such GPU
        own = device.device(config.trainer.device)
        precision = Precision.resolve(config.trainer.precision, own)
        numerics = device.numerics(config, own, precision)
    return workload(to_dict(config), numerics)


def recorded_speeds(*folders: Path) -> dict[str, list[float]]:
    """Return the seconds an epoch of the complete runs below `folders` with its evaluations, by `workload`."""
    speeds: dict[str, list[float]] = {}
    for path in islice(_results(folders), _MOST_READ):
        with suppress(OSError, LookupError, TypeError, ArithmeticError):
            run = read_json(path)
            if run["status"] == "complete" and run["updates_trained"]:
                epochs = run["updates_trained"] / run["plan"]["updates_per_epoch"]
                seconds = run["seconds"]["fit"] / epochs
                same = workload(run["config"], run["numerics"])
                speeds.setdefault(same, []).append(seconds)
    return speeds


def _results(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for below in sorted(folder.iterdir(), reverse=True) if folder.is_dir() else ():
            yield from below.rglob("result.json")


def time_to_train(
    roots: Sequence[PrefixNode], speeds: dict[str, list[float]], measure: bool
) -> str:
    """Return how long the runs of `roots` take one at a time, and where that is known from.

    What `speeds` has no run of is measured, if that is wanted.
    """
    same: dict[str, list[PrefixNode]] = {}
    for root in roots:
        same.setdefault(workload_here(root.runs[0].config), []).append(root)
    seconds, recorded, measured, unknown = 0.0, 0, list[str](), 0
    for work, own in same.items():
        config = own[0].runs[0].config
        known = speeds.get(work, [])
        recorded += len(known)
        if not known and measure:
            known = [measure_epoch(config)]
            measured.append(f"{decimal(known[0], 2)} s an epoch")
        unknown += not known
        runs = [run for root in own for run in root.runs]
        epochs = epochs_to_train(own) if config.reuse else total_epochs(runs)
        seconds += epochs * statistics.median(known or [0])
    if unknown:
        of = f"{unknown} of {len(same)} combinations of" if len(same) > 1 else "this"
        return (
            f"time: unknown, no run of {of} model, data set, batch size, evaluations and precision "
            "on this device is recorded; with --time a few updates are measured"
        )
    sources = [f"{recorded} recorded run{'s' * (recorded != 1)}"] * bool(recorded)
    sources += [f"a few updates, measured now: {', '.join(measured)}"] * bool(measured)
    return f"time: about {_in_words(seconds)}, one run at a time (from {' and '.join(sources)})"


def _in_words(seconds: float) -> str:
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{decimal(seconds / length, 2)} {unit}"
    return f"{seconds:.0f} seconds"


def measure_epoch(config: Config) -> float:
    """Return the seconds that an epoch of `config` takes here, with its evaluations. Stores nothing.

    Reads the data, and trains a few updates.
    """
    from harness.runs.context import PhaseTimer
    from harness.runs.evaluator import Evaluator
    from harness.runs.setup import build, prepare
    from harness.training.distributed import SINGLE_PROCESS
    from harness.training.loop import updates

    setup = prepare(config, PhaseTimer())
    state, step = build(config, setup.splits, setup.device, setup.precision)
    plan = setup.identity.plan
    begin, first = time.perf_counter(), 0
    for _ in updates(state, step, plan, setup.batches):
        if state.updates == _WARM_UP:
            state.last_loss()  # which waits for the device
            begin, first = time.perf_counter(), _WARM_UP
        elif state.updates > _WARM_UP and time.perf_counter() - begin > _MEASURED_S:
            break
    state.last_loss()
    update = (time.perf_counter() - begin) / max(1, state.updates - first)
    begin = time.perf_counter()
    Evaluator(SINGLE_PROCESS, setup, step, state).val()
    evaluation = time.perf_counter() - begin
    return update * plan.updates_per_epoch + evaluation * config.trainer.evals_per_epoch
