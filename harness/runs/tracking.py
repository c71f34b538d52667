"""What shows the history of a run besides its folder: W&B, TensorBoard or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from harness.config.schema import TensorBoard, Tracking
from harness.runs import tensorboard_run, wandb_run
from harness.runs.tensorboard_run import TensorBoardRun
from harness.runs.wandb_run import Label, WandbRun
from harness.training.loop import Row


class Mirror(Protocol):
    """What rows are copied to."""

    @property
    def where(self) -> str:
        """Return the page of the run, or its local folder; empty without any."""
        ...

    def log(self, row: Row) -> None: ...

    def finish(self, summary: dict[str, Any], exit_code: int) -> None: ...


def check(config: Tracking) -> None:
    """Raise `ConfigError` for what would be refused when a run starts."""
    if isinstance(config, TensorBoard):
        tensorboard_run.check()
    wandb_run.check(config)


def start(config: Tracking, label: Label, folder: Path, values: dict[str, Any]) -> Mirror:
    """Start what `config` asks for, its files below `folder`; `values` are its configuration."""
    if isinstance(config, TensorBoard):
        return TensorBoardRun(folder, label.name, values)
    return WandbRun.open(config, label, folder, values)
