"""The history of a run (the truth), and its mirror on Weights & Biases."""

from __future__ import annotations

import json
import netrc
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from harness import config as conf
from harness.files import atomic
from harness.loop import Row

if TYPE_CHECKING:
    import wandb


class History:
    """`history.jsonl`: one row a line, appended as it happens; it begins with the rows `begin`."""

    def __init__(self, path: Path, begin: list[Row]) -> None:
        self.rows = list(begin)
        with atomic(path, "w") as file:
            file.writelines(map(_line, begin))
        self._file = path.open("a")

    def append(self, row: Row) -> None:
        self.rows.append(row)
        self._file.write(_line(row))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Label:
    """How a run is called on W&B."""

    run_id: str
    name: str
    group: str | None
    arm: str


class Mirror:
    """The W&B run that shows a history; without one (`tracking=none`), nothing happens."""

    def __init__(self, run: wandb.Run | None) -> None:
        self._run = run

    @classmethod
    def open(
        cls, config: conf.Tracking, label: Label, folder: Path, values: dict[str, Any]
    ) -> Mirror:
        """Start the W&B run, its files below `folder`; never asks for a key."""
        if not isinstance(config, conf.Wandb):
            return cls(None)
        mode = _mode(config.mode)
        if mode == "disabled":
            return cls(None)
        if mode == "offline":
            os.environ["WANDB_MODE"] = "offline"  # keeps wandb from opening any socket
        import wandb

        _put_aside(folder)
        run = wandb.init(
            project=config.project,
            entity=config.entity,
            id=label.run_id,
            name=label.name,
            group=label.group,
            job_type=label.arm,
            tags=config.tags,
            config=values,
            dir=folder,
            mode="offline" if mode == "offline" else "online",
            resume=None if mode == "offline" else "allow",
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", x_transaction_log_flush_interval=1, finish_timeout=60
            ),
        )
        run.define_metric("epoch", hidden=True)
        run.define_metric("*", step_metric="epoch")
        run.define_metric("val/acc", step_metric="epoch", summary="max,last")
        return cls(run)

    @property
    def where(self) -> str:
        """The page of the run, or the folder that `wandb sync` takes; empty if there is none."""
        if self._run is None:
            return ""
        folder = str(Path(self._run.dir).parent)
        return folder if self._run.offline else str(self._run.url)

    def log(self, row: Row) -> None:
        if self._run is not None:
            self._run.log(row, step=int(row["step"]), commit=True)

    def finish(self, summary: dict[str, Any], exit_code: int) -> None:
        if self._run is not None:
            self._run.summary.update(summary)
            self._run.finish(exit_code=exit_code)


def _put_aside(folder: Path) -> None:
    """Rename offline runs of an earlier attempt: the new one holds all their rows again."""
    for old in (folder / "wandb").glob("offline-run-*"):
        old.rename(old.with_name(f"replaced-{old.name}"))


def _mode(wanted: str) -> str:
    """`auto` is WANDB_MODE if set; else online where there is a key, and otherwise offline."""
    if wanted != "auto":
        return wanted
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    return "online" if _has_key() else "offline"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host or "") is not None
    except FileNotFoundError:
        return False
    except (netrc.NetrcParseError, OSError) as error:
        print(f"warning: no W&B key is read from netrc: {error}", file=sys.stderr)
        return False
