"""What happens around the jobs of a multirun: `plan.json` before the first, results after the last."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from harness.files import write_json

if TYPE_CHECKING:
    from harness.run import Place


class Sweep(Callback):
    """Hydra's callback, named in `conf/config.yaml`."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        params = config.hydra.sweeper.get("params") or {}
        overrides = [f"{key}={value}" for key, value in params.items()]
        jobs = expand(overrides + list(config.hydra.overrides.task))
        folder = Path(config.hydra.sweep.dir)
        write_json(folder / "plan.json", {"command": sys.argv, "arms": label(jobs)})
        plural = "s" * (len(jobs) != 1)
        print(f"sweep of {len(jobs)} run{plural} in {folder}", file=sys.stderr)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from harness import charts, results

        folder = Path(config.hydra.sweep.dir)
        runs = results.read(folder)
        print(results.table(runs))
        print("\n".join(f"{path}" for path in charts.write(folder, runs)))
        failed = runs.filter(runs["status"].is_in(["failed", "missing"]))
        if len(failed):
            names = "; ".join(f"{row['name']}: {row['error']}" for row in failed.to_dicts())
            raise SystemExit(f"error: {len(failed)} of {len(runs)} runs failed: {names}")


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of a sweep, in the order and with the numbers that Hydra gives."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return jobs


def label(jobs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Each job's number, overrides, `name` (what differs between jobs) and `arm` (without seed)."""
    values = [dict(override.split("=", 1) for override in job) for job in jobs]
    differing = [key for key in values[0] if len({job[key] for job in values}) > 1]
    short = Counter(key.rpartition(".")[2] for key in differing)
    names = {key: last if short[last := key.rpartition(".")[2]] == 1 else key for key in differing}

    def named(job: dict[str, str], keys: list[str]) -> str:
        return ", ".join(f"{names[key].lstrip('+')}={job[key]}" for key in keys) or "run"

    without_seed = [key for key in differing if key != "seed"]
    return [
        {
            "num": number,
            "overrides": list(overrides),
            "name": named(job, differing),
            "arm": named(job, without_seed),
        }
        for number, (overrides, job) in enumerate(zip(jobs, values, strict=True))
    ]


def place(hydra: DictConfig) -> Place:
    """Where the job that Hydra is running lies, and how it is called."""
    from harness.run import Place

    folder = Path(hydra.runtime.output_dir)
    overrides = list(hydra.overrides.task)
    if hydra.mode == RunMode.RUN:
        return Place(folder, ", ".join(overrides) or "run", overrides=overrides)
    arms = json.loads((Path(hydra.sweep.dir) / "plan.json").read_text())["arms"]
    own = arms[hydra.job.num]
    position = f"{hydra.job.num + 1}/{len(arms)}"
    group = Path(hydra.sweep.dir).name
    return Place(folder, own["name"], own["arm"], group, position, overrides)
