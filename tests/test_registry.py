"""The kinds of each section, by the names that results and checkpoints record."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
from conftest import ROOT

from harness.choices.optimizers import SGD
from harness.config import registry
from harness.config.schema import Config, NoTracking, Optimizer, Wandb

EVERY = [(group, name) for group, kinds in registry.KINDS.items() for name in kinds]


@dataclass
class Mine(SGD):
    """A user's own optimizer."""


@pytest.mark.parametrize(("group", "name"), EVERY)
def test_a_kind_and_its_name_belong_to_each_other(group: str, name: str) -> None:
    node = registry.KINDS[group][name]
    assert node.section == group
    assert registry.kind(node) == name


def test_an_instance_has_the_name_of_its_class() -> None:
    assert registry.kind(NoTracking()) == "none"
    assert registry.kind(Wandb("auto", "project", None, [])) == "wandb"


def test_the_groups_are_the_sections_of_a_configuration_and_folders_of_conf() -> None:
    plain = {"extensions", "metrics", "reuse", "retry", "seed"}
    assert registry.KINDS.keys() == {f.name for f in dataclasses.fields(Config)} - plain
    assert all((ROOT / "conf" / group).is_dir() for group in registry.KINDS)


def test_a_kind_that_is_added_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = dict(registry.KINDS["optimizer"])
    monkeypatch.setitem(registry.KINDS, "optimizer", kinds)
    registry.add("optimizer", "mine", Mine)
    assert registry.kind(Mine) == "mine"
    assert registry.kind(SGD) == "sgd"  # of which it is a subclass
    assert issubclass(kinds["mine"], Optimizer)


def test_an_unknown_section_is_refused() -> None:
    with pytest.raises(KeyError):
        registry.add("optimiser", "mine", Mine)
