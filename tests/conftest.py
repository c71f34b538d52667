"""What tests share: configurations from the real `conf/`, and a skip that CI turns into a failure."""

from __future__ import annotations

import gc
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hypothesis import settings
from omegaconf import DictConfig
from xdist.scheduler import LoadFileScheduling

from harness.choices.builtin import register
from harness.config.compose import load
from harness.config.hydra_private import last_given
from harness.config.schema import Config
from harness.store.commit import program_commit

ROOT = Path(__file__).resolve().parent.parent

gc.disable()  # until all tests are collected: modules are no garbage

# Ctrl-C means the same where what started the tests ignores it, as a shell's `&` does.
signal.signal(signal.SIGINT, signal.default_int_handler)

# One thread, here and in the processes that tests start: networks of this size gain nothing by two,
# and two such processes on two cores are many times slower.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# As `harness.runs.job` sets it before torch is loaded; the processes that tests fork have it loaded already.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

# What is remembered of images is kept apart from the user's.
_CACHE = tempfile.TemporaryDirectory()
os.environ["HARNESS_CACHE"] = _CACHE.name
os.environ["HARNESS_LEDGER"] = ""  # none: what one test judges is no evidence in another

register()
settings.register_profile("harness", deadline=None, derandomize=True, database=None)
settings.load_profile("harness")


def make_config(*overrides: str) -> Config:
    """What `python train.py tracking=none OVERRIDES` runs with, from this repository's root.

    Raises what composing and checking raise.
    """
    composed = _untracked(*overrides)
    hydra = HydraConfig.instance()
    before = hydra.cfg
    hydra.set_config(_hydra())
    try:
        return load(composed)
    finally:
        hydra.cfg = before


@lru_cache(64)
def _untracked(*overrides: str) -> DictConfig:
    return _compose("tracking=none", *overrides)


def _compose(*overrides: str, with_hydra: bool = False) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=with_hydra)


@cache
def _hydra() -> DictConfig:
    """Hydra's own configuration, for the resolver of `${hydra:runtime.cwd}`."""
    return _compose(f"hydra.runtime.cwd={ROOT}", with_hydra=True)


@dataclass
class Clock:
    """Stands in for the module `time`."""

    now: float = 100.0

    def monotonic(self) -> float:
        return self.now


def need(condition: object, reason: str) -> None:
    """Skip the test for `reason`, which names the fix, unless `condition` holds.

    Under HARNESS_REQUIRE_ALL the test fails instead: there nothing may be left out.
    """
    if condition:
        return
    if os.environ.get("HARNESS_REQUIRE_ALL"):
        pytest.fail(reason)
    pytest.skip(reason)


def essential(cases: Iterable[Any], count: int = 1) -> list[Any]:
    """Cases of a parametrized test; those after the first `count` are slow tests."""
    every = list(cases)
    return [*every[:count], *(pytest.param(case, marks=pytest.mark.slow) for case in every[count:])]


@contextmanager
def no_waiting() -> Iterator[None]:
    """Where whatever waits for the GPU raises RuntimeError."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture(autouse=True)
def without_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Single runs in this process leave no pictures and no page, which take longer than they; but in tests of those.

    Tests marked `gpu` leave none anyway, and pass where what makes pages is not installed (scripts/gpu_check.sh).
    """
    if not (request.node.get_closest_marker("gpu") or "with_pages" in request.fixturenames):
        monkeypatch.setattr("harness.sweeps.callback.end_run", print)


@pytest.fixture
def with_pages() -> None:
    """Single runs leave pictures and a page, as they do outside of tests."""


Main = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Main:
    """`python train.py ARGS`, in this process: without the seconds that imports take."""
    return partial(_run, monkeypatch, capsys, "train.py")


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Main:
    """`python scripts/report.py ARGS`, in this process."""
    return partial(_run, monkeypatch, capsys, "scripts/report.py")


def _run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
    *args: str | Path,
) -> subprocess.CompletedProcess[str]:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # set by the script; here so that it is unset again
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [script, *last_given([*map(str, args)])])
    # Hydra composes all once more to look for hydra.mode, which no test sets: the same answer at once
    monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: None)
    program_commit.cache_clear()  # a process asks git itself, under its own PATH
    code: object = 0
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as stop:
        code = stop.code
    finally:
        program_commit.cache_clear()
        if "wandb" in sys.modules:  # whose service later programs would use, by its variable
            sys.modules["wandb"].teardown()
    said = capsys.readouterr()
    if isinstance(code, str):  # what Python does at the end
        return subprocess.CompletedProcess(args, 1, said.out, f"{said.err}{code}\n")
    return subprocess.CompletedProcess(args, int(code or 0), said.out, said.err)  # type: ignore[call-overload]


def verified(sweep: Path) -> bool:
    """Whether `scripts/verify_sweep.py` finds that each row of the sweep's table holds."""
    done = forked.complete("scripts/verify_sweep.py", sweep)
    print(done.stdout, done.stderr)
    return done.returncode == 0 and "all rows hold" in done.stdout


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` skip on machines without one, under HARNESS_REQUIRE_ALL too."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU, and this machine has none")


def pytest_collection_finish() -> None:
    """Collect garbage from here on, but not among what is there already."""
    gc.freeze()
    gc.enable()


LONGEST = (
    "cluster/",
    "test_ray_launcher.py",
    "test_soak.py",
    "test_stages.py",
    "test_faults.py",
    "test_first_hour.py",
    "test_study.py",
    "test_distributed.py",
    "test_verify_resume.py",
    "test_wandb_run.py",
    "test_wandb_workspace.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that none of them is alone at the end."""
    items.sort(key=lambda item: [name not in item.nodeid for name in LONGEST])


class ByFile(LoadFileScheduling):  # type: ignore[misc]
    """A file's tests run in one process of pytest-xdist; those of `cluster/` too, which share a Slurm."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "cluster" if "/cluster/" in file else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)
