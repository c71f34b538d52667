"""The sections of a configuration: the keys of `conf/`, their defaults, and what is refused, in which words."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import dataclasses
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from conftest import ROOT, make_config
from omegaconf import MISSING

from harness.choices.models import ResNet
from harness.config import one_line_errors as errors
from harness.config.errors import ConfigError
from harness.config.fields import Section, describe_constraint
from harness.config.registry import KINDS, group_files
from harness.config.schema import Config, Wandb
from harness.config.values import to_dict

CONF = ROOT / "conf"
CHOICES: list[Any] = [
    pytest.param(file, id=f"{file.parent.name}={file.stem}")
    for file in sorted(CONF.glob("*/*.yaml"))
    if file.parent.name != "study"  # which scripts/study.py reads
]
SECTION_CHOICES = [case for case in CHOICES if case.values[0].parent.name in KINDS]
TOP = ", ".join(sorted({*group_files(), *(f.name for f in dataclasses.fields(Config))}))
ROOT_OF_IMAGES = "dataset.root=/images"  # which no file gives


def sections() -> list[tuple[str, type[Section]]]:
    return [(group, node) for group, kinds in KINDS.items() for node in kinds.values()]


def schema_of(file: Path) -> tuple[str, str]:
    """Group and name of the schema that a file of `conf/` builds on."""
    first = yaml.safe_load(file.read_text())["defaults"][0]
    group, name = first.removeprefix("/schema/").removesuffix("@_here_").split("/")
    return group, name


@cache
def compose_choice(group: str, name: str) -> Config:
    needed = {"image_folder": [ROOT_OF_IMAGES], "list": ["scheduler.values=[1]"]}
    return make_config(f"{group}={name}", *needed.get(name, []))


# --- conf/ ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", SECTION_CHOICES)
def test_a_file_gives_every_key_of_its_schema_and_no_other(file):
    content = yaml.safe_load(file.read_text())
    group, name = schema_of(file)
    assert group == file.parent.name
    fields = {f.name for f in dataclasses.fields(KINDS[group][name])}
    assert content.keys() - {"defaults"} == fields
    missing = {key for key, value in content.items() if value == "???"}
    assert missing == ({"root"} if file.stem == "image_folder" else set())


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("model", {"kind": "resnet", "depth": 8, "width": 16}),
        ("dataset", {"kind": "digits", "val_size": 0.2, "test_size": 0.2, "train_size": None}),
        ("dataset", {"split_seed": 0, "crop": 1, "flip": False}),
        ("optimizer", {"kind": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}),
        ("optimizer", {"nesterov": False}),
        ("scheduler", {"kind": "cosine_warm", "t_0": 5.0, "t_mult": 2, "eta_min": 0.0}),
        ("scheduler", {"warmup": 0.0, "interval": "batch", "unit": "epoch"}),
        ("trainer", {"epochs": 35.0, "batch_size": 128, "label_smoothing": 0.0}),
        ("trainer", {"precision": "auto", "device": "auto", "deterministic": False}),
        ("trainer", {"compile": "none", "channels_last": True}),
        ("trainer", {"evals_per_epoch": 1, "log_every": 10}),
    ],
)
def test_defaults(section, values):
    given = to_dict(compose_choice("model", "resnet8"))[section]  # the default, composed once
    assert {name: given[name] for name in values} == values


def test_the_default_seed():
    assert make_config().seed == 0


def test_runs_are_tracked_by_default():
    defaults = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    assert {"tracking": "wandb"} in defaults
    assert make_config("tracking=wandb").tracking == Wandb(
        mode="auto", project="cosine-restarts", entity=None, tags=[]
    )


# --- what is refused -----------------------------------------------------------------------------

REFUSED = {
    # numbers: not finite, out of range, on an open bound
    "nan": (["trainer.epochs=nan"], "trainer.epochs=nan: must be a number > 0 and ≤ 1000000"),
    "inf": (["trainer.epochs=inf"], "trainer.epochs=inf: must be a number > 0 and ≤ 1000000"),
    "minus inf": (["trainer.epochs=-inf"], "trainer.epochs=-inf: must be a number > 0 and ≤ 1000000"),
    "zero": (["trainer.epochs=0"], "trainer.epochs=0: must be a number > 0 and ≤ 1000000"),
    "minus one": (["trainer.epochs=-1"], "trainer.epochs=-1: must be a number > 0 and ≤ 1000000"),
    "too long": (["trainer.epochs=1e300"], "trainer.epochs=1e+300: must be a number > 0 and ≤ 1000000"),
    "zero lr": (["optimizer.lr=0"], "optimizer.lr=0: must be a number > 0 and < 1000000"),
    "overflowing lr": (["optimizer.lr=1e400"], "optimizer.lr=inf: must be a number > 0 and < 1000000"),
    "negative decay": (
        ["optimizer.weight_decay=-1e-4"],
        "optimizer.weight_decay=-0.0001: must be a number ≥ 0 and < 1000000",
    ),
    "momentum one": (["optimizer.momentum=1"], "optimizer.momentum=1: must be a number ≥ 0 and < 1"),
    "beta one": (
        ["optimizer=adamw", "optimizer.beta2=1.0"],
        "optimizer.beta2=1: must be a number ≥ 0 and < 1",
    ),
    "smoothing one": (
        ["trainer.label_smoothing=1"],
        "trainer.label_smoothing=1: must be a number ≥ 0 and < 1",
    ),
    "t_mult zero": (
        ["scheduler.t_mult=0"],
        "scheduler.t_mult=0: must be a whole number ≥ 1 and ≤ 1000000",
    ),
    "nan t_0": (["scheduler.t_0=nan"], "scheduler.t_0=nan: must be a number > 0 and ≤ 1000000000"),
    "negative warmup": (
        ["scheduler.warmup=-0.5"],
        "scheduler.warmup=-0.5: must be a number ≥ 0 and ≤ 1000000000",
    ),
    "gamma above one": (
        ["scheduler=step", "scheduler.gamma=1.5"],
        "scheduler.gamma=1.5: must be a number > 0 and ≤ 1",
    ),
    "pct_start one": (
        ["scheduler=one_cycle", "scheduler.pct_start=1"],
        "scheduler.pct_start=1: must be a number > 0 and < 1",
    ),
    "nan size": (["dataset.val_size=nan"], "dataset.val_size=nan: must be a number > 0"),
    "zero size or null": (
        ["dataset.train_size=0"],
        "dataset.train_size=0: must be a number > 0 or null",
    ),
    "negative seed": (["seed=-1"], "seed=-1: must be a whole number ≥ 0 and < 9223372036854775808"),
    "seed of 64 bits": (
        ["seed=9223372036854775808"],
        "seed=9223372036854775808: must be a whole number ≥ 0 and < 9223372036854775808",
    ),
    "seed beyond floats": (
        [f"seed=1{'0' * 400}"],
        f"seed=1{'0' * 400}: must be a whole number ≥ 0 and < 9223372036854775808",
    ),
    "zero batch": (["trainer.batch_size=0"], "trainer.batch_size=0: must be a whole number ≥ 1"),
    # lists
    "milestone nan": (
        ["scheduler=multistep", "scheduler.milestones=[3,nan]"],
        "scheduler.milestones=[3,nan]: must be a list of numbers > 0 and ≤ 1000000000",
    ),
    "milestone zero": (
        ["scheduler=multistep", "scheduler.milestones=[0,2.5]"],
        "scheduler.milestones=[0,2.5]: must be a list of numbers > 0 and ≤ 1000000000",
    ),
    "no milestone": (
        ["scheduler=multistep", "scheduler.milestones=[]"],
        "scheduler.milestones=[]: must be rising, with at least one",
    ),
    "milestones unsorted": (
        ["scheduler=multistep", "scheduler.milestones=[25,15]"],
        "scheduler.milestones=[25,15]: must be rising, with at least one",
    ),
    "milestone twice": (
        ["scheduler=multistep", "scheduler.milestones=[5,5]"],
        "scheduler.milestones=[5,5]: must be rising, with at least one",
    ),
    # names
    "misspelt name": (
        ["trainer.precision=bf-16"],
        "trainer.precision=bf-16: did you mean bf16? choose from auto, fp32, bf16, fp16",
    ),
    "foreign name": (
        ["scheduler.interval=weekly"],
        "scheduler.interval=weekly: choose from batch, epoch",
    ),
    "number as a name": (
        ["dataset=synthetic", "dataset.channels=2"],
        "dataset.channels=2: choose from 1, 3",
    ),
    "misspelt mode": (
        ["tracking=wandb", "tracking.mode=offine"],
        "tracking.mode=offine: did you mean offline? choose from auto, online, offline, disabled",
    ),
    "gpu without a number": (
        ["trainer.device=cuda:x"],
        "trainer.device=cuda:x: choose from auto, cpu, cuda, cuda:N (as in cuda:0), mps, xpu, xpu:N",
    ),
    "gpu with nothing after the colon": (
        ["trainer.device='cuda:'"],
        "trainer.device=cuda:: choose from auto, cpu, cuda, cuda:N (as in cuda:0), mps, xpu, xpu:N",
    ),
    "gpu beyond what torch can number": (
        ["trainer.device=cuda:1000"],
        "trainer.device=cuda:1000: choose from auto, cpu, cuda, cuda:N (as in cuda:0), mps, xpu, xpu:N",
    ),
    "gpu numbered in words of torch's own": (
        ["trainer.device=cuda:01"],
        "trainer.device=cuda:01: choose from auto, cpu, cuda, cuda:N (as in cuda:0), mps, xpu, xpu:N",
    ),
    # combinations
    "depth between": (["model.depth=10"], "model.depth=10: must be 6n+2; the nearest are 8 and 14"),
    "depth below": (["model.depth=2"], "model.depth=2: must be a whole number ≥ 8 and ≤ 10000"),
    "nesterov without momentum": (
        ["optimizer.nesterov=true", "optimizer.momentum=0"],
        "optimizer.nesterov=true: needs optimizer.momentum > 0, or optimizer.nesterov=false",
    ),
    "two ways to crop": (
        ["dataset.resized_crop=0.25"],
        "dataset.resized_crop=0.25: takes the place of dataset.crop; set dataset.crop=0",
    ),
    "a magnitude beyond RandAugment's": (
        ["dataset.rand_augment=31"],
        "dataset.rand_augment=31: must be a whole number ≥ 0 and ≤ 30 or null",
    ),
    "batches with epochs": (
        ["scheduler.unit=batch", "scheduler.interval=epoch"],
        "scheduler.unit=batch: periods in batches need scheduler.interval=batch",
    ),
    "one_cycle with warmup": (
        ["scheduler=one_cycle", "scheduler.warmup=1.5"],
        "scheduler.warmup=1.5: one_cycle rises by itself; "
        "set scheduler.pct_start and leave scheduler.warmup=0",
    ),
    "a point of one number": (
        ["scheduler=piecewise", "scheduler.points=[0:1,30]"],
        "scheduler.points=30: must be epoch:share, as in [0:1,30:0]; in a file in quotes, "
        '["0:1", "30:0"]',
    ),
    "points that do not begin at 0": (
        ["scheduler=piecewise", "scheduler.points=[1:1,30:0]"],
        "scheduler.points=[1:1,30:0]: must be two or more, rising from 0, as in [0:1,30:0]",
    ),
    "a single point": (
        ["scheduler=piecewise", "scheduler.points=[0:1]"],
        "scheduler.points=[0:1]: must be two or more, rising from 0, as in [0:1,30:0]",
    ),
    "points out of order": (
        ["scheduler=piecewise", "scheduler.points=[0:1,9:0,5:1]"],
        "scheduler.points=[0:1,9:0,5:1]: must be two or more, rising from 0, as in [0:1,30:0]",
    ),
    "a point that is nowhere": (
        ["scheduler=piecewise", "scheduler.points=[0:1,nan:0]"],
        "scheduler.points=[0:1,nan:0]: must be two or more, rising from 0, as in [0:1,30:0]",
    ),
    "points of LRs": (
        ["scheduler=piecewise", "scheduler.points=[0:0.4,30:0]"],
        "scheduler.points=[0:0.4,30:0]: are shares of the peak, of which the largest is 1, not 0.4; for LRs "
        "divide them by 0.4 and give optimizer.lr=0.4",
    ),
    "points below 0": (
        ["scheduler=piecewise", "scheduler.points=[0:1,30:-0.1]"],
        "scheduler.points=[0:1,30:-0.1]: must be numbers from 0 to 1, shares of the peak",
    ),
    "values below the peak": (
        ["scheduler=list", "scheduler.values=[0.5,0.1]"],
        "scheduler.values=[0.5,0.1]: are shares of the peak, of which the largest is 1, not 0.5; for LRs "
        "divide them by 0.5 and give optimizer.lr=0.5",
    ),
    "no values": (
        ["scheduler=list"],
        "scheduler.values: a list of shares of the peak, or scheduler.file=PATH; give one of them",
    ),
    "values and a file": (
        ["scheduler=list", "scheduler.values=[1]", "scheduler.file=shares.txt"],
        "scheduler.values: a list of shares of the peak, or scheduler.file=PATH; give one of them",
    ),
    "a shape that is none": (
        ["scheduler=wsd", "scheduler.shape=sqrt"],
        "scheduler.shape=sqrt: did you mean 1-sqrt? choose from linear, 1-sqrt, cosine",
    ),
    "title of too many words": (
        [f"claim.title='{'very ' * 15}long'"],
        f"claim.title={'very ' * 15}long: must have 1 to 15 words, or be null",
    ),
    # absent, or too much
    "no root": (
        ["dataset=image_folder"],
        "dataset.root: has no value; give one with dataset.root=VALUE",
    ),
    "value taken away": (
        ["scheduler.t_0=???"],
        "scheduler.t_0: has no value; give one with scheduler.t_0=VALUE",
    ),
    "seed removed": (["~seed"], "seed: has no value; give one with seed=VALUE"),
    "section removed": (["~tracking"], "tracking: a run needs one; choose from none, tensorboard, wandb"),
    "key added": (
        ["+seeds=1"],
        f"seeds=1: is neither a key nor a group; did you mean seed? choose from {TOP}",
    ),
    "key added by force": (
        ["++scheduler.t_mul=true"],
        "scheduler.t_mul=true: is not a key of the scheduler cosine_warm; did you mean t_mult? "
        "choose from warmup, interval, unit, t_0, t_mult, eta_min, decay, cycle_warmup",
    ),
    "key added where there is none": (
        ["+tracking.tags=[a,b]"],
        "tracking.tags=[a,b]: is not a key of the tracking none, but of wandb",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("overrides", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(overrides, message):
    with pytest.raises(ConfigError) as error:
        make_config(*overrides)
    assert str(error.value) == message
    assert errors.explain(error.value) == message


ACCEPTED = {
    "the longest budget": ("trainer.epochs=1e6", 1e6),
    "part of an epoch": ("trainer.epochs=0.5", 0.5),
    "no decay": ("optimizer.weight_decay=0", 0.0),
    "no momentum": ("optimizer.momentum=0", 0.0),
    "equal cycles": ("scheduler.t_mult=1", 1),
    "the largest seed": ("seed=9223372036854775807", 2**63 - 1),
    "all that validation leaves": ("dataset.train_size=null", None),
    "a GPU by its number": ("trainer.device=cuda:10", "cuda:10"),
    "the first GPU": ("trainer.device=cuda", "cuda"),
    "the smallest net": ("model.depth=8", 8),
    "a key that another key gives": ("scheduler.t_0=${trainer.epochs}", 35.0),
    "a list of choices, the last of which counts": ("model=[resnet8,resnet20]", ResNet(20, 16)),
}  # fmt: skip


@pytest.mark.parametrize(("override", "value"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(override, value):
    loaded = make_config(override)
    for name in override.partition("=")[0].split("."):
        loaded = getattr(loaded, name)
    assert loaded == value
    assert type(loaded) is type(value)


def numbers() -> list[Any]:
    nodes: list[tuple[str, type[Any]]] = [*sections(), ("", Config)]
    return [
        pytest.param(group, node, f, id=f"{node.__name__}.{f.name}")
        for group, node in nodes
        for f in dataclasses.fields(node)
        if str(f.type).partition(" | ")[0] in ("int", "float", "list[float]")
        and "choices" not in f.metadata
    ]


@pytest.fixture(scope="module")
def examples():
    """One valid section of each class, and one whole configuration."""
    found: dict[type[Any], Any] = {}
    for case in SECTION_CHOICES:
        file = case.values[0]
        whole = compose_choice(file.parent.name, file.stem)
        section = getattr(whole, file.parent.name)
        found[type(section)] = section
    return {**found, Config: whole}


@pytest.mark.parametrize(("group", "node", "field"), numbers())
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1])
def test_no_number_of_any_section_may_be_endless_or_negative(examples, group, node, field, bad):
    given = [bad] if str(field.type).startswith("list") else bad
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(examples[node], **{field.name: given})
    key = f"{group}.{field.name}".lstrip(".")
    assert str(error.value).startswith(f"{key}=")
    assert str(error.value).endswith(f": {describe_constraint(field)}")


@pytest.mark.parametrize(("group", "node"), sections())
def test_a_section_made_by_hand_without_a_value_says_which(group, node):
    required = [f.name for f in dataclasses.fields(node) if f.default == MISSING]
    if not required:
        assert node() == node()
        return
    with pytest.raises(ConfigError, match=rf"^{group}\.{required[0]}: has no value; give one"):
        node()
