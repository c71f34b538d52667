"""Submit a sweep to Slurm and leave: `python scripts/slurm/submit.py OVERRIDES…`

    python scripts/slurm/submit.py hydra.launcher.partition=gpu hydra.launcher.gpus_per_node=1 \\
        scheduler.t_mult=1,2 'seed=range(0,10)'
    python scripts/slurm/submit.py --again SWEEP      only the runs that are missing or failed
    python scripts/slurm/status.py SWEEP

The same arguments as `python train.py -m hydra/launcher=slurm`, and the same keys of the launcher. One
job a run, and a last one that writes the report when the others have ended. Nothing waits: the runs
train the configurations of now, even if conf/ changes. Needs `pip install -e '.[slurm]'`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf, read_write

from harness.choices.builtin import register
from harness.config.errors import ConfigError
from harness.config.hydra_private import multirun_config
from harness.config.one_line_errors import one_line_errors
from harness.sweeps.callback import begin_sweep


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--again", type=Path, metavar="SWEEP", help="a sweep that was submitted")
    arguments, overrides = parser.parse_known_args()
    with one_line_errors():
        try:
            from harness.sweeps import slurm
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{error.name} is not installed: pip install -e '.[slurm]'"
            ) from error
        if arguments.again and overrides:
            raise ConfigError(f"{overrides[0]}: --again submits what was submitted")
        folder = arguments.again or plan_new_sweep(overrides)
        if not (folder / "launcher.json").exists():
            raise ConfigError(f"{folder}: is not the folder of a sweep that was submitted")
        launcher = json.loads((folder / "launcher.json").read_text())
        jobs = slurm.submit(folder, launcher, retry=bool(arguments.again))
    if not jobs:
        print("nothing to submit: every arm has ended or is on its way")
        return
    *arrays, last = jobs
    print(f"submitted: arms {' '.join(arrays)}, report {last}")
    print(f"python scripts/slurm/status.py {folder}    scancel {' '.join(jobs)}")


def plan_new_sweep(overrides: list[str]) -> Path:
    """Write the files that the jobs of a new sweep need. Return its folder."""
    from harness.sweeps import slurm

    register()
    conf = Path(__file__).resolve().parents[2] / "conf"
    words = ["hydra/launcher=slurm", *(word for word in overrides if word != "-m")]
    with multirun_config(conf, words) as composed:
        chosen = composed.hydra.launcher
        if not chosen._target_.endswith(".SlurmLauncher"):
            name = composed.hydra.runtime.choices["hydra/launcher"]
            raise ConfigError(f"hydra/launcher={name}: leave it out; jobs go to Slurm")
        with read_write(composed):  # a folder that is looked up is made, before the plan is checked
            chosen.submitit_folder = ".submitit"
        launcher: Any = OmegaConf.to_container(chosen, resolve=True)
        slurm.make_executor(Path(), launcher)  # before anything is written
        begin_sweep(composed, new=True)
        folder = Path(composed.hydra.sweep.dir)  # which makes it
        ledger = composed.ledger.path
        launcher["ledger"] = str(Path(ledger).absolute()) if ledger else "none"
        slurm.write_launcher(folder, launcher)
    return folder


if __name__ == "__main__":
    main()
