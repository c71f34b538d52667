"""The charts of curves: who shares a panel, colours, thinning, restarts, the last part and its labels."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import vl_convert
from test_page import ABOUT, write_sweep

from harness.analysis import results
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


@pytest.mark.parametrize("arms", [charts.FEW + 1, charts.MOST_ARMS])
def test_more_arms_have_a_panel_each_without_what_all_names_share(
    tmp_path: Path, arms: int
) -> None:
    names = [f"arm=name {at}" for at in range(arms)]
    runs = write_sweep(tmp_path, names, 1)
    overview = drawn(runs)
    assert (overview.panels, overview.baselines) == (True, False)
    titles = [text for text in texts(overview.chart) if "name" in text]
    assert titles == [f"name {at}" for at in range(arms)]
    assert "data-arm" not in report.render(runs, None, ABOUT).partition('id="specs"')[0]


def test_of_too_many_arms_the_page_says_where_their_figures_are(tmp_path: Path) -> None:
    names = [f"arm={at}" for at in range(charts.MOST_ARMS + 1)]
    runs = write_sweep(tmp_path, names, 1)
    assert page_charts.overview(runs, names) is None
    text = report.render(runs, None, ABOUT)
    assert "Curves are drawn of 30 arms at most; here are 31." in text
    assert "No run has recorded anything yet" not in text


def test_the_baseline_is_grey_behind_the_others(tmp_path: Path) -> None:
    names = [f"arm={at}" for at in range(6)]
    runs = with_levels(write_sweep(tmp_path, names, 2))
    overview = drawn(runs, baseline="2")
    assert overview.baselines
    (colours,) = {json.dumps(one) for one in ranges(overview.chart)}
    assert [at for at, one in enumerate(json.loads(colours)) if one == charts.GREY] == [2]
    rows = table(overview.chart)
    behind = rows.filter(kind="behind")
    assert {*behind["panel"]} == {0, 1, 3, 4, 5}
    assert {*behind["arm"]} == {2}
    own = rows.filter(kind="own", arm=2).select("epoch", "mean")
    assert behind.filter(panel=5).select("epoch", "mean").equals(own)


def ranges(chart: Any) -> list[list[str]]:
    match chart:
        case dict():
            own = (chart.get("color") or {}) if isinstance(chart.get("color"), dict) else {}
            here = [own["scale"]["range"]] if "scale" in own else []
            return here + [one for value in chart.values() for one in ranges(value)]
        case list():
            return [one for value in chart for one in ranges(value)]
    return []


def test_a_cell_with_two_arms_of_the_baseline_has_none_behind(tmp_path: Path) -> None:
    names = [f"lr={lr}, arm={at}" for lr in (1, 2) for at in range(3)]
    runs = with_levels(write_sweep(tmp_path, names, 1))
    assert not drawn(runs, baseline="1").baselines
    cells = runs.with_columns(cell=pl.col("arm").str.split(",").list.first())
    overview = drawn(cells, baseline="1")
    rows = table(overview.chart).filter(kind="behind")
    assert {*rows.select("panel", "arm").iter_rows()} == {(0, 1), (2, 1), (3, 4), (5, 4)}


def test_the_last_part_begins_where_the_last_cycle_does(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path, ["a", "b"], 2)  # restarts at 5, 10 and 15, and at 10
    for folder in runs["folder"]:
        rows = [{"step": n, "epoch": float(n), "val/acc": 90.0} for n in range(1, 21)]
        (Path(folder) / "history.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))
    ends = drawn(runs).ends
    assert ends
    assert domains(ends, "x") == {"[15, 20.0]"}
    without = drawn(runs.with_columns(restarts=pl.lit(0))).ends
    assert without
    assert domains(without, "x") == {"[13, 20.0]"}


def test_a_curve_is_cut_where_it_enters_the_last_part() -> None:
    curve = pl.DataFrame(
        {"arm": 0, "epoch": [1.0, 2.0, 3.0, 4.0], "mean": [90.0, 80.0, 90.0, 92.0]}
    )

    def cut(begin: float, low: float) -> list[tuple[float, float]]:
        return page_charts._from(curve, begin, low).select("epoch", "mean").rows()

    assert cut(2.5, 70) == [(2.5, 85), (3, 90), (4, 92)]
    assert cut(1, 88) == [pytest.approx((2.8, 88)), (3, 90), (4, 92)]
    assert cut(2.9, 88) == [pytest.approx((2.9, 89)), (3, 90), (4, 92)]
    assert cut(0, 70) == [(1, 90), (2, 80), (3, 90), (4, 92)]
    assert cut(0, 95) == []


def test_the_axis_of_the_last_part_sets_the_ends_apart(tmp_path: Path) -> None:
    runs = write_sweep(tmp_path, ["a", "b", "c"], 1)
    for folder, end in zip(runs["folder"], (90.0, 90.5, 91.0), strict=True):
        rows = [{"step": n, "epoch": float(n), "val/acc": end - 3 * (20 - n)} for n in range(1, 21)]
        (Path(folder) / "history.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))
    overview = drawn(runs)
    assert overview.ends
    (domain,) = domains(overview.ends, "y")
    low, high = json.loads(domain)
    assert low < 90 < 91 < high
    assert (91 - 90) / (high - low) > 0.5
    far = Path(runs["folder"][2]) / "history.jsonl"
    far.write_text(far.read_text().replace("91.0", "11.0"))
    overview = drawn(runs)
    assert overview.ends
    (domain,) = domains(overview.ends, "y")
    assert json.loads(domain)[0] > 88, "an end far below the others is left out"
    assert sorted(text for text in texts(overview.ends) if text.endswith((" a", " b", " c"))) == [
        "90.00 a", "90.50 b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ([1.0, 5.0], [1.0, 5.0]),
        ([5.0, 5.0, 4.9], [5.9, 6.9, 4.9]),
        ([9.9, 10.0], [9.0, 10.0]),
        ([10.0] * 4, [7.0, 8.0, 9.0, 10.0]),
        ([-3.0, 30.0], [0.0, 10.0]),
        ([], []),
    ],
)
def test_labels_stand_apart_in_the_order_of_their_lines(
    values: list[float], places: list[float]
) -> None:
    assert page_charts.spread(values, 1.0, 0.0, 10.0) == pytest.approx(places)


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


def test_the_lr_of_an_arm_is_that_of_its_first_run_that_has_one(tmp_path: Path) -> None:
    write_sweep(tmp_path, ["a"], 3, spoiled={0: "missing"})
    np.save(tmp_path / "2/lr.npy", np.full(160, 0.7))
    _, panel = drawn(results.read(tmp_path)).chart["vconcat"]
    assert domains(panel, "y") == {"[0, 0.1]"}


def test_too_many_runs_are_drawn_as_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_charts, "MOST_RUNS", 3)
    overview = drawn(write_sweep(tmp_path, ["a", "b"], 2))
    assert not overview.singles
    assert overview.notes == ["Single runs are drawn if they are 3 at most; here are 4."]


def test_thinning_keeps_every_curves_extremes() -> None:
    epochs = np.arange(30_000)
    acc = np.where(epochs == 12_345, 1.0, 50.0 + epochs % 7)
    points = pl.DataFrame({"arm": np.repeat([0, 1], 30_000), "epoch": np.tile(epochs, 2),
                           "mean": np.concatenate([acc, acc])})  # fmt: skip
    few = page_charts._thinned(points, "arm", "mean", 20_000)
    assert len(few) <= 40_004
    for _, curve in few.group_by("arm"):
        assert curve["mean"].min() == 1.0
        assert curve["epoch"].is_sorted()


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
