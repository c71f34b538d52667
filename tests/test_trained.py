"""What was trained: what runs have in common, and the line of a page about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import make_config

from harness.analysis.trained import commits_text, either, subject, what_was_trained
from harness.config.values import to_dict
from harness.files import UnreadableError

IMAGES = {"train": 1149, "val": 288, "test": 360}


def run(folder: Path, *overrides: str, **other: Any) -> dict[str, Any]:
    """A complete run of the configuration that `overrides` make."""
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"images": other.pop("images", IMAGES)}))
    return {
        "folder": str(folder), "status": "complete", "config": json.dumps(to_dict(make_config(*overrides))),
        "numerics": json.dumps({"device": "cpu"}), "commit": "06a92ddc0ffe", "dirty": False,
    } | other  # fmt: skip


def trained(tmp_path: Path, *configs: str) -> dict[str, Any]:
    runs = [run(tmp_path / str(n), *config.split()) for n, config in enumerate(configs)]
    return what_was_trained(pl.DataFrame(runs))


@pytest.mark.parametrize(
    ("configs", "line"),
    [
        (
            ["trainer.epochs=15", "trainer.epochs=15 seed=1"],
            "ResNet-8 · digits, 1,149 train / 288 val · 15 epochs · SGD, peak LR 0.1 · CPU",
        ),
        (
            ["trainer.epochs=1 optimizer.lr=0.05 model.width=4", "trainer.epochs=20"],
            "ResNet-8 (width 4) and ResNet-8 · digits, 1,149 train / 288 val · 1 and 20 epochs · SGD, "
            "peak LR 0.05 and 0.1 · CPU",
        ),
        (
            ["optimizer.lr=0.05", "optimizer.lr=0.4", "optimizer=adamw optimizer.lr=0.001"],
            "ResNet-8 · digits, 1,149 train / 288 val · 35 epochs · SGD and AdamW, peak LR 0.001 to 0.4 · CPU",
        ),
        (
            ["model=resnet8", "model=resnet20", "model=resnet32", "model=torchvision model.arch=vgg11"],
            "4 models · digits, 1,149 train / 288 val · 35 epochs · SGD, peak LR 0.1 · CPU",
        ),
        (
            ["dataset=digits", "dataset=fashion_mnist"],
            "ResNet-8 · digits, 1,149 train / 288 val and Fashion-MNIST, 1,149 train / 288 val · 35 epochs "
            "· SGD, peak LR 0.1 · CPU",
        ),
        (
            ["dataset=image_folder dataset.root=/home/me/flowers"],
            "ResNet-8 · flowers, 1,149 train / 288 val · 35 epochs · SGD, peak LR 0.1 · CPU",
        ),
    ],
    ids=["alike", "two values", "more values", "many models", "two data sets", "a folder"],
)  # fmt: skip
def test_the_line_says_nothing_that_is_not_so_of_all(
    tmp_path: Path, configs: list[str], line: str
) -> None:
    assert trained(tmp_path, *configs)["line"] == line


def test_what_varies_and_what_does_not(tmp_path: Path) -> None:
    found = trained(
        tmp_path, "scheduler.t_mult=1 seed=0", "scheduler.t_mult=2 seed=1 store.dir=/home/me/store"
    )
    assert found["varied"] == {"scheduler.t_mult": [1, 2]}
    assert found["settings"]["optimizer.lr"] == 0.1
    assert not [key for key in found["settings"] if key.startswith(("store.", "seed", "claim."))]
    other = trained(tmp_path / "other", "scheduler=linear", "scheduler=cosine_warm")
    assert other["varied"]["scheduler.kind"] == ["linear", "cosine_warm"]
    assert other["varied"]["scheduler.t_mult"] == [2], "which one of them has"


def test_numbers_of_images_are_those_that_a_run_recorded(tmp_path: Path) -> None:
    small = {"train": 500, "val": 288, "test": None}
    runs = [
        run(tmp_path / "failed", images={}, status="failed"),
        run(tmp_path / "complete"),
        run(tmp_path / "small", "dataset.train_size=500", images=small),
    ]
    found = what_was_trained(pl.DataFrame(runs))
    assert found["datasets"] == [{"name": "digits", **IMAGES}, {"name": "digits", **small}]
    assert "digits, 500 and 1,149 train / 288 val" in found["line"]


def test_the_commit_is_dirty_if_it_was_for_any_run(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "a"), run(tmp_path / "b", dirty=True), run(tmp_path / "c", commit="beef"),
        run(tmp_path / "d", commit=None, dirty=None),
    ]  # fmt: skip
    commits = what_was_trained(pl.DataFrame(runs, infer_schema_length=None))["commits"]
    assert commits == [
        {"commit": "06a92ddc0ffe", "dirty": True},
        {"commit": "beef", "dirty": False},
    ]
    assert commits_text(commits) == "06a92ddc0ffe, with uncommitted changes; beef"


def test_before_training_the_plan_says_what_will_be_trained(tmp_path: Path) -> None:
    planned: dict[str, Any] = {"status": "missing", "numerics": "{}", "commit": None, "images": {}}
    found = what_was_trained(pl.DataFrame([run(tmp_path / "a", **planned)]))
    assert found["line"] == "ResNet-8 · digits · 35 epochs · SGD, peak LR 0.1"
    assert subject(found) == "ResNet-8 on digits"


def test_of_old_runs_little_is_known() -> None:
    runs = pl.DataFrame({"folder": ["1"], "config": ["null"]})
    found = what_was_trained(runs)
    assert (found["line"], subject(found), found["settings"]) == ("", "", {})
    assert what_was_trained(pl.DataFrame())["line"] == ""


def test_a_configuration_in_words_is_named(tmp_path: Path) -> None:
    for config in ({"model": "resnet"}, {"trainer": {"epochs": "many"}}):
        runs = pl.DataFrame([{"folder": str(tmp_path), "config": json.dumps(config)}])
        with pytest.raises(UnreadableError, match=r"result\.json: is not of this version"):
            what_was_trained(runs)


def test_many_names_are_counted() -> None:
    assert either([], "models") == ""
    assert either(["a"], "models") == "a"
    assert either(["a", "b", "c"], "models") == "a, b and c"
    assert either(["a", "b", "c", "d"], "models") == "4 models"
