"""Sweeps that are submitted and left: one Slurm job an arm, a last one for the report, and their state."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import submitit
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from submitit.core.utils import FailedJobError
from submitit.helpers import Checkpointable

from harness.runs import job as cli
from harness.analysis import results
from harness.analysis import sweep_plan
from harness.config.schema import Config
from harness.config.errors import ConfigError
from harness.files import LOCK_SECONDS, lock, read_json, write_json
from harness.runs.run_dir import RunInfo, planned

ENDS = ("complete", "diverged")  # what is not sent again
_REPORT = Path(__file__).parents[2] / "scripts/report.py"
_TAIL = 4096  # bytes of a history that usually hold an evaluation


@dataclass(frozen=True)
class Arm(Checkpointable):
    """One arm as a job: its configuration is the one that was submitted, whatever `conf/` says by now."""

    sweep: Path
    retry: bool

    def __call__(self, number: int) -> None:
        def found() -> tuple[RunInfo, Config]:
            plan = sweep_plan.frozen(self.sweep)
            config = sweep_plan.config_of(plan, plan["arms"][number])
            where = planned(self.sweep, plan, number)
            return where, replace(config, retry=config.retry or self.retry)

        cli.train(found)


def write(sweep: Path, launcher: dict[str, Any]) -> None:
    """What a planned sweep's jobs need beside the plan: `launcher.json`.

    Relative paths mean the same to jobs that are sent again from another folder.
    """
    sbatch = {"chdir": str(Path.cwd())} | launcher["additional_parameters"]
    write_json(sweep / "launcher.json", launcher | {"additional_parameters": sbatch})


def submit(sweep: Path, launcher: dict[str, Any], retry: bool = False) -> list[str]:
    """Send the arms that are neither ended nor on their way; returns the ids of the jobs.

    `launcher` are the keys of `conf/hydra/launcher/slurm.yaml`; with `retry`, failures that the store
    remembers are trained again. `jobs.json` remembers what was sent. The last job writes the report
    when the others are over. Raises `ConfigError` for what Slurm does not accept; what it took
    before that is remembered.
    """
    with lock(sweep / "jobs.lock", LOCK_SECONDS):
        return _submit(sweep, launcher, retry)


def _submit(sweep: Path, launcher: dict[str, Any], retry: bool) -> list[str]:
    known = _known(sweep)
    folders = results.folders(sweep)
    under_way = _queue(known)
    open_arms = [
        number
        for number, folder in enumerate(folders)
        if results.result(folder).get("status") not in ENDS
        and known.get(str(number)) not in under_way
    ]
    executor, sent = executor_of(sweep, launcher), []
    size = _largest_array()
    for begin in range(0, len(open_arms), size):
        some = open_arms[begin : begin + size]
        try:
            jobs = executor.map_array(Arm(sweep.resolve(), retry), some)
        except FailedJobError as error:
            raise ConfigError(
                f"{begin} of {len(open_arms)} arms were submitted, for more Slurm says: "
                f"{' '.join(str(error).split())}; then --again {sweep}, with other wishes in its launcher.json if need be"
            ) from error
        known |= {str(n): job.job_id for n, job in zip(some, jobs, strict=True)}
        write_json(sweep / "jobs.json", known)
        sent.append(jobs[0].job_id.partition("_")[0])
    if not sent:
        return []
    arrays = sorted({*sent, *(job.partition("_")[0] for job in under_way)})
    return [*sent, _report_after(sweep, arrays, launcher)]


def executor_of(sweep: Path, launcher: dict[str, Any]) -> submitit.AutoExecutor:
    """As Hydra's launcher makes it of the same keys; nothing is written.

    Raises `ConfigError` for a key that submitit does not know, and where there is no Slurm.
    """
    if not shutil.which("srun"):
        raise ConfigError("there is no srun here; log in to a cluster")
    shared = {field.name for field in fields(BaseQueueConf)}
    own = {"_target_", "submitit_folder", "max_num_timeout"}
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


def _report_after(sweep: Path, jobs: Sequence[str], launcher: dict[str, Any]) -> str:
    """Submit the job that writes the sweep's report once `jobs` have ended, however they did."""
    command = shlex.join([sys.executable, str(_REPORT), str(sweep.resolve())])
    given = {key: launcher[key] for key in ("partition", "account", "qos") if launcher[key]}
    options = {
        **given,
        "job-name": f"{launcher['name']}-report",
        "dependency": f"afterany:{':'.join(jobs)}",
        "output": str(sweep.resolve() / "report.log"),
        "time": "60",
        "wrap": command,
    }
    words = ["sbatch", "--parsable", *(f"--{key}={value}" for key, value in options.items())]
    sent = subprocess.run(words, capture_output=True, text=True, check=False)
    if sent.returncode:
        raise ConfigError(
            f"the job of the report was not accepted by Slurm: {sent.stderr.strip()}; "
            f"later: {command}"
        )
    return sent.stdout.strip().partition(";")[0]


def _largest_array() -> int:
    """How many jobs Slurm takes in one array."""
    shown = subprocess.run(
        ["scontrol", "show", "config"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", shown, re.MULTILINE)
    assert found, shown
    return int(found[1])


def status(sweep: Path) -> str:
    """A table of the arms: queued, running, done, failed, with what there is to tell of each."""
    plan, known = read_json(sweep / "plan.json"), _known(sweep)
    queue = _queue(known)
    rows = [
        [arm["name"], *_state(sweep, folder, known.get(str(arm["num"])), queue)]
        for arm, folder in zip(plan["arms"], results.folders(sweep), strict=True)
    ]
    counted = Counter(row[1] for row in rows)
    header = ["arm", "state", "epoch", "val/acc %"]
    table = results.columns(header, [row[:4] for row in rows]).splitlines()
    notes = ["", "", *(row[4] for row in rows)]
    lines = [f"{line}  {note}".rstrip() for line, note in zip(table, notes, strict=True)]
    return "\n".join([*lines, "", ", ".join(f"{count} {name}" for name, count in counted.items())])


def _state(sweep: Path, folder: Path, job: str | None, queue: dict[str, str]) -> list[str]:
    """State, epoch, accuracy, and the last line of an error."""
    result = results.result(folder)
    row = _last_evaluation(folder)
    told = [f"{row['epoch']:g}", f"{row['val/acc']:.2f}"] if row else ["-", "-"]
    if job in queue and queue[job] != "PENDING":
        return [queue[job].lower(), *told, ""]
    match result.get("status"):
        case "complete":
            return ["done", *told, ""]
        case "diverged" as ended:
            return [ended, *told, result["error"]]
    if job in queue:
        return ["queued", *told, ""]
    if result:
        return [result["status"], *told, result["error"].splitlines()[-1]]
    if job is None:
        return ["not sent", *told, ""]
    log = sweep / f".submitit/{job}/{job}_0_log.err"
    if not log.exists():
        return ["cancelled", *told, "never began"]
    return ["killed", *told, _last_error(log)]


def _last_evaluation(folder: Path) -> dict[str, Any] | None:
    """The last whole row of the history that evaluates, read from its end."""
    path = folder / "history.jsonl"
    if not path.exists():
        return None
    size, tail = path.stat().st_size, _TAIL
    while True:
        with path.open("rb") as file:
            file.seek(max(0, size - tail))
            lines = file.read().splitlines(keepends=True)
        for line in reversed(lines):
            if line.startswith(b"{") and line.endswith(b"\n") and b'"val/acc"' in line:
                row: dict[str, Any] = json.loads(line)
                return row
        if tail >= size:
            return None
        tail *= 16


def _last_error(path: Path) -> str:
    """The last line of a log that speaks of an error, not just of an exit code; else the last."""
    lines = path.read_text(errors="replace").splitlines() or ["left no result"]
    errors = (line for line in reversed(lines) if "error" in line.lower())
    return next((line for line in errors if "Exited with exit code" not in line), lines[-1])


def _queue(known: dict[str, str]) -> dict[str, str]:
    """Slurm's state of the sweep's jobs that it still has to do, by id."""
    if not known:
        return {}
    arrays = {job.partition("_")[0] for job in known.values()}
    words = ["squeue", "--noheader", "--array", f"--jobs={','.join(arrays)}", "--format=%i %T"]
    shown = subprocess.run(words, capture_output=True, text=True, check=False)
    if shown.returncode and "Invalid job id" not in shown.stderr:  # as it calls jobs long ended
        raise ConfigError(f"squeue: {shown.stderr.strip()}")
    return dict(line.split() for line in shown.stdout.splitlines())


def _known(sweep: Path) -> dict[str, str]:
    """`jobs.json`: the last job of each arm, by its number."""
    path = sweep / "jobs.json"
    return read_json(path) if path.exists() else {}
