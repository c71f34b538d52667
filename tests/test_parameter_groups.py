"""Parameter groups: who is in which, and that each trains at its constant multiple of the plan's LR."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Main, make_config
from test_loop import (
    Training,
    assert_resumes,
    assert_same_weights,
    fresh_network,
    plain_losses,
    prepare,
)
from torch import nn
from torch.optim import SGD

from harness.config.errors import ConfigError
from harness.config.schema import Optimizer, ParameterGroup
from harness.training import models, schedules
from harness.training.parameter_groups import parameter_groups

HEAD = "optimizer.groups=[{params: head.*, lr_factor: 2, weight_decay_factor: 0}]"
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


def settings(*groups: dict[str, Any], no_decay: str = "none", decay: float = 0.5) -> Optimizer:
    own = make_config().optimizer
    entries = [ParameterGroup(**group) for group in groups]
    return dataclasses.replace(own, groups=entries or None, no_decay=no_decay, weight_decay=decay)


def network() -> nn.Module:
    return models.ResNet(depth=8, width=2, channels=1, classes=3)


def factors(network: nn.Module, own: Optimizer) -> dict[str, tuple[float, float]]:
    """Weight decay and LR factor of each parameter by its name; each is in one group."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {}
    for group in parameter_groups(network, own):
        assert isinstance(group, dict)
        for parameter in group["params"]:
            found[names.pop(id(parameter))] = (group["weight_decay"], group["lr_factor"])
    assert not names
    return found


# --- who is in which -----------------------------------------------------------------------------


def test_without_settings_there_are_no_groups() -> None:
    own = network()
    assert parameter_groups(own, settings()) == list(own.parameters())


@pytest.mark.parametrize("arch", ["resnet", "convnext_tiny", "vit_b_16", "mobilenet_v3_small"])
def test_norms_and_biases_have_no_decay(arch: str) -> None:
    import torchvision

    with torch.device("meta"):
        own = network() if arch == "resnet" else torchvision.models.get_model(arch)
    kinds = dict(own.named_modules())
    for name, (decay, lr) in factors(own, settings(no_decay="norm_bias")).items():
        module, _, last = name.rpartition(".")
        off = isinstance(kinds[module], NORMS) or last.endswith("bias")
        assert (decay, lr) == (0.0 if off else 0.5, 1), name


def test_a_pattern_gives_its_factors_to_the_parameters_that_it_fits() -> None:
    own = settings(
        {"params": "head.*", "lr_factor": 10, "weight_decay_factor": 0},
        {"params": "*.conv?.weight", "weight_decay_factor": 3},
        {"params": "norm.bias", "lr_factor": 0.5},
        no_decay="norm_bias",
    )
    found = factors(network(), own)
    expected = {
        "head.weight": (0.0, 10.0), "head.bias": (0.0, 10.0), "stem.weight": (0.5, 1.0),
        "stages.0.conv1.weight": (1.5, 1.0), "stages.2.conv2.weight": (1.5, 1.0),
        "norm.weight": (0.0, 1.0), "norm.bias": (0.0, 0.5),
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_the_order_of_the_settings_changes_nothing() -> None:
    """Checkpoints count parameters in the order of the groups."""
    own, entries = network(), [{"params": f"{n}.*", "lr_factor": 2.0} for n in ("stem", "norm")]
    entries.append({"params": "head.bias", "weight_decay_factor": 0.0})
    one, other = (parameter_groups(own, settings(*some)) for some in (entries, entries[::-1]))
    assert one == other
    assert len(one) == 3, "equal factors share a group"


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        pytest.param(
            "{params: haed.*}",
            "optimizer.groups: params: haed.* fits no parameter of the network; did you mean head.*? "
            "choose from head.*, norm.*, stages.*, stem.*",
            id="fits nothing",
        ),
        pytest.param(
            "{params: head.*}, {params: '*.bias', lr_factor: 2}",
            "optimizer.groups: params: head.* and params: *.bias both fit head.bias, and a parameter has "
            "one entry; narrow one of the patterns",
            id="two fit",
        ),
    ],
)
def test_patterns_that_do_not_fit_are_refused_before_anything_is_trained(
    groups: str, said: str, main: Main, tmp_path: Path
) -> None:
    words = (f"optimizer.groups=[{groups}]", "scheduler.t_0=1", "trainer.epochs=1", "tracking=none")
    where = f"store.dir={tmp_path / 'store'}"
    alone = main(*words, f"hydra.run.dir={tmp_path / 'run'}", where)
    sweep = main("-m", *words, "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}", where)
    assert (alone.returncode, alone.stderr) == (1, f"error: {said}\n")
    assert (sweep.returncode, sweep.stderr) == (1, f"error: seed=0: {said}\n")
    assert not list(tmp_path.rglob("history.jsonl"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("[]", "optimizer.groups=[]: must have a group, as in [{params: head.*, lr_factor: 10}], or be null"),
        ("[{lr_factor: 2}]", "optimizer.groups[0].params: has no value; give one with 'optimizer.groups=[{params: VALUE}]'"),
        ("[{params: a, lr_factor: -1}]", "optimizer.groups.lr_factor=-1: must be a number ≥ 0 and < 1000000"),
        ("[{params: a, lr: 2}]", "optimizer.groups=[{params: a, lr: 2}]: lr: is not a key of an entry; choose from params, lr_factor, weight_decay_factor"),
        ("{head.*: 2}", "optimizer.groups={head.*: 2}: must be a list of groups, as in [{params: head.*, lr_factor: 10}], or null"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_one_line(given: str, said: str, main: Main) -> None:
    done = main(f"optimizer.groups={given}")
    assert (done.returncode, done.stderr) == (1, f"error: {said}\n")


# --- LRs -----------------------------------------------------------------------------------------

SCHEDULES = [
    "scheduler=cosine_warm scheduler.t_0=1 scheduler.eta_min=0.01",
    "scheduler=cosine_warm scheduler.t_0=1 scheduler.eta_min=0.01 scheduler.warmup=0.5",
    "scheduler=cosine scheduler.t_max=1 scheduler.eta_min=0.01",
    "scheduler=step scheduler.step_size=1",
    "scheduler=step scheduler.step_size=1 scheduler.interval=epoch scheduler.warmup=1",
    "scheduler=multistep scheduler.milestones=[0.5,1.5]",
    "scheduler=linear scheduler.warmup=1",
    "scheduler=constant",
    "scheduler=wsd scheduler.cooldown=1",
    "scheduler=one_cycle",
]


@pytest.mark.parametrize("overrides", SCHEDULES)
def test_every_group_has_its_constant_multiple_of_the_plan(overrides: str) -> None:
    """Of a minimum that is not zero, in warm-up and in one_cycle, too; a group's own LR counts as one."""
    config = make_config(*overrides.split(), "trainer.epochs=3", "optimizer.lr=0.25")
    plan = schedules.lr_plan(config, updates_per_epoch=4)

    def attach() -> tuple[schedules.Schedule, SGD]:
        weights = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
        groups: list[dict[str, Any]] = [
            {"params": weights[:1], "lr_factor": 3.0},
            {"params": weights[1:2]},
            {"params": weights[2:], "lr": 0.125},  # as an optimizer of the user's may have it
        ]
        optimizer = SGD(groups, lr=config.optimizer.lr)
        return schedules.build(config, optimizer, 4), optimizer

    schedule, optimizer = attach()
    for update, lr in enumerate(plan.lr.tolist()):
        used = [group["lr"] for group in optimizer.param_groups]
        assert used == [3 * lr, lr, 0.5 * lr]
        jumped, other = attach()
        jumped.fast_forward(update)
        assert [group["lr"] for group in other.param_groups] == used
        optimizer.step()
        schedule.advance(update + 1)


def test_an_lr_of_any_group_that_is_not_the_plans_stops_the_training() -> None:
    t = prepare("scheduler=constant", "trainer.epochs=3", HEAD)
    t.fit(until=4)
    t.state.optimizer.param_groups[1]["lr"] = 0.05
    with pytest.raises(RuntimeError, match=r"update 5: LR 0.05, the plan says 0.1 times 2.0$"):
        t.fit()


# --- training ------------------------------------------------------------------------------------


def test_training_in_groups_is_a_plain_torch_loop_bit_for_bit() -> None:
    budget = ("seed=3", "scheduler.t_0=1", "trainer.epochs=3", "trainer.log_every=1")
    t = prepare(*budget, HEAD, "optimizer.no_decay=norm_bias")
    own = fresh_network(t)
    named = dict(own.named_parameters())
    head = [p for name, p in named.items() if name.startswith("head.")]
    body = [p for name, p in named.items() if not name.startswith("head.") and p.ndim > 1]
    norms = [p for name, p in named.items() if not name.startswith("head.") and p.ndim == 1]
    plain = SGD(
        [
            {"params": head, "lr": 0.2, "weight_decay": 0},
            {"params": body, "weight_decay": 5e-4},
            {"params": norms, "weight_decay": 0},
        ],
        lr=0.1, momentum=0.9, fused=True,
    )  # fmt: skip
    losses = plain_losses(t, own, plain)

    t.fit()
    assert [row["train/loss"] for row in t.rows] == losses
    assert [row["lr"] for row in t.rows] == t.plan.lr.tolist()
    assert_same_weights(t.state.network, own)


def in_groups(*more: str) -> Training:
    budget = ("trainer.epochs=3", "scheduler.t_0=1", "trainer.log_every=1")
    return prepare(*budget, HEAD, "optimizer.no_decay=norm_bias", *more)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_groups_go_on_from_a_snapshot(optimizer: str) -> None:
    assert_resumes(lambda: in_groups(f"optimizer={optimizer}", "scheduler.warmup=0.5"), stop=7)


def test_moments_of_another_shape_are_refused_in_every_group() -> None:
    t = in_groups().fit(until=1)
    last = len(list(t.state.network.parameters())) - 1
    saved = t.state.snapshot()
    saved["optimizer"] = {**saved["optimizer"], last: {"momentum_buffer": torch.zeros(2, 99)}}
    with pytest.raises(ValueError, match=f"momentum_buffer {last} has the shape"):
        in_groups().state.restore(saved)


def test_a_pattern_that_fits_nothing_is_refused_where_the_network_is_built() -> None:
    with pytest.raises(ConfigError, match=r"tail\.\* fits no parameter"):
        prepare("optimizer.groups=[{params: tail.*}]")
