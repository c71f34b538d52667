"""Where a run lies and how it is called: what Hydra and the sweep's `plan.json` say."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from harness.files import read_json

MOST_NAME = 128  # characters of a run's name, or of a group's, that W&B takes
MOST_JOB_TYPE = 64


def short(name: str, most: int = MOST_NAME) -> str:
    """Return `name` in at most `most` characters: its beginning, and 8 digits of its SHA-256."""
    if len(name) <= most:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{name[: most - 9]}-{digest}"


@dataclass(frozen=True)
class Place:
    """Where a run lies, and how people call it."""

    folder: Path
    name: str  # its overrides, in short
    arm: str = ""  # the same without the seed
    group: str | None = None  # the sweep's name
    position: str = ""  # "2/8" in a sweep
    branches: frozenset[int] = frozenset()  # updates after which other runs of the sweep part
    overrides: list[str] = field(default_factory=list)
    claim_sha256: str | None = None  # of the sweep's claim, as it stands when the run begins


def given_by(settings: DictConfig) -> Place:
    """The place of the job that Hydra runs with `settings`, its own part of the configuration."""
    folder = Path(settings.runtime.output_dir)
    overrides = task_overrides(settings)
    if settings.mode == RunMode.RUN:
        return Place(folder, ", ".join(overrides) or "run", overrides=overrides)
    sweep = Path(settings.sweep.dir)
    plan = read_json(sweep / "plan.json")
    return replace(planned(plan, sweep, settings.job.num, overrides), folder=folder)


def task_overrides(settings: DictConfig) -> list[str]:
    """The overrides as they were given: `${…}` in them is the task's, not Hydra's, to resolve."""
    found: Any = OmegaConf.to_container(settings.overrides.task, resolve=False)
    return list(found)


def planned(plan: dict[str, Any], sweep: Path, number: int, overrides: list[str]) -> Place:
    """The place of a job of the sweep whose `plan.json` holds `plan`."""
    own, claim = plan["arms"][number], plan["claim"] or {}
    return Place(
        sweep / str(number),
        own["name"],
        own["arm"],
        sweep.resolve().name,
        f"{number + 1}/{len(plan['arms'])}",
        frozenset(own["branches"]),
        overrides,
        claim.get("sha256"),
    )
