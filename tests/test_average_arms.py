"""Averages of weights as arms of a claim: the tables, a whole sweep, and what verify_sweep.py finds."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import polars as pl
import pytest
import torch
import verify_sweep
from conftest import make_config
from test_averages import TINY

from harness import correct
from harness.analysis import averages, results
from harness.config.values import to_dict
from harness.report import summary
from harness.store.checkpoint import read_checkpoint, read_state

Main = Callable[..., CompletedProcess[str]]
SEEDS = 6


def test_the_levels_of_a_run_are_its_last_weights_and_its_averages() -> None:
    words = ("averages.ema=[0.9,0.99]", "averages.cycle_ends=[2]", "averages.tail=[0.5]")
    config = to_dict(make_config(*TINY, *words))
    every = ["last", "ema:0.9", "ema:0.99", "cycle_ends:2", "tail:0.5"]
    assert averages.levels(config) == every
    assert averages.levels({}) == ["last"], "of a version without averages"
    assert averages.describe(every[1:3]) == (
        "Of the same runs, ema:0.9 is the exponential moving average of the weights over all updates, "
        "with decay 0.9; ema:0.99 is the exponential moving average of the weights over all updates, with "
        "decay 0.99; their batch norms have the statistics of training images."
    )
    assert averages.describe(["last"]) == ""


def test_a_result_as_that_of_an_average() -> None:
    result: dict[str, Any] = {
        "status": "complete", "updates_trained": 3, "updates_reused": 4, "seconds": {"total": 9.0},
        "final": {
            "step": 7, "val/acc": 50.0, "val/loss": 1.5, "val/acc@ema:0.9": 60.0, "val/loss@ema:0.9": 1.0,
            "val/acc@ema:0.99": 70.0,
        },
        "test": {"test/acc": 40.0, "test/acc@ema:0.9": 45.0},
        "best": {"step": 6, "val/acc": 55.0},
    }  # fmt: skip
    own = averages.as_run(result, "ema:0.9", {"acc": 61.0})
    assert own["final"] == {"step": 7, "val/acc": 60.0, "val/loss": 1.0}
    assert own["test"] == {"test/acc": 45.0}
    assert own["best"] == {"val/acc": 61.0}
    assert (own["updates_trained"], own["updates_reused"], own["seconds"]) == (0, 7, {"total": 0.0})
    assert averages.as_run(result, "last", {}) == result
    gone = averages.as_run(result, "tail:0.5", {})
    assert (gone["status"], gone["final"]) == ("diverged", {"step": 7})
    without = {name: value for name, value in result["final"].items() if name != "val/loss@ema:0.9"}
    assert averages.as_run(result | {"final": without}, "ema:0.9", {})["error"] == (
        "val/loss of ema:0.9 is not finite"
    )
    assert averages.as_run(result | {"status": "failed"}, "tail:0.5", {})["status"] == "failed"


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        pytest.param(("complete", "diverged"), "complete", id="has ended"),
        pytest.param(("missing", "not needed"), "missing", id="one needs it"),
        pytest.param(("not needed", "missing"), "missing", id="an average needs it"),
        pytest.param(("waiting", "not needed"), "waiting", id="one may need it"),
        pytest.param(("not needed", "waiting"), "waiting", id="an average may need it"),
        pytest.param(("not needed", "not needed"), "not needed", id="none needs it"),
    ],
)
def test_a_run_is_needed_if_one_of_its_arms_is(statuses: tuple[str, str], status: str) -> None:
    arms = {"folder": ["0", "0"], "average": ["last", "ema:0.9"], "status": statuses}
    (row,) = averages.of_runs(pl.DataFrame(arms)).to_dicts()
    assert row == {"folder": "0", "average": "last", "status": status}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        pytest.param(
            ["claim.factor=average", "seed=0,1"],
            "claim.factor=average: no average of the weights is kept; give some, as in 'averages.ema=[0.99,0.999]'",
            id="none",
        ),
        pytest.param(
            ["averages.ema=[0.9],[0.99]"],
            "averages.ema: is swept, and averages ride on one run; give them all to it, as in "
            "'averages.ema=[0.99,0.999]' claim.factor=average",
            id="swept",
        ),
        pytest.param(
            ["claim.factor=average", "averages.ema=[0.9]", "claim.baseline=ema:0.5", "seed=0,1"],
            "claim.baseline=ema:0.5: average has the levels last, ema:0.9",
            id="another baseline",
        ),
        pytest.param(
            ["claim.factor=average", "averages.ema=[0.9]", "seed=0,1", "claim.tune=optimizer.lr",
             "claim.grid=[0.1,0.2]"],
            "claim.tune: the arms of claim.factor=average are one run; leave it out, and give the run its values",
            id="tuned",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused(
    main: Main, tmp_path: Path, words: list[str], error: str
) -> None:
    done = main("-m", *TINY, "tracking=none", *words, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert done.returncode == 1
    assert error in done.stderr
    assert not (tmp_path / "sweep/plan.json").exists()


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A sweep of seeds alone, whose averages are judged."""
    folder = tmp_path_factory.mktemp("averages")
    kept = [one for one in TINY if not one.startswith(("trainer.epochs", "dataset.images"))]
    return [
        "-m", *kept, "tracking=none", "trainer.epochs=4", f"seed=range(0,{SEEDS})", "averages.ema=[0.5]",
        "averages.cycle_ends=[2]", "claim.factor=average", "dataset.images=400", "dataset.val_size=150",
        f"store.dir={folder / 'store'}", f"hydra.sweep.dir={folder / 'sweep'}",
    ]  # fmt: skip


def test_a_sweep_whose_averages_are_judged(
    main: Main, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    done = main(*words)
    assert done.returncode == 0, done.stderr
    assert "judged by: average=ema:0.5, cycle_ends:2 against last" in done.stderr
    sweep = Path(words[-1].partition("=")[2])
    _check_tables(sweep)
    verdict = json.loads((sweep / "verdict.json").read_text())
    assert "cycle_ends:2 is their mean over the last 2 cycle ends" in verdict["sentence"]
    assert verdict["provenance"]["runs"] == SEEDS
    for one in verdict["comparisons"]:
        assert (one["baseline"], one["n"], one["invalid"]) == ("last", SEEDS, "")
        for pair in one["pairs"]:
            final = results.last_row(sweep / str(pair["seed"]))
            assert pair["baseline"] == final["val/acc"]
            assert pair["treatment"] == final[f"val/acc@{one['treatment']}"]
        assert one["images"]["val"].get("reason") in (
            None,
            "all differences between the runs are equal",
        )
    assert verify_sweep.verify_sweep(sweep) == 0
    assert f"{SEEDS} rows, {SEEDS} with a result" in capsys.readouterr().out


def _check_tables(sweep: Path) -> None:
    """Check that each run has a row for each of its averages, with the metrics of that."""
    runs = pl.read_csv(sweep / "runs.csv")
    assert runs["level"].to_list() == ["last", "ema:0.5", "cycle_ends:2"] * SEEDS
    assert runs["arm"][:3].to_list() == ["average=last", "average=ema:0.5", "average=cycle_ends:2"]
    assert runs.filter(pl.col("level") != "last")["updates_trained"].sum() == 0
    rows = results.rows(sweep / "0")
    history = pl.read_parquet(sweep / "history.parquet").filter(run="0", level="cycle_ends:2")
    accuracies = [row["val/acc@cycle_ends:2"] for row in rows if "val/acc@cycle_ends:2" in row]
    assert history["val/acc"].drop_nulls().to_list() == accuracies
    assert runs["best"][2] == max(accuracies)
    assert runs["final"][1] == rows[-1]["val/acc@ema:0.5"]


def test_a_single_run_has_its_averages_in_tables_and_page(main: Main, tmp_path: Path) -> None:
    kept = ("averages.ema=[0.5]", "tracking=none", f"hydra.run.dir={tmp_path / 'run'}")
    assert main(*TINY, *kept, f"store.dir={tmp_path / 'store'}").returncode == 0
    assert summary.write_run(tmp_path / "run")[1] == []
    runs = pl.read_csv(tmp_path / "run/runs.csv")
    last, result = results.last_row(tmp_path / "run"), results.result(tmp_path / "run")
    assert runs["arm"].to_list() == ["average=last", "average=ema:0.5"]
    assert runs["final"].to_list() == [last["val/acc"], last["val/acc@ema:0.5"]]
    assert runs["test"].to_list() == [
        result["test"]["test/acc"],
        result["test"]["test/acc@ema:0.5"],
    ]
    page = (tmp_path / "run/report.html").read_text()
    assert "ema:0.5 is the exponential moving average" in page
    assert "python train.py" in page
    assert ">complete</strong>" in page
    assert ">Arms</h2>" not in page


def _change_mean(sweep: Path) -> str:
    result = json.loads((sweep / "0/result.json").read_text())
    paths = sorted(Path(result["config"]["store"]["dir"], result["fingerprint"]).glob("*-*.json"))
    checkpoint = read_checkpoint(paths[-1])
    state = read_state(checkpoint)
    state["averages"]["cycle_ends:2"]["weights"]["stem.weight"] += 0.01
    torch.save(state, paths[-1].parent / checkpoint.file)
    content = (paths[-1].parent / checkpoint.file).read_bytes()
    document = json.loads(paths[-1].read_text())
    document["sha256"] = hashlib.sha256(content).hexdigest()
    paths[-1].write_text(json.dumps(document))
    return "its cycle_ends:2 is not the mean of the stored stem.weight"


def _drop_row(sweep: Path) -> str:
    path = sweep / "0/history.jsonl"
    path.write_text(
        re.sub(
            r', "val/loss@ema:0.5": [\d.]+|, "val/acc@ema:0.5": [\d.]+',
            "",
            path.read_text(),
            count=2,
        )
    )
    return "history.jsonl lacks rows that were due"


@pytest.mark.slow
@pytest.mark.parametrize("change", [_change_mean, _drop_row])
def test_what_is_wrong_with_an_average_is_found(
    main: Main, words: list[str], tmp_path: Path, change: Callable[[Path], str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    sweep = tmp_path / "sweep"
    kept = [word for word in words[:-2] if not word.startswith("seed")]
    own = [*kept, "seed=0,1", f"store.dir={tmp_path / 'store'}", f"hydra.sweep.dir={sweep}"]
    assert main(*own).returncode == 0
    capsys.readouterr()
    error = change(sweep)
    assert verify_sweep.verify_sweep(sweep) >= 1
    assert error in capsys.readouterr().err


@pytest.mark.slow
def test_averages_in_cells_until_decided(main: Main, words: list[str], tmp_path: Path) -> None:
    given = ("seed", "store", "hydra", "scheduler.t_0")
    own = [word for word in words if not word.startswith(given)]
    done = main(
        *own, "scheduler.t_0=1,2", "claim.until=decided", "claim.looks=[6,8]", "claim.margin=30",
        f"store.dir={tmp_path / 'store'}", f"hydra.sweep.dir={tmp_path / 'sweep'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    verdict = json.loads((tmp_path / "sweep/verdict.json").read_text())
    cells = {(one["cell"], one["treatment"]) for one in verdict["comparisons"]}
    assert cells == {(f"scheduler.t_0={t}", a) for t in (1, 2) for a in ("ema:0.5", "cycle_ends:2")}
    assert all(one["n"] in (6, 8) for one in verdict["comparisons"])


def test_bits_of_averages_are_read_and_others_refused(tmp_path: Path) -> None:
    bits: dict[str, Any] = {"val": [True, False], "val@ema:0.99": [True, True]}
    path = tmp_path / "correct.npz"
    correct.write(path, {name: pl.Series(own).to_numpy() for name, own in bits.items()})
    assert {name: own.tolist() for name, own in correct.read(path).items()} == bits
    correct.write(path, {"val@../x": pl.Series([True]).to_numpy()})
    with pytest.raises(OSError, match="does not hold bits of images"):
        correct.read(path)
