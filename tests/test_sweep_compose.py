"""The configuration of a sweep's job is the one that Hydra composes."""

from __future__ import annotations

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir

from harness.config.compose import load
from harness.sweeps import compose as quickly


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(["scheduler.t_mult=1", "seed=3"], id="the seed alone"),
        pytest.param(["dataset.split_seed=${seed}", "seed=4"], id="a value that follows the seed"),
        pytest.param([r"dataset.split_seed=$\{seed\}", "seed=4"], id="one as a sweeper writes it"),
        pytest.param(["scheduler=wsd", "scheduler.cooldown=3", "seed=5"], id="groups"),
        pytest.param(["arm=times_1", "experiment=article_figure_2"], id="arm and experiment"),
    ],
)
def test_jobs_are_composed_as_hydra_composes_them(overrides: list[str]) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for seed in ("seed=7", *overrides[-1:]):  # the second comes out of what the first left
            words = [*overrides[:-1], seed]
            assert quickly.compose(words).config == load(compose("config", words))
