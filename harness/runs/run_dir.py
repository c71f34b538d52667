"""Where a run's files go and what it is called: what Hydra and the sweep's `plan.json` say."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from harness.analysis import sweep_plan

MOST_NAME = 128  # characters of a run's name, or of a group's, that W&B takes
MOST_JOB_TYPE = 64


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
    claim_sha256: str | None = None  # of the sweep's claim, as it stands when the run begins


def single(settings: DictConfig) -> RunInfo:
    """Return the info of a run outside of a sweep; `settings` is Hydra's own part of the configuration."""
    overrides = task_overrides(settings)
    return RunInfo(
        Path(settings.runtime.output_dir), ", ".join(overrides) or "run", overrides=overrides
    )


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
        None if plan["search"] else claim.get("sha256"),  # that of a search comes after its runs
    )
