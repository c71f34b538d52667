"""The command line: every mistake ends in one line that names it and the fix, and in exit code 1."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shlex
import subprocess
import sys

import forked
import pytest
from conftest import ROOT, make_config

from harness.config.registry import group_files
from harness.config.schema import Config

TINY = [
    "dataset=synthetic", "dataset.images=200", "dataset.classes=4", "trainer.epochs=2",
    "trainer.batch_size=32", "model.width=4", "tracking=none",
]  # fmt: skip
TOP = ", ".join(sorted({*group_files(), *(f.name for f in dataclasses.fields(Config))}))
WARM = "is not a key of the scheduler cosine_warm"
WARM_KEYS = "choose from warmup, interval, unit, t_0, t_mult, eta_min, decay, cycle_warmup"
WHOLE = "must be a whole number ≥ 1 and ≤ 1000000"
GRAMMAR = (
    "cannot be read; brackets must close, special characters need quotes: "
    "https://hydra.cc/docs/advanced/override_grammar/basic"
)


def files() -> dict[str, set[str]]:
    """The groups of `conf/` and their choices, by walking it."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "conf").glob("*/**/*.yaml"):
        found.setdefault(str(file.parent.relative_to(ROOT / "conf")), set()).add(file.stem)
    assert "harness" in found.pop("hydra/help")
    assert found.pop("hydra/sweeper") == {"harness"}  # always: there is nothing to choose
    assert found.pop("hydra/extra") == {"setup"}  # a part of hydra/launcher=slurm
    assert "quick" in found.pop("study")  # which scripts/study.py reads
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
        "scheduler=cosin: did you mean cosine? choose from constant, cosine, cosine_warm, linear, list, "
        "multistep, one_cycle, piecewise, polynomial, step, wsd",
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


@pytest.mark.slow
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


def test_a_python_without_the_packages_names_the_environment():
    done = train("seed=1", python=("-S",))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: hydra is not installed for {sys.executable}; ")
    assert ". .venv/bin/activate" in line


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


def test_the_help_of_the_preview_needs_no_torch():
    command = [sys.executable, "-X", "importtime", str(ROOT / "scripts/preview.py"), "--help"]
    reported = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "what a sweep costs" in reported.stdout
    assert re.search(r"\| +harness$", reported.stderr, re.MULTILINE)
    assert not re.search(r"\| +(torch|polars)$", reported.stderr, re.MULTILINE)
