"""`tracking=tensorboard`: event files, read back as TensorBoard reads them."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
from conftest import Main
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

from harness.config.errors import ConfigError
from harness.config.schema import TensorBoard
from harness.runs import tracking
from harness.runs.tensorboard_run import TensorBoardRun

TINY = (
    "dataset=synthetic", "dataset.images=200", "dataset.image_size=4", "model.width=1", "trainer.epochs=2",
    "trainer.log_every=1", "scheduler.t_0=1", "tracking=tensorboard",
)  # fmt: skip


def events(folder: Path) -> EventAccumulator:
    """What TensorBoard shows of a run's folder, all of it."""
    (file,) = folder.glob("*/events.out.tfevents.*")
    return EventAccumulator(str(file), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def shows_the_history(folder: Path) -> None:
    shown, history = events(folder), rows(folder)
    metrics = {name for row in history for name in row} - {"step"}
    result = json.loads((folder / "result.json").read_text())
    assert set(shown.Tags()["scalars"]) == metrics | set(result["test"])
    for name in metrics:
        own = [(one.step, one.value) for one in shown.Scalars(name)]
        assert own == [(row["step"], np.float32(row[name])) for row in history if name in row]
    for name, value in result["test"].items():
        (one,) = shown.Scalars(name)
        assert (one.step, one.value) == (history[-1]["step"], np.float32(value))
    (config,) = shown.Tensors("config/text_summary")
    assert '"kind": "synthetic"' in config.tensor_proto.string_val[0].decode()
    (status,) = shown.Tensors("status/text_summary")
    assert result["status"] in status.tensor_proto.string_val[0].decode()


def test_event_files_of_others_stay(tmp_path: Path, main: Main) -> None:
    other = tmp_path / "run/other/events.out.tfevents.1.host"
    other.parent.mkdir(parents=True)
    other.write_text("another experiment")
    done = main(*TINY, f"hydra.run.dir={tmp_path}/run", f"store.dir={tmp_path}/store")
    assert done.returncode == 0, done.stderr
    assert other.read_text() == "another experiment"


def test_a_sweep_has_the_rows_of_each_run_under_its_name(tmp_path: Path, main: Main) -> None:
    sweep = tmp_path / "sweep"
    where = (f"hydra.sweep.dir={sweep}", f"store.dir={tmp_path}/store")
    done = main("-m", *TINY, "scheduler.t_mult=1,2", "seed=0", *where)
    assert done.returncode == 0, done.stderr
    shown = EventMultiplexer().AddRunsFromDirectory(str(sweep)).Reload()
    assert set(shown.Runs()) == {"0/t_mult=1", "1/t_mult=2"}
    for number in "01":
        shows_the_history(sweep / number)
    result = json.loads((sweep / "0/result.json").read_text())
    assert result["tracking"] == str(sweep / "0/t_mult=1")


@pytest.mark.slow
def test_a_run_that_goes_on_after_a_stop_has_no_row_twice(tmp_path: Path) -> None:
    words = [*TINY, "trainer.epochs=300", "scheduler.t_0=300", "trainer.evals_per_epoch=1",
             f"hydra.run.dir={tmp_path}/run", f"store.dir={tmp_path}/store"]  # fmt: skip
    program = forked.Program(tmp_path / "log", "train.py", *words)
    path = tmp_path / "run/history.jsonl"
    program.until(lambda: path.exists() and path.read_text().count("\n") >= 20)
    program.send_signal(signal.SIGTERM)
    program.wait()
    stopped = len(rows(tmp_path / "run"))
    done = forked.complete("train.py", *words)
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "run")) > stopped >= 20
    shows_the_history(tmp_path / "run")


def test_a_second_start_replaces_the_file(tmp_path: Path) -> None:
    for begun in ([1, 2], [1, 2, 3]):
        mirror = TensorBoardRun(tmp_path, "lr=0.1/x", {"seed": 0})
        for step in begun:
            mirror.log({"step": step, "lr": 0.5})
        mirror.finish({"status": "complete"}, exit_code=0)
    assert Path(mirror.where).name == "lr=0.1_x"
    assert [one.step for one in events(tmp_path).Scalars("lr")] == [1, 2, 3]


def test_a_file_that_cannot_be_written_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror = TensorBoardRun(tmp_path, "run", {})
    mirror._writer.close()  # the next row opens a new file
    (tmp_path / "run").rename(tmp_path / "moved")
    (tmp_path / "run").touch()
    for step in (1, 2):
        mirror.log({"step": step, "lr": 0.5})
    mirror.finish({"status": "complete"}, exit_code=0)
    assert capsys.readouterr().err.count("warning: TensorBoard") == 1


def test_without_the_package_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.runs.tensorboard_run.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^tracking=tensorboard: .*pip install -e '\.\[tens"):
        tracking.check(TensorBoard())
