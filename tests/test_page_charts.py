"""The charts of curves: who shares a panel, colours, restarts, single runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import vl_convert
from test_page import ABOUT, write_sweep

from harness.analysis import results
from harness.analysis.scale import Scale
from harness.report import charts, page_charts
from harness.report import page as report


def drawn(runs: pl.DataFrame, baseline: str | None = None) -> page_charts.Overview:
    arms = runs["arm"].unique(maintain_order=True).to_list()
    overview = page_charts.overview(runs, arms, baseline)
    assert overview
    return overview


def with_levels(runs: pl.DataFrame) -> pl.DataFrame:
    """`runs` as a claim about their arms reads them."""
    return runs.with_columns(level=pl.col("arm").str.split("=").list.last(), cell=pl.lit(""))


def table(chart: dict[str, Any]) -> pl.DataFrame:
    """The rows that the panels of a chart share out."""
    return pl.read_csv(chart["datasets"][chart["data"]["name"]].encode())


def texts(chart: dict[str, Any]) -> list[str]:
    """All text that a chart shows."""
    svg = vl_convert.vegalite_to_svg(chart)
    return re.findall(r"<(?:text|tspan)[^>]*>([^<]+)<", svg)


def domains(chart: Any, channel: str) -> set[str]:
    """The ranges of the axes of a chart."""
    found = set[str]()
    match chart:
        case dict():
            scale = (chart.get("encoding") or {}).get(channel, {}).get("scale") or {}
            found |= {json.dumps(scale["domain"])} if "domain" in scale else set()
            found |= {one for value in chart.values() for one in domains(value, channel)}
        case list():
            found |= {one for value in chart for one in domains(value, channel)}
    return found


@pytest.mark.parametrize("arms", [2, charts.FEW])
def test_few_arms_share_a_panel_and_have_a_legend_in_their_colours(
    tmp_path: Path, arms: int
) -> None:
    names = [f"arm={at}" for at in range(arms)]
    runs = write_sweep(tmp_path, names, 1)
    overview = drawn(runs)
    assert not overview.panels
    assert len(overview.chart["vconcat"]) == 2, "accuracy and LR"
    text = report.render(runs, None, ABOUT)
    keys = re.findall(r'data-arm="(\d+)".*?stroke="(.*?)".*?</svg>(.*?)<', text)
    assert keys == [(str(at), charts.COLOURS[at], name) for at, name in enumerate(names)]
    assert {name for name in texts(overview.chart) if "arm=" in name} == {
        f"{mean:.2f} {name}"
        for mean, name in zip(results.arms(runs)["final"], names, strict=True)
    }  # fmt: skip


def test_of_too_many_arms_the_page_says_where_their_figures_are(tmp_path: Path) -> None:
    names = [f"arm={at}" for at in range(charts.MOST_ARMS + 1)]
    runs = write_sweep(tmp_path, names, 1)
    assert page_charts.overview(runs, names) is None
    text = report.render(runs, None, ABOUT)
    assert "Curves are drawn of 30 arms at most; here are 31." in text
    assert "No run has recorded anything yet" not in text


def test_a_single_evaluation_is_a_dot(tmp_path: Path) -> None:
    for arms in (2, 6):
        folder = tmp_path / str(arms)
        overview = drawn(write_sweep(folder, [f"a{n}" for n in range(arms)], 1, epochs=1))
        assert overview.ends is None
        svg = vl_convert.vegalite_to_svg(overview.chart)
        colours = {
            colour.upper()
            for colour in re.findall(r'aria-roledescription="point"[^>]*fill="(#\w+)"', svg)
        }
        assert colours == {*charts.COLOURS[:arms]}


def test_restarts_beyond_number_are_not_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_charts, "MARKS", 3)
    assert drawn(write_sweep(tmp_path, ["a", "b"], 1)).notes == [
        "Restarts are not marked: there are too many."
    ]


def test_too_many_runs_are_drawn_as_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_charts, "MOST_RUNS", 3)
    overview = drawn(write_sweep(tmp_path, ["a", "b"], 2))
    assert not overview.singles
    assert overview.notes == ["Single runs are drawn if they are 3 at most; here are 4."]


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_lines_stand_out_from_the_paper_of_both_themes() -> None:
    page = (Path(report.__file__).parent / "page.html.j2").read_text()
    light, dark = re.findall(r"--paper: (#\w{6})", page)[:2]
    for paper, least in ((light, 3.0), (dark, 4.5)):
        for colour in [*charts.COLOURS, charts.GREY]:
            bright, dim = sorted(map(luminance, (colour, paper)), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= least, (colour, paper)


def test_a_claim_about_loss_has_curves_of_loss(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path, ["arm=0", "arm=1"], 2)
    for number, folder in enumerate(runs["folder"]):
        path = Path(folder, "history.jsonl")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            if "val/acc" in row:
                row["val/loss"] = 2 / row["step"] + 0.1 + 0.01 * (number // 2)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scale = Scale("test/loss", "lower", "", 0.005)
    overview = page_charts.overview(runs, ["arm=0", "arm=1"], None, scale)
    assert overview
    assert overview.ends
    assert "val/loss" in texts(overview.chart)
    (low, high), *_ = (json.loads(one) for one in domains(overview.ends, "y"))
    ended = [2 / 20 / 1 + 0.1]
    assert low < min(ended)
    assert high < 1, "far worse values are left out"
    nothing = page_charts.overview(runs, ["arm=0", "arm=1"], None, Scale("val/f1", "higher", "", 0))
    assert nothing
    assert not nothing.has_values


@pytest.mark.parametrize("arms", [2, charts.FEW + 1])
def test_the_page_says_where_a_mean_is_over_fewer_runs(tmp_path: Path, arms: int) -> None:
    runs = write_sweep(tmp_path, [f"arm={at}" for at in range(arms)], 2)
    said = "A mean is over those runs of an arm that have a value at that epoch: not everywhere all of them."
    assert said not in report.render(runs, None, ABOUT)
    history = Path(runs["folder"][0], "history.jsonl")
    history.write_text("".join(history.read_text().splitlines(keepends=True)[:5]))
    assert said in report.render(runs, None, ABOUT)


def test_labels_at_the_ends_leave_out_the_key_that_all_share(tmp_path: Path) -> None:
    overview = drawn(write_sweep(tmp_path, ["augment=none", "augment=mixup"], 1))
    shown = texts(overview.chart)
    assert [one.split()[-1] for one in shown if one.endswith(("none", "mixup"))] == ["none", "mixup"]  # fmt: skip
