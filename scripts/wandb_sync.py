"""Upload runs that were logged offline: `python scripts/wandb_sync.py FOLDER…`

For sweeps and single runs, in any number and again at any time: what is uploaded stays as it is. Of
several attempts at a run the newest is sent. What the server does not know goes through `wandb sync`;
what it has in part, which `wandb sync` would double, is completed from the run's history.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from harness.config.errors import ConfigError
from harness.config.one_line_errors import explain, one_line_errors
from harness.config.schema import Wandb
from harness.config.values import section_from_dict
from harness.files import read_json
from harness.runs import wandb_run
from harness.runs.wandb_run import wandb_metadata
from harness.sweeps.wandb_summary import publish_sweep

_NAME = re.compile(r"(offline-)?run-(?P<time>\d{8}_\d{6})-(?P<id>.+)")
_NO_KEY = "W&B: there is no key on this machine; run `wandb login`, or set WANDB_API_KEY"
_AT_ONCE = 10  # runs a call of `wandb sync`, which takes a second to start


@dataclass(frozen=True)
class Log:
    """What wandb wrote of one attempt at a run."""

    folder: Path
    run_id: str
    time: str

    @property
    def home(self) -> Path:
        """Return the folder of the run, or of the sweep whose verdict it is."""
        return self.folder.parent.parent

    @property
    def is_summary(self) -> bool:
        return (self.home / "plan.json").exists()

    @property
    def synced(self) -> bool:
        online = not self.folder.name.startswith("offline-")
        return self._marker.exists() or (online and not self.incomplete)

    @property
    def incomplete(self) -> bool:
        return (self.folder / wandb_run.INCOMPLETE).exists()

    def mark(self) -> None:
        self._marker.touch()

    @property
    def _marker(self) -> Path:
        return self.folder / f"run-{self.run_id}.wandb.synced"  # as `wandb sync` leaves it


def newest(roots: Iterable[Path]) -> list[Log]:
    """Return the last attempt at each run below `roots`."""
    logs: dict[str, Log] = {}
    for root in roots:
        if not root.is_dir():
            raise ConfigError(f"{root}: is not a folder")
        for folder in sorted(root.rglob("wandb/*run-*")):
            if match := _NAME.fullmatch(folder.name):
                log = Log(folder, match["id"], match["time"])
                if log.run_id not in logs or logs[log.run_id].time <= log.time:
                    logs[log.run_id] = log
    return list(logs.values())


def send(log: Log, scratch: Path) -> bool:
    """Send what the server lacks of a run; False if that is all, and `wandb sync` can do it."""
    if log.is_summary:
        publish_sweep(log.home, to=scratch)
        return True
    result = read_json(log.home / "result.json")
    label, values = wandb_metadata(result)
    config = section_from_dict("tracking", result["config"]["tracking"])
    assert isinstance(config, Wandb)
    run = wandb_run.start(config, "online", label, scratch, values, wandb_run.UPLOAD_TIMEOUT_S)
    known = run.resumed or log.incomplete
    if known:
        mirror = wandb_run.WandbRun(run)
        for line in (log.home / "history.jsonl").read_text().splitlines():
            mirror.log(json.loads(line))
        run.summary.update(wandb_run.summary(result))
    run.finish(exit_code=int(result["status"] != "complete"))
    return known


def sync(logs: Sequence[Log]) -> str:
    """Send what the server has nothing of, as it was logged: with its times and system metrics.

    Returns what `wandb sync` says; the logs that it could not send stay without its mark.
    """
    wandb = Path(sys.executable).parent / "wandb"
    command = [str(wandb), "sync", *(str(log.folder) for log in logs)]
    online = {key: value for key, value in os.environ.items() if key != "WANDB_MODE"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=online)
    return f"wandb sync says: {done.stdout[-500:]}{done.stderr[-500:]}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    with one_line_errors(), TemporaryDirectory() as scratch:
        waiting = [log for log in newest(parser.parse_args().folders) if not log.synced]
        ended = [log for log in waiting if log.is_summary or (log.home / "result.json").exists()]
        if ended:
            wandb_run.check(Wandb("online", "any", None, []), _NO_KEY)
        refused = upload(ended, Path(scratch))
        print(f"{len(ended) - len(refused)} runs uploaded" if ended else "nothing to upload")
        if running := len(waiting) - len(ended):
            print(
                f"{running} left out: they still run, or were killed; train them to their end first"
            )
        if refused:
            lines = [f"{log.folder}: {reason}" for log, reason in refused.items()]
            raise SystemExit("\n".join([f"error: {len(refused)} not uploaded:", *lines]))


def upload(logs: Sequence[Log], scratch: Path) -> dict[Log, str]:
    """Send all that the server takes. Returns those that it does not, and why.

    Raises `ConfigError` where it does not answer, or not to this key: the next run would fare no better.
    """
    refused: dict[Log, str] = {}
    fresh = []
    with tqdm(total=len(logs), unit="run", disable=None) as bar:
        for log in logs:
            with _refusing(log, refused):
                if send(log, scratch):
                    log.mark()
                else:
                    fresh.append(log)
            bar.update(log not in fresh)
        for begin in range(0, len(fresh), _AT_ONCE):
            some = fresh[begin : begin + _AT_ONCE]
            answer = sync(some)
            for log in some:
                if not log.synced:
                    refused[log] = wandb_run.one_sentence(answer)
            bar.update(len(some))
    return refused


@contextmanager
def _refusing(log: Log, refused: dict[Log, str]) -> Iterator[None]:
    """Note in `refused` why `log` cannot be sent, unless that holds for all: then raise `ConfigError`."""
    from wandb.errors import AuthenticationError

    begin = time.monotonic()
    try:
        yield
    except Exception as error:  # whatever wandb raises
        waited = time.monotonic() - begin >= wandb_run.UPLOAD_TIMEOUT_S
        if waited or isinstance(error, AuthenticationError):
            raise ConfigError(f"W&B: {wandb_run.one_sentence(error)}") from error
        refused[log] = explain(error) or wandb_run.one_sentence(error) or type(error).__name__


if __name__ == "__main__":
    main()
