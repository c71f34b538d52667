"""Test accuracy of averaging the last cycles' networks: `python scripts/snapshot_ensemble.py SWEEP…`

For every complete run of the sweeps, the softmax outputs of its last 1, 2, … m cycle ends are averaged
on the test set (Huang et al. 2017), from the checkpoints in the store. Leaves `snapshots.json` in
the run's folder, which the sweep's report shows; build that again with scripts/report.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from harness import config, run, trajectory
from harness.errors import one_line_errors
from harness.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="SWEEP")
    parser.add_argument("--members", type=int, default=5, help="at most (default 5)")
    arguments = parser.parse_args()
    results = [path for sweep in arguments.sweeps for path in sorted(sweep.glob("*/result.json"))]
    if not results:
        sys.exit(f"error: no runs in {', '.join(map(str, arguments.sweeps))}")
    with one_line_errors():
        for path in tqdm(results, unit="run", disable=not sys.stderr.isatty()):
            told = json.loads(path.read_text())
            if told["status"] == "complete":
                accuracies = ensemble(config.from_dict(told["config"]), arguments.members)
                write_json(path.parent / "snapshots.json", {"test/acc": accuracies})


@torch.inference_mode()
def ensemble(settings: config.Config, members: int) -> list[float]:
    """Test accuracy (percent) of the mean prediction of the last 1, 2, … stored cycle ends."""
    p = run.prepare(settings, run.Seconds())
    if p.test is None:
        raise config.ConfigError("dataset: has no test set, on which ensembles are compared")
    state, step = run.build(settings, p.splits, p.device, p.precision)
    labels = torch.cat([labels for _, labels in p.test])
    mean = torch.zeros(len(labels), p.splits.classes, device=p.device)
    accuracies: list[float] = []
    for prefix in trajectory.Store(Path(settings.store.dir)).prefixes(p.trajectory):
        if prefix.step in p.trajectory.plan.cycle_ends and len(accuracies) < members:
            state.network.load_state_dict(trajectory.read_state(prefix)["network"])
            state.network.eval()
            mean += torch.cat([_softmax(step.forward(images)) for images, _ in p.test])
            accuracies.append(100 * float((mean.argmax(1) == labels).double().mean()))
    return accuracies


def _softmax(logits: Tensor) -> Tensor:
    return logits.float().softmax(1)


if __name__ == "__main__":
    main()
