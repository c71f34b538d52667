"""The jobs of a sweep, which are checked before anything is written."""

from __future__ import annotations

from pathlib import Path

import forked
import pytest
from conftest import ROOT, Main
from test_cli import TINY, WHOLE, statuses
from test_sweep_plan import S


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        pytest.param(["hydra.sweep.subdir=same", "seed=0,1"], "seed=0 and seed=1 would share the folder same", id="one folder for all"),
        pytest.param(["hydra.sweep.subdir=../${seed}", "seed=0,1"], "'../0' is not a folder below hydra.sweep.dir", id="elsewhere"),
        pytest.param(["hydra.sweep.dir=", "seed=0,1"], "hydra.sweep.dir: has no value", id="no folder"),
        pytest.param(["seed=0,1,2,0"], "error: seed=0,1,2,0: has 0 twice; leave one of them out", id="a seed twice"),
        pytest.param(["scheduler.t_0=1,1.0"], "error: t_0=1.0: is the same run as t_0=1;", id="a level twice"),
        pytest.param(["experiment=article_t_mult,phase_claim"],
                     "error: experiment=article_t_mult: brings a sweep of its own (scheduler.t_mult, seed)", id="sweeps of experiments"),
        pytest.param(["metrics=[],[a]"], "error: metrics: is swept, and metrics change no run; give all to each, as in metrics=[a,b]", id="metrics"),
        pytest.param(["claim.factor=model.width", "seed=0,1"], "claim.factor=model.width: is not swept", id="a factor that is not swept"),
        pytest.param(["claim.factor=seed", "seed=0,1"], "claim.factor=seed: seeds make the pairs", id="seeds as a factor"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("script", ["train.py", "scripts/preview.py"])
def test_refused_before_anything_is_trained(
    tmp_path: Path, script: str, overrides: list[str], line: str
) -> None:
    if "preview" in script and overrides[0].startswith("hydra"):
        pytest.skip("the preview makes no run folders")
    words = [*S, f"hydra.sweep.dir={tmp_path / 'sweep'}", *overrides]
    words = [
        word
        for word in words
        if word.partition("=")[0] not in {o.partition("=")[0] for o in overrides}
    ]
    words = ["-m", *words, *overrides, f"store.dir={tmp_path / 'store'}"]
    done = forked.complete(ROOT / script, *words, cwd=tmp_path)
    assert done.returncode == 1
    assert line in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "nothing was touched"


def test_a_sweep_with_an_arm_that_does_not_fit_does_not_begin(tmp_path: Path, main: Main) -> None:
    done = main("-m", *TINY, "scheduler.t_0=1,3", f"hydra.sweep.dir={tmp_path}", "reuse=false")
    misfit = "scheduler.t_0=3: does not fit into the budget, trainer.epochs=2; lower scheduler.t_0, or raise trainer.epochs"
    assert done.stderr == f"error: t_0=3: {misfit}\n"
    assert done.stdout == ""
    assert done.returncode == 1
    assert statuses(tmp_path) == []


def test_a_sweep_with_an_arm_that_cannot_be_composed_does_not_begin(
    tmp_path: Path, main: Main
) -> None:
    arms = ["scheduler.t_0=1", "scheduler.t_mult=1,1.5"]
    done = main("-m", *TINY, *arms, f"hydra.sweep.dir={tmp_path}", "reuse=false")
    assert done.returncode == 1
    assert statuses(tmp_path) == []
    assert done.stderr == f"error: t_mult=1.5: scheduler.t_mult=1.5: {WHOLE}\n"
