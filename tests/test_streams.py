"""stdin, stdout and stderr as other programs leave them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
from conftest import ROOT
from forked import ends
from test_surroundings import command, result

from harness.config.streams import BARS

STREAMS = {
    "no stderr": '"$@" 2>&-',
    "no stdout": '"$@" >&-',
    "none at all": '"$@" <&- >&- 2>&-',
    "nobody reads stdout": '"$@" | true; exit ${PIPESTATUS[0]}',
    "nobody reads anything": '"$@" 2>&1 | true; exit ${PIPESTATUS[0]}',
}


@pytest.mark.slow
@pytest.mark.parametrize("case", STREAMS)
def test_streams_that_are_closed_or_broken_end_nothing(tmp_path: Path, case: str) -> None:
    words = [sys.executable, *command(tmp_path, "seed=0,1")]
    done = subprocess.run(
        ["bash", "-c", STREAMS[case], "bash", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert len(ends(tmp_path / "sweep")) == 2
    assert (tmp_path / "sweep/report.html").exists()
    for path in (*tmp_path.glob("sweep/*/history.jsonl"), tmp_path / "sweep/plan.json"):
        for line in (
            path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        ):
            json.loads(line)  # nothing that was printed went into a file


def on_a_terminal(folder: Path, *overrides: str, leave: bool = False, **variables: Any) -> str:
    """What a run prints on a terminal, which is closed after the first line where `leave`."""
    seen = forked.on_a_terminal(
        command(folder, *overrides), b"epoch" if leave else b"", **variables
    )
    assert result(folder)["status"] == "complete"
    return seen


@pytest.mark.slow
def test_a_terminal_that_goes_away_ends_nothing(tmp_path: Path) -> None:
    said = on_a_terminal(tmp_path, "trainer.epochs=300", leave=True, TERM="xterm")
    assert "epoch" in said
    assert not list(tmp_path.glob("store/*/*.outcome"))


@pytest.mark.parametrize(
    ("variables", "bar"),
    [
        ({"TERM": "xterm", "COLUMNS": "20", BARS: "1"}, True),
        ({"TERM": "dumb"}, False),
    ],
)
@pytest.mark.slow
def test_a_bar_is_drawn_on_terminals_that_can(
    tmp_path: Path, variables: dict[str, Any], bar: bool
) -> None:
    said = on_a_terminal(tmp_path, "trainer.epochs=40", **variables)
    *_, end, lr, val_acc, runs, history, page = said.splitlines()
    assert end.startswith("dataset=synthetic")
    names = ("lr.png", "val_acc.png", "runs.csv", "history.parquet", "report.html")
    assert [lr, val_acc, runs, history, page] == [f"{tmp_path}/run/{name}" for name in names]
    assert ("\r" in said.replace("\r\n", "")) == bar
