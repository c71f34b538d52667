"""runs.csv and history.parquet in the folders of sweeps and reports."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
from conftest import ROOT, Main
from test_summary import TWO, Run, made

from harness.analysis import results
from harness.config.one_line_errors import Attempts
from harness.report.data_files import histories, write_data_files

ARMS: dict[str, list[Run]] = {
    "1": [("complete", 90.0), ("failed", 0.0)],
    "2": [("complete", 91.5), ("missing", 0.0)],
}


@pytest.fixture
def reported(tmp_path: Path, report: Main) -> Path:
    folder = made(tmp_path / "sweep", ARMS, TWO)
    report(folder, "--ledger", "none")
    return folder


def test_histories_of_no_runs_are_a_table() -> None:
    assert histories(
        pl.DataFrame(
            schema=dict.fromkeys(("folder", "sweep", "run", "arm", "cell", "level", "seed"))
        )
    ).is_empty()


def test_a_row_a_run_as_it_was_recorded(reported: Path) -> None:
    runs = pl.read_csv(reported / "runs.csv")
    columns = ["sweep", "run", "arm", "level", "seed", "status", "final", "swept.scheduler.t_mult"]
    assert runs.select(columns).rows() == [
        ("sweep", 0, "t_mult=1", 1, 0, "complete", 90.0, 1),
        ("sweep", 1, "t_mult=1", 1, 1, "failed", 0.0, 1),
        ("sweep", 2, "t_mult=2", 2, 0, "complete", 91.5, 2),
        ("sweep", 3, "t_mult=2", 2, 1, "missing", None, 2),
    ]


def test_the_columns_are_the_documented_ones_in_that_order(reported: Path) -> None:
    text = (ROOT / "docs/results.md").read_text()
    section = text.partition("## `runs.csv`")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    documented = [name for cell in cells for name in re.findall(r"`(.+?)`", cell)]
    columns = pl.read_csv(reported / "runs.csv").columns
    columns = [re.sub(r"swept\..*", "swept.KEY", name) for name in columns]
    assert [name.replace(".loss", ".NAME") for name in columns] == documented


def test_the_rows_of_all_histories(reported: Path) -> None:
    rows = pl.read_parquet(reported / "history.parquet")
    assert rows.columns == [
        "sweep", "run", "arm", "cell", "level", "seed", "step", "epoch", "lr", "train/loss", "val/acc", "val/loss",
    ]  # fmt: skip
    for run in ("0", "2"):
        own = rows.filter(run=run).select("step", "epoch", "lr", "val/acc")
        assert own.equals(results.history(reported / run).select(own.columns))
    assert set(rows["run"]) == {run for run in "0123" if (reported / run).exists()}


@pytest.mark.parametrize(
    ("folders", "named"),
    [(["a", "b"], ["a", "b"]), (["x/a", "y/a"], ["x/a", "y/a"]), (["x/a", "y/x/a"], ["{}/x/a", "y/x/a"])],
)  # fmt: skip
def test_several_sweeps_are_told_apart(
    tmp_path: Path, report: Main, folders: list[str], named: list[str]
) -> None:
    for seed, name in enumerate(folders):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        made(tmp_path / name, {level: [("complete", 90.0)] for level in "12"}, TWO, seeds=[seed])
    given = [tmp_path / name for name in folders]
    report(*given, "--out", tmp_path / "out", "--ledger", "none")
    first, second = (name.format(tmp_path.name) for name in named)
    places = [(first, "0"), (second, "0"), (first, "1"), (second, "1")]
    read = pl.read_csv(tmp_path / "out/runs.csv", schema_overrides={"run": pl.String})
    for table in (read, pl.read_parquet(tmp_path / "out/history.parquet")):
        assert table.select("sweep", "run").unique(maintain_order=True).rows() == places


@pytest.mark.parametrize(
    ("lost", "other"), [("runs.csv", "history.parquet"), ("history.parquet", "runs.csv")]
)
def test_a_file_that_cannot_be_written_costs_nothing_else(
    tmp_path: Path, report: Main, lost: str, other: str
) -> None:
    folder = made(tmp_path / "sweep", ARMS, TWO)
    (folder / lost / "in the way").mkdir(parents=True)
    done = report(folder, "--ledger", "none")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {lost}: ")
    assert {other, "report.html", "verdict.json"} <= {path.name for path in folder.iterdir()}


def test_a_run_without_a_history_has_no_rows(tmp_path: Path) -> None:
    folder = made(tmp_path / "sweep", {"1": [("missing", 0.0)]}, TWO)
    steps = Attempts()
    write_data_files(folder, results.read(str(folder)), steps, [folder])
    assert steps.failures == []
    assert pl.read_parquet(folder / "history.parquet").is_empty()
    assert pl.read_csv(folder / "runs.csv")["status"].to_list() == ["missing"]
