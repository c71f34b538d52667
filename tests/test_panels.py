"""The charts of many arms: a panel each over the baseline, the last part and its axis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import essential
from test_page import ABOUT, write_sweep
from test_page_charts import domains, drawn, table, texts, with_levels

from harness.report import charts, panels
from harness.report import page as report


@pytest.mark.parametrize("arms", essential([charts.FEW + 1, charts.MOST_ARMS]))
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
        return panels._from(curve, begin, low).select("epoch", "mean").rows()

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
