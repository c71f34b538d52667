"""What a reader sees first: what was trained, the question, the answer in a word, the number, what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from harness.analysis import averages, looks, sentences, states
from harness.analysis.next_steps import next_steps
from harness.analysis.scale import Scale
from harness.analysis.trained import either, subject
from harness.config.schema import MOST_TITLE_WORDS

UNDECIDABLE = "undecidable"
NO_VERDICT = "no verdict"
MOST_ROWS = 12  # of comparisons
_MOST_NAMED = 3  # treatments in a headline
_MOST_CHARACTERS = 160  # of an error
_ACCURACIES = "val/acc, test/acc: the accuracy on the validation images and on the test images."
_TONES = {  # by which the page colours a word
    states.INVALID: "bad",
    states.WORSE: "bad",
    **dict.fromkeys(states.ANY_SUPPORTED, "good"),
    **dict.fromkeys((states.EQUIVALENT, states.NO_GAIN), "even"),
    **dict.fromkeys((states.INCONCLUSIVE, states.TOO_FEW, states.TOO_FEW_RUNS), "open"),
    **dict.fromkeys((states.TOO_COARSE, UNDECIDABLE), "open"),
    **dict.fromkeys(("failed", "diverged"), "bad"),
    "complete": "even",
}


@dataclass(frozen=True)
class Answer:
    """A comparison, or what stands for one: its word, number and what belongs to the number."""

    label: str
    word: str
    number: str = ""
    measured: str = ""  # the interval and pairs

    @property
    def tone(self) -> str:
        return _TONES.get(self.word, "none")


@dataclass(frozen=True)
class FirstScreen:
    headline: str
    answers: list[Answer]
    counted: str = ""  # of several comparisons, how many came to what
    notes: tuple[str, ...] = ()  # what a reader must know of the answer
    next: tuple[str, ...] = ()
    words: str = ""  # what the words of the answers mean


def first_screen(
    runs: pl.DataFrame, verdict: dict[str, Any] | None, trained: dict[str, Any], no_claim: str
) -> FirstScreen:
    """Return the first screen of a page; `trained` as `what_was_trained` returns it, `no_claim` says why
    nothing was compared.
    """
    incomplete = tuple(_incomplete(runs))
    if verdict and verdict["comparisons"]:
        several = len(verdict["comparisons"]) > 1
        answers = [_answer(verdict, one, several) for one in verdict["comparisons"]]
        cells = [_over_cells(verdict, one) for one in verdict.get("over_cells") or ()]
        every = [*cells, *answers]
        return FirstScreen(
            headline(verdict),
            every if len(every) <= MOST_ROWS else [*cells, *_decided_first(answers)][:MOST_ROWS],
            _counted(answers) if several else "",
            (*_qualified(verdict), *incomplete),
            tuple(next_steps(verdict)),
            _words(verdict["claim"]),
        )
    if (count := len(averages.of_runs(runs))) == 1:
        return _single(runs.row(0, named=True), trained, averages.describe(averages.of_table(runs)))
    about = subject(trained)
    if runs.is_empty():
        return FirstScreen("There is no run to report", [])
    named = f"{about}: {count} runs" if about else f"{count} runs"
    done = bool((runs["status"] == "complete").any())
    number = (no_claim or "nothing was compared") if done else "no run is complete"
    step = (
        "a comparison takes two values of a key and six seeds: -m KEY=A,B 'seed=range(0,6)'"
        if done
        else "give the same command again; it trains what is missing"
    )
    answer = Answer("", NO_VERDICT, number)
    return FirstScreen(_short(named), [answer], "", incomplete, (step,), _ACCURACIES)


def headline(verdict: dict[str, Any]) -> str:
    """Return the claim's title, or what is compared: `t_mult=2 against 1`."""
    claim = verdict["claim"]
    if claim.get("title"):
        return _short(str(claim["title"]))
    key, treatments = _key(verdict), [str(one) for one in claim["treatments"]]
    named = f"{len(treatments)} " + (f"values of {key}" if key else f"choices of {claim['factor']}")
    if len(treatments) <= _MOST_NAMED:
        named = f"{key}=" * bool(key) + either(treatments, "")
    cells = len({one["cell"] for one in verdict["comparisons"]})
    return _short(f"{named} against {claim['baseline']}" + f", in {cells} cells" * (cells > 1))


def _short(text: str) -> str:
    words = text.split()
    return " ".join(words[:MOST_TITLE_WORDS]) + " …" * (len(words) > MOST_TITLE_WORDS)


def _answer(verdict: dict[str, Any], own: dict[str, Any], several: bool) -> Answer:
    scale = Scale.of(verdict["claim"])
    label = _label(verdict, own) if several else sentences.comparison_label(own, _key(verdict))
    word = str(own["verdict"])
    if word == states.INCONCLUSIVE and own.get("stopped") == looks.UNDECIDABLE:
        word = UNDECIDABLE
    if word == states.INVALID:
        return Answer(label, word, "", str(own.get("invalid") or ""))
    pairs = sentences.counted(own, own.get("planned"))
    if why := _why_not_more(verdict["claim"], own):
        pairs += f"; {why}"
    if own["mean"] is None:
        return Answer(label, word, "", pairs)
    kind = sentences.interval_kind(verdict["claim"])
    ends = own["ci95"] or [None]
    interval = "no interval" if None in ends else f"{kind} interval {_range(scale, ends)}"
    return Answer(label, word, _number(scale, own["mean"]), f"{interval}, {pairs}")


def _number(scale: Scale, mean: float) -> str:
    return f"{scale.shown(mean)} {scale.unit_of_differences or scale.of_what}"


def _range(scale: Scale, ends: Sequence[float]) -> str:
    return f"{scale.shown(ends[0])} to {scale.shown(ends[1])}"


def _why_not_more(claim: dict[str, Any], own: dict[str, Any]) -> str:
    """Return what the complete pairs of a comparison show by themselves, where its word says less; else ""."""
    if without := sentences.without_broken(own):
        return f"{without} without {sentences.broken_runs(claim, own)}"
    return sentences.by_itself(claim, own)


def _words(claim: dict[str, Any]) -> str:
    """Return what is measured, and what a pair and the margin are."""
    scale = Scale.of(claim)
    pair = "A pair: a baseline run and a treatment run with the same seed."
    if not sentences.is_paired(claim):
        pair = "Runs are not paired: the difference is that of the arms' means."
    return f"{_measured(claim, scale)} {pair} The margin, the smallest difference that matters: {scale.amount(scale.margin)}."


def _measured(claim: dict[str, Any], scale: Scale) -> str:
    unit = f" (in {scale.unit})" if scale.unit and scale.unit not in scale.metric else ""
    gain = ", so that a difference below 0 is a gain" * (scale.better == "lower")
    if not claim.get("planned", True):
        return f"{scale.metric}{unit} is the last value that each run recorded; {scale.better} is better{gain}."
    images = "test" if scale.metric.startswith("test/") else "validation"
    if scale.is_accuracy:
        return f"Points are of {scale.metric}, the accuracy (%) on the {images} images, after the last update."
    return (
        f"{scale.metric} is {scale.name}{unit} on the {images} images, after the last update; {scale.better} is "
        f"better{gain}."
    )


def _key(verdict: dict[str, Any]) -> str:
    """Return the factor as labels need it: the choices of a group have names of their own."""
    claim = verdict["claim"]
    section, _, key = str(claim["factor"]).rpartition(".")
    return key if section or not claim.get("planned", True) else ""


def _label(verdict: dict[str, Any], own: dict[str, Any]) -> str:
    """Return the name of one of several comparisons, whose baseline the headline has."""
    baseline = verdict["claim"]["baseline"]
    named = sentences.comparison_label({"baseline": baseline, **own}, _key(verdict))
    return named.replace(f" against {baseline}", "", 1)


def _over_cells(verdict: dict[str, Any], own: dict[str, Any]) -> Answer:
    scale = Scale.of(verdict["claim"])
    interval = f"interval {_range(scale, own['ci95'])}, {own['cells']} cells"
    return Answer(
        f"{_label(verdict, own)}, over all cells",
        str(own["verdict"]),
        _number(scale, own["mean"]),
        interval,
    )


def _decided_first(answers: Sequence[Answer]) -> list[Answer]:
    return sorted(answers, key=lambda one: one.tone not in ("good", "bad"))


def _counted(answers: Sequence[Answer]) -> str:
    counted = Counter(one.word for one in answers)
    found = "; ".join(f"{number} {word}" for word, number in counted.most_common())
    return f"{len(answers)} comparisons: {found}"


def _qualified(verdict: dict[str, Any]) -> list[str]:
    """Return what takes something away from the words."""
    comparisons = verdict["comparisons"]
    notes = [str(verdict["not_planned"])] if verdict.get("not_planned") else []
    tunings = verdict.get("tuning") or []
    notes += [f"{sentences.tuned(one)}." for one in tunings]
    several = len(comparisons) > 1 and not tunings
    if several and (lrs := sentences.given_lrs(verdict["claim"], comparisons)):
        notes.append(lrs)
    for one in comparisons:
        rivals = [str(rival["rival"]) for rival in one.get("rivals") or () if rival["explains"]]
        if rivals:
            are = "is" if len(rivals) == 1 else "are"
            notes.append(
                f"{one['treatment']} is not above {either(rivals, 'rivals')}, which {are} supported too."
            )
    return notes


def _incomplete(runs: pl.DataFrame) -> list[str]:
    """Return how many runs are not complete, and the first error of those that failed."""
    runs = averages.of_runs(runs)
    left = runs.filter(pl.col("status") != "complete") if len(runs) else runs
    if left.is_empty() or len(runs) == 1:
        return []
    counted = ", ".join(f"{count} {status}" for status, count in Counter(left["status"]).items())
    note = f"{len(left)} of {len(runs)} runs {'is' if len(left) == 1 else 'are'} not complete: {counted}."
    failed = left.filter(pl.col("status") == "failed", pl.col("error").is_not_null())
    first = failed.row(0, named=True) if len(failed) else None
    return [note + (f" {first['name']}: {_cut(first['error'])}" if first else "")]


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + " …"


def _single(run: dict[str, Any], trained: dict[str, Any], averaged: str) -> FirstScreen:
    """Return the first screen of one run, which nothing is compared with; `averaged` says what its averages are."""
    about, status = subject(trained) or str(run["name"]), str(run["status"])
    if status != "complete":
        answer = Answer("", status, "", _cut(str(run["error"] or "")))
        lower = "a lower optimizer.lr; retry=true trains the same again"
        again = "give the same command again"
        corrected = "correct what the error names, and give the command again, in the same folder (hydra.run.dir)"
        step = {"diverged": lower, "failed": corrected}.get(status, again)
        return FirstScreen(_short(about), [answer], next=(step,))
    final, others = run["final"], {"best": run["best"], "test/acc": run["test"]}
    shown = [f"{name} {value:.2f} %" for name, value in others.items() if value is not None]
    number = "" if final is None else f"{final:.2f} % val/acc"
    return FirstScreen(
        _short(f"{about}: {final:.1f} % val/acc" if final is not None else about),
        [Answer("", status, number, ", ".join(shown))],
        next=("one run shows no difference: a comparison takes -m KEY=A,B 'seed=range(0,6)'",),
        words=f"{_ACCURACIES} {averaged}".strip(),
    )
