"""The command line: every mistake ends in one line that names it and the fix, and in exit code 1."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import os
import re
import shlex
import subprocess
import sys

import forked
import pytest
import torch
from conftest import ROOT, make_config

from harness.config import one_line_errors as errors
from harness.config.compose import group_files
from harness.config.errors import ConfigError
from harness.config.schema import Config
from harness.config.values import to_dict

TINY = [
    "dataset=synthetic", "dataset.images=200", "dataset.classes=4", "trainer.epochs=2",
    "trainer.batch_size=32", "model.width=4", "tracking=none",
]  # fmt: skip
TOP = ", ".join(sorted({*group_files(), *(f.name for f in dataclasses.fields(Config))}))
WARM = "is not a key of the scheduler cosine_warm"
WARM_KEYS = "choose from warmup, interval, unit, t_0, t_mult, eta_min"
WHOLE = "must be a whole number ≥ 1 and ≤ 1e+06"
GRAMMAR = (
    "cannot be read; brackets must close, special characters need quotes: "
    "https://hydra.cc/docs/advanced/override_grammar/basic"
)
SWEEP = "several values need -m; a list needs brackets, KEY=[A,B]"
GROUP = "a group takes the name of one of its choices; see --help"


def files() -> dict[str, set[str]]:
    """The groups of `conf/` and their choices, by walking it."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "conf").glob("*/**/*.yaml"):
        found.setdefault(str(file.parent.relative_to(ROOT / "conf")), set()).add(file.stem)
    assert "harness" in found.pop("hydra/help")
    return found


def train(*args: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HYDRA_", "PYTHON"))}
    if not python:
        return forked.complete("train.py", *args, env=environment)
    command = [sys.executable, *python, "train.py", *args]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


def statuses(folder) -> list[str]:
    return [json.loads(path.read_text())["status"] for path in folder.rglob("result.json")]


# --- from the outside ----------------------------------------------------------------------------

MISTAKES = {
    "misspelt key": (
        ["scheduler.tmult=1"],
        f"scheduler.tmult=1: {WARM}; did you mean t_mult? {WARM_KEYS}",
    ),
    "misspelt choice": (
        ["scheduler=cosin"],
        "scheduler=cosin: did you mean cosine? choose from constant, cosine, cosine_warm, linear, "
        "multistep, one_cycle, step, wsd",
    ),
    "misspelt group": (
        ["schedular=cosine"],
        f"schedular=cosine: is neither a key nor a group; did you mean scheduler? choose from {TOP}",
    ),
    "wrong type": (["scheduler.t_mult=1.5"], f"scheduler.t_mult=1.5: {WHOLE}"),
    "unreadable": (["scheduler.t_mult=[1,"], f"scheduler.t_mult=[1,: {GRAMMAR}"),
}


@pytest.mark.parametrize(("overrides", "line"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_leaves_no_run_folder(tmp_path, overrides, line):
    folder = tmp_path / "run"
    done = train(*TINY, *overrides, f"hydra.run.dir={folder}")
    assert done.stderr == f"error: {line}\n"
    assert done.stdout == ""
    assert done.returncode == 1
    assert not folder.exists()


@pytest.mark.parametrize(
    ("override", "line", "left"),
    [
        ("scheduler.t_mult=0", f"scheduler.t_mult=0: {WHOLE}", []),
        ("+foo=1", f"foo=1: is neither a key nor a group; choose from {TOP}", []),
        (
            "scheduler.t_0=1.1",
            "scheduler.t_0=1.1: is not a whole number of updates at 4 an epoch; "
            "the nearest are 1 (4 updates) and 1.25 (5 updates)",
            ["failed"],
        ),
    ],
)
def test_a_value_that_does_not_fit_is_one_line_and_no_success(tmp_path, main, override, line, left):
    done = main(*TINY, override, f"hydra.run.dir={tmp_path}", "reuse=false")
    assert done.stderr == f"error: {line}\n"
    assert done.stdout == ""
    assert done.returncode == 1
    assert statuses(tmp_path) == left


@pytest.mark.parametrize("mode", [[], ["-m", "seed=0,1"]])
def test_an_override_may_follow_another_key(tmp_path, main, mode):
    where = [f"hydra.run.dir={tmp_path}/0", f"hydra.sweep.dir={tmp_path}", f"store.dir={tmp_path}"]
    done = main(*mode, *TINY, "scheduler.t_0=${trainer.epochs}", *where)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "0/result.json").read_text())
    assert result["config"]["scheduler"]["t_0"] == 2


def test_data_that_is_not_there(tmp_path):
    nowhere = tmp_path / "nowhere"
    overrides = ["dataset=cifar10", f"dataset.root={nowhere}", "dataset.download=false"]
    done = train(*overrides, "tracking=none", f"hydra.run.dir={tmp_path}", "reuse=false")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: dataset.root={nowhere}: cifar10 cannot be read there (")
    assert line.endswith(
        f"its files are looked for in {nowhere}/cifar-10-batches-py; "
        "put them there, set dataset.root, or dataset.download=true"
    )
    assert done.returncode == 1
    assert statuses(tmp_path) == ["failed"]


def test_a_sweep_with_an_arm_that_does_not_fit_does_not_begin(tmp_path, main):
    done = main("-m", *TINY, "scheduler.t_0=1,3", f"hydra.sweep.dir={tmp_path}", "reuse=false")
    misfit = "scheduler.t_0=3: does not fit into the budget, trainer.epochs=2"
    assert done.stderr == f"error: t_0=3: {misfit}\n"
    assert done.stdout == ""
    assert done.returncode == 1
    assert statuses(tmp_path) == []


def test_a_sweep_with_an_arm_that_cannot_be_composed_does_not_begin(tmp_path, main):
    arms = ["scheduler.t_0=1", "scheduler.t_mult=1,1.5"]
    done = main("-m", *TINY, *arms, f"hydra.sweep.dir={tmp_path}", "reuse=false")
    assert done.returncode == 1
    assert statuses(tmp_path) == []
    assert done.stderr == f"error: t_mult=1.5: scheduler.t_mult=1.5: {WHOLE}\n"


def test_an_arm_that_fails_does_not_stop_the_good_ones(tmp_path):
    arms = ["scheduler=linear", "trainer.device=cuda:99,cpu"]
    done = train("-m", *TINY, *arms, f"hydra.sweep.dir={tmp_path}", "reuse=false")
    errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    said = [re.sub(r"no GPU is found|this machine has \d+ GPUs?", "GPUS", e) for e in errors]
    name, failed = (
        "device=cuda:99",
        "trainer.device=cuda:99: GPUS; use trainer.device=auto or cpu",
    )
    assert said == [
        f"error: 1/2 {name}: {failed}",
        f"error: 1 of 2 runs failed: {name}: {failed}",
    ]
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    bad, good = (json.loads((tmp_path / n / "result.json").read_text()) for n in "01")
    assert (bad["status"], good["status"]) == ("failed", "complete")
    header, _, first, second, *_ = done.stdout.splitlines()
    assert header.startswith("arm ")
    assert re.match(r"device=cuda.*:99 +0 of 1 +- ", first)
    assert re.match(r"device=cpu +1 +\d+\.\d\d ", second)


# --- explain, on what Hydra raises while it composes ---------------------------------------------

EXPLAINED = {
    # types
    "text for a whole number": (["scheduler.t_mult=two"], f"scheduler.t_mult=two: {WHOLE}"),
    "null": (["scheduler.t_mult=null"], f"scheduler.t_mult=null: {WHOLE}"),
    "nothing": (["scheduler.t_mult="], f"scheduler.t_mult=: {WHOLE}"),
    "truth for a whole number": (["scheduler.t_mult=true"], f"scheduler.t_mult=true: {WHOLE}"),
    "list for a whole number": (["scheduler.t_mult=[1,2]"], f"scheduler.t_mult=[1,2]: {WHOLE}"),
    "text for a number": (
        ["trainer.epochs=many"],
        "trainer.epochs=many: must be a number > 0 and ≤ 1e+06",
    ),
    "text for a truth": (
        ["optimizer.nesterov=maybe"],
        "optimizer.nesterov=maybe: must be true or false",
    ),
    "text for a choice of numbers": (
        ["dataset=synthetic", "dataset.channels=grey"],
        "dataset.channels=grey: choose from 1, 3",
    ),
    "number for a list": (
        ["scheduler=multistep", "scheduler.milestones=5"],
        "scheduler.milestones=5: must be a list of numbers > 0 and ≤ 1e+09",
    ),
    "text in a list": (
        ["scheduler=multistep", "scheduler.milestones=[5,x]"],
        "scheduler.milestones=[5,x]: must be a list of numbers > 0 and ≤ 1e+09",
    ),
    "null in a list": (
        ["scheduler=multistep", "scheduler.milestones=[null]"],
        "scheduler.milestones=[null]: must be a list of numbers > 0 and ≤ 1e+09",
    ),
    "added wrong type": (["++scheduler.t_mult=two"], f"scheduler.t_mult=two: {WHOLE}"),
    "type inside a section": (
        ["trainer={epochs: many}"],
        "trainer={epochs: many}: trainer.epochs: must be a number > 0 and ≤ 1e+06",
    ),
    # keys
    "key of another choice": (["scheduler.milestones=[5]"], f"scheduler.milestones=[5]: {WARM}; {WARM_KEYS}"),
    "key where there are none": (
        ["tracking.mode=offline"],
        "tracking.mode=offline: is not a key of the tracking none; it has none",
    ),
    "key below a misspelt group": (
        ["schedulers.t_mult=1"],
        "schedulers.t_mult=1: schedulers: is neither a key nor a group; did you mean scheduler? "
        f"choose from {TOP}",
    ),
    "key inside a section": (
        ["optimizer={lr: 1, momentun: 0}"],
        "optimizer={lr: 1, momentun: 0}: optimizer.momentun: is not a key of the optimizer sgd; "
        "did you mean momentum? choose from lr, weight_decay, momentum, nesterov",
    ),
    "a group that is not a key": (["arms=times_1"], f"arms=times_1: is neither a key nor a group; did you mean arm? choose from {TOP}"),
    "key that cannot go": (
        ["~scheduler.t_0"],
        "scheduler.t_0: CosineWarm (DictConfig) does not support deletion",
    ),
    "Hydra's own key": (
        ["hydra.sweep.subdirs=x"],
        "hydra.sweep.subdirs=x: is not a key; did you mean subdir? choose from dir, subdir",
    ),
    # choices
    "misspelt optimizer": (
        ["optimizer=adam"],
        "optimizer=adam: did you mean adamw? choose from adamw, sgd",
    ),
    "no choice": (["optimizer="], "optimizer=: choose from adamw, sgd"),
    "null for a group": (["scheduler=null"], f"scheduler=null: {GROUP}"),
    "number for a group": (["scheduler=5"], f"scheduler=5: {GROUP}"),
    "numbers for a group": (["scheduler=[5]"], f"GROUP=NAME: {GROUP}"),
    # syntax
    "no equals sign": (["scheduler"], "scheduler: has no value; give one with scheduler=VALUE"),
    "space in a key": (["scheduler. t_0=1"], f"scheduler. t_0=1: {GRAMMAR}"),
    "open brace": (["trainer={epochs: 1"], f"trainer={{epochs: 1: {GRAMMAR}"),
    "open interpolation": (["scheduler.t_0=${"], f"scheduler.t_0=${{: {GRAMMAR}"),
    "sweep without -m": (["scheduler.t_0=1,2"], f"scheduler.t_0=1,2: {SWEEP}"),
    "range without -m": (["seed=range(3)"], f"seed=range(3): {SWEEP}"),
    "choices without -m": (["dataset=digits,mnist"], f"dataset=digits,mnist: {SWEEP}"),
    # interpolations
    "of nothing": (
        ["scheduler.t_0=${trainer.epoch}"],
        "scheduler.t_0=${trainer.epoch}: Interpolation key 'trainer.epoch' not found",
    ),
    "of another type": (
        ["scheduler.t_0=${trainer.device}"],
        "scheduler.t_0=${trainer.device}: must be a number > 0 and ≤ 1e+09",
    ),
    "of itself": (
        ["scheduler.t_0=${trainer.epochs}", "trainer.epochs=${scheduler.t_0}"],
        "scheduler.t_0=${trainer.epochs}: Recursive interpolation detected",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("overrides", "line"), EXPLAINED.values(), ids=EXPLAINED)
def test_explained(overrides, line):
    with pytest.raises(Exception) as error:
        make_config(*overrides)
    assert errors.explain(error.value) == line


def test_a_key_of_a_swept_group_needs_plus_signs(monkeypatch):
    """Hydra composes `cosine_warm scheduler.gamma=0.5` before any arm of this sweep."""
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "scheduler=step,multistep"])
    with pytest.raises(Exception, match="Could not override") as error:
        make_config("scheduler.gamma=0.5")
    assert errors.explain(error.value) == (
        f"scheduler.gamma=0.5: {WARM}; {WARM_KEYS}; "
        "where scheduler is swept, write ++scheduler.gamma=0.5"
    )
    for scheduler in ("step", "multistep"):
        swept = make_config(f"scheduler={scheduler}", "++scheduler.gamma=0.5")
        assert to_dict(swept)["scheduler"]["gamma"] == 0.5


def test_a_key_of_a_group_that_is_not_swept_needs_none(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "scheduler=cosine_warm", "seed=1,2"])
    with pytest.raises(Exception, match="Could not override") as error:
        make_config("scheduler.gamma=0.5")
    assert errors.explain(error.value) == f"scheduler.gamma=0.5: {WARM}; {WARM_KEYS}"


FILES = {
    "misspelt key": (
        "scheduler:\n  tmult: 1\n",
        f"experiment/mine.yaml: scheduler.tmult: {WARM}; did you mean t_mult? {WARM_KEYS}",
    ),
    "misspelt section": (
        "shceduler:\n  t_mult: 1\n",
        "experiment/mine.yaml: shceduler: is neither a key nor a group; did you mean scheduler? "
        f"choose from {TOP}",
    ),
    "wrong type": (
        "scheduler:\n  t_mult: 1.5\n",
        f"experiment/mine.yaml: scheduler.t_mult=1.5: {WHOLE}",
    ),
    "misspelt choice": (
        "defaults:\n  - override /optimizer: sdg\n",
        "optimizer=sdg: did you mean sgd? choose from adamw, sgd",
    ),
    "value for a section": (
        "scheduler: 5\n",
        "experiment/mine.yaml: Merge error: int is not a subclass of CosineWarm. value: 5",
    ),
}


@pytest.mark.parametrize(("content", "line"), FILES.values(), ids=FILES)
def test_a_mistake_in_a_file_names_the_file(tmp_path, content, line):
    with pytest.raises(Exception) as error:
        compose_with(tmp_path, content)
    assert errors.explain(error.value) == line


def test_a_file_that_is_not_yaml_names_file_and_line(tmp_path):
    with pytest.raises(Exception, match="while parsing") as error:
        compose_with(tmp_path, "scheduler:\n  t_mult: [1\n")
    line = errors.explain(error.value) or ""
    assert "\n" not in line
    assert f'{tmp_path}/experiment/mine.yaml", line 3' in line


def compose_with(folder, content: str) -> Config:
    """A run of an experiment that lies outside of `conf/`."""
    file = folder / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(f"# @package _global_\n{content}")
    return make_config(f"hydra.searchpath=[file://{folder}]", "experiment=mine")


# --- what is done with an error ------------------------------------------------------------------


LOWER = (
    "out of memory: lower trainer.batch_size, the model's size (model.width) or the data's "
    "(dataset.train_size, dataset.images)"
)


def _from_a_launcher(name, text):
    """An exception of a package that may be missing here."""
    return type(name, (RuntimeError,), {})(text)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.EIO, "Input/output error"), "[Errno 5] Input/output error"),
        (MemoryError(), f"{LOWER} (Python)"),
        (MemoryError("Unable to allocate 3 TiB"), f"{LOWER} (Unable to allocate 3 TiB)"),
        (torch.OutOfMemoryError("CUDA: full. Tried to allocate 2 GiB."), f"{LOWER} (CUDA: full)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried. Buy"),
         f"{LOWER} (DefaultCPUAllocator: can't allocate memory: you tried)"),
        (RuntimeError("DataLoader worker (pid 7) is killed. Details."),
         "dataset.workers: a process that reads images died, perhaps for want of memory; lower "
         "dataset.workers or trainer.batch_size (DataLoader worker (pid 7) is killed)"),
        (_from_a_launcher("FailedJobError", "sbatch: error: invalid\n account"),
         "hydra.launcher: not accepted by Slurm: sbatch: error: invalid account"),
        (_from_a_launcher("FailedJobError", "Job (task=0) failed during processing"), None),
        (_from_a_launcher("UncompletedJobError", "Job 7 was\nlost"), "Job 7 was lost"),
        (_from_a_launcher("TerminatedWorkerError", "A worker process was killed"),
         "the process of a run was killed, which ended the sweep; the same command goes on, and "
         "scripts/report.py SWEEP reports what is there"),
        (ConfigError("seed=x:\n  must be\n a number"), "seed=x: must be a number"),
        (FileNotFoundError(2, "No such file", "/data"), "[Errno 2] No such file: '/data'"),
        (ValueError("ours"), None),
        (TypeError("ours"), None),
        (AssertionError(), None),
        (RuntimeError("CUDA out of memory"), None),
    ],
)  # fmt: skip
def test_only_what_users_can_mend_is_one_line(error, line):
    assert errors.explain(error) == line


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_and_a_full_quota_say_where_to_make_room(number):
    line = errors.explain(OSError(number, "full")) or ""
    room = "make room (hydra.run.dir, hydra.sweep.dir, store.dir), then the same command"
    assert line.startswith(f"[Errno {number}] full: {room}")


def test_a_value_error_from_below_hydra_stays_ours():
    with pytest.raises(ValueError, match="invalid literal") as error:
        int("x")
    assert errors.explain(error.value) is None


@pytest.fixture
def full_error(monkeypatch):
    """Keeps what `one_line_errors` sets in the environment to the test."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")


@pytest.mark.usefixtures("full_error")
def test_errors_of_users_are_printed_as_one_line(capsys):
    with pytest.raises(SystemExit) as stop, errors.one_line_errors():
        raise ConfigError("seed=x:\nmust be a number")
    assert stop.value.code == 1
    assert capsys.readouterr() == ("", "error: seed=x: must be a number\n")


@pytest.mark.usefixtures("full_error")
def test_our_own_errors_keep_their_traceback_and_end_in_the_line(capsys):
    with pytest.raises(SystemExit) as stop, errors.one_line_errors():
        raise KeyError("ours")
    assert stop.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "error: KeyError: 'ours'"


@pytest.mark.usefixtures("full_error")
def test_ctrl_c_is_no_error_of_the_code():
    with pytest.raises(SystemExit, match=r"^interrupted$"), errors.one_line_errors():
        raise KeyboardInterrupt


# --- the help ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def helped() -> subprocess.CompletedProcess[str]:
    """`--help`, with a list of its imports on stderr."""
    return train("--help", python=("-X", "importtime"))


def test_help_exits_with_0_and_fits_80_columns(helped):
    assert helped.returncode == 0
    assert max(map(len, helped.stdout.splitlines())) <= 80
    assert "$" not in helped.stdout
    assert "README" in helped.stdout
    assert "--cfg job" in helped.stdout


def test_help_lists_every_group_with_all_choices_and_marks_the_defaults(helped):
    _, rest = helped.stdout.split("GROUP=CHOICE (*", 1)
    listing = rest.split("\n\n")[1]
    entries = re.split(r"\n(?=  \w)", f"\n{listing}")[1:]
    found = {words[0]: words[1:] for words in map(str.split, entries)}
    plain = {group: {name.rstrip("*") for name in names} for group, names in found.items()}
    assert plain == files()
    starred = {(group, n[:-1]) for group, names in found.items() for n in names if n[-1] == "*"}
    chosen = {("model", "resnet8"), ("dataset", "digits"), ("scheduler", "cosine_warm")}
    assert chosen | {("optimizer", "sgd"), ("tracking", "wandb")} <= starred
    assert not any(group in ("experiment", "arm") for group, _ in starred)


def test_the_examples_of_the_help_compose(helped):
    _, rest = helped.stdout.split("\nExamples\n")
    examples = re.findall(r"^  python train.py(.*)$", rest, re.MULTILINE)
    assert len(examples) >= 5
    assert any("scheduler=cosine_warm scheduler.t_mult=1,2" in example for example in examples)
    for example in examples:
        words = [word.partition("=") for word in shlex.split(example) if word != "-m"]
        values = [value.split(",") for _, _, value in words]
        assert ("-m" in example) or all(len(several) == 1 for several in values)
        for job in itertools.product(*values):
            given = [f"{key}={value}" for (key, _, _), value in zip(words, job, strict=True)]
            make_config("tracking=wandb", *given)


def test_help_imports_nothing_heavy(helped):
    lines = [line for line in helped.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert "hydra" in imported
    assert not imported & {"torch", "torchvision", "wandb", "polars", "altair", "scipy", "sklearn"}


# --- imports -------------------------------------------------------------------------------------


def test_the_help_of_the_preview_needs_no_torch():
    command = [sys.executable, "-X", "importtime", str(ROOT / "scripts/preview.py"), "--help"]
    reported = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "what a sweep costs" in reported.stdout
    assert re.search(r"\| +harness$", reported.stderr, re.MULTILINE)
    assert not re.search(r"\| +(torch|polars)$", reported.stderr, re.MULTILINE)


def test_the_heavy_imports_are_taken_from_the_garbage_collection_once_which_goes_on():
    code = (
        "import gc; from harness.runs.job import _load, import_once; import_once(_load);"
        "frozen = gc.get_freeze_count(); import_once(_load);"
        "print(gc.isenabled(), frozen > 100_000, gc.get_freeze_count() == frozen)"
    )
    reported = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert reported.stdout == "True True True\n"
