"""Folders of Lightning's CSVLogger: `metrics.csv`, and beside it `hparams.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.config.errors import ConfigError
from harness.reading.recorded import Recorded, RunRecord, collect
from harness.reading.run_files import rows_of_csv, settings_of_yaml
from harness.reading.walk import NO_ROWS, Notes, all_settings, find, read_each, run_name

KIND = "Lightning CSVLogger"


def read(folder: Path) -> Recorded:
    """Return the runs in `folder` and below it. Raises `ConfigError` if there are none.

    A run that ended before its first rows were written has `hparams.yaml` only, and no rows.
    """
    notes = Notes()
    found = {
        here: {file.name: file for file in files}
        for here, files in find(folder, _is_read, notes).items()
    }
    if not any("metrics.csv" in files for files in found.values()):
        raise ConfigError(f"{folder}: has no metrics.csv of {KIND}, in it or below it")
    runs = {here: files for here, files in found.items() if files.keys() & _OF_A_RUN}
    for here in [here for here, files in runs.items() if "metrics.csv" not in files]:
        if any(name not in _OF_A_RUN for name in found[here]):
            notes.add("has TensorBoard's event files only, and is left out", here)
            del runs[here]

    def settings(here: Path) -> dict[str, Any]:
        hparams = runs[here].get("hparams.yaml")
        recorded = settings_of_yaml(hparams, notes) if hparams else {}
        return all_settings(folder, here, recorded, notes)

    def one(here: Path) -> RunRecord:
        name, where, metrics = run_name(folder, here), str(here), runs[here].get("metrics.csv")
        if metrics is None:
            why = "it has no metrics.csv"
            return RunRecord(name, settings(here), NO_ROWS, where, "no rows", why)
        return RunRecord(
            name, rows=rows_of_csv(metrics, "step", notes), settings=settings(here), where=where
        )

    return collect(KIND, read_each(folder, runs, one, settings), notes.lines())


_OF_A_RUN = {"metrics.csv", "hparams.yaml"}


def _is_read(name: str) -> bool:
    return name in _OF_A_RUN or name.startswith("events.out.tfevents.")
