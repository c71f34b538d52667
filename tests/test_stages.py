"""Sweeps that go on until decided, and whose arms tune before, through the command line: what is trained, and when."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked
import pytest
from conftest import ROOT, Main, verified

from harness.analysis import results
from harness.analysis.needed import NOT_NEEDED

TINY = (
    "-m", "dataset=synthetic", "dataset.images=200", "dataset.classes=4", "dataset.image_size=4",
    "model.width=2", "trainer.batch_size=16", "scheduler.t_0=1", "trainer.epochs=3",
    "tracking=none",
)  # fmt: skip
UNTIL = ("claim.until=decided", "claim.most=8")
NO_LR, TINIER, GOOD_LR, TOO_MUCH = "1e-06", "2e-06", "0.1", "9e5"  # the second trains as little


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def placed(folder: Path, *overrides: str) -> list[str]:
    return [*TINY, *overrides, f"hydra.sweep.dir={folder / 'out'}", f"store.dir={folder / 'store'}"]


def trained(sweep: Path) -> dict[str, list[int]]:
    """The seeds of each arm that left a result."""
    found: dict[str, list[int]] = {}
    for path in sweep.glob("*/result.json"):
        result = read(path)
        found.setdefault(result["arm"], []).append(result["config"]["seed"])
    return {arm: sorted(seeds) for arm, seeds in sorted(found.items())}


def weights(sweep: Path) -> dict[str, str]:
    return {r["name"]: r["weights_sha256"] for r in map(read, sweep.glob("*/result.json"))}


def judged(sweep: Path) -> dict[str, Any]:
    """The verdict without what depends on time and place."""
    verdict = read(sweep / "verdict.json")
    verdict["looks"].pop("seconds")
    for part in verdict["tuning"]:
        part.pop("seconds")
    return {k: v for k, v in verdict.items() if k not in ("provenance", "sentence")}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One treatment that is decided at the first look, one that never is."""
    folder = tmp_path_factory.mktemp("until")
    words = placed(folder, *UNTIL, f"optimizer.lr={NO_LR},{GOOD_LR},{TINIER}")
    done = forked.complete("train.py", *words)
    (folder / "out/printed").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.mark.slow
def test_settled_arms_get_no_more_seeds_and_the_baseline_goes_on(sweep: Path) -> None:
    assert trained(sweep) == {
        f"lr={NO_LR}": [*range(8)], f"lr={GOOD_LR}": [*range(6)], f"lr={TINIER}": [*range(8)]
    }  # fmt: skip
    good, tiny = read(sweep / "verdict.json")["comparisons"]
    assert (good["treatment"], good["n"], good["stopped"]) == (GOOD_LR, 6, "decided")
    assert good["verdict"] == "supported"
    assert [look["pairs"] for look in tiny["path"]] == [6, 8]
    assert tiny["stopped"] is None


@pytest.mark.slow
def test_runs_that_were_not_needed_are_neither_missing_nor_in_the_table(sweep: Path) -> None:
    statuses = results.read(sweep)
    unneeded = statuses.filter(status=NOT_NEEDED)
    assert unneeded["name"].to_list() == [f"lr={GOOD_LR}, seed={seed}" for seed in (6, 7)]
    assert set(statuses["status"]) == {"complete", NOT_NEEDED}
    printed = (sweep / "printed").read_text()
    assert "2 planned runs were not needed" in printed
    assert "missing" not in printed
    assert "missing" not in (sweep / "report.html").read_text().partition("<script")[0]
    assert verified(sweep)


@pytest.mark.slow
def test_looks_boundaries_and_the_order_of_seeds_are_in_the_plan(sweep: Path) -> None:
    plan = read(sweep / "plan.json")
    assert plan["claim"]["looks"] == [6, 8]
    assert plan["claim"]["seeds"] == [*range(8)]
    assert plan["boundaries"][0] == pytest.approx(0.025 * (6 / 8) ** 2)
    assert len(plan["arms"]) == 24
    assert [run["seed"] for run in plan["arms"]] == [seed for seed in range(8) for _ in range(3)]


@pytest.mark.slow
def test_a_look_that_is_judged_again_gives_the_same(sweep: Path, report: Main) -> None:
    before = judged(sweep)
    assert report(sweep).returncode == 0
    assert judged(sweep) == before


@pytest.mark.slow
def test_progress_names_look_state_and_pairs(sweep: Path) -> None:
    printed = (sweep / "printed").read_text()
    assert (
        "look 1 of 2, 6 of at most 8 pairs; points of val/acc (repeated 95 % interval):" in printed
    )
    assert f"optimizer.lr={GOOD_LR} against {NO_LR}: " in printed
    assert "decided with 6 pairs" in printed
    assert "open after all 8 pairs" in printed


@pytest.mark.slow
def test_a_run_that_its_surroundings_stop_holds_its_look_open(tmp_path: Path, main: Main) -> None:
    words = placed(tmp_path, *UNTIL, f"optimizer.lr={NO_LR},{GOOD_LR}")
    out = tmp_path / "out"
    (out / "3/starts.txt").mkdir(parents=True)  # no run can write it
    done = main(*words)
    assert done.returncode == 1
    assert "error: 1 of 16 runs failed: lr=0.1, seed=1: " in done.stderr
    (comparison,) = read(out / "verdict.json")["comparisons"]
    assert comparison["verdict"] == "interim"
    assert comparison["there"] == 5
    assert comparison["planned"] == 6
    (out / "3/starts.txt").rmdir()
    done = main(*words)
    assert done.returncode == 0, done.stderr
    assert "11 of 16 runs are complete" in done.stderr
    (comparison,) = read(out / "verdict.json")["comparisons"]
    assert (comparison["verdict"], comparison["n"]) == ("supported", 6)


@pytest.mark.slow
def test_a_run_that_diverges_fills_its_pair(tmp_path: Path, main: Main) -> None:
    done = main(*placed(tmp_path, *UNTIL, f"optimizer.lr={GOOD_LR},{TOO_MUCH}"))
    assert done.returncode == 0, done.stderr
    (comparison,) = read(tmp_path / "out/verdict.json")["comparisons"]
    assert (comparison["verdict"], comparison["n"]) == ("worse", 6)
    assert len(comparison["intention_to_treat"]["filled"]) == 6


TUNE = ("claim.tune=optimizer.lr", "claim.grid=[0.001,0.002]", "claim.tuning_seeds=2")
CLAIM = ("scheduler.t_mult=1,2",)


@pytest.mark.slow
def test_each_arm_tunes_on_other_seeds_before_the_claim(tmp_path: Path, main: Main) -> None:
    done = main(*placed(tmp_path, *TUNE, *CLAIM, "seed=0,1"))
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    plan, tuning = read(out / "plan.json"), read(out / "tuning/plan.json")
    assert tuning["claim"] is None
    assert {run["seed"] for run in tuning["arms"]} == {1000, 1001}
    for arm in plan["tuning"]["arms"]:
        assert 2 <= len(arm["tried"]) <= 5
        runs = [run for run in plan["arms"] if run["arm"] == arm["arm"]]
        assert {run["overrides"][-1] for run in runs} == {f"optimizer.lr={arm['value']}"}
    lrs = {r["arm"]: r["config"]["optimizer"]["lr"] for r in map(read, out.glob("*/result.json"))}
    assert lrs == {arm["arm"]: float(arm["value"]) for arm in plan["tuning"]["arms"]}
    assert "optimizer.lr was chosen by val/acc on 2 other seeds" in done.stdout
    assert verified(out)


@pytest.mark.slow
def test_the_grid_goes_on_where_the_best_is_at_its_edge(tmp_path: Path, main: Main) -> None:
    """An LR of millionths trains nothing, so that twice as much is better as long as it is tried."""
    grid = ("claim.tune=optimizer.lr", "claim.grid=[0.0005,0.001]", "claim.tuning_seeds=2")
    done = main(*placed(tmp_path, *grid, *CLAIM, "seed=0,1", "trainer.epochs=5"))
    assert done.returncode == 0, done.stderr
    arms = read(tmp_path / "out/plan.json")["tuning"]["arms"]
    tried = [list(arm["tried"]) for arm in arms]
    assert ["0.0005", "0.001", "0.002", "0.004", "0.008"] in tried
    (edge,) = {arm["edge"] for arm in arms if len(arm["tried"]) == 5}
    assert edge == ("at the edge of what was tried" in done.stdout)


@pytest.mark.slow
def test_with_tuned_over_the_baseline_runs_at_every_value(tmp_path: Path, main: Main) -> None:
    over = "claim.tuned_over=optimizer.lr"
    done = main(*placed(tmp_path, *TUNE, *CLAIM, over, *UNTIL))
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    plan = read(out / "plan.json")
    baseline, treatment = plan["tuning"]["arms"]
    lrs = {run["swept"]["optimizer.lr"] for run in plan["arms"] if "t_mult=1" in run["arm"]}
    assert lrs == set(baseline["tried"])
    lrs = {run["swept"]["optimizer.lr"] for run in plan["arms"] if "t_mult=2" in run["arm"]}
    assert lrs == {treatment["value"]}
    (comparison,) = read(out / "verdict.json")["comparisons"]
    assert {one["value"] for one in comparison["tuned"]["against"]} == set(baseline["tried"])
    assert verified(out)


@pytest.mark.slow
def test_a_tuned_sweep_goes_on_with_other_words_for_the_same(tmp_path: Path, main: Main) -> None:
    """Where files go and the order of the words make no other runs."""
    words = placed(tmp_path, *TUNE, *CLAIM, "seed=0,1")
    assert main(*words).returncode == 0
    before = weights(tmp_path / "out"), starts(tmp_path / "out")
    reordered = [words[0], *reversed(words[1:]), "store.keep=last", "reuse=false"]
    done = main(*reordered)
    assert done.returncode == 0, done.stderr
    assert (weights(tmp_path / "out"), starts(tmp_path / "out")) == before


@pytest.mark.slow
def test_a_key_of_the_scheduler_can_be_tuned_and_tuned_over(tmp_path: Path, main: Main) -> None:
    """It is swept then, and the factor is still the other one."""
    words = ("claim.tune=scheduler.eta_min", "claim.grid=[0.001,0.002]", "claim.tuning_seeds=2")
    over = "claim.tuned_over=scheduler.eta_min"
    done = main(*placed(tmp_path, *words, over, *CLAIM, "seed=0,1"))
    assert done.returncode == 0, done.stderr
    claim = read(tmp_path / "out/plan.json")["claim"]
    assert (claim["factor"], claim["tuned_over"]) == ("scheduler.t_mult", "scheduler.eta_min")
    assert claim["inferred"]
    assert {one["invalid"] for one in read(tmp_path / "out/verdict.json")["comparisons"]} == {""}


@pytest.mark.slow
def test_an_accuracy_of_zero_is_one(tmp_path: Path, main: Main) -> None:
    words = ("dataset.classes=20", "dataset.val_size=20", "claim.tuning_seeds=4", "seed=0,1")
    done = main(*placed(tmp_path, *TUNE[:2], *CLAIM, *words))
    assert done.returncode == 0, done.stderr
    arms = read(tmp_path / "out/plan.json")["tuning"]["arms"]
    assert 0 in [acc for arm in arms for tried in arm["tried"].values() for acc in tried]


@pytest.mark.slow
def test_retry_trains_again_what_diverged(tmp_path: Path, main: Main) -> None:
    words = placed(tmp_path, *UNTIL, f"optimizer.lr={GOOD_LR},{TOO_MUCH}")
    assert main(*words).returncode == 0
    before = starts(tmp_path / "out")
    assert main(*words).returncode == 0
    assert starts(tmp_path / "out") == before
    assert main(*words, "retry=true").returncode == 0
    again = {place for place, count in starts(tmp_path / "out").items() if count > before[place]}
    assert again == {str(number) for number in range(1, 12, 2)}


def test_arms_that_diverge_at_every_value_are_refused(tmp_path: Path, main: Main) -> None:
    grid = ("claim.tune=optimizer.lr", "claim.grid=[9e5,8e5]", "claim.tuning_seeds=2")
    done = main(*placed(tmp_path, *grid, "scheduler.t_mult=1,2", "seed=0,1"))
    assert done.returncode == 1
    assert "claim.grid: t_mult=1 diverged at each of 900000, 800000; take other" in done.stderr
    assert not (tmp_path / "out/plan.json").exists()


REFUSED = {
    "most beside swept seeds": (
        ("claim.until=decided", "claim.most=8", "seed=range(0,7)", "scheduler.t_mult=1,2"),
        "claim.most=8: 7 seeds are swept, and looks take those; leave one of the two out",
    ),
    "too few pairs": (
        ("claim.until=decided", "claim.most=4", "scheduler.t_mult=1,2"),
        "claim: looks=[4]: must begin with 6 pairs or more, the fewest that can show",
    ),
    "looks without until": (
        ("claim.looks=[6,8]", "scheduler.t_mult=1,2"), "claim.looks=[6,8]: looks need claim.until",
    ),
    "looks that fall": (
        ("claim.until=decided", "claim.looks=[8,6]", "scheduler.t_mult=1,2"),
        "claim.looks=[8,6]: must be rising numbers of pairs, as in [6,10,20]",
    ),
    "nothing to judge": (
        ("claim.until=decided", "scheduler.t_mult=1"),
        "claim.until: is for a sweep that judges a claim; nothing but seeds is swept",
    ),
    "another sweeper": (
        ("claim.until=decided", "hydra/sweeper=basic", "scheduler.t_mult=1,2"),
        "hydra/sweeper: BasicSweeper trains what it is given, and claim.until is set; leave",
    ),
    "a tuned key that is given": (
        (*TUNE, "optimizer.lr=0.1", "scheduler.t_mult=1,2"),
        "optimizer.lr=0.1: is tuned by claim.tune; leave it out",
    ),
    "most without until": (
        ("claim.most=10", "scheduler.t_mult=1,2"), "claim.most=10: is for claim.until=decided; give",
    ),
    "a question without looks": (
        ("claim.decide=margin", "scheduler.t_mult=1,2"), "claim.decide=margin: is for claim.until",
    ),
    "a tuned key that trains nothing": (
        ("claim.tune=claim.margin", "claim.grid=[1,2]", "scheduler.t_mult=1,2"),
        "claim.tune=claim.margin: changes nothing that an arm could choose; take another key",
    ),
    "tuned_over that is neither tuned nor swept": (
        (*TUNE, "claim.tuned_over=optimizer.momentum", "scheduler.t_mult=1,2"),
        "claim.tuned_over=optimizer.momentum: is not swept",
    ),
    "tuned_over one of two keys": (
        ("claim.tune=[optimizer.lr,optimizer.momentum]", "claim.grid=[[0.1,0.2],[0.5,0.9]]",
         "claim.tuned_over=optimizer.lr", "scheduler.t_mult=1,2"),
        "claim.tuned_over=optimizer.lr: does not go with two tuned keys; tune it alone",
    ),
    "tune without a grid": (
        ("claim.tune=optimizer.lr", "scheduler.t_mult=1,2"),
        "claim.tune=optimizer.lr: needs claim.grid, as in claim.grid=[A,B,C]",
    ),
    "a grid for one key of two": (
        ("claim.tune=[optimizer.lr,optimizer.weight_decay]", "claim.grid=[1,2]", "scheduler.t_mult=1,2"),
        "claim.grid=[1,2]: must be a list of values, with two keys a list of each",
    ),
    "seeds of tuning": (
        (*TUNE, "scheduler.t_mult=1,2", "seed=1000,1001"), "seed=1000: is a seed of tuning too",
    ),
    "a value that does not fit": (
        ("claim.tune=optimizer.lr", "claim.grid=[0.1,x]", "scheduler.t_mult=1,2"),
        "optimizer.lr=x: must be a number > 0 and < 1000000",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_staged_is_refused_before_anything_is_trained(
    tmp_path: Path, main: Main, words: tuple[str, ...], message: str
) -> None:
    done = main(*placed(tmp_path, *words))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not list(tmp_path.glob("out/**/result.json"))
    assert not list(tmp_path.glob("out/**/plan.json"))


def test_the_preview_refuses_seeds_of_tuning_too(tmp_path: Path) -> None:
    words, message = REFUSED["seeds of tuning"]
    done = forked.complete(ROOT / "scripts/preview.py", *placed(tmp_path, *words), cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]


DIGITS = (
    "dataset=digits", "trainer.batch_size=120", "model.width=4", "scheduler.t_0=1",
    "trainer.epochs=3", "scheduler.t_mult=1,2", "tracking=none", "claim.until=decided",
    "claim.most=8", "claim.tune=optimizer.lr", "claim.grid=[0.05,0.1]", "claim.tuning_seeds=2",
    "trainer.checkpoint_every=0",
)  # fmt: skip
PHASES: dict[str, Callable[[Path], bool]] = {
    "tuning": lambda out: (out / "tuning/3/result.json").exists(),
    "a grid that goes on": lambda out: (out / "tuning/8/config.json").exists(),
    "the first look": lambda out: (out / "2/config.json").exists(),
    "the second look": lambda out: (out / "13/config.json").exists(),
}
LAUNCHERS = {
    "one process": (),
    "two processes": ("hydra/launcher=parallel", "hydra.launcher.n_jobs=2"),
}


# Points. Rounding, which is another on another machine, decides at which of them a second look is taken.
MARGINS = (0.2, 13, 11, 9, 15, 7, 17, 5)


@dataclass(frozen=True)
class Whole:
    """The sweep without a break, and the claim's margin, with which it takes its second look on this machine."""

    out: Path
    margin: str


def with_second_look(folder: Path) -> Whole:
    for points in MARGINS:
        margin = f"claim.margin={points}"
        tried = on_digits(folder / str(points), margin, store=folder / "store")
        if PHASES["the second look"](tried):
            return Whole(tried, margin)
    raise AssertionError("there is no second look with any margin")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return with_second_look(tmp_path_factory.mktemp("whole"))


def on_digits(folder: Path, *overrides: str, store: Path | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    program = begun(folder, *overrides, store=store)
    assert program.wait() == 0, program.log.read_text()
    return folder / "out"


def begun(folder: Path, *overrides: str, store: Path | None = None) -> forked.Program:
    """The command in a session of its own; with a launcher of processes it must end as from a shell."""
    words = digits(folder, *overrides, store=store)
    fresh = any("launcher" in word for word in overrides)
    return forked.Program(folder / "log", "train.py", *words, before=os.setsid, fresh=fresh)


def digits(folder: Path, *overrides: str, store: Path | None = None) -> list[str]:
    where = (f"hydra.sweep.dir={folder / 'out'}", f"store.dir={store or folder / 'store'}")
    return ["-m", *DIGITS, *where, *overrides]


def starts(sweep: Path) -> dict[str, int]:
    """How often each run has begun."""
    return {
        str(path.parent.relative_to(sweep)): len(path.read_text().splitlines())
        for path in sweep.glob("**/starts.txt")
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("phase", "launcher"),
    [
        *((phase, "one process") for phase in PHASES),
        ("a grid that goes on", "two processes"),
        ("the second look", "two processes"),
    ],
)
def test_killed_in_each_phase_the_same_command_goes_on_to_the_same_verdict(
    tmp_path: Path, whole: Whole, phase: str, launcher: str
) -> None:
    words = (*LAUNCHERS[launcher], whole.margin)
    program, out = begun(tmp_path, *words), tmp_path / "out"
    deadline = time.monotonic() + 200
    while not PHASES[phase](out):
        assert program.process.is_alive(), program.log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(program.pid, signal.SIGKILL)
    program.process.join()
    ended = {place for place in starts(out) if (out / place / "result.json").exists()}
    on_digits(tmp_path, *words)
    assert judged(out) == judged(whole.out)
    assert weights(out) == weights(whole.out)
    assert weights(out / "tuning") == weights(whole.out / "tuning")
    assert {place: starts(out)[place] for place in ended} == dict.fromkeys(ended, 1)
    assert verified(out)


@pytest.mark.slow
def test_two_processes_come_to_the_same(tmp_path: Path, whole: Whole) -> None:
    out = on_digits(tmp_path, *LAUNCHERS["two processes"], whole.margin)
    assert judged(out) == judged(whole.out)
    assert weights(out) == weights(whole.out)
