"""Names and folders of runs, by the command line and in short."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Main
from hydra.core.override_parser.overrides_parser import OverridesParser

from harness.runs.run_dir import how_to_go_on, short

TINY = (
    "dataset=synthetic", "dataset.images=64", "dataset.classes=4", "dataset.image_size=4",
    "model.width=1", "trainer.batch_size=16", "scheduler=constant", "trainer.epochs=1",
    "tracking=none", "reuse=false",
)  # fmt: skip


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def test_a_single_run_is_called_by_its_overrides(main: Main, tmp_path: Path) -> None:
    words = (*TINY, "seed=3", f"hydra.run.dir={tmp_path}/run")
    assert main(*words).returncode == 0
    found = result(tmp_path / "run")
    own = list(words[:-1])  # what is Hydra's is no override of the run
    assert (found["overrides"], found["name"]) == (own, ", ".join(own))
    assert (found["group"], found["swept"], found["claim_sha256"]) == (None, {}, None)


def test_a_run_of_a_sweep_is_called_by_what_is_swept(main: Main, tmp_path: Path) -> None:
    done = main("-m", *TINY, "optimizer.lr=0.1,0.2", "seed=0,1", f"hydra.sweep.dir={tmp_path}/lrs")
    assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "lrs/plan.json").read_text())
    found = result(tmp_path / "lrs/3")
    assert (found["name"], found["arm"], found["group"]) == ("lr=0.2, seed=1", "lr=0.2", "lrs")
    assert found["swept"] == {"optimizer.lr": "0.2", "seed": "1"}
    assert found["claim_sha256"] == plan["claim"]["sha256"]
    assert "4/4 lr=0.2, seed=1" in done.stderr


@pytest.mark.parametrize("most", [64, 128])
def test_long_names_are_cut_and_stay_apart(most: int) -> None:
    first, second = ("x" * 300 + end for end in "ab")
    assert short("x" * most, most) == "x" * most
    assert len(short(first, most)) == most
    assert short(first, most) != short(second, most)
    assert short(first, most) == short(first, most)
    assert short("\udcff" * 300, most), "names of files that are no UTF-8"


SAME = "the same command goes on from there"


@pytest.mark.parametrize(
    ("given", "folder", "said"),
    [
        (["seed=1"], "outputs/2026-11-26_11-29-30", "    python train.py seed=1 hydra.run.dir=outputs/2026-11-26_11-29-30"),
        (["a='[1, 2]'"], "/some/where", """    python train.py 'a='"'"'[1, 2]'"'"'' hydra.run.dir=/some/where"""),
        (["a=1", "-m"], "x", "    python train.py a=1 hydra.run.dir=x -m"),
        ([], "it's, here", """    python train.py 'hydra.run.dir='"'"'it\\'"'"'s, here'"'"''"""),
        (["hydra.run.dir=there"], "there", SAME),
        (["++hydra.run.dir=there"], "there", SAME),
    ],
)  # fmt: skip
def test_how_a_command_goes_on_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], folder: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    again = how_to_go_on("hydra.run.dir", tmp_path / folder)
    assert again == (said if said == SAME else f"to go on from there:\n{said}")
    if said != SAME:  # a shell and Hydra read the folder back
        word = next(word for word in shlex.split(said) if word.startswith("hydra"))
        (override,) = OverridesParser.create().parse_overrides([word])
        assert Path(str(override.value())).absolute() == tmp_path / folder
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "\n" not in how_to_go_on("hydra.run.dir", folder), "torchrun has started it"
