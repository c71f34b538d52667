"""What messages are made of: the names that a mistake was perhaps meant to be, and texts in one line."""

from __future__ import annotations

import pytest

from harness.config.errors import nearest, one_line


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


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("a\n b\t", "a b", id="blanks"),
        pytest.param("e\x1b[2Jv\x9b", "e [2Jv", id="controls of a terminal"),
        pytest.param("x\u202egnp.exe\u2066\u200f\u061c", "x gnp.exe", id="marks of direction"),
        pytest.param("\ufeffa\u200bb\u2060c\u200dd", "a b c d", id="no width"),
        pytest.param("\U0001f469\u200d\U0001f4bb \u2764\ufe0f", "\U0001f469\u200d\U0001f4bb \u2764\ufe0f", id="emoji"),
        pytest.param("\udcff\udcfe ü", "\\udcff\\udcfe ü", id="no UTF-8"),
    ],
)  # fmt: skip
def test_a_text_in_one_line(text: str, line: str) -> None:
    assert one_line(text) == line
