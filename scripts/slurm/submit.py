"""Submit a sweep to Slurm and leave: `python scripts/slurm/submit.py OVERRIDES…`

    python scripts/slurm/submit.py hydra.launcher.partition=gpu hydra.launcher.gpus_per_node=1 \\
        scheduler.t_mult=1,2 'seed=range(0,10)'
    python scripts/slurm/submit.py --again SWEEP      only the runs that are missing or failed
    python scripts/slurm/status.py SWEEP

The same arguments as `python train.py -m hydra/launcher=slurm`, and the same keys of the launcher. One
job a run, and a last one that writes the report when the others have ended; where the sweep tunes, or goes
on until decided, it submits what comes next instead. Nothing waits: the runs train the configurations of now,
even if conf/ changes. Needs `pip install -e '.[slurm]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, read_write

from harness.choices.builtin import register
from harness.config.errors import ConfigError
from harness.config.hydra_private import multirun_config, quote, refuse_repeated
from harness.config.one_line_errors import one_line_errors

if TYPE_CHECKING:
    from harness.sweeps.stages import Batch

_REPORT = Path(__file__).resolve().parents[1] / "report.py"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--again", type=Path, metavar="SWEEP", help="a sweep that was submitted")
    parser.add_argument("--next", type=Path, metavar="SWEEP", help=argparse.SUPPRESS)
    arguments, overrides = parser.parse_known_args()
    with one_line_errors():
        try:
            import harness.sweeps.slurm  # noqa: F401
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{error.name} is not installed: pip install -e '.[slurm]'"
            ) from error
        submitted = arguments.again or arguments.next
        if submitted and overrides:
            raise ConfigError(f"{overrides[0]}: --again submits what was submitted")
        if arguments.next:
            leave_the_job()
        if submitted:
            go_on(submitted, again=bool(arguments.again))
        else:
            submit_new(overrides)


def leave_the_job() -> None:
    """Forget that this process is a job of Slurm: what it submits is none of that job."""
    for name in [*os.environ]:
        if name.startswith(("SLURM_", "SBATCH_", "SRUN_")) and name != "SLURM_CONF":
            del os.environ[name]


def submit_new(overrides: list[str]) -> None:
    """Plan a new sweep, and submit what it trains first."""
    from harness.sweeps import launchers, slurm, stages

    refuse_repeated(overrides)
    register(overrides)
    words = ["hydra/launcher=slurm", *(word for word in overrides if word != "-m")]
    with composed(words) as config:
        chosen = config.hydra.launcher
        launchers.check_launcher(chosen)
        if not chosen._target_.endswith(".SlurmLauncher"):
            name = config.hydra.runtime.choices["hydra/launcher"]
            raise ConfigError(f"hydra/launcher={name}: leave it out; jobs go to Slurm")
        with read_write(config):  # a folder that is looked up is made, before the plan is checked
            chosen.submitit_folder = ".submitit"
        launchers.merge_extra_setup(config)
        launcher: Any = OmegaConf.to_container(chosen, resolve=True)
        slurm.make_executor(Path(), launcher)  # before anything is written
        raw: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
        if "${" not in str(raw["dir"]) and Path(raw["dir"], "plan.json").exists():
            raise ConfigError(
                f"{raw['dir']}: has a sweep; --again {raw['dir']} submits what it lacks"
            )
        stages.begin(config)
        folder = Path(config.hydra.sweep.dir)  # which makes it
        ledger = config.ledger.path
        launcher["ledger"] = str(Path(ledger).absolute()) if ledger else "none"
        if stages.has_stages(config):
            launcher["overrides"] = [*words, f"hydra.sweep.dir={quote(str(folder.resolve()))}"]
        slurm.write_launcher(folder, launcher)
    go_on(folder, again=False)


def go_on(folder: Path, again: bool) -> None:
    """Submit what a sweep trains next; where nothing is left, or a stage cannot end, write its report.

    `again`: also what was submitted before, and has failed.
    """
    from harness.sweeps import slurm, stages

    if not (folder / "launcher.json").exists():
        raise ConfigError(f"{folder}: is not the folder of a sweep that was submitted")
    launcher = json.loads((folder / "launcher.json").read_text())
    batch = next_batch(folder, launcher, again)
    staged = "overrides" in launcher
    if (folder / "plan.json").exists():
        stages.print_progress(folder)
    if batch is None or (not again and slurm.ended_without_result(batch)):
        if staged and not again:
            ended = subprocess.run([sys.executable, *report_words(folder, launcher)], check=False)
            raise SystemExit(ended.returncode)
        print("nothing to submit: every arm has ended or is on its way")
        return
    follow = (
        [__file__, "--next", str(folder.resolve())] if staged else report_words(folder, launcher)
    )
    jobs = slurm.submit(batch, launcher, [sys.executable, *follow], retry=again)
    if not jobs:
        print("nothing to submit: every arm has ended or is on its way")
        return
    *arrays, last = jobs
    after = "then" if staged else "report"
    print(f"submitted: arms {' '.join(arrays)}, {after} {last}")
    print(f"python scripts/slurm/status.py {folder}    scancel {' '.join(jobs)}")


def report_words(folder: Path, launcher: dict[str, Any]) -> list[str]:
    """Return the command of the report; that of the tuning where the claim is not planned yet."""
    planned = folder if (folder / "plan.json").exists() else folder / "tuning"
    ledger = ["--ledger", launcher["ledger"]] if "ledger" in launcher else []
    return [str(_REPORT), str(planned.resolve()), *ledger]


def next_batch(folder: Path, launcher: dict[str, Any], again: bool) -> Batch | None:
    """Return the runs that are to be trained next; None if none are left.

    Until the claim is planned, arms tune, and what they choose is composed of the files in conf/ once more.
    """
    from harness.sweeps import stages

    if (folder / "plan.json").exists():
        return next(stages.open_runs(folder, refused=again), None)
    with composed(launcher["overrides"]) as config:
        return next(stages.batches(config), None)


def composed(overrides: list[str]) -> AbstractContextManager[DictConfig]:
    register()
    return multirun_config(Path(__file__).resolve().parents[2] / "conf", overrides)


if __name__ == "__main__":
    main()
