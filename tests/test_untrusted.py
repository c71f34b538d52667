"""Files of others are data: they are read within bounds, run nothing, and lead nowhere else."""

from __future__ import annotations

import json
import os
import pickle
import runpy
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
from conftest import ROOT, Main
from test_faults import TINY

SWEEP = ("train.py", "-m", *TINY, "scheduler.t_mult=1,2", "seed=0,1")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    where = (f"store.dir={folder}/store", f"hydra.sweep.dir={folder}/sweep")
    code, said = forked.run(folder / "log", *SWEEP, *where)
    assert code == 0, said
    return folder / "sweep"


Report = Callable[[Path], tuple[int, str]]


@pytest.fixture
def report(report: Main) -> Report:
    """`scripts/report.py SWEEP`: its exit code and what it says on stderr."""

    def run(sweep: Path) -> tuple[int, str]:
        done = report(sweep)
        return done.returncode, done.stderr

    return run


class Bomb:
    """A pickle that leaves a file where it is opened."""

    def __init__(self, leaves: Path) -> None:
        self.leaves = leaves

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.leaves,))


def endless(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.truncate(10 * 2**30)  # takes no space


def changed(**values: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def arms(**values: Any) -> Callable[[Path], None]:
    """The first arm of a plan, changed."""

    def change(path: Path) -> None:
        plan = json.loads(path.read_text())
        plan["arms"][0] |= values
        path.write_text(json.dumps(plan))

    return change


def unfinished(**values: Any) -> Callable[[Path], None]:
    """The first arm of a plan, changed, and without the result that says the same of itself."""

    def change(path: Path) -> None:
        arms(**values)(path)
        (path.parent / "0/result.json").unlink()

    return change


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def leads_to(target: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return change


def pickled(path: Path) -> None:
    np.save(path, np.array([Bomb(path.parent / "exploded")], dtype=object), allow_pickle=True)


def huge_header(path: Path) -> None:
    """An array that says it has 10^15 numbers, and has none."""
    with path.open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**15,)}
        np.lib.format.write_array_header_1_0(file, header)


def zipped(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


REFUSED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a plan in words": ("plan.json", lambda p: p.write_text("a plan")),
    "a plan that is a list": ("plan.json", lambda p: p.write_text("[]")),
    "a plan of deep lists": ("plan.json", lambda p: p.write_text("[" * 10**6)),
    "a plan of ten gigabytes": ("plan.json", endless),
    "a plan without arms": ("plan.json", changed(arms=None)),
    "an arm that leads out": ("plan.json", arms(folder="../../other")),
    "an arm without a plan": ("plan.json", arms(plan=None)),
    "an arm with a list for a name": ("plan.json", unfinished(name=["a"], arm={"b": 1})),
    "an arm that was swept by nothing": ("plan.json", unfinished(swept=None)),
    "a claim in words": ("plan.json", changed(claim="t_mult")),
    "a claim with other keys": ("plan.json", changed(claim={"factor": "scheduler.t_mult"})),
    "a command in numbers": ("plan.json", changed(command=[1, 2])),
    "a result in words": ("0/result.json", lambda p: p.write_text("complete")),
    "a result of bytes": ("0/result.json", lambda p: p.write_bytes(b"\xff\xfe\x00")),
    "a result that is a list": ("0/result.json", lambda p: p.write_text("[1]")),
    "a result of ten gigabytes": ("0/result.json", endless),
    "a result that is a pipe": ("0/result.json", pipe),
    "a result that never ends": ("0/result.json", leads_to("/dev/zero")),
    "an accuracy in words": ("0/result.json", changed(final="high")),
    "an accuracy in a list": ("0/result.json", changed(final={"val/acc": [1]})),
    "numerics in words": ("0/result.json", changed(numerics="torch")),
    "restarts in words": ("0/result.json", changed(plan={"restart_epochs": 3})),
    "a history of ten gigabytes": ("0/history.jsonl", endless),
    "a history in words": ("0/history.jsonl", lambda p: p.write_text("better and better\n")),
    "a history of bytes": ("0/history.jsonl", lambda p: p.write_bytes(bytes(range(256)) + b"\n")),
    "a history that never ends": ("0/history.jsonl", leads_to("/dev/zero")),
    "LRs that are a pickle": ("0/lr.npy", pickled),
    "LRs without end": ("0/lr.npy", huge_header),
    "LRs in words": ("0/lr.npy", lambda p: np.save(p, np.array(["high", "low"]))),
    "LRs of nothing": ("0/lr.npy", lambda p: p.write_bytes(b"")),
    "LRs that are a zip": ("0/lr.npy", zipped),
}  # fmt: skip


@pytest.mark.parametrize(("name", "damage"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_is_not_what_it_should_be_is_named_in_one_line(
    original: Path, tmp_path: Path, report: Report, name: str, damage: Callable[[Path], object]
) -> None:
    copied = Path(shutil.copytree(original, tmp_path / "sweep"))
    (copied / "report.html").unlink()
    damage(copied / name)
    code, said = report(copied)
    assert code == 1, said
    assert "Traceback" not in said
    (line,) = said.splitlines()
    assert line.startswith(f"error: {copied}/"), line
    assert not (copied / "report.html").exists()
    assert not list(tmp_path.rglob("exploded"))
    assert [path.name for path in tmp_path.iterdir()] == ["sweep"], "nothing is written elsewhere"


@pytest.mark.slow
def test_a_history_of_a_million_keys_is_read_for_ours_alone(
    original: Path, tmp_path: Path, report: Report
) -> None:
    copied = Path(shutil.copytree(original, tmp_path / "sweep"))
    path = copied / "0/history.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0] |= {f"key{number}": number for number in range(10**6)}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    begin = time.monotonic()
    code, said = report(copied)
    assert code == 0, said
    assert time.monotonic() - begin < 120, "bounded, if not quick"
    assert (copied / "report.html").stat().st_size < 2e6


def test_links_in_a_sweeps_folder_are_replaced_not_followed(
    original: Path, tmp_path: Path, report: Report
) -> None:
    copied = Path(shutil.copytree(original, tmp_path / "sweep"))
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in ("report.html", "verdict.json", "lr.png", "val_acc.png"):
        (copied / name).unlink()
        (copied / name).symlink_to(victim)
    code, said = report(copied)
    assert code == 0, said
    assert victim.read_text() == "mine"


def test_the_preview_shows_names_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    monkeypatch.chdir(tmp_path)
    hostile = "dataset.root='<script>alert(1)</script>','</svg><img src=x onerror=alert(2)>'"
    words = ["dataset=mnist", hostile]
    monkeypatch.setattr(sys, "argv", ["preview.py", "-m", *words])
    runpy.run_path(str(ROOT / "scripts/preview.py"), run_name="__main__")
    (written,) = tmp_path.glob("outputs/preview/*/preview.html")
    page = written.read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "<img" not in page


@pytest.mark.parametrize("override", ["+model._target_=os.system", "+dataset._target_=os.abort"])
def test_no_class_of_a_configuration_is_called(tmp_path: Path, main: Main, override: str) -> None:
    done = main(*TINY, override, f"hydra.run.dir={tmp_path}/run", f"store.dir={tmp_path}/store")
    assert done.returncode == 1
    assert "_target_" in done.stderr
    assert "is not a key of the" in done.stderr


def test_yaml_builds_no_objects(tmp_path: Path, main: Main) -> None:
    (tmp_path / "model").mkdir()
    touched = tmp_path / "touched"
    (tmp_path / "model/foreign.yaml").write_text(f'!!python/object/apply:os.mkdir ["{touched}"]\n')
    done = main(
        "--config-dir", str(tmp_path), *TINY, "model=foreign", f"hydra.run.dir={tmp_path}/run"
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not touched.exists()


def test_a_plan_of_lrs_cannot_be_a_pickle_either(tmp_path: Path) -> None:
    """What `pickled` writes does explode where pickles are allowed: the test can fail."""
    pickled(tmp_path / "lr.npy")
    assert not (tmp_path / "exploded").exists()
    np.load(tmp_path / "lr.npy", allow_pickle=True)
    assert (tmp_path / "exploded").exists()
    assert pickle.dumps(Bomb(tmp_path))
