"""What to do next after a verdict, in a line each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from harness.analysis import states
from harness.analysis.figures import AS_HERE
from harness.analysis.scale import Scale
from harness.analysis.sentences import MOST_PAIRS_NEEDED, deciding, is_paired, is_skewed, more

_USUAL_FEWEST = 6  # pairs that can decide anything at level 0.05
_MOST_NAMED = 3  # runs

Figures = Mapping[str, Any]


def next_steps(verdict: Mapping[str, Any]) -> list[str]:
    """Return what would answer the open comparisons of a `verdict.json`, of any version; most urgent first."""
    by_state: dict[str, list[Figures]] = {}
    for one in verdict["comparisons"]:
        by_state.setdefault(one["verdict"], []).append(one)
    steps = []
    if verdict.get("claim_changed"):
        steps.append("judge the changed claim on other seeds, in a sweep of its own")
    claim = verdict["claim"]
    steps += _undecided(by_state) if _is_ours(claim) else _undecided_elsewhere(claim, by_state)
    unanswered = [
        {**one, **{name: deciding(one).get(name) for name in ("n", "pairs_needed")}}
        for state in states.OPEN
        for one in by_state.get(state, ())
    ]
    by_themselves = [one for one in unanswered if AS_HERE in _questions(one)]
    if by_themselves:
        steps.append(_among_all(verdict, by_themselves))
    if others := [one for one in unanswered if one not in by_themselves]:
        steps.append(_more_pairs(verdict, others))
    answered = [one for one in verdict["comparisons"] if one["verdict"] not in _UNANSWERED]
    if skewed := [one for one in answered if is_skewed(one)]:
        steps.append(_look_at_pairs(verdict, skewed))
    if any(one["verdict"] == states.INCONCLUSIVE for one in verdict.get("over_cells") or ()):
        steps.append("over all cells: train in more cells, such as other data sets or models")
    what = "sweeps" if _is_ours(claim) else "comparisons"
    return steps or [
        f"nothing here, this is answered; other data sets, models and LRs are new {what}"
    ]


_UNANSWERED = (*states.OPEN, *states.UNDECIDED)


def _look_at_pairs(verdict: Mapping[str, Any], skewed: Sequence[Figures]) -> str:
    """Return what to do where an answer depends on how the interval is made; twice as many pairs depend on it less."""
    several = len(verdict["comparisons"]) > 1
    of = f"of {len(skewed)} of {len(verdict['comparisons'])} comparisons " * several
    number = 2 * max(int(one["n"]) for one in skewed)
    states_found = ", ".join(dict.fromkeys(f"“{one['by_bootstrap_t']}”" for one in skewed))
    return (
        f"look at the pairs {of}below, which are skewed: by bootstrap-t the answer is {states_found}; "
        f"more pairs, about {number}, depend less on it; {_new_runs(verdict['claim'], skewed, number)}"
    )


def _is_ours(claim: Figures) -> bool:
    """Return whether the commands of this program train what is missing."""
    return bool(claim.get("planned", True)) and is_paired(claim)


def _undecided(by_state: Mapping[str, Sequence[Figures]]) -> list[str]:
    """Return what comparisons need that are not decided for other reasons than their intervals."""
    steps = []
    if interim := by_state.get(states.INTERIM):
        steps.append(_go_on(interim))
    if invalid := by_state.get(states.INVALID):
        steps += _make_valid(invalid, _VALID)
    if few := by_state.get(states.TOO_FEW):
        steps.append(_enough_pairs(few))
    if coarse := by_state.get(states.TOO_COARSE):
        image = max(one.get("one_image") or 0 for one in coarse)
        is_one = f"; one image is {image:.2f} points" if image else ""
        steps.append(f"take more validation images (dataset.val_size){is_one}")
    return steps


def _undecided_elsewhere(claim: Figures, by_state: Mapping[str, Sequence[Figures]]) -> list[str]:
    """Return the same of runs that another program trains, or that are not paired."""
    steps = []
    if interim := by_state.get(states.INTERIM):
        open_runs = {
            run["name"]: run["status"]
            for one in interim
            for run in one["left_out"]
            if run["status"] not in ("diverged", "missing", "not claimed")
        }
        first = [f"{name} ({status})" for name, status in open_runs.items()][:_MOST_NAMED]
        left = f" and {len(open_runs) - len(first)} more" * (len(open_runs) > len(first))
        steps.append(f"{_to_leave_out(claim, open_runs.values())}: {'; '.join(first)}{left}")
    if invalid := by_state.get(states.INVALID):
        own = f"{claim['factor']}{' and the seed' * is_paired(claim)}"
        nothing_else = f"compare runs that differ in nothing but {own}"
        steps += _make_valid(invalid, _VALID_ELSEWHERE | {_OTHER_SETTINGS: nothing_else})
    if few := [*by_state.get(states.TOO_FEW, ()), *by_state.get(states.TOO_FEW_RUNS, ())]:
        fewest = max(one.get("fewest_pairs") or _USUAL_FEWEST for one in few)
        steps.append(f"take at least {fewest} {more(claim)}")
    if by_state.get(states.TOO_COARSE):
        steps.append(f"evaluate on more data, or record {claim['metric']} with more digits")
    return steps


def _enough_pairs(few: Sequence[Figures]) -> str:
    fewest = max(one.get("fewest_pairs") or _USUAL_FEWEST for one in few)
    if all((one.get("planned") or 0) >= fewest for one in few):
        return f"look at the runs that did not end well, below; {fewest} pairs are needed"
    return f"train at least {fewest} pairs: 'seed=range(0,{fewest})'"


def _to_leave_out(claim: Figures, statuses: Collection[str]) -> str:
    """Return how runs of others are left out that have not ended as the others have."""
    if claim.get("planned", True):
        return "let the runs end that have not, or leave them out"
    if {*statuses} <= {"shorter", "no value"}:  # of a source that may have no states
        return "train these runs as long as the others, or judge the source without their rows"
    return "let the runs end that have not, or leave them out by --where, as status=complete"


def _go_on(interim: Sequence[Figures]) -> str:
    missing = [one["planned"] - one["there"] for one in interim if "there" in one]
    what = f"up to {max(missing)} pairs of a comparison" if len(missing) > 1 else "the pairs"
    if len(missing) == 1:
        what = f"the {missing[0]} pairs" if missing[0] > 1 else "the pair"
    return f"give the same command again; it trains {what} that {'is' if what == 'the pair' else 'are'} missing"


def _make_valid(invalid: Sequence[Figures], steps: Mapping[str, str]) -> list[str]:
    """Return the step of each kind of reason, of those that `pairing` gives, for which comparisons are invalid."""
    reasons = ". ".join(str(one.get("invalid")) for one in invalid)
    found = dict.fromkeys(step for words, step in steps.items() if words in reasons)
    return [*found] or [steps[_OTHER_SETTINGS]]


_SAME_RUNS, _BUDGETS = "are the same runs: ", "valid would be the same budget for both"
_MID_CYCLE, _OTHER_SETTINGS = " is in mid-cycle ", "has the same other settings"
_WHOLE_CYCLES = "train all arms with one trainer.epochs at which each ends a cycle; scripts/preview.py shows it before training"
_VALID = {
    _SAME_RUNS: "take settings with which the arms differ, as a longer trainer.epochs",
    _BUDGETS: _WHOLE_CYCLES,
    _MID_CYCLE: _WHOLE_CYCLES,
    _OTHER_SETTINGS: "compare runs that differ in nothing but the factor and the seed",
}
_VALID_ELSEWHERE = {
    _BUDGETS: "compare runs of one length",
    _MID_CYCLE: "compare runs that were trained to the end of a cycle of their LR",
}


def _questions(own: Figures) -> Mapping[str, int | None]:
    needed = own.get("pairs_needed")
    return needed if isinstance(needed, dict) else {}  # of version 1: a number


def _among_all(verdict: Mapping[str, Any], reduced: Sequence[Figures]) -> str:
    """Return how many pairs would decide among all comparisons what is decided by itself."""
    number = max(max(int(one["n"]), _questions(one)[AS_HERE] or 0) for one in reduced)
    one, claim = len(reduced) == 1, verdict["claim"]
    return (
        f"{len(reduced)} of {len(verdict['comparisons'])} {'is decided by itself' if one else 'are decided by themselves'}, "
        f"but not among all: about {number} {more(claim)} would decide {'it' if one else 'them'} if the true difference is as "
        f"large as here, fewer {'in a sweep ' * _is_ours(claim)}without the others; {_new_runs(claim, reduced, number)}"
    )


def _new_runs(claim: Figures, comparisons: Sequence[Figures], number: int) -> str:
    if not _is_ours(claim):
        return "take new runs, judged without these"
    first = 1 + max(
        (pair["seed"] for one in comparisons for pair in one.get("pairs") or ()), default=-1
    )
    return f"a new sweep on other seeds: 'seed=range({first},{first + number})'"


def _more_pairs(verdict: Mapping[str, Any], unanswered: Sequence[Figures]) -> str:
    """Return how many pairs, of new seeds, or runs an arm would answer all comparisons that are open."""
    claim = verdict["claim"]
    several = len(verdict["comparisons"]) > 1
    of = f"{len(unanswered)} of {len(verdict['comparisons'])} are open: " * several
    number, scale = max(map(_needed, unanswered)), Scale.of(claim)
    if "looks" in verdict:
        most = verdict["looks"]["pairs"][-1]
        return (
            f"{of}{most} pairs are too few at this spread; a new sweep with a larger claim.most on other seeds, "
            f"'seed={max(claim['seeds']) + 1}', or more validation images"
        )
    if number > MOST_PAIRS_NEEDED:
        noise = (
            "more validation images, longer training"
            if _is_ours(claim)
            else "as by more data to evaluate on"
        )
        return f"{of}more than {MOST_PAIRS_NEEDED} {more(claim)} would be needed; a larger margin, or less noise ({noise})"
    answers = {
        states.INCONCLUSIVE: f"show a gain of {scale.amount(scale.margin)} or rule it out",
        states.SUPPORTED_UNSURE: f"show {scale.gain(2 * scale.margin)} to be {scale.side('above')} the margin",
    }
    found = {answers[one["verdict"]] for one in unanswered}
    pairs = (
        f"about {number} {more(claim)} would {found.pop() if len(found) == 1 else 'answer them'}"
    )
    if number == max(one["n"] for one in unanswered):
        pairs = f"{number} {more(claim)} again"
    return f"{of}{pairs}; {_new_runs(claim, unanswered, number)}"


def _needed(own: Figures) -> int:
    """Return how many pairs would answer what a comparison leaves open; as many again where that is not known."""
    if not (needed := _questions(own)):
        return int(own.get("pairs_needed") or own["n"])
    keys = (
        ["above the margin"]
        if own["verdict"] == states.SUPPORTED_UNSURE
        else ["above 0", states.NO_GAIN]
    )
    return max(int(own["n"]), *(int(needed.get(key) or 0) for key in keys))
