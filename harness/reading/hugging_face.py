"""Output folders of Hugging Face's `Trainer`: `trainer_state.json`, in them and in their checkpoints."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from harness import files
from harness.config.errors import ConfigError
from harness.files import UnreadableError
from harness.reading.recorded import (
    COMPLETE,
    MOST_COLUMNS,
    Recorded,
    RunRecord,
    clean,
    collect,
    refuse_more,
    unreadable,
)
from harness.reading.walk import Notes, all_settings, find, read_each, run_name

KIND = "Hugging Face Trainer"
_CHECKPOINT = re.compile(r"checkpoint-(\d{1,18})")
_SETTINGS = ("train_batch_size", "num_train_epochs", "max_steps", "trial_params")


def read(folder: Path) -> Recorded:
    """Return the runs in `folder` and below it, each by its newest state. Raises `ConfigError` if there are none.

    A run's training arguments are in `training_args.bin`, a pickle, which is not opened: opening it may run code.
    """
    notes = Notes()
    runs: dict[Path, list[Path]] = {}
    for here, (state,) in find(folder, "trainer_state.json".__eq__, notes).items():
        is_checkpoint = here != folder and _CHECKPOINT.fullmatch(here.name)
        runs.setdefault(here.parent if is_checkpoint else here, []).append(state)
    if not runs:
        raise ConfigError(f"{folder}: has no trainer_state.json, in it or below it")

    def one(here: Path) -> RunRecord:
        state = _newest(here, runs[here], notes)
        recorded = {key: state[key] for key in _SETTINGS if state.get(key) is not None}
        settings = all_settings(folder, here, recorded, notes)
        rows = _rows(_training(state, here, notes), here, notes)
        done, planned = state["global_step"], state.get("max_steps")
        status, error = None, None
        if isinstance(planned, int) and planned > 0:
            status = COMPLETE if done >= planned else "unfinished"
            error = None if done >= planned else f"its newest state is of step {done} of {planned}"
        return RunRecord(run_name(folder, here), settings, rows, str(here), status, error)

    notes.add("other settings than the batch size and the length are known from folder names KEY=VALUE only: "
              "training_args.bin, a pickle, which may run code, is not opened", folder)  # fmt: skip
    return collect(KIND, read_each(folder, runs, one), notes.lines())


def _newest(run: Path, states: Sequence[Path], notes: Notes) -> dict[str, Any]:
    """Return the state of the most steps: the folder's own, or that of its last checkpoint which can be read.

    Raises `UnreadableError` if none can be read.
    """
    own = [path for path in states if path.parent == run]
    checkpoints = sorted((path for path in states if path.parent != run), key=_number, reverse=True)
    found: list[dict[str, Any]] = []
    errors: list[OSError] = []
    for paths in (own, checkpoints):
        for path in paths:
            try:
                found.append(_state(path))
                break
            except OSError as error:
                errors.append(error)
    if not found:
        raise errors[0]
    for lost in errors:
        notes.add("a state cannot be read; another of the run is read", lost)
    return max(found, key=lambda state: int(state["global_step"]))


def _number(state: Path) -> int:
    return int(state.parent.name.rpartition("-")[2])


def _state(path: Path) -> dict[str, Any]:
    """Return a state, whose numbers may be NaN, as the Trainer writes them. Raises OSError."""
    try:
        state = json.loads(files.read(path))
    except (ValueError, RecursionError) as error:
        raise unreadable(path, f"is not JSON ({error})") from error
    steps, history = (
        (state.get("global_step"), state.get("log_history")) if isinstance(state, dict) else (0, 0)
    )
    if not isinstance(steps, int) or not isinstance(history, list):
        raise UnreadableError(f"{path}: is no state of a Trainer (global_step, log_history)")
    return dict(state)


def _training(state: Mapping[str, Any], run: Path, notes: Notes) -> list[Any]:
    """Return the history without evaluations after the training that repeat one: of which weights they are is unknown.

    `load_best_model_at_end` makes them those of the best step; `evaluate` may take other data, too.
    """
    found: list[Any] = []
    steps, values = set[tuple[int, str]](), set[tuple[str, float]]()
    trained = False
    for entry in state["log_history"]:
        items = entry.items() if isinstance(entry, dict) else ()
        keys = {key for key, _ in items}
        trained = "train_runtime" in keys or (trained and "loss" not in keys)  # which may go on
        named = {
            key: value
            for key, value in items
            if key.startswith("eval_") and isinstance(value, int | float)
        }
        step = entry.get("step") if named else None
        own = {(step, key) for key in named if isinstance(step, int)}
        is_best = state.get("best_metric") in named.values() and named.items() & values
        if trained and (own & steps or is_best):
            notes.add("evaluations after the training that repeat one are left out: they may be of the best weights, or of other data", run)  # fmt: skip
            continue
        steps |= own
        values |= named.items()
        found.append(entry)
    return found


def _rows(history: Sequence[Any], run: Path, notes: Notes) -> pl.DataFrame:
    rows: list[tuple[int, dict[str, float]]] = []
    words: set[str] = set()
    for entry in history:
        step = entry.get("step") if isinstance(entry, dict) else None
        if not isinstance(step, int) or abs(step) >= 2**53:
            notes.add("entries of log_history without a step are left out", run)
            continue
        numbers = {clean(key): _float(value) for key, value in entry.items() if key != "step"}
        rows.append((step, {key: value for key, value in numbers.items() if value is not None}))
        words |= {key for key, value in numbers.items() if value is None}
    names = {name for _, numbers in rows for name in numbers}
    if left := (words - names) | (names & {"", "run", "step"}):
        notes.add(f"values of log_history are no metrics: {', '.join(sorted(left))}", run)
    if words & names:
        notes.add(f"some values are no numbers, and are left out: {', '.join(sorted(words & names))}", run)  # fmt: skip
    refuse_more("columns", len(names), MOST_COLUMNS)
    columns = {name: [numbers.get(name) for _, numbers in rows] for name in sorted(names - left)}
    return pl.DataFrame(
        {"step": [step for step, _ in rows], **columns},
        schema={"step": pl.Int64, **dict.fromkeys(columns, pl.Float64)},
    )


def _float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if isinstance(value, float) or abs(value) < 2**63 else None
