"""What the documentation names exists, and its lines are short."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

from harness.config.hydra_private import multirun_config
from harness.sweeps.jobs import plan_sweep

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)
COLUMNS = 120


@each_page
def test_tests_and_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    for file, test in re.findall(r"`(tests/\w+\.py)(?:::(\w+))?`", text):
        assert (ROOT / file).exists(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
    named = r"`((?:scripts|docs|conf|harness|tests)/[a-z\d_/.-]*(?:/|\.(?:py|sh|md|yaml|csv)))"
    for name in re.findall(named, text):
        assert (ROOT / name).exists(), name


@each_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@each_page
def test_lines_are_short(page: Path) -> None:
    long = [
        line
        for line in page.read_text().splitlines()
        if len(line) > COLUMNS and not line.startswith("|") and "](" not in line
    ]
    assert not long


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: its headings, as GitHub names them, and `<a id="…">`."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain} | set(re.findall(r'id="(.+?)"', text))


def commands() -> Iterator[str]:
    """Yield the arguments of each `train.py` and `preview.py` in documents and in comments of conf/, without options."""
    for file in [*PAGES, *ROOT.glob("conf/**/*.yaml")]:
        text = file.read_text().replace("\\\n", " ")
        quoted = re.findall(r"`((?:python )?(?:train\.py|scripts/preview\.py|-m) [^`]+)`", text)
        lines = re.findall(
            r"^(?:    |#   )(python (?:train|scripts/preview)\.py .*)$", text, re.MULTILINE
        )
        for command in [*quoted, *lines]:
            words = re.sub(r"^(python )?(\S+\.py )?", "", " ".join(command.split()))
            words = re.sub(r"(^| )-m ", " ", re.split(r" [#>&|]| 2>", words)[0])
            if not re.search(
                r"…|(^| )-|\b[A-Z]{1,8}\b(?!')|arm=step|extensions=", words
            ):  # placeholders, options
                yield words.strip()


@pytest.mark.slow
@pytest.mark.parametrize("words", sorted({*commands()}))
def test_commands_of_the_documentation_can_be_planned(words: str) -> None:
    with multirun_config(ROOT / "conf", shlex.split(words)) as composed:
        assert plan_sweep(composed).jobs
