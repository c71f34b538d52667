"""Whole sweeps hold, by the script that compares them with their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from test_sweep_plan import Trained, sweep, verify  # noqa: F401
from test_verify import whole  # noqa: F401


@pytest.mark.parametrize(
    "swept",
    [
        pytest.param(["optimizer.nesterov=0,1"], id="truth as numbers", marks=pytest.mark.slow),
        pytest.param(["optimizer.nesterov=on,off"], id="truth as words", marks=pytest.mark.slow),
        pytest.param(["scheduler=multistep", "++scheduler.milestones=[1.0],[1.5,2]", "++scheduler.gamma=0.5"], id="lists", marks=pytest.mark.slow),
        pytest.param(["scheduler=cosine,linear", "seed=0,1"], id="schedules"),
        pytest.param(["arm=one_cosine,linear", "store.keep=none"], id="named schedules, no checkpoints", marks=pytest.mark.slow),
        pytest.param(["dataset.train_size=200,1e2", "trainer.epochs=2,3"], id="sizes and lengths", marks=pytest.mark.slow),
        pytest.param(["optimizer.lr=1000,0.1", "trainer.batch_size=100", "model.width=4"], id="one that diverges"),
        pytest.param(["scheduler.warmup=0,1", "scheduler.interval=epoch,batch"], id="warm-up and intervals", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_honest_sweeps_hold(sweep: Callable[..., Trained], swept: list[str]) -> None:
    trained = sweep(
        *(["scheduler.t_0=1"] if not swept[0].startswith(("arm", "scheduler=")) else []), *swept
    )
    assert trained.done.returncode == 0, trained.done.stderr
    assert verify(trained.folder).returncode == 0


def test_a_whole_sweep_holds(whole: Path) -> None:
    done = verify(whole)
    assert done.stdout == (
        f"{whole}: 2 rows, 2 with a result, 2 complete; 2 checkpoints held against them; all rows hold\n"
    )
    assert (done.stderr, done.returncode) == ("", 0)
