"""The first screen of a page: the question, the answer in a word, the number, in every state."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import polars as pl
import pytest
from conftest import ROOT
from test_looks import CLAIM as LOOKS
from test_looks import HOPELESS, TWO, arm
from test_scale import losses
from test_verdict import CLAIM, WEAK, around, judged, lost, noise, only, rows

from harness.analysis import states
from harness.analysis.verdict import Claim
from harness.report.first_screen import (
    MOST_ROWS,
    NO_VERDICT,
    UNDECIDABLE,
    Answer,
    FirstScreen,
    first_screen,
    headline,
)

TRAINED: dict[str, Any] = {"models": ["ResNet-8"], "datasets": [{"name": "digits"}]}


def runs(*statuses: str, error: str | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"name": f"run {n}", "status": status, "error": error if status != "complete" else None,
             "final": 95.139, "best": 95.3, "test": None}
            for n, status in enumerate(statuses)
        ],
        schema={"name": pl.String, "status": pl.String, "error": pl.String, "final": pl.Float64,
                "best": pl.Float64, "test": pl.Float64},
    )  # fmt: skip


def screen(
    verdict: dict[str, Any] | None, table: pl.DataFrame | None = None, no_claim: str = ""
) -> FirstScreen:
    return first_screen(
        runs("complete", "complete") if table is None else table, verdict, TRAINED, no_claim
    )


def test_words_where_lower_is_better() -> None:
    claim = dataclasses.replace(CLAIM, metric="val/loss", better="lower", unit="", margin=0.02)
    (answer,) = screen(judged(losses(around(-0.3)), claim)).answers
    assert (answer.word, answer.number) == (states.SUPPORTED, "−0.300 in val/loss")
    assert answer.measured == "95 % interval −0.374 to −0.226, 6 pairs"
    assert screen(judged(losses(around(-0.3)), claim)).words == (
        "val/loss is loss on the validation images, after the last update; lower is better, so that a difference below 0 "
        "is a gain. A pair: a baseline run and a treatment run with the same seed. The margin, the smallest difference "
        "that matters: 0.02."
    )


# --- headlines -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "cells", "words"),
    [
        (CLAIM, 1, "t_mult=2 against 1"),
        (CLAIM, 3, "t_mult=2 against 1, in 3 cells"),
        (dataclasses.replace(CLAIM, title="Doubling against equal cycles"), 1, "Doubling against equal cycles"),
        (Claim("scheduler.t_mult", "1", ("2", "3", "4")), 1, "t_mult=2, 3 and 4 against 1"),
        (Claim("scheduler.t_mult", "1", ("2", "3", "4", "5")), 1, "4 values of t_mult against 1"),
        (Claim("arm", "times_1", ("times_2",)), 1, "times_2 against times_1"),
        (Claim("arm", "times_1", tuple("abcdef")), 1, "6 choices of arm against times_1"),
        (
            Claim("scheduler", "linear", (" ".join("abcdefghijklmnopq"),)), 1,
            "a b c d e f g h i j k l m n o …",
        ),
    ],
)  # fmt: skip
def test_headlines_are_short(claim: Claim, cells: int, words: str) -> None:
    comparisons = [{"cell": str(cell)} for cell in range(cells)]
    found = headline({"claim": claim.to_dict(), "comparisons": comparisons})
    assert found == words
    assert len(found.removesuffix(" …").split()) <= 15


# --- answers -------------------------------------------------------------------------------------


def test_one_comparison_is_a_word_a_number_and_an_interval() -> None:
    (answer,) = screen(judged(rows(around(-0.3)))).answers
    assert (answer.word, answer.tone, answer.number) == ("worse", "bad", "−0.30 points")
    assert answer.measured == "95 % interval −0.37 to −0.23, 6 pairs"


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [
        (
            judged(rows(around(0.5)[:1])),
            Answer("t_mult=2 against 1", "too few pairs", "+0.40 points", "no interval, 1 pair"),
        ),
        (
            judged(rows(around(0.5)), dataclasses.replace(CLAIM, seeds=tuple(range(8)))),
            Answer("t_mult=2 against 1", "interim", "+0.50 points", "95 % interval +0.43 to +0.57, 6 of 8 pairs"),
        ),
        (
            judged([lost(row, "failed") for row in rows(around(0.5))], dataclasses.replace(CLAIM, seeds=(0, 1))),
            Answer("t_mult=2 against 1", "interim", "", "0 of 2 pairs"),
        ),
        (
            judged(rows(around(0.5), budget=50.0, aligned=False, nearest_aligned=[35.0, 75.0])),
            Answer(
                "t_mult=2 against 1", "invalid", "",
                "scheduler.t_mult=1 is in mid-cycle after 50 epochs; the nearest budgets that end one: 35 or 75. "
                "scheduler.t_mult=2 is in mid-cycle after 50 epochs; the nearest budgets that end one: 35 or 75",
            ),
        ),
    ],
    ids=["too few pairs", "interim", "nothing is complete", "invalid"],
)  # fmt: skip
def test_states_without_a_full_answer(verdict: dict[str, Any], answer: Answer) -> None:
    assert screen(verdict).answers == [answer]


def test_what_stopped_as_undecidable_is_called_so() -> None:
    (answer,) = screen(judged(rows(HOPELESS), LOOKS)).answers
    assert only(rows(HOPELESS), LOOKS)["verdict"] == states.INCONCLUSIVE
    assert (answer.word, answer.tone) == (UNDECIDABLE, "open")
    assert answer.measured.startswith("repeated 95 % interval −")


def test_several_comparisons_are_a_row_each_and_counted() -> None:
    found = screen(judged([*rows(HOPELESS), *arm("3", around(0.5))], TWO))
    assert [(one.label, one.word) for one in found.answers] == [
        ("t_mult=2", UNDECIDABLE), ("t_mult=3", "supported"),
    ]  # fmt: skip
    assert found.counted == "2 comparisons: 1 undecidable; 1 supported"


def test_a_row_says_what_its_comparison_is_by_itself() -> None:
    table = rows(WEAK) + [row for number in "34567" for row in arm(number, noise(int(number)))]
    found = screen(judged(table, dataclasses.replace(CLAIM, treatments=tuple("234567"))))
    assert found.answers[0].word == "inconclusive"
    assert found.answers[0].measured.endswith(", 8 pairs; above 0 by itself, but not among all 6")
    assert all("by itself" not in one.measured for one in found.answers[1:])


def test_a_row_says_what_the_runs_that_did_not_diverge_show() -> None:
    table = rows([*around(0.5), 0.5])
    table[-1] = lost(table[-1], "diverged", last=20.0)
    (answer,) = screen(judged(table)).answers
    assert answer.word == "inconclusive"
    name = table[-1]["name"]
    said = f"6 of 7 pairs; supported without {name}, which diverged or could not be built"
    assert answer.measured.endswith(said)


def test_other_lrs_are_a_note_of_several_comparisons() -> None:
    table = [
        row | {"lr": 0.1 if row["level"] == "1" else 0.2}
        for row in [*rows(around(0.5)), *arm("3", around(0.5))]
    ]
    claim = dataclasses.replace(CLAIM, treatments=("2", "3"))
    assert screen(judged(table, claim)).notes == (
        "Given these LRs: 0.1 for t_mult=1; 0.2 for t_mult=2, 3.",
    )


def test_words_say_what_is_measured() -> None:
    assert screen(judged(rows(around(0.5)))).words == (
        "Points are of val/acc, the accuracy (%) on the validation images, after the last update. A pair: a baseline "
        "run and a treatment run with the same seed. The margin, the smallest difference that matters: 0.2 points."
    )
    on_test = screen(judged(rows(around(0.5)), dataclasses.replace(CLAIM, metric="test/acc"))).words
    assert on_test.startswith("Points are of test/acc, the accuracy (%) on the test images, ")
    assert screen(None).words == screen(None, runs("complete")).words != ""


def test_cells_have_one_answer_together_which_comes_first() -> None:
    found = screen(judged([row for cell in "ab" for row in rows(around(0.5), cell=cell)]))
    assert [one.label for one in found.answers] == [
        "t_mult=2, over all cells", "t_mult=2 at a", "t_mult=2 at b",
    ]  # fmt: skip
    assert found.answers[0].measured == "interval +0.24 to +0.76, 2 cells"


def test_of_many_comparisons_the_decided_ones_are_shown() -> None:
    levels = [str(level) for level in range(2, 32)]
    claim = dataclasses.replace(CLAIM, treatments=tuple(levels))
    table = rows(around(0.0)) + [
        row for level in levels[1:] for row in arm(level, around(0.5 if int(level) > 28 else 0.0))
    ]
    found = screen(judged(table, claim))
    assert len(found.answers) == MOST_ROWS
    assert [one.word for one in found.answers].count("supported") == 3
    assert found.answers[0].label == "t_mult=29"
    assert found.counted == "30 comparisons: 27 equivalent; 3 supported"


def test_what_takes_from_the_word_is_beside_it() -> None:
    claim = dataclasses.replace(CLAIM, treatments=("2", "one"), rivals=("one",))
    table = [*rows(around(0.5)), *arm("one", around(0.5))]
    verdict = judged(table, claim) | {"not_planned": "No plan fixed this."}
    assert screen(verdict).notes == (
        "No plan fixed this.", "2 is not above one, which is supported too.",
    )  # fmt: skip


def test_runs_that_are_not_complete_are_counted_with_the_first_error() -> None:
    table = runs("complete", "failed", "failed", "diverged", error="OSError: disk full")
    found = screen(judged(rows(around(0.5))), table)
    said = "3 of 4 runs are not complete: 2 failed, 1 diverged. run 1: OSError: disk full"
    assert found.notes == (said,)
    long = screen(None, runs("complete", "failed", error="x" * 1000)).notes[0]
    assert len(long) < 250


# --- without a verdict ---------------------------------------------------------------------------


def test_without_a_claim_the_reason_is_said() -> None:
    found = screen(None, no_claim="nothing but seeds is swept")
    assert found.headline == "ResNet-8 on digits: 2 runs"
    assert found.answers == [Answer("", NO_VERDICT, "nothing but seeds is swept")]
    assert "-m KEY=A,B" in found.next[0]


def test_a_sweep_without_a_complete_run_says_how_to_go_on() -> None:
    found = screen(None, runs("failed", "missing", error="OSError: disk full"))
    assert found.answers == [Answer("", NO_VERDICT, "no run is complete")]
    assert found.next == ("give the same command again; it trains what is missing",)
    assert "OSError: disk full" in found.notes[0]
    assert screen(None, runs()) == FirstScreen("There is no run to report", [])


def test_one_run_is_its_own_headline() -> None:
    found = screen(None, runs("complete"))
    assert found.headline == "ResNet-8 on digits: 95.1 % val/acc"
    assert found.answers == [Answer("", "complete", "95.14 % val/acc", "best 95.30 %")]
    failed = screen(None, runs("diverged", error="loss is not finite"))
    assert failed.headline == "ResNet-8 on digits"
    assert failed.answers == [Answer("", "diverged", "", "loss is not finite")]


# --- words ---------------------------------------------------------------------------------------

_HEADINGS = {  # of the page, and the term of the glossary that each needs
    "Looks": "look", "Paired differences": "paired difference", "Differences": "unpaired", "Other images": "other images",
    "Tuning": "tuning", "{{ curves }}": "metric", "The ends": "accuracy", "Phase": "phase", "Arms": "arm",
    "Anytime": "anytime", "Snapshot ensembles": "snapshot ensemble", "Runs": "run",
    "How it was made": "commit",
}  # fmt: skip


def glossary() -> set[str]:
    text = (ROOT / "docs/glossary.md").read_text()
    cells = re.findall(r"^\| <a [^>]*></a>(.+?) \|", text, re.MULTILINE)
    return {term for cell in cells for term in cell.split(", ")}


@pytest.mark.parametrize("word", [*states.STATES, UNDECIDABLE, NO_VERDICT])
def test_the_word_of_each_state_is_in_the_glossary(word: str) -> None:
    assert {*word.split(", ")} <= glossary()
    assert Answer("", word).tone in ("good", "bad", "even", "open", "none")


def test_every_heading_of_the_page_is_in_the_glossary() -> None:
    page = (ROOT / "harness/report/page.html.j2").read_text()
    for heading in re.findall(r"<h[23]>(.+?)</h[23]>", page):
        terms = [term for begin, term in _HEADINGS.items() if heading.startswith(begin)]
        assert terms, heading
        assert {*terms} <= glossary()


def test_the_words_of_the_first_screen_are_in_the_glossary() -> None:
    terms = {
        "pair", "point", "interval", "repeated interval", "margin", "cell", "seed", "LR", "peak", "epoch",
        "arm", "run", "val", "outcome", "status", "rival", "comparison", "sweep", "complete", "failed",
        "diverged", "missing", "interrupted",
    }  # fmt: skip
    assert terms <= glossary()
