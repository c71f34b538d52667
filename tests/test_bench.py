"""The benchmark's command line, and how it compares."""

from __future__ import annotations

import sys

import bench
import pytest
from benchmarks.training import interleaved, ratio


def test_a_section_that_is_not_one_of_them_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", "floor", "flor"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "error: flor: choose from floor, usual, augmentation, " in capsys.readouterr().err


def test_contenders_take_turns_and_the_first_time_does_not_count() -> None:
    order: list[str] = []

    def contender(name: str, figures: list[float]) -> float:
        order.append(name)
        return figures.pop(0)

    figures = {"slow": [100.0, 2, 4, 9], "fast": [100.0, 1, 1, 3]}
    contenders = {
        name: (lambda n=name, f=given: contender(n, f)) for name, given in figures.items()
    }
    found = interleaved(3, contenders)
    assert order == ["slow", "fast", "fast", "slow", "slow", "fast", "fast", "slow"]
    assert found == {"slow": [2, 4, 9], "fast": [1, 1, 3]}
    assert ratio(found, "slow", "fast") == "3.00 (2.00 to 4.00)"
