"""Whether the table of a sweep says what its runs did: each row against the run's own files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from harness import config as conf
from harness import results, sweep_plan
from harness.config import SAME_RUN
from harness.files import read_json
from harness.sides import level_key

_TAIL_BYTES = 4096  # of a history; holds its last rows


def records(sweep: Path) -> list[str]:
    """What is wrong in the records of a sweep, a line each: the part that costs little.

    Of each run that left a result: its configuration against the plan's, its name, seed and levels against
    its configuration, its last row against its result and the LR plan. Raises what reading files raises.
    """
    plan = results.plan(sweep)
    faults = []
    for run, folder in zip(plan["arms"], results.folders(sweep), strict=True):
        if result := results.result(folder):
            with results.this_version(folder / "result.json"):
                found = [*_config(plan, run, folder, result), *_names(plan, run, result)]
                if result["status"] == "complete":
                    found += _end(folder, result)
            faults += [f"{run['name']} ({folder}): {fault}" for fault in found]
    return faults


def _config(
    plan: dict[str, Any], run: dict[str, Any], folder: Path, result: dict[str, Any]
) -> list[str]:
    """Planned, begun and recorded configurations must be one."""
    begun = read_json(folder / "config.json")["config"]
    found = [
        f"result.json has {change} in config.json"
        for change in conf.changes(begun, result["config"])
    ]
    if plan.get("format") == sweep_plan.FORMAT:
        planned = plan["config"] | run["differs"]
        found += [
            f"trained {change} in plan.json"
            for change in conf.changes(planned, result["config"], SAME_RUN)
        ]
    return found


def _names(plan: dict[str, Any], run: dict[str, Any], result: dict[str, Any]) -> list[str]:
    """What tables call the run must be what it was trained with."""
    found = []
    values = conf.flat(result["config"])
    swept = result.get("swept", run["swept"])
    for key, text in swept.items():
        if key in values and not _same(text, conf.show(values[key])):
            found.append(f"is called {key}={text}, was trained with {conf.show(values[key])}")
    for key in ("name", "arm", "seed"):
        recorded = result["config"]["seed"] if key == "seed" else result[key]
        if recorded != run[key]:
            found.append(f"{key} is {recorded!r}, {run[key]!r} in plan.json")
    return found


def _same(text: str, value: str) -> bool:
    """Whether an override's text gives the value; where it is `${…}` that cannot be said."""
    plain = text.strip("'\"")
    return "${" in text or level_key(plain) == level_key(value) or plain.lower() == value.lower()


def _end(folder: Path, result: dict[str, Any]) -> list[str]:
    """The last row of the history must be the result, at the end of the LR plan."""
    found = []
    plan, row = results.lr(folder), _last_row(folder / "history.jsonl")
    final = result["final"]
    if row != final:
        found.append(f"final is {final}, the last row of history.jsonl is {row}")
    if row.get("step") != len(plan):
        found.append(f"the history ends at update {row.get('step')}, the LR plan at {len(plan)}")
    elif row.get("lr") != plan[-1]:
        found.append(f"the last update used the LR {row.get('lr')}, lr.npy has {plan[-1]}")
    if len(plan) != result["updates_trained"] + result["updates_reused"]:
        found.append(
            f"{result['updates_trained']} updates trained and {result['updates_reused']} reused "
            f"are not the {len(plan)} of lr.npy"
        )
    if not plan.max() <= result["config"]["optimizer"]["lr"] * (1 + 1e-12):
        found.append(
            f"lr.npy reaches {plan.max()}, optimizer.lr is {result['config']['optimizer']['lr']}"
        )
    return found


def _last_row(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        lines = file.read().splitlines()
    row: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return row


def histories(folder: Path, result: dict[str, Any]) -> list[str]:
    """What is wrong in the whole history of a complete run, against its LR plan and its result."""
    plan, rows = results.lr(folder), results.history(folder)
    found = []
    steps = rows["step"].to_list()
    if steps != sorted(set(steps)):
        found.append("the steps of history.jsonl do not rise")
    for step, epoch, lr in rows.select("step", "epoch", "lr").iter_rows():
        if not 1 <= step <= len(plan) or lr != plan[step - 1]:
            found.append(f"the row of update {step} has the LR {lr}, not that of lr.npy")
            break
        if not math.isclose(epoch, step / result["plan"]["updates_per_epoch"]):
            found.append(f"the row of update {step} has the epoch {epoch}")
            break
    best = rows["val/acc"].max()
    if result["best"].get("val/acc") != best:
        found.append(f"best is {result['best'].get('val/acc')}, the history's best is {best!r}")
    return found
