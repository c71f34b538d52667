"""`scripts/gpu_check.sh` on a CPU, as far as one gets; and what it makes of parts that fail or take too long."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import gpu_check
import pytest
import torch
from benchmarks.gpu_speed import Row
from conftest import ROOT
from gpu_check import Part


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [str(ROOT / "scripts/gpu_check.sh"), "--device", "cpu", *arguments]
    own = {"PYTHON": sys.executable}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | own)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_that_a_cpu_can_do_is_as_it_must_be() -> None:
    """But compiling, a minute's work that tests of the compiled update do."""
    done = check(*(name for name in gpu_check._PARTS if name != "compiled"))
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout
    for words in ("equal, bit for bit", "equal; equal", "updates skipped, 0 of these", "fit/bare",
                  "times for 4", "times the better", "averages.ema", "a whole run of"):  # fmt: skip
        assert words in table
    assert "**NO**" not in table


def test_a_part_that_is_none_of_them_is_refused() -> None:
    done = check("eager", "speed")
    assert done.returncode == 2
    assert "error: speed: choose from waits, " in done.stderr


def holds(device: torch.device) -> Iterator[Row]:
    yield Row("weights", "equal", "equal")


def fails(device: torch.device) -> Iterator[Row]:
    yield Row("weights", "differ", "equal", holds=False)


def breaks(device: torch.device) -> Iterator[Row]:
    yield Row("weights", "equal", "equal")
    raise RuntimeError("no such\nkernel")


def hangs(device: torch.device) -> Iterator[Row]:
    yield Row("weights", "equal", "equal")
    time.sleep(1000)


@pytest.mark.parametrize(
    ("part", "holding", "printed"),
    [
        pytest.param(Part(holds, 60), True, ["| weights | equal | equal |"], id="holds"),
        pytest.param(Part(fails, 60), False, ["| weights | differ **NO** | equal |"], id="fails"),
        pytest.param(
            Part(breaks, 60),
            False,
            ["| weights | equal | equal |", "| own | RuntimeError: no such kernel **NO** |  |"],
            id="breaks",
        ),
        pytest.param(
            Part(hangs, 1),
            False,
            ["| weights | equal | equal |", "| own: cut off after 1 s |  **NO** |  |"],
            id="hangs",
        ),
    ],
)
def test_a_table_says_what_does_not_hold(
    part: Part,
    holding: bool,
    printed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(gpu_check._PARTS, "own", part)
    assert gpu_check._held(["own"], "cpu") == holding
    assert capfd.readouterr().out.splitlines() == printed
