"""Which runs of a sweep are one arm, and what a sweep is judged by."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from conftest import make_config

from harness.analysis import arms
from harness.config.errors import ConfigError
from harness.config.measures import BUILTIN


@pytest.mark.parametrize(
    ("jobs", "names", "without_seed"),
    [
        pytest.param([["seed=0"]], ["run"], ["run"], id="a single job"),
        pytest.param(
            [["scheduler=linear", "seed=0"], ["scheduler=linear", "seed=1"]],
            ["seed=0", "seed=1"], ["run", "run"], id="seeds only",
        ),
        pytest.param(
            [["scheduler.t_mult=1", "optimizer.lr=0.1"], ["scheduler.t_mult=2", "optimizer.lr=0.1"]],
            ["t_mult=1", "t_mult=2"], ["t_mult=1", "t_mult=2"], id="what differs",
        ),
        pytest.param(
            [["a.x=1", "b.x=1"], ["a.x=2", "b.x=2"]],
            ["a.x=1, b.x=1", "a.x=2, b.x=2"], ["a.x=1, b.x=1", "a.x=2, b.x=2"],
            id="short names that would clash stay long",
        ),
    ],
)  # fmt: skip
def test_labels(jobs: list[list[str]], names: list[str], without_seed: list[str]) -> None:
    labelled = arms.label_jobs(jobs)
    assert [job["name"] for job in labelled] == names
    assert [job["arm"] for job in labelled] == without_seed
    assert [job["overrides"] for job in labelled] == jobs


@pytest.mark.parametrize(
    ("swept", "settings", "reported"),
    [
        pytest.param(
            [{"scheduler.t_mult": m, "seed": s} for m in "12" for s in "01"], {},
            ("scheduler.t_mult", "1", ("2",), True), id="the scheduler's key",
        ),
        pytest.param(
            [{"optimizer.lr": r, "scheduler.t_mult": m} for r in ("0.1", "0.2") for m in "123"], {},
            ("scheduler.t_mult", "1", ("2", "3"), True), id="the scheduler's before others",
        ),
        pytest.param(
            [{"model.width": w} for w in ("8", "16")], {},
            ("model.width", "8", ("16",), True), id="the one that is swept",
        ),
        pytest.param([{"seed": s} for s in "012"], {}, None, id="seeds alone"),
        pytest.param(
            [{"scheduler.t_0": t, "scheduler.t_mult": m} for t in "57" for m in "12"], {}, None,
            id="two of the scheduler's",
        ),
        pytest.param(
            [{"model.width": w, "optimizer.lr": r} for w in "12" for r in "34"], {}, None,
            id="two, neither the scheduler's",
        ),
        pytest.param(
            [{"scheduler.t_mult": m} for m in "123"],
            {"factor": "scheduler.t_mult", "baseline": "3", "treatments": ["1"]},
            ("scheduler.t_mult", "3", ("1",), False), id="a chosen claim",
        ),
    ],
)  # fmt: skip
def test_the_claim_is_chosen_or_inferred(
    swept: list[dict[str, str]], settings: dict[str, Any], reported: Any
) -> None:
    jobs = [{"swept": job, "seed": int(job.get("seed", 0))} for job in swept]
    question = arms.infer_question(
        dataclasses.replace(make_config().claim, **settings), jobs, BUILTIN["acc"]
    )
    claim = question.claim
    assert (claim is None) == question.text().startswith("no verdict: ")
    found = claim and (claim.factor, claim.baseline, claim.treatments, claim.inferred)
    assert found == reported


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factor": "optimizer.lr"}, "claim.factor=optimizer.lr: is not swept; sweep it, as in optimizer.lr=A,B"),
        ({"baseline": "4"}, "claim.baseline=4: scheduler.t_mult has the levels 1, 2"),
        ({"treatments": ["2", "9"]}, "claim.treatments=9: scheduler.t_mult has the levels 1, 2"),
    ],
)  # fmt: skip
def test_a_claim_that_the_sweep_cannot_answer_is_refused(
    settings: dict[str, Any], message: str
) -> None:
    jobs = [{"swept": {"scheduler.t_mult": m}, "seed": 0} for m in "12"]
    with pytest.raises(ConfigError) as error:
        arms.infer_question(
            dataclasses.replace(make_config().claim, **settings), jobs, BUILTIN["acc"]
        )
    assert str(error.value) == message
