"""`plan.json`: the runs of a sweep, each with its whole configuration, written before the first update.

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

from harness.config.compose import Composed
from harness.config.errors import ConfigError
from harness.config.schema import Config
from harness.config.values import SAME_RUN, changes, from_dict, to_dict
from harness.files import LOCK_SECONDS, atomic, lock, read_json

FORMAT = 2  # 1 froze no configurations
_ID_DIGITS = 32  # of a run's SHA-256


def run_key(composed: Composed) -> str:
    """Return what a run is found by in the plan of its sweep."""
    return composed.sha256[:_ID_DIGITS]


def new_plan(
    command: Sequence[str], runs: Sequence[dict[str, Any]], search: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the content of a new `plan.json` of `runs`, each as `run_entry` returns it.

    `search`: the sweeper that chooses runs from the results of others, and the values that it does not choose.
    """
    plan: dict[str, Any] = {
        "format": FORMAT, "command": list(command), "claim": None, "search": search, "config": None,
        "arms": [],
    }  # fmt: skip
    for run in runs:
        add_run(plan, run)
    return plan


def add_run(plan: dict[str, Any], run: dict[str, Any]) -> None:
    """Append `run` to `plan`: of its configuration, the sections that differ from the first run's."""
    config = run.pop("config")
    if plan["config"] is None:
        plan["config"] = config
    first = plan["config"]
    differs = {name: value for name, value in config.items() if value != first.get(name)}
    plan["arms"].append(run | {"differs": differs})


def run_entry(job: dict[str, Any], composed: Composed, shape: dict[str, Any]) -> dict[str, Any]:
    """Return a run as the plan holds it.

    `job` has num, folder, overrides, name, arm, swept, branches, shared (updates that an earlier run trains for it); `shape` is that of its LR plan.
    """
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


def write_plan(path: Path, plan: dict[str, Any]) -> None:
    """Write `plan.json`, a line a run."""
    head = json.dumps({name: value for name, value in plan.items() if name != "arms"}, indent=1)
    runs = ",\n".join(json.dumps(run, ensure_ascii=False) for run in plan["arms"])
    with atomic(path, "w") as file:
        file.write(f'{head[:-2]},\n "arms": [\n{runs}\n]}}\n')


def run_config(plan: dict[str, Any], run: dict[str, Any]) -> Config:
    """Return the whole configuration that the plan holds of `run`. Raises `ConfigError` if it does not fit."""
    return from_dict(plan["config"] | run["differs"])


def read_frozen(sweep: Path) -> dict[str, Any]:
    """Return the plan of a sweep that is to be trained. Raises `ConfigError` for one without configurations."""
    return _read(sweep)[0]


def _read(sweep: Path) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Return the plan, and the positions of each run's key in it."""
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


def find_run(sweep: Path, overrides: Sequence[str], job: Composed) -> tuple[dict[str, Any], int]:
    """Return the plan, and the position in it of the run that `job` is. Raises `ConfigError` if it is none."""
    plan, positions = _read(sweep)

    def count_changes(position: int) -> int:
        return len(changes(plan["config"] | plan["arms"][position]["differs"], job.values, ()))

    if same := positions.get(run_key(job)):  # several where a sweep is over stores, or the like
        return plan, same[0] if len(same) == 1 else min(same, key=count_changes)
    given_overrides = sorted(overrides)
    same_overrides = (run for run in plan["arms"] if sorted(run["overrides"]) == given_overrides)
    given = "its configuration"
    if planned := next(same_overrides, None):
        was = to_dict(run_config(plan, planned))
        given = ", ".join(changes(was, job.values, SAME_RUN)) or given
    raise ConfigError(
        f"{given}: is not what {sweep / 'plan.json'} has for this job; undo the change (a file of conf/, "
        "the environment) and give the same command again, or take another folder (hydra.sweep.dir)"
    )


def config_to_train(plan: dict[str, Any], run: dict[str, Any], now: Config) -> Config:
    """Return the planned configuration of `run`, with what may change between two starts taken from `now`."""
    planned = run_config(plan, run)
    trainer = replace(planned.trainer, checkpoint_every=now.trainer.checkpoint_every)
    return replace(
        planned,
        trainer=trainer,
        store=now.store,
        tracking=now.tracking,
        ledger=now.ledger,
        reuse=now.reuse,
        retry=now.retry,
    )


def append_run(
    sweep: Path, job: Composed, make_entry: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Add `job` to the plan of a search, unless it is there; `make_entry` makes its entry for the plan."""
    with lock(sweep / ".lock", LOCK_SECONDS):
        plan, positions = _read(sweep)
        if run_key(job) not in positions:
            changed = plan | {"arms": list(plan["arms"])}
            add_run(changed, make_entry(plan))
            write_plan(sweep / "plan.json", changed)


def check_same_search(plan: dict[str, Any], job: Composed, chosen: Sequence[str]) -> None:
    """Raise `ConfigError` if a run differs from the search's first one in what the search does not choose.

    What follows other values by `${…}`, and what comes with a chosen file of `conf/`, may differ.
    """
    groups = [key for key in chosen if "." not in key and key not in job.values]
    if groups or not plan["arms"]:
        return  # `arm` and `experiment` may set anything
    follows = [key for key, text in job.interpolated.items() if ":" not in str(text)]
    changed = changes(plan["config"], job.values, (*SAME_RUN, *chosen, *follows))
    if changed:
        raise ConfigError(
            f"{', '.join(changed)}: the search began with another configuration; undo the change (a file "
            "of conf/, the environment), or take another folder (hydra.sweep.dir)"
        )


def free_folder(plan: dict[str, Any], name: str) -> str:
    """Return `name` for the folder of a new run, or a number if another run of `plan` has it."""
    used = {run["folder"] for run in plan["arms"]}
    names = (name, *map(str, range(len(used) + 1)))
    return next(free for free in names if free not in used)


def run_folder(run: dict[str, Any]) -> str:
    """Return the folder of a planned run, below the sweep's. Raises ValueError for one that leads elsewhere."""
    name = run["folder"] if "folder" in run else f"{run['num']:d}"
    if not is_below(name):
        raise ValueError(f"the folder {name} is not below the sweep's")
    return str(name)


def is_below(folder: str) -> bool:
    """Return whether the path `folder` leads to a folder below another one."""
    path = PurePosixPath(folder)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
