"""A hint when the threads of a run fight with other processes for cores."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from conftest import Clock, need

from harness.runs import contention
from harness.runs.contention import Contention, CoreTimes, share_waited


@pytest.fixture(autouse=True)
def _warn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Contention, "_warned", False)


def test_the_share_is_of_the_time_in_which_threads_could_run() -> None:
    assert share_waited(CoreTimes(10, 1), CoreTimes(16, 3)) == 0.25
    assert share_waited(CoreTimes(10, 1), CoreTimes(10, 1)) == 0
    assert share_waited(CoreTimes(10, 9), CoreTimes(12, 1)) == 0, "a thread has ended"


@pytest.mark.parametrize(
    ("threads", "later", "running", "waiting", "warned"),
    [
        (2, 6, 5, 4, True),
        (2, 6, 5, 1, False),  # an ordinary run
        (1, 6, 5, 4, False),  # there is no thread to wait for
        (2, 2, 5, 4, False),  # too short to say
    ],
)
def test_one_line_once(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    threads: int,
    later: float,
    running: float,
    waiting: float,
    warned: bool,
) -> None:
    times, clock = [CoreTimes(0, 0)], Clock()
    monkeypatch.setattr(CoreTimes, "now", lambda: times[0])
    monkeypatch.setattr(contention, "time", clock)
    watched = Contention(threads)
    for number in (1, 2):
        times[0] = CoreTimes(number * running, number * (waiting + 0.1 * (number == 2)))
        clock.now += later
        watched.look()
    if warned:
        assert capsys.readouterr().err == (
            "warning: the 2 threads of this run wait for a core 44% of the time, as other processes use them "
            "too, and all threads wait for the last: it may be much faster with OMP_NUM_THREADS=1 before the "
            "command, or on an idle machine\n"
        )
    else:
        assert capsys.readouterr().err == ""


@pytest.fixture
def busy() -> Iterator[None]:
    """Three processes for each core that want all of it."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(3 * len(os.sched_getaffinity(0)))]
    yield
    for process in processes:
        process.kill()
        process.wait()


def _work(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_busy_processes_are_seen(busy: None) -> None:
    before = CoreTimes.now()
    need(before.running > 0, "this kernel does not count how long threads wait")
    _work(0.3)
    assert share_waited(before, CoreTimes.now()) > 0.3
