"""From the files of conf/ to a configuration."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import pytest
from conftest import ROOT, make_config
from test_schema import CHOICES, CONF, SECTION_CHOICES, compose_choice, schema_of

from harness.choices.datasets import TorchvisionDataset
from harness.choices.schedulers import Cosine
from harness.config.compose import PROJECT, unused_folder
from harness.config.errors import ConfigError
from harness.config.registry import group_files, kind
from harness.config.schema import Config


def test_a_group_without_a_pattern_is_told_where_it_is_given() -> None:
    with pytest.raises(ConfigError) as error:
        make_config("optimizer.groups=[{lr_factor: 2}]")
    fix = "give one with 'optimizer.groups=[{params: VALUE}]'"
    assert str(error.value) == f"optimizer.groups[0].params: has no value; {fix}"


@pytest.mark.parametrize("file", CHOICES)
def test_every_choice_of_every_group_composes_and_loads(file):
    loaded = compose_choice(file.parent.name, file.stem)
    assert type(loaded) is Config


@pytest.mark.parametrize("file", SECTION_CHOICES)
def test_a_choice_loads_as_the_class_that_its_file_names(file):
    group = file.parent.name
    section = getattr(compose_choice(group, file.stem), group)
    assert (group, kind(section)) == schema_of(file)


def test_two_commands_of_one_second_have_two_folders(tmp_path):
    wanted = f"{tmp_path}/preview/2026-11-26_14-41-12"
    assert [unused_folder(wanted) for _ in range(3)] == [wanted, f"{wanted}_2", f"{wanted}_3"]


def test_groups_and_their_choices_are_the_files_in_counting_order():
    found = group_files()
    expected = {(str(f.parent.relative_to(CONF)), f.stem) for f in CONF.glob("*/**/*.yaml")}
    named = {(group, name) for group in found for name in found[group]}
    no_groups = ("hydra/extra", "hydra/help", "hydra/sweeper", "study")
    assert named == {(group, name) for group, name in expected if group not in no_groups}
    assert list(found) == sorted(found)
    assert found["model"] == [
        "resnet8", "resnet18", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110",
        "torchvision",
    ]  # fmt: skip


@pytest.mark.parametrize(("overrides", "t_max"), [((), None), (("scheduler.t_max=5",), 5)])
def test_one_cosine_takes_the_whole_budget_unless_told_otherwise(overrides, t_max):
    scheduler = make_config("scheduler=cosine", *overrides).scheduler
    assert isinstance(scheduler, Cosine)
    assert scheduler.t_max == t_max


@pytest.mark.parametrize("variable", [None, "/elsewhere"])
def test_data_lies_in_the_repository_or_where_the_environment_says(monkeypatch, variable):
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    if variable:
        monkeypatch.setenv("HARNESS_DATA", variable)
    dataset = make_config("dataset=cifar10").dataset
    assert isinstance(dataset, TorchvisionDataset)
    assert dataset.root == (variable or f"{ROOT}/data")


def test_paths_of_a_copy_are_those_of_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_STORE", raising=False)
    assert make_config("seed=1").store.dir == str(ROOT / "trajectories")
    monkeypatch.setenv(PROJECT, "/elsewhere")
    assert make_config("seed=1").store.dir == "/elsewhere/trajectories"
    monkeypatch.setenv("HARNESS_STORE", "/shared/store")
    assert make_config("seed=1").store.dir == "/shared/store"
