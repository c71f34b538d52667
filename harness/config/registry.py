"""The kinds of each section that there are to choose from, by the name that `kind` records.

Sections of one kind are here; models, data sets, optimizers and schedulers are added by
`harness.choices.builtin`, before anything is composed.
"""

from __future__ import annotations

from harness.config.fields import Section
from harness.config.schema import ClaimSettings, Ledger, NoTracking, Store, Trainer, Wandb

KINDS: dict[str, dict[str, type[Section]]] = {
    "model": {},
    "dataset": {},
    "optimizer": {},
    "scheduler": {},
    "trainer": {"default": Trainer},
    "store": {"default": Store},
    "claim": {"default": ClaimSettings},
    "ledger": {"default": Ledger},
    "tracking": {"wandb": Wandb, "none": NoTracking},
}


def add(group: str, name: str, node: type[Section]) -> None:
    """Make `node` a kind of the section `group`."""
    KINDS[group][name] = node


def kind(section: Section | type[Section]) -> str:
    """Return the section's name among its alternatives. Raises LookupError if it is not registered."""
    own = section if isinstance(section, type) else type(section)
    for name, node in KINDS[section.section].items():
        if node is own:
            return name
    raise LookupError(f"{own.__name__} is not registered: harness.choices.builtin.register")
