# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
"""Bounds, words for them, and what a configuration is as plain values."""

from __future__ import annotations

import dataclasses
import json
from itertools import chain

import pytest
from conftest import make_config
from test_schema import examples, sections  # noqa: F401

from harness.choices.datasets import Digits
from harness.choices.schedulers import MultiStep
from harness.config.fields import describe_constraint
from harness.config.registry import KINDS, kind
from harness.config.schema import Config, Wandb
from harness.config.values import to_dict


def test_wanted_says_type_bounds_and_null():
    fields = {f.name: f for f in chain(*map(dataclasses.fields, [Digits, Wandb]))}
    assert describe_constraint(fields["val_size"]) == "must be a number > 0"
    assert describe_constraint(fields["train_size"]) == "must be a number > 0 or null"
    assert describe_constraint(fields["crop"]) == "must be a whole number ≥ 0 and ≤ 64"
    assert describe_constraint(fields["flip"]) == "must be true or false"
    assert describe_constraint(fields["entity"]) == "must be text or null"
    assert describe_constraint(fields["tags"]) == "must be a list of texts"
    assert describe_constraint(fields["mode"]) == "choose from auto, online, offline, disabled"


@pytest.mark.parametrize(("group", "node"), sections())
def test_every_field_has_words_for_what_fits(group, node):
    for field in dataclasses.fields(node):
        assert "keys and values" not in describe_constraint(field)


@pytest.mark.parametrize(("group", "node"), sections())
def test_kind_is_the_name_in_the_table_of_schemas(examples, group, node):
    name = kind(examples[node])
    assert KINDS[group][name] is node
    assert kind(node) == name


def test_to_dict_is_plain_and_tells_kinds_apart():
    sgd, adamw = make_config(), make_config("optimizer=adamw", "scheduler=multistep")
    plain = to_dict(adamw)
    assert json.loads(json.dumps(plain)) == plain
    assert list(plain) == [f.name for f in dataclasses.fields(Config)]
    assert plain["optimizer"] == {
        "kind": "adamw",
        "lr": 1e-3,
        "weight_decay": 1e-2,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
    }
    assert plain["scheduler"]["milestones"] == [15.0, 25.0]
    assert to_dict(sgd)["optimizer"]["kind"] == "sgd"


def test_to_dict_does_not_share_lists_with_the_configuration():
    loaded = make_config("scheduler=multistep")
    assert isinstance(loaded.scheduler, MultiStep)
    to_dict(loaded)["scheduler"]["milestones"].append(30.0)
    assert loaded.scheduler.milestones == [15.0, 25.0]


def test_data_sets_can_be_told_apart_as_keys_of_a_cache():
    digits, other = (make_config(f"dataset.split_seed={seed}").dataset for seed in (0, 1))
    assert hash(digits) == hash(dataclasses.replace(digits))
    assert len({digits, dataclasses.replace(digits), other}) == 2
