"""What is looked at before a launcher starts jobs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Main
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

from harness.config.errors import ConfigError
from harness.config.hydra_private import last_given
from harness.config.one_line_errors import explain
from harness.runs import gpu_share
from harness.runs.signals import RunInterruptedError
from harness.sweeps.launchers import check_launcher, merge_extra_setup, prepare_launcher


def settings(*overrides: str) -> Any:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        words = last_given(["hydra/launcher=slurm", "hydra.sweep.dir=SWEEP", *overrides])
        words += ["hydra.job.name=train", "hydra.job.num=0", "hydra.runtime.output_dir=."]
        return compose("config", words, return_hydra_config=True)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Slurm whose `sacct` answers, and nothing else on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for name in ("sbatch", "sacct"):
        program(tmp_path / name, "exit 0")
    yield tmp_path
    for number, handler in before.items():
        signal.signal(number, handler)


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_sweep_says_how_to_see_and_cancel_its_jobs(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_launcher(settings("hydra.launcher.name=N"), jobs=2)
    reported = "squeue --name=N shows the jobs, scancel --name=N cancels them"
    assert capsys.readouterr().err == f"{reported}\n"
    ends = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: RunInterruptedError}
    for number, ended in ends.items():
        with pytest.raises(ended):
            signal.raise_signal(number)
        said = capsys.readouterr().err
        assert said == f"\nthe jobs go on: {reported}; scripts/report.py SWEEP\n"


def test_what_would_end_badly_is_said_first(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(programs / "sacct", "echo Slurm accounting storage is disabled >&2; exit 1")
    prepare_launcher(settings("hydra.launcher.timeout_min=10"), jobs=2)
    assert capsys.readouterr().err.splitlines()[:2] == [
        "warning: hydra.launcher.timeout_min=10: up to 10 minutes every preemption counts as one of "
        "the hydra.launcher.max_num_timeout=20 time-outs",
        "warning: sacct does not answer (Slurm accounting storage is disabled): if a job is killed or "
        "cancelled, this command waits for ever; then press Ctrl-C and run scripts/report.py SWEEP",
    ]


def test_own_commands_come_before_those_of_the_preset(programs: Path) -> None:
    preset = [*settings().hydra.launcher.setup]
    config = settings(
        "hydra.launcher.extra_setup=['module load cuda/13', 'source ~/venv/bin/activate']"
    )
    prepare_launcher(config, jobs=2)
    own = ["module load cuda/13", "source ~/venv/bin/activate"]
    assert config.hydra.launcher.setup == [*own, *preset]
    assert "extra_setup" not in config.hydra.launcher, "which the plugin would refuse"


@pytest.mark.parametrize(
    ("overrides", "visible", "n_jobs", "slots"),
    [
        ([], None, 4, ["0", "1", "2", "3"]),
        (["hydra.launcher.n_jobs=6"], None, 6, ["0", "1", "2", "3", "0", "1"]),
        (["hydra.launcher.n_jobs=2", "trainer.device=cuda"], None, 2, ["0", "1"]),
        ([], "4,5,6,7", 4, ["4", "5", "6", "7"]),
        (["trainer.device=cpu"], None, -1, None),
        (["trainer.device=cuda:2"], None, -1, None),
    ],
)
def test_parallel_gives_each_of_its_processes_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    visible: str | None,
    n_jobs: int,
    slots: list[str] | None,
) -> None:
    """Four GPUs that are pretended."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setenv(gpu_share.VARIABLE, "")
    monkeypatch.delenv(gpu_share.VARIABLE)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    config = settings("hydra/launcher=parallel", *overrides)
    prepare_launcher(config, jobs=8)
    assert config.hydra.launcher.n_jobs == n_jobs
    given = os.environ.get(gpu_share.VARIABLE)
    assert (json.loads(given)[1] if given else None) == slots


def test_without_a_gpu_parallel_takes_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    config = settings("hydra/launcher=parallel")
    prepare_launcher(config, jobs=8)
    assert config.hydra.launcher.n_jobs == -1
    assert gpu_share.VARIABLE not in os.environ


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["hydra/launcher=ray", "hydra.launcher.num_cpus=0"], r"hydra(/launcher=ray: Ray is not|.launcher.num_cpus=0: )"),
        (["hydra/launcher=parallel", "hydra.launcher.n_jobs=0"], r"hydra\.launcher\.n_jobs=0: must be a number of "),
        (["hydra.launcher.extra_setup='module load cuda'"], r"hydra\.launcher\.extra_setup=module load cuda: must be a "
         r"list of shell commands, as in \"hydra\.launcher\.extra_setup=\['module load cuda'\]\"$"),
        (["hydra.launcher.extra_setup=[1]"], r"hydra\.launcher\.extra_setup=\[1\]: must be a list of shell commands"),
    ],
)  # fmt: skip
def test_settings_are_looked_at_before_anything_is_written(overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError, match=f"^{line}"):
        check_launcher(settings(*overrides).hydra.launcher)


def test_a_launcher_in_place_of_its_group_is_a_line(main: Main, tmp_path: Path) -> None:
    done = main("-m", "hydra.launcher=ray", f"hydra.sweep.dir={tmp_path}/sweep", "seed=0,1")
    assert done.stderr == "error: hydra.launcher=ray: a launcher is chosen by hydra/launcher=ray\n"
    done = main(
        "-m",
        "hydra/launcher=slurm",
        "hydra.launcher.extra_setup=x",
        f"hydra.sweep.dir={tmp_path}/sweep",
    )
    assert done.stderr.startswith("error: hydra.launcher.extra_setup=x: must be a list")
    assert not (tmp_path / "sweep").exists()


def test_no_commands_of_ones_own_are_none() -> None:
    config = settings("hydra.launcher.extra_setup=null")
    before = [*config.hydra.launcher.setup]
    check_launcher(config.hydra.launcher)
    merge_extra_setup(config)
    assert config.hydra.launcher.setup == before


def test_without_a_slurm_the_sweep_does_not_begin(programs: Path) -> None:
    (programs / "sbatch").unlink()
    with pytest.raises(ConfigError, match=r"^hydra/launcher=slurm: there is no sbatch here; "):
        prepare_launcher(settings(), jobs=2)


@pytest.mark.parametrize(
    ("preset", "plugin", "extra"),
    [
        ("slurm", "submitit_slurm", "slurm"),
        ("slurm_local", "submitit_local", "slurm"),
        ("parallel", "joblib", "parallel"),
    ],
)
def test_a_missing_plugin_is_one_line_with_the_command(
    monkeypatch: pytest.MonkeyPatch, preset: str, plugin: str, extra: str
) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        known = ConfigStore.instance().repo["hydra"]["launcher"]
        monkeypatch.delitem(known, f"{plugin}.yaml")
        with pytest.raises(Exception) as error:
            compose("config", [f"hydra/launcher={preset}"], return_hydra_config=True)
    fix = f"pip install -e '.[{extra}]'"
    assert explain(error.value) == f"hydra/launcher: a package is missing; {fix}"
