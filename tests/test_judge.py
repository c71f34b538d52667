"""Runs of other programs, judged by the command: our own sweep in other forms, and what is asked and refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import forked
import polars as pl
import pytest
import yaml  # type: ignore[import-untyped]
from conftest import Main, _run

from harness.analysis import results

SETTINGS = (
    "trainer.epochs=7",
    "scheduler.t_0=1",
    "scheduler=cosine_warm",
    "dataset.train_size=400",
)
FACTOR = ("--factor", "t_mult", "--baseline", "1")
FIGURES = (
    "n",
    "mean",
    "sd",
    "ci95",
    "ci90",
    "p",
    "p_adjusted",
    "bootstrap_t95",
    "verdict",
    "pairs_needed",
)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Main:
    """`python scripts/judge.py ARGS`, in this process."""
    return partial(_run, monkeypatch, capsys, "scripts/judge.py")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of ours, with the offline logs of W&B."""
    return sweep(tmp_path_factory.mktemp("sweep"), "tracking.mode=offline")


def sweep(folder: Path, *words: str) -> Path:
    done = forked.complete(
        "train.py", "-m", *SETTINGS, "scheduler.t_mult=1,2", "seed=range(0,6)", *words,
        f"hydra.sweep.dir={folder}/sweep", f"store.dir={folder}/store",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "sweep"


def verdict(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "verdict.json").read_text())
    return found


def figures(folder: Path) -> dict[str, Any]:
    (one,) = verdict(folder)["comparisons"]
    assert one["pairs"]
    return {name: one[name] for name in FIGURES} | {
        "pairs": [(pair["seed"], pair["baseline"], pair["treatment"]) for pair in one["pairs"]]
    }


# --- our own sweep in each form ------------------------------------------------------------------

Histories = list[tuple[dict[str, Any], pl.DataFrame]]  # settings (t_mult, seed), rows


def histories(own: Path) -> Histories:
    return [
        ({"t_mult": int(row["level"]), "seed": row["seed"]}, results.history(row["folder"]))
        for row in results.read(own).to_dicts()
    ]


def long_form(own: Path) -> pl.DataFrame:
    return pl.concat(
        [
            rows.with_columns(run=pl.lit(f"run {at}"), **{key: pl.lit(v) for key, v in settings.items()})
            for at, (settings, rows) in enumerate(histories(own))
        ]
    )  # fmt: skip


def as_csv(own: Path, to: Path) -> tuple[Path, ...]:
    long_form(own).write_csv(to / "runs.csv")
    return (to / "runs.csv",)


def as_jsonl(own: Path, to: Path) -> tuple[Path, ...]:
    long_form(own).write_ndjson(to / "runs.jsonl")
    return (to / "runs.jsonl",)


def as_parquet(own: Path, to: Path) -> tuple[Path, ...]:
    long_form(own).write_parquet(to / "runs.parquet")
    return (to / "runs.parquet",)


def as_final_values(own: Path, to: Path) -> tuple[Path, ...]:
    rows = [
        settings | {"val/acc": rows.drop_nulls("val/acc")["val/acc"][-1]}
        for settings, rows in histories(own)
    ]
    pl.DataFrame(rows).write_csv(to / "final.csv")
    return (to / "final.csv",)


def as_wandb_table(own: Path, to: Path) -> tuple[Path, ...]:
    """Write what W&B's "Export to CSV" of the runs table has (a stand-in: its page cannot be run here)."""
    rows = [
        {"Name": f"t_mult={s['t_mult']}, seed={s['seed']}", "State": "finished", "Notes": "-", "User": "me", "Tags": "",
         "Created": "2026-11-27T01:00:00.000Z", "Runtime": "12", "Sweep": "", "scheduler.t_mult": s["t_mult"],
         "seed": s["seed"], "val/acc": rows.drop_nulls("val/acc")["val/acc"][-1]}
        for s, rows in histories(own)
    ]  # fmt: skip
    with (to / "wandb_export.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    return (to / "wandb_export.csv",)


def as_wandb_chart(own: Path, to: Path) -> tuple[Path, ...]:
    """Write what W&B's "Export CSV" of a chart has, a column a run (a stand-in, as above)."""
    table: pl.DataFrame | None = None
    for settings, rows in histories(own):
        name = f"t_mult={settings['t_mult']}, seed={settings['seed']} - val/acc"
        mine = rows.drop_nulls("val/acc").select(
            pl.col("step").alias("Step"),
            *(pl.col("val/acc").alias(name + end) for end in ("", "__MIN", "__MAX")),
        )
        table = mine if table is None else table.join(mine, "Step", "full", coalesce=True)
    assert table is not None
    table.sort("Step").write_csv(to / "chart.csv", quote_style="always")
    return (to / "chart.csv",)


def as_lightning(own: Path, to: Path) -> tuple[Path, ...]:
    from lightning.pytorch.loggers import CSVLogger

    for at, (settings, rows) in enumerate(histories(own)):
        logger = CSVLogger(to, version=at)
        logger.log_hyperparams(settings)
        for row in rows.to_dicts():
            values = {k: v for k, v in row.items() if v is not None and k != "step"}
            logger.log_metrics(values, step=row["step"])
        logger.save()
    return (to,)


def as_timm(own: Path, to: Path) -> tuple[Path, ...]:
    from timm.utils.summary import update_summary

    for at, (settings, rows) in enumerate(histories(own)):
        folder = to / f"{at}"
        folder.mkdir()
        (folder / "args.yaml").write_text(yaml.safe_dump(settings))
        for epoch, row in enumerate(rows.drop_nulls("val/acc").to_dicts()):
            update_summary(  # type: ignore[no-untyped-call]
                epoch, {"loss": row["train/loss"] or 0.0}, {"top1": row["val/acc"]}, folder / "summary.csv",
                lr=row["lr"], write_header=epoch == 0,
            )  # fmt: skip
    return (to,)


def as_hugging_face(own: Path, to: Path) -> tuple[Path, ...]:
    """Write the states that a Trainer leaves (a stand-in: tests/recorded has one that it wrote)."""
    for settings, rows in histories(own):
        folder = to / f"t_mult={settings['t_mult']},seed={settings['seed']}"
        folder.mkdir()
        log = [
            {"step": row["step"], "epoch": row["epoch"], "eval_acc": row["val/acc"]}
            for row in rows.drop_nulls("val/acc").to_dicts()
        ]
        step = log[-1]["step"]
        state = {"global_step": step, "max_steps": step, "log_history": log}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    return (to,)


EXACT: dict[str, tuple[Callable[[Path, Path], Iterable[str | Path]], str]] = {
    "csv": (as_csv, "val/acc"),
    "jsonl": (as_jsonl, "val/acc"),
    "parquet": (as_parquet, "val/acc"),
    "final values": (as_final_values, "val/acc"),
    "W&B's table": (as_wandb_table, "val/acc"),
    "W&B's chart": (as_wandb_chart, "val/acc"),
    "lightning": (as_lightning, "val/acc"),
    "timm": (as_timm, "eval_top1"),
    "hugging face": (as_hugging_face, "eval_acc"),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", EXACT)
def test_our_own_sweep_has_the_same_figures_in_each_form(
    form: str, own: Path, tmp_path: Path, judge: Main
) -> None:
    write, metric = EXACT[form]
    (tmp_path / "in").mkdir()
    words = write(own, tmp_path / "in")
    done = judge(*words, *FACTOR, "--metric", metric, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert figures(tmp_path / "out") == figures(own)
    assert (tmp_path / "out/report.html").exists()
    assert "Not preregistered" in done.stdout


@pytest.mark.slow
def test_our_own_sweep_from_wandbs_offline_logs(own: Path, tmp_path: Path, judge: Main) -> None:
    done = judge(own, "--as", "wandb", *FACTOR, "--metric", "val/acc", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert figures(tmp_path) == figures(own)


@pytest.mark.slow
def test_our_own_sweep_from_tensorboard(tmp_path: Path, judge: Main) -> None:
    """TensorBoard keeps float32: differences are equal to 1e-5 points."""
    own = sweep(tmp_path, "tracking=tensorboard")
    done = judge(
        own, "--as", "tensorboard", *FACTOR, "--metric", "val/acc", "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    found, expected = figures(tmp_path / "out"), figures(own)
    for name in ("mean", "sd", "ci95", "ci90", "pairs"):
        assert sum([*flat(found[name])]) == pytest.approx(sum([*flat(expected[name])]), abs=1e-3)
        for a, b in zip(flat(found[name]), flat(expected[name]), strict=True):
            assert a == pytest.approx(b, abs=1e-5)
    assert {k: found[k] for k in ("n", "p", "verdict")} == {
        k: expected[k] for k in ("n", "p", "verdict")
    }


def flat(value: Any) -> Iterable[float]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from flat(one)
    else:
        yield value


@pytest.mark.slow
def test_a_form_without_seeds_is_not_paired_and_says_so(
    own: Path, tmp_path: Path, judge: Main
) -> None:
    as_final_values(own, tmp_path)
    pl.read_csv(tmp_path / "final.csv").drop("seed").write_csv(tmp_path / "final.csv")
    done = judge(tmp_path / "final.csv", *FACTOR, "--metric", "val/acc", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "note: the runs are not paired: no seed is known" in done.stdout
    (one,) = verdict(tmp_path / "out")["comparisons"]
    assert (one["pairs"], one["runs"]) == ([], [6, 6])
    assert one["mean"] == pytest.approx(figures(own)["mean"])
