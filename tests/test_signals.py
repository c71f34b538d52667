"""Signals that end a run; what a cluster makes of them is in `test_requeue.py`."""

from __future__ import annotations

import pickle
import signal
import threading

import pytest

from harness.runs.signals import RunInterruptedError, Stop, stopping

STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_noted_and_ends_the_run_where_that_is_asked(number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in STOPPING]
    with pytest.raises(RunInterruptedError) as stopped, stopping(Stop()) as stop:  # noqa: PT012
        stop.catch()
        stop.check()
        handler: object = signal.getsignal(number)
        assert handler is stop
        signal.raise_signal(number)
        stop.check()
    assert (stopped.value.number, stopped.value.code) == (number, 128 + number)
    assert [signal.getsignal(one) for one in STOPPING] == before


@pytest.mark.parametrize("first", STOPPING)
def test_a_ctrl_c_after_another_signal_stops_at_once(first: signal.Signals) -> None:
    noted = 0
    with pytest.raises(KeyboardInterrupt), stopping(Stop()) as stop:  # noqa: PT012
        stop.catch()
        assert all(signal.getsignal(one) is stop for one in STOPPING)
        signal.raise_signal(first)
        for number in STOPPING:
            if number != signal.SIGINT:
                signal.raise_signal(number)  # does not hurry it
                noted += 1
        signal.raise_signal(signal.SIGINT)
    assert noted == 3


def test_handlers_come_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError), stopping(Stop()) as stop:  # noqa: PT012
        stop.catch()
        raise ValueError
    assert signal.getsignal(signal.SIGTERM) == before


def test_other_threads_than_the_main_one_catch_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    failed: list[threading.ExceptHookArgs] = []

    def train() -> None:
        with stopping(Stop()) as stop:
            stop.catch()
            stop.check()
            assert signal.getsignal(signal.SIGTERM) == before

    thread = threading.Thread(target=train)
    hook, threading.excepthook = threading.excepthook, failed.append
    thread.start()
    thread.join()
    threading.excepthook = hook
    assert not failed


def test_sigusr2_counts_before_others() -> None:
    with stopping(Stop()) as stop:
        stop.catch()
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGTERM):
            signal.raise_signal(number)
    assert stop.number == signal.SIGUSR2
    with pytest.raises(RunInterruptedError):
        stop.check()


def test_an_interruption_comes_whole_from_another_process() -> None:
    there = pickle.loads(pickle.dumps(RunInterruptedError(signal.SIGTERM)))  # noqa: S301
    assert (there.number, there.signal, there.code) == (signal.SIGTERM, "SIGTERM", 143)
