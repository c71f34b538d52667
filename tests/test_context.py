"""What a run is given."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace

import pytest

from harness.runs import context


def test_the_seconds_of_a_phase_add_up_also_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(perf_counter=iter([0, 1, 5, 7, 10, 14]).__next__)
    monkeypatch.setattr(context, "time", clock)
    timer = context.PhaseTimer()
    with timer.phase("data"):
        pass
    with timer.phase("fit"):
        pass
    with suppress(KeyError), timer.phase("fit"):
        raise KeyError
    assert timer == {"data": 1, "fit": 6}
