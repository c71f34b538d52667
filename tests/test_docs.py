"""What the documentation names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_and_files_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text()
    for file, test in re.findall(r"`(tests/\w+\.py)(?:::(\w+))?`", text):
        assert (ROOT / file).exists(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
    for name in re.findall(r"`((?:scripts|docs|conf|harness)/[\w/.-]+\.(?:py|sh|md|yaml))", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\(([\w/.-]+\.(?:md|png|html|json))\)", text):
        assert (page.parent / name).exists(), name
