"""Test accuracy of averaging the last cycles' networks: `python scripts/snapshot_ensemble.py SWEEP…`

For every complete run of the sweeps, the softmax outputs of its last 1, 2, … m cycle ends are averaged
on the test set (Huang et al. 2017), from the checkpoints in the store. Prints a table of each sweep, and writes
`snapshots.json` into the run's folder, which the sweep's report shows; scripts/report.py writes that again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor
from tqdm import tqdm

from harness.analysis import run_tables
from harness.choices.builtin import register
from harness.config.errors import ConfigError
from harness.config.one_line_errors import one_line_errors
from harness.config.schema import Config
from harness.config.values import from_dict
from harness.config.warnings import warn
from harness.files import read_json, write_json
from harness.runs.context import PhaseTimer
from harness.runs.setup import build, prepare
from harness.store.checkpoint import read_state
from harness.store.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="SWEEP")
    parser.add_argument("--members", type=int, default=5, help="at most (default 5)")
    arguments = parser.parse_args()
    register()
    if arguments.members < 1:
        parser.error(f"--members {arguments.members}: must be at least 1")
    sweeps = list(dict.fromkeys(arguments.sweeps))
    ended = [path for sweep in sweeps for path in sorted(sweep.glob("*/result.json"))]
    if not ended:
        sys.exit(f"error: no runs in {', '.join(map(str, sweeps))}")
    written, without = dict[Path, list[dict[str, Any]]](), []
    with one_line_errors():
        for path in tqdm(ended, unit="run", disable=not sys.stderr.isatty()):
            recorded = read_json(path)
            if recorded["status"] != "complete":
                continue
            settings = from_dict(recorded["config"])
            accuracies, wanted = ensemble(settings, arguments.members)
            if not wanted:  # a schedule without cycles
                continue
            if not accuracies:
                without.append(f"{path.parent} (store.dir={settings.store.dir})")
                continue
            if len(accuracies) < wanted:
                stored = f"{len(accuracies)} of its last {wanted} cycle ends are stored"
                warn(f"{path.parent}: {stored}")
            write_json(path.parent / "snapshots.json", {"test/acc": accuracies})
            own = {"folder": str(path.parent), "arm": recorded["arm"] or "run"}
            written.setdefault(path.parent.parent, []).append(own)
    for sweep, runs in written.items():  # arms of one name may be trained otherwise in another
        if len(sweeps) > 1:
            print(f"{sweep}:")
        print(table(pl.DataFrame(runs)))
        print(f"python scripts/report.py {sweep}  # shows it in report.html")
    if without:
        sys.exit(
            f"error: no checkpoint of a cycle end is stored of {', '.join(without)}; nothing was written "
            "there: train again with store.keep=cycles, another store.dir and another folder"
        )
    if not written:
        sys.exit("error: no run is complete and has cycles")


def table(runs: pl.DataFrame) -> str:
    """Return the test accuracies of ensembles (percent, mean ± standard deviation over runs): a row an arm."""
    found = run_tables.snapshots(runs) or []
    arms = list(dict.fromkeys(one["arm"] for one in found))
    most = max(one["members"] for one in found)
    cells = {
        (one["arm"], one["members"]): f"{one['test_acc_mean']:.2f}"
        + (f" ± {one['sd']:.2f}" if one["sd"] is not None else "")
        for one in found
    }
    header = ["test/acc %, by members", *map(str, range(1, most + 1))]
    return run_tables.columns(
        header, [[arm, *(cells.get((arm, m), "-") for m in range(1, most + 1))] for arm in arms]
    )


@torch.inference_mode()
def ensemble(settings: Config, members: int) -> tuple[list[float], int]:
    """Return the test accuracy (percent) of the mean prediction of the last 1, 2, … stored cycle ends.

    And how many there would be if all were stored. Raises `ConfigError` without a test set.
    """
    p = prepare(settings, PhaseTimer())
    if p.test is None:
        raise ConfigError("dataset: has no test set, on which ensembles are compared")
    state, step = build(settings, p.splits, p.device, p.precision)
    labels = torch.cat([labels for _, labels in p.test])
    mean = torch.zeros(len(labels), p.splits.classes, device=p.device)
    accuracies: list[float] = []
    ends = p.identity.plan.cycle_ends[-members:]
    for checkpoint in Store(Path(settings.store.dir)).checkpoints(p.identity):
        if checkpoint.step in ends:
            state.network.load_state_dict(read_state(checkpoint)["network"])
            state.network.eval()
            mean += torch.cat([_softmax(step.forward(images)) for images, _ in p.test])
            accuracies.append(100 * float((mean.argmax(1) == labels).double().mean()))
    return accuracies, len(ends)


def _softmax(logits: Tensor) -> Tensor:
    return logits.float().softmax(1)


if __name__ == "__main__":
    main()
