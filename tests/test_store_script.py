"""`scripts/store.py`: what it says is in the store, what it finds damaged, what it removes."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, make_config

from harness import correct
from harness.runs.context import RunContext
from harness.runs.run import run
from harness.runs.run_dir import RunInfo

Script = Callable[..., tuple[int, str, str]]
TINY = (
    "dataset=synthetic",
    "dataset.images=64",
    "dataset.classes=4",
    "dataset.image_size=4",
    "model.width=1",
    "trainer.batch_size=16",
    "scheduler.t_0=1",
    "scheduler.t_mult=1",
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two runs of two cycles and of three: each cycle's end is kept, the shared ones once."""
    folder = tmp_path / "store"
    for epochs in (2, 3):
        place = tmp_path / str(epochs)
        place.mkdir()
        config = make_config(*TINY, f"trainer.epochs={epochs}", f"store.dir={folder}")
        run(RunContext(config, RunInfo(place, "")))
    return folder


@pytest.fixture
def script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Script:
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["store.py", "--dir", str(tmp_path / "store"), *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / "scripts/store.py"), run_name="__main__")
        out, err = capsys.readouterr()
        code = stopped.value.code
        return (code, out, err) if isinstance(code, int) else (1, out, str(code))

    return call


def files(store: Path, pattern: str) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in store.glob(f"*/{pattern}"))


def make_old(store: Path, pattern: str, days: float) -> None:
    for path in store.glob(f"*/{pattern}"):
        when = time.time() - days * 86_400
        os.utime(path, (when, when))


def test_ls_names_model_data_set_and_epochs(script: Script, store: Path) -> None:
    code, out, _ = script("ls")
    assert code == 0
    (fingerprint,) = store.iterdir()
    head, rule, line, last = out.splitlines()
    words = [
        "fingerprint",
        "model",
        "data",
        "set",
        "seed",
        "epochs",
        "kept",
        "ends",
        "MB",
        "written",
    ]
    assert head.split() == words
    assert all(len(one) <= 100 for one in (head, rule, line))
    reported = line.split()
    assert reported[:-2] == [
        fingerprint.name[:12], "resnet", "depth=8", "width=1", "synthetic", "0", "3", "3", "2",
    ]  # fmt: skip
    sizes = sum(path.stat().st_size for path in fingerprint.iterdir()) / 1e6
    assert float(reported[-2]) == pytest.approx(sizes, abs=0.06)
    assert last.startswith("1 fingerprints, 3 checkpoints, ")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"model": 1}'])
def test_ls_does_without_the_names_that_a_store_lacks(
    script: Script, store: Path, content: str | None
) -> None:
    (about,) = store.glob("*/about.json")
    about.write_text(content) if content else about.unlink()
    code, out, _ = script("ls")
    line = out.splitlines()[2].split()
    assert (code, line[1:7]) == (0, ["-", "-", "-", "-", "3", "2"])


def test_verify_finds_what_is_damaged(script: Script, store: Path) -> None:
    assert script("verify")[:2] == (0, "3 of 3 checkpoints are sound\n")
    second = max(store.glob("*/*.rows"), key=lambda path: path.stat().st_size)
    second.write_bytes(b"[" + second.read_bytes()[1:])
    code, out, err = script("verify")
    assert (code, out) == (1, "2 of 3 checkpoints are sound\n")
    assert err.startswith("damaged: ")
    assert f"{second.name} does not begin with the rows that it says" in err
    weights = sorted(store.glob("*/*.pt"))[0]
    weights.write_bytes(weights.read_bytes()[:-1])
    code, out, err = script("verify")
    assert (code, out) == (1, "1 of 3 checkpoints are sound\n")
    assert f"{weights} does not have the checksum" in err
    bits = min(store.glob("*/*.npz"))  # of the end that is sound
    correct.write(bits, {"val": ~correct.read(bits)["val"]})
    code, out, err = script("verify")
    assert (code, out) == (1, "0 of 3 checkpoints are sound\n")
    assert f"{bits}: does not give the val/acc of its checkpoint" in err


@pytest.mark.parametrize(
    ("options", "left"),
    [
        pytest.param(["--ends"], 2, id="ends"),
        pytest.param(["--older-than", "3"], 1, id="older than"),
        pytest.param(["--largest-first", "0"], 0, id="until nothing is left"),
        pytest.param(["--largest-first", "1"], 3, id="small enough"),
    ],
)
def test_prune_removes_what_was_chosen(
    script: Script, store: Path, options: list[str], left: int
) -> None:
    for path in store.glob("*/*-*.json"):  # all but the longest are four days old
        if path != max(store.glob("*/*-*.json")):
            make_old(store, f"{path.stem}*", 4)
    code, out, _ = script("prune", *options, "--dry-run")
    assert (code, out.split()[:3]) == (0, ["would", "remove", str(3 - left)])
    assert len(files(store, "*-*.json")) == 3
    code, out, _ = script("prune", *options)
    assert (code, out.split()[:2]) == (0, ["removed", str(3 - left)])
    assert len(files(store, "*-*.json")) == left
    assert files(store, "*.pt") == files(store, "*-*.json")
    assert set(files(store, "*.npz")) <= set(files(store, "*-*.json"))


def test_prune_removes_old_files_that_no_checkpoint_needs(script: Script, store: Path) -> None:
    (fingerprint,) = store.iterdir()
    (fingerprint / ".half.json.x").touch()
    (fingerprint / "000000099-left.pt").touch()
    (fingerprint / "000000099-left.npz").touch()
    script("prune", "--older-than", "0")
    assert len(files(store, "*.rows")) == 2, "a run under way may still need them"
    assert (fingerprint / ".half.json.x").exists()
    make_old(store, "*", 2)
    make_old(store, ".half*", 2)
    code, out, _ = script("prune", "--older-than", "0")
    assert (code, out.splitlines()[-1]) == (0, "removed 6 files that none of them needs")
    assert not any(path.name != "training.lock" for path in fingerprint.iterdir())


def test_checkpoints_of_older_formats_are_named_and_go_when_asked(
    script: Script, store: Path
) -> None:
    (now,) = store.iterdir()
    old = store / now.name.partition("-")[2]  # as the first formats named it
    shutil.copytree(now, old)
    make_old(store, "*", 40)
    kept = sum(1 for _ in old.iterdir())
    warning = (
        f"warning: the checkpoints of 1 fingerprints in {store} are of an older format and are not "
        "used; scripts/store.py prune --older-formats removes them\n"
    )
    code, out, err = script("verify")
    assert (code, out) == (0, "3 of 3 checkpoints are sound\n")
    assert err.endswith(warning)
    script("prune", "--ends")
    assert sum(1 for _ in old.iterdir()) == kept, "only what was asked for"
    assert script("prune", "--older-formats", "--dry-run")[1].startswith(
        "would remove 3 checkpoints of older formats, "
    )
    assert old.exists()
    assert script("prune", "--older-formats")[1].startswith(
        "removed 3 checkpoints of older formats, "
    )
    assert [path.name for path in store.iterdir()] == [now.name]
    assert len(files(store, "*-*.json")) == 2


def test_an_end_without_a_test_set_is_an_end(script: Script, store: Path) -> None:
    for path in store.glob("*/*-*.json"):
        document = json.loads(path.read_text())
        if document["test"] is not None:
            path.write_text(json.dumps(document | {"test": {}, "test_sha256": None}))
    script("prune", "--ends")
    assert len(files(store, "*-*.json")) == 2


def test_rows_that_a_checkpoint_needs_stay(script: Script, store: Path) -> None:
    make_old(store, "*", 2)
    script("prune", "--ends")
    assert len(files(store, "*.rows")) == 2
    assert script("verify")[:2] == (0, "2 of 2 checkpoints are sound\n")


def test_without_a_store_it_says_so(script: Script) -> None:
    code, _, err = script("ls")
    assert code == 1
    assert "there is no store; nothing was trained with it yet" in err
