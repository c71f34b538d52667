"""The files of `conf/study/`: what they ask of `train.py`, and what is refused before anything is planned."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, make_config
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.analysis import arms
from harness.config.errors import ConfigError
from harness.config.one_line_errors import explain
from harness.config.study import Study, load, studies, write_choice


def commands(study: Study) -> dict[tuple[str, str], dict[str, str]]:
    """What each sweep gives train.py, by cell and sweep."""
    return {
        (cell, name): arms.override_values(study.command(sweep, cell, folder)[1:])
        for name, sweep, cell, folder in study.parts()
    }


def test_the_published_study_is_the_file_t_mult() -> None:
    """Cells, arms, seeds, budgets and settings are those of docs/study/plan.json, sweep by sweep."""
    published = json.loads((ROOT / "docs/study/plan.json").read_text())
    study = load(["study=t_mult"])
    assert study.question == published["question"]
    now = commands(study)
    steps = {
        (cell, step): arms.override_values(shlex.split(command)[2:])
        for cell, own in published["commands"].items()
        for step, command in own.items()
        if step != "tuning"
    }
    assert {*now} == {*steps}
    for place, then in steps.items():
        own = now[place]
        levels = own.get("arm") or own["tuned"]
        assert levels == then["tuned"], place
        kept = {k: v for k, v in then.items() if v and k not in ("hydra.sweep.dir", "tuned")}
        assert kept.items() <= (own | {"claim.factor": "tuned"}).items(), place
        new = {k for k, v in own.items() if v and k not in then and not k.startswith("claim.")}
        assert new <= {"arm"}, place
    tuning = study.claim
    assert tuning.tune == "optimizer.lr"
    assert tuning.grid == published["tuning"]["optimizer.lr"]
    assert tuning.tuning_seeds == len(published["tuning"]["seeds"])


def test_further_sweeps_are_as_the_claim_but_for_what_they_give() -> None:
    now = commands(load(["study=quick"]))
    assert {*now} == {
        ("wide", "claim"), ("narrow", "claim"), ("small_batches", "claim"), ("wide", "longer"),
    }  # fmt: skip
    claim, longer = now["wide", "claim"], now["wide", "longer"]
    assert claim["arm"] == longer["tuned"] == "constant,linear"
    assert (claim["seed"], longer["seed"]) == ("range(0,16)", "range(0,6)")
    assert (claim["trainer.epochs"], longer["trainer.epochs"]) == ("10", "20")
    assert claim["claim.grid"] == "[0.1,0.2,0.4]"
    assert not {"claim.until", "claim.tune", "claim.grid"} & {*longer}
    assert longer["claim.factor"] == "tuned"


def test_any_key_is_changed_by_the_command() -> None:
    study = load(["study=quick", "claim.margin=0.5", "seeds=9", "sweeps.longer.budget=40"])
    now = commands(study)
    assert now["wide", "claim"]["claim.margin"] == now["wide", "longer"]["claim.margin"] == "0.5"
    assert now["narrow", "claim"]["seed"] == "range(0,9)"
    assert now["wide", "longer"]["trainer.epochs"] == "40"
    assert study.folder == "studies/quick"
    assert load(["study=quick", "folder=/tmp/x"]).folder == "/tmp/x"


def test_a_setting_of_a_sweep_counts_more_than_that_of_its_cell_and_is_given_once() -> None:
    study = load(["study=quick", "sweeps.longer.settings=[trainer.batch_size=60]"])
    words = study.command(study.sweeps["longer"], "wide", Path("x"))
    given = [word for word in words if word.startswith("trainer.batch_size=")]
    assert given == ["trainer.batch_size=60"]


def test_a_title_is_of_its_own_sweep_and_makes_no_other_study() -> None:
    given = ["study=quick", "claim.title='Up, down, or \"flat\"?'"]
    study = load(given)
    words = study.command(study.sweeps["claim"], "wide", Path("x"))
    (given_title,) = (word for word in words if word.startswith("claim.title="))
    assert make_config(given_title).claim.title == 'Up, down, or "flat"?'
    longer = study.command(study.sweeps["longer"], "wide", Path("x"))
    assert not any(word.startswith("claim.title") for word in longer)
    assert study.fixed() == load(["study=quick"]).fixed()


def test_values_that_refer_to_others_reach_train_py_as_they_stand() -> None:
    study = load(["study=quick", "cells={a: ['dataset.split_seed=${seed}']}", "sweeps.longer.seeds=6"])  # fmt: skip
    assert study.cells["a"] == ["dataset.split_seed=${seed}"]


def test_what_makes_no_other_study_is_not_fixed() -> None:
    def fixed(*words: str) -> dict[str, Any]:
        return load(["study=quick", *words]).fixed()

    same = fixed("launch=[tracking=none]", "folder=/tmp/x", "tables=[arms]", "question=Why?")
    assert same == fixed() == json.loads(json.dumps(fixed()))
    for word in ("budget=9", "claim.level=0.01", "seeds=9", "cells.wide=[model.width=2]",
                 "sweeps.longer.budget=9", "sweeps.longer.claim.margin=1", "sweeps.longer.tuned=null",
                 "sweeps.longer.settings=[trainer.evals_per_epoch=2]", "arms.other=[seed=3]"):  # fmt: skip
        assert fixed(word) != fixed(), word


REFUSED = {
    "no study": ([], "study=: choose from quick, t_mult, template"),
    "a study that is not there": (["study=quik"], "study=quik: did you mean quick?"),
    "no value": (["study=quick", "seeds"], "seeds: must be KEY=VALUE"),
    "a key twice": (["study=quick", "budget=1", "budget=2"], "budget: is given more than once, budget=1 budget=2; keep one"),
    "a key of no study": (["study=quick", "seedss=3"], "seedss: is not a key; did you mean seeds?"),
    "a key of no claim": (["study=quick", "claim.marginn=1"], "did you mean margin?"),
    "a key of no sweep": (["study=quick", "sweeps.longer.epochs=3"], "sweeps.longer.epochs: is not a key"),
    "a value out of its range": (["study=quick", "claim.margin=-1"], "claim.margin=-1: must be"),
    "one of a further sweep": (["study=quick", "sweeps.longer.claim.margin=-1"], "sweeps.longer.claim.margin=-1"),
    "text for a number": (["study=quick", "budget=abc"], "budget=abc: Value 'abc'"),
    "a text for a list": (["study=quick", "claim.treatments=linear"], "must be a list of texts"),
    "no baseline": (["study=quick", "claim.baseline=null"], "claim.baseline: has no value"),
    "seeds that are none": (["study=quick", "seeds=0"], "seeds=0: must be a number of pairs"),
    "seeds of no cell": (["study=quick", "seeds={wide: 6, narow: 6}"], "seeds.narow: did you mean narrow?"),
    "seeds of tuning": (["study=quick", "seeds=1001"], "seed=1000: is a seed of tuning too"),
    "looks of several lengths": (["study=quick", "seeds={wide: 8, narrow: 9}"], "must be one number where claim.until"),
    "a table that is not there": (["study=quick", "tables=[arm]"], "tables=arm: did you mean arms?"),
    "a grid without its key": (["study=quick", "claim.tune=null"], "claim.grid=[0.1,0.2,0.4]: needs claim.tune"),
    "values of a later sweep": (["study=quick", "sweeps.longer.tuned=longer"], "must be an earlier sweep with claim.tune"),
    "values of other arms": (["study=quick", "sweeps.longer.claim.treatments=[times_1]"], "in which all arms"),
    "values of a cell that chose none": (
        ["study=quick", "seeds={wide: 9}", "sweeps.longer.seeds={narrow: 9}"], "arms and cells of this one",
    ),
    "a second claim": (["study=quick", "sweeps.claim.budget=3"], "sweeps.claim: is what the study itself says"),
    "an arm that there is": (["study=quick", "arms.linear=[scheduler=wsd]"], "arms.linear: conf/arm/ has one"),
    "a cell that is a path": (["study=quick", "cells={../a: []}", "sweeps.longer.seeds=3"], "cells.../a: names a folder"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "error"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_study_is_refused(words: list[str], error: str) -> None:
    with pytest.raises((ConfigError, OmegaConfBaseException)) as caught:
        load(words)
    line = explain(caught.value)
    assert line is not None
    assert error in line


@pytest.mark.parametrize("missing", ["question", "cells", "claim", "budget", "seeds"])
def test_a_file_without_a_key_that_it_needs_is_refused(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: Any = OmegaConf.load(studies()["quick"])
    del keys[missing]
    (tmp_path / "study").mkdir()
    OmegaConf.save(keys, tmp_path / "study/mine.yaml")
    monkeypatch.setattr("harness.config.study.CONF", tmp_path)
    with pytest.raises(ConfigError, match=f"^{missing}: has no value; a study needs one"):
        load(["study=mine"])


def test_an_arm_that_is_written_is_what_its_overrides_are(tmp_path: Path) -> None:
    overrides = ["scheduler=wsd", "scheduler.warmup=1", "optimizer=adamw", "optimizer.lr=0.004"]
    write_choice(tmp_path / "tuned/mine.yaml", overrides)
    write_choice(tmp_path / "tuned/known.yaml", ["arm=times_2"])
    path = f"hydra.searchpath=[{tmp_path}]"
    assert make_config(path, "+tuned=mine") == make_config(*overrides)
    assert make_config(path, "+tuned=known") == make_config("arm=times_2")
