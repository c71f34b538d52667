"""What a study costs, before its first run: its runs are planned, and so checked, and nothing is written."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.analysis import run_tables
from harness.config.fields import decimal
from harness.config.hydra_private import multirun_config
from harness.config.study import CONF, Study, write_choice
from harness.config.warnings import warn
from harness.sweeps.jobs import plan_sweep
from harness.sweeps.prefix_tree import PlannedRun, epochs_to_train, prefix_trees, total_epochs
from harness.sweeps.preview import comparison_warnings
from harness.sweeps.speeds import recorded_speeds, workload_here


def study_cost(study: Study) -> str:
    """Return what the study costs, as far as that is known before its first run. Checks every run of it."""
    speeds = recorded_speeds(Path(study.folder).parent, Path("sweeps"))
    rows, cost, unknown = [], [0.0, 0.0, 0.0, 0.0], []
    for cell in dict.fromkeys(cell for _, _, cell, _ in study.parts()):
        by_rows: dict[int, list[PlannedRun]] = {}  # a run of other rows shares no beginning
        for sweep, runs in _planned(study, cell):
            rows.append([cell, sweep, f"{len(runs)}", decimal(total_epochs(runs))])
            by_rows.setdefault(runs[0].config.trainer.evals_per_epoch, []).extend(runs)
        for runs in by_rows.values():
            epochs = epochs_to_train(prefix_trees(runs))
            speed = speeds.get(workload_here(runs[0].config), [])
            unknown += [cell] * (not speed and cell not in unknown)
            hours = epochs * statistics.median(speed or [0]) / 3600
            own = (len(runs), total_epochs(runs), epochs, hours)
            cost = [a + b for a, b in zip(cost, own, strict=True)]
    text = f"at most {decimal(cost[0])} runs, {decimal(cost[1])} epochs"
    if cost[2] < cost[1]:
        text += f", {decimal(cost[2])} to train since beginnings are shared"
    if any(sweep.claim.tune for sweep in study.sweeps.values()):
        text += ", more where a best value is at the edge of its grid"
    known = f"about {decimal(cost[3], 2)} hours, one run at a time"
    lacking = f"no run like those of {', '.join(unknown)} is recorded on this device"
    time = f"hours unknown: {lacking}" if unknown else known
    table = run_tables.columns(["cell", "sweep", "runs", "epochs"], rows)
    return f"{study.folder}: {study.question}\n{table}\n{text}; {time}"


def _planned(study: Study, cell: str) -> Iterator[tuple[str, list[PlannedRun]]]:
    """Yield the runs of each sweep of a cell that may be trained, with its name; they are checked."""
    with tempfile.TemporaryDirectory() as folder:
        for arm, overrides in study.arms.items():
            write_choice(Path(folder, "arm", f"{arm}.yaml"), overrides)
        path = [f"hydra.searchpath=[{json.dumps(f'file://{folder}')}]"] * bool(study.arms)
        for name, sweep, of, _ in study.parts():
            for stage, words in sweep.stages(cell).items() if of == cell else ():
                with multirun_config(CONF, [*path, *study.cells[cell], *words]) as composed:
                    planned = plan_sweep(composed)
                for warning in (
                    comparison_warnings(planned.runs, planned.question) if not stage else ()
                ):
                    warn(f"{cell}, {name}: {warning}")
                yield f"{name} {stage}".strip(), planned.runs
