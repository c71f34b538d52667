"""What is judged is what was trained: the plan of a sweep, through the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked
import pytest
from conftest import ROOT, Main, need

from harness.analysis import sweep_plan
from harness.config.errors import ConfigError

S = ("trainer.epochs=3", "scheduler.t_0=1", "trainer.batch_size=100", "model.width=1",
     "dataset.train_size=200", "tracking=none")  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A sweep's folder, and what its command printed."""

    folder: Path
    done: subprocess.CompletedProcess[str]

    @property
    def plan(self) -> dict[str, Any]:
        plan: dict[str, Any] = json.loads((self.folder / "plan.json").read_text())
        return plan

    def results(self) -> list[dict[str, Any]]:
        folders = [self.folder / run["folder"] for run in self.plan["arms"]]
        return [json.loads((folder / "result.json").read_text()) for folder in folders]

    def values(self, key: str) -> list[Any]:
        group, _, name = key.partition(".")
        configs = [result["config"] for result in self.results()]
        return [config[group][name] if name else config[group] for config in configs]


@pytest.fixture
def sweep(main: Main, tmp_path: Path) -> Callable[..., Trained]:
    """`python train.py -m OVERRIDES` into a folder and a store of the test's own."""

    def train(*overrides: str, name: str = "sweep") -> Trained:
        where = (f"hydra.sweep.dir={tmp_path / name}", f"store.dir={tmp_path / 'store'}")
        own = {override.partition("=")[0] for override in overrides}
        if {"arm", "scheduler"} & own:
            own.add("scheduler.t_0")
        words = [word for word in (*S, *where) if word.partition("=")[0] not in own]
        return Trained(tmp_path / name, main("-m", *words, *overrides))

    return train


def verify(*sweeps: Path) -> subprocess.CompletedProcess[str]:
    return forked.complete("scripts/verify_sweep.py", *sweeps)


def report(*paths: Path | str) -> subprocess.CompletedProcess[str]:
    return forked.complete("scripts/report.py", *paths)


# --- jobs are what was planned -------------------------------------------------------------------


@pytest.mark.slow
def test_a_sweeps_own_folder_takes_what_leaves_its_runs_the_same(
    sweep: Callable[..., Trained], tmp_path: Path
) -> None:
    trained = sweep("scheduler.t_mult=1,2")
    before = (trained.folder / "plan.json").read_bytes()
    for more in (
        ("retry=true",), ("reuse=false",), ("tracking=wandb", "tracking.mode=offline"),
        ("tracking.mode=offline", "tracking=wandb", "tracking.tags=[late]"), ("store.keep=last",),
        ("claim.title=Two",),
        (f"store.dir={tmp_path / 'other'}",), ("trainer.checkpoint_every=0.5",),
    ):  # fmt: skip
        again = sweep("scheduler.t_mult=1,2", *more)
        assert again.done.returncode == 0, (more, again.done.stderr)
        assert (trained.folder / "plan.json").read_bytes() == before
        late = "claim.title=Two: not used; the sweep began with no title, and keeps it"
        assert (late in again.done.stderr) == (more == ("claim.title=Two",))
    for other in (("claim.margin=0.5",), ("optimizer.lr=0.2",), ("seed=1",)):
        refused = sweep("scheduler.t_mult=1,2", *other)
        assert refused.done.returncode == 1
        assert "holds the sweep of other runs, 2 by `python " in refused.done.stderr
    assert verify(trained.folder).returncode == 0


@pytest.mark.slow
def test_a_sweep_over_stores_trains_each_run_into_its_own(
    sweep: Callable[..., Trained], tmp_path: Path
) -> None:
    stores = [tmp_path / name for name in "abc"]
    for restarts in range(2):
        trained = sweep(f"store.dir={','.join(map(os.path.relpath, stores))}")
        assert trained.done.returncode == 0, trained.done.stderr
        assert trained.done.stderr.count("is complete") == 3 * restarts
    assert [result["config"]["store"]["dir"] for result in trained.results()] == [
        str(store) for store in stores
    ]
    assert verify(trained.folder).returncode == 0


@pytest.mark.slow
def test_a_sweep_of_an_earlier_version_is_reported_but_not_continued(
    sweep: Callable[..., Trained],
) -> None:
    trained = sweep("scheduler.t_mult=1,2")
    plan = trained.plan
    for name in ("format", "config", "search"):
        del plan[name]
    for run in plan["arms"]:
        for name in ("key", "differs", "folder"):
            del run[name]
    (trained.folder / "plan.json").write_text(json.dumps(plan))
    assert "t_mult=2" in report(trained.folder).stdout
    done = sweep("scheduler.t_mult=1,2").done
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "was planned by another version" in line
    assert str(trained.folder) in line


# --- sweepers that choose as they go -------------------------------------------------------------


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., Trained]:
    """A sweep in a process of its own: Optuna warns of its own dependencies when it is imported."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="pip install -e '.[search]'")

    def train(*overrides: str) -> Trained:
        where = (f"hydra.sweep.dir={tmp_path / 'sweep'}", f"store.dir={tmp_path / 'store'}")
        words = ["-m", *S, *where, "hydra/sweeper=optuna", *overrides]
        return Trained(tmp_path / "sweep", forked.complete("train.py", *words))

    return train


@pytest.mark.slow
def test_a_search_appends_to_its_plan(search: Callable[..., Trained]) -> None:
    words = (
        "hydra/sweeper=optuna",
        "hydra.sweeper.direction=maximize",
        "hydra.sweeper.sampler.seed=3",
    )
    trained = search(*words, "scheduler.t_mult=choice(1,2,3,4,5)", "hydra.sweeper.n_trials=6")
    assert trained.done.returncode == 0, trained.done.stderr
    asked = trained.values("scheduler.t_mult")
    assert len(set(asked)) == len(asked) >= 2, "a run that is asked for twice is one run"
    assert [run["name"] for run in trained.plan["arms"]] == [f"t_mult={value}" for value in asked]
    assert "verdict: The arms were chosen by a search" in trained.done.stdout
    assert verify(trained.folder).returncode == 0
    longer = search(*words, "scheduler.t_mult=choice(1,2,3,4,5)", "hydra.sweeper.n_trials=9",
                   "hydra.sweeper.sampler.seed=4")  # fmt: skip
    assert longer.done.returncode == 0, longer.done.stderr
    more = longer.values("scheduler.t_mult")
    assert more[: len(asked)] == asked
    assert len(set(more)) == len(more)
    assert verify(longer.folder).returncode == 0
    assert "the claim was changed" not in longer.done.stdout
    other = search(
        *words,
        "scheduler.t_mult=choice(1,2)",
        "hydra.sweeper.n_trials=1",
        "scheduler.eta_min=0.001",
    )
    assert other.done.returncode == 1
    assert "holds the sweep of other runs" in other.done.stderr


@pytest.mark.slow
def test_a_search_over_an_interval_has_no_limit_of_a_grid(search: Callable[..., Trained]) -> None:
    trained = search(
        "hydra/sweeper=optuna", "optimizer.lr=interval(0.01,0.5)", "hydra.sweeper.n_trials=3"
    )
    assert trained.done.returncode == 0, trained.done.stderr
    assert "hydra.sweeper.direction=minimize: " in trained.done.stderr
    assert all(0.01 <= lr <= 0.5 for lr in trained.values("optimizer.lr"))
    assert verify(trained.folder).returncode == 0
    words = "hydra/sweeper=optuna", "optimizer.lr=interval(0.01,0.5)"
    shown = forked.complete(ROOT / "scripts/preview.py", *words, cwd=trained.folder)
    assert shown.returncode == 1
    assert shown.stderr.startswith(
        "error: hydra/sweeper: OptunaSweeper chooses runs from the results"
    )


@pytest.mark.slow
def test_a_search_keeps_to_the_configuration_that_it_began_with(
    search: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (
        "optimizer.lr=choice(0.1,0.2)",
        "optimizer.weight_decay=${oc.env:DECAY}",
        "hydra.sweeper.sampler.seed=1",
    )
    monkeypatch.setenv("DECAY", "0")
    first = search(*words, "hydra.sweeper.n_trials=1")
    assert first.done.returncode == 0, first.done.stderr
    assert (
        "no verdict: claim: optimizer.lr: needs a treatment beside the baseline"
        in first.done.stderr
    )
    monkeypatch.setenv("DECAY", "0.1")
    other = search(*words, "hydra.sweeper.n_trials=4")
    assert (
        "optimizer.weight_decay=0.1 (was 0): the search began with another configuration"
        in other.done.stderr
    )
    assert other.values("optimizer.weight_decay") == [0.0] * len(other.plan["arms"])
    assert verify(other.folder).returncode == 0


def test_a_claim_about_a_key_that_a_search_leaves_alone_is_refused_before(
    search: Callable[..., Trained],
) -> None:
    done = search("optimizer.lr=choice(0.1,0.2)", "claim.factor=model.width").done
    assert done.returncode == 1
    assert "error: claim.factor=model.width: the search chooses optimizer.lr" in done.stderr


@pytest.mark.slow
def test_a_search_may_keep_its_study(search: Callable[..., Trained], tmp_path: Path) -> None:
    words = ("optimizer.lr=choice(0.1,0.2,0.3)", f"hydra.sweeper.storage=sqlite:///{tmp_path / 'study.db'}",
             "hydra.sweeper.study_name=lr", "hydra.sweeper.n_trials=2")  # fmt: skip
    assert search(*words).done.returncode == 0
    assert search(*words).done.returncode == 0


@pytest.mark.slow
def test_single_runs_without_a_plan_are_judged_by_their_own_records(
    main: Main, tmp_path: Path
) -> None:
    for seed in range(2):
        for t_mult in (1, 2):
            name = tmp_path / "runs" / f"{seed}-{t_mult}"
            done = main(*S, f"scheduler.t_mult={t_mult}", f"seed={seed}", f"hydra.run.dir={name}",
                        f"store.dir={tmp_path / 'store'}")  # fmt: skip
            assert done.returncode == 0, done.stderr
    reported = report(tmp_path / "runs")
    assert reported.returncode == 0, reported.stderr
    assert [line.split()[:2] for line in reported.stdout.splitlines()[2:4]] == [
        ["t_mult=1", "2"],
        ["t_mult=2", "2"],
    ]
    assert (
        "verdict: No plan fixed this comparison before the runs were trained. scheduler.t_mult=2 against 1"
        in reported.stdout
    )
    page = (tmp_path / "runs/report.html").read_text()
    assert "No plan fixed this comparison" in page
    some = report(tmp_path / "runs/0-1", tmp_path / "runs/0-2", "--out", tmp_path / "out")
    assert [line.split()[:2] for line in some.stdout.splitlines()[2:4]] == [
        ["t_mult=1", "1"],
        ["t_mult=2", "1"],
    ]
    nothing = report(tmp_path / "store", "--out", tmp_path / "out")
    assert nothing.returncode == 1
    assert nothing.stderr.startswith(
        f"error: {tmp_path / 'store'}: has neither the plan.json of a sweep"
    )


# --- Hydra's settings ----------------------------------------------------------------------------


@pytest.mark.slow
def test_preview_and_sweep_say_the_same_of_the_verdict(
    sweep: Callable[..., Trained], tmp_path: Path
) -> None:
    words = ("scheduler.t_mult=1,2", "scheduler.eta_min=0,0.001", "optimizer.lr=0.1")
    trained = sweep(*words)
    line = "no verdict: scheduler.t_mult, scheduler.eta_min are swept; claim.factor=KEY says which is judged"
    assert line in trained.done.stderr
    assert "\nverdict: " not in trained.done.stdout
    shown = forked.complete(ROOT / "scripts/preview.py", "-m", *S, *words, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert line in shown.stdout
    assert "seeds" not in shown.stderr
    chosen = sweep(*words, "claim.factor=scheduler.t_mult", name="chosen")
    assert "judged by: scheduler.t_mult=2 against 1, in each of 2 cells" in chosen.done.stderr
    assert "a verdict over 2 comparisons needs at least" in chosen.done.stderr


@pytest.mark.slow
def test_changing_the_folder_changes_nothing(tmp_path: Path) -> None:
    words = [
        "-m",
        *S,
        "scheduler.t_mult=1,2",
        "hydra.job.chdir=true",
        "store.dir=mine",
        "hydra.sweep.dir=swept",
    ]
    done = forked.complete(ROOT / "train.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("mine")) == [tmp_path / "mine"], "one store"
    assert len(list((tmp_path / "mine").iterdir())) == 1, "and what arms share is in it once"
    assert "2 epochs trained, 1 reused" in done.stderr or "1.5 reused" in done.stderr


@pytest.mark.slow
def test_two_commands_of_one_second_have_two_folders(tmp_path: Path) -> None:
    need(shutil.which("faketime"), "apt-get install faketime")
    words = [*S, f"store.dir={tmp_path / 'store'}", "store.keep=none"]
    both = [
        subprocess.Popen(
            ["faketime", "-f", "2026-01-01 00:00:00", sys.executable, str(ROOT / "train.py"), *words],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [one.communicate() for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    names = sorted(path.name for path in (tmp_path / "outputs").iterdir())
    assert names == ["2026-01-01_00-00-00", "2026-01-01_00-00-00_2"]
    assert all((tmp_path / "outputs" / name / "result.json").exists() for name in names)


# --- the plan ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_hundred_thousand_runs_can_be_read_again(tmp_path: Path) -> None:
    whole = {"model": {"width": 8}, "scheduler": {"t_mult": 1}, "seed": 0}
    runs = [
        {"num": n, "folder": str(n), "overrides": [f"optimizer.lr={n}", f"seed={n}"], "name": f"lr={n}, seed={n}",
         "arm": f"lr={n}", "swept": {"optimizer.lr": str(n), "seed": str(n)}, "seed": n, "key": "k" * 31 + str(n),
         "branches": [40, 120, 280], "config": whole | {"optimizer": {"lr": n, "momentum": 0.9}, "seed": n},
         "plan": {"budget_epochs": 35, "aligned": True, "nearest_aligned_epochs": [], "updates_per_epoch": 8}}
        for n in range(100_000)
    ]  # fmt: skip
    sweep_plan.write_plan(tmp_path / "plan.json", sweep_plan.new_plan([], runs))
    plan = sweep_plan.read_frozen(tmp_path)
    assert plan["config"] | plan["arms"][7]["differs"] == whole | {
        "optimizer": {"lr": 7, "momentum": 0.9}, "seed": 7,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["..", "/etc", "a/../../b", "", "."])
def test_a_folder_elsewhere_is_not_followed(name: str) -> None:
    with pytest.raises(ValueError, match="is not below"):
        sweep_plan.run_folder({"folder": name})


def test_a_plan_of_no_sweep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"arms": []}')
    with pytest.raises(ConfigError, match="was planned by another version"):
        sweep_plan.read_frozen(tmp_path)
