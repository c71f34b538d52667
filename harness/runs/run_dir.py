"""Where a run's files go and what it is called: what Hydra and the sweep's `plan.json` say."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from harness.analysis import sweep_plan
from harness.config.hydra_private import given_options, quote
from harness.training import ranks

MOST_NAME = 128  # characters of a run's name, or of a group's, that W&B takes
MOST_JOB_TYPE = 64
_PLAIN = re.compile(r"[\w./:+-]+")  # what Hydra reads as it is


def short(name: str, most: int = MOST_NAME) -> str:
    """Return `name` in at most `most` characters: its beginning, and 8 digits of its SHA-256."""
    if len(name) <= most:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{name[: most - 9]}-{digest}"


@dataclass(frozen=True)
class RunInfo:
    """Where a run's files go, and what people call it."""

    folder: Path
    name: str  # its overrides, in short
    arm: str = ""  # the same without the seed
    group: str | None = None  # the sweep's name
    position: str = ""  # "2/8" in a sweep
    branch_steps: frozenset[int] = frozenset()  # updates after which other runs of the sweep part
    overrides: list[str] = field(default_factory=list)
    swept: dict[str, str] = field(default_factory=dict)  # what differs from other runs of the sweep
    options: list[str] = field(
        default_factory=list
    )  # where its choices are, as ["--config-dir", "mine"]
    claim_sha256: str | None = None  # of the sweep's claim, as it stands when the run begins
    again: str = ""  # how the command goes on that has started it; of a sweep, the sweeper says it


def single(settings: DictConfig) -> RunInfo:
    """Return the info of a run outside of a sweep; `settings` is Hydra's own part of the configuration."""
    overrides, folder = task_overrides(settings), Path(settings.runtime.output_dir)
    again = how_to_go_on("hydra.run.dir", folder)
    name, options = ", ".join(overrides) or "run", given_options(sys.argv[1:])
    return RunInfo(folder, name, overrides=overrides, options=options, again=again)


def from_here(folder: str | Path) -> str:
    """Return a folder relative to the current one, if it is below that."""
    here = os.path.relpath(folder)
    return str(folder) if here.startswith(os.pardir) else here


def how_to_go_on(key: str, folder: str | Path) -> str:
    """Return how a command that was stopped goes on in its `folder`, which `key` names."""
    if any(word.lstrip("+").startswith(f"{key}=") for word in sys.argv):
        return "the same command goes on from there"
    path = from_here(folder)
    word = f"{key}={path if _PLAIN.fullmatch(path) else quote(path)}"
    if ranks.process_rank().size > 1:  # which another program has started
        return f"the same command with {word} goes on from there"
    given = [number for number, one in enumerate(sys.argv) if "=" in one and one[0] != "-"]
    after = given[-1] + 1 if given else len(sys.argv)  # Hydra takes its words in one piece
    words = ["python", *sys.argv[:after], word, *sys.argv[after:]]
    return f"to go on from there:\n    {shlex.join(words)}"


def in_sweep(settings: DictConfig) -> bool:
    return bool(settings.mode == RunMode.MULTIRUN)


def task_overrides(settings: DictConfig) -> list[str]:
    """Return the overrides as they were given: `${…}` in them is the task's, not Hydra's, to resolve."""
    found: Any = OmegaConf.to_container(settings.overrides.task, resolve=False)
    return list(found)


def planned(sweep: Path, plan: dict[str, Any], position: int) -> RunInfo:
    """Return the info of a run of `sweep`, whose `plan.json` holds `plan`."""
    run, claim = plan["arms"][position], plan["claim"] or {}
    of = "" if plan["search"] else f"/{len(plan['arms'])}"
    return RunInfo(
        sweep / sweep_plan.run_folder(run),
        run["name"],
        run["arm"],
        sweep.resolve().name,
        f"{position + 1}{of}",
        frozenset(run["branches"]),
        run["overrides"],
        run["swept"],
        given_options(plan["command"][1:]),
        None if plan["search"] else claim.get("sha256"),  # that of a search comes after its runs
    )
