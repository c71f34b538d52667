"""Configurations as plain values, and back."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cache

import pytest
from conftest import ROOT, make_config

from harness.choices.optimizers import SGD
from harness.config import registry
from harness.config.errors import ConfigError
from harness.config.fields import added, number
from harness.config.values import changes, completed, flat, from_dict, to_dict, without_added

CHOICES = [
    f"{group}={path.stem}"
    for group in registry.KINDS
    for path in sorted((ROOT / "conf" / group).glob("*.yaml"))
]
NEEDED = {
    "dataset=image_folder": ["dataset.root=images"],
    "scheduler=list": ["scheduler.values=[1]"],
}
composed = cache(make_config)


@dataclass
class Later(SGD):
    """SGD with a key that is newer than checkpoints in use."""

    centred: float = added(0.0, number(at_least=0))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.KINDS["optimizer"], "later", Later)


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_comes_back_from_plain_values(choice: str) -> None:
    config = composed(choice, *NEEDED.get(choice, []))
    values = to_dict(config)
    assert from_dict(json.loads(json.dumps(values))) == config
    group = choice.partition("=")[0]
    kind = values[group]["kind"]
    assert type(getattr(config, group)) is registry.KINDS[group][kind]


def test_every_kind_is_among_the_choices() -> None:
    found = {g: set[str]() for g in registry.KINDS}
    for choice in CHOICES:
        group = choice.partition("=")[0]
        found[group].add(to_dict(composed(choice, *NEEDED.get(choice, [])))[group]["kind"])
    assert found == {group: set(kinds) for group, kinds in registry.KINDS.items()}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("", []),
        ("optimizer.lr=0.25 seed=3", ["optimizer.lr=0.25 (was 0.1)", "seed=3 (was 0)"]),
        ("optimizer.nesterov=true", ["optimizer.nesterov=true (was false)"]),
        ("dataset.train_size=500", ["dataset.train_size=500 (was null)"]),
        ("store.keep=last reuse=false retry=true trainer.checkpoint_every=7 claim.margin=1", []),
    ],
)
def test_changes_are_named_with_both_values(overrides: str, said: list[str]) -> None:
    then, now = composed(), composed(*overrides.split())
    assert changes(to_dict(then), to_dict(now)) == said


def test_only_what_is_allowed_may_change() -> None:
    then, now = to_dict(composed()), to_dict(composed("claim.margin=1", "seed=3"))
    assert changes(then, now, allowed=()) == ["claim.margin=1 (was 0.2)", "seed=3 (was 0)"]
    assert changes(then, now, allowed=("claim.", "seed")) == []


def test_flat_values_have_the_section_in_their_name() -> None:
    assert flat({"optimizer": {"lr": 0.1, "kind": "sgd"}, "seed": 0, "group": None}) == {
        "optimizer.lr": 0.1, "optimizer.kind": "sgd", "seed": 0, "group": None,
    }  # fmt: skip


@pytest.mark.usefixtures("later")
def test_a_key_that_was_added_later_is_left_out_while_it_changes_nothing() -> None:
    config = composed()
    values = without_added(config)["optimizer"]
    old, now = values | {"kind": "later"}, to_dict(config)["optimizer"] | {"kind": "later"}
    del values["kind"]
    same = dataclasses.replace(config, optimizer=Later(**values, centred=0.0))
    other = dataclasses.replace(config, optimizer=Later(**values, centred=0.5))
    assert to_dict(same)["optimizer"] == now | {"centred": 0.0}
    assert without_added(same)["optimizer"] == old
    assert without_added(other)["optimizer"] == old | {"centred": 0.5}
    assert from_dict(without_added(same)) == same
    assert from_dict(without_added(other)) == other


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", None), ("optimizer", {"kind": "unknown"}), ("optimizer", {"kind": "sgd", "x": 1}), ("x", 1)],
)  # fmt: skip
def test_values_of_another_version_are_refused(key: str, value: object) -> None:
    values = to_dict(composed()) | {key: value}
    if value is None:
        del values[key]
    with pytest.raises(ConfigError):
        from_dict(values)


def test_changes_are_told_key_by_key() -> None:
    then, now = make_config("tracking=none"), make_config("scheduler=linear", "reuse=false")
    assert changes(to_dict(then), to_dict(now)) == [
        "scheduler.cycle_warmup=null (was 0)", "scheduler.decay=null (was 1)",
        "scheduler.eta_min=null (was 0)", "scheduler.kind=linear (was cosine_warm)",
        "scheduler.t_0=null (was 5)", "scheduler.t_mult=null (was 2)",
    ]  # fmt: skip


@pytest.mark.usefixtures("later")
def test_a_record_of_before_a_key_has_the_value_that_changes_nothing() -> None:
    config = composed()
    now = to_dict(config) | {"optimizer": to_dict(config)["optimizer"] | {"kind": "later"}}
    new = {"no_decay": "none", "groups": None, "accumulate": 1, "clip": None, "centred": 0.0}
    then = now | {"optimizer": {k: v for k, v in now["optimizer"].items() if k not in new}}
    assert completed(then) == now | {"optimizer": now["optimizer"] | new}
    assert changes(then, completed(now)) == changes(completed(now), then) == []
    other = now | {"optimizer": now["optimizer"] | {"accumulate": 4}}
    assert changes(then, other) == ["optimizer.accumulate=4 (was 1)"]
    unregistered = {"optimizer": {"kind": "of somebody else's"}, "seed": 0}
    assert completed(unregistered)["optimizer"]["accumulate"] == 1
