"""Numbers as people read them, with minus signs."""

from __future__ import annotations


def fixed(value: float, places: int = 2) -> str:
    """Return `value` as `1,234.50`, without a sign for zero."""
    return f"{round(value, places) + 0.0:,.{places}f}".replace("-", "−")


def signed(value: float, places: int = 2) -> str:
    """Return `value` with its sign; that of zero is +."""
    return f"{round(value, places) + 0.0:+.{places}f}".replace("-", "−")
