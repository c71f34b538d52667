"""What happens around the jobs of a multirun: `plan.json` before the first, results after the last."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from harness.config import Config, ConfigError, load
from harness.files import write_json

if TYPE_CHECKING:
    from harness.preview import Arm, Stretch
    from harness.run import Place


class Sweep(Callback):
    """Hydra's callback, named in `conf/config.yaml`."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        from harness import preview

        params = config.hydra.sweeper.get("params") or {}
        overrides = [f"{key}={value}" for key, value in params.items()]
        jobs = label(expand(overrides + list(config.hydra.overrides.task)))
        arms = [_planned(job) for job in jobs]
        roots = preview.tree(arms)
        parts = preview.branches(roots)
        for job in jobs:
            job["branches"] = sorted(parts[job["name"]])
        folder = Path(config.hydra.sweep.dir)
        write_json(folder / "plan.json", {"command": sys.argv, "arms": jobs})
        print(_announce(folder, arms, roots), file=sys.stderr)

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


def compose(overrides: Sequence[str]) -> Config:
    """The checked configuration of one job, composed as Hydra will compose it.

    Raises `ConfigError` and what composing raises.
    """
    composed = hydra.compose("config", list(overrides), return_hydra_config=True)
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(composed)
    with open_dict(composed):
        del composed["hydra"]
    try:
        return load(composed)
    finally:
        HydraConfig.instance().cfg = before


def _planned(job: dict[str, Any]) -> Arm:
    from harness import preview

    try:
        return preview.plan(job["name"], compose(job["overrides"]))
    except ConfigError as error:
        raise SystemExit(f"error: {job['name']}: {error}") from None


def _announce(folder: Path, arms: Sequence[Arm], roots: Sequence[Stretch]) -> str:
    from harness import preview

    config = arms[0].config
    whole, to_train = preview.epochs(arms), preview.epochs_to_train(roots)
    runs = f"{len(arms)} run{'s' * (len(arms) != 1)}"
    text = f"sweep of {runs} in {folder}: {whole:g} epochs"
    if not config.reuse:
        return text
    if to_train < whole:
        text += f", {to_train:g} to train since beginnings are shared"
    if config.store.keep == "cycles":
        size = preview.checkpoints_bytes(roots) / 1e6
        text += f"; checkpoints: about {size:.1f} MB in {config.store.dir}"
    return text


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


def place(settings: DictConfig) -> Place:
    """Where the job that Hydra is running lies, and how it is called."""
    from harness.run import Place

    folder = Path(settings.runtime.output_dir)
    overrides = list(settings.overrides.task)
    if settings.mode == RunMode.RUN:
        return Place(folder, ", ".join(overrides) or "run", overrides=overrides)
    arms = json.loads((Path(settings.sweep.dir) / "plan.json").read_text())["arms"]
    own = arms[settings.job.num]
    position = f"{settings.job.num + 1}/{len(arms)}"
    group = Path(settings.sweep.dir).name
    return Place(
        folder, own["name"], own["arm"], group, position, frozenset(own["branches"]), overrides
    )
