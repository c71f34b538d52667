"""The kinds of each section that there are to choose from, by the name that `kind` records.

Sections of one kind are here; models, data sets, optimizers and schedulers are added by
`harness.choices.builtin`, before anything is composed.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from harness.config.fields import Section
from harness.config.schema import (
    Averages,
    ClaimSettings,
    Ledger,
    Metric,
    NoTracking,
    Store,
    TensorBoard,
    Trainer,
    Wandb,
)

CONF = Path(__file__).resolve().parents[2] / "conf"
KINDS: dict[str, dict[str, type[Section]]] = {
    "model": {},
    "dataset": {},
    "optimizer": {},
    "scheduler": {},
    "trainer": {"default": Trainer},
    "store": {"default": Store},
    "claim": {"default": ClaimSettings},
    "ledger": {"default": Ledger},
    "averages": {"default": Averages},
    "tracking": {"wandb": Wandb, "tensorboard": TensorBoard, "none": NoTracking},
}
METRICS: dict[str, type[Metric]] = {}  # beside acc and loss, which every evaluation has


def add(group: str, name: str, node: type[Section]) -> None:
    """Make `node` a kind of the section `group`."""
    KINDS[group][name] = node
    group_files.cache_clear()


def kind(section: Section | type[Section]) -> str:
    """Return the section's name among its alternatives. Raises LookupError if it is not registered."""
    own = section if isinstance(section, type) else type(section)
    for name, node in (KINDS | {"metric": METRICS})[section.section].items():
        if node is own:
            return name
    raise LookupError(f"{own.__name__} is not registered: harness.choices.builtin.register")


def is_builtin(node: type[Section]) -> bool:
    """Return whether a kind comes with the package."""
    return node.__module__.partition(".")[0] == "harness"


@cache
def group_files() -> dict[str, list[str]]:
    """Return the groups of `conf/` with the names to choose from, numbers in them in counting order.

    They are those of its files, and those that extensions have registered.
    """

    def counting(name: str) -> list[str]:
        return [part.zfill(9) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]

    found: dict[str, list[str]] = {}
    for file in CONF.glob("*/**/*.yaml"):
        found.setdefault(file.parent.relative_to(CONF).as_posix(), []).append(file.stem)
    for group in ("hydra/extra", "hydra/help", "hydra/sweeper", "study"):
        found.pop(group, None)
    for group, kinds in KINDS.items():
        found[group] += [name for name, node in kinds.items() if not is_builtin(node)]
    return {group: sorted(found[group], key=counting) for group in sorted(found)}
