"""What takes seconds to import, at once and quickly."""

from __future__ import annotations

import gc
from functools import cache


@cache
def load() -> None:
    """Import torch and all of the harness that needs it; returns at once the next time.

    Modules are no garbage: none is looked for while they load, nor among them afterwards, which
    takes a quarter of a preview's time.
    """
    gc.disable()
    import harness.preview
    import harness.run  # noqa: F401

    gc.freeze()
    gc.enable()
