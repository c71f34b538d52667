"""What happens around the jobs of a multirun: `plan.json` before the first, results after the last."""

from __future__ import annotations

import copy
import re
import sys
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from harness.config import Config, choices, load
from harness.errors import one_line_errors, report
from harness.files import write_json

if TYPE_CHECKING:
    from harness.preview import Arm, Stretch


_ESCAPE = re.compile(r"\\(.)")  # as Hydra writes the values of a sweep


class Sweep(Callback):
    """Hydra's callback, named in `conf/config.yaml`."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():  # Hydra would make a warning of an exception
            begin(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():
            end(Path(config.hydra.sweep.dir))


def begin(config: DictConfig) -> None:
    """Plan every job, refuse what does not fit, write `plan.json` and say what it will cost."""
    from harness import preview

    jobs = expand(config)
    arms = [plan(job) for job in jobs]
    roots = preview.tree(arms)
    parts = preview.branches(roots)
    for job in jobs:
        job["branches"] = sorted(parts[job["name"]])
    folder = Path(config.hydra.sweep.dir)
    write_json(folder / "plan.json", {"command": sys.argv, "arms": jobs})
    print(f"sweep in {folder}: {announce(arms, roots)}", file=sys.stderr)


def end(folder: Path) -> None:
    """The table and the pictures of a sweep; exits with 1 if runs of it failed."""
    from harness import charts, results

    runs = results.read(folder)
    print(results.table(runs))
    for path in charts.write(folder, runs):
        print(path)
    for pair in results.disagreements(runs):
        print(f"warning: {pair}; see numerics in their result.json", file=sys.stderr)
    failed = runs.filter(runs["status"].is_in(["failed", "missing"]))
    if len(failed):
        names = "; ".join(f"{row['name']}: {row['error']}" for row in failed.to_dicts())
        raise SystemExit(f"error: {len(failed)} of {len(runs)} runs failed: {names}")


def compose(overrides: Sequence[str]) -> Config:
    """The checked configuration of one job, composed as Hydra will compose it.

    Raises `ConfigError` and what composing raises.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    values = [one for one in parsed if not one.is_add() and one.key_or_group not in choices()]
    groups = [one.input_line or "" for one in parsed if one not in values]
    composed = copy.deepcopy(_compose_groups(tuple(groups)))
    ConfigLoaderImpl._apply_overrides_to_config(values, composed)
    return load(composed)


@lru_cache
def _compose_groups(overrides: tuple[str, ...]) -> DictConfig:
    """The slow part of composing, which most jobs of a sweep have in common."""
    return hydra.compose("config", list(overrides))


def plan(job: dict[str, Any]) -> Arm:
    """The job's configuration and LR plan. What does not fit ends the program, untrained."""
    from harness import preview

    try:
        return preview.plan(job["name"], compose(job["overrides"]))
    except Exception as error:
        report(error, f"{job['name']}: ")
        raise SystemExit(1) from None


def announce(arms: Sequence[Arm], roots: Sequence[Stretch]) -> str:
    """What the sweep costs: runs, epochs, and what the store saves of them."""
    from harness import preview

    config = arms[0].config
    whole, to_train = preview.epochs(arms), preview.epochs_to_train(roots)
    text = f"{len(arms)} run{'s' * (len(arms) != 1)}, {whole:g} epochs"
    if not config.reuse:
        return text
    if to_train < whole:
        text += f", {to_train:g} to train since beginnings are shared"
    if config.store.keep == "cycles":
        size = preview.checkpoints_bytes(roots) / 1e6
        text += f"; checkpoints: about {size:.1f} MB in {config.store.dir}"
    return text


def expand(config: DictConfig) -> list[dict[str, Any]]:
    """The jobs of a multirun, labelled, in the order and with the numbers that Hydra gives them."""
    params = config.hydra.sweeper.get("params") or {}
    overrides = [f"{key}={value}" for key, value in params.items()]
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())  # for glob(...)
    parsed = parser.parse_overrides([*overrides, *config.hydra.overrides.task])
    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return label(jobs)


def label(jobs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Each job's number, overrides, `name` (what differs between jobs) and `arm` (without seed)."""
    values = [dict(override.split("=", 1) for override in job) for job in jobs]
    differing = [key for key in values[0] if len({job[key] for job in values}) > 1]
    short = Counter(key.rpartition(".")[2] for key in differing)
    names = {key: last if short[last := key.rpartition(".")[2]] == 1 else key for key in differing}

    def named(job: dict[str, str], keys: list[str]) -> str:
        shown = (names[key].lstrip("+") + "=" + _ESCAPE.sub(r"\1", job[key]) for key in keys)
        return ", ".join(shown) or "run"

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
