"""What is judged is what was trained: sweeps through the command line, and the check of their records."""

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


@pytest.mark.parametrize(
    ("swept", "key", "levels"),
    [
        pytest.param(
            "optimizer.lr=shuffle(0.1,1e-9)", "optimizer.lr", [0.1, 1e-9], id="two values"
        ),
        pytest.param(
            "seed=shuffle(range(0,5))",
            "seed",
            [0, 1, 2, 3, 4],
            id="a range",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_shuffled_sweeps_have_their_own_names(
    sweep: Callable[..., Trained], swept: str, key: str, levels: list[float]
) -> None:
    trained = sweep(swept)
    assert trained.done.returncode == 0, trained.done.stderr
    assert trained.values(key) == levels, "the plan's order is that of the command"
    for result, level in zip(trained.results(), levels, strict=True):
        assert float(result["swept"][key]) == level
        assert float(result["name"].partition("=")[2]) == level
    again = sweep(swept)
    assert again.done.returncode == 0, again.done.stderr
    assert again.done.stderr.count("is complete") == len(levels)
    assert verify(trained.folder).returncode == 0


def test_values_that_change_with_time_are_those_of_the_plan(sweep: Callable[..., Trained]) -> None:
    for _ in range(2):
        trained = sweep("seed=${now:%S%f}", "scheduler.t_mult=1,2")
        assert trained.done.returncode == 0, trained.done.stderr
        first, second = trained.values("seed")
        assert first == second, "the arms of one sweep are paired"
        assert [run["seed"] for run in trained.plan["arms"]] == [first, second]
    assert trained.done.stderr.count("is complete") == 2
    assert verify(trained.folder).returncode == 0


EDITING = """
import sys
from harness.runs import run
before = run.run
def edited(*arguments, **named):
    result = before(*arguments, **named)
    path = {path!r}
    text = open(path).read().replace("lr: 0.1", "lr: 0.0001")
    open(path, "w").write(text)
    return result
run.run = edited
sys.argv = ["train.py", *{words!r}]
import runpy
runpy.run_path({train!r}, run_name="__main__")
"""


@pytest.mark.slow
def test_a_file_that_is_edited_while_a_sweep_runs_trains_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "more/optimizer").mkdir(parents=True)
    edited = tmp_path / "more/optimizer/mine.yaml"
    edited.write_text("defaults:\n  - sgd\n  - _self_\nlr: 0.1\n")
    words = ["--config-dir", str(tmp_path / "more"), "-m", *S, "optimizer=mine", "scheduler.t_mult=1,2",
             f"hydra.sweep.dir={tmp_path / 'sweep'}", f"store.dir={tmp_path / 'store'}"]  # fmt: skip
    code = EDITING.format(path=str(edited), words=words, train=str(ROOT / "train.py"))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: optimizer.lr=0.0001 (was 0.1): is not what " in done.stderr
    assert "Traceback" not in done.stderr
    trained = Trained(tmp_path / "sweep", done)
    statuses = [
        (tmp_path / "sweep" / run["folder"] / "result.json").exists()
        for run in trained.plan["arms"]
    ]
    assert statuses == [True, False], "the second was refused"
    assert not list((tmp_path / "store").rglob("*.outcome")), "and nothing of it is remembered"

    edited.write_text("defaults:\n  - sgd\n  - _self_\nlr: 0.1\n")
    again = forked.complete("train.py", *words)
    assert again.returncode == 0, again.stderr
    assert trained.values("optimizer.lr") == [0.1, 0.1]
    assert verify(trained.folder).returncode == 0

    shown = forked.complete(ROOT / "scripts/preview.py", *words, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "t_mult=2" in shown.stdout


@pytest.mark.slow
def test_a_sweeps_own_folder_takes_what_leaves_its_runs_the_same(
    sweep: Callable[..., Trained], tmp_path: Path
) -> None:
    trained = sweep("scheduler.t_mult=1,2")
    before = (trained.folder / "plan.json").read_bytes()
    for more in (
        ("retry=true",), ("reuse=false",), ("tracking=wandb", "tracking.mode=offline"),
        ("tracking.mode=offline", "tracking=wandb", "tracking.tags=[late]"), ("store.keep=last",),
        (f"store.dir={tmp_path / 'other'}",), ("trainer.checkpoint_every=0.5",),
    ):  # fmt: skip
        again = sweep("scheduler.t_mult=1,2", *more)
        assert again.done.returncode == 0, (more, again.done.stderr)
        assert (trained.folder / "plan.json").read_bytes() == before
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


@pytest.mark.parametrize(
    ("subdir", "seeds"),
    [(".hydra", "0,1,2"), (".hydra", "shuffle(0,1,2)"), (".", "shuffle(0,1,2)")],
)
def test_hydras_files_stay_with_the_run_that_they_are_about(
    main: Main, tmp_path: Path, subdir: str, seeds: str
) -> None:
    """Also where the sweep's folder is given with `..`, or is the place of these files itself."""
    sweep = tmp_path / "sweep"
    where = (f"hydra.sweep.dir={os.path.relpath(sweep, ROOT)}", f"store.dir={tmp_path / 'store'}")
    done = main("-m", *S, *where, f"hydra.output_subdir={subdir}", f"seed={seeds}")
    assert done.returncode == 0, done.stderr
    for number in range(3):
        run = sweep / str(number)
        assert json.loads((run / "result.json").read_text())["status"] == "complete"
        assert (run / "history.jsonl").exists()
        overrides = run / subdir / "overrides.yaml"
        assert overrides.exists() or "shuffle" in seeds
        assert not overrides.exists() or f"seed={number}" in overrides.read_text()


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


@pytest.mark.parametrize(
    "swept",
    [
        pytest.param(["optimizer.nesterov=0,1"], id="truth as numbers", marks=pytest.mark.slow),
        pytest.param(["optimizer.nesterov=on,off"], id="truth as words", marks=pytest.mark.slow),
        pytest.param(["scheduler=multistep", "++scheduler.milestones=[1.0],[1.5,2]", "++scheduler.gamma=0.5"], id="lists"),
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


@pytest.mark.parametrize(
    ("subdir", "folders"),
    [
        ("'t_mult=${scheduler.t_mult}'", ["t_mult=1", "t_mult=2"]),
        pytest.param("${hydra.job.override_dirname}", None, marks=pytest.mark.slow),
        ("deep/${hydra.job.num}", ["deep/0", "deep/1"]),
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


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        pytest.param(["hydra.sweep.subdir=same", "seed=0,1"], "seed=0 and seed=1 would share the folder same", id="one folder for all"),
        pytest.param(["hydra.sweep.subdir=../${seed}", "seed=0,1"], "'../0' is not a folder below hydra.sweep.dir", id="elsewhere"),
        pytest.param(["hydra.sweep.dir=", "seed=0,1"], "hydra.sweep.dir: has no value", id="no folder"),
        pytest.param(["seed=0,1,2,0"], "error: seed=0: is in the sweep twice; leave one of them out", id="a seed twice"),
        pytest.param(["scheduler.t_0=1,1.0"], "error: t_0=1.0: is the same run as t_0=1;", id="a level twice"),
        pytest.param(["experiment=article_t_mult,phase_claim"],
                     "error: experiment=article_t_mult: brings a sweep of its own (scheduler.t_mult, seed)", id="sweeps of experiments"),
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


def test_an_experiment_that_is_a_sweep_says_so_without_m(main: Main, tmp_path: Path) -> None:
    done = main("experiment=phase_claim", "trainer.epochs=1", "scheduler.t_0=1", "trainer.evals_per_epoch=1",
                "tracking=none", f"hydra.run.dir={tmp_path / 'run'}", f"store.dir={tmp_path / 'store'}")  # fmt: skip
    assert done.returncode == 0
    assert "warning: this experiment is a sweep over arm, seed, which takes -m" in done.stderr


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


# --- verify_sweep --------------------------------------------------------------------------------


def _changed(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        document = json.loads((folder / name).read_text())
        change(document)
        (folder / name).write_text(json.dumps(document))

    return apply


def _both_configs(folder: Path) -> None:
    for name in ("result.json", "config.json"):
        _changed(name, lambda document: document["config"]["optimizer"].update(lr=0.2))(folder)


def _row(number: int, **values: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        rows[number] |= values
        (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    return apply


def _exchanged(folder: Path) -> None:
    """All but the names of two runs, the other way round."""
    other = folder.parent / "1"
    names = ("config", "name", "arm", "swept", "seed", "overrides", "claim_sha256")
    one, two = (json.loads((home / "result.json").read_text()) for home in (folder, other))
    for home, own, foreign in ((folder, one, two), (other, two, one)):
        (home / "result.json").write_text(
            json.dumps(foreign | {name: own[name] for name in names if name in own})
        )
    for name in ("history.jsonl", "lr.npy"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes((other / name).read_bytes())
        (other / name).write_bytes(content)


def _damaged(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    store = folder.parent.parent / "store"
    shutil.copytree(result["config"]["store"]["dir"], store)
    for path in (store / result["fingerprint"]).glob("*.pt"):
        path.write_bytes(path.read_bytes()[:100])
    for name in ("config.json", "result.json"):
        document = json.loads((folder / name).read_text())
        document["config"]["store"]["dir"] = str(store)
        (folder / name).write_text(json.dumps(document))


def _planned(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda folder: _changed("plan.json", change)(folder.parent)


def _without_row(folder: Path) -> None:
    lines = (folder / "history.jsonl").read_text().splitlines(keepends=True)
    (folder / "history.jsonl").write_text("".join([*lines[:1], *lines[2:]]))


def _lr(folder: Path) -> None:
    import numpy as np

    plan = np.load(folder / "lr.npy")
    plan[1] *= 1.5
    np.save(folder / "lr.npy", plan)


FAULTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "another LR in the result": ("in config.json", _changed("result.json", lambda r: r["config"]["optimizer"].update(lr=0.2))),
    "another configuration than planned": (
        "in plan.json",
        _both_configs,
    ),
    "another level": ("is called scheduler.t_mult=2, was trained with 1", _changed("result.json", lambda r: r["swept"].update({"scheduler.t_mult": "2"}))),
    "another name": ("name is 'other'", _changed("result.json", lambda r: r.update(name="other"))),
    "another accuracy": ("the last row of history.jsonl", _changed("result.json", lambda r: r["final"].update({"val/acc": 99.0}))),
    "another best": ("the history's best", _changed("result.json", lambda r: r["best"].update({"val/acc": 99.0}))),
    "an accuracy in the history": ("its checkpoint has another row", _row(0, **{"val/acc": 1.0})),
    "an LR in the history": ("not that of lr.npy", _row(0, lr=0.07)),
    "a row is missing": ("lacks rows that were due", _without_row),
    "an LR in the plan": ("lr.npy is not the LR plan of its configuration", _lr),
    "other weights": ("its checkpoint has other weights", _changed("result.json", lambda r: r.update(weights_sha256="0" * 64))),
    "another test result": ("its checkpoint has the test result", _changed("result.json", lambda r: r["test"].update({"test/acc": 99.0}))),
    "another run's id": ("run_id does not follow", _changed("result.json", lambda r: r.update(run_id="0" * 16))),
    "results exchanged": ("lr.npy is not the LR plan of its configuration", _exchanged),
    "another configuration's weights": ("its fingerprint is not that of its configuration", _changed("result.json", lambda r: r.update(data_sha256="0" * 64))),
    "no levels": ("its levels are {}", _changed("result.json", lambda r: r.update(swept={}))),
    "failed, it says": ("is failed, but its history reaches the end", _changed("result.json", lambda r: r.update(status="failed", error="no memory"))),
    "a row too few": ("has a run that plan.json does not name", _planned(lambda p: p["arms"].pop(0))),
    "a row twice": ("is the folder of several rows", _planned(lambda p: p["arms"].append(p["arms"][0]))),
    "a checkpoint that is damaged": ("its checkpoint is damaged", _damaged),
    "a history that is gone": ("No such file", lambda folder: (folder / "history.jsonl").unlink()),
    "fewer updates": ("are not the 6 of lr.npy", _changed("result.json", lambda r: r.update(updates_trained=1))),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    words = [
        "-m",
        *S,
        "scheduler.t_mult=1,2",
        f"hydra.sweep.dir={folder / 'sweep'}",
        f"store.dir={folder / 'store'}",
    ]
    done = forked.complete("train.py", *words)
    assert done.returncode == 0, done.stderr
    return folder / "sweep"


def test_a_whole_sweep_holds(whole: Path) -> None:
    done = verify(whole)
    assert done.stdout == (
        f"{whole}: 2 rows, 2 with a result, 2 complete; 2 checkpoints held against them; all rows hold\n"
    )
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_row_that_does_not_hold_is_named(whole: Path, tmp_path: Path, fault: str) -> None:
    line, change = FAULTS[fault]
    shutil.copytree(whole, tmp_path / "sweep")
    change(tmp_path / "sweep/0")
    done = verify(tmp_path / "sweep")
    assert done.returncode == 1
    (reported, *_) = [reported for reported in done.stderr.splitlines() if line in reported]
    assert "t_mult=1 " in reported or "row" in fault, "it names the row"
    assert "Traceback" not in done.stderr
    assert done.stdout.endswith("faults\n")


def test_a_plan_of_no_sweep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"arms": []}')
    with pytest.raises(ConfigError, match="was planned by another version"):
        sweep_plan.read_frozen(tmp_path)
