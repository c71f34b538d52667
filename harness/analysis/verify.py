"""Compare each row of a sweep's table with the run's own files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from harness.analysis import measured, results, sweep_plan, tuning
from harness.analysis.pairing import level_key
from harness.config.fields import show
from harness.config.values import SAME_RUN, changes, flat
from harness.files import read_json


def check_records(sweep: Path) -> list[str]:
    """Return what is wrong in the records of a sweep, a line each: the part that costs little.

    Compared are, of each run that left a result: its configuration against the plan's, its name, seed and levels against
    its configuration, its last row against its result and the LR plan. Raises what reading files raises.
    """
    plan, folders = results.read_plan(sweep), results.folders(sweep)
    faults = _check_folders(folders) + _check_tuning(sweep, plan)
    for run, folder in zip(plan["arms"], folders, strict=True):
        if result := results.result(folder):
            own = run_check(folder, partial(_check_run, plan, run, folder, result))
            faults += [f"{run['name']} ({folder}): {fault}" for fault in own]
    return faults


def _check_tuning(sweep: Path, plan: dict[str, Any]) -> list[str]:
    """Check that the values of the arms are those that the tuning runs lead to, and their record what was written."""
    if "tuning" not in plan:
        return []
    record = dict(plan["tuning"])
    sha256, tuned = record.pop("sha256"), sweep / "tuning"
    faults = [f"{tuned}: {fault}" for fault in check_records(tuned)]
    if sha256 != tuning.record_sha256(record):
        faults.append(f"{sweep / 'plan.json'}: what was tuned is not what its hash says")
    sign = -1 if record.get("better") == "lower" else 1
    name = record.get("metric", "val/acc").partition("/")[2]
    for arm in record["arms"]:
        values = {tuning.from_text(v): own for v, own in arm["tried"].items()}
        choice = tuning.choose(values, sign)
        if choice is None or tuning.to_text(choice.value) != arm["value"]:
            faults.append(f"{arm['arm']}: its tuning runs do not lead to {arm['value']}")
    tried = sorted(
        value
        for arm in record["arms"]
        for own in arm["tried"].values()
        for value in own
        if value is not None
    )
    runs = measured.of_metric(results.read(tuned), name).filter(status="complete")
    if tried != sorted(runs["final"].to_list()):
        faults.append(
            f"{tuned}: the {'accuracies' if name == 'acc' else 'results'} of its runs are not those that the values "
            "were chosen by"
        )
    return faults


def run_check(folder: Path, check: Callable[[], list[str]]) -> list[str]:
    """Return what `check` returns; or that a file it reads is not there, or not of this version."""
    try:
        with results.this_version(folder / "result.json"):
            return check()
    except OSError as error:
        return [" ".join(str(error).split())]


def _check_folders(planned: Sequence[Path]) -> list[str]:
    """Check that each planned run has a folder of its own, and that each folder with a run is planned."""
    faults = [
        f"{folder}: is the folder of several rows"
        for folder, n in Counter(planned).items()
        if n > 1
    ]
    present = {
        file.parent for home in {f.parent for f in planned} for file in home.glob("*/config.json")
    }
    return faults + [
        f"{folder}: has a run that plan.json does not name"
        for folder in sorted(present - {*planned})
    ]


def _check_run(
    plan: dict[str, Any], run: dict[str, Any], folder: Path, result: dict[str, Any]
) -> list[str]:
    faults = [*_check_config(plan, run, folder, result), *_check_names(plan, run, result)]
    if result["status"] == "complete":
        return faults + _check_end(folder, result)
    if result["status"] in ("diverged", "failed") and "plan" in result:
        row = results.last_row(folder) if (folder / "history.jsonl").exists() else {}
        if row.get("step") == result["plan"]["updates"] and "test/" not in (result["error"] or ""):
            faults.append(f"is {result['status']}, but its history reaches the end of its LR plan")
    return faults


def _check_config(
    plan: dict[str, Any], run: dict[str, Any], folder: Path, result: dict[str, Any]
) -> list[str]:
    """Check that the configurations in plan.json, config.json and result.json are the same."""
    begun = read_json(folder / "config.json")["config"]
    found = [
        f"result.json has {change} in config.json" for change in changes(begun, result["config"])
    ]
    if plan.get("format") == sweep_plan.FORMAT:
        planned = plan["config"] | run["differs"]
        found += [
            f"trained {change} in plan.json"
            for change in changes(planned, result["config"], SAME_RUN)
        ]
    return found


def _check_names(plan: dict[str, Any], run: dict[str, Any], result: dict[str, Any]) -> list[str]:
    """Check that the names in tables are those of the configuration that was trained."""
    found = []
    values = flat(result["config"])
    swept = result.get("swept", run["swept"])
    for key, text in swept.items():
        if key in values and not key.startswith(SAME_RUN) and not _is_value(text, values[key]):
            found.append(f"is called {key}={text}, was trained with {show(values[key])}")
    if "swept" in run and swept != run["swept"]:
        found.append(f"its levels are {swept}, {run['swept']} in plan.json")
    for key, value in run["plan"].items():
        if key in result.get("plan", {}) and result["plan"][key] != value:
            found.append(f"{key} is {result['plan'][key]}, {value} in plan.json")
    for key in ("name", "arm", "seed"):
        recorded = result["config"]["seed"] if key == "seed" else result[key]
        if recorded != run[key]:
            found.append(f"{key} is {recorded!r}, {run[key]!r} in plan.json")
    return found


def _is_value(text: str, value: Any) -> bool:
    """Return whether an override's text gives the value; True for `${…}`, where that is unknown."""
    if "${" in text:
        return True
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return _are_entries(text, value)
    given: Any = yaml.safe_load(text)
    match value:
        case None | bool():
            return given is value or (given == value and isinstance(value, bool))
        case list():
            return isinstance(given, list) and list(map(str, map(_as_float, given))) == list(
                map(str, map(_as_float, value))
            )
    return level_key(str(given)) == level_key(show(value))


def _are_entries(text: str, entries: list[Any]) -> bool:
    """Return whether an override's text gives these dictionaries, whose keys it need not name all."""
    from hydra.errors import HydraException  # a third of a second, which no other key costs

    from harness.config.hydra_private import read_value

    try:
        pairs = zip(entries, read_value(text), strict=True)
        return [entry | given for entry, given in pairs] == entries
    except (HydraException, TypeError, ValueError):
        return False


def _as_float(item: Any) -> Any:
    return float(item) if isinstance(item, int | float) else item


def _check_end(folder: Path, result: dict[str, Any]) -> list[str]:
    """Check that the last row of the history is the result, at the end of the LR plan."""
    found = []
    plan, row = results.lr(folder), results.last_row(folder)
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


def check_history(folder: Path, result: dict[str, Any]) -> list[str]:
    """Return what is wrong in the whole history of a complete run, against its LR plan and its result."""
    metrics = measured.measures_of(result)
    plan, rows = results.lr(folder), results.history(folder, metrics=measured.own_names(metrics))
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
    for name, own in result.get("metrics", {}).items():
        values = rows[f"val/{name}"]
        best = values.max() if own["better"] == "higher" else values.min()
        if own.get("best") != best:
            found.append(f"best of {name} is {own.get('best')}, the history's best is {best!r}")
    return found
