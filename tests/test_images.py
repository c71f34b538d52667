"""Seeds × images: the interval against an independent computation, its coverage, and where it cannot be had."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from calibration.images import coverage_rates, draw
from conftest import Main
from numpy.typing import NDArray
from scipy import stats

from harness import correct
from harness.analysis import states
from harness.analysis.images import Components, add_images, read_correct, seeds_by_images
from harness.files import UnreadableError

Bits = NDArray[np.bool_]


def drawn(images: int = 300, sd: float = 0.5, own: float = 2.0, seed: int = 0) -> tuple[Bits, Bits]:
    """The bits (8, images) of a baseline and of a treatment that is no better."""
    baseline, treatment = draw(images, sd, own, np.random.default_rng(seed))
    return baseline, treatment


# --- the interval ----------------------------------------------------------------------------------


def least_squares(differences: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean squares of pairs, images and residuals, by fitting the additive model with dummy variables."""
    pairs, images = differences.shape
    pair, image = np.indices(differences.shape).reshape(2, -1)
    y = differences.ravel()
    columns = [np.ones(len(y))]
    of_pairs = [pair == k for k in range(1, pairs)]
    of_images = [image == k for k in range(1, images)]

    def residual(*more: list[Any]) -> float:
        design = np.column_stack([*columns, *(column for group in more for column in group)])
        fit = design @ np.linalg.lstsq(design, y.astype(float), rcond=None)[0]
        return float(np.square(y - fit).sum())

    both = residual(of_pairs, of_images)
    return (
        (residual(of_images) - both) / (pairs - 1),
        (residual(of_pairs) - both) / (images - 1),
        both / ((pairs - 1) * (images - 1)),
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_components_are_those_of_a_fit_of_the_additive_model(seed: int) -> None:
    a, b = (bits[:, :40] for bits in drawn(own=1.0, sd=3.0, seed=seed))
    differences = 100.0 * b - 100.0 * a
    of_pairs, of_images, rest = least_squares(differences)
    found = Components.of(differences)
    assert found.remainder == pytest.approx(rest)
    assert found.of_pairs == pytest.approx(max(0, (of_pairs - rest) / 40), abs=1e-9)
    assert found.of_images == pytest.approx(max(0, (of_images - rest) / 8), abs=1e-9)


def test_the_interval_is_satterthwaites() -> None:
    a, b = drawn(sd=3.0)
    found = seeds_by_images(a, b, 0.05)
    assert found
    pairs, images = a.shape
    differences = 100.0 * b - 100.0 * a
    seeds = images * differences.mean(1).var(ddof=1)
    others = pairs * differences.mean(0).var(ddof=1)
    effects = differences - differences.mean(1, keepdims=True) - differences.mean(0)
    rest = np.square(effects + differences.mean()).sum() / ((pairs - 1) * (images - 1))
    assert min(seeds, others) > rest, "none is truncated"
    variance = seeds + others - rest
    free = (pairs - 1, images - 1, (pairs - 1) * (images - 1))
    freedom = variance**2 / (np.square([seeds, others, rest]) / free).sum()
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance / (pairs * images))
    mean = differences.mean()
    assert found["ci95"] == pytest.approx([mean - half, mean + half])
    assert found["half_width"]["now"] == pytest.approx(half)
    student = stats.ttest_1samp(differences.mean(1), 0).confidence_interval(0.95)
    assert found["seeds95"] == pytest.approx(list(student))
    assert (found["pairs"], found["images"], found["mean"]) == (8, 300, pytest.approx(mean))


def test_where_images_add_nothing_it_is_students() -> None:
    """All images alike: each run is right on a random half of them."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        a, b = rng.random((2, 8, 200)) < 0.5
        found = seeds_by_images(a, b, 0.05)
        assert found
        if found["shares"]["images"] == 0 and found["shares"]["seeds"] > 0:
            assert found["ci95"] == pytest.approx(found["seeds95"])
            break
    else:
        pytest.fail("no draw without variance between images")


def test_it_is_never_based_on_less_variance_than_that_over_seeds() -> None:
    for seed in range(30):
        a, b = drawn(images=60, own=0.3, seed=seed)
        if (found := seeds_by_images(a, b, 0.05)) is None:
            continue
        by_pair = (100.0 * b - 100.0 * a).mean(1)
        parts = Components.of(100.0 * b - 100.0 * a).parts(8, 60)
        assert sum(parts) >= by_pair.var(ddof=1) / 8 * (1 - 1e-12)
        assert sum(found["shares"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("sd", "own", "more"),
    [pytest.param(5.0, 0.3, "seeds", id="seeds"), pytest.param(0.1, 4.0, "images", id="images")],
)
def test_it_says_whether_more_seeds_or_more_images_narrow_it_more(
    sd: float, own: float, more: str
) -> None:
    found = seeds_by_images(*drawn(images=2000, sd=sd, own=own), 0.05)
    assert found
    half = found["half_width"]
    assert found["more"] == more
    assert found["shares"][more] > 0.5
    assert half[more] < 0.8 * half["now"]
    assert half["seeds" if more == "images" else "images"] > 0.9 * half["now"]


def test_what_it_expects_of_twice_the_images_is_what_they_give() -> None:
    now = [seeds_by_images(*drawn(images=1000, seed=seed), 0.05) for seed in range(60)]
    twice = [seeds_by_images(*drawn(images=2000, seed=seed), 0.05) for seed in range(60, 120)]
    expected = np.mean([one["half_width"]["images"] for one in now if one])
    given = np.mean([one["half_width"]["now"] for one in twice if one])
    assert expected == pytest.approx(given, rel=0.05)


@pytest.mark.parametrize(
    ("baseline", "treatment"),
    [
        pytest.param(np.ones((8, 9), bool), np.ones((8, 9), bool), id="the same predictions"),
        pytest.param(np.zeros((8, 9), bool), np.ones((8, 9), bool), id="all differences equal"),
        pytest.param(np.ones((1, 9), bool), np.zeros((1, 9), bool), id="one pair"),
        pytest.param(np.ones((8, 1), bool), np.zeros((8, 1), bool), id="one image"),
    ],
)
def test_without_variation_there_is_none(baseline: Bits, treatment: Bits) -> None:
    assert seeds_by_images(baseline, treatment, 0.05) is None


def test_it_covers_the_truth_where_that_over_seeds_does_not() -> None:
    """A quick look; docs/verdict.md has the rates."""
    rows = coverage_rates(100, np.random.default_rng(1))
    assert len(rows) == 8
    for row in rows:
        assert row["covered"] >= 0.93 - 3.5 * np.sqrt(0.07 * 0.93 / 100), row
    many = [row for row in rows if row["image_variance"] == "dominates" and row["sd"] == 0.1]
    assert max(row["seeds_alone"] for row in many) < 0.75
    assert json.loads(json.dumps(rows)) == rows


def test_the_drawn_arms_have_the_accuracy_and_the_seeds_that_were_asked_for() -> None:
    rng = np.random.default_rng(3)
    parts, accuracy = [], []
    for _ in range(60):
        a, b = draw(4000, 0.5, 0.3, rng)
        parts.append(Components.of(100.0 * b - 100.0 * a).of_pairs)
        accuracy.append(a.mean())
    assert np.sqrt(np.mean(parts)) == pytest.approx(0.5, rel=0.15)
    assert np.mean(accuracy) == pytest.approx(0.9, abs=0.005)


# --- of the runs of a verdict ----------------------------------------------------------------------

CLAIM = {"metric": "val/acc"}
Sweep = tuple[dict[str, Any], pl.DataFrame]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """The comparison of 2 against 1 over four seeds, and folders of its runs with bits."""
    bits = dict(zip("12", drawn(seed=4), strict=True))
    rows, pairs = [], []
    for seed in range(4):
        for level in "12":
            folder = tmp_path / f"{level}-{seed}"
            folder.mkdir()
            own = {"val": bits[level][seed], "test": bits[level][seed + 4, :200]}
            correct.write(folder / "correct.npz", own)
            write_result(folder, own)
            rows.append(
                {"folder": str(folder), "cell": "", "level": level, "seed": seed,
                 "status": "complete"}
            )  # fmt: skip
        arms = {arm: correct.accuracy(bits[level][seed]) for arm, level in ARMS.items()}
        pairs.append({"seed": seed, **arms})
    comparison = {"cell": "", "baseline": "1.0", "treatment": "2", "pairs": pairs}
    return {"claim": CLAIM, "comparisons": [comparison]}, pl.DataFrame(rows)


ARMS = {"baseline": "1", "treatment": "2"}


def write_result(folder: Path, bits: dict[str, Bits], **changes: Any) -> None:
    acc = {f"{split}/acc": correct.accuracy(own) for split, own in bits.items()}
    result = {"final": {"val/acc": acc["val/acc"]}, "test": {"test/acc": acc["test/acc"]}}
    result |= {"data_sha256": "d", "test_sha256": "t"} | changes
    (folder / "result.json").write_text(json.dumps(result))


def images(sweep: Sweep) -> dict[str, Any]:
    judged, runs = sweep
    add_images(judged, runs, 0.05)
    found: dict[str, Any] = judged["comparisons"][0]["images"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_a_comparison_has_both_sets(sweep: Sweep) -> None:
    found = images(sweep)
    a, b = drawn(seed=4)
    assert found["val"] == seeds_by_images(a[:4], b[:4], 0.05)
    assert found["test"] == seeds_by_images(a[4:, :200], b[4:, :200], 0.05)


def test_of_runs_of_one_seed_the_one_with_the_pairs_value_counts(
    sweep: Sweep, tmp_path: Path
) -> None:
    """As with another LR, or in another plan."""
    expected = images(sweep)
    other = tmp_path / "other"
    other.mkdir()
    bits = {split: ~own for split, own in correct.read(tmp_path / "2-0/correct.npz").items()}
    correct.write(other / "correct.npz", bits)
    write_result(other, bits)
    judged, runs = sweep
    row = {**runs.row(1, named=True), "folder": str(other)}
    assert images((judged, pl.concat([pl.DataFrame([row]), runs]))) == expected


def remove(folder: Path) -> None:
    (folder / "correct.npz").unlink()


def change_images(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"data_sha256": "other"}))


def mix_up(folder: Path) -> None:
    bits = correct.read(folder / "correct.npz")
    correct.write(folder / "correct.npz", bits | {"val": ~bits["val"]})


@pytest.mark.parametrize(
    ("break_", "val", "test"),
    [
        pytest.param(
            remove, "1 of 8 runs kept no bits of val images in correct.npz",
            "1 of 8 runs kept no bits of test images in correct.npz", id="an old run",
        ),
        pytest.param(
            change_images, "the images differ between the runs; where they follow the seed, the "
            "interval over seeds holds for other images too", "", id="other images",
        ),
        pytest.param(
            mix_up, "2-1/correct.npz: does not give the val/acc of its run",
            "2-1/correct.npz: does not give the val/acc of its run", id="of another run",
        ),
        pytest.param(
            lambda folder: (folder / "correct.npz").write_bytes(b"PK" * 40),
            "does not hold bits of images", "does not hold bits of images", id="a foreign file",
        ),
    ],
)  # fmt: skip
def test_where_it_cannot_be_had_it_says_why(
    sweep: Sweep, tmp_path: Path, break_: Callable[[Path], None], val: str, test: str
) -> None:
    break_(tmp_path / "2-1")
    found = images(sweep)
    for split, reason in (("val", val), ("test", test)):
        assert (found[split]["ci95"] is None) == bool(reason)
        assert reason in found[split].get("reason", "")


def test_it_says_so_of_too_few_pairs_and_of_invalid_comparisons(sweep: Sweep) -> None:
    judged, runs = sweep
    (comparison,) = judged["comparisons"]
    comparison["verdict"] = states.INVALID
    assert images((judged, runs))["val"] == {"ci95": None, "reason": states.INVALID}
    comparison |= {"verdict": "inconclusive", "pairs": comparison["pairs"][:1]}
    assert images((judged, runs))["val"] == {"ci95": None, "reason": "fewer than two pairs"}


def test_a_result_of_another_version_is_named(sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "1-0/result.json").write_text('{"final": 3}')
    with pytest.raises(UnreadableError, match=r"1-0/result\.json"):
        images(sweep)


def test_a_folder_without_the_file_has_none(tmp_path: Path) -> None:
    assert read_correct(tmp_path) is None


# --- whole sweeps ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "of_images"),
    [
        pytest.param([], True, id="one split"),
        pytest.param(
            ["dataset.split_seed=${seed}"], False, id="a split a seed", marks=pytest.mark.slow
        ),
    ],
)
def test_a_sweep_pairs_and_is_judged_and_has_the_interval_where_images_are_shared(
    main: Main, tmp_path: Path, overrides: list[str], of_images: bool
) -> None:
    words = (
        "dataset=synthetic", "dataset.images=300", "dataset.classes=4", "dataset.image_size=4",
        "dataset.noise=3", "dataset.val_size=100", "model.width=1", "trainer.batch_size=32",
        "trainer.epochs=3", "scheduler.t_0=1", "tracking=none", f"store.dir={tmp_path / 'store'}",
    )  # fmt: skip
    sweep = tmp_path / "sweep"
    done = main(
        "-m", *words, *overrides, "scheduler=cosine_warm", "scheduler.t_mult=1,2",
        "seed=0,1,2", f"hydra.sweep.dir={sweep}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (comparison,) = json.loads((sweep / "verdict.json").read_text())["comparisons"]
    assert (comparison["n"], len(comparison["ci95"])) == (3, 2)
    results = [json.loads(path.read_text()) for path in sweep.glob("*/result.json")]
    assert len({result["data_sha256"] for result in results}) == (1 if of_images else 3)
    for found in (comparison["images"][split] for split in correct.SPLITS):
        if of_images:
            assert found["ci95"][0] < found["mean"] < found["ci95"][1]
        else:
            assert found["ci95"] is None
            assert found["reason"].startswith("the images differ between the runs")
    if of_images:
        val = comparison["images"]["val"]
        assert val["mean"] == pytest.approx(comparison["mean"])
        assert val["seeds95"] == pytest.approx(comparison["ci95"])
