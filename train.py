"""Train one run, or with -m a sweep of them: see `python train.py --help`."""

import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(
        f"error: needs Python 3.11 or later, and {sys.executable} is older; . .venv/bin/activate"
    )
try:
    import hydra
    from omegaconf import DictConfig
except ModuleNotFoundError as missing:
    sys.exit(
        f"error: {missing.name} is not installed for {sys.executable}; `make sweep` makes the environment .venv, "
        ". .venv/bin/activate takes it (README, First sweep)"
    )

from harness.choices.builtin import register
from harness.config import streams
from harness.config.hydra_private import (
    RAY_LAUNCHER,
    SWEEPER,
    register_plugins,
    take_options_anywhere,
)
from harness.config.one_line_errors import one_line_errors
from harness.runs.job import hydra_job
from harness.sweeps.ray_launcher import RayLauncher
from harness.sweeps.sweeper import Sweeper

register_plugins({SWEEPER: Sweeper, RAY_LAUNCHER: RayLauncher})
take_options_anywhere()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def job(composed: DictConfig) -> float:
    """Compose, run, and return the metric that sweepers optimise."""
    return hydra_job(composed)


if __name__ == "__main__":
    os.environ.pop(streams.BARS, None)  # of a sweep that this command is no job of
    with one_line_errors():
        register(sys.argv[1:])
        job()
