"""Runs of other programs, judged by the command: our own sweep in other forms, and what is asked and refused."""

from __future__ import annotations

import csv
import json
import re
import textwrap
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import forked
import polars as pl
import pytest
import wandb_server
import yaml  # type: ignore[import-untyped]
from conftest import ROOT, Main, _run

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


# --- the server of W&B ---------------------------------------------------------------------------


@pytest.mark.slow
def test_our_own_sweep_from_a_wandb_project(
    tmp_path: Path, judge: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wandb_server.serve() as server:
        for key, value in (server.environment() | {"WANDB_MODE": "online"}).items():
            monkeypatch.setenv(key, value)
        own = sweep(tmp_path, "tracking.mode=online", "tracking.project=lr")
        monkeypatch.delenv("WANDB_MODE")
        words = (*FACTOR, "--metric", "val/acc", "--out", tmp_path / "out")
        done = judge("wandb:tester/lr", "--where", f"group={own.name}", "--where", "dataset.kind=digits", *words)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert figures(tmp_path / "out") == figures(own)
        none = judge("wandb:tester/lr", "--where", "group=another", *words)
        assert none.returncode == 1
        assert none.stderr.splitlines()[-1].startswith(
            "error: wandb:tester/lr: there is no run with group=another"
        )
        assert server.unknown == []


# --- without curves ------------------------------------------------------------------------------


def final_values(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


PASTED = """| schedule | top1 (%) |
|---|---|
""" + "".join(f"| {name} | {value} |\n" for name, value in [
    ("one cycle", 76.1), ("one cycle", 75.8), ("one cycle", 76.3), ("one cycle", 75.9), ("one cycle", 76.0),
    ("restarts", 76.4), ("restarts", 75.7), ("restarts", 76.9), ("restarts", 76.6),
])  # fmt: skip


def test_rows_that_are_there_again_count_once(tmp_path: Path, judge: Main) -> None:
    """Rows that are equal in all columns and many digits; those of few digits may agree by chance."""
    values = [76.416721, 75.29563, 75.662676, 76.043118]
    rows = [
        f"{arm},{value + gain},{value / 100}\n"
        for arm, gain in (("a", 0), ("b", 0.31))
        for value in values
    ]
    source = final_values(tmp_path / "twice.csv", "arm,acc,loss\n" + "".join(rows) * 2)
    done = judge(source, "--baseline", "a", "--metric", "acc", "--out", tmp_path / "out")
    assert verdict(tmp_path / "out")["comparisons"][0]["runs"] == [4, 4]
    assert (
        "not compared, 8 runs (row 9, row 10, row 11, … (8 in all)): has the values of another run of its arm"
        in done.stdout
    )
    source.write_text(
        "arm,lr,wd,acc\n"
        + "".join(f"{arm},0.0012345,0.00056789,{acc}\n" for arm in "ab" for acc in (76.4, 75.1) * 2)
    )
    judge(source, "--baseline", "a", "--metric", "acc", "--out", tmp_path / "out")
    assert verdict(tmp_path / "out")["comparisons"][0]["runs"] == [4, 4]


def test_a_pasted_table_is_judged_and_its_page_says_what_it_is(tmp_path: Path, judge: Main) -> None:
    source = final_values(tmp_path / "pasted.md", PASTED)
    done = judge(source, "--baseline", "one cycle", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "note: the runs are not paired: no seed is known" in done.stdout
    sentence = (
        "Not preregistered. schedule=restarts against one cycle – inconclusive: +0.38 points of top1 (%) "
        "(95 % Welch interval −0.39 to +1.15, 5 and 4 runs, unpaired); neither a difference nor its absence shows."
    )  # fmt: skip
    assert f"verdict: {sentence}\n" in done.stdout
    page = (tmp_path / "out/report.html").read_text()
    for words in (
        "Not preregistered.",
        "settings that were not recorded",
    ):
        assert words in page
    for ours in (
        "learning rate",
        "after the last update",
        "train.py",
        "same seed",
        "validation images",
        str(tmp_path),
    ):
        assert ours not in page, ours
    assert source.read_text() == PASTED


@pytest.mark.parametrize(
    ("states", "shown", "shaded"),
    [
        (["", ""], ["not known", "not known"], False),
        (["finished", "finished"], ["complete", "complete"], False),
        (["finished", "running"], ["complete", "running"], True),
    ],
)
def test_the_page_says_of_each_run_how_it_ended_if_that_is_known(
    states: list[str], shown: list[str], shaded: bool, tmp_path: Path, judge: Main
) -> None:
    status = ",status" * any(states)
    rows = [f"{arm},{seed},{80 + seed}{',' * any(states)}{states[seed % 2]}" for arm in "ab" for seed in range(6)]  # fmt: skip
    source = final_values(tmp_path / "runs.csv", "\n".join([f"arm,seed,acc (%){status}", *rows]))
    done = judge(source, "--baseline", "a", "--metric", "acc (%)", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out/report.html").read_text()
    table = page[page.index('id="runs"') :]
    assert sorted({*re.findall(r'</td><td class="name">(\w[\w ]*)</td><td', table)}) == sorted({*shown})  # fmt: skip
    assert ("Shaded:" in page) == shaded
    assert "acc (%) is the last value" in page


def test_a_csv_file_a_run_is_made_a_table_as_the_manual_says(
    tmp_path: Path, judge: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    for level in (1, 2):
        for seed in range(6):
            folder = tmp_path / f"runs/t_mult={level},seed={seed}"
            folder.mkdir(parents=True)
            (folder / "log.csv").write_text(
                f"epoch,val_accuracy\n0,0.5\n1,0.{60 + 2 * level + seed}\n"
            )
    refused = judge(tmp_path / "runs")
    assert "of a CSV file a run, make one table: docs/judge.md#a-csv-file-a-run" in refused.stderr
    manual = (ROOT / "docs/judge.md").read_text()
    (section,) = re.findall(r"### A CSV file a run\n(.*?)\n## ", manual, re.DOTALL)
    code = "".join(re.findall(r"^    .*\n|^\n(?=    )", section, re.MULTILINE))
    monkeypatch.chdir(tmp_path)
    exec(textwrap.dedent(code))  # noqa: S102
    done = judge(tmp_path / "runs.csv", "--factor", "t_mult", "--baseline", "1", "--out", tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "+0.0200 in val_accuracy" in done.stdout


def test_names_with_commas_are_told_apart(tmp_path: Path, judge: Main) -> None:
    rows = [f"{arm},{seed},1,{80 + seed}" for arm in "abc" for seed in range(6)]
    source = final_values(tmp_path / "runs.csv", "\n".join(["run,arm,seed,step,acc", *(f'"arm={row[0]}, seed={row[2]}",{row}' for row in rows)]))  # fmt: skip
    done = judge(source, "--baseline", "a", "--treatment", "b", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "not compared, 6 runs (arm=c, seed=0; arm=c, seed=1; arm=c, seed=2; … (6 in all))" in done.stdout  # fmt: skip


def test_seeds_that_are_not_used_are_named(tmp_path: Path, judge: Main) -> None:
    rows = [f"{arm},{seed},{70 + seed * seed}" for arm in "ab" for seed in range(6)]
    source = final_values(tmp_path / "runs.csv", "\n".join(["arm,Seed,acc", *rows]))
    said = "the source has seeds (Seed): --seed none switched pairing off"
    done = judge(source, "--baseline", "a", "--seed", "none", "--out", tmp_path / "out")
    assert f"note: {said}\n" in done.stdout
    assert said in (tmp_path / "out/report.html").read_text()
    assert said not in judge(source, "--baseline", "a", "--out", tmp_path / "out").stdout


def test_best_values_have_no_verdict(tmp_path: Path, judge: Main) -> None:
    source = final_values(tmp_path / "pasted.md", PASTED)
    done = judge(source, "--baseline", "one cycle", "--at", "best", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (
        "no verdict: --at best takes the best of many evaluations of each run: optimistic"
        in done.stdout
    )
    assert "inconclusive" not in done.stdout
    assert not (tmp_path / "out").exists()


def test_arms_of_different_lengths_are_not_compared(tmp_path: Path, judge: Main) -> None:
    rows = [f"{arm}{seed},{arm},{seed},{step},{step / 2}" for arm, last in (("a", 4), ("b", 5)) for seed in range(6) for step in range(1, last + 1)]  # fmt: skip
    source = final_values(tmp_path / "runs.csv", "\n".join(["run,arm,seed,step,val_acc", *rows]))
    done = judge(source, "--baseline", "a", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "invalid: arm=a trains 4 and arm=b trains 5 steps" in done.stdout


def test_a_value_that_was_nan_for_a_while_is_no_fault(tmp_path: Path, judge: Main) -> None:
    rows = [f"{arm}{seed},{arm},{seed},{epoch},{'nan' if epoch == 2 else 50 + seed + epoch}" for arm in "ab" for seed in range(6) for epoch in range(1, 5)]  # fmt: skip
    source = final_values(tmp_path / "runs.csv", "\n".join(["run,arm,seed,epoch,val/acc", *rows]))
    done = judge(source, "--baseline", "a", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (one,) = verdict(tmp_path / "out")["comparisons"]
    assert (one["n"], one["mean"]) == (6, 0.0)


def long_table(path: Path, head: str, row: Callable[[str, int, int], str]) -> Path:
    """A row for each of four epochs of six runs of the arms a and b."""
    rows = [f"{arm}{seed},{arm},{seed},{row(arm, seed, epoch)}" for arm in "ab" for seed in range(6) for epoch in range(1, 5)]  # fmt: skip
    return final_values(path, "\n".join([f"run,arm,seed,{head}", *rows]))


@pytest.mark.parametrize(
    ("head", "row", "said"),
    [
        pytest.param("epoch,lr,val_acc", lambda _, seed, epoch: f"{epoch},nan,{seed + epoch}", "too coarse", id="LRs that are NaN"),
        pytest.param("epoch,status,val_acc", lambda _, seed, epoch: f"{epoch},running,{seed + epoch}", "interim, 0 of 6 pairs", id="no run is complete"),
        pytest.param("step,epoch,val/acc", lambda _, seed, epoch: f"{epoch},{'' if epoch == 2 else epoch},{50 + seed + epoch}", "too coarse", id="epochs with a gap"),
        pytest.param("step,epoch,val/acc", lambda _, seed, epoch: f"{epoch},0,{50 + seed + epoch}", "too coarse", id="epochs that are 0"),
        pytest.param("epoch,max_acc", lambda arm, seed, epoch: f"{epoch},{seed + epoch}", "max_acc may be a best value", id="a best value by its name"),
    ],
)  # fmt: skip
def test_odd_columns_are_judged(
    head: str, row: Callable[[str, int, int], str], said: str, tmp_path: Path, judge: Main
) -> None:
    source = long_table(tmp_path / "runs.csv", head, row)
    metric = ("--metric", head.rpartition(",")[2])
    done = judge(source, "--baseline", "a", *metric, "--margin", "0.1", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param(["lr alone", "lr alone"], id="Lightning's LearningRateMonitor"),
        pytest.param(["no lr", "lr alone"], id="a run without LRs"),
        pytest.param(["nan", "together"], id="LRs that are NaN"),
        pytest.param(["no lr", "nan"], id="no LR at all"),
        pytest.param(["together", "no epoch"], id="a run without epochs"),
        pytest.param(["no epoch", "no epoch"], id="no epochs"),
        pytest.param(["no value", "lr alone"], id="a run without values"),
    ],
)
def test_lrs_and_epochs_in_other_rows_are_drawn(
    runs: list[str], tmp_path: Path, judge: Main
) -> None:
    """`step,epoch,lr,val_acc` of each epoch."""
    forms = {
        "lr alone": "{0},,{2},\n{1},{3},,{4}", "together": "{1},{3},{2},{4}", "no lr": "{1},{3},,{4}",
        "nan": "{1},{3},nan,{4}", "no epoch": "{1},,{2},{4}", "no value": "{1},{3},{2},",
    }  # fmt: skip
    rows = [
        f"{arm}{seed},{arm},{seed},{line}"
        for arm in "ab"
        for seed in range(6)
        for epoch in range(4)
        for line in forms[runs[seed % 2]].format(10 * epoch, 10 * epoch + 9, 0.5**epoch, epoch, 50 + seed + epoch).split("\n")
    ]  # fmt: skip
    table = "\n".join(["run,arm,seed,step,epoch,lr,val_acc", *rows])
    done = judge(final_values(tmp_path / "runs.csv", table), "--baseline", "a", "--out", tmp_path / "out")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    drawn = any(form in ("lr alone", "together", "no epoch") for form in runs)
    assert (tmp_path / "out/lr.png").exists() == drawn


def test_the_lr_at_the_end_of_an_arm_is_the_median_with_its_range(
    tmp_path: Path, judge: Main
) -> None:
    source = long_table(tmp_path / "runs.csv", "epoch,lr,val_acc", lambda arm, seed, epoch: f"{epoch},{0.2 if (arm, seed, epoch) == ('b', 3, 4) else 1 - 0.3 * (epoch - 1)},{50 + seed + epoch}")  # fmt: skip
    done = judge(source, "--baseline", "a", "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("  ")[-1].strip() for line in done.stdout.splitlines()[2:4]] == ["10.0%", "10.0% (10.0 to 20.0)"]  # fmt: skip
    assert "10.0 % (10.0 to 20.0)" in (tmp_path / "out/report.html").read_text()


def test_a_crashed_run_of_wandbs_table_keeps_its_place(tmp_path: Path, judge: Main) -> None:
    """Though it has an epoch of its own, which is no setting."""
    runs = [(arm, seed, "crashed" if (arm, seed) == ("b", 3) else "finished") for arm in "ab" for seed in range(8)]  # fmt: skip
    rows = [
        f"{arm}-{seed},{state},me,2026-01-01,{10 if state == 'finished' else 4},{arm},{seed},{70 + seed + (arm == 'b')}"
        for arm, seed, state in runs
    ]
    table = "\n".join(["Name,State,User,Created,epoch,arm,seed,val_acc", *rows, ""])
    done = judge(final_values(tmp_path / "runs.csv", table), "--factor", "arm", "--baseline", "a", "--out", tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "interim, 7 of 8 pairs" in done.stdout
    assert "note: b-3: crashed\n" in done.stdout
    assert "make no cells: epoch\n" in done.stdout


@pytest.mark.parametrize("crashed", [True, False])
def test_a_value_a_run_makes_no_curve(crashed: bool, tmp_path: Path, judge: Main) -> None:
    """Though the crashed one has its value at an earlier step than the others."""
    rows = [
        f"{arm}-{seed},{'crashed' if early else 'finished'},{4 if early else 10},{arm},{seed},{70 + seed}"
        for arm in "ab"
        for seed in range(6)
        for early in [crashed and (arm, seed) == ("b", 3)]
    ]
    table = "\n".join(["Name,State,_step,arm,seed,val_acc", *rows, ""])
    done = judge(final_values(tmp_path / "runs.csv", table), "--baseline", "a", "--out", tmp_path / "out")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "out/val_acc.png").exists()
    page = (tmp_path / "out/report.html").read_text()
    for words in (
        "Thick: mean",
        "thin: single runs",
        'data-chart="overview"',
        "val_acc (%) by step",
    ):
        assert words not in page, words


def test_runs_that_ended_early_in_a_table_of_final_values_are_shorter(
    tmp_path: Path, judge: Main
) -> None:
    rows = [f"{arm}{seed},{arm},{seed},{100 * end},{end},{70 + seed}" for arm in "ab" for seed in range(8) for end in [50 if (arm, seed) in (("b", 1), ("b", 2)) else 90]]  # fmt: skip
    source = final_values(
        tmp_path / "runs.csv", "\n".join(["run,arm,seed,global_step,epoch,val_acc", *rows])
    )
    done = judge(source, "--factor", "arm", "--baseline", "a", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "interim, 6 of 8 pairs" in done.stdout
    assert "runs left out: 2 shorter" in done.stdout
    assert done.stdout.count(": shorter: ends at step ") == 2


def test_what_differs_with_the_factor_is_named(tmp_path: Path, judge: Main) -> None:
    rows = [f"{arm},{seed},{lr},{70 + seed}" for arm, lr in (("a", 0.1), ("b", 0.3)) for seed in range(6)]  # fmt: skip
    source = final_values(tmp_path / "runs.csv", "\n".join(["arm,seed,lr,val_acc", *rows]))
    done = judge(source, "--factor", "arm", "--baseline", "a", "--out", tmp_path / "out")
    assert "note: lr differs between the levels too: 0.1 with a; 0.3 with b" in done.stdout
    assert (
        "verdict: Not preregistered; 1 other setting could have been compared instead. Its levels differ in lr too. arm=b"
        in done.stdout
    )


def test_a_schedule_that_differs_with_the_factor_is_named(tmp_path: Path, judge: Main) -> None:
    rows = [f"{arm}{seed},finished,x,{arm},{seed},{1000 * (arm == 'b')},499,{70 + seed}" for arm in "ab" for seed in range(6)]  # fmt: skip
    head = "Name,State,Created,arm,seed,warmup_steps,_step,val_acc"
    source = final_values(tmp_path / "runs.csv", "\n".join([head, *rows]))
    done = judge(source, "--factor", "arm", "--baseline", "a", "--out", tmp_path / "out")
    assert "Its levels differ in warmup_steps too." in done.stdout


@pytest.mark.parametrize("values", [(0.0, 0.0), (0.1, 0.6), (0.99, 0.9)], ids=["0", "chance", "one percent"])  # fmt: skip
def test_an_arm_near_0_percent_is_no_fraction(
    values: tuple[float, float], tmp_path: Path, judge: Main
) -> None:
    rows = [f"{arm},{seed},{70 + seed if arm == 'a' else values[seed % 2]}" for arm in "ab" for seed in range(6)]  # fmt: skip
    source = final_values(tmp_path / "runs.csv", "\n".join(["arm,seed,acc", *rows]))
    done = judge(source, "--factor", "arm", "--baseline", "a", "--out", tmp_path / "out")
    assert "arm=b against a – worse: " in done.stdout


def test_arms_of_which_all_runs_diverged_are_worse_and_need_no_more(
    tmp_path: Path, judge: Main
) -> None:
    source = long_table(tmp_path / "runs.csv", "epoch,val_acc", lambda arm, seed, epoch: f"{epoch},{'nan' if (arm, epoch) == ('b', 4) else 70 + seed if arm == 'a' else 60 + seed**2 / 7}")  # fmt: skip
    done = judge(source, "--baseline", "a", "--out", tmp_path / "out")
    assert "but worse with the 6 runs that diverged. " in done.stdout
    assert "would show a gain" not in done.stdout


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "row", "message"),
    [
        ("arm,seed,val_acc,train_acc", lambda arm, seed: f"{arm},{seed},tensor(7{seed}.25),{80 + seed}",
         "--metric val_acc: is read as text, since cells such as 'tensor(70.25)' (row 1) are no numbers; correct or empty them, or name another metric"),
        ("arm,seed,acc", lambda arm, seed: f"{arm},{seed},{0.75 + seed / 100 if arm == 'a' else 76 + seed}",
         "--metric acc: ends at 0.75 with arm=a, and at 76 with arm=b: fractions and percent; write all of them alike, or rename the column if it is no share"),
        ("arm,seed,test_error", lambda arm, seed: f"{arm},{seed},{0.19 + seed / 100 if arm == 'a' else 20 + seed}",
         "--metric test_error: ends at 0.19 with arm=a, and at 20 with arm=b: fractions and percent; write all of them alike, or rename the column if it is no share"),
        ("arm,elapsed,acc", lambda arm, seed: f"{arm},{seed + 0.5},{76 + seed}",
         "elapsed: rises from row to row of each arm; if these are rows of one run, a level has one run, which is too few; if each row is a run, --ignore elapsed, or --seed elapsed where it numbers them"),
        ("arm,seed,time_to_accuracy", lambda arm, seed: f"{arm},{seed},{30 + seed}",
         "--better: say whether higher or lower is better of time_to_accuracy"),
        ("name,arm,epoch,acc", lambda arm, seed: "\n".join(f"{arm},{arm},{epoch},{70 + seed + epoch}" for epoch in range(3)),
         "rows of 2 runs go from the first step to the last several times (a, b): are these several runs with one name? --map run=COLUMN takes a column that names each run, or several that do, as run=name,seed; add one where none does"),
    ],
    ids=["a metric in words", "two units", "two units of an error", "a curve without a run", "a direction", "runs of one name"],
)  # fmt: skip
def test_what_would_be_judged_wrongly_is_asked_about(
    head: str, row: Callable[[str, int], str], message: str, tmp_path: Path, judge: Main
) -> None:
    rows = [row(arm, seed) for arm in "ab" for seed in range(6)]
    source = final_values(tmp_path / "runs.csv", "\n".join([head, *rows]))
    margin = ["--margin", "0.01"] if "error" in head else []
    done = judge(source, "--factor", "arm", "--baseline", "a", *margin, "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (1, f"error: {message}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{source}"], "--baseline: say which schedule the others are compared with: one cycle, restarts"),
        (["{folder}/none.csv"], "{folder}/none.csv: does not exist, and is not wandb:ENTITY/PROJECT"),
        (["{folder}/empty"], "{folder}/empty: holds no runs ("),
        (["{folder}/sweep"], "{folder}/sweep: is a sweep of this program: python scripts/report.py"),
        (["{folder}/both"], "{folder}/both: holds several kinds of files; --as lightning or --as hugging_face"),
        (["{folder}/both", "--as", "timm"], "--as timm: {folder}/both holds no summary.csv; --as lightning or"),
        (["{folder}/both", "--as", "lightning", "--map", "run=x"], "--map run=: is for tables"),
        (["{source}", "--as", "timm"], "--as timm: is for folders that hold several kinds of files"),
        (["{source}", "--map", "x=y"], "--map x=y: choose from run, seed, step, epoch, status, lr"),
        (["{source}", "--map", "run"], "--map run: write KEY=VALUE"),
        (["{source}", "--baseline", "restarts", "--level", "0.9"], "--level=0.9: must lie between"),
        (["{source}", "--baseline", "restarts", "--margin", "-1"], "--margin=-1.0: must be 0 points or more"),
        (["{source}", "--baseline", "restarts", "--out", "{source}"], "--out {source}: is a file"),
        (["{source}", "--baseline", "restarts", "--out", "{folder}"], "--out {folder}: holds the source, which would be"),
        (["{source}", "--baseline", "restarts", "--out", "{folder}/sweep"], "--out {folder}/sweep: is a sweep's folder"),
        (["{folder}/both", "--as", "lightning", "--out", "{folder}/both/out"], "--out {folder}/both/out: lies in the source"),
        (["{source}", "--baseline", "restarts", "--out", " "], "--out: is empty; name a folder"),
        (["{source}", "--baseline", "restarts", "--out", "{source}/sub"], "--out {source}/sub: cannot be made (Not a directory)"),
        (["{source}", "--baseline", "restarts", "--out", "{folder}/link"], "--out {folder}/link: cannot be made (File exists)"),
        (["{source}", "--baseline", "restarts", "--out", "/proc/x"], "--out /proc/x: cannot be made (No such file or directory)"),
        (["{source}", "--baseline", "restarts", "--out", "x" * 300], "--out " + "x" * 300 + ": cannot be made (File name too long)"),
        (["wandb:"], "wandb:: must be wandb:ENTITY/PROJECT"),
    ],
    ids=lambda value: " ".join(value).replace("{folder}/", "").replace("{source}", "") if isinstance(value, list) else "",
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(
    words: list[str], message: str, tmp_path: Path, judge: Main
) -> None:
    source = final_values(tmp_path / "pasted.md", PASTED)
    (tmp_path / "empty").mkdir()
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/plan.json").write_text("{}")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "both").mkdir()
    (tmp_path / "both/metrics.csv").write_text("step,val_acc\n1,2\n")
    (tmp_path / "both/trainer_state.json").write_text("{}")
    here = {"source": str(source), "folder": str(tmp_path)}
    done = judge(*(word.format(**here) for word in words))
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {message.format(**here)}")
