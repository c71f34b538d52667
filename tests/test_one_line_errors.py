"""Errors as one line: of Hydra while it composes, of a run, and of anything that a user may type."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import errno
import sys

import pytest
import torch
from conftest import ROOT, make_config
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_bad_input import NUMBERS, words
from test_cli import GRAMMAR, TOP, WARM, WARM_KEYS, WHOLE

from harness.config import one_line_errors as errors
from harness.config.errors import ConfigError
from harness.config.one_line_errors import explain
from harness.config.registry import KINDS
from harness.config.schema import Config
from harness.config.values import to_dict
from harness.runs.setup import lr_plan
from harness.sweeps import compose, jobs

SWEEP = "several values need -m"
GROUP = "a group takes the name of one of its choices; see --help"

# --- explain, on what Hydra raises while it composes ---------------------------------------------

EXPLAINED = {
    # types
    "text for a whole number": (["scheduler.t_mult=two"], f"scheduler.t_mult=two: {WHOLE}"),
    "null": (["scheduler.t_mult=null"], f"scheduler.t_mult=null: {WHOLE}"),
    "nothing": (["scheduler.t_mult="], f"scheduler.t_mult=: {WHOLE}"),
    "truth for a whole number": (["scheduler.t_mult=true"], f"scheduler.t_mult=true: {WHOLE}"),
    "list for a whole number": (["scheduler.t_mult=[1,2]"], f"scheduler.t_mult=[1,2]: {WHOLE}; for each of them -m scheduler.t_mult=1,2"),
    "text for a number": (
        ["trainer.epochs=many"],
        "trainer.epochs=many: must be a number > 0 and ≤ 1000000",
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
        "scheduler.milestones=5: must be a list of numbers > 0 and ≤ 1000000000",
    ),
    "text in a list": (
        ["scheduler=multistep", "scheduler.milestones=[5,x]"],
        "scheduler.milestones=[5,x]: must be a list of numbers > 0 and ≤ 1000000000",
    ),
    "null in a list": (
        ["scheduler=multistep", "scheduler.milestones=[null]"],
        "scheduler.milestones=[null]: must be a list of numbers > 0 and ≤ 1000000000",
    ),
    "list in a list": (["scheduler=piecewise", "scheduler.points=[[0,1],[10,0]]"], "scheduler.points=[[0,1],[10,0]]: must be a list of plain values, as in [a,b]"),
    "keys in a list": (["metrics=[{ece:{bins:20}}]"], "metrics=[{ece: {bins: 20}}]: must be a list of plain values, as in [a,b]"),
    "a key below a list": (["metrics.ece.bins=20"], "metrics.ece.bins=20: the key before it is a list, which has no keys"),
    "a metric twice": (["metrics=[a,a]"], "metrics=[a,a]: name each metric once"),
    "added wrong type": (["++scheduler.t_mult=two"], f"scheduler.t_mult=two: {WHOLE}"),
    "type inside a section": (
        ["trainer={epochs: many}"],
        "trainer={epochs: many}: trainer.epochs: must be a number > 0 and ≤ 1000000",
    ),
    # keys
    "key of another choice": (["scheduler.milestones=[5]"], f"scheduler.milestones=[5]: {WARM}, but of multistep; {WARM_KEYS}"),
    "key where there are none": (
        ["tracking.mode=offline"],
        "tracking.mode=offline: is not a key of the tracking none, but of wandb",
    ),
    "key below a misspelt group": (
        ["schedulers.t_mult=1"],
        "schedulers.t_mult=1: schedulers: is neither a key nor a group; did you mean scheduler? "
        f"choose from {TOP}",
    ),
    "key inside a section": (
        ["optimizer={lr: 1, momentun: 0}"],
        "optimizer={lr: 1, momentun: 0}: optimizer.momentun: is not a key of the optimizer sgd; "
        "did you mean momentum? choose from lr, weight_decay, no_decay, groups, accumulate, clip, momentum, nesterov",
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
        "scheduler.t_0=${trainer.device}: must be a number > 0 and ≤ 1000000000",
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
        "scheduler.gamma=0.5: is a key of all that are swept, but not of the scheduler cosine_warm; "
        "write ++scheduler.gamma=0.5"
    )
    for scheduler in ("step", "multistep"):
        swept = make_config(f"scheduler={scheduler}", "++scheduler.gamma=0.5")
        assert to_dict(swept)["scheduler"]["gamma"] == 0.5


def test_a_key_of_a_group_that_is_not_swept_needs_none(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "scheduler=cosine_warm", "seed=1,2"])
    with pytest.raises(Exception, match="Could not override") as error:
        make_config("scheduler.gamma=0.5")
    assert (
        errors.explain(error.value)
        == f"scheduler.gamma=0.5: {WARM}, but of multistep, step; {WARM_KEYS}"
    )


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
        "experiment/mine.yaml: scheduler: 5: must be keys and values, indented below scheduler:",
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
        (OSError("e\x1b[2Jv\u202e/a: is odd"), "e [2Jv /a: is odd"),
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
def test_ctrl_c_is_no_error_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^130$"), errors.one_line_errors():
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "interrupted\n"


def test_a_lost_job_names_its_log_and_the_report() -> None:
    UncompletedJobError = type("UncompletedJobError", (RuntimeError,), {})
    text = (
        "Job 7_0 (task: 0) with path /a b/out/.submitit/7_0/7_0_0_result.pkl\n"
        "has not produced any output (state: CANCELLED by 0)\nError stream produced:\n---\nmore"
    )
    assert explain(UncompletedJobError(text)) == (
        "job 7_0 ended without a result (CANCELLED by 0; log: /a b/out/.submitit/7_0). The other jobs "
        "go on; when they have ended, scripts/report.py /a b/out makes the report"
    )


# --- anything at all -----------------------------------------------------------------------------

KEYS = st.sampled_from(
    [*NUMBERS, "trainer.device", "trainer.precision", "scheduler", "model", "dataset", "arm", "reuse",
     "optimizer", "hydra.sweep.dir", "hydra/launcher", "tracking", "claim.factor", "store.keep"]
)  # fmt: skip


VALUES = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["", "null", "true", "[]", "{}", "[1,2]", "1,2", "range(0,3)", "choice(a,b)", "glob(*)", "'a'",
         "${seed}", "${now:%H}", "${oc.env:HOME}", "${oc.env:NOTHING}", "???", "1.5", "sort(3,1)",
         "interval(0,1)", "range(0,10,0)", "range(5)", "shuffle(range(0,5))", "int(1.5)", "${", "\\"]
    ),
    st.text(max_size=12),
)  # fmt: skip


PREFIXES = st.sampled_from(["", "", "", "", "+", "++", "~"])


OVERRIDES = st.one_of(
    st.tuples(PREFIXES, KEYS, VALUES).map(lambda parts: "{}{}={}".format(*parts)),
    st.tuples(PREFIXES, st.text(max_size=12), VALUES).map(lambda parts: "{}{}={}".format(*parts)),
    st.text(max_size=30),
)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(overrides=st.lists(OVERRIDES, min_size=1, max_size=2))
@example(overrides=["seed=range(0,10,0)"])
@example(overrides=["trainer.epochs=1e6", "scheduler.t_0=1e-9"])
@example(overrides=["\ud800=1"])
def test_no_override_ends_in_a_traceback(overrides: list[str]) -> None:
    """As `python scripts/preview.py -m OVERRIDES`: composed, expanded, checked and planned."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        line = "" if (error := raised(overrides)) is None else errors.explain(error)
    assert line is not None, f"{type(error).__name__}: {error}"
    assert "\n" not in line


def raised(overrides: list[str]) -> Exception | None:
    try:
        loader = GlobalHydra.instance().config_loader()
        whole = loader.load_configuration("config", words(*overrides), run_mode=RunMode.MULTIRUN)
        for job in jobs.expand(whole)[:3]:
            lr_plan(compose.compose(job["overrides"]).config)
    except Exception as error:
        return error
    return None


def test_the_fuzzed_keys_are_keys() -> None:
    known = {f"{group}.{name}" for group, kinds in KINDS.items() for node in kinds.values()
             for name in node.__dataclass_fields__}  # fmt: skip
    assert {key for key in NUMBERS if "." in key} <= known
