"""Which runs share a cell: their configurations agree but for the factor, the seed and what they follow from these."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest

from harness.analysis.arms import config_differences
from harness.analysis.cells import assign_cells
from harness.analysis.verdict import Claim

CONFIG: dict[str, Any] = {
    "model": {"kind": "resnet8", "width": 16},
    "dataset": {"kind": "digits", "split_seed": 0},
    "optimizer": {"kind": "sgd", "lr": 0.1},
    "scheduler": {"kind": "cosine_warm", "t_0": 5.0, "t_mult": 1},
    "trainer": {"epochs": 15.0, "device": "cpu", "precision": "fp32", "checkpoint_every": 60.0},
    "store": {"dir": "/a"}, "tracking": {"kind": "none"}, "claim": {"margin": 0.2},
    "reuse": True, "retry": False, "seed": 0,
}  # fmt: skip
CLAIM = Claim("scheduler.t_mult", "1", ("2",))


def run(plan: int = 0, swept: dict[str, str] | None = None, **settings: Any) -> dict[str, Any]:
    """A run of the sweep `plan`; settings as `optimizer__lr=0.2`."""
    config = json.loads(json.dumps(CONFIG))
    for key, value in settings.items():
        section, _, name = key.partition("__")
        if name:
            config[section][name] = value
        else:
            config[section] = value
    swept = swept or {"scheduler.t_mult": str(config["scheduler"]["t_mult"])}
    others = {k: v for k, v in swept.items() if k not in ("scheduler.t_mult", "arm", "seed")}
    return {
        "plan": plan, "name": "run", "arm": "arm", "seed": config["seed"], "level": swept.get("arm") or swept.get("scheduler.t_mult"),
        "cell": ", ".join(f"{k}={v}" for k, v in others.items()),
        "swept": json.dumps(swept), "config": json.dumps(config),
    }  # fmt: skip


def found(runs: Sequence[dict[str, Any]], claim: Claim = CLAIM) -> list[str]:
    return assign_cells(pl.DataFrame(list(runs)), claim)["cell"].to_list()


@pytest.mark.parametrize(
    ("settings", "cells"),
    [
        pytest.param({"optimizer__lr": 0.01}, ["optimizer.lr=0.1", "optimizer.lr=0.01"], id="LR"),
        pytest.param({"trainer__epochs": 35.0}, ["trainer.epochs=15", "trainer.epochs=35"], id="budget"),
        pytest.param({"dataset": {"kind": "synthetic", "split_seed": 0}}, ["dataset=digits", "dataset=synthetic"], id="data set"),
        pytest.param({"model__width": 32}, ["model.width=16", "model.width=32"], id="width"),
        pytest.param({"dataset__split_seed": 1}, ["dataset.split_seed=0", "dataset.split_seed=1"], id="other images"),
        pytest.param({"seed": 7}, ["", ""], id="seed"),
        pytest.param({"store__dir": "/b"}, ["", ""], id="store"),
        pytest.param({"tracking": {"kind": "wandb"}}, ["", ""], id="tracking"),
        pytest.param({"claim__margin": 0.5}, ["", ""], id="claim"),
        pytest.param({"metrics": ["mine"], "metric_sources": {"mine": "a"}}, ["", ""], id="metrics"),
        pytest.param({"reuse": False, "retry": True}, ["", ""], id="reuse and retry"),
        pytest.param({"trainer__checkpoint_every": 5.0}, ["", ""], id="checkpoints"),
        pytest.param({"trainer__device": "cuda", "trainer__precision": "bf16"}, ["", ""], id="numerics"),
        pytest.param({"scheduler__t_mult": 2}, ["", ""], id="the factor"),
        pytest.param({"scheduler__t_0": 2.0}, ["scheduler.t_0=5", "scheduler.t_0=2"], id="another key of its section"),
    ],
)  # fmt: skip
def test_two_sweeps_are_pooled_only_where_they_agree(
    settings: dict[str, Any], cells: list[str]
) -> None:
    one, other = run(0), run(1, **settings)
    assert found([one, other]) == cells
    assert found([other, one]) == cells[::-1], "whatever the order of the folders"


def test_runs_share_a_cell_where_the_code_of_the_claims_metric_agrees() -> None:
    claim = dataclasses.replace(CLAIM, metric="val/mine", better="lower", unit="")
    one, other = (run(0, metric_sources={"mine": "a", "other": text}) for text in "ab")
    edited = run(1, metric_sources={"mine": "b", "other": "a"})
    assert found([one, other, edited], claim) == [
        "metric_sources.mine=a", "metric_sources.mine=a", "metric_sources.mine=b",
    ]  # fmt: skip
    assert found([one, other, edited]) == ["", "", ""]


def test_names_and_arms_say_what_sets_cells_apart() -> None:
    table = assign_cells(pl.DataFrame([run(0), run(1, optimizer__lr=0.01)]), CLAIM)
    assert table["arm"].to_list() == ["arm, optimizer.lr=0.1", "arm, optimizer.lr=0.01"]
    assert table["name"].to_list() == ["run, optimizer.lr=0.1", "run, optimizer.lr=0.01"]


def test_a_sweep_over_a_key_and_one_at_one_of_its_values_share_that_cell() -> None:
    def swept(lr: float) -> dict[str, Any]:
        both = {"scheduler.t_mult": "1", "optimizer.lr": str(lr)}
        return run(0, both, optimizer__lr=lr)

    assert found([swept(0.1), swept(0.01), run(1, seed=3)]) == [
        "optimizer.lr=0.1", "optimizer.lr=0.01", "optimizer.lr=0.1",
    ]  # fmt: skip


def test_what_the_choice_of_an_arm_sets_belongs_to_the_factor() -> None:
    claim = Claim("arm", "a", ("b",))
    arms = [run(0, {"arm": "a"}), run(0, {"arm": "b"}, scheduler__t_mult=2, optimizer__lr=0.2)]
    assert found(arms, claim) == ["", ""]
    again = [
        *arms,
        run(1, {"arm": "a"}, model__width=8),
        run(1, {"arm": "b"}, model__width=8, optimizer__lr=0.2, scheduler__t_mult=2),
    ]
    assert found(again, claim) == ["model.width=16"] * 2 + ["model.width=8"] * 2
    lrs = [
        run(0, {"arm": arm, "optimizer.lr": str(lr)}, optimizer__lr=lr)
        for arm in "ab"
        for lr in (0.1, 0.2)
    ]
    assert found(lrs, claim) == ["optimizer.lr=0.1", "optimizer.lr=0.2"] * 2, "swept beside it"


def test_a_key_that_only_some_arms_have_makes_no_cell_where_it_is_null() -> None:
    constant, linear = {"kind": "constant"}, {"kind": "linear"}
    cosine = {"kind": "cosine", "t_max": None}
    schedulers = {"constant": constant, "one_cosine": cosine, "linear": linear}
    arms = [run(0, {"arm": arm}, scheduler=own) for arm, own in schedulers.items()]
    assert found(arms, Claim("arm", "constant", ("one_cosine", "linear"))) == ["", "", ""]


def test_an_lr_that_differs_between_sweeps_is_not_the_arms() -> None:
    """The arms of either sweep have one LR: that the sweeps differ in it follows from no arm."""
    sweeps = [
        run(plan, {"arm": arm}, optimizer__lr=lr, scheduler__t_mult=t)
        for plan, lr in enumerate((0.1, 0.01))
        for arm, t in (("a", 1), ("b", 2))
    ]
    names = ["optimizer.lr=0.1", "optimizer.lr=0.1", "optimizer.lr=0.01", "optimizer.lr=0.01"]
    assert found(sweeps, Claim("arm", "a", ("b",))) == names


def test_what_follows_the_seed_belongs_to_it() -> None:
    def sweep(plan: int, seeds: range) -> list[dict[str, Any]]:
        return [
            run(
                plan,
                {"scheduler.t_mult": str(t), "seed": str(s)},
                seed=s,
                scheduler__t_mult=t,
                dataset__split_seed=s,
            )
            for t in (1, 2)
            for s in seeds
        ]

    assert set(found(sweep(0, range(3)))) == {""}
    assert set(found(sweep(0, range(3)) + sweep(1, range(3, 6)))) == {""}


def test_seeds_of_one_data_set_and_more_seeds_of_another_are_two_cells() -> None:
    digits = [
        run(0, {"scheduler.t_mult": str(t), "seed": str(s)}, seed=s, scheduler__t_mult=t)
        for t in (1, 2)
        for s in range(6)
    ]
    synthetic = [
        run(
            1,
            {"scheduler.t_mult": str(t), "seed": str(s)},
            seed=s,
            scheduler__t_mult=t,
            dataset={"kind": "synthetic", "split_seed": 0},
        )
        for t in (1, 2)
        for s in (6, 7, 8)
    ]
    cells = found([*digits, *synthetic])
    assert cells == ["dataset=digits"] * 12 + ["dataset=synthetic"] * 6


def test_the_key_that_a_claim_is_tuned_over_makes_no_cell() -> None:
    claim = Claim("scheduler.t_mult", "1", ("2",), tuned_over="optimizer.lr")
    arms = [
        run(0, optimizer__lr=0.1),
        run(0, optimizer__lr=0.2),
        run(1, scheduler__t_mult=2, optimizer__lr=0.1),
    ]
    assert found(arms, claim) == ["", "", ""]


def test_runs_of_plans_without_configurations_keep_the_cells_of_their_names() -> None:
    old = [run() | {"config": "null", "cell": cell} for cell in ("lr=0.1", "lr=0.1", "lr=0.2")]
    assert found(old) == ["lr=0.1", "lr=0.1", "lr=0.2"]


def test_what_an_arm_sets_must_agree_between_sweeps() -> None:
    """The files of the arms were edited between two sweeps, or a key of the factor's section was given."""
    claim = Claim("arm", "a", ("b",))
    edited = [
        run(plan, {"arm": arm}, optimizer__lr=lr, seed=plan)
        for plan, lrs in enumerate(((0.1, 0.2), (0.01, 0.02)))
        for arm, lr in zip("ab", lrs, strict=True)
    ]
    first, second = "optimizer.lr=0.1 in a, 0.2 in b", "optimizer.lr=0.01 in a, 0.02 in b"
    assert found(edited, claim) == [first, first, second, second]

    def optimizer(plan: int, kind: str, lr: float) -> dict[str, Any]:
        row = run(plan, {"optimizer": kind}, optimizer={"kind": kind, "lr": lr}, seed=plan)
        return row | {"level": kind, "cell": ""}

    given = [
        optimizer(plan, kind, lr)
        for plan, lr in enumerate((0.1, 0.01))
        for kind in ("sgd", "adamw")
    ]
    cells = ["optimizer.lr=0.1", "optimizer.lr=0.1", "optimizer.lr=0.01", "optimizer.lr=0.01"]
    assert found(given, Claim("optimizer", "sgd", ("adamw",))) == cells


def test_a_split_that_follows_the_seed_and_one_that_does_not_are_two_cells() -> None:
    follows = [
        run(0, {"scheduler.t_mult": "1", "seed": str(s)}, seed=s, dataset__split_seed=s)
        for s in (0, 1)
    ]
    fixed = [run(1, {"scheduler.t_mult": "1", "seed": str(s)}, seed=s) for s in (2, 3)]
    assert len(set(found([*follows, *fixed]))) == 2
    alone = [
        run(s, seed=s, dataset__split_seed=s)
        | {"overrides": json.dumps(["dataset.split_seed=${seed}"])}
        for s in (7, 8)
    ]
    assert found(alone) == ["", ""], "sweeps of one seed say so in their overrides"


def test_a_missing_run_of_an_old_plan_is_with_those_of_its_sweep() -> None:
    known = [run(0), run(0) | {"config": "null"}]
    assert found([*known, run(1, optimizer__lr=0.01)]) == [
        "optimizer.lr=0.1", "optimizer.lr=0.1", "optimizer.lr=0.01",
    ]  # fmt: skip


def test_cells_that_differ_never_have_one_name() -> None:
    def lr(plan: int, width: int, **more: Any) -> list[dict[str, Any]]:
        swept = {"scheduler.t_mult": "1", "optimizer.lr": "0.1"} | (
            {"model.width": str(width)} if more else {}
        )
        return [run(plan, swept, optimizer__lr=0.1, model__width=width, **more)]

    other = {"dataset": {"kind": "synthetic", "split_seed": 0}}
    names = found([*lr(0, 16), *lr(1, 32), *lr(2, 32, **other)])
    assert len(set(names)) == 3


def test_a_key_that_is_tuned_over_takes_what_follows_from_it() -> None:
    claim = Claim("scheduler.t_mult", "1", ("2",), tuned_over="optimizer")
    kinds = [
        run(
            0,
            {"scheduler.t_mult": "1", "optimizer": kind},
            optimizer={"kind": kind, "lr": 0.1},
            model__width=w,
        )
        | {"cell": ""}
        for kind, w in (("sgd", 16), ("adamw", 16))
    ]
    assert found(kinds, claim) == ["", ""]


def test_runs_that_differ_in_metrics_alone_are_compared() -> None:
    configs = [CONFIG, CONFIG | {"metrics": ["mine"], "metric_sources": {"mine": "a"}}]
    assert config_differences(configs) == [{}, {}]
