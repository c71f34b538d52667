"""What a job of hydra/launcher=ray does around its run, without Ray."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from harness.files import lock
from harness.sweeps import ray_job


def test_a_folder_that_a_node_does_not_see_is_named(tmp_path: Path) -> None:
    (tmp_path / ray_job.TOKEN).write_text("7")
    assert ray_job.unseen(str(tmp_path), {str(tmp_path): "7"}) is None
    assert ray_job.unseen(str(tmp_path / "not"), {}) == str(tmp_path / "not")
    assert ray_job.unseen(str(tmp_path), {str(tmp_path): "8"}) == str(tmp_path), (
        "another folder of that name"
    )
    other = str(tmp_path / "other")
    assert ray_job.unseen(str(tmp_path), {str(tmp_path): "7", other: "7"}) == other


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("2026-11-26T22:09:29.903+00:00 begin: vm, process 1\na\n\nb\n2026-11-26T22:09:30.1+00:00 end: vm\n", "b"),
        ("2026-11-26T22:09:29.903+00:00 begin: vm, process 1\n", ""),
        ("2026 begins: b\n", "2026 begins: b"),
        ("", ""),
        (None, ""),
    ],
)  # fmt: skip
def test_the_last_line_that_a_run_has_printed(tmp_path: Path, log: str | None, line: str) -> None:
    if log is not None:
        (tmp_path / ray_job.LOG).write_text(log)
    assert ray_job.last_line(tmp_path) == line


PRINTS = """
import os, subprocess, sys
from pathlib import Path
from harness.sweeps import ray_job
for _ in range(2):
    with ray_job._logged(Path(sys.argv[1])):
        os.write(2, b"one\\n")
        subprocess.run([sys.executable, "-c", "print('two')"], check=True)
print("three")
"""


def test_what_a_job_and_its_processes_print_is_in_the_log_and_later_prints_are_not(
    tmp_path: Path,
) -> None:
    own = {"CUDA_VISIBLE_DEVICES": "3", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PRINTS, str(tmp_path)], cwd=ROOT, env=os.environ | own, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("three\n", "")
    lines = (tmp_path / ray_job.LOG).read_text().splitlines()
    place = r"\S+, process \d+, CUDA_VISIBLE_DEVICES=3, OMP_NUM_THREADS=1"
    for first in (0, 4):
        assert re.fullmatch(rf"\S+ begin: {place}", lines[first])
        assert lines[first + 1 : first + 3] == ["one", "two"]
        assert re.fullmatch(rf"\S+ end: {place}", lines[first + 3])
    assert len(lines) == 8


def test_a_job_waits_for_a_lost_process_that_is_still_at_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_job, "_LOST_SECONDS", 0.0)
    with lock(tmp_path / ".lock"), ray_job._logged(tmp_path):
        pass  # after the wait the run itself says who holds it
    code = (
        "import sys; from pathlib import Path; from harness.files import lock\n"
        "with lock(Path(sys.argv[1])): print(flush=True); input()"
    )
    monkeypatch.setattr(ray_job, "_LOST_SECONDS", 60.0)
    command = [sys.executable, "-c", code, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as lost:
        assert lost.stdout
        lost.stdout.readline()
        lost.kill()
        with ray_job._logged(tmp_path):
            assert lost.poll() is not None or lost.wait(5) is not None
