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
from harness.config.fields import decimal, describe_constraint
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


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0, 6, "0"), (10, 6, "10"), (20.0, 6, "20"), (10.0, 1, "10"), (35.0, 2, "35"), (120.4, 2, "120"),
        (999.96, 3, "1000"), (1000.5, 3, "1000"), (1234567, 6, "1234567"), (1e6, 6, "1000000"), (1e9, 3, "1000000000"),
        (2**63, 6, "9223372036854775808"), (35 / 3, 6, "11.6667"), (0.1 + 0.2, 6, "0.3"), (11.6666667, 3, "11.7"),
        (0.05, 3, "0.05"), (0.0666666, 3, "0.0667"), (0.001, 3, "0.001"), (3e-5, 3, "3e-05"), (-12.5, 6, "-12.5"),
        (float("inf"), 6, "inf"), (float("nan"), 6, "nan"),
    ],
)  # fmt: skip
def test_numbers_in_messages_keep_their_whole_part_and_have_no_exponents(value, digits, text):
    assert decimal(value, digits) == text


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
        "no_decay": "none",
        "groups": None,
        "accumulate": 1,
        "clip": None,
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
