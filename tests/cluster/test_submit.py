"""Sweeps that are submitted and left, and runs of several tasks, on a real Slurm."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked
import pytest
from conftest import ROOT, verified
from test_distributed import DOUBLE, assert_close
from test_slurm import rows

from cluster.conftest import EPOCHS, trained
from cluster.conftest import LONG as TRACKED
from cluster.test_slurm import shown, slurm_does, squeue, until
from harness.config.hydra_private import last_given

pytestmark = [
    pytest.mark.usefixtures("slurm", "nothing_left_in_the_queue"),
    pytest.mark.timeout(600),
]

SIZE = (
    "dataset=synthetic", "dataset.images=200", "dataset.classes=4", "dataset.image_size=4",
    "model.width=2", "trainer.batch_size=16", "tracking=none",
)  # fmt: skip
TINY = (*SIZE, "scheduler.t_0=1", "trainer.epochs=3")
LONG = (*TRACKED, "tracking=none")
LAUNCHER = ("cpus_per_task=1", "mem_gb=1", "partition=main")
HOLD = "+hydra.launcher.additional_parameters.hold=true"
LAST = "the same command goes on from the last checkpoint"


@pytest.fixture
def nothing_left_in_the_queue() -> Iterator[None]:
    yield
    subprocess.run(["scancel", "--user", str(os.getuid())], check=False)
    until(lambda: not squeue("%A"), "an empty queue")


@dataclass(frozen=True)
class Sent:
    """A sweep that was submitted, and what the command printed."""

    folder: Path
    out: str

    def result(self, number: int) -> dict[str, Any]:
        path = self.folder / f"{number}/result.json"
        result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return result

    def ended(self, number: int) -> tuple[str, bytes]:
        """Weights and history."""
        history = (self.folder / f"{number}/history.jsonl").read_bytes()
        return self.result(number)["weights_sha256"], history

    def starts(self, number: int) -> int:
        return len((self.folder / f"{number}/starts.txt").read_text().splitlines())

    def jobs(self) -> dict[int, str]:
        return {int(n): job for n, job in read(self.folder / "jobs.json").items()}

    def states(self) -> list[str]:
        return [row[1] for row in self.rows()]

    def rows(self) -> list[list[str]]:
        """The table: arm, state, epoch, accuracy, note."""
        return rows(self.folder)

    def wait_for_epoch(self, number: int, epoch: float = 20) -> None:
        """Until the arm runs, and has got to `epoch`."""

        def far_enough() -> bool:
            _, state, done, *_ = self.rows()[number]
            return state == "running" and done != "-" and float(done) > epoch

        until(far_enough, f"epoch {epoch} of arm {number}: {self.rows()} {self.log()}")

    def log(self) -> str:
        return "\n".join(path.read_text() for path in self.folder.glob(".submitit/*/*.err"))

    def finish(self) -> None:
        """Until the queue is empty, that is, the report is written."""
        until(lambda: not squeue("%A"), "the jobs to end", 240)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def script(name: str, *words: str, **where: Any) -> subprocess.CompletedProcess[str]:
    path = where.pop("repository", ROOT) / f"scripts/slurm/{name}.py"
    return forked.complete(path, *words, **where)


def submit(folder: Path, *overrides: str, **where: Any) -> Sent:
    launcher = [f"hydra.launcher.{word}" for word in LAUNCHER]
    where_to = [f"hydra.sweep.dir={folder / 'out'}"]
    done = script("submit", *launcher, *where_to, *overrides, **{"cwd": folder} | where)
    assert done.returncode == 0, done.stderr
    return Sent(folder / "out", done.stdout)


def again(sent: Sent, **where: Any) -> str:
    done = script("submit", "--again", str(sent.folder), **where)
    assert done.returncode == 0, done.stderr
    return done.stdout


def process_of(sent: Sent, job: str, rank: int = 0) -> int:
    """A process of submitit that runs an arm; other Slurms of this machine may have such jobs."""
    array, _, task = job.partition("_")
    wanted = {f"SLURM_PROCID={rank}".encode(), f"SLURM_JOB_ID={job}".encode()}
    if task:
        wanted ^= {f"SLURM_JOB_ID={job}".encode()}
        wanted |= {f"SLURM_ARRAY_{k}_ID={v}".encode() for k, v in (("JOB", array), ("TASK", task))}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ours = any(str(sent.folder).encode() in word for word in words)
        if ours and b"python" in words[0] and wanted <= set(environment):
            return int(folder.name)
    raise AssertionError(f"no process of job {job}")


def preempt() -> None:
    """A job that needs the whole node comes first, for a second."""
    words = ["--partition=urgent", "--cpus-per-task=8", "--output=/dev/null", "--wrap=sleep 1"]
    other = slurm_does("sbatch", "--parsable", *words)
    until(lambda: shown(other)["JobState"] == "COMPLETED", "the urgent job")


# --- submitted and left --------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep_is_submitted_and_left(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    for name in ("conf", "scripts"):
        shutil.copytree(ROOT / name, repository / name)
    arms = ("scheduler.t_mult=1,2", "seed=0,1", f"store.dir={tmp_path / 'store'}")
    ledger = tmp_path / "ledger.jsonl"
    sent = submit(tmp_path, *TINY, *arms, HOLD, f"ledger.path={ledger}", repository=repository)
    array, report = re.findall(r"submitted: arms (\d+), report (\d+)\n", sent.out)[0]
    assert f"status.py {sent.folder}    scancel {array} {report}" in sent.out
    assert sent.states() == ["queued"] * 4, "nothing waited for what cannot begin"
    assert again(sent) == "nothing to submit: every arm has ended or is on its way\n"

    for path in repository.glob("conf/*/*.yaml"):  # what a job that composed would fail on
        path.write_text(path.read_text().replace("lr:", "lr: 1e-9 # ").replace("momentum:", "m:"))
    plan = read(sent.folder / "plan.json")
    for arm in plan["arms"]:
        arm["overrides"].append("trainer.epochs=50")
    (sent.folder / "plan.json").write_text(json.dumps(plan))
    slurm_does("scontrol", "release", array)
    sent.finish()

    printed = script("status", str(sent.folder))
    assert printed.returncode == 0, printed.stderr
    header, rule, first, *_, counted = printed.stdout.splitlines()
    assert header.split() == ["arm", "state", "epoch", "val/acc", "%"]
    assert set(rule) == {"-", " "}
    accuracy = f"{sent.result(0)['final']['val/acc']:.2f}"
    assert re.split(r"\s{2,}", first) == ["t_mult=1, seed=0", "done", "3", accuracy]
    assert counted == "4 done", sent.log()
    assert "verdict: " in (sent.folder / "report.log").read_text()
    assert read(sent.folder / "verdict.json")["claim"]["factor"] == "scheduler.t_mult"
    assert json.loads(ledger.read_text())["sweep"] == sent.folder.name
    assert (sent.folder / "report.html").read_text().lstrip().lower().startswith("<!doctype html>")
    for number, (t_mult, seed) in enumerate([(1, 0), (1, 1), (2, 0), (2, 1)]):
        own = (*TINY, f"scheduler.t_mult={t_mult}", f"seed={seed}")
        assert sent.ended(number) == trained(tmp_path / f"here{number}", *own)
        assert sent.starts(number) == 1
    assert verified(sent.folder)
    assert {sent.result(number)["group"] for number in range(4)} == {"out"}


BROKEN = """
import os, sys
if any("submitit" in word for word in sys.orig_argv) and os.environ.get("SLURM_PROCID"):
    from harness.training.loop import TrainStep
    train = TrainStep.train
    def broken(self, state, *batches):
        if os.path.exists("broken") and os.environ["SLURM_ARRAY_TASK_ID"] == "0" and state.updates == 5:
            raise MemoryError("no memory here")
        return train(self, state, *batches)
    TrainStep.train = broken
"""


def patched(folder: Path, patches: str) -> dict[str, str]:
    """An environment in which every Python begins with `patches`."""
    path = folder / "patches/sitecustomize.py"
    path.parent.mkdir()
    path.write_text(patches)
    return {**os.environ, "PYTHONPATH": str(path.parent)}


@pytest.mark.slow
def test_again_sends_what_is_missing_or_failed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    env = patched(tmp_path, BROKEN)
    sent = submit(tmp_path, *TINY, "seed=0,1,2", f"store.dir={tmp_path / 'store'}", env=env)
    sent.finish()
    assert sent.states() == ["failed", "done", "done"], sent.log()
    assert sent.rows()[0][2:] == ["-", "-", "no memory here"]
    assert "2 of 3" in (sent.folder / "report.log").read_text()
    shutil.rmtree(sent.folder / "1")
    (tmp_path / "broken").unlink()
    before = sent.jobs()
    (array,) = re.findall(r"submitted: arms (\d+), report \d+\n", again(sent, env=env))
    assert sent.jobs() == {0: f"{array}_0", 1: f"{array}_1", 2: before[2]}
    sent.finish()
    assert sent.states() == ["done"] * 3, sent.log()
    assert [sent.starts(number) for number in range(3)] == [2, 1, 1]
    for number in range(3):
        assert sent.ended(number) == trained(tmp_path / f"here{number}", *TINY, f"seed={number}")
    assert "2 of 3" not in (sent.folder / "report.log").read_text()
    assert verified(sent.folder)
    assert again(sent) == "nothing to submit: every arm has ended or is on its way\n"
    assert not squeue("%A")


@pytest.mark.slow
def test_what_was_to_be_tried_again_is(tmp_path: Path) -> None:
    sent = submit(tmp_path, *TINY, "retry=true", f"store.dir={tmp_path / 'store'}")
    sent.finish()
    assert sent.result(0)["config"]["retry"] is True


@pytest.mark.slow
def test_a_preempted_arm_makes_room_and_goes_on(tmp_path: Path, whole: tuple[str, bytes]) -> None:
    sent = submit(tmp_path, *LONG, f"store.dir={tmp_path / 'store'}")
    assert sent.jobs()[0].isdecimal(), "one arm is no array"
    sent.wait_for_epoch(0)
    preempt()
    sent.finish()
    assert sent.result(0)["restarts"] == 1
    assert sent.result(0)["updates_reused"] > 0
    assert sent.rows()[0][1:3] == ["done", f"{EPOCHS}"]
    assert sent.ended(0) == whole
    report, result = sent.folder / "report.html", sent.folder / "0/result.json"
    assert report.stat().st_mtime > result.stat().st_mtime, "it waited for the requeued job"


@pytest.mark.slow
def test_arms_that_are_requeued_cancelled_and_killed(
    tmp_path: Path, whole: tuple[str, bytes]
) -> None:
    """Four arms of the same training, each with a store of its own, three at a time."""
    sent = submit(tmp_path, *LONG, "store.dir=a,b,c,d", "hydra.launcher.array_parallelism=3")
    jobs = sent.jobs()
    sent.wait_for_epoch(2)
    sent.wait_for_epoch(1)
    name, state, epoch, accuracy, note = sent.rows()[2]
    assert (name, state, note) == ("dir=c", "running", "")
    assert 0 < float(epoch) < EPOCHS
    assert 0 < float(accuracy) <= 100
    assert sent.states()[3] == "queued"
    assert again(sent).startswith("nothing to submit"), "all are on their way"
    assert sent.jobs() == jobs
    slurm_does("scontrol", "requeue", jobs[0])
    slurm_does("scancel", jobs[1], jobs[3])
    os.kill(process_of(sent, jobs[2]), signal.SIGKILL)
    until(lambda: sent.states()[1:] == ["interrupted", "killed", "cancelled"], str(sent.rows()))
    notes = [row[4] for row in sent.rows()]
    assert notes[1] == "stopped by SIGTERM"
    assert notes[2].startswith("srun: error: ")
    assert notes[2].endswith(": task 0: Killed")
    sent.finish()
    assert sent.states()[0] == "done"
    assert sent.result(0)["restarts"] == 1
    assert sent.ended(0) == whole
    report = (sent.folder / "report.html").stat().st_mtime
    assert report > (sent.folder / "0/result.json").stat().st_mtime, "it waited"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again(sent, cwd=elsewhere)
    assert sent.jobs()[0] == jobs[0]
    sent.finish()
    assert sent.states() == ["done"] * 4, sent.log()
    for number in (1, 2, 3):
        assert sent.ended(number) == whole
    assert verified(sent.folder)
    assert sent.result(1)["updates_reused"] > 0
    assert sent.result(2)["updates_reused"] > 0


OWN = """
from torch import nn
from harness.extend import *
from parts import SIZE

@register("mine")
class Mine(Model):
    def build(self, shape):
        return nn.Sequential(nn.Flatten(), nn.Linear(SIZE * shape.image_size**2, shape.classes))
"""


@pytest.mark.slow
@pytest.mark.parametrize("claim", [(), ("claim.tune=optimizer.lr", "claim.grid=[0.05,0.1]", "claim.tuning_seeds=2")], ids=["sweep", "stages"])  # fmt: skip
def test_jobs_have_code_of_ones_own_from_the_command(
    tmp_path: Path, claim: tuple[str, ...]
) -> None:
    """`extensions=[mine.py]` is a path from where it is given, for jobs, for what comes after them, and again."""
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "parts.py").write_text("SIZE = 1\n")
    small = [word for word in TINY if not word.startswith("model.")]
    words = ("extensions=[mine.py]", "model=mine", *small, "scheduler.t_mult=1,2", *claim)
    sent = submit(tmp_path, *words, f"store.dir={tmp_path / 'store'}")
    sent.finish()
    assert sent.states() == ["done"] * 2, sent.log()
    for number in range(2):
        assert sent.result(number)["config"]["extensions"] == [str(tmp_path / "mine.py")]
    shutil.rmtree(sent.folder / "1")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if (
        not claim
    ):  # the plan is there; without the command's word nothing loads the code that it names
        assert again(sent, cwd=elsewhere).startswith("submitted: ")
        sent.finish()
        assert sent.states()[0] == "done"
        log = sent.log() + "".join(map(str, sent.rows()))
        assert (
            "model=mine: is of an extension; name it in the environment as HARNESS_EXTENSIONS"
            in log
        )
    env = os.environ | {"HARNESS_EXTENSIONS": str(tmp_path / "mine.py")}
    again(sent, cwd=elsewhere, env=env)
    sent.finish()
    assert sent.states() == ["done"] * 2, sent.log()


# --- one run, several tasks ----------------------------------------------------------------------


def by_srun(folder: Path, env: dict[str, str], *overrides: str) -> Path:
    """`srun` in a script of one's own."""
    job, out = folder / "job.sh", folder / "srun"
    words = [f"'{word}'" for word in (*overrides, f"hydra.run.dir={out}", f"store.dir={out}.store")]
    train = f"srun --kill-on-bad-exit=1 {sys.executable} {ROOT / 'train.py'} {' '.join(words)}"
    job.write_text(f"#!/bin/sh\n#SBATCH --ntasks=2 --mem=2G\n{train}\n")
    slurm_does("sbatch", "--wait", f"--output={folder / 'log'}", str(job))
    return out


def by_launcher(folder: Path, env: dict[str, str], *overrides: str) -> Path:
    """Hydra's launcher, which waits."""
    words = [f"hydra.launcher.{word}" for word in (*LAUNCHER, "tasks_per_node=2")]
    out = folder / "launcher/0"
    where = [f"hydra.sweep.dir={out.parent}", f"store.dir={out}.store"]
    command = [sys.executable, str(ROOT / "train.py"), "-m", "hydra/launcher=slurm"]
    done = subprocess.run(
        [*command, *words, *where, *overrides], env=env, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return out


def by_submit(folder: Path, env: dict[str, str], *overrides: str) -> Path:
    out = folder / "out/0"
    tasks = "hydra.launcher.tasks_per_node=2"
    sent = submit(folder, *overrides, tasks, f"store.dir={out}.store", env=env)
    sent.finish()
    assert sent.states() == ["done"], sent.log()
    return out


@pytest.mark.slow
@pytest.mark.parametrize("start", [by_srun, by_launcher, by_submit])
def test_two_tasks_train_what_one_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., Path]
) -> None:
    env = patched(tmp_path, DOUBLE)
    monkeypatch.setenv("PYTHONPATH", env["PYTHONPATH"])
    settings = *TINY, "trainer.device=cpu", "trainer.log_every=1", "trainer.batch_size=15"
    overrides = last_given(settings)
    several = start(tmp_path, env, *overrides)
    one = tmp_path / "one"
    where = [f"hydra.run.dir={one}", f"store.dir={one}.store"]
    subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *overrides, *where], env=env, check=True
    )
    result, alone = read(several / "result.json"), read(one / "result.json")
    assert result["numerics"] == alone["numerics"] | {"processes": 2}
    assert result["status"] == "complete"
    assert_close(several, one, result["updates_trained"], 1e-12)
    assert len((several / "starts.txt").read_text().splitlines()) == 1

    def left(folder: Path) -> set[str]:
        report = {"lr.png", "val_acc.png", "runs.csv", "history.parquet", "report.html"}
        return {path.name for path in folder.iterdir()} - {".hydra"} - report

    assert left(several) == left(one)
    stores = [{path.name.partition("-")[0] for path in Path(f"{folder}.store").glob("*/*.json")}
              for folder in (several, one)]  # fmt: skip
    assert stores[0] == stores[1]


SEVERAL = (*SIZE, "scheduler=constant", "trainer.epochs=40", "trainer.checkpoint_every=0.5")


@pytest.fixture(scope="module")
def whole_of_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """Weights and history of a run of two processes without a break."""
    folder = tmp_path_factory.mktemp("two")
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = [*SEVERAL, "reuse=false", f"hydra.run.dir={folder}"]
    subprocess.run(
        [sys.executable, "-m", *torchrun, str(ROOT / "train.py"), *words], check=True,
        capture_output=True,
    )  # fmt: skip
    result = read(folder / "result.json")
    assert result["numerics"]["processes"] == 2
    return result["weights_sha256"], (folder / "history.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_two_tasks_go_on_after_preemption_requeue_and_a_lost_process(
    tmp_path: Path, whole_of_two: tuple[str, bytes], rank: int
) -> None:
    two = "hydra.launcher.tasks_per_node=2"
    sent = submit(tmp_path, *SEVERAL, two, f"store.dir={tmp_path / 'store'}")
    job = sent.jobs()[0]
    sent.wait_for_epoch(0, 4)
    preempt()
    sent.wait_for_epoch(0, 10)
    assert sent.starts(0) == 2
    slurm_does("scontrol", "requeue", job)
    until(lambda: sent.starts(0) == 3, "the third start")
    sent.wait_for_epoch(0, 16)
    os.kill(process_of(sent, job, rank), signal.SIGKILL)
    until(lambda: sent.states()[0] in ("interrupted", "killed"), "the job to end", 60)
    reported = sent.folder / f".submitit/{job}/{job}_{1 - rank}_log.err"
    expected = f"error: process {1 - rank} of 2: another process of the run was killed or is out of"
    assert expected in reported.read_text()
    assert LAST in reported.read_text()
    assert sent.states() == [["killed", "interrupted"][rank]]
    assert sent.rows()[0][4].endswith([": task 0: Killed", LAST][rank])
    sent.finish()
    again(sent)
    sent.finish()
    assert sent.states() == ["done"], sent.log()
    result = sent.result(0)
    assert result["restarts"] == 3
    assert result["exact"]
    assert sent.ended(0) == whole_of_two


@pytest.mark.slow
def test_a_waiting_sweep_of_two_tasks_survives_preemption(
    tmp_path: Path, whole_of_two: tuple[str, bytes]
) -> None:
    words = [f"hydra.launcher.{word}" for word in (*LAUNCHER, "tasks_per_node=2")]
    where = [f"hydra.sweep.dir={tmp_path / 'out'}", f"store.dir={tmp_path / 'store'}"]
    command = [sys.executable, str(ROOT / "train.py"), "-m", "hydra/launcher=slurm"]
    history = tmp_path / "out/0/history.jsonl"
    with subprocess.Popen(
        [*command, *words, *where, *SEVERAL], cwd=tmp_path, text=True, stderr=subprocess.PIPE
    ) as process:
        until(lambda: history.exists() and history.read_bytes().count(b"\n") > 20, "rows")
        preempt()
        error = process.communicate(timeout=240)[1]
    sent = Sent(tmp_path / "out", "")
    assert process.returncode == 0, error + sent.log()
    assert sent.result(0)["restarts"] == 1
    assert sent.ended(0) == whole_of_two


# --- wrong use -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words", "line"),
    [
        pytest.param(
            "submit",
            ["hydra.sweep.dir=has"],
            "has: has a sweep; --again has submits what it lacks",
            id="a folder with a sweep",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "submit",
            ["--again", "none"],
            "none: is not the folder of a sweep that was submitted",
            id="again what never was",
        ),
        pytest.param(
            "submit",
            ["--again", "has", "seed=1"],
            "seed=1: --again submits what was submitted",
            id="again, but otherwise",
        ),
        pytest.param(
            "submit",
            ["hydra.launcher.partitoin=gpu"],
            "hydra.launcher.partitoin=gpu: is not a key; did you mean partition?",
            id="a misspelt key of the launcher",
        ),
        pytest.param(
            "submit",
            ["+hydra.launcher.nonsense=1"],
            "hydra.launcher.nonsense: ",
            id="a key that sbatch does not have",
        ),
        pytest.param(
            "submit",
            ["hydra/launcher=parallel"],
            "hydra/launcher=parallel: ",
            id="another launcher",
        ),
        pytest.param("submit", ["seed=-1"], "seed=-1: must be a whole number", id="a bad value"),
        pytest.param(
            "status",
            ["none"],
            "none: is not the folder of a sweep: it has no plan.json",
            id="the state of nothing",
        ),
    ],
)
def test_wrong_use_is_one_line(tmp_path: Path, name: str, words: list[str], line: str) -> None:
    (tmp_path / "has").mkdir()
    for file in ("plan.json", "launcher.json"):
        (tmp_path / "has" / file).write_text("{}")
    (tmp_path / "none").mkdir()
    done = script(name, *words, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {line}")
    assert len(done.stderr.splitlines()) == 1
    assert {path.name for path in tmp_path.rglob("*")} == {
        "has", "none", "plan.json", "launcher.json",
    }, "nothing is left behind"  # fmt: skip
    assert not squeue("%A")


@pytest.mark.slow
def test_what_slurm_refuses_is_said_and_kept_for_later(tmp_path: Path) -> None:
    where = [f"hydra.sweep.dir={tmp_path / 'out'}", f"store.dir={tmp_path / 'store'}"]
    words = [*(f"hydra.launcher.{word}" for word in LAUNCHER), "hydra.launcher.partition=nowhere"]
    done = script("submit", *TINY, *where, *words, cwd=tmp_path)
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: 0 of 1 arms were submitted, for more Slurm says: ")
    assert "Invalid partition name" in error
    sent = Sent(tmp_path / "out", "")
    assert sent.states() == ["not sent"]
    launcher = read(sent.folder / "launcher.json")
    (sent.folder / "launcher.json").write_text(json.dumps(launcher | {"partition": "main"}))
    again(sent)
    sent.finish()
    assert sent.states() == ["done"]
