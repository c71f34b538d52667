"""What the numbers of a claim mean in words, and that a metric is judged as its negative with the other direction."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verdict import Row, around, judged, lost, only, run

from harness.analysis import states
from harness.analysis.scale import ACCURACY, Scale
from harness.analysis.verdict import Claim

LOSS = Scale("val/loss", "lower", "", 0.02)
ERROR = Scale("test/calibration", "lower", "%", 0.5)
SPEED = Scale("val/latency", "lower", "ms", 3)
SCORE = Scale("val/score", "higher", "", 0.1)


@pytest.mark.parametrize(
    ("scale", "of_what", "title", "amount", "side", "line", "worst"),
    [
        (dataclasses.replace(ACCURACY, margin=0.2), "points of val/acc", "points", "0.2 points", "above", "0.2", "0 %"),
        (LOSS, "in val/loss", "val/loss, lower is better", "0.02", "below", "−0.02", "1,000,000"),
        (ERROR, "points of test/calibration", "points, lower is better", "0.5 points", "below", "−0.5", "100 %"),
        (SPEED, "ms of val/latency", "ms, lower is better", "3 ms", "below", "−3", "1,000,000"),
        (SCORE, "in val/score", "val/score", "0.1", "above", "0.1", "-1,000,000"),
    ],
)  # fmt: skip
def test_words(
    scale: Scale, of_what: str, title: str, amount: str, side: str, line: str, worst: str
) -> None:
    assert (scale.of_what, scale.title, scale.amount(scale.margin)) == (of_what, title, amount)
    assert (scale.side("above"), scale.line) == (side, line)
    assert scale.imputed(scale.worst([])) == f"the last value recorded, else {worst}"


def test_claims_of_before_are_about_accuracy() -> None:
    old = {"factor": "f", "baseline": "1", "treatments": ["2"], "metric": "val/acc", "margin": 0.2}
    assert Scale.of(old) == dataclasses.replace(ACCURACY, margin=0.2)
    claim = Claim("f", "1", ("2",))
    assert not {"better", "unit"} & claim.to_dict().keys(), "whose hash is that of before"
    loss = Claim("f", "1", ("2",), metric="val/loss", better="lower", unit="")
    assert Claim.from_dict(loss.to_dict()) == loss
    assert Scale.of(loss.to_dict()) == loss.scale


# --- sentences where lower is better -------------------------------------------------------------

CLAIM = Claim("f", "1", ("2",), metric="val/loss", better="lower", unit="")
FAR = (-0.6, -0.3, 0.0, 0.0, 0.3, 0.6)


def losses(differences: list[float], **changes: Any) -> list[Row]:
    base = [run("1", seed, 0.5 + 0.1 * seed) for seed in range(len(differences))]
    return base + [
        run("2", one["seed"], one["value"] + difference, images=None, **changes)
        for one, difference in zip(base, differences, strict=True)
    ]


@pytest.mark.parametrize(
    ("differences", "sentence"),
    [
        (around(-0.3), "supported: −0.300 in val/loss, lower is better (95 % interval −0.374 to −0.226, 6 pairs); below the margin of −0.2."),
        (around(-0.1), "supported, smaller than the margin: −0.100 in val/loss, lower is better (95 % interval −0.174 to −0.026, 6 pairs); below 0 and above the margin of −0.2."),
        (around(-0.25), "supported, size unsure: −0.250 in val/loss, lower is better (95 % interval −0.324 to −0.176, 6 pairs); below 0; whether below the margin of −0.2 is open."),
        (around(0.1), "worse: +0.100 in val/loss, lower is better (95 % interval +0.026 to +0.174, 6 pairs); above 0."),
        (around(-0.05), "equivalent: −0.050 in val/loss, lower is better (95 % interval −0.124 to +0.024, 6 pairs); its 90 % interval, −0.108 to +0.008, is within ±0.2."),
        (around(0.2, [4 / 6 * one for one in FAR]), "no gain that matters: +0.200 in val/loss, lower is better (95 % interval −0.097 to +0.497, 6 pairs); a gain of 0.2 is ruled out."),
    ],
)  # fmt: skip
def test_sentences_where_lower_is_better(differences: list[float], sentence: str) -> None:
    assert only(losses(differences), CLAIM)["sentence"] == f"f=2 against 1 – {sentence}"


def test_a_run_that_diverged_at_once_counts_against_its_arm() -> None:
    runs = losses(around(-0.3))
    broken = [lost(one, "diverged") if one["level"] == "2" else one for one in runs]
    comparison = only([*broken[:6], *runs[6:11], broken[11]], CLAIM)
    assert comparison["complete_pairs"] == states.TOO_FEW
    assert comparison["intention_to_treat"]["verdict"] == states.INCONCLUSIVE
    assert comparison["intention_to_treat"]["filled"] == [
        {"name": "t_mult=2, seed=5", "value": 1e6}
    ]
    every = only(broken, CLAIM)["intention_to_treat"]
    assert (every["verdict"], every["n"]) == (states.WORSE, 6)


# --- mirrored ------------------------------------------------------------------------------------

_NEGATED = ("mean", "difference", "baseline", "treatment", "value", "worst")
_TURNED = ("ci95", "ci90", "bootstrap_t95")
_SWAPPED = (("low", "high"), ("above", "below"))


def mirrored(node: Any) -> Any:
    """A document of what was judged, without its words, with all differences and values negated."""
    if isinstance(node, list):
        return [mirrored(one) for one in node]
    if not isinstance(node, dict):
        return node
    found = {
        key: mirrored(value) for key, value in node.items() if key not in ("claim", "sentence")
    }
    for key in _NEGATED:
        if isinstance(found.get(key), float):
            found[key] = -found[key]
    for key in _TURNED:
        if found.get(key):
            found[key] = [-end for end in reversed(found[key])]
    for one, other in _SWAPPED:
        if {one, other} <= found.keys() and "share" not in found:
            found[one], found[other] = (
                None if found[key] is None else -found[key] for key in (other, one)
            )
    return found


def without_words(document: dict[str, Any]) -> Any:
    return mirrored(mirrored(document))


def negated(row: Row) -> Row:
    numbers = ("value", "last", "test")
    return row | {key: -row[key] for key in numbers if row.get(key) is not None}


@st.composite
def sweeps(draw: st.DrawFn) -> list[Row]:
    """Runs of a baseline and two treatments, in one or two cells, a few of which diverged."""
    pairs = draw(st.integers(5, 9))
    found = []
    for cell in ["", "a"][: draw(st.integers(1, 2))]:
        for level in "123":
            shift = draw(st.sampled_from([0.0, 0.3, -0.3]))
            for seed in range(pairs):
                value = shift + draw(st.integers(-300, 300)) / 1000
                own = run(level, seed, value, cell=cell, images=None, test=value / 2)
                ended = draw(st.sampled_from(["complete"] * 20 + ["diverged", "none"]))
                if ended != "complete":
                    own = lost(own, "diverged", value if ended == "diverged" else None)
                found.append(own)
    return found


CLAIMS = {
    "fixed": {},
    "rivals": {"rivals": ("3",)},
    "looks": {"looks": (6, 8), "seeds": tuple(range(8))},
    "looks at the margin": {"looks": (6, 8), "seeds": tuple(range(8)), "decide": "margin"},
}


@pytest.mark.parametrize("fields", CLAIMS.values(), ids=CLAIMS)
@given(sweep=sweeps(), margin=st.sampled_from([0.0, 0.1, 0.3]))
@settings(max_examples=15)
def test_a_metric_is_judged_as_its_negative_with_the_other_direction(
    fields: dict[str, Any], sweep: list[Row], margin: float
) -> None:
    higher = Claim("f", "1", ("2", "3"), "val/score", margin, unit="", **fields)
    lower = dataclasses.replace(higher, better="lower")
    there = judged(sweep, higher)
    back = judged([negated(row) for row in sweep], lower)
    assert without_words(there) == mirrored(back)


def test_a_tuned_metric_is_judged_as_its_negative_too() -> None:
    sweep = [
        run("1", seed, value + 0.01 * seed**2, tuned=lr, images=None)
        for lr, value in (("0.1", 0.5), ("0.2", 0.8))
        for seed in range(8)
    ] + [run("2", seed, 0.9 + 0.02 * seed, tuned="0.1", images=None) for seed in range(8)]
    higher = Claim("f", "1", ("2",), "val/score", 0.1, unit="", tuned_over="optimizer.lr")
    there = judged(sweep, higher)
    assert there["comparisons"][0]["tuned"]["baseline"] == "0.2", "its closest"
    back = judged([negated(row) for row in sweep], dataclasses.replace(higher, better="lower"))
    assert without_words(there) == mirrored(back)


# --- numbers of other sizes than accuracies ------------------------------------------------------


@pytest.mark.parametrize("factor", [1e-9, 1e-4, 1e7, 1e12], ids="{:g}".format)
@pytest.mark.parametrize("looks", [(), (6, 8)], ids=["fixed", "looks"])
def test_a_metric_in_another_unit_is_judged_alike(factor: float, looks: tuple[int, ...]) -> None:
    shifts = {"2": -0.3, "3": 0.01}
    sweep = [
        run(level, seed, (5 + 0.07 * (seed * 37 % 11) + shifts.get(level, 0.0) + 0.02 * (seed % 3)) , images=None)
        for level in "123"
        for seed in range(8)
    ]  # fmt: skip
    claim = Claim(
        "f",
        "1",
        ("2", "3"),
        "val/cost",
        0.1,
        seeds=tuple(range(8)),
        looks=looks,
        better="lower",
        unit="J",
    )
    scaled = [row | {name: factor * row[name] for name in ("value", "last")} for row in sweep]
    there = judged(sweep, claim)["comparisons"]
    back = judged(scaled, dataclasses.replace(claim, margin=0.1 * factor))["comparisons"]
    for one, other in zip(there, back, strict=True):
        assert one["verdict"] == other["verdict"] != states.TOO_COARSE
        assert (one["p"], one["p_adjusted"]) == (other["p"], other["p_adjusted"])
        assert other["mean"] == pytest.approx(factor * one["mean"], rel=1e-6)


@pytest.mark.parametrize(
    ("better", "unit", "level"),
    [("lower", "J", 5e6), ("higher", "", -5e6), ("lower", "%", 500.0), ("higher", "%", -40.0)],
)
@pytest.mark.parametrize("looks", [(), (6, 8)], ids=["fixed", "looks"])
def test_runs_that_diverged_are_never_the_better_ones(
    better: str, unit: str, level: float, looks: tuple[int, ...]
) -> None:
    sign = 1 if better == "higher" else -1
    base = [run("1", seed, level + 0.1 * seed, images=None) for seed in range(8)]
    gains = [run("2", seed, level + sign * (3 + 0.1 * seed), images=None) for seed in range(8)]
    treated = [lost(row, "diverged") for row in gains]
    claim = Claim("f", "1", ("2",), "val/own", 0.1, seeds=tuple(range(8)), looks=looks, better=better, unit=unit)  # fmt: skip
    assert only([*base, *gains], claim)["verdict"] == states.SUPPORTED
    verdict = only([*base, *treated], claim)["verdict"]
    assert verdict not in states.ANY_SUPPORTED
    assert (
        only([*base, *gains[:6], *treated[6:]], claim)["verdict"] not in states.ANY_SUPPORTED
        or looks
    )


def test_small_differences_keep_their_sign_and_digits() -> None:
    loss = dataclasses.replace(LOSS, margin=0.2)
    assert [loss.signed(number) for number in (-0.000359, 0.0, 0.1234, -2.5e9)] == [
        "−0.000359", "+0.000", "+0.123", "−2.5e+09",
    ]  # fmt: skip
