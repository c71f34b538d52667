"""The names that a mistake was perhaps meant to be."""

from __future__ import annotations

import pytest

from harness.config.errors import nearest


@pytest.mark.parametrize(
    ("name", "names", "hint"),
    [
        ("t_mul", ["t_0", "t_mult"], "did you mean t_mult? choose from t_0, t_mult"),
        ("tmult", ["t_0", "t_mult"], "did you mean t_mult? choose from t_0, t_mult"),
        ("coswarm", ["cosine", "cosine_warm"], "did you mean cosine_warm? choose from cosine, cosine_warm"),
        ("banana", ["cosine", "linear"], "choose from cosine, linear"),
        ("", ["cosine"], "choose from cosine"),
        ("2", ["1", "3"], "choose from 1, 3"),
    ],
)  # fmt: skip
def test_nearest(name: str, names: list[str], hint: str) -> None:
    assert nearest(name, names) == hint
