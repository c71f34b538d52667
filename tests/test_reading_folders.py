"""Run folders of Lightning, timm and Hugging Face: what these programs wrote, and what may become of it."""

from __future__ import annotations

import json
import math
import os
import pickle
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
import yaml  # type: ignore[import-untyped]
from timm.utils.summary import trim_summary, update_summary

from harness.config.errors import ConfigError
from harness.files import UnreadableError
from harness.reading import hugging_face, lightning, tensorboard_events, timm, walk
from harness.reading.recorded import Recorded

HERE = Path(__file__).parent / "recorded"
READERS = {
    "lightning": lightning, "timm": timm, "hugging_face": hugging_face, "tensorboard": tensorboard_events,
}  # fmt: skip
RUNS = {
    "lightning": "lightning_logs/version_0", "timm": "train/1-0", "hugging_face": "t_mult=1,seed=0",
    "tensorboard": "lightning_logs/version_0",
}  # fmt: skip


def settings(recorded: Recorded) -> list[dict[str, Any]]:
    return [json.loads(text) for text in recorded.runs["settings"]]


def curve(recorded: Recorded, run: int, metric: str) -> list[tuple[int, float]]:
    """The values of a metric that a run has, with their steps."""
    rows = recorded.curves.filter(pl.col("run") == run).select("step", metric).drop_nulls()
    return [(step, value) for step, value in rows.iter_rows()]


@pytest.mark.parametrize(
    ("kind", "status", "metrics", "known", "values"),
    [
        pytest.param("lightning", None, {"epoch", "train_loss", "val_acc"}, {"lr": 0.1, "betas": "[0.9, 0.999]"},
                     ("val_acc", [(3, 0.65625), (7, 0.75), (11, 0.78125)]), id="Lightning CSVLogger"),
        pytest.param("tensorboard", None, {"epoch", "train_loss", "val_acc", "hp_metric"}, {"lr": 0.1},
                     ("val_acc", [(3, 0.65625), (7, 0.75), (11, 0.78125)]), id="Lightning TensorBoardLogger"),
        pytest.param("timm", None, {"train_loss", "eval_loss", "eval_top1", "eval_top5", "lr"}, {"epochs": 4, "lr_noise": None},
                     ("eval_top1", [(0, 51.0), (1, 52.0), (2, 53.0), (3, 54.0)]), id="timm"),
        pytest.param("hugging_face", "complete", {"loss", "eval_loss", "eval_accuracy", "grad_norm", "epoch"}, {"max_steps": 8},
                     ("eval_accuracy", [(4, 0.65625), (8, 0.65625)]), id="Hugging Face"),
    ],
)  # fmt: skip
def test_what_a_program_wrote_is_read(
    kind: str, status: str | None, metrics: set[str], known: dict[str, Any], values: Any
) -> None:
    found = READERS[kind].read(HERE / kind)
    assert found.runs["run"].to_list()[0] == RUNS[kind]
    assert found.runs["status"].to_list() == [status] * 4
    assert metrics <= set(found.metrics)
    factor = "lr_cycle_mul" if kind == "timm" else "t_mult"
    arms = [(run[factor], run["seed"]) for run in settings(found)]
    assert arms == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert all(known.items() <= run.items() for run in settings(found))
    metric, points = values
    assert curve(found, 0, metric) == points


def test_one_run_is_a_source_too() -> None:
    found = {kind: reader.read(HERE / kind / RUNS[kind]) for kind, reader in READERS.items()}
    names = {kind: one.runs["run"].to_list() for kind, one in found.items()}
    assert names == {kind: [Path(run).name] for kind, run in RUNS.items()}


def test_timm_writes_epochs_without_evaluation_as_shorter_rows() -> None:
    found = timm.read(HERE / "timm/train/1-1")
    assert curve(found, 0, "eval_top1") == [(0, 51.0), (2, 53.0)]
    assert curve(found, 0, "lr") == [(epoch, 0.1 / (epoch + 1)) for epoch in range(4)]


def test_a_timm_run_that_goes_on_in_its_folder(tmp_path: Path) -> None:
    summary = str(tmp_path / "summary.csv")
    for epochs in (
        range(3),
        range(2, 5),
    ):  # as train.py does, whose old versions wrote the header again
        trim_summary(summary, epochs[0])  # type: ignore[no-untyped-call]
        for epoch in epochs:
            update_summary(  # type: ignore[no-untyped-call]
                epoch, {"loss": 3.0 - epoch}, {"top1": float(epoch)}, summary, write_header=epoch == epochs[0]
            )  # fmt: skip
    found = timm.read(tmp_path)
    assert curve(found, 0, "eval_top1") == [(epoch, float(epoch)) for epoch in range(5)]


def test_a_timm_run_with_fewer_epochs_than_its_arguments_is_unfinished(tmp_path: Path) -> None:
    run = copy("timm", tmp_path)
    lines = (run / "summary.csv").read_text().splitlines(keepends=True)
    (run / "summary.csv").write_text("".join(lines[:3]))
    found = timm.read(tmp_path).runs.row(0, named=True)
    assert (found["status"], found["error"]) == ("unfinished", "it has 2 of 4 epochs")


def test_a_hugging_face_run_without_a_last_state_is_read_by_its_newest_checkpoint(
    tmp_path: Path,
) -> None:
    run = copy("hugging_face", tmp_path)
    (run / "trainer_state.json").unlink()
    shutil.rmtree(run / "checkpoint-8")
    found = hugging_face.read(tmp_path)
    first = found.runs.row(0, named=True)
    assert first["error"] == "its newest state is of step 4 of 8"
    assert (first["where"], first["status"], len(found.runs)) == (str(run), "unfinished", 4)
    assert max(step for step, _ in curve(found, 0, "epoch")) == 4


@pytest.mark.parametrize(
    ("step", "accuracy", "kept"),
    [
        pytest.param(8, 0.9, False, id="other data, at a step that has one"),
        pytest.param(8, 0.625, False, id="the best weights"),
        pytest.param(9, 0.625, False, id="the best weights, at a step of its own"),
        pytest.param(9, 0.9, True, id="the first one"),
    ],
)
def test_a_hugging_face_evaluation_after_training_is_no_last_value(
    tmp_path: Path, step: int, accuracy: float, kept: bool
) -> None:
    """What the Trainer adds with `load_best_model_at_end`, and then by `evaluate`, to a state that it wrote."""
    run = copy("hugging_face", tmp_path)
    state = json.loads((run / "trainer_state.json").read_text())
    before = curve(hugging_face.read(tmp_path), 0, "eval_accuracy")
    first, *_ = (entry for entry in state["log_history"] if "eval_accuracy" in entry)
    first["eval_accuracy"] = state["best_metric"] = 0.625
    state["log_history"].append(
        {"epoch": 2.0, "step": step, "eval_accuracy": accuracy, "eval_loss": 0.5}
    )
    (run / "trainer_state.json").write_text(json.dumps(state))
    found = hugging_face.read(tmp_path)
    assert (curve(found, 0, "eval_accuracy")[-1] == (step, accuracy)) == kept
    assert len(curve(found, 0, "eval_accuracy")) == len(before) + kept
    assert any("evaluations after the training" in note for note in found.notes) != kept


def test_a_hugging_face_training_that_went_on_has_its_own_evaluations(tmp_path: Path) -> None:
    run = copy("hugging_face", tmp_path)
    state = json.loads((run / "trainer_state.json").read_text())
    (last,) = {
        entry["eval_accuracy"]
        for entry in state["log_history"]
        if entry.get("step") == 8 and "eval_accuracy" in entry
    }
    state["best_metric"] = last
    state["log_history"] += [{"step": 10, "loss": 0.5}, {"step": 10, "eval_accuracy": last}]
    state["log_history"] += [
        {"step": [9], "eval_accuracy": last},
        {"step": 9},
        "odd",
        {"eval_accuracy": [last]},
    ]
    (run / "trainer_state.json").write_text(json.dumps(state))
    assert curve(hugging_face.read(tmp_path), 0, "eval_accuracy")[-1] == (10, last)


def test_diverged_values_are_read(tmp_path: Path) -> None:
    run = copy("hugging_face", tmp_path)
    state = json.loads((run / "trainer_state.json").read_text())
    state["log_history"][0] |= {"loss": math.nan, "grad_norm": math.inf}
    (run / "trainer_state.json").write_text(json.dumps(state))
    found = hugging_face.read(tmp_path)
    assert math.isnan(curve(found, 0, "loss")[0][1])
    assert curve(found, 0, "grad_norm")[0] == (2, math.inf)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("t_mult=2,seed=1", {"t_mult": 2, "seed": 1}),
        ("lr=0.1_seed=3", {"lr": 0.1, "seed": 3}),
        ("t_mult=2_weight_decay=1e-4", {"t_mult": 2, "weight_decay": 1e-4}),
        ("opt=adam/x/model.width=8", {"opt": "adam", "model.width": 8}),
        ("runs/lr=0.1", {"lr": 0.1}),
        ("date,nesterov=true,ema=null", {"nesterov": True, "ema": None}),
        ("seed=007,empty=", {"seed": "007", "empty": ""}),
        ("version_3/lr-0.1", {}),
        ("train_fn_1a2b0_00000_0_lr=0.1,opt=a,seed=3_2024-05-01_10-00-00", {"lr": 0.1, "opt": "a", "seed": 3}),
        ("exp/train_fn_1a2b0_00012_12_weight_decay=0.1,seed=3", {"weight_decay": 0.1, "seed": 3}),
        ("a_2024-05-01_10-00-00/x_0_lr=1", {"x_0_lr": 1}),
    ],
)  # fmt: skip
def test_settings_of_a_path(path: str, said: dict[str, Any]) -> None:
    assert walk.settings_of_path(Path(path)) == said


def test_recorded_settings_go_before_a_folder_name(tmp_path: Path) -> None:
    copy("lightning", tmp_path).rename(tmp_path / "lr=0.5,width=3")
    found = lightning.read(tmp_path)
    (run,) = (one for one in settings(found) if "width" in one)
    assert (run["lr"], run["width"]) == (0.1, 3)
    assert any("lr is another in the folder's name" in note for note in found.notes)


class Bomb:
    """A pickle, or a YAML object, that leaves a file where it is opened."""

    def __init__(self, leaves: Path) -> None:
        self.leaves = leaves

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.leaves),))


def test_nothing_in_a_folder_is_executed(tmp_path: Path) -> None:
    leaves = tmp_path / "executed"
    run = copy("hugging_face", tmp_path)
    (run / "training_args.bin").write_bytes(pickle.dumps(Bomb(leaves)))
    hugging_face.read(tmp_path / "hugging_face")
    run = copy("lightning", tmp_path)
    (run / "hparams.yaml").write_text(yaml.dump({"lr": 0.3, "model": Bomb(leaves)}))
    found = lightning.read(tmp_path / "lightning")
    assert not leaves.exists()
    assert settings(found)[0] == {"lr": 0.3}
    assert any("left out: 'model'" in note for note in found.notes)


def copy(kind: str, folder: Path) -> Path:
    """Copy what a program wrote, and return the folder of its first run."""
    shutil.copytree(HERE / kind, folder / kind)
    return folder / kind / RUNS[kind]


Change = Callable[[Path], object]


def text(name: str, content: str | bytes) -> Change:
    body = content.encode() if isinstance(content, str) else content
    return lambda run: (run / name).write_bytes(body)


def cut(name: str) -> Change:
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:-7])


def large(name: str) -> Change:
    return lambda run: os.truncate(run / name, 2**30)


def gone(name: str) -> Change:
    return lambda run: (run / name).unlink()


def link(name: str, to: str) -> Change:
    def change(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(to)

    return change


def pipe(name: str) -> Change:
    def change(run: Path) -> None:
        (run / name).unlink()
        os.mkfifo(run / name)

    return change


def unreadable(name: str) -> Change:
    return lambda run: (run / name).chmod(0)


def state(**values: Any) -> Change:
    def change(run: Path) -> None:
        path = run / "trainer_state.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


LAUGHS = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
AS_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
L, T, H = lightning, timm, hugging_face
CASES: dict[str, tuple[ModuleType, Change, str]] = {
    "cut metrics": (L, cut("metrics.csv"), "its last line has no end, and is left out"),
    "empty metrics": (L, text("metrics.csv", ""), "its first line has not one column step"),
    "binary metrics": (L, text("metrics.csv", bytes(range(256)) * 9), "has not one column step"),
    "metrics of another program": (L, text("metrics.csv", "iter,loss\r\n1,2\r\n"), "has not one column step"),
    "two step columns": (L, text("metrics.csv", "step,step\r\n1,2\r\n"), "has not one column step"),
    "a column twice": (L, text("metrics.csv", "step,a,a,b\r\n1,2,3,4\r\n"), "a name of their own are left out: 'a'"),
    "a column run": (L, text("metrics.csv", "step,run,,b\r\n1,2,3,4\r\n"), "left out: '', 'run'"),
    "words in a column": (L, text("metrics.csv", "step,a,b\r\n1,x,2\r\n2,1,2\r\n"), "columns with words are left out: 'a'"),
    "steps that are no whole numbers": (L, text("metrics.csv", "step,a\r\n1.5,1\r\nx,1\r\n,1\r\n2,1\r\n"), "3 rows have no whole number"),
    "a huge step": (L, text("metrics.csv", "step,a\r\n99999999999999999999,1\r\n2,1\r\n"), "1 rows have no whole number"),
    "lines of another length": (L, text("metrics.csv", "step,a\r\n1\r\n1,2,3\r\n2,1\r\n"), "2 lines have other cells"),
    "metrics that are not UTF-8": (L, text("metrics.csv", b"step,a\xff\r\n1,2\r\n"), "bytes that are not UTF-8"),
    "a cell without an end": (L, text("metrics.csv", 'step,a\r\n1,"' + "x" * 200_000 + "\r\n"), "cannot be read as CSV"),
    "metrics of 1 GiB": (L, large("metrics.csv"), "has 1,073,741,824 bytes"),
    "too many columns": (L, text("metrics.csv", ",".join(["step", *map(str, range(1_100))]) + "\n"), "1,101 columns"),
    "no metrics": (L, gone("metrics.csv"), "it has no metrics.csv"),
    "metrics are a link": (L, link("metrics.csv", "/etc/passwd"), "is a link, which is not followed"),
    "metrics are a pipe": (L, pipe("metrics.csv"), "it has no metrics.csv"),
    "a link out of the folder": (L, link("more", "/"), "is a link, which is not followed"),
    "a link to the folder above": (L, link("more", ".."), "is a link, which is not followed"),
    "metrics that may not be read": (L, unreadable("metrics.csv"), "Permission denied"),
    "no YAML": (L, text("hparams.yaml", "a: [1, 2"), "settings are not known, for it cannot be read as YAML"),
    "a list": (L, text("hparams.yaml", "- a\n- b\n"), "settings are not known, for it has no keys"),
    "YAML that is not UTF-8": (L, text("hparams.yaml", b"a: \xff"), "cannot be read as YAML"),
    "binary YAML": (L, text("hparams.yaml", bytes(range(256))), "cannot be read as YAML"),
    "deep YAML": (L, text("hparams.yaml", "[" * 100_000), "cannot be read as YAML"),
    "aliases that multiply": (L, text("hparams.yaml", LAUGHS), "more than 20,000 values"),
    "an alias of itself": (L, text("hparams.yaml", "a: &a [*a]\n"), "30 levels"),
    "large YAML": (L, large("hparams.yaml"), "has 1,073,741,824 bytes"),
    "a key twice": (L, text("hparams.yaml", "lr: 1\nlr: 2\n"), "left out: 'lr'"),
    "merged and complex keys": (L, text("hparams.yaml", "a: &a {b: 1}\nc: {<<: *a}\n? [x]\n: 1\n"), "left out: '?', 'c.<<'"),
    "a tag nobody knows": (L, text("hparams.yaml", "lr: !foo 1\nopt: {x: !!python/name:os.system ''}\n"), "left out: 'lr', 'opt.x'"),
    "tags that do not fit": (L, text("hparams.yaml", 'a: !!int ""\nb: !!float ""\nc: !!bool "q"\nd: !!timestamp "q"\nlr: 3\n'), "left out: 'a', 'b', 'c', 'd'"),
    "tags that do not fit, of timm": (T, text("args.yaml", 'lr_cycle_mul: !!bool "q"\n'), "left out: 'lr_cycle_mul'"),
    "a cut summary": (T, cut("summary.csv"), "its last line has no end"),
    "a summary of words": (T, text("summary.csv", "epoch,eval_top1\n0,high\n"), "columns with words are left out: 'eval_top1'"),
    "a column step": (T, text("summary.csv", "epoch,step,lr\n0,1,2\n"), "left out: 'step'"),
    "no summary": (T, gone("summary.csv"), "it has no summary.csv"),
    "a cut state": (H, cut("trainer_state.json"), "another of the run is read"),
    "a state that is a list": (H, text("trainer_state.json", "[1]"), "is no state of a Trainer"),
    "a deep state": (H, text("trainer_state.json", "[" * 200_000), "is not JSON"),
    "a state of 1 GiB": (H, large("trainer_state.json"), "has 1,073,741,824 bytes"),
    "a history of words": (H, state(log_history=[{"step": 1, "loss": "low"}, {"step": 9, "a": 1}]), "no metrics: loss"),
    "a history without steps": (H, state(log_history=[{"loss": 1}, 3, {"step": 10**30, "loss": 1}]), "entries of log_history without a step"),
    "a history with huge numbers": (H, state(log_history=[{"step": 1, "loss": 10**400}, {"step": 2, "loss": 1}]), "some values are no numbers"),
    "a history with nests": (H, state(log_history=[{"step": 1, "run": 3, "x": {"y": 1}}]), "no metrics: run, x"),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=AS_ROOT if "may not" in one else ()) for one in CASES]
)
def test_a_damaged_or_odd_run_is_named(name: str, tmp_path: Path) -> None:
    """The other three runs are read; alone, the damaged one is an error of a line, or has the note."""
    reader, change, says = CASES[name]
    kind = reader.__name__.rpartition(".")[2]
    run = copy(kind, tmp_path)
    change(run)
    for source in (tmp_path, run):
        try:
            found = reader.read(source)
        except (ConfigError, UnreadableError) as error:
            assert source == run or "columns" in says
            lines: list[str] = [str(error)]
        else:
            assert len(found.runs) == (4 if source == tmp_path else 1)
            if source == tmp_path and name in ("empty metrics", "metrics of 1 GiB", "no summary"):
                assert all({"t_mult", "lr_cycle_mul"} & {*one} for one in settings(found))
            lines = [*found.notes, *found.runs["error"].drop_nulls()]
        assert all(len(line.splitlines()) == 1 for line in lines)
        assert any(says in line for line in lines) or "has no metrics.csv of" in lines[0] or "has no summary.csv of" in lines[0]  # fmt: skip


@pytest.mark.parametrize("kind", READERS)
def test_a_folder_without_runs(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no .*in it or below it"):
        READERS[kind].read(tmp_path)
    with pytest.raises(ConfigError, match="is not a folder"):
        READERS[kind].read(tmp_path / "missing")


def test_hidden_folders_are_not_read_and_names_may_be_any_bytes(tmp_path: Path) -> None:
    run = copy("lightning", tmp_path)
    shutil.copytree(run, tmp_path / ".git/version_9")
    shutil.copytree(run, tmp_path / "__pycache__/version_9")
    run.rename(tmp_path / os.fsdecode(b"lr=\xff\x1b[31m\n"))
    found = lightning.read(tmp_path)
    assert len(found.runs) == 4
    assert "lr=\\udcff [31m" in found.runs["run"].to_list()


def test_folders_are_searched_to_a_depth(tmp_path: Path) -> None:
    copy("timm", tmp_path / "/".join("a" * walk.MOST_DEPTH))
    copy("timm", tmp_path)
    found = timm.read(tmp_path)
    assert len(found.runs) == 4
    assert any("deeper than 20 folders is not read" in note for note in found.notes)


def test_notes_are_counted_and_bounded() -> None:
    notes = walk.Notes()
    for number in range(60):
        notes.add("is odd", number)
        notes.add(f"is odd in way {number}", number)
    first, *_, last = notes.lines()
    assert first == "0: is odd (so in 59 more)"
    assert last == "and 21 more notes"


def test_the_copies_of_timm_are_what_timm_writes(tmp_path: Path) -> None:
    make = runpy.run_path(str(HERE / "make.py"))
    make["timm"](tmp_path)
    assert timm.read(tmp_path).curves.equals(timm.read(HERE / "timm").curves)


@pytest.mark.slow
def test_the_copies_of_lightning_are_what_lightning_writes(tmp_path: Path) -> None:
    for kind, reader in (("lightning", lightning), ("tensorboard", tensorboard_events)):
        code = f"import runpy, pathlib; runpy.run_path({str(HERE / 'make.py')!r})[{kind!r}](folder=pathlib.Path({kind!r}))"
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
        made, kept = reader.read(tmp_path / kind), reader.read(HERE / kind)
        assert set(made.curves.columns) == set(kept.curves.columns)
        assert made.runs.drop("where").equals(kept.runs.drop("where"))
        same = made.curves.select(kept.curves.columns).select(pl.all().fill_null(-9)) - kept.curves.select(pl.all().fill_null(-9))  # fmt: skip
        assert same.select(pl.all().abs().max()).row(0) == pytest.approx((0,) * same.width, abs=1e-4)  # fmt: skip
