"""Numbers as people read them."""

from __future__ import annotations

import pytest

from harness.analysis.number_text import fixed, share_range, signed


@pytest.mark.parametrize(
    ("value", "without", "with_sign"),
    [
        (1234.5, "1,234.50", "+1234.50"),
        (-0.05, "−0.05", "−0.05"),
        (-0.001, "0.00", "+0.00"),
        (0.0, "0.00", "+0.00"),
    ],
)
def test_minus_signs_and_no_minus_zero(value: float, without: str, with_sign: str) -> None:
    assert (fixed(value), signed(value)) == (without, with_sign)
    assert signed(-0.001, 3) == "−0.001"


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (None, None, ""),
        (0.1, 0.1, ""),
        (0.1, 0.10001, ""),
        (0.1, 0.1667, " (10.0 to 16.7)"),
    ],
)
def test_a_range_is_there_where_shares_differ(
    low: float | None, high: float | None, text: str
) -> None:
    assert share_range(low, high) == text
