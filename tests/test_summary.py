"""What a finished sweep comes to, beyond what its parts test."""

from __future__ import annotations

import polars as pl
import pytest

from harness import claims, summary
from harness.claims import Claim

CLAIM = Claim("arm", "times_1", ("times_2", "one_cosine"))


def runs(**values: float) -> pl.DataFrame:
    """Eight seeds an arm around the given accuracies, with a little common noise."""
    return pl.DataFrame(
        [
            {"name": f"{arm} {seed}", "level": arm, "cell": "", "seed": seed, "status": "complete",
             "value": value + 0.01 * ((seed * 7 + len(arm)) % 5), "last": value, "budget": 35.0,
             "aligned": True, "nearest_aligned": []}
            for arm, value in values.items()
            for seed in range(8)
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("values", "told"),
    [
        pytest.param(
            {"times_1": 90.0, "times_2": 91.0, "one_cosine": 91.0},
            "A longer last anneal, not the multiplication: against one_cosine times_2 is "
            "refuted: equivalent.",
            id="a single cosine does as well",
        ),
        pytest.param(
            {"times_1": 90.0, "times_2": 91.0, "one_cosine": 92.0},
            "A longer last anneal, not the multiplication: against one_cosine times_2 is "
            "refuted: worse.",
            id="a single cosine does better",
        ),
        pytest.param(
            {"times_1": 90.0, "times_2": 92.0, "one_cosine": 91.0},
            "times_2 is also better than a single cosine: restarts, not only a longer last anneal.",
            id="it beats both",
        ),
        pytest.param(
            {"times_1": 90.0, "times_2": 90.0, "one_cosine": 92.0}, None, id="it beats none"
        ),
        pytest.param({"times_1": 90.0, "times_2": 91.0}, None, id="no single cosine"),
    ],
)
def test_a_longer_last_anneal_is_told_from_the_multiplication(
    values: dict[str, float], told: str | None
) -> None:
    table = runs(**values)
    claim = CLAIM if "one_cosine" in values else Claim("arm", "times_1", ("times_2",))
    assert summary.longer_anneal(claim, table, claims.judge(claim, table)) == told
