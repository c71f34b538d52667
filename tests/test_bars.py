"""What a sweep shows on a terminal: from the files of its runs, and as one sees it there."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import sys
import termios
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from threading import Event
from typing import IO, Any

import forked
import pytest
from conftest import ROOT
from forked import ends
from test_surroundings import command

from harness.analysis import sweep_plan
from harness.config.errors import ConfigError
from harness.config.hydra_private import multirun_config
from harness.sweeps import bars
from harness.sweeps.jobs import plan_sweep
from harness.sweeps.planning import new_document
from harness.sweeps.prefix_tree import epochs_to_train, prefix_trees


def planned(folder: Path, runs: int = 3, **changes: Any) -> Path:
    """A sweep of runs of 4 epochs of 10 updates of 8 images each; none shares anything."""
    entries = [
        {
            "name": f"seed={seed}", "folder": str(seed), "seed": seed, "swept": {"seed": f"{seed}"},
            "plan": {"budget_epochs": 4.0, "updates_per_epoch": 10}, "branches": [], "differs": {},
        }
        for seed in range(runs)
    ]  # fmt: skip
    plan = {
        "claim": None,
        "config": {"trainer": {"batch_size": 4}, "optimizer": {"accumulate": 2}},
        "arms": entries,
    } | changes
    folder.mkdir(exist_ok=True)
    sweep_plan.write_plan(folder / "plan.json", plan)
    return folder


def begin(folder: Path, *rows: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    with (folder / "starts.txt").open("a") as file:
        file.write("now\n")
    (folder / "result.json").unlink(missing_ok=True)
    if rows:
        (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def end(folder: Path, status: str, trained: int) -> None:
    folder.mkdir(exist_ok=True)
    document = {"status": status, "updates_trained": trained}
    (folder / "result.json").write_text(json.dumps(document))


def row(step: int, **values: float) -> dict[str, Any]:
    return {"step": step, "epoch": step / 10, "lr": 0.05, **values}


def test_the_sweeps_bar_counts_what_is_done_and_says_how_long_the_rest_takes(
    tmp_path: Path,
) -> None:
    sweep = planned(tmp_path / "sweep", runs=4)
    end(sweep / "0", "complete", 40)  # before this sweep goes on
    begin(sweep / "1", row(30))  # a start that was killed
    state = bars.SweepState(sweep, now=100.0)
    state.look(101.0)
    (line,) = state.lines(101.0, 120, 30)
    assert re.search(r"^sweep: +0 %, 1 of 4 runs, 4 of 16 epochs \|.* 00:01<\?$", line)

    begin(sweep / "1", row(10, **{"val/acc": 91.234}), row(20))
    state.look(110.0)
    begin(sweep / "1", row(10, **{"val/acc": 91.234}), row(20), row(30))
    state.look(120.0)
    first, second = state.lines(120.0, 120, 30)
    # One epoch in 20 s, and 9 are left
    assert re.search(r"^sweep: +10 %, 1 of 4 runs, 7 of 16 epochs \|.* 00:20<03:00$", first)
    assert second.startswith("2/4 seed=1:  75 %, epoch 3/4, val/acc 91.23 %, 8 img/s |")
    assert second.endswith(" 00:10<00:10")

    end(sweep / "1", "complete", 20)
    end(sweep / "2", "failed", 0)
    state.look(140.0)
    (line,) = state.lines(140.0, 120, 30)
    assert re.search(
        r"^sweep: +33 %, 3 of 4 runs, 12 of 16 epochs, 1 failed \|.* 00:40<01:20$", line
    )


def test_a_run_that_is_requeued_goes_on(tmp_path: Path) -> None:
    sweep = planned(tmp_path / "sweep", runs=1)
    state = bars.SweepState(sweep, 0.0)
    begin(sweep / "0", row(10))
    end(sweep / "0", "interrupted", 10)
    state.look(1.0)
    assert [len(state.lines(1.0, 80, 30)), state.runs[0].status] == [1, ""]
    begin(sweep / "0", row(10))
    state.look(2.0)
    assert len(state.lines(2.0, 80, 30)) == 2


def test_a_claim_with_looks_says_at_most(tmp_path: Path) -> None:
    sweep = planned(tmp_path / "sweep", claim={"looks": [2, 3]})
    (line,) = bars.SweepState(sweep, 0.0).lines(1.0, 120, 30)
    assert "0 of at most 3 runs, 0 of at most 12 epochs" in line


@pytest.mark.parametrize(("columns", "rows"), [(30, 5), (100, 5), (200, 3)])
def test_bars_fit_the_terminal(tmp_path: Path, columns: int, rows: int) -> None:
    sweep = planned(tmp_path / "sweep", runs=9)
    state = bars.SweepState(sweep, 0.0)
    for number in range(9):
        begin(sweep / f"{number}", row(10 + number))
    state.look(1.0)
    lines = state.lines(1.0, columns, rows)
    assert len(lines) <= rows
    assert all(len(line) < columns for line in lines)
    assert re.match(r"and \d more runs", lines[-1])


def test_what_is_left_to_train_is_what_the_sweep_said(tmp_path: Path) -> None:
    words = (
        "scheduler.t_mult=1,2",
        "seed=0,1",
        "trainer.epochs=15,35",
        "model.width=1,2",
        "tracking=none",
    )
    with multirun_config(ROOT / "conf", [*words, f"hydra.sweep.dir={tmp_path}"]) as config:
        sweep = plan_sweep(config)
        sweep_plan.write_plan(tmp_path / "plan.json", new_document(config, sweep))
    runs = bars.SweepState(tmp_path, 0.0).runs
    expected = epochs_to_train(prefix_trees(sweep.runs))
    assert expected < 16 * 25
    assert sum(run.left for run in runs) == pytest.approx(expected)


# --- on a terminal -------------------------------------------------------------------------------


class Screen:
    """What stands on a terminal after what was written to it, as far as bars need it."""

    def __init__(self, written: str) -> None:
        self.lines, self.row, self.column = [""], 0, 0
        for text, code in re.findall(r"([^\x1b\r\n]+)|(\x1b\[\d*[A-Z]|[\r\n])", written):
            self._type(text) if text else self._control(code)

    def _type(self, text: str) -> None:
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + text + line[self.column + len(text) :]
        self.column += len(text)

    def _control(self, code: str) -> None:
        match code:
            case "\r":
                self.column = 0
            case "\n":
                self.row += 1
                self.lines += [""] * (self.row == len(self.lines))
            case "\x1b[J":
                self.lines = [*self.lines[: self.row], self.lines[self.row][: self.column]]
            case _:
                assert code.endswith("A")
                self.row -= int(code[2:-1])


@pytest.fixture
def terminal() -> Iterator[tuple[FileIO, IO[str]]]:
    """A terminal: the end that shows what is written, and the one that programs write to."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 100))
    with os.fdopen(its, "w") as stderr, os.fdopen(ours, "rb", buffering=0) as shown:
        yield shown, stderr


def draw(stderr: IO[str], *looks: Callable[[], Path]) -> None:
    """Draw the bars of the folder that each look returns in turn, without a pause."""
    over, left = Event(), list(looks)

    def look() -> Path:
        if len(left) == 1:
            over.set()
        return left.pop(0)()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        patch.setattr(bars, "_PAUSE", 0.0)
        bars._draw(look, over)


def raising(error: Exception) -> Callable[[], Path]:
    def look() -> Path:
        raise error

    return look


def test_files_that_cannot_be_read_for_a_moment_are_read_the_next_time(
    tmp_path: Path, terminal: tuple[FileIO, IO[str]]
) -> None:
    shown, stderr = terminal
    passing = (ConfigError("no plan yet"), OSError(errno.ESTALE, "Stale file handle"))
    draw(stderr, *map(raising, passing), lambda: planned(tmp_path / "sweep"))
    assert b"0 of 3 runs" in shown.read(4096)


def test_a_fault_of_ours_is_not_hidden(terminal: tuple[FileIO, IO[str]]) -> None:
    with pytest.raises(KeyError):
        draw(terminal[1], raising(KeyError("arms")))


def test_a_terminal_that_is_gone_ends_the_drawing(
    tmp_path: Path, terminal: tuple[FileIO, IO[str]]
) -> None:
    shown, stderr = terminal
    shown.close()
    draw(stderr, lambda: planned(tmp_path / "sweep"), raising(AssertionError("drawn again")))


def on_a_terminal(folder: Path, *overrides: str, leave: bool = False) -> str:
    """What a sweep writes to a terminal, which is closed after the first bar where `leave`."""
    words = command(folder, "seed=0,1", *overrides)
    return forked.on_a_terminal(words, b"epochs |" if leave else b"", TERM="xterm")


@pytest.mark.parametrize("launcher", [(), ("hydra/launcher=parallel", "hydra.launcher.n_jobs=2")])
@pytest.mark.slow
def test_a_sweep_draws_bars_and_leaves_whole_lines(
    tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    written = on_a_terminal(tmp_path, "trainer.epochs=80", *launcher)
    frames = [part for part in written.split("\x1b[J") if part.startswith("sweep")]
    assert any(re.search(r"sweep: +\d+ %, \d of 2 runs, [\d.]+ of 160 epochs", f) for f in frames)
    assert any("1/2 seed=0: " in frame.partition("\n")[2] for frame in frames)
    if launcher:
        assert any(len(frame.splitlines()) == 3 for frame in frames), "a line each"
    screen = [line.rstrip() for line in Screen(written).lines]
    said = [line for line in screen if "epochs trained" in line]
    assert sorted(line.partition(":")[0] for line in said) == ["1/2 seed=0", "2/2 seed=1"]
    assert not [line for line in screen if "|" in line or "img/s" in line], screen
    assert screen[-2].endswith("/report.html")


@pytest.mark.slow
def test_a_terminal_that_goes_away_ends_no_sweep(tmp_path: Path) -> None:
    assert "epochs |" in on_a_terminal(tmp_path, "trainer.epochs=80", leave=True)
    assert len(ends(tmp_path / "sweep")) == 2
    assert (tmp_path / "sweep/report.html").exists()
