"""Small runs end as they did: the golden records of `tests/golden/`, renewed by `scripts/golden.py renew`.

On the machine that made a record, to the last bit; elsewhere arithmetic rounds otherwise, so that steps,
epochs, LRs and keys are equal and metrics are close.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import forked
import golden
import pytest
from conftest import Main

_EXACT = ("step", "epoch", "lr")


def close(then: list[dict[str, float]], now: list[dict[str, float]]) -> None:
    """Rows of two histories: the same where nothing rounds, losses and accuracies near each other."""
    assert len(then) == len(now)
    for old, new in zip(then, now, strict=True):
        assert list(old) == list(new)
        assert [old[name] for name in _EXACT] == [new[name] for name in _EXACT]
        for name in old.keys() - set(_EXACT):
            size = 5.0 if name.endswith("/acc") else 0.1 + 0.05 * abs(old[name])
            assert new[name] == pytest.approx(old[name], abs=size), (old, new)


def read_rows(history: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in history.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("golden")
    golden.write_images(home / "images")
    return home


def interrupt(run: Path, words: list[str], limit: int) -> None:
    """Stop `train.py` by a signal after `limit` rows."""
    program = forked.Program(run.with_suffix(".log"), "train.py", *words)
    program.until(lambda: golden.rows(run) >= limit)
    assert program.process.pid is not None
    os.kill(program.process.pid, signal.SIGTERM)
    assert program.wait() == 128 + signal.SIGTERM, program.said


@pytest.mark.parametrize("case", golden.CASES)
def test_a_run_ends_as_it_did(case: str, folder: Path, main: Main) -> None:
    for words in golden.commands(case, folder):
        if limit := golden.INTERRUPTED_AFTER.get(case):
            interrupt(folder / case, words, limit)
        done = main(*words)
        assert done.returncode == 0, done.stderr
    now = golden.record(folder / case)
    then = json.loads((golden.RECORDS / f"{case}.json").read_text())
    if now["numerics"] == then["numerics"]:
        assert now == then
    for name in ("run_id", "fingerprint", "data_sha256"):
        assert now[name] == then[name]
    assert now.get("updates_reused") == then.get("updates_reused")
    close(read_rows(then["history"]), read_rows(now["history"]))


def test_every_record_has_a_case() -> None:
    assert {path.stem for path in golden.RECORDS.glob("*.json")} == set(golden.CASES)


# --- files of version 0.1, before the layout changed ---------------------------------------------

EARLIER = golden.RECORDS / "version_0.1"
SWEEP = [
    "dataset=synthetic", "dataset.images=200", "dataset.classes=4", "dataset.image_size=4",
    "model.width=1", "trainer.batch_size=32", "trainer.log_every=2", "tracking=none",
    "scheduler.t_0=1",
]  # fmt: skip


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A sweep and a store as version 0.1 left them."""
    return Path(shutil.copytree(EARLIER, tmp_path / "earlier"))


def result(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "result.json").read_text()))


def test_a_sweep_of_the_earlier_version_is_complete(earlier: Path, main: Main) -> None:
    before = [result(earlier / "sweep" / number) for number in "01"]
    words = ["trainer.epochs=3", "scheduler.t_mult=1,2", f"store.dir={earlier / 'store'}"]
    done = main("-m", *SWEEP, *words, f"hydra.sweep.dir={earlier / 'sweep'}")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is complete") == 2
    assert [result(earlier / "sweep" / number) for number in "01"] == before


@pytest.mark.parametrize(
    ("epochs", "reused", "trained"),
    [pytest.param(3, 12, 0, id="the same run"), pytest.param(7, 12, 16, id="a longer run")],
)
def test_a_store_of_the_earlier_version_is_used(
    earlier: Path, main: Main, epochs: int, reused: int, trained: int
) -> None:
    where = [f"store.dir={earlier / 'store'}", f"hydra.run.dir={earlier / 'run'}"]
    done = main(*SWEEP, f"trainer.epochs={epochs}", "scheduler.t_mult=2", *where)
    assert done.returncode == 0, done.stderr
    now, then = result(earlier / "run"), result(earlier / "sweep/1")
    assert (now["updates_reused"], now["updates_trained"]) == (reused, trained)
    begun = (earlier / "run/history.jsonl").read_text()
    assert begun.startswith((earlier / "sweep/1/history.jsonl").read_text())
    if epochs == 3:
        assert now["weights_sha256"] == then["weights_sha256"]
        assert now["run_id"] == then["run_id"]
        assert now.keys() >= then.keys()
