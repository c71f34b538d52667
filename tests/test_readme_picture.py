"""The README's picture shows the page of now."""

from __future__ import annotations

import shutil
from pathlib import Path

import forked
import pytest
import readme_picture
from conftest import ROOT, need
from PIL import Image
from test_page import ABOUT, write_sweep

from harness.report.page import write_page

AGAIN = """take it again: the sweep of the README's caption, then
python scripts/readme_picture.py SWEEP"""


def comment(picture: Path) -> str | None:
    with Image.open(picture) as image:
        return image.info.get("drawn_by")


def test_the_picture_was_taken_since_the_page_has_changed() -> None:
    assert comment(readme_picture.PICTURE) == readme_picture.drawn_by(), AGAIN


def test_a_folder_without_a_page_is_one_line(tmp_path: Path) -> None:
    done = forked.complete(ROOT / "scripts/readme_picture.py", tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {tmp_path}/report.html: not found; python scripts/report.py SWEEP makes it\n"
    )


@pytest.mark.slow
def test_a_picture_says_what_it_was_drawn_by(tmp_path: Path) -> None:
    need(bool(shutil.which("chromium")), "needs chromium: apt-get install chromium")
    page = write_page(tmp_path, write_sweep(tmp_path, ["t_mult=1", "t_mult=2"], 1), None, ABOUT)
    readme_picture.take(page, tmp_path / "new.png")
    assert comment(tmp_path / "new.png") == readme_picture.drawn_by()
