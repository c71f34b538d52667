"""What is used of Hydra beyond its documentation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from test_sweep_plan import Trained, sweep, verify  # noqa: F401

from harness.config import hydra_private
from harness.config.errors import ConfigError

CONF = ROOT / "conf"


def test_values_that_are_swept_are_composed_and_split_into_jobs_in_their_order() -> None:
    overrides = ["scheduler.t_mult=1,2", "seed=shuffle(range(0,2))", "trainer.epochs=3"]
    with hydra_private.multirun_config(CONF, overrides) as config:
        assert config.hydra.overrides.task == overrides
        jobs = hydra_private.split_jobs(hydra_private.parse(overrides))
    assert jobs == [
        [f"scheduler.t_mult={t_mult}", f"seed={seed}", "trainer.epochs=3"]
        for t_mult in (1, 2)
        for seed in (0, 1)
    ]


def test_single_values_are_set_in_what_was_composed_without_them() -> None:
    with hydra_private.multirun_config(CONF, []) as config:
        hydra_private.apply_values(hydra_private.parse(["seed=3", "scheduler.t_0=2.5"]), config)
    assert (config.seed, config.scheduler.t_0) == (3, 2.5)


def test_a_group_is_a_folder_of_files_here_or_in_the_search_path(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/one.yaml").write_text("")
    with hydra_private.multirun_config(CONF, []):
        assert hydra_private.is_group("scheduler", [])
        assert not hydra_private.is_group("seed", [])
        assert not hydra_private.is_group("mine", [])
        assert hydra_private.is_group("mine", [f"hydra.searchpath=[file://{tmp_path}]"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["seed=1", "lr=2", "seed=2"], "seed: is given more than once, seed=1 seed=2; keep one, or for each of them -m seed=1,2; a later ++seed=VALUE counts in its place"),
        (["model=a", "+model=b"], "model: is given more than once, model=a +model=b; keep one, or for each of them -m model=a,b; a later ++model=VALUE counts in its place"),
        (["lr=0.1,0.2", "lr=0.2"], "lr: is given more than once, lr=0.1,0.2 lr=0.2; keep one, or for each of them -m lr=0.1,0.2; a later ++lr=VALUE counts in its place"),
        (["lr=3", "lr=3"], "lr: is given more than once, lr=3 lr=3; keep one; a later ++lr=VALUE counts in its place"),
        (["seed=range(0,4)", "seed=range(4,8)"], "seed: is given more than once, seed=range(0,4) seed=range(4,8); keep one; a later ++seed=VALUE counts in its place"),
        (["store.dir=a", "store.dir=b"], "store.dir: is given more than once, store.dir=a store.dir=b; keep one; a later ++store.dir=VALUE counts in its place"),
        (["hydra.run.dir=a", "hydra.run.dir=b"], "hydra.run.dir: is given more than once, hydra.run.dir=a hydra.run.dir=b; keep one; a later ++hydra.run.dir=VALUE counts in its place"),
    ],
)  # fmt: skip
def test_a_key_that_is_given_twice_is_refused(words: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        hydra_private.refuse_repeated(words)
    assert str(error.value) == line
    own = hydra_private.last_given(words)
    assert own[0] == words[-1], "its place is that of the first"
    hydra_private.refuse_repeated(own)


def test_a_later_value_with_plus_signs_is_meant() -> None:
    hydra_private.refuse_repeated(["seed=1", "++seed=2", "++seed=3"])
    with pytest.raises(ConfigError):
        hydra_private.refuse_repeated(["++seed=2", "seed=1"])


def test_the_command_refuses_a_key_that_is_given_twice(tmp_path: Path) -> None:
    words = "trainer.epochs=1", "-m", "trainer.epochs=2", f"hydra.sweep.dir={tmp_path}/sweep"
    for script in ("train.py", "scripts/preview.py"):
        done = subprocess.run([sys.executable, script, *words], cwd=ROOT, capture_output=True, text=True, check=False)  # fmt: skip
        line = "error: trainer.epochs: is given more than once, trainer.epochs=1 trainer.epochs=2; "
        assert (done.returncode, done.stderr.startswith(line)) == (1, True), done.stderr
    assert not any(tmp_path.iterdir())


def test_options_that_say_where_the_configuration_is_are_found_among_words() -> None:
    found = hydra_private.given_options(
        ["seed=1", "-m", "-cd=mine", "lr=2", "--config-name", "own"]
    )
    assert found == ["--config-dir", "mine", "--config-name", "own"]
    assert hydra_private.given_options(["-m", "seed=0,1", "--again"]) == []


@pytest.mark.parametrize(
    ("subdir", "folders"),
    [
        ("'t_mult=${scheduler.t_mult}'", ["t_mult=1", "t_mult=2"]),
        pytest.param("${hydra.job.override_dirname}", None, marks=pytest.mark.slow),
        pytest.param("deep/${hydra.job.num}", ["deep/0", "deep/1"], marks=pytest.mark.slow),
        pytest.param("${hydra:job.num}_x", ["0_x", "1_x"], marks=pytest.mark.slow),
    ],
)
def test_any_subdir_is_honoured(
    sweep: Callable[..., Trained], subdir: str, folders: list[str] | None
) -> None:
    trained = sweep("scheduler.t_mult=1,2", f"hydra.sweep.subdir={subdir}",
                    "hydra.job.config.override_dirname.exclude_keys=[store.dir]")  # fmt: skip
    assert trained.done.returncode == 0, trained.done.stderr
    assert trained.values("scheduler.t_mult") == [1, 2]
    if folders:
        assert [run["folder"] for run in trained.plan["arms"]] == folders
    assert verify(trained.folder).returncode == 0
