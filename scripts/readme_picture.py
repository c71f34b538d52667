"""Take the README's picture of a sweep's page: `python scripts/readme_picture.py SWEEP [--out PATH]`

The sweep is that of the picture's caption. Needs playwright (extra `dev`) and Chromium.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from harness.config.errors import ConfigError
from harness.config.one_line_errors import one_line_errors

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs/pictures/report.png"
_DRAWN_BY = ("page.html.j2", "first_screen.py", "verdict_charts.py")
_SIZE = {"width": 1100, "height": 1000}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path, metavar="SWEEP")
    parser.add_argument("--out", type=Path, default=PICTURE, help="a PNG file (%(default)s)")
    with one_line_errors():
        arguments = parser.parse_args()
        page = arguments.sweep / "report.html"
        if not page.is_file():
            raise ConfigError(f"{page}: not found; python scripts/report.py SWEEP makes it")
        take(page, arguments.out)
        print(arguments.out)


def drawn_by() -> str:
    """Return the hash of the files that make what the picture shows."""
    code = [(ROOT / "harness/report" / name).read_bytes() for name in _DRAWN_BY]
    return hashlib.sha256(b"".join(code)).hexdigest()


def take(page: Path, picture: Path) -> None:
    """Write the top of a page into a PNG file, with `drawn_by` as its comment. Raises ConfigError without Chromium."""
    from playwright.sync_api import sync_playwright

    if not (chromium := shutil.which("chromium")):
        raise ConfigError("chromium: not found; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport=_SIZE, color_scheme="light")  # type: ignore[arg-type]
        tab.goto(page.absolute().as_uri())
        tab.wait_for_selector("html[data-drawn]", state="attached")
        shot = tab.screenshot()
        browser.close()
    comment = PngInfo()
    comment.add_text("drawn_by", drawn_by())
    Image.open(io.BytesIO(shot)).save(picture, pnginfo=comment, optimize=True)


if __name__ == "__main__":
    main()
