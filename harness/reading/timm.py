"""Output folders of timm's `train.py`: `summary.csv`, a row an epoch, and `args.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.config.errors import ConfigError
from harness.reading.recorded import Recorded, RunRecord, collect
from harness.reading.run_files import rows_of_csv, settings_of_yaml
from harness.reading.walk import NO_ROWS, Notes, all_settings, find, read_each, run_name

KIND = "timm"


def read(folder: Path) -> Recorded:
    """Return the runs in `folder` and below it; a row's step is its epoch, counted from 0. Raises `ConfigError` if there are none.

    timm records no states: a run with fewer epochs than `args.yaml` asks for is `unfinished`, the state of others is
    not known. Epochs without an evaluation have a row without the `eval_` columns.
    """
    notes = Notes()
    found = {
        here: {file.name: file for file in files}
        for here, files in find(folder, {"summary.csv", "args.yaml"}.__contains__, notes).items()
    }
    if not any("summary.csv" in files for files in found.values()):
        raise ConfigError(f"{folder}: has no summary.csv of {KIND}'s train.py, in it or below it")

    def settings_of(here: Path) -> dict[str, Any]:
        args = found[here].get("args.yaml")
        return all_settings(folder, here, settings_of_yaml(args, notes) if args else {}, notes)

    def one(here: Path) -> RunRecord:
        name, where, summary = run_name(folder, here), str(here), found[here].get("summary.csv")
        if summary is None:
            why = "it has no summary.csv"
            return RunRecord(name, settings_of(here), NO_ROWS, where, "no rows", why)
        rows = rows_of_csv(summary, "epoch", notes, optional="eval_").with_columns(epoch="step")
        settings = settings_of(here)
        last, epochs = rows["step"].max(), settings.get("epochs")
        done = last + 1 if isinstance(last, int) else 0
        if isinstance(epochs, int) and done < epochs:
            error = f"it has {done:,} of {epochs:,} epochs"
            return RunRecord(name, settings, rows, where, "unfinished", error)
        return RunRecord(name, settings, rows, where)

    return collect(KIND, read_each(folder, found, one, settings_of), notes.lines())
