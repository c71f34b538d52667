"""Imports without the garbage collector."""

from __future__ import annotations

import gc

from harness.fast_imports import import_once


def test_a_function_is_called_once_without_the_collector_which_is_on_afterwards() -> None:
    collecting = []

    def load() -> None:
        collecting.append(gc.isenabled())

    assert gc.isenabled()
    for _ in range(3):
        import_once(load)
        assert gc.isenabled()
    assert collecting == [False]


def test_each_function_is_called() -> None:
    called = []
    for name in ("first", "second"):
        import_once(lambda name=name: called.append(name))
    assert called == ["first", "second"]
