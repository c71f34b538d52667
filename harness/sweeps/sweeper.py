"""The sweeper of conf/hydra/sweeper/harness.yaml: all combinations at once, or in stages what a claim needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper as HydraSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from harness.config import hydra_private
from harness.config.one_line_errors import one_line_errors
from harness.runs import run_dir, signals
from harness.runs.signals import RunInterruptedError

Jobs = Sequence[Sequence[str]]  # the overrides of each


class Sweeper(HydraSweeper):
    """Hands jobs to the launcher, batch by batch: each when the runs of the one before have ended.

    They are not composed before, as Hydra's basic sweeper does: they were when the sweep was planned.
    """

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None) -> None:
        self.max_batch_size = (
            max_batch_size  # params: in the configuration, where the plan reads them
        )
        self.config: DictConfig
        self.launcher: Launcher

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        from harness.sweeps import bars, stages

        done = []
        with (
            one_line_errors(),
            self._say_how_to_go_on(),
            signals.raised(),
            bars.shown(lambda: stages.last_folder(self.config)),
        ):
            for first, jobs in self._batches():
                returned = self.launcher.launch(jobs, initial_job_idx=first)
                for job in returned:
                    _ = job.return_value  # raises what ended the job, as Ctrl-C
                done.append(returned)
        return done

    @contextmanager
    def _say_how_to_go_on(self) -> Iterator[None]:
        """Print the command that goes on in the sweep's folder, if a signal or a killed process ends the block."""
        try:
            yield
        except BaseException as error:
            killed = type(error).__name__ == "TerminatedWorkerError"  # of joblib
            stopped = killed or isinstance(error, KeyboardInterrupt | RunInterruptedError)
            launcher = str(self.config.hydra.launcher._target_)
            leaves = launcher.endswith(".SlurmLauncher") or self.config.hydra.launcher.get("leave")
            if stopped and not leaves:  # jobs that go on, as the launcher says
                again = run_dir.how_to_go_on("hydra.sweep.dir", self.config.hydra.sweep.dir)
                print(f"the sweep has stopped; {again}", file=sys.stderr)
            raise

    def _batches(self) -> Iterator[tuple[int, Jobs]]:
        """Yield the number of the first job of each batch, and the batch."""
        from harness.sweeps import stages
        from harness.sweeps.jobs import sweep_overrides

        if stages.has_stages(self.config):
            for batch in stages.batches(self.config):
                yield from self._parts(batch.runs[0], batch.overrides())
        else:
            jobs = hydra_private.split_jobs(sweep_overrides(self.config), shuffle=True)
            yield from self._parts(0, jobs)

    def _parts(self, number: int, jobs: Jobs) -> Iterator[tuple[int, Jobs]]:
        size = self.max_batch_size or len(jobs)
        for first in range(0, len(jobs), size):
            yield number + first, jobs[first : first + size]
