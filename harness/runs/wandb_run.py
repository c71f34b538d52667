"""The run on Weights & Biases that shows a history."""

from __future__ import annotations

import netrc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from harness.config.errors import ConfigError, one_line
from harness.config.schema import Tracking, Wandb
from harness.config.warnings import warn
from harness.runs.run_dir import MOST_JOB_TYPE, MOST_NAME, short
from harness.training.loop import Row

if TYPE_CHECKING:
    import wandb


@dataclass(frozen=True)
class Label:
    """How a run is called on W&B, which cuts long names; `group` is the sweep's, None outside of one."""

    run_id: str
    name: str
    group: str | None
    arm: str


def wandb_metadata(result: dict[str, Any]) -> tuple[Label, dict[str, Any]]:
    """Return how the run of `result` is called on W&B, and its config there."""
    label = Label(result["run_id"], result["name"], result["group"], result["arm"])
    return label, {**result["config"], "plan": result["plan"], "overrides": result["overrides"]}


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Return what W&B's summary adds to the last row: how the run ended, and the test's metrics.

    After a resume W&B takes `max` over the rows since then, so it is set here.
    """
    added = {**result.get("test", {}), "status": result["status"]}
    if result.get("final"):
        added["val/acc"] = {"last": result["final"]["val/acc"], "max": result["best"]["val/acc"]}
    return added


INCOMPLETE = "incomplete"  # a file in wandb's folder of a run that is not wholly there, or not sent
_INIT_SECONDS = 10  # how long a run's start waits for the server
UPLOAD_TIMEOUT_S = 60  # how long an upload that was asked for does
_FINISH_SECONDS = 50  # how long an end waits until everything is uploaded


class WandbRun:
    """The W&B run that shows a history; without one (`tracking=none`), nothing happens.

    It is never in the way: where the server does not answer, the run is logged offline, and so are
    those after it in this process.
    """

    _given_up = False  # for all runs of this process, so that a sweep waits for a dead server once

    def __init__(self, run: wandb.Run | None, sync: Path | None = None) -> None:
        self._run, self._sync = run, sync  # what to sync if it cannot be uploaded now; None: raise
        self._lost = False

    @classmethod
    def open(cls, config: Tracking, label: Label, folder: Path, values: dict[str, Any]) -> WandbRun:
        """Start the W&B run, its files below `folder`; never asks for a key."""
        if not isinstance(config, Wandb) or (mode := _mode(config.mode)) == "disabled":
            return cls(None)
        sync = folder.parent if label.group else folder
        if mode == "online" and not cls._given_up:
            try:
                return cls(start(config, "online", label, folder, values), sync)
            except unreachable() as error:
                cls._give_up(one_sentence(error), sync)
        return cls(start(config, "offline", label, folder, values), sync)

    @classmethod
    def _give_up(cls, reason: str, sync: Path) -> None:
        import wandb

        with suppress(Exception):  # as where wandb's own process is gone
            wandb.teardown()  # or the failed run keeps its id
        cls._given_up = True
        warn(
            f"W&B: {reason}. Nothing is lost: runs are logged offline from here on; "
            f"later: python scripts/wandb_sync.py {sync}"
        )

    @property
    def where(self) -> str:
        """Return the page of the run, or the local folder of one that is not uploaded; empty without any."""
        if self._run is None:
            return ""
        local = self._run.offline or self._lost
        return str(Path(self._run.dir).parent) if local else str(self._run.url)

    def log(self, row: Row) -> None:
        """Log a row, unless the server has it from before a resume."""
        if self._run is not None and row["step"] >= self._run.starting_step:
            self._send(lambda run: run.log(row, step=int(row["step"]), commit=True))

    def attach(self, artifact: wandb.Artifact) -> None:
        self._send(lambda run: run.log_artifact(artifact))

    def finish(self, summary: dict[str, Any], exit_code: int) -> None:
        self._send(lambda run: run.summary.update(summary))
        self._send(lambda run: run.finish(exit_code=exit_code))

    def _send(self, what: Callable[[wandb.Run], object]) -> None:
        """Call `what` with the run. Losing W&B costs a warning: its upload may not end, its process be killed."""
        if self._run is None or self._lost:
            return
        try:
            what(self._run)
        except Exception as error:  # wandb may raise anything
            if self._sync is None:
                raise
            self._lost = True
            (Path(self._run.dir).parent / INCOMPLETE).touch()
            self._give_up(one_sentence(error), self._sync)


def one_sentence(error: Exception | str) -> str:
    return one_line(str(error)).rstrip(".")


def start(
    config: Wandb,
    mode: Literal["online", "offline"],
    label: Label,
    folder: Path,
    values: dict[str, Any],
    timeout_seconds: float = _INIT_SECONDS,
) -> wandb.Run:
    """Return a W&B run, `mode` online or offline; online it goes on where the server's run of this id ends.

    Raises `ConfigError` without a key, and what wandb raises if the server does not answer.
    """
    _before_import(mode)
    import wandb

    if mode == "offline":
        archive_offline_runs(folder)
    _read_packages_once()
    _keep_files_in(folder)
    try:
        run = wandb.init(
            project=config.project,
            entity=config.entity,
            id=label.run_id,
            name=short(label.name),
            group=short(label.group) if label.group else None,
            job_type=short(label.arm, MOST_JOB_TYPE),
            tags=config.tags,
            config=values,
            dir=folder,
            mode=mode,
            resume=None if mode == "offline" else "allow",
            reinit="create_new",
            settings=_settings(timeout_seconds),
        )
    except (wandb.errors.UsageError, ValueError) as error:
        raise ConfigError(f"tracking.mode={mode}: {_reason(error)}") from error
    run.define_metric("epoch", hidden=True)
    run.define_metric("*", step_metric="epoch")
    run.define_metric("val/acc", step_metric="epoch", summary="max,last")
    return run


def _settings(timeout_seconds: float) -> wandb.Settings:
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",
        x_transaction_log_flush_interval=1,
        init_timeout=timeout_seconds,
        finish_timeout=_FINISH_SECONDS,
        finish_timeout_raises=True,
    )


@cache
def _read_packages_once() -> None:
    """Read once which packages are installed: for every run wandb would do so again, in 60 ms."""
    from wandb import util

    installed = tuple(util.working_set())
    util.working_set = lambda: iter(installed)


def unreachable() -> tuple[type[Exception], ...]:
    """Return what wandb raises where a server does not answer, or not in time."""
    from wandb.errors import CommError

    return (CommError, TimeoutError)


def archive_offline_runs(folder: Path) -> None:
    """Rename offline runs of an earlier attempt: the new one holds all their rows again."""
    for old in (folder / "wandb").glob("offline-run-*"):
        old.rename(old.with_name(f"replaced-{old.name}"))


def _mode(wanted: str) -> str:
    """Return the mode in use: `auto` is WANDB_MODE if set; else online where there is a key, and otherwise offline."""
    if wanted != "auto":
        return wanted
    if mode := os.environ.get("WANDB_MODE"):
        if mode not in ("online", "offline", "disabled"):
            raise ConfigError(f"WANDB_MODE={mode}: must be online, offline or disabled")
        return mode
    return "online" if _has_key() else "offline"


_NO_KEY = (
    "tracking.mode=online: there is no W&B key; run `wandb login`, or use tracking.mode=offline"
)


def check(config: Tracking, no_key: str = _NO_KEY) -> None:
    """Raise `ConfigError` for what wandb would refuse when a run starts: its environment, a missing key."""
    if not isinstance(config, Wandb) or (mode := _mode(config.mode)) == "disabled":
        return
    _before_import(mode)
    import wandb
    from wandb.sdk.lib import wbauth

    settings = wandb.Settings(silent=True)
    own = Path(os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb"), "settings")
    settings.settings_system = os.path.expanduser(own)
    settings.update_from_system_settings()
    for name, value in os.environ.items():
        if name.startswith("WANDB_"):
            with _refused(name):  # the value may be secret
                settings.update_from_env_vars({name: value})
    for name, most in (("WANDB_RUN_GROUP", MOST_NAME), ("WANDB_JOB_TYPE", MOST_JOB_TYPE)):
        if len(os.environ.get(name, "")) > most:
            raise ConfigError(f"{name}: W&B takes at most {most} characters")
    for name in (wandb.env.DATA_DIR, wandb.env.CACHE_DIR):
        if (given := os.environ.get(name)) and not _writable(Path(given)):
            raise ConfigError(
                f"{name}={given}: cannot be written to; unset it, or name another folder"
            )
    if (key := os.environ.get("WANDB_API_KEY")) and (wrong := wbauth.check_api_key(key)):
        raise ConfigError(f"WANDB_API_KEY: {one_sentence(wrong)}; change or unset it")
    if mode == "online" and not (_has_key() or settings.api_key or settings.identity_token_file):
        raise ConfigError(no_key)


def _before_import(mode: str) -> None:
    """Set what wandb reads when it is imported."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # wandb's reports about itself
    if mode == "offline":
        os.environ["WANDB_MODE"] = "offline"  # keeps wandb from opening any socket


@contextmanager
def _refused(name: str) -> Iterator[None]:
    """Raise what wandb and pydantic raise for a setting as a `ConfigError` that begins with `name`."""
    from wandb.errors import Error

    try:
        yield
    except (Error, ValueError) as error:
        raise ConfigError(f"{name}: {_reason(error)}; change or unset it") from error


def _reason(error: Exception) -> str:
    """Return what is wrong, without pydantic's lines about the value and its own pages."""
    errors: Any = getattr(error, "errors", None)
    return "; ".join(one["msg"] for one in errors()) if errors else one_sentence(error)


def _keep_files_in(folder: Path) -> None:
    """Make wandb keep its logs and its copies of artifacts in `folder` where it cannot in the user's home."""
    from wandb import env

    for name, used in ((env.DATA_DIR, env.get_data_dir()), (env.CACHE_DIR, env.get_cache_dir())):
        if not _writable(Path(used)):
            os.environ[name] = str((folder / "wandb").absolute())


def _writable(folder: Path) -> bool:
    """Return whether `folder` can be written to, or made."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK, effective_ids=True)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    try:  # as `wandb login` writes it, with the port
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except FileNotFoundError:
        return False
    except (netrc.NetrcParseError, OSError) as error:
        warn(f"no W&B key is read from netrc: {error}")
        return False
