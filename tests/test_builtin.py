"""The choices that come with the harness."""

from __future__ import annotations

from test_schema import SECTION_CHOICES, schema_of

from harness.choices.builtin import register
from harness.config import registry


def test_registering_again_changes_nothing() -> None:
    before = {group: dict(kinds) for group, kinds in registry.KINDS.items()}
    register()
    assert before == registry.KINDS


def test_every_schema_has_a_file() -> None:
    used = {schema_of(case.values[0]) for case in SECTION_CHOICES}
    assert used == {(group, name) for group, kinds in registry.KINDS.items() for name in kinds}
