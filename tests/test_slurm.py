"""The state of a sweep that was submitted, without a Slurm; with one: `cluster/test_submit.py`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from test_launchers import program, programs  # noqa: F401
from test_summary import complete, made

from harness.files import write_json
from harness.sweeps import slurm


def rows(sweep: Path) -> list[list[str]]:
    """The table: arm, state, epoch, accuracy, note."""
    lines = slurm.status(sweep).split("\n\n")[0].splitlines()[2:]
    return [[*re.split(r"\s{2,}", line), ""][:5] for line in lines]


def test_an_evaluation_is_found_behind_many_rows_that_are_none(tmp_path: Path) -> None:
    write_json(tmp_path / "plan.json", {"arms": [{"num": 0, "name": "run"}]})
    history = [{"epoch": 1.0, "val/acc": 50.0}, *({"epoch": 1 + n / 9999} for n in range(9999))]
    (tmp_path / "0").mkdir()
    (tmp_path / "0/history.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in history))
    assert rows(tmp_path) == [["run", "not sent", "1", "50.00", ""]]


def test_a_state_is_that_of_slurm_or_follows_from_what_the_run_left(
    programs: Path, tmp_path: Path
) -> None:
    runs = [*complete(90), ("failed", 80.0), *[("missing", 0.0)] * 5]
    sweep = made(tmp_path / "sweep", {"1": runs}, None, seeds=range(7))
    write_json(sweep / "jobs.json", {str(number): f"7_{number}" for number in range(6)})
    program(programs / "squeue", "echo 7_2 PENDING; echo 7_3 RUNNING")
    (sweep / ".submitit/7_5").mkdir(parents=True)
    log = "some words\nslurmstepd: error: Killed\nsrun: error: Exited with exit code 137\nmore\n"
    (sweep / ".submitit/7_5/7_5_0_log.err").write_text(log)
    assert [row[1:] for row in rows(sweep)] == [
        ["done", "4", "90.00", ""],
        ["failed", "4", "80.00", "failed"],
        ["queued", "-", "-", ""],
        ["running", "-", "-", ""],
        ["cancelled", "-", "-", "never began"],
        ["killed", "-", "-", "slurmstepd: error: Killed"],
        ["not sent", "-", "-", ""],
    ]
