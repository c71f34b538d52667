"""A GPU for each process: which one it sees, and what becomes of it when the process ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import ROOT

from harness.files import LockedError
from harness.runs import gpu_share

CLAIM = """
import os
from harness.runs import gpu_share
gpu_share.claim()
gpu_share.claim()  # of the next job: the same
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
input()
"""


@contextmanager
def process() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A process that has claimed a GPU, and which."""
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as one:  # fmt: skip
        assert one.stdout
        yield one.stdout.readline().strip(), one
        one.kill()


def test_each_process_sees_a_gpu_of_its_own_and_leaves_it_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(gpu_share.VARIABLE, "")
    gpu_share.offer(["5", "GPU-8a"], 3)
    with process() as (first, _), process() as (second, other), process() as (third, _):
        assert (first, second, third) == ("5", "GPU-8a", "5")
        other.kill()
        other.wait()
        with process() as (instead, _):
            assert instead == "GPU-8a"


def test_a_process_too_many_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_share, "LOCK_SECONDS", 0.0)
    monkeypatch.setenv(gpu_share.VARIABLE, "")
    gpu_share.offer(["0"], 1)
    with process(), pytest.raises(LockedError, match="1 processes"):
        gpu_share.claim()


def test_a_process_that_shares_nothing_sees_what_it_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.delenv(gpu_share.VARIABLE, raising=False)
    gpu_share.claim()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
