"""A verdict in words. Reads what `verdict.judge` measured."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.analysis import paired_stats as paired
from harness.analysis import states, unpaired
from harness.analysis.figures import AS_HERE
from harness.analysis.scale import Scale

if TYPE_CHECKING:
    from harness.analysis.verdict import Claim

MOST_PAIRS_NEEDED = 1000  # that are written as a number: nobody will train more
_SHOWN = 6  # comparisons that the one sentence names

Figures = Mapping[str, Any]


def comparison_label(comparison: Figures, factor: str = "") -> str:
    """Return how a comparison is called: `factor=treatment against baseline at cell`."""
    label = f"{factor}={comparison['treatment']}" if factor else comparison["treatment"]
    tuned = comparison.get("tuned")
    every = ""
    if tuned:
        values = [one["value"] for one in tuned["against"]]
        every = (
            f" at every {tuned['key']}" if len(values) > 1 else f" at {tuned['key']}={values[0]}"
        )
    return f"{label}{_lr(comparison)} against {comparison['baseline']}{every}{_at(comparison)}"


def _lr(comparison: Figures) -> str:
    tuned = comparison.get("tuned")
    return f" at {tuned['key']}={tuned['treatment']}" if tuned else ""


def _named(claim: Claim, level: str) -> str:
    """Return a level as it can stand beside a difference: `times_2`, but `t_mult=2`."""
    return level if level[:1].isalpha() else f"{claim.factor.rpartition('.')[2]}={level}"


def _at(comparison: Figures) -> str:
    return f" at {comparison['cell']}" if comparison.get("cell") else ""


def comparison(claim: Claim, own: Figures) -> str:
    """Return a comparison in words: its state, what was measured, why, and what a reader must know of it."""
    words = [f"{comparison_label(own, claim.factor)} – {_outcome(claim, own)}."]
    if own["verdict"] == states.INVALID:
        return " ".join([*words, *_left_out(own)])
    interim = own["verdict"] == states.INTERIM
    if (skewed := _skewed(claim, own)) and not interim:
        words.append(skewed)
    if (reduced := _reduced(claim, own)) and not interim:
        words.append(reduced)
        if deciding(own).get("by_itself") != own["by_itself"]:
            words.append(f"With {broken_runs(vars(claim), own)}, it is not.")
    if own["numerics"]:
        words.append(f"The arms did not run alike: {'; '.join(own['numerics'])}.")
    if lrs := _lrs(claim, own):
        words.append(lrs)
    words += _left_out(own)
    if everyone := own["intention_to_treat"]:
        filled = f"Counting the {len(everyone['filled'])} that {broken(vars(claim))}, as {claim.scale.imputed(everyone['worst'])}"
        state = "" if interim else f"{everyone['verdict']}: "
        words.append(f"{filled}: {state}{measured(claim, everyone)}.")
    test = own["test"]
    if test and test["mean"] * (own["mean"] or 0) < 0:
        words.append(
            f"On the test set the difference has the other sign: {_size(claim, test['mean'])} "
            f"({_range(claim, test['ci95'])})."
        )
    return " ".join(words)


def counted(figures: Figures, planned: int | None = None) -> str:
    """Return of how many pairs figures are, or runs of the baseline and of the treatment: `8 and 9 runs, unpaired`.

    `planned` of them are to be there, if given.
    """
    if runs := figures.get("runs"):
        of = f" of {planned}" * (planned not in (None, sum(runs)))
        return f"{runs[0]} and {runs[1]}{of} runs, unpaired"
    of = f" of {planned}" * (planned not in (None, figures["n"]))
    return f"{figures['n']}{of} pair{'s' * ((planned or figures['n']) != 1)}"


def interval_kind(claim: Figures) -> str:
    """Return what the intervals of the claim of a `verdict.json` are: `95 %`, `repeated 95 %`, `95 % Welch`."""
    share = f"{100 * (1 - (claim.get('level') or 0.05)):g} %"
    return "repeated " * bool(claim.get("looks")) + share + " Welch" * (not is_paired(claim))


def is_paired(claim: Figures) -> bool:
    """Return whether the claim of a `verdict.json`, of any version, is about pairs of runs."""
    return bool(claim.get("paired", True))


def more(claim: Figures) -> str:
    """Return what more of would answer a claim."""
    return "pairs" if is_paired(claim) else "runs an arm"


def broken(claim: Figures) -> str:
    """Return what befell runs whose values are imputed."""
    return "diverged" + " or could not be built" * bool(claim.get("planned", True))


def deciding(own: Figures) -> Figures:
    """Return the figures that the state of a comparison of a `verdict.json` comes from.

    They are those with imputed values, where these are less favourable than the complete pairs alone, or alike.
    """
    everyone, state = own.get("intention_to_treat"), own["verdict"]
    if not everyone or "complete_pairs" not in own:
        return own
    if state == states.INTERIM:
        state = states.least_favourable(own["complete_pairs"], everyone["verdict"])
    return everyone if everyone["verdict"] == state else own


def without_broken(own: Figures) -> str:
    """Return the state of the complete pairs alone where runs that diverged take it away; else ""."""
    alone = own.get("complete_pairs")
    taken = deciding(own) is not own and own["verdict"] not in (states.INTERIM, alone)
    return str(alone) if taken else ""


def broken_runs(claim: Figures, own: Figures) -> str:
    """Return the runs of a comparison whose values are imputed: by name, of several their number."""
    filled = own["intention_to_treat"]["filled"]
    if len(filled) == 1:
        return f"{filled[0]['name']}, which {broken(claim)}"
    return f"the {len(filled)} runs that {broken(claim)}"


def _outcome(claim: Claim, own: Figures) -> str:
    """Return the state, effect, interval and pairs, and the reason."""
    verdict = own["verdict"]
    if verdict == states.INVALID:
        return f"{verdict}: {own['invalid']}"
    if verdict == states.INTERIM:
        look = " of the next look" * bool(claim.looks)
        return f"interim, {own['there']} of {own['planned']} {_units(claim)}{look}: {measured(claim, own)} so far"
    if alone := without_broken(own):
        needed = _needed(claim, own) if verdict in states.OPEN else ""
        return (
            f"{verdict}: the complete {_units(claim)} alone are {alone}, {measured(claim, own)}, "
            f"but {'worse' if verdict == states.WORSE else 'not'} with {broken_runs(vars(claim), own)}{needed}"
        )
    return f"{verdict}: {measured(claim, own)}{_closest(own)}; {_reason(claim, own)}{_ended(claim, own)}"


def _units(claim: Claim) -> str:
    return "pairs" if claim.paired else "runs"


def _ended(claim: Claim, own: Figures) -> str:
    """Return why a comparison took no more pairs; "" where their number was fixed before."""
    if not claim.looks:
        return ""
    most = claim.looks[-1]
    if own["stopped"] == "undecidable":
        return f"; undecidable with {most} pairs at this spread, stopped after {own['n']}"
    return (
        f", decided with {own['n']} of at most {most} pairs"
        if own["stopped"]
        else f", after all {most} pairs"
    )


def _closest(own: Figures) -> str:
    """Return against which of the baseline's values of `tuned_over` the figures are."""
    tuned = own.get("tuned")
    return f" against its closest, {tuned['key']}={tuned['baseline']}" if tuned else ""


def measured(claim: Claim, figures: Figures) -> str:
    """Return the effect, its interval and the number of pairs or runs."""
    ends, pairs = figures["ci95"], counted(figures)
    if not figures["n"]:
        return pairs
    share = (
        f"{interval_kind(vars(claim))} interval {_range(claim, ends)}" if ends else "no interval"
    )
    scale = claim.scale
    return f"{scale.signed(figures['mean'])} {scale.of_what}{scale.note} ({share}, {pairs})"


def _brief(claim: Claim, own: Figures) -> str:
    """Return a comparison as one of several: what was measured and its state, or why it is invalid."""
    if own["verdict"] == states.INVALID:
        return (
            f"invalid ({re.split(r'; (?:valid would be|the nearest budgets)', own['invalid'])[0]})"
        )
    return f"{measured(claim, own)}{_closest(own)}, {_short(claim, own)}"


def _short(claim: Claim, own: Figures) -> str:
    verdict = own["verdict"]
    if verdict == states.INTERIM:
        return f"interim of {own['planned']} {_units(claim)}"
    if without := without_broken(own):
        return f"{verdict} with {broken_runs(vars(claim), own)} ({without} without)"
    explained = [f"“{one['rival']}”" for one in own["rivals"] if one["explains"]]
    rival = f" (but not above {' and '.join(explained)})" if explained else ""
    alone = f" ({hindered})" if (hindered := by_itself(vars(claim), own)) else ""
    return f"{verdict}{' (skewed pairs)' if _skewed(claim, own) else ''}{alone}{rival}"


def _reason(claim: Claim, own: Figures) -> str:
    scale, margin = claim.scale, f"{claim.margin:g}"
    above, below = scale.side("above"), scale.side("below")
    match own["verdict"]:
        case states.TOO_FEW:
            fewest = paired.fewest_pairs(claim.level)
            return f"fewer than {fewest} pairs cannot reach p < {claim.level:g}"
        case states.TOO_FEW_RUNS:
            fewest = unpaired.fewest_runs(claim.level)
            return f"so few decide nothing at level {claim.level:g}; {fewest} runs an arm can"
        case states.TOO_COARSE:
            equal = "all differences" if claim.paired else "all runs of an arm"
            if own["one_image"] is None:
                return f"{equal} are equal, and nothing says how fine {claim.metric} is"
            image = f"one image is {own['one_image']:.2f} points"
            return f"{equal} are equal, and the validation set cannot see the margin of {margin}: {image}"
        case states.WORSE:
            return f"{below} 0"
        case states.SUPPORTED:
            return f"{above} the margin of {scale.line}"
        case states.SUPPORTED_SMALLER:
            return f"{above} 0 and {below} the margin of {scale.line}"
        case states.SUPPORTED_UNSURE:
            open_ = f"whether {above} the margin of {scale.line} is open"
            return f"{above} 0; {open_}{_needed(claim, own)}"
        case states.EQUIVALENT:
            share = f"{100 * (1 - 2 * claim.level):g} % interval"
            return f"its {share}, {_range(claim, own['ci90'])}, is within ±{margin}"
        case states.NO_GAIN:
            return f"a gain of {margin} is ruled out"
    among = " among all comparisons" * (AS_HERE in (deciding(own)["pairs_needed"] or {}))
    return f"neither a difference nor its absence shows{among}{_needed(claim, own)}"


def _needed(claim: Claim, own: Figures) -> str:
    """Return how many pairs, or runs an arm, would answer what is open, if more are needed than there are."""
    verdict, own = own["verdict"], deciding(own)
    needed = own["pairs_needed"] or {}
    if AS_HERE in needed:
        of_gain = "below" if own["by_itself"] == states.SUPPORTED_SMALLER else "above"
        side = claim.scale.side(of_gain)
        margin = f" to be {side} it" * (verdict == states.SUPPORTED_UNSURE)
        answers = {f"show so large a difference{margin}": needed[AS_HERE]}
    elif verdict == states.SUPPORTED_UNSURE:
        question = f"show {claim.scale.gain(2 * claim.margin)} to be {claim.scale.side('above')} it"
        answers = {question: needed.get("above the margin")}
    else:
        above, none = needed.get("above 0"), needed.get(states.NO_GAIN)
        answers = {f"show a gain of {claim.margin:g}": above, "rule it out": none}
        if above == none:
            answers = {f"show a gain of {claim.margin:g} or rule it out": above}
    parts = [
        f"{'about ' * (number <= MOST_PAIRS_NEEDED)}{format_pairs(number)} {more(vars(claim))} would {what}"
        for what, number in answers.items()
        if number is not None and number > own["n"]
    ]
    power = f", with {100 * paired.POWER:g} % power" if parts else ""
    return "".join(f"; {part}" for part in parts) + power


def format_pairs(number: int, more_than: str = "more than ") -> str:
    """Return a number of pairs as text; beyond `MOST_PAIRS_NEEDED` only that it is more."""
    return str(number) if number <= MOST_PAIRS_NEEDED else f"{more_than}{MOST_PAIRS_NEEDED}"


_ALONE = {
    states.WORSE: "{below} 0",
    states.SUPPORTED: "{above} the margin",
    states.SUPPORTED_SMALLER: "{above} 0 and {below} the margin",
    states.SUPPORTED_UNSURE: "{above} 0",
}


def by_itself(claim: Figures, own: Figures) -> str:
    """Return in a few words what a comparison of a `verdict.json` shows by itself, but not among all; else ""."""
    scale = Scale.of(claim)
    alone, found = own.get("by_itself"), own.get("complete_pairs")
    decided = (states.WORSE, states.SUPPORTED, states.SUPPORTED_SMALLER)
    if alone == found or alone not in _ALONE or found in decided or found != own["verdict"]:
        return ""
    shown = _ALONE[alone].format(above=scale.side("above"), below=scale.side("below"))
    words = f"{shown} by itself, but not among all {own['comparisons']}"
    same = deciding(own).get("by_itself") == alone
    return words if same else f"{words}, nor with {broken_runs(claim, own)}"


def _reduced(claim: Claim, own: Figures) -> str:
    """Return what the comparison is by itself, where the others take something away."""
    state = own["by_itself"]
    if own["complete_pairs"] == state or own["complete_pairs"] in states.UNDECIDED:
        return ""
    if own.get("path"):
        return _reduced_at_looks(claim, own)
    if claim.paired and own["n"] < own["fewest_pairs"]:
        return (
            f"It is “{state}” by itself; {own['n']} pairs cannot decide {own['comparisons']} "
            f"comparisons, {own['fewest_pairs']} can."
        )
    p = own["p_adjusted"]
    return f"It is “{state}” by itself, but not among {own['comparisons']} comparisons (adjusted p = {p:.2g})."


def _reduced_at_looks(claim: Claim, own: Figures) -> str:
    """Return the same of a comparison with looks, at which what was shown once stays so."""
    shown = (states.WORSE, *states.ANY_SUPPORTED)
    earlier = [one["pairs"] for one in own["path"] if one["verdict"] in shown]
    if own["complete_pairs"] in shown and own["by_itself"] not in shown:
        return f"That it is {claim.scale.side('above')} 0 was shown with {earlier[0]} pairs."
    return f"It is “{own['by_itself']}” by itself, but not among the comparisons of its sweep."


def is_skewed(own: Figures) -> bool:
    """Return whether the pairs of a comparison of a `verdict.json` come to another state by bootstrap-t."""
    decided = own.get("complete_pairs") not in states.UNDECIDED
    return decided and own.get("by_bootstrap_t") not in (None, own.get("by_itself"))


def _skewed(claim: Claim, own: Figures) -> str:
    if not is_skewed(own):
        return ""
    ends = own["bootstrap_t95"]
    interval = f" ({_range(claim, ends)})" if ends else ""
    return f"The pairs are skewed; by bootstrap-t{interval} it is “{own['by_bootstrap_t']}”."


def _lrs(claim: Claim, own: Figures) -> str:
    """Return that the arms have different LRs, unless the claim is about them, or over all of them."""
    baseline, treatment = own["lrs"]
    if "optimizer.lr" in (claim.tuned_over, claim.factor) or baseline == treatment:
        return ""
    if not baseline or not treatment:
        return ""
    a, b = (" and ".join(f"{lr:g}" for lr in lrs) for lrs in (treatment, baseline))
    return f"Given these LRs: {a} against {b}."


def given_lrs(claim: Figures, comparisons: Sequence[Figures]) -> str:
    """Return the peak LRs of the arms of a `verdict.json`, where they differ and the claim is not about them; else ""."""
    none: list[list[float]] = [[], []]
    both = [one.get("lrs") or none for one in comparisons]
    if "optimizer.lr" in (claim.get("tuned_over"), claim["factor"]):
        return ""
    if all(a == b or not a or not b for a, b in both):
        return ""
    section, _, key = claim["factor"].rpartition(".")
    of_arm: dict[str, set[float]] = {}
    for one, lrs in zip(comparisons, both, strict=True):
        for level, own in zip((one["baseline"], one["treatment"]), lrs, strict=True):
            of_arm.setdefault(level, set()).update(own)
    if len(of_arm) > _SHOWN + 1:
        return "Given the LRs of the arms, which differ."
    arms: dict[str, list[str]] = {}
    for level, found in of_arm.items():
        arms.setdefault(" and ".join(f"{lr:g}" for lr in sorted(found)), []).append(level)
    of = f"{key}=" * bool(section)
    said = [f"{lr} for {of}{', '.join(levels)}" for lr, levels in arms.items()]
    return f"Given these LRs: {'; '.join(said)}."


def _left_out(own: Figures) -> list[str]:
    counted = Counter(run["status"] for run in own["left_out"])
    if not counted:
        return []
    some_count = own["verdict"] != states.INVALID and set(counted) != {"not claimed"}
    missing = counted.pop("missing", 0)
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(counted.items()))
    there, units = (sum(own["runs"]), "runs") if own.get("runs") else (own["n"], "pairs")
    pairs = f"This is over {there} of {own['planned']} {units}; runs"
    return [f"{pairs if some_count else 'Runs'} {_not_there(statuses, missing)}."]


def _not_there(left_out: object, missing: int) -> str:
    """Return what was left out, and how many runs are missing, which nobody left out."""
    parts = [f"left out: {left_out}"] * bool(left_out) + [f"missing: {missing}"] * bool(missing)
    return "; ".join(parts)


def rivals(claim: Claim, own: Figures) -> str:
    """Return what the rivals of a supported treatment say of it; "" where none of them is supported."""
    words = ""
    for one in own["rivals"]:
        against = f"{own['treatment']} against {one['rival']}: {measured(claim, one)}"
        if one["explains"]:
            words += f" But {one['rival']} is supported too, and is not exceeded by the margin ({against})."
        elif one["explains"] is None:
            words += f" {one['rival']} is supported too; which is better is open ({against})."
    return words


def looked(verdict: Mapping[str, Any]) -> str:
    """Return what was asked at the looks of a `verdict.json`, how many there were, and what they spared."""
    looks, comparisons = verdict["looks"], verdict["comparisons"]
    scale, most = Scale.of(verdict["claim"]), looks["pairs"][-1]
    above, line = scale.side("above"), f"{scale.line} {scale.unit_of_differences}".rstrip()
    asked = {
        "zero": f"{above} zero, or is a gain of {scale.amount(scale.margin)} ruled out",
        "margin": f"{above} the margin of {line}, or is a gain of that size ruled out",
    }
    number, taken = len(looks["pairs"]), looks["look"]
    last = f", the last with {looks['pairs'][taken - 1]} of at most {most} pairs" if taken else ""
    waits = [one["planned"] for one in comparisons if one["verdict"] == states.INTERIM]
    following = f"; the next takes {max(waits)} pairs" if waits else ""
    words = [
        f"Asked at each look (claim.decide={looks['decide']}): is the difference {asked[looks['decide']]}?",
        f"Looks taken: {taken} of {number}{last}{following}.",
    ]
    if undecidable := sum(one["stopped"] == "undecidable" for one in comparisons):
        some = f"{undecidable} of {len(comparisons)} comparisons" if len(comparisons) > 1 else "It"
        words.append(
            f"{some} stopped as undecidable with {most} pairs: at this mean and spread these would seldom decide."
        )
    if looks.get("runs"):
        seconds = looks["seconds"]
        saved = "" if seconds is None else f", which saved about {seconds:,.0f} s of training"
        words.append(f"{looks['runs']} planned runs were not needed{saved}.")
    return " ".join(words)


def tuned(tuning: Mapping[str, Any]) -> str:
    """Return what the arms of a sweep were tuned to, on what, and where a better value may lie beyond the grid."""
    chosen = [
        f"{one['value']} for {one['arm']}" + " (at the edge of what was tried)" * one["edge"]
        for one in tuning["arms"]
    ]
    cell = f"{tuning['cell']}: " if "cell" in tuning else ""
    return (
        f"{cell}{' and '.join(tuning['keys'])} {'were' if len(tuning['keys']) > 1 else 'was'} chosen by {tuning.get('metric', 'val/acc')} on {len(tuning['seeds'])} other seeds "
        f"({tuning['runs']} runs, {tuning['seconds']:,.0f} s): {', '.join(chosen)}"
    )


def _range(claim: Claim, ends: Sequence[float]) -> str:
    return f"{claim.scale.signed(ends[0])} to {claim.scale.signed(ends[1])}"


def _size(claim: Claim, number: float) -> str:
    return f"{claim.scale.signed(number)} {claim.scale.unit_of_differences}".rstrip()


def _is_open(own: Figures) -> bool:
    return own["verdict"] not in (states.WORSE, *states.ANY_SUPPORTED)


def _of(over: Figures) -> str:
    return f" of {over['of']}" if over["of"] != over["cells"] else ""


def answer(claim: Claim, comparisons: Sequence[Figures], over: Sequence[Figures]) -> str:
    """Return the verdict in a sentence; of several comparisons the first few, and how many have which."""
    if len(comparisons) == 1:
        return str(comparisons[0]["sentence"])
    counted = Counter(one["verdict"] for one in comparisons)
    found = "; ".join(f"{counted[name]} {name}" for name in states.STATES if counted[name])
    shown = [
        f"{_named(claim, one['treatment'])}{_lr(one)}{_at(one)}: {_brief(claim, one)}"
        for one in sorted(comparisons, key=_is_open)[:_SHOWN]
    ]
    more = f"; and {len(comparisons) - _SHOWN} more" * (len(comparisons) > _SHOWN)
    statuses = {run["name"]: run["status"] for one in comparisons for run in one["left_out"]}
    missing = sum(status == "missing" for status in statuses.values())
    left_out = f"; runs {_not_there(len(statuses) - missing, missing)}" * bool(statuses)
    unlike = dict.fromkeys(text for one in comparisons for text in one["numerics"])
    notes = f" Some arms did not run alike: {'; '.join([*unlike][:3])}." if unlike else ""
    other_sign = sum(
        (one["test"] or {"mean": 0})["mean"] * (one["mean"] or 0) < 0 for one in comparisons
    )
    notes += f" On the test set {other_sign} of them have the other sign." * (other_sign > 0)
    notes += f" {lrs}" if (lrs := given_lrs(vars(claim), comparisons)) else ""
    together = [
        f" Over {one['cells']}{_of(one)} cells, {claim.factor}={one['treatment']}: {one['verdict']}, "
        f"{_size(claim, one['mean'])} ({_range(claim, one['ci95'])}; sd between cells "
        f"{one['between_cells_sd']:.{claim.scale.places_shown}f})."
        for one in over
    ]
    return (
        f"{claim.factor} against {claim.baseline}, {len(comparisons)} comparisons ({found}): "
        f"{'; '.join(shown)}{more}{left_out}.{notes}{''.join(together)}"
    )
