"""The report as axe-core sees it, in both themes: no serious finding on any kind of page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import essential
from test_looks import arm
from test_page import ABOUT, browser, make_verdict, show, write_sweep  # noqa: F401
from test_verdict import CLAIM, around, judged, rows

from harness.report import page as report

if TYPE_CHECKING:
    from playwright.sync_api import Page

SEVEN = [f"t_mult={level}" for level in range(1, 8)]


def two_arms(folder: Path) -> tuple[pl.DataFrame, dict[str, Any] | None]:
    runs = write_sweep(folder, SEVEN[:2], 4)
    return runs, make_verdict(runs)


def seven_arms(folder: Path) -> tuple[pl.DataFrame, dict[str, Any] | None]:
    claim = dataclasses.replace(CLAIM, treatments=tuple("234567"))
    effects = {level: around(0.1 * int(level) - 0.4) for level in claim.treatments}
    table = rows(effects["2"]) + [r for level in "34567" for r in arm(level, effects[level])]
    return write_sweep(folder, SEVEN, 6), judged(table, claim)


def one_run(folder: Path) -> tuple[pl.DataFrame, dict[str, Any] | None]:
    return write_sweep(folder, ["run"], 1), None


def failures(folder: Path) -> tuple[pl.DataFrame, dict[str, Any] | None]:
    spoiled = {1: "failed", 5: "failed", 6: "diverged", 7: "missing"}
    runs = write_sweep(folder, SEVEN[:2], 4, spoiled=spoiled)
    return runs, make_verdict(runs, claim_changed=True)


PAGES = (two_arms, seven_arms, one_run, failures)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("make", essential(PAGES))
def test_no_finding_is_serious(
    tmp_path: Path,
    show: Callable[..., Page],
    make: Callable[[Path], tuple[pl.DataFrame, dict[str, Any] | None]],
    theme: str,
) -> None:
    path = report.write_page(tmp_path, *make(tmp_path), ABOUT)
    page = show(path, color_scheme=theme)
    found = Axe().run(page).response
    assert len(found["passes"]) > 10
    assert [
        (one["id"], one["impact"], node["html"][:200], node["failureSummary"])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ] == []
