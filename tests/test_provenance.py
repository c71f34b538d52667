"""Where judged runs come from, from tables and a ledger."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness.analysis.provenance import (
    commits,
    existed_before,
    provenance,
    provenance_sentence,
    ranges,
)
from harness.analysis.verdict import Claim

CLAIM = Claim("optimizer.lr", "0.1", ("0.2",), seeds=(0, 1))


def run(folder: Path, name: str, lrs: list[float], **other: Any) -> dict[str, Any]:
    """A complete run that trained all its updates, but for what `other` says."""
    (folder / name).mkdir(parents=True)
    np.save(folder / name / "lr.npy", np.array(lrs))
    return {
        "folder": str(folder / name), "run_id": name, "fingerprint": "f", "status": "complete",
        "updates_trained": len(lrs), "updates_reused": 0, "begun_again": 0, "level": "0.1", "seed": 0,
        "commit": "c0ffee", "dirty": False,
    } | other  # fmt: skip


FROM_STORE = {"updates_trained": 0}


@pytest.mark.parametrize(
    ("others", "count"),
    [
        pytest.param([], 1, id="alone"),
        pytest.param([([0.1] * 6, {"fingerprint": "g"})], 1, id="another fingerprint"),
        pytest.param([([0.1] * 4, {})], 0, id="the same run, trained in this sweep"),
        pytest.param([([0.1] * 6, {})], 0, id="the beginning of a run of this sweep"),
        pytest.param([([0.1] * 3 + [0.2], {})], 1, id="another LR at the end"),
        pytest.param([([0.1] * 3, {})], 1, id="a shorter run"),
        pytest.param([([0.1] * 6, {"updates_reused": 4, "updates_trained": 2})], 1, id="goes on from it"),
        pytest.param([([0.1] * 6, {"updates_reused": 3, "updates_trained": 3})], 0, id="its last update"),
        pytest.param([([0.1] * 6, FROM_STORE)], 2, id="two from the store"),
    ],
)  # fmt: skip
def test_a_run_from_the_store_existed_before_unless_this_sweep_trained_it(
    tmp_path: Path, others: list[tuple[list[float], dict[str, Any]]], count: int
) -> None:
    rows = [run(tmp_path, "one", [0.1] * 4, **FROM_STORE, updates_reused=4)]
    rows += [run(tmp_path, f"other {n}", lrs, **own) for n, (lrs, own) in enumerate(others)]
    assert existed_before(pl.DataFrame(rows)) == count


@pytest.mark.parametrize(
    ("own", "count"),
    [
        ({}, 1), ({"status": "diverged"}, 1),
        ({"status": "diverged", "updates_trained": None, "updates_reused": None}, 1),
        ({"begun_again": 1}, 0), ({"begun_again": None}, 0), ({"status": "failed"}, 0),
        ({"updates_trained": 1}, 0), ({"fingerprint": None}, 0),
    ],
)  # fmt: skip
def test_only_runs_that_ended_without_an_update_of_their_own_existed_before(
    tmp_path: Path, own: dict[str, Any], count: int
) -> None:
    """A run that began twice was stopped after its last update, or the store remembers its own end."""
    assert (
        existed_before(pl.DataFrame([run(tmp_path, "one", [0.1] * 4, **FROM_STORE | own)])) == count
    )


def found(folder: Path, claim: Claim, levels: dict[str, str], **other: Any) -> dict[str, Any]:
    """The provenance of a claim on runs named by the keys of `levels`."""
    place = folder / str(len([*folder.iterdir()]))
    rows = [run(place, name, [0.1], level=level, **other) for name, level in levels.items()]
    plan = {"arms": [{"key": f"{claim}{name}"} for name in levels]}
    path = folder / "ledger.jsonl"
    document, faults = provenance(claim.to_dict(), [plan], pl.DataFrame(rows), path, "sweep")
    assert faults == []
    return document


def others(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [one["differs"] for one in document["other_claims"]]


RUNS = {"a": "0.1", "b": "0.2"}


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"margin": 0.1}, {"margin": 0.1}), ({"metric": "test/acc"}, {"metric": "test/acc"}),
        ({"level": 0.01}, {"level": 0.01}), ({"seeds": (0, 1, 2)}, {"seeds": [0, 1, 2]}),
        ({"seeds": ()}, {"seeds": []}), ({"factor": "arm"}, {"factor": "arm"}),
        ({"treatments": ("0.2", "3")}, {"treatments": ["0.2", "3"]}),
        ({"baseline": "0.2", "treatments": ("0.1",)}, {"baseline": "0.2", "treatments": ["0.1"]}),
        ({"tuned_over": "model.width"}, {"tuned_over": "model.width"}), ({"rivals": ("0.2",)}, {"rivals": ["0.2"]}),
        ({"baseline": "1e-1", "treatments": ("0.20",), "inferred": True}, None), ({"seeds": (1, 0)}, None),
    ],
)  # fmt: skip
def test_claims_differ_in_what_decides(
    tmp_path: Path, change: dict[str, Any], differs: dict[str, Any] | None
) -> None:
    found(tmp_path, replace(CLAIM, **change), RUNS)
    assert others(found(tmp_path, CLAIM, RUNS)) == ([differs] if differs else [])


def test_only_claims_on_these_runs_count(tmp_path: Path) -> None:
    found(tmp_path, replace(CLAIM, margin=1), {"c": "0.1", "d": "0.2"})
    found(
        tmp_path, replace(CLAIM, margin=2), {"a": "0.3", "d": "0.2"}
    )  # `a` was no arm of that claim
    found(tmp_path, replace(CLAIM, margin=3), RUNS, seed=7)  # which that claim leaves out
    found(tmp_path, replace(CLAIM, margin=4), RUNS, status="failed")
    found(tmp_path, replace(CLAIM, margin=5), {"a": "0.1", "e": "0.2"})
    document = found(tmp_path, CLAIM, RUNS)
    assert others(document) == [{"margin": 5}]
    assert (document["other_claims"][0]["runs"], document["other_claims"][0]["of"]) == (1, 2)
    assert "some of these runs were also judged" in provenance_sentence(document).lower()


@pytest.mark.parametrize(("cell", "differs"), [({"cell": "one"}, []), ({}, [{"runs": 1}])])
def test_what_was_judged_of_a_cell_of_a_study_is_no_other_claim(
    tmp_path: Path, cell: dict[str, str], differs: list[dict[str, Any]]
) -> None:
    claim, path = CLAIM.to_dict(), tmp_path / "ledger.jsonl"
    rows = [run(tmp_path, name, [0.1], level=level) for name, level in RUNS.items()]
    plans: list[dict[str, Any]] = [
        {"claim": claim, "arms": [{"key": row["run_id"]}]} for row in rows
    ]
    provenance(claim, plans[:1], pl.DataFrame(rows[:1]), path, "a")
    both = [plan | cell for plan in plans]
    document, _ = provenance(claim, both, pl.DataFrame(rows), path, "study")
    assert others(document) == differs


def test_of_many_claims_some_are_listed_and_all_counted(tmp_path: Path) -> None:
    for margin in range(1, 31):
        found(tmp_path, replace(CLAIM, margin=margin), RUNS)
    document = found(tmp_path, CLAIM, RUNS)
    assert others(document) == [{"margin": margin} for margin in range(1, 21)]
    assert document["other_claims_count"] == 30
    sentence = provenance_sentence(document)
    assert sentence.startswith("These runs were also judged with margin=1 (")
    assert sentence.endswith("), in 27 other ways.")


def test_seeds_are_named_unless_they_count_from_nought(tmp_path: Path) -> None:
    assert found(tmp_path, CLAIM, RUNS, seed=0)["seeds"] is None
    document = found(tmp_path, CLAIM, RUNS, seed=3)
    assert document["seeds"] == "3"
    assert provenance_sentence(document) == "Seeds 3."


def test_runs_that_no_plan_named_have_no_before(tmp_path: Path) -> None:
    rows = [run(tmp_path, "a", [0.1], **FROM_STORE), run(tmp_path, "b", [0.2], level="0.2")]
    plan = {"gathered": True, "arms": [{}, {}]}
    document, _ = provenance(CLAIM.to_dict(), [plan], pl.DataFrame(rows), None, "out")
    assert document["existed_before"] is None
    assert provenance_sentence(document) == ""


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], ""), ([3], "3"), ([0, 1], "0–1"), ([12, 3, 5, 8, 9, 10, 11, 8], "3, 5, 8–12"),
        (range(0, 40, 2), "0, 2, 4, 6, 8, 10, 12, 14 and 12 more"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_ranges(numbers: Any, text: str) -> None:
    assert ranges(numbers) == text


@pytest.mark.parametrize(
    ("codes", "known"),
    [
        ([("a", False), ("a", False)], ["a"]), ([("a", False), ("a", True)], ["a", "a-dirty"]),
        ([(None, None)], []), ([("a", None), (None, None)], ["a", "unknown"]),
    ],
)  # fmt: skip
def test_commits_are_those_that_trained(codes: list[tuple[Any, Any]], known: list[str]) -> None:
    rows = [{"commit": commit, "dirty": dirty, "status": "complete"} for commit, dirty in codes]
    missing = {"commit": None, "dirty": None, "status": "missing"}
    assert commits(pl.DataFrame([*rows, missing])) == known
