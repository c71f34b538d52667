"""End to end through the command line: real sweeps, real offline W&B runs, real signals."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked
import pytest
from conftest import ROOT, essential, make_config

from harness.analysis import results, run_tables
from harness.analysis.verdict import Claim
from harness.config.hydra_private import last_given
from harness.runs.context import PhaseTimer, RunContext
from harness.runs.run import run
from harness.runs.run_dir import RunInfo
from harness.runs.setup import prepare
from harness.store.store import Store

TINY = (
    "dataset=synthetic",
    "dataset.images=200",
    "dataset.classes=4",
    "dataset.image_size=4",
    "model.width=2",
    "trainer.batch_size=16",
    "scheduler.t_0=1",
    "trainer.epochs=3",
    "tracking=none",
)


@dataclass(frozen=True)
class Sweep:
    """A finished multirun: its folder and what it printed."""

    folder: Path
    done: subprocess.CompletedProcess[str]

    def result(self, number: int) -> dict[str, Any]:
        result: dict[str, Any] = json.loads((self.folder / f"{number}/result.json").read_text())
        return result

    def rows(self, number: int) -> list[dict[str, Any]]:
        text = (self.folder / f"{number}/history.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]


def command(folder: Path, *overrides: str) -> list[str]:
    where = ["hydra.run.dir", "hydra.sweep.dir"]
    return [str(ROOT / "train.py"), *overrides, f"store.dir={folder / 'store'}",
            *(f"{key}={folder / 'out'}" for key in where)]  # fmt: skip


def train(folder: Path, *overrides: str) -> Sweep:
    return Sweep(folder / "out", forked.complete(*command(folder, *overrides), cwd=folder))


# --- the main job --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def main_job(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """The README's sweep with four seeds, shorter: eight jobs in one process, tracked offline."""
    return train(
        tmp_path_factory.mktemp("main"),
        *("-m", "scheduler=cosine_warm", "scheduler.t_mult=1,2", "seed=0,1,2,3"),
        *(
            "scheduler.t_0=1",
            "trainer.epochs=3",
            "tracking.mode=offline",
            "tracking.tags=[one,two]",
        ),
    )


def test_the_sweep_is_complete_and_prints_its_table(main_job: Sweep) -> None:
    assert main_job.done.returncode == 0, main_job.done.stderr
    header, rule, first, second, _, verdict, _, *written = main_job.done.stdout.splitlines()
    assert header.split()[:2] == ["arm", "seeds"]
    assert set(rule) == {"-", " "}
    assert [line.split()[:2] for line in (first, second)] == [["t_mult=1", "4"], ["t_mult=2", "4"]]
    final = [main_job.result(number)["final"]["val/acc"] for number in range(4)]
    assert f"{sum(final) / 4:.2f} ±" in first
    assert verdict.startswith("verdict: scheduler.t_mult=2 against 1 – too few pairs: ")
    assert {Path(path).name for path in written} == {
        "verdict.json", "lr.png", "val_acc.png", "verdict.png", "runs.csv", "history.parquet", "report.html",
    }  # fmt: skip
    for path in written:
        begin = {
            "png": b"\x89PNG",
            "html": b"<!DOCTYPE html>",
            "json": b"{",
            "csv": b"sweep,",
            "parquet": b"PAR1",
        }[path.rpartition(".")[2]]
        assert Path(path).read_bytes().lstrip().lower().startswith(begin.lower())
        assert b"https://cdn" not in Path(path).read_bytes(), "a page needs no network"


def test_the_sweep_ends_in_a_verdict_on_the_claim_that_its_plan_fixed(main_job: Sweep) -> None:
    claim = json.loads((main_job.folder / "plan.json").read_text())["claim"]
    assert claim["factor"] == "scheduler.t_mult"
    assert (claim["baseline"], claim["treatments"], claim["seeds"]) == ("1", ["2"], [0, 1, 2, 3])
    assert {main_job.result(number)["claim_sha256"] for number in range(8)} == {claim["sha256"]}
    verdict = json.loads((main_job.folder / "verdict.json").read_text())
    assert verdict["claim_changed"] is False
    (compared,) = verdict["comparisons"]
    differences = [pair["difference"] for pair in compared["pairs"]]
    finals = [main_job.result(number)["final"]["val/acc"] for number in range(8)]
    assert differences == pytest.approx([finals[n + 4] - finals[n] for n in range(4)])
    assert compared["verdict"] == "too few pairs", "four pairs decide nothing"


def report(*arguments: Path | str) -> str:
    done = forked.complete("scripts/report.py", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_claim_that_was_changed_afterwards_is_called_so(main_job: Sweep, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(main_job.folder, copy)
    plan = json.loads((copy / "plan.json").read_text())
    plan["claim"] = Claim.from_dict(plan["claim"] | {"margin": 0.01}).to_dict()
    (copy / "plan.json").write_text(json.dumps(plan))
    assert "verdict: the claim was changed after the plan was written; " in report(copy)
    assert json.loads((copy / "verdict.json").read_text())["claim_changed"] is True


@pytest.mark.slow
def test_an_unfinished_sweep_has_visible_holes(main_job: Sweep, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(main_job.folder, copy)
    (copy / "5/result.json").unlink()
    plan = json.loads((copy / "plan.json").read_text())
    printed = report(copy)
    assert "t_mult=2  3 of 4" in printed
    verdict = json.loads((copy / "verdict.json").read_text())
    (compared,) = verdict["comparisons"]
    assert compared["n"] == 3
    assert compared["left_out"] == [{"name": plan["arms"][5]["name"], "status": "missing"}]
    joined = report(copy, main_job.folder, "--out", tmp_path / "joined")
    assert [line.split()[1] for line in joined.splitlines()[2:4]] == ["4", "4"], "once a run"


def test_snapshot_ensembles_begin_with_the_run_itself(main_job: Sweep) -> None:
    done = forked.complete("scripts/snapshot_ensemble.py", main_job.folder)
    assert done.returncode == 0, done.stderr
    for number, cycles in ((0, 3), (4, 2)):
        path = main_job.folder / f"{number}/snapshots.json"
        accuracies = json.loads(path.read_text())["test/acc"]
        path.unlink()
        assert len(accuracies) == cycles
        assert accuracies[0] == main_job.result(number)["test"]["test/acc"]


def test_the_sweep_says_what_it_costs_and_shares_the_first_cycle(main_job: Sweep) -> None:
    announced = main_job.done.stderr.splitlines()[0]
    assert "8 runs, 24 epochs, 19.5 to train since beginnings are shared" in announced
    trained = sum(main_job.result(number)["updates_trained"] for number in range(8))
    assert trained / 8 == 19.5, "updates an epoch: 8"


def test_results_say_where_runs_come_from(main_job: Sweep) -> None:
    first, treated = main_job.result(0), main_job.result(4)
    assert first["status"] == treated["status"] == "complete"
    assert first["updates_reused"] == 0
    assert treated["updates_reused"] == 9
    assert treated["parent"].startswith(treated["fingerprint"])
    assert first["plan"]["restart_epochs"] == [1, 2]
    assert treated["plan"]["restart_epochs"] == [1]
    assert first["config"]["scheduler"] == {
        "kind": "cosine_warm", "warmup": 0.0, "interval": "batch", "unit": "epoch",
        "t_0": 1.0, "t_mult": 1, "eta_min": 0.0, "decay": 1.0, "cycle_warmup": 0.0,
    }  # fmt: skip
    assert first["numerics"]["device"] == "cpu"


@pytest.mark.parametrize("number", essential([5, 0]))
def test_a_run_of_a_sweep_equals_the_same_run_alone(
    main_job: Sweep, tmp_path: Path, number: int
) -> None:
    overrides = [word for word in main_job.result(number)["overrides"] if "tracking" not in word]
    for attempt in ("once", "twice"):
        folder = tmp_path / attempt
        folder.mkdir()
        alone = run(
            RunContext(make_config(*overrides, "reuse=false"), RunInfo(folder, "alone"))
        ).to_json()
        history = (folder / "history.jsonl").read_bytes()
        assert history == (main_job.folder / f"{number}/history.jsonl").read_bytes()
        assert alone["weights_sha256"] == main_job.result(number)["weights_sha256"]


def test_histories_have_no_wall_clock_and_end_with_an_evaluation(main_job: Sweep) -> None:
    rows = main_job.rows(0)
    assert {name for row in rows for name in row} == {
        "step", "epoch", "lr", "train/loss", "val/acc", "val/loss",
    }  # fmt: skip
    assert [row["step"] for row in rows] == [8, 10, 16, 20, 24]
    assert rows[-1] == main_job.result(0)["final"]


# --- Weights & Biases ----------------------------------------------------------------------------


def inspect(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The records of the one offline run below `folder`, by type, as wandb itself reads them."""
    (log,) = folder.glob("wandb/offline-run-*/*.wandb")
    wandb = Path(sys.executable).parent / "wandb"
    printed = subprocess.run(
        [wandb, "leet", "inspect", "--json", log], capture_output=True, text=True, check=True
    )
    records: dict[str, list[dict[str, Any]]] = {}
    for line in printed.stdout.splitlines():
        record = json.loads(line)
        records.setdefault(record["type"], []).append(record[record["type"]])
    return records


@pytest.mark.slow
def test_eight_jobs_in_one_process_make_eight_clean_runs(main_job: Sweep) -> None:
    ids = set()
    for number in range(8):
        records = inspect(main_job.folder / str(number))
        assert [end["exit_code"] for end in records["exit"]] == [0]
        mirrored = [
            {name: value for name, value in row["item"].items() if not name.startswith("_")}
            for row in records["history"]
        ]
        assert mirrored == main_job.rows(number), "every row of the history, in order, exactly"
        ids.add(records["run"][0]["run_id"])
        assert records["run"][0]["run_id"] == main_job.result(number)["run_id"]
    assert len(ids) == 8


def test_a_wandb_run_is_named_grouped_and_configured(main_job: Sweep) -> None:
    records = inspect(main_job.folder / "5")
    (reported,) = records["run"]
    assert reported["display_name"] == "t_mult=2, seed=1"
    assert reported["run_group"] == "out"
    assert reported["job_type"] == "t_mult=2"
    assert sorted(reported["tags"]) == ["one", "two"]
    assert reported["config"]["update"]["scheduler"]["t_mult"] == 2
    assert reported["config"]["update"]["plan"]["cycle_end_epochs"] == [1, 3]
    metrics = {
        metric.get("name") or metric.get("glob_name"): metric for metric in records["metric"]
    }
    assert metrics["*"]["step_metric"] == "epoch"
    summary: dict[str, Any] = {}
    for record in records["summary"]:
        summary |= record["update"]
    accuracies = [row["val/acc"] for row in main_job.rows(5) if "val/acc" in row]
    assert summary["val/acc"] == {"last": accuracies[-1], "max": max(accuracies)}
    assert summary["test/acc"] == main_job.result(5)["test"]["test/acc"]


# --- arms that end badly -------------------------------------------------------------------------


@pytest.mark.slow
def test_a_diverging_arm_keeps_its_history_and_the_others_go_on(tmp_path: Path) -> None:
    swept = train(tmp_path, "-m", "optimizer.lr=1e5,0.1", *TINY, "trainer.log_every=1")
    assert swept.done.returncode == 0, swept.done.stderr
    diverged, complete = swept.result(0), swept.result(1)
    assert (diverged["status"], complete["status"]) == ("diverged", "complete")
    assert diverged["error"].startswith("the loss of update")
    assert swept.rows(0), "what it had is kept"
    assert "lr=100000.0: diverged: the loss of update" in swept.done.stderr
    assert "lr=100000.0  0 of 1" in swept.done.stdout


@pytest.mark.slow
def test_a_failing_arm_does_not_stop_the_others(tmp_path: Path) -> None:
    swept = train(tmp_path, "-m", "trainer.device=cuda:99,cpu", *TINY)
    assert swept.done.returncode == 1
    failed, complete = swept.result(0), swept.result(1)
    assert (failed["status"], complete["status"]) == ("failed", "complete")
    assert "trainer.device=cuda:99" in failed["error"]
    *_, kept, last = swept.done.stderr.splitlines()
    assert kept == "what is complete is kept; the same command goes on from there"
    assert "1 of 2 runs failed: device=cuda:99" in last
    assert "Traceback" not in swept.done.stderr


def test_a_misfit_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    swept = train(tmp_path, "-m", *TINY, "scheduler.t_mult=1,2", "trainer.epochs=3,0.5")
    assert swept.done.returncode == 1
    assert not list(swept.folder.glob("*/result.json"))
    (line,) = swept.done.stderr.splitlines()
    assert line.startswith("error: epochs=0.5, t_mult=1: scheduler.t_0=1: does not fit")


# --- interruptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "sigterm"])
def test_a_signal_stops_a_run_which_the_same_command_finishes(
    tmp_path: Path, number: signal.Signals
) -> None:
    overrides = (*TINY, "trainer.epochs=4000", "trainer.log_every=1")
    program = forked.Program(tmp_path / "log", *command(tmp_path, *overrides), cwd=tmp_path)
    history = tmp_path / "out/history.jsonl"
    program.until(lambda: history.exists() and history.stat().st_size)
    program.send_signal(number)
    assert program.wait() == 128 + number
    assert program.said.splitlines()[-1].endswith(
        f"stopped by {number.name}; the same command goes on from there"
    )
    first = json.loads((tmp_path / "out/result.json").read_text())
    assert first["status"] == "interrupted"
    settings = make_config(*TINY, "trainer.epochs=4000", f"store.dir={tmp_path / 'store'}")
    stored = prepare(settings, PhaseTimer()).identity
    found = next(Store(tmp_path / "store").checkpoints(stored))
    assert found.step == first["updates_trained"] > 0


@pytest.mark.parametrize("multirun", [True, False], ids=["sweep", "run"])
@pytest.mark.slow
def test_the_printed_command_goes_on_in_the_same_folder(tmp_path: Path, multirun: bool) -> None:
    words = last_given([*TINY, "trainer.log_every=1", "trainer.epochs=150", f"store.dir={tmp_path / 'store'}"])  # fmt: skip
    words = ["-m", "seed=0,1", *words] if multirun else words
    program = forked.Program(tmp_path / "log", str(ROOT / "train.py"), *words, cwd=tmp_path)
    program.until(lambda: list(tmp_path.glob("*/**/history.jsonl")))
    program.send_signal(signal.SIGINT)
    assert program.wait() == 128 + signal.SIGINT
    (history,) = tmp_path.glob("*/**/history.jsonl")
    folder, key = history.parent, "hydra.run.dir"
    if multirun:
        folder, key = folder.parent, "hydra.sweep.dir"
    printed = program.said.splitlines()[-1]
    assert printed == f"    python {shlex.join([str(ROOT / 'train.py'), *words])} {key}={folder.relative_to(tmp_path)}"  # fmt: skip
    again = forked.complete(*shlex.split(printed)[1:], cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    ended = [json.loads(path.read_text()) for path in folder.rglob("result.json")]
    assert [one["status"] for one in ended] == ["complete"] * (1 + multirun)
    assert max(one["restarts"] for one in ended) == 1
    assert len(list(folder.parent.iterdir())) == 1, "no other folder"


@pytest.mark.slow
def test_an_interrupted_run_is_whole_on_wandb_after_it_went_on(tmp_path: Path) -> None:
    overrides = (*TINY[:-1], "trainer.epochs=63", "tracking.mode=offline", "scheduler.t_mult=2")
    program = forked.Program(tmp_path / "log", *command(tmp_path, *overrides), cwd=tmp_path)
    history = tmp_path / "out/history.jsonl"
    program.until(lambda: history.exists() and history.stat().st_size)
    program.send_signal(signal.SIGTERM)
    assert program.wait() == 128 + signal.SIGTERM
    again = train(tmp_path, *overrides)
    assert again.done.returncode == 0, again.done.stderr
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["updates_reused"] > 0
    assert result["restarts"] == 1
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    mirrored = [
        {name: value for name, value in row["item"].items() if not name.startswith("_")}
        for row in inspect(tmp_path / "out")["history"]
    ]
    assert mirrored == rows, "each point once"


# --- the reader ----------------------------------------------------------------------------------


def test_the_reader_flags_runs_that_begin_alike_but_differ(main_job: Sweep, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(main_job.folder, copy)
    assert run_tables.disagreements(results.read(copy)) == []
    path = copy / "5/history.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["train/loss"] += 1e-9
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run_tables.disagreements(results.read(copy)) == [
        "t_mult=1, seed=1 and t_mult=2, seed=1 begin alike but differ at update 8"
    ]
