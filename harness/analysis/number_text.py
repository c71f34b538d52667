"""Numbers as people read them, with minus signs."""

from __future__ import annotations


def fixed(value: float, places: int = 2) -> str:
    """Return `value` as `1,234.50`, without a sign for zero."""
    return f"{round(value, places) + 0.0:,.{places}f}".replace("-", "−")


def signed(value: float, places: int = 2) -> str:
    """Return `value` with its sign; that of zero is +.

    With three places or more, for numbers of any size, one that they cannot show has three digits and an exponent.
    """
    if places > 2 and value and not 0.5 * 10**-places <= abs(value) < 1e6:
        return f"{value:+.3g}".replace("-", "−")
    return f"{round(value, places) + 0.0:+.{places}f}".replace("-", "−")


def share_range(low: float | None, high: float | None) -> str:
    """Return ` (9.8 to 16.7)`, in percent; nothing where one place shows no difference."""
    if low is None or high is None or f"{low:.1%}" == f"{high:.1%}":
        return ""
    return f" ({fixed(100 * low, 1)} to {fixed(100 * high, 1)})"
