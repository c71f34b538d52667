"""Looking after every pair finds effects that are not there."""

from __future__ import annotations

import numpy as np
import pytest
from calibration.peeking import peeking_rates


def test_the_rates_are_those_of_the_docs() -> None:
    """docs/verdict.md, from 200,000 sweeps; one look has 2.5 %."""
    rates = peeking_rates(2000, np.random.default_rng(0))
    assert rates[20] == pytest.approx(0.087, abs=0.02)
    assert rates[100] == pytest.approx(0.160, abs=0.025)
