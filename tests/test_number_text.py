"""Numbers as people read them."""

from __future__ import annotations

import pytest

from harness.analysis.number_text import fixed, signed


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
