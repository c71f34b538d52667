"""Advice leads out: what an error or a warning says to do is done, and the command then works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT, Main, make_config

from harness.config.errors import ConfigError
from harness.config.schema import DatasetShape, Model
from harness.runs.setup import lr_plan
from harness.training import models, schedules

BASE = (
    "dataset=synthetic", "dataset.images=200", "dataset.classes=4", "dataset.image_size=4",
    "model.width=1", "trainer.epochs=3", "trainer.batch_size=32", "tracking=none",
)  # fmt: skip


def places(folder: Path) -> tuple[str, ...]:
    return (
        f"store.dir={folder}/store",
        f"hydra.run.dir={folder}/run",
        f"hydra.sweep.dir={folder}/sweep",
    )


# --- budgets -------------------------------------------------------------------------------------

BUDGETS = {
    "restarts": ["scheduler.t_0=1", "scheduler.t_mult=2", "trainer.epochs=2"],
    "restarts after a warm-up": ["scheduler.t_0=1", "scheduler.warmup=0.25"],
    "restarts in updates": ["scheduler.t_0=7", "scheduler.t_mult=1", "scheduler.unit=batch"],
    "restarts by epoch": ["scheduler.t_0=1", "scheduler.interval=epoch", "trainer.epochs=2.5"],
    "up and down": ["scheduler=cosine", "scheduler.t_max=1", "scheduler.warmup=1"],
    "thousands of epochs": ["scheduler=cosine", "scheduler.t_max=1001"],
}


@pytest.mark.parametrize("overrides", BUDGETS.values(), ids=BUDGETS)
def test_a_budget_that_a_warning_names_ends_the_warning(
    main: Main, tmp_path: Path, overrides: list[str]
) -> None:
    done = main(*BASE, *overrides, *places(tmp_path / "first"))
    (line,) = [line for line in done.stderr.splitlines() if "mid-cycle" in line]
    named = line.rpartition("end a cycle: ")[2].split(" and ")
    for budget in named:
        if float(budget) > 100:  # seconds of training: planning says as much
            followed = make_config(*BASE, *overrides, f"trainer.epochs={budget}")
            assert schedules.misalignment(lr_plan(followed)) is None
            continue
        done = main(*BASE, *overrides, f"trainer.epochs={budget}", *places(tmp_path / budget))
        assert done.returncode == 0, done.stderr
        assert "mid-cycle" not in done.stderr


@pytest.mark.slow
def test_one_single_anneal_ends_with_the_budget_that_a_warm_up_leaves(
    main: Main, tmp_path: Path
) -> None:
    words = ["-m", "arm=one_cosine,linear", "scheduler.warmup=1"]
    done = main(*words, *BASE, *places(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "mid-cycle" not in done.stderr
    for number in range(2):
        result = json.loads((tmp_path / f"sweep/{number}/result.json").read_text())
        assert result["plan"]["aligned"]
        assert result["plan"]["lr_share_at_end"] < 0.15


# --- commands that err, and what they say to do --------------------------------------------------

FOLLOWED: dict[str, tuple[list[str], str, list[str]]] = {
    "cosine_warm's default, in updates": (["scheduler.unit=batch"], "scheduler.t_0: its default, 5, counts epochs; with scheduler.unit=batch give updates", ["scheduler.t_0=9"]),
    "step's": (["scheduler=step", "scheduler.unit=batch"], "scheduler.step_size: its default, 10, counts epochs", ["scheduler.step_size=3"]),
    "multistep's": (["scheduler=multistep", "scheduler.unit=batch"], "scheduler.milestones: its default, [15,25], counts epochs", ["scheduler.milestones=[3]"]),
    "wsd's": (["scheduler=wsd", "scheduler.unit=batch"], "scheduler.cooldown: its default, 7, counts epochs", ["scheduler.cooldown=5"]),
    "a default with a warm-up in updates": (["scheduler.unit=batch", "scheduler.warmup=3"], "scheduler.t_0: its default", ["scheduler.t_0=9"]),
    "half an epoch, by epoch": (["scheduler.interval=epoch", "scheduler.t_0=1.5"], "scheduler.t_0=1.5: is not a whole number of epochs", ["scheduler.t_0=2"]),
    "half an update": (["scheduler.unit=batch", "scheduler.t_0=1.5"], "scheduler.t_0=1.5: is not a whole number of updates", ["scheduler.t_0=2"]),
    "epochs of one update": (["trainer.batch_size=128", "trainer.epochs=1.5", "scheduler=linear"], "trainer.epochs=1.5: is not a whole number of updates at 1 an epoch; the nearest are 1 and 2", ["trainer.epochs=2"]),
    "less than an update": (["scheduler.t_0=1e-6"], "scheduler.t_0=1e-06: is too short; the least is 0.25", ["scheduler.t_0=0.25"]),
    "one_cycle in one step": (["scheduler=one_cycle", "scheduler.interval=epoch", "trainer.epochs=1"], "trainer.epochs=1: one_cycle cannot rise and fall in one step", ["trainer.epochs=4"]),
    "one_cycle without a rise": (["scheduler=one_cycle", "scheduler.interval=epoch"], "scheduler.pct_start=0.3: leaves no update in which the LR rises; must be above 1 / 3", ["scheduler.pct_start=0.34"]),
    "one_cycle with a warm-up": (["scheduler=one_cycle", "scheduler.warmup=1"], "scheduler.warmup=1: one_cycle rises by itself", ["scheduler.warmup=0"]),
    "batch and epoch": (["scheduler.unit=batch", "scheduler.interval=epoch", "scheduler.t_0=4"], "scheduler.unit=batch: periods in batches need scheduler.interval=batch", ["scheduler.interval=batch"]),
    "one image for a batch norm": (["trainer.batch_size=1", "scheduler.t_0=1", "dataset.train_size=8"], "trainer.batch_size=1: batch norm needs two images at least", ["trainer.batch_size=2"]),
    "fp16 on a CPU": (["trainer.device=cpu", "trainer.precision=fp16", "scheduler.t_0=1"], "trainer.precision=fp16: needs a GPU", ["trainer.precision=bf16"]),
    "no such GPU": (["trainer.device=cuda:77", "scheduler.t_0=1"], "trainer.device=cuda:77: ", ["trainer.device=cpu"]),
    "nesterov": (["optimizer.nesterov=true", "optimizer.momentum=0", "scheduler.t_0=1"], "optimizer.nesterov=true: needs optimizer.momentum > 0", ["optimizer.momentum=0.5"]),
    "depth": (["model.depth=9", "scheduler.t_0=1"], "model.depth=9: must be 6n+2; the nearest are 8 and 14", ["model.depth=14"]),
}  # fmt: skip


@pytest.mark.parametrize(("overrides", "line", "advice"), FOLLOWED.values(), ids=FOLLOWED)
def test_advice_that_is_followed_leads_to_a_run(
    main: Main, tmp_path: Path, overrides: list[str], line: str, advice: list[str]
) -> None:
    done = main(*BASE, *overrides, *places(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {line}"), done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = main(*BASE, *overrides, *advice, *places(tmp_path / "followed"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("scheduler", ["cosine", "linear", "constant", "one_cycle"])
def test_schedules_whose_defaults_fit_every_unit_take_updates(
    main: Main, tmp_path: Path, scheduler: str
) -> None:
    words = (*BASE, f"scheduler={scheduler}", "trainer.epochs=3", *places(tmp_path))
    assert main(*words, "scheduler.unit=batch").returncode == 0
    by_epoch = main(*words, f"hydra.run.dir={tmp_path}/epochs")
    assert by_epoch.returncode == 0
    ids = [json.loads((tmp_path / name / "result.json").read_text())["run_id"] for name in ("run", "epochs")]  # fmt: skip
    assert ids[0] == ids[1], "the same plan"


def test_a_sweep_over_batches_of_one_image_is_refused_before_anything_is_trained(
    main: Main, tmp_path: Path
) -> None:
    done = main("-m", *BASE, "scheduler.t_0=1", "trainer.batch_size=2,1", *places(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: batch_size=1: trainer.batch_size=1: batch norm needs")
    assert not list(tmp_path.glob("sweep/*/result.json"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(["dataset.image_size=16"], id="four pixels at the end"),
        pytest.param(
            ["model=torchvision", "model.arch=squeezenet1_1", "dataset.image_size=32"],
            id="no batch norm",
        ),
    ],
)
def test_a_batch_of_one_image_is_taken_where_the_network_can(
    main: Main, tmp_path: Path, overrides: list[str]
) -> None:
    base = [w for w in BASE if not (overrides[0] == "model=torchvision" and w == "model.width=1")]
    small = ("dataset.images=24", "dataset.classes=2", "trainer.batch_size=1", "trainer.epochs=1")
    words = (*base, "scheduler.t_0=1", "optimizer.lr=1e-4", *overrides, *small, *places(tmp_path))
    done = main(*words)
    assert done.returncode == 0, done.stderr


# --- torchvision's networks ----------------------------------------------------------------------

ARCHS = ["resnet18", "wide_resnet50_2", "vgg11", "alexnet", "mobilenet_v3_small", "squeezenet1_1",
         "regnet_y_400mf", "vit_b_32", "inception_v3", "swin_t", "convnext_tiny"]  # fmt: skip


@cache
def torchvisions(*words: str) -> Model:
    return make_config("model=torchvision", *words).model


@pytest.mark.parametrize("size", [8, 28, 32, 224])
@pytest.mark.parametrize("arch", ARCHS)
def test_a_network_that_does_not_go_with_the_images_names_one_that_does(
    arch: str, size: int
) -> None:
    ends = set()
    for stem in ("small", "imagenet"):
        overrides = {"model.arch": arch, "model.stem": stem}
        for _ in range(2):  # one piece of advice is enough
            words = [f"{key}={value}" for key, value in overrides.items()]
            try:
                models.without_weights(torchvisions(*words), DatasetShape(100, 3, size, 4))
                break
            except ConfigError as error:
                advice = str(error).rpartition("use ")[2]
                overrides |= dict(word.split("=") for word in advice.split())
        else:
            pytest.fail(f"{words} still fails")
        ends.add(overrides["model.arch"])
    assert len(ends) == 1, "what one stem's error says agrees with the other's"


def test_a_network_that_cannot_take_the_images_is_one_line(main: Main, tmp_path: Path) -> None:
    base = [word for word in BASE if not word.startswith("model.")]
    words = (*base, "model=torchvision", "model.arch=alexnet", "dataset.image_size=32")
    done = main(*words, "scheduler.t_0=1", *places(tmp_path))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: model.arch=alexnet: does not take images of 32 pixels (")
    assert line.endswith("; use model.arch=resnet18")


@pytest.mark.slow
def test_a_sweep_plans_networks_that_compute_their_widths_with_tensors(
    main: Main, tmp_path: Path
) -> None:
    base = [word for word in BASE if not word.startswith(("model.", "dataset.images"))]
    words = (*base, "model=torchvision", "model.arch=regnet_y_400mf", "dataset.image_size=32")
    done = main(
        "-m", *words, "seed=0,1", "dataset.images=40", "trainer.batch_size=8", "scheduler.t_0=1",
        "trainer.epochs=1", *places(tmp_path)
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- compilers -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({"PATH": "/nonexistent", "CXX": ""}, id="none"),
        pytest.param({"CXX": "/bin/false"}, id="one that does not work"),
    ],
)
def test_a_compiler_that_is_not_there_is_one_line_before_training(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    words = (*BASE, "scheduler.t_0=1", "trainer.compile=default", "trainer.device=cpu")
    done = subprocess.run(
        [sys.executable, "train.py", *words, *places(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")} | variables,
    )  # fmt: skip
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not re.match(r"[IW]\d{4} ", line)]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: trainer.compile=default: torch.compile does not work here (")
    assert "use trainer.compile=none, or install a C++ compiler" in lines[0]
    assert not list(tmp_path.glob("store/*/*.outcome")), "the next machine may have one"
