"""What is installed is what was tried: `constraints.txt` pins all that the project stands on."""

from __future__ import annotations

import os
import re
import tomllib
from importlib.metadata import version

import pytest
from conftest import ROOT

LINES = (ROOT / "constraints.txt").read_text().splitlines()
PINS = dict(line.split("==") for line in LINES if not line.startswith("#"))


def needed() -> list[str]:
    """All packages that pyproject.toml names, with the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = [re.split(r"[\[<>=~! ]", one)[0] for group in groups for one in group]
    return sorted({name.lower() for name in names} - {project["name"]})


def test_pins_are_names_and_exact_versions() -> None:
    for name, pinned in PINS.items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert re.fullmatch(r"\d+(\.\d+)*((a|b|rc|\.post)\d+)?", pinned), (
            "no address, no local label"
        )


def test_everything_that_is_needed_is_pinned() -> None:
    assert set(needed()) <= PINS.keys()


@pytest.mark.skipif(not os.environ.get("PIP_CONSTRAINT"), reason="installed without constraints")
@pytest.mark.parametrize("name", needed())
def test_what_is_installed_is_what_is_pinned(name: str) -> None:
    assert version(name).partition("+")[0] == PINS[name]
