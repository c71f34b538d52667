"""Check that the table of a sweep says what its runs did: `python scripts/verify_sweep.py SWEEP…`

Compares every row with the run's own files: config.json (and the sweep's plan.json), lr.npy, history.jsonl
and, where the store keeps it, the checkpoint of its end:

  names          name, seed and levels are those of the configuration that was trained
  configuration  result.json, config.json and plan.json agree
  LR             lr.npy is what torch's scheduler gives for the configuration; each row used it
  history        it has every row that the run had to record; final and best are in it
  metrics        which is better, and the unit, are those of the metrics' code
  weights        the checkpoint has the weights, the rows and the test result of result.json
  averages       their metrics are there; means of weights are those of the stored checkpoints

Prints each difference as a line, and exits with 1 if there is one. Trains nothing and reads no images.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from harness.analysis import measured, results, verify
from harness.analysis.averages import of_runs
from harness.analysis.needed import NOT_NEEDED, WAITING
from harness.choices.builtin import register
from harness.config import measures
from harness.config.one_line_errors import one_line_errors
from harness.config.values import from_dict
from harness.store.checkpoint import Checkpoint, CorruptCheckpointError, read_checkpoint, read_state
from harness.store.identity import fingerprint, plan_hashes, stem, weights_sha256
from harness.training import averages, schedules
from harness.training.loop import LogSchedule
from harness.training.schedules import LRPlan

_NO_CHECKPOINT = "no checkpoint"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="SWEEP")
    arguments = parser.parse_args()
    register()
    with one_line_errors():
        faults = sum(verify_sweep(sweep) for sweep in arguments.sweeps)
    sys.exit(faults > 0)


def verify_sweep(sweep: Path) -> int:
    """Print the faults of `sweep`, a line each. Return their number."""
    faults = verify.check_records(sweep)
    complete, checkpoints, missing = 0, 0, 0
    without: list[str] = []
    folders = results.folders(sweep)
    runs = of_runs(results.read(sweep))
    unneeded = runs["status"].is_in([NOT_NEEDED, WAITING]).sum()
    for folder in tqdm(folders, unit="run", disable=not sys.stderr.isatty()):
        result = results.result(folder)
        missing += not result
        if result.get("status") != "complete":
            continue
        complete += 1
        row = f"{result['name']} ({folder})"
        recorded = verify.run_check(folder, partial(check_run, folder, result))
        stored = verify.run_check(folder, partial(check_checkpoint, folder, result))
        checkpoints += stored != [_NO_CHECKPOINT]
        without += [row] if stored == [_NO_CHECKPOINT] else []
        faults += [f"{row}: {fault}" for fault in recorded + stored if fault != _NO_CHECKPOINT]
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if without:
        print(
            f"note: {len(without)} checkpoints are not in their store, as after scripts/store.py prune: {without[0]} …",
            file=sys.stderr,
        )
    print(
        f"{sweep}: {len(folders)} rows, {len(folders) - missing} with a result, {complete} complete"
        + f", {unneeded} not needed" * (unneeded > 0)
        + f"; "
        f"{checkpoints} checkpoints held against them; "
        + (f"{len(faults)} faults" if faults else "all rows hold")
    )
    return len(faults)


def check_run(folder: Path, result: dict[str, Any]) -> list[str]:
    """Return what differs between a complete run's configuration, its identity, its LR plan and its history."""
    config = from_dict(result["config"])
    plan = schedules.lr_plan(config, result["plan"]["updates_per_epoch"])
    recorded = results.lr(folder)
    found = verify.check_history(folder, result) + check_rows(folder, result, plan)
    if recorded.tobytes() != plan.lr.tobytes():
        found.append("lr.npy is not the LR plan of its configuration")
    if result["plan"] != plan.describe():
        found.append("its restarts, cycle ends or LRs are not those of its LR plan")
    if "metrics" in result and measured.measures_of(result) != measures.measures(config.metrics):
        found.append(
            "which of its metrics are better, or their units, are not what their code says"
        )
    precision = result["numerics"]["precision"]
    if result["fingerprint"] != fingerprint(config, result["data_sha256"], precision):
        found.append("its fingerprint is not that of its configuration and data")
    named = hashlib.sha256(result["fingerprint"].encode() + recorded.tobytes()).hexdigest()
    if named[:16] != result["run_id"]:
        found.append("run_id does not follow from its fingerprint and lr.npy")
    return found


def check_rows(folder: Path, result: dict[str, Any], plan: LRPlan) -> list[str]:
    """Check that the history has every row that the configuration asks for, and the test of every average."""
    config = from_dict(result["config"])
    due = LogSchedule.of(plan, config.trainer, averages.planned(config.averages, plan))
    found = []
    if not due.covers(results.rows(folder), plan.updates):
        found.append("history.jsonl lacks rows that were due")
    if result["test"] and not due.tells(result["test"], "test/acc", plan.updates):
        found.append("its test result lacks an average")
    return found


def check_checkpoint(folder: Path, result: dict[str, Any]) -> list[str]:
    """Return what differs between the checkpoint of the run's end and its result; `_NO_CHECKPOINT` without one."""
    store = Path(result["config"]["store"]["dir"], result["fingerprint"])
    plan = schedules.lr_plan(from_dict(result["config"]), result["plan"]["updates_per_epoch"])
    ((step, sha256),) = plan_hashes(plan, [plan.updates])
    path = store / f"{stem(step, sha256)}.json"
    if not path.exists():
        return [_NO_CHECKPOINT]
    try:
        prefix = read_checkpoint(path)
        state = read_state(prefix)
        return [
            *_compare_checkpoint(folder, result, prefix, state),
            *_check_means(plan, path, state),
        ]
    except CorruptCheckpointError as error:
        return [f"its checkpoint is damaged: {error}"]


def _compare_checkpoint(
    folder: Path, result: dict[str, Any], prefix: Checkpoint, state: dict[str, Any]
) -> Iterator[str]:
    """Yield what differs; another run may have stored the end with other averages."""
    weights = weights_sha256(state["network"])
    if weights != result["weights_sha256"]:
        yield f"its checkpoint has other weights ({weights[:16]}, {result['weights_sha256'][:16]} recorded)"
    same_images = prefix.test_sha256 == result["test_sha256"]
    if prefix.test and same_images and _differ(result["test"], prefix.test):
        yield f"its checkpoint has the test result {prefix.test}, it {result['test']}"
    stored = {row["step"]: row for row in prefix.rows}
    for row in results.rows(folder):
        if _differ(row, stored.get(row["step"], {})):
            yield f"its checkpoint has another row of update {row['step']}"
            return


def _differ(row: Mapping[str, float], stored: Mapping[str, float]) -> bool:
    """Return whether a stored row has another value, or lacks one that is not an average's."""
    return any(
        value != stored.get(name)
        for name, value in row.items()
        if "@" not in name or name in stored
    )


def _check_means(plan: LRPlan, path: Path, state: dict[str, Any]) -> Iterator[str]:
    """Compare means of weights at the end with the checkpoints that they are of, where all are stored."""
    for name, own in state.get("averages", {}).items():
        hashes = plan_hashes(plan, own["steps"] or ())
        paths = [path.with_name(f"{stem(step, sha256)}.json") for step, sha256 in hashes]
        if not paths or not all(one.exists() for one in paths):
            continue
        taken = [read_state(read_checkpoint(one))["network"] for one in paths]
        for parameter, mean in own["weights"].items():
            expected = torch.stack([one[parameter].double() for one in taken]).mean(0)
            if not torch.allclose(mean.double(), expected, rtol=1e-4, atol=1e-6):
                yield f"its {name} is not the mean of the stored {parameter}"
                break


if __name__ == "__main__":
    main()
