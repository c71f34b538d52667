"""`plan.json`: the runs of a sweep, each with its whole configuration, frozen before the first update.

A job is found in the plan by its configuration, never by its number: sweepers may shuffle, and files
of `conf/` may be edited while a sweep runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from harness.config import schema as conf
from harness.config.schema import SAME_RUN, Composed, Config, ConfigError
from harness.files import LOCK_SECONDS, atomic, lock, read_json

FORMAT = 2  # 1 froze no configurations
_ID_DIGITS = 32  # of a run's SHA-256


def run_key(composed: Composed) -> str:
    """What a run of a sweep is found by in the sweep's plan."""
    return composed.sha256[:_ID_DIGITS]


def document(
    command: Sequence[str], runs: Sequence[dict[str, Any]], search: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A new `plan.json` of `runs`, each as `entry` gives it. `search`: the sweeper that chooses
    runs from the results of others, and the keys that it leaves alone."""
    plan: dict[str, Any] = {
        "format": FORMAT, "command": list(command), "claim": None, "search": search, "config": None,
        "arms": [],
    }  # fmt: skip
    for run in runs:
        add(plan, run)
    return plan


def add(plan: dict[str, Any], run: dict[str, Any]) -> None:
    """Append `run` to `plan`: of its configuration, the sections that differ from the first run's."""
    whole = run.pop("config")
    if plan["config"] is None:
        plan["config"] = whole
    first = plan["config"]
    differs = {name: value for name, value in whole.items() if value != first.get(name)}
    plan["arms"].append(run | {"differs": differs})


def entry(job: dict[str, Any], composed: Composed, shape: dict[str, Any]) -> dict[str, Any]:
    """A run as the plan holds it. `job` gives num, folder, overrides, name, arm, swept; `shape` is what
    its LR plan comes to."""
    return job | {
        "seed": composed.config.seed,
        "key": run_key(composed),
        "plan": shape,
        "config": composed.values,
    }


def shape(plan: dict[str, Any]) -> dict[str, Any]:
    """Return what a sweep's plan holds of a run's LR plan, which `plan` describes."""
    names = ("budget_epochs", "aligned", "nearest_aligned_epochs", "updates_per_epoch")
    return {name: plan[name] for name in names}


def write(path: Path, plan: dict[str, Any]) -> None:
    """Write `plan.json`, a line a run."""
    head = json.dumps({name: value for name, value in plan.items() if name != "arms"}, indent=1)
    runs = ",\n".join(json.dumps(run, ensure_ascii=False) for run in plan["arms"])
    with atomic(path, "w") as file:
        file.write(f'{head[:-2]},\n "arms": [\n{runs}\n]}}\n')


def config_of(plan: dict[str, Any], run: dict[str, Any]) -> Config:
    """The whole configuration that the plan froze for `run`. Raises `ConfigError` for a plan without."""
    return conf.from_dict(plan["config"] | run["differs"])


def frozen(sweep: Path) -> dict[str, Any]:
    """The plan of `sweep`, to be trained. Raises `ConfigError` for one that froze no configurations."""
    return _read(sweep)[0]


def _read(sweep: Path) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """The plan, and the positions of each run's key in it."""
    path = sweep / "plan.json"
    status = path.stat()
    plan, positions = _parsed(path, status.st_mtime_ns, status.st_size, status.st_ino)
    if plan.get("format") != FORMAT:
        raise ConfigError(
            f"{sweep}: was planned by another version, which did not freeze its configurations as this "
            f"one does; scripts/report.py {sweep} reports it, a new sweep needs another folder"
        )
    return plan, positions


@lru_cache(maxsize=2)
def _parsed(path: Path, *version: int) -> tuple[dict[str, Any], dict[str, list[int]]]:
    plan, positions = read_json(path), dict[str, list[int]]()
    for position, run in enumerate(plan["arms"]):
        positions.setdefault(run.get("key", ""), []).append(position)
    return plan, positions


def find(sweep: Path, overrides: Sequence[str], job: Composed) -> tuple[dict[str, Any], int]:
    """The plan, and the position in it of the run that `job` is. Raises `ConfigError` if it is none."""
    plan, positions = _read(sweep)

    def unlike(position: int) -> int:
        return len(conf.changes(plan["config"] | plan["arms"][position]["differs"], job.values, ()))

    if same := positions.get(run_key(job)):  # several where a sweep is over stores, or the like
        return plan, same[0] if len(same) == 1 else min(same, key=unlike)
    wanted = sorted(overrides)
    alike = next((run for run in plan["arms"] if sorted(run["overrides"]) == wanted), None)
    given = "its configuration"
    if alike:
        was = conf.to_dict(config_of(plan, alike))
        given = ", ".join(conf.changes(was, job.values, SAME_RUN)) or given
    raise ConfigError(
        f"{given}: is not what {sweep / 'plan.json'} has for this job; undo the change (a file of conf/, "
        "the environment) and give the same command again, or take another folder (hydra.sweep.dir)"
    )


def trained(plan: dict[str, Any], run: dict[str, Any], now: Config) -> Config:
    """The configuration that a job trains: the planned one, but for what may change from start to start."""
    planned = config_of(plan, run)
    trainer = replace(planned.trainer, checkpoint_every=now.trainer.checkpoint_every)
    return replace(
        planned,
        trainer=trainer,
        store=now.store,
        tracking=now.tracking,
        reuse=now.reuse,
        retry=now.retry,
    )


def append(sweep: Path, job: Composed, chosen: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Add `job` to the plan of a search, unless it is there; `chosen` makes its entry for the plan."""
    with lock(sweep / ".lock", LOCK_SECONDS):
        plan, positions = _read(sweep)
        if run_key(job) not in positions:
            changed = plan | {"arms": list(plan["arms"])}
            add(changed, chosen(plan))
            write(sweep / "plan.json", changed)


def refuse_drift(plan: dict[str, Any], job: Composed, chosen: Sequence[str]) -> None:
    """Raises `ConfigError` if a run differs from the search's first one in what the search does not choose.

    What follows other values by `${…}`, and what comes with a chosen file of `conf/`, may differ.
    """
    groups = [key for key in chosen if "." not in key and key not in job.values]
    if groups or not plan["arms"]:
        return  # `arm` and `experiment` may set anything
    follows = [key for key, text in job.interpolated.items() if ":" not in str(text)]
    changed = conf.changes(plan["config"], job.values, (*SAME_RUN, *chosen, *follows))
    if changed:
        raise ConfigError(
            f"{', '.join(changed)}: the search began with another configuration; undo the change (a file "
            "of conf/, the environment), or take another folder (hydra.sweep.dir)"
        )


def free_folder(plan: dict[str, Any], wanted: str) -> str:
    """`wanted` for a new run, or a number if another run of `plan` has it."""
    used = {run["folder"] for run in plan["arms"]}
    names = (wanted, *map(str, range(len(used) + 1)))
    return next(name for name in names if name not in used)


def run_folder(run: dict[str, Any]) -> str:
    """The folder of a planned run, below the sweep's. Raises ValueError for one that leads elsewhere."""
    name = run["folder"] if "folder" in run else f"{run['num']:d}"
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"the folder {name} is not below the sweep's")
    return str(name)
