"""One run by the command line: what its folder holds, however the run ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
from conftest import Main, make_config

from harness.config.errors import ConfigError
from harness.runs.context import RunContext
from harness.runs.run import run
from harness.runs.run_dir import RunInfo

TINY = (
    "dataset=synthetic", "dataset.images=200", "dataset.classes=4", "dataset.image_size=4",
    "model.width=2", "trainer.batch_size=16", "scheduler.t_0=1", "trainer.epochs=3", "tracking=none",
)  # fmt: skip
IDENTITY = {"run_id", "fingerprint", "data_sha256", "test_sha256", "numerics", "plan"}


def words(folder: Path, *overrides: str) -> tuple[str, ...]:
    """Settings of a run in `folder`/run, with a store of the test's own."""
    return (*TINY, f"hydra.run.dir={folder}/run", f"store.dir={folder}/store", *overrides)


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run/result.json").read_text())
    return found


def rows(folder: Path) -> list[dict[str, float]]:
    text = (folder / "run/history.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_complete_run_leaves_its_figures_and_files(main: Main, tmp_path: Path) -> None:
    done = main(*words(tmp_path))
    assert done.returncode == 0, done.stderr
    found = result(tmp_path)
    assert (found["status"], found["error"], found["no_test"]) == ("complete", None, None)
    assert (found["updates_trained"], found["updates_reused"], found["restarts"]) == (24, 0, 0)
    evaluations = [row for row in rows(tmp_path) if "val/acc" in row]
    assert found["final"] == evaluations[-1]
    assert found["best"] == max(evaluations, key=lambda row: row["val/acc"])
    assert found["test"].keys() == {"test/acc", "test/loss"}
    assert found.keys() >= IDENTITY
    assert found["seconds"].keys() >= {"total", "data", "build", "fit", "evaluate", "store"}
    assert found["seconds"]["total"] >= found["seconds"]["fit"] > 0
    assert len(np.load(tmp_path / "run/lr.npy")) == 24
    files = {path.name for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert files - {".lock", "train.log"} == {
        "config.json", "correct.npz", "history.jsonl", "lr.npy", "result.json", "starts.txt",
    }  # fmt: skip


def test_a_complete_run_stays_as_it_is(main: Main, tmp_path: Path) -> None:
    assert main(*words(tmp_path)).returncode == 0
    before = (tmp_path / "run/result.json").read_bytes()
    done = main(*words(tmp_path))
    assert (done.returncode, done.stderr.strip().endswith("is complete")) == (0, True)
    assert (tmp_path / "run/result.json").read_bytes() == before
    assert len((tmp_path / "run/starts.txt").read_text().splitlines()) == 1


def test_a_run_that_diverges_keeps_its_history(main: Main, tmp_path: Path) -> None:
    done = main(*words(tmp_path, "optimizer.lr=1e5", "trainer.log_every=1"))
    assert (done.returncode, "diverged" in done.stderr) == (0, True)
    found = result(tmp_path)
    assert found["status"] == "diverged"
    assert found["error"].startswith("the loss of update ")
    assert "weights_sha256" not in found
    assert rows(tmp_path)
    assert all(np.isfinite(row.get("train/loss", 0)) for row in rows(tmp_path))


def test_a_run_that_diverged_is_not_trained_again_unless_it_is_asked_for(
    main: Main, tmp_path: Path
) -> None:
    diverging = words(tmp_path, "optimizer.lr=1e5", "trainer.log_every=1")
    main(*diverging)
    first = rows(tmp_path)
    assert main(*diverging).returncode == 0
    assert result(tmp_path)["error"].endswith("that was before, retry=true trains it again")
    assert "updates_trained" not in result(tmp_path)
    assert rows(tmp_path) == first
    main(*diverging, "retry=true")
    assert result(tmp_path)["updates_trained"] > 0


def test_a_run_that_cannot_begin_has_a_result_that_says_why(main: Main, tmp_path: Path) -> None:
    done = main(*words(tmp_path, "trainer.device=cuda:77"))
    assert done.returncode == 1
    found = result(tmp_path)
    assert found["status"] == "failed"
    assert found["error"].startswith("trainer.device=cuda:77: ")
    assert not (tmp_path / "run/history.jsonl").exists()


def test_a_run_that_fails_on_the_way_has_a_result_and_ends_well_the_next_time(
    main: Main, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "run/history.jsonl"
    in_the_way.mkdir(parents=True)
    done = main(*words(tmp_path))
    assert done.returncode == 1
    found = result(tmp_path)
    assert (found["status"], found["restarts"]) == ("failed", 0)
    assert "history.jsonl" in found["error"]
    assert found.keys() >= IDENTITY, "what was known is written"
    in_the_way.rmdir()
    assert main(*words(tmp_path)).returncode == 0
    assert (result(tmp_path)["status"], result(tmp_path)["restarts"]) == ("complete", 1)


@pytest.mark.slow
def test_a_run_has_no_result_while_it_trains_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/result.json").write_text('{"status": "failed"}')
    endless = words(tmp_path, "trainer.epochs=100000", "trainer.log_every=1")
    program = forked.Program(tmp_path / "log", "train.py", *endless)
    history = tmp_path / "run/history.jsonl"
    program.until(lambda: history.exists() and history.stat().st_size)
    assert not (tmp_path / "run/result.json").exists()
    program.send_signal(signal.SIGTERM)
    assert program.wait() == 128 + signal.SIGTERM
    assert result(tmp_path)["status"] == "interrupted"
    assert result(tmp_path)["error"] == "stopped by SIGTERM"


def test_the_configuration_of_the_first_start_is_the_runs(main: Main, tmp_path: Path) -> None:
    assert main(*words(tmp_path)).returncode == 0
    before = (tmp_path / "run/config.json").read_bytes()
    assert json.loads(before)["config"] == result(tmp_path)["config"]
    done = main(*words(tmp_path, "seed=1"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: seed=1 (was 0): not what the run in ")
    assert (tmp_path / "run/config.json").read_bytes() == before
    assert result(tmp_path)["config"]["seed"] == 0


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (("scheduler.t_0=4",), "scheduler.t_0=4: does not fit into the budget"),
        (("model=torchvision", "model.arch=vgg16"), "model.arch=vgg16: needs images of at least"),
    ],
    ids=["a schedule", "a network"],
)
def test_a_run_that_is_refused_leaves_nothing_in_the_way_of_the_corrected_one(
    main: Main, tmp_path: Path, wrong: tuple[str, ...], line: str
) -> None:
    base = tuple(word for word in words(tmp_path) if not word.startswith("model.width"))
    done = main(*base, *wrong)
    assert (done.returncode, line in done.stderr) == (1, True), done.stderr
    assert result(tmp_path)["status"] == "failed"
    done = main(*base)
    assert done.returncode == 0, done.stderr
    assert (
        json.loads((tmp_path / "run/config.json").read_text())["config"]
        == result(tmp_path)["config"]
    )
    assert main(*base, *wrong).returncode == 1, "now it has begun"
    assert result(tmp_path)["status"] == "complete"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_run_has_the_same_weights_and_history(
    main: Main, tmp_path: Path, precision: str
) -> None:
    ends = []
    for name in ("one", "two"):
        again = f"trainer.precision={precision}", "reuse=false"
        assert main(*words(tmp_path / name, *again)).returncode == 0
        found = result(tmp_path / name)
        ends.append((found["weights_sha256"], found["run_id"], rows(tmp_path / name)))
    assert ends[0] == ends[1]


def test_a_run_goes_on_only_with_the_configuration_it_began_with(tmp_path: Path) -> None:
    def start(*overrides: str, claim: str = "first") -> dict[str, Any]:
        changed = make_config(*TINY, f"store.dir={tmp_path / 'store'}", *overrides)
        return run(RunContext(changed, RunInfo(tmp_path, "run", claim_sha256=claim))).to_json()

    first = start()
    before = (tmp_path / "result.json").read_bytes()
    with pytest.raises(ConfigError) as error:
        start("scheduler.t_mult=1", "model.width=4")
    assert str(error.value) == (
        "model.width=4 (was 2), scheduler.t_mult=1 (was 2): not what the run in "
        f"{tmp_path} began with; undo that, or take another folder (hydra.run.dir, hydra.sweep.dir)"
    )
    assert (tmp_path / "result.json").read_bytes() == before
    second = start("retry=true", "trainer.checkpoint_every=1", "claim.margin=1", claim="second")
    assert second["weights_sha256"] == first["weights_sha256"]
    assert second["restarts"] == 0, "what is complete stays as it is"
    assert second["claim_sha256"] == "first", "what it was trained for cannot change on the way"
