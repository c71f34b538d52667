"""Sweeps that are submitted and left: one Slurm job a run, a last one for what comes after, and their state."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import submitit
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from submitit.core.utils import FailedJobError
from submitit.helpers import Checkpointable

from harness.analysis import averages, results, run_tables, sweep_plan
from harness.analysis.needed import NOT_NEEDED, WAITING
from harness.config.errors import ConfigError
from harness.config.fields import decimal
from harness.config.schema import Config
from harness.files import LOCK_SECONDS, lock, read_json, write_json
from harness.runs.job import run_job
from harness.runs.run_dir import RunInfo, planned
from harness.sweeps.stages import Batch


@dataclass(frozen=True)
class SlurmTask(Checkpointable):
    """A function that trains one run of `sweep` as it was planned, even if `conf/` has changed since."""

    sweep: Path
    retry: bool

    def __call__(self, number: int) -> None:
        def load() -> tuple[RunInfo, Config]:
            plan = sweep_plan.read_frozen(self.sweep)
            config = sweep_plan.run_config(plan, plan["arms"][number])
            info = planned(self.sweep, plan, number)
            return info, replace(config, retry=config.retry or self.retry)

        run_job(load)


def write_launcher(sweep: Path, launcher: dict[str, Any]) -> None:
    """Write `launcher.json`: what a planned sweep's jobs need beside the plan, the report's ledger among it.

    `launcher` has the overrides of the command too, where the sweep has stages. It names this folder, so that
    relative paths mean the same to jobs that are submitted again from another.
    """
    sbatch = {"chdir": str(Path.cwd())} | launcher["additional_parameters"]
    write_json(sweep / "launcher.json", launcher | {"additional_parameters": sbatch})


def submit(
    batch: Batch, launcher: dict[str, Any], last: Sequence[str], retry: bool = False
) -> list[str]:
    """Submit the runs of `batch` that are not in the queue; return the ids of the jobs.

    `launcher` are the keys of `conf/hydra/launcher/slurm.yaml`; with `retry`, failures that the store
    remembers are trained again. `jobs.json` has the job of each run. The last job runs the command `last`
    when the others have ended. Raises `ConfigError` for what Slurm does not accept; `jobs.json` has
    the jobs that it accepted before.
    """
    with lock(batch.sweep / "jobs.lock", LOCK_SECONDS):
        return _submit(batch, launcher, last, retry)


def ended_without_result(batch: Batch) -> list[str]:
    """Return the names of runs of `batch` whose jobs are over: they failed, or were cancelled or killed."""
    jobs, planned = _read_jobs(batch.sweep), results.read_plan(batch.sweep)["arms"]
    queued = _queued_states(jobs)
    over = [n for n in batch.runs if str(n) in jobs and jobs[str(n)] not in queued]
    return [planned[number]["name"] for number in over]


def _submit(batch: Batch, launcher: dict[str, Any], last: Sequence[str], retry: bool) -> list[str]:
    sweep, jobs = batch.sweep, _read_jobs(batch.sweep)
    queued = _queued_states(jobs)
    to_submit = [number for number in batch.runs if jobs.get(str(number)) not in queued]
    executor, submitted = make_executor(sweep, launcher), []
    size = _max_array_size()
    for begin in range(0, len(to_submit), size):
        numbers = to_submit[begin : begin + size]
        try:
            array = executor.map_array(SlurmTask(sweep.resolve(), retry), numbers)
        except FailedJobError as error:
            raise ConfigError(
                f"{begin} of {len(to_submit)} arms were submitted, for more Slurm says: "
                f"{' '.join(str(error).split())}; then --again {sweep}, with other wishes in its launcher.json if need be"
            ) from error
        jobs |= {str(n): job.job_id for n, job in zip(numbers, array, strict=True)}
        write_json(sweep / "jobs.json", jobs)
        submitted.append(array[0].job_id.partition("_")[0])
    if not submitted:
        return []
    arrays = sorted({*submitted, *(job.partition("_")[0] for job in queued)})
    return [*submitted, _submit_last(sweep, arrays, launcher, last)]


def make_executor(sweep: Path, launcher: dict[str, Any]) -> submitit.AutoExecutor:
    """Return the executor that Hydra's launcher makes of the same keys; nothing is written.

    Raises `ConfigError` for a key that submitit does not know, and where there is no Slurm.
    """
    if not shutil.which("srun"):
        raise ConfigError("there is no srun here; log in to a cluster")
    shared = {field.name for field in fields(BaseQueueConf)}
    own = {"_target_", "submitit_folder", "max_num_timeout", "ledger", "overrides"}
    executor = submitit.AutoExecutor(
        folder=sweep / ".submitit/%j",
        cluster="slurm",
        slurm_max_num_timeout=launcher["max_num_timeout"],
    )
    parameters = {key: value for key, value in launcher.items() if key not in own}
    try:
        executor.update_parameters(
            **{key if key in shared else f"slurm_{key}": value for key, value in parameters.items()}
        )
    except NameError as error:
        unknown = ", ".join(re.findall(r"Unknown argument '(.*?)'", str(error)))
        raise ConfigError(
            f"hydra.launcher.{unknown}: is not a key of submitit's; what sbatch alone knows goes into "
            "+hydra.launcher.additional_parameters.KEY=VALUE"
        ) from error
    return executor


def _submit_last(
    sweep: Path, jobs: Sequence[str], launcher: dict[str, Any], words: Sequence[str]
) -> str:
    """Submit the job that runs a command once `jobs` have ended, however they did."""
    command = shlex.join(words)
    options = {
        **{key: launcher[key] for key in ("partition", "account", "qos") if launcher[key]},
        "job-name": f"{launcher['name']}-report",
        "dependency": f"afterany:{':'.join(jobs)}",
        "output": str(sweep.resolve() / "report.log"),
        "open-mode": "append"
        if "--next" in words
        else "truncate",  # of stages, what all of them print
        "time": "60",
        "wrap": command,
    }
    ask = ["sbatch", "--parsable", *(f"--{key}={value}" for key, value in options.items())]
    sbatch = subprocess.run(ask, capture_output=True, text=True, check=False)
    if sbatch.returncode:
        raise ConfigError(
            f"the job that comes after the runs was not accepted by Slurm: {sbatch.stderr.strip()}; "
            f"later: {command}"
        )
    return sbatch.stdout.strip().partition(";")[0]


def _max_array_size() -> int:
    """Return how many jobs Slurm takes in one array."""
    shown = subprocess.run(
        ["scontrol", "show", "config"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", shown, re.MULTILINE)
    assert found, shown
    return int(found[1])


def status(sweep: Path) -> str:
    """Return a table of the runs: queued, running, done or failed, and why. Raises `ConfigError` without a plan."""
    plan, jobs = results.read_plan(sweep), _read_jobs(sweep)
    queued, folders = _queued_states(jobs), results.folders(sweep)
    not_now = [""] * len(folders)
    if (plan.get("claim") or {}).get("looks"):
        statuses = averages.of_runs(results.read(sweep))["status"]
        not_now = [one if one in (NOT_NEEDED, WAITING) else "" for one in statuses]
    rows = []
    for number, run in enumerate(plan["arms"]):
        state = _state(sweep, folders[number], jobs.get(str(number)), queued)
        rows.append([run["name"], *([not_now[number], "-", "-", ""] if not_now[number] else state)])
    header = ["arm", "state", "epoch", "val/acc %"]
    table = run_tables.columns(header, [row[:4] for row in rows]).splitlines()
    notes = ["", "", *(row[4] for row in rows)]
    lines = [f"{line}  {note}".rstrip() for line, note in zip(table, notes, strict=True)]
    counts = Counter(row[1] for row in rows)
    return "\n".join([*lines, "", ", ".join(f"{count} {state}" for state, count in counts.items())])


def _state(sweep: Path, folder: Path, job: str | None, queued: dict[str, str]) -> list[str]:
    """Return state, epoch, accuracy, and the last line of an error."""
    result = results.result(folder)
    row = results.last_row(folder, "val/acc") if (folder / "history.jsonl").exists() else None
    progress = [decimal(row["epoch"]), f"{row['val/acc']:.2f}"] if row else ["-", "-"]
    if job in queued and queued[job] != "PENDING":
        return [queued[job].lower(), *progress, ""]
    match result.get("status"):
        case "complete":
            return ["done", *progress, ""]
        case "diverged" as diverged:
            return [diverged, *progress, result["error"]]
    if job in queued:
        return ["queued", *progress, ""]
    if result:
        return [result["status"], *progress, result["error"].splitlines()[-1]]
    if job is None:
        return ["not sent", *progress, ""]
    log = sweep / f".submitit/{job}/{job}_0_log.err"
    if not log.exists():
        return ["cancelled", *progress, "never began"]
    return ["killed", *progress, _last_error(log)]


def _last_error(path: Path) -> str:
    """Return the last line of a log that has the word error and more than an exit code; else the last."""
    lines = path.read_text(errors="replace").splitlines() or ["left no result"]
    errors = (line for line in reversed(lines) if "error" in line.lower())
    return next((line for line in errors if "Exited with exit code" not in line), lines[-1])


def _queued_states(jobs: dict[str, str]) -> dict[str, str]:
    """Return Slurm's state of those of `jobs` that have not ended, by id."""
    if not jobs:
        return {}
    arrays = {job.partition("_")[0] for job in jobs.values()}
    words = ["squeue", "--noheader", "--array", f"--jobs={','.join(arrays)}", "--format=%i %T"]
    squeue = subprocess.run(words, capture_output=True, text=True, check=False)
    if squeue.returncode and "Invalid job id" not in squeue.stderr:  # as it calls jobs long ended
        raise ConfigError(f"squeue: {squeue.stderr.strip()}")
    return dict(line.split() for line in squeue.stdout.splitlines())


def _read_jobs(sweep: Path) -> dict[str, str]:
    """Return `jobs.json`: the last job of each run, by the run's number."""
    path = sweep / "jobs.json"
    return read_json(path) if path.exists() else {}
