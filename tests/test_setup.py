"""What a run needs before its first update: the LR plan, with and without the data."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import make_config
from PIL import Image

from harness.config.errors import ConfigError
from harness.runs.context import PhaseTimer
from harness.runs.setup import lr_plan, prepare

TINY = ("dataset=synthetic", "dataset.images=200", "dataset.image_size=4", "trainer.batch_size=16")


@pytest.fixture
def images(tmp_path: Path) -> tuple[str, ...]:
    """Images of two classes, without a test set."""
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(10):
            path = tmp_path / "train" / name / f"{number}.png"
            Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
    return (
        "dataset=image_folder", f"dataset.root={tmp_path}", "dataset.image_size=4",
        "dataset.workers=0", "trainer.batch_size=3",
    )  # fmt: skip


def assert_same_plan(*overrides: str) -> None:
    config = make_config(*overrides)
    timer = PhaseTimer()
    without, trained = lr_plan(config), prepare(config, timer).identity.plan
    assert without.lr.tolist() == trained.lr.tolist()
    assert without.describe() == trained.describe()
    assert set(timer) == {"data"}


@pytest.mark.parametrize(
    "overrides",
    [
        "trainer.epochs=3.5 scheduler.t_0=1",
        "trainer.epochs=3 scheduler=one_cycle",
        "trainer.epochs=4 scheduler=step scheduler.step_size=1 scheduler.warmup=0.5",
        "trainer.epochs=2 scheduler=linear optimizer=adamw dataset.train_size=100 seed=3",
        "trainer.epochs=2 scheduler=cosine optimizer.lr=0.25 trainer.batch_size=7",
    ],
)
def test_a_run_that_is_not_trained_has_the_lr_plan_of_one_that_is(overrides: str) -> None:
    assert_same_plan(*TINY, *overrides.split())


def test_the_lr_plan_of_images_on_disk_follows_from_their_number(images: tuple[str, ...]) -> None:
    assert_same_plan(*images, "trainer.epochs=2", "scheduler.t_0=2")


def test_runs_that_differ_in_their_seed_share_a_plan() -> None:
    first, second = (lr_plan(make_config(*TINY, f"seed={seed}")) for seed in (0, 1))
    assert first is second


@pytest.mark.parametrize(
    "other",
    [
        "optimizer.lr=0.2",
        "trainer.epochs=15",
        "trainer.batch_size=32",
        "scheduler.t_0=1",
        "optimizer.accumulate=2",
    ],
)
def test_runs_that_differ_in_what_the_plan_follows_from_do_not_share_it(other: str) -> None:
    first, second = lr_plan(make_config(*TINY)), lr_plan(make_config(*TINY, other))
    assert first.lr.tolist() != second.lr.tolist()


def test_a_claim_about_a_test_set_that_is_not_there_is_refused(
    images: tuple[str, ...], tmp_path: Path
) -> None:
    config = make_config(*images, "claim.metric=test/acc")
    said = (
        f"claim.metric=test/acc: dataset.root={tmp_path} has no test/; "
        "set dataset.test_size, or use claim.metric=val/acc"
    )
    for refusing in (lambda: lr_plan(config), lambda: prepare(config, PhaseTimer())):
        with pytest.raises(ConfigError) as error:
            refusing()
        assert str(error.value) == said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "trainer.batch_size=300",
            "trainer.batch_size=300: must be at most the number of training images, 128",
        ),
        (
            "optimizer.accumulate=9",
            "optimizer.accumulate=9: must be at most 8, the batches of trainer.batch_size=16 in 128 "
            "training images",
        ),
    ],
)
def test_updates_that_are_larger_than_the_training_set_are_refused(given: str, said: str) -> None:
    config = make_config(*TINY, given)
    for refusing in (lambda: lr_plan(config), lambda: prepare(config, PhaseTimer())):
        with pytest.raises(ConfigError) as error:
            refusing()
        assert str(error.value) == said
