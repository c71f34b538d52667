"""Imports that take seconds, made without the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache


@cache
def import_once(load: Callable[[], None]) -> None:
    """Call `load`, which imports modules; return at once the next time.

    Modules are no garbage: none is looked for while they load, nor among them afterwards, which
    takes a quarter of a preview's time.
    """
    gc.disable()
    try:
        load()
        gc.freeze()
    finally:
        gc.enable()
