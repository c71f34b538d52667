"""Each row of a sweep's table is compared with the run's own files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pytest
from test_sweep_plan import S, verify

from harness.analysis.verify import _is_value


def _changed(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        document = json.loads((folder / name).read_text())
        change(document)
        (folder / name).write_text(json.dumps(document))

    return apply


def _both_configs(folder: Path) -> None:
    for name in ("result.json", "config.json"):
        _changed(name, lambda document: document["config"]["optimizer"].update(lr=0.2))(folder)


def _row(number: int, **values: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        rows[number] |= values
        (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    return apply


def _exchanged(folder: Path) -> None:
    """All but the names of two runs, the other way round."""
    other = folder.parent / "1"
    names = ("config", "name", "arm", "swept", "seed", "overrides", "claim_sha256")
    one, two = (json.loads((home / "result.json").read_text()) for home in (folder, other))
    for home, own, foreign in ((folder, one, two), (other, two, one)):
        (home / "result.json").write_text(
            json.dumps(foreign | {name: own[name] for name in names if name in own})
        )
    for name in ("history.jsonl", "lr.npy"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes((other / name).read_bytes())
        (other / name).write_bytes(content)


def _damaged(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    store = folder.parent.parent / "store"
    shutil.copytree(result["config"]["store"]["dir"], store)
    for path in (store / result["fingerprint"]).glob("*.pt"):
        path.write_bytes(path.read_bytes()[:100])
    for name in ("config.json", "result.json"):
        document = json.loads((folder / name).read_text())
        document["config"]["store"]["dir"] = str(store)
        (folder / name).write_text(json.dumps(document))


def _planned(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda folder: _changed("plan.json", change)(folder.parent)


def _without_row(folder: Path) -> None:
    lines = (folder / "history.jsonl").read_text().splitlines(keepends=True)
    (folder / "history.jsonl").write_text("".join([*lines[:1], *lines[2:]]))


def _lr(folder: Path) -> None:
    import numpy as np

    plan = np.load(folder / "lr.npy")
    plan[1] *= 1.5
    np.save(folder / "lr.npy", plan)


FAULTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "another LR in the result": ("in config.json", _changed("result.json", lambda r: r["config"]["optimizer"].update(lr=0.2))),
    "another configuration than planned": (
        "in plan.json",
        _both_configs,
    ),
    "another level": ("is called scheduler.t_mult=2, was trained with 1", _changed("result.json", lambda r: r["swept"].update({"scheduler.t_mult": "2"}))),
    "another name": ("name is 'other'", _changed("result.json", lambda r: r.update(name="other"))),
    "another accuracy": ("the last row of history.jsonl", _changed("result.json", lambda r: r["final"].update({"val/acc": 99.0}))),
    "another best": ("the history's best", _changed("result.json", lambda r: r["best"].update({"val/acc": 99.0}))),
    "an accuracy in the history": ("its checkpoint has another row", _row(0, **{"val/acc": 1.0})),
    "an LR in the history": ("not that of lr.npy", _row(0, lr=0.07)),
    "a row is missing": ("lacks rows that were due", _without_row),
    "an LR in the plan": ("lr.npy is not the LR plan of its configuration", _lr),
    "other weights": ("its checkpoint has other weights", _changed("result.json", lambda r: r.update(weights_sha256="0" * 64))),
    "another test result": ("its checkpoint has the test result", _changed("result.json", lambda r: r["test"].update({"test/acc": 99.0}))),
    "another run's id": ("run_id does not follow", _changed("result.json", lambda r: r.update(run_id="0" * 16))),
    "results exchanged": ("lr.npy is not the LR plan of its configuration", _exchanged),
    "another configuration's weights": ("its fingerprint is not that of its configuration", _changed("result.json", lambda r: r.update(data_sha256="0" * 64))),
    "no levels": ("its levels are {}", _changed("result.json", lambda r: r.update(swept={}))),
    "failed, it says": ("is failed, but its history reaches the end", _changed("result.json", lambda r: r.update(status="failed", error="no memory"))),
    "a row too few": ("has a run that plan.json does not name", _planned(lambda p: p["arms"].pop(0))),
    "a row twice": ("is the folder of several rows", _planned(lambda p: p["arms"].append(p["arms"][0]))),
    "a checkpoint that is damaged": ("its checkpoint is damaged", _damaged),
    "a history that is gone": ("No such file", lambda folder: (folder / "history.jsonl").unlink()),
    "fewer updates": ("are not the 6 of lr.npy", _changed("result.json", lambda r: r.update(updates_trained=1))),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    words = [
        "-m",
        *S,
        "scheduler.t_mult=1,2",
        f"hydra.sweep.dir={folder / 'sweep'}",
        f"store.dir={folder / 'store'}",
    ]
    done = forked.complete("train.py", *words)
    assert done.returncode == 0, done.stderr
    return folder / "sweep"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_row_that_does_not_hold_is_named(whole: Path, tmp_path: Path, fault: str) -> None:
    line, change = FAULTS[fault]
    shutil.copytree(whole, tmp_path / "sweep")
    change(tmp_path / "sweep/0")
    done = verify(tmp_path / "sweep")
    assert done.returncode == 1
    (reported, *_) = [reported for reported in done.stderr.splitlines() if line in reported]
    assert "t_mult=1 " in reported or "row" in fault, "it names the row"
    assert "Traceback" not in done.stderr
    assert done.stdout.endswith("faults\n")


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("[{params:*.bias,lr_factor:2}]", True),
        ("[{params: '*.bias', weight_decay_factor: 1.0, lr_factor: 2}]", True),
        ("[{params:*.bias,lr_factor:3}]", False),
        ("[{params:*.bias},{params:head.*}]", False),
        ("[{params:*.bias,lr:2}]", False),
        ("[{", False),
        ("null", False),
    ],
)
def test_parameter_groups_are_known_by_what_was_given_of_them(text: str, holds: bool) -> None:
    groups = [{"params": "*.bias", "lr_factor": 2.0, "weight_decay_factor": 1.0}]
    assert _is_value(text, groups) == holds
