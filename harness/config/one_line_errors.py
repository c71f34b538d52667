"""Errors as one line that names the key and the fix."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    ValidationError,
)
from yaml import YAMLError  # type: ignore[import-untyped]

from harness.config import hints, streams
from harness.config.errors import ConfigError, nearest, one_line
from harness.config.fields import Section, describe_constraint

_FULL = "HYDRA_FULL_ERROR"
_EXTRAS = {  # files that plugins of Hydra bring
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/joblib": "parallel",
    "hydra/sweeper/optuna": "search",
}
_MEMORY = (
    "out of memory: lower trainer.batch_size, the model's size (model.width) or the data's "
    "(dataset.train_size, dataset.images)"
)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print errors that a user can fix as one line, and exit with 1."""
    streams.secure()
    os.environ.setdefault(_FULL, "1")  # Hydra then raises its errors instead of printing them
    if os.path.expanduser("~") == "~":  # a user without an account, in a container
        os.environ["HOME"] = os.sep  # altair and wandb insist on one
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a terminal that cannot show ± is no error
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        report(error)
        raise SystemExit(1) from None


class Attempts:
    """Steps that are all tried, even if one before has failed.

    `failures` has a line for each that failed; errors of the types `refusals` are raised all the same.
    """

    def __init__(self, *refusals: type[Exception]) -> None:
        self.failures: list[str] = []
        self._refusals = refusals

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        try:
            yield
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except self._refusals:
            raise
        except (
            BaseException
        ) as error:  # the libraries written in Rust raise no Exception when they panic
            line = explain(error) or f"{type(error).__name__}: {error}"
            self.failures.append(f"{what}: {one_line(line)}")


def report(error: Exception, label: str = "", full: bool = False) -> None:
    """Print `error` on stderr: one line if a user can fix it; otherwise, or if `full`, its traceback too."""
    line = explain(error)
    if full or line is None:
        traceback.print_exception(error)
    line = line or f"{type(error).__name__}: {error}"
    if line.startswith(label.removesuffix(": ")):
        label = ""
    print(f"error: {label}{line}", file=sys.stderr)


def explain(error: BaseException) -> str | None:
    """Return one line that names the key and the fix; None for errors that are ours, not the user's."""
    line = _explain(error)
    return line and one_line(line)


def _explain(error: BaseException) -> str | None:
    text = " ".join(str(error).split()).partition(" Config search path:")[0]
    if about_job := _explain_job(error):
        return about_job
    match error:
        case MissingConfigException(missing_cfg_file=str(missing)) if missing in _EXTRAS:
            extra = _EXTRAS[missing]
            return (
                f"{missing.rpartition('/')[0]}: a package is missing; pip install -e '.[{extra}]'"
            )
        case MissingConfigException(missing_cfg_file=str(missing), options=options) if options:
            group, _, name = missing.removesuffix(".yaml").rpartition("/")
            return hints.unknown_choice(group, name, options)
        case OverrideParseException(override=given):
            return hints.unreadable(given)
        case ConfigCompositionException():
            if several := re.match(r"(?:Ambiguous value .*?|Sweep parameters) '(.*?)'", text):
                return hints.several_values(several[1])
            cause = error.__cause__ or error.__context__
            if isinstance(cause, OmegaConfBaseException):
                return _explain_omegaconf(cause, str(error))
            return hints.instead_of(text) or text
        case OmegaConfBaseException():
            return _explain_omegaconf(error)
        case HydraException() | YAMLError():
            return hints.instead_of(text) or text
        case ConfigError():
            return text + hints.half_of_fraction(text)
        case ValueError() if text.startswith(("Only one of", "Invalid defaults list")):
            return hints.instead_of(text)
        case TypeError() if text.startswith("Index '"):
            return f"{_override(error)}: the key before it is a list, which has no keys"
        case ValueError() | TypeError() if override := _group_override(error):
            return f"{override}: a group takes the name of one of its choices; see --help"
    return _explain_surroundings(error, text)


def _explain_surroundings(error: BaseException, text: str) -> str | None:
    """Explain what a machine lacks: room, a file, memory. `text` is that of the error."""
    match error:
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return (
                f"{text}: make room (hydra.run.dir, hydra.sweep.dir, store.dir), "
                "then the same command goes on"
            )
        case OSError():
            return text
        case MemoryError():
            return f"{_MEMORY} ({text or 'Python'})"
        case RuntimeError() if "OutOfMemory" in type(error).__name__ or "allocate memory" in text:
            return f"{_MEMORY} ({text.partition('. ')[0]})"
        case RuntimeError() if text.startswith("DataLoader worker"):
            return (
                "dataset.workers: a process that reads images died, perhaps for want of memory; "
                f"lower dataset.workers or trainer.batch_size ({text.partition('. ')[0]})"
            )
    return None


def _explain_job(error: BaseException) -> str | None:
    """Explain what submitit and joblib raise in the process that starts jobs and waits for them."""
    text = str(error)
    match type(error).__name__:
        case "FailedJobError" if text.startswith("sbatch"):
            return f"hydra.launcher: not accepted by Slurm: {' '.join(text.split())}"
        case "UncompletedJobError":
            lost = re.match(r"Job (\S+) .*?with path (.*)/\.submitit/.*\n.*\(state: (.*?)\)", text)
            if lost is None:
                return " ".join(text.split())
            job, sweep, state = lost.groups()
            return (
                f"job {job} ended without a result ({state}; log: {sweep}/.submitit/{job}). The other "
                f"jobs go on; when they have ended, scripts/report.py {sweep} makes the report"
            )
        case "TerminatedWorkerError":
            return (
                "the process of a run was killed, which ended the sweep; the same command goes on, "
                "and scripts/report.py SWEEP reports what is there"
            )
    return None


def _explain_omegaconf(error: OmegaConfBaseException, composing: str = "") -> str:
    """Explain an error of OmegaConf; `composing` is Hydra's message around it, with the override or the file."""
    key = (error.full_key or "").partition("[")[0]
    override = re.search(r"(?:Error merging override|To append .*? use) [+~]*(.*)", composing)
    file = re.match(r"In '(.*?)'", composing)
    dangling = isinstance(error, InterpolationResolutionError)
    raw = error.child_node._value() if dangling and error.child_node is not None else error.value
    raw = raw._value() if isinstance(raw, Node) else raw
    given = override[1] if override else f"{key}={raw}" if raw is not None else key
    where = [f"{file[1]}.yaml"] if file else []
    where += [given] if given.partition("=")[0] == key else [given, key]
    return ": ".join([*filter(None, where), _fix(error, given)])


def _fix(error: OmegaConfBaseException, given: str) -> str:
    name, node = error.key, error.parent_node
    while isinstance(node, ListConfig):
        name, node = node._key(), node._get_parent()
    schema = OmegaConf.get_type(node) if isinstance(node, DictConfig) else None
    if isinstance(schema, type) and issubclass(schema, Section):
        if isinstance(error, ConfigKeyError | ConfigAttributeError):
            return hints.unknown_key(schema, str(name), given)
        own = {f.name: f for f in dataclasses.fields(schema)}
        another_type = isinstance(error, ValidationError) or "Cannot merge" in str(error)
        if another_type and name in own:
            key = f"{schema.section}.{name}".lstrip(".")
            return describe_constraint(own[name]) + hints.about_value(key, own[name], error.value)
    elif isinstance(error, ConfigKeyError | ConfigAttributeError) and isinstance(node, DictConfig):
        return f"is not a key; {nearest(str(name), [str(known) for known in node])}"
    text = str(error).partition("\n")[0]
    return hints.instead_of(text) or text


def _group_override(error: Exception) -> str | None:
    """Return the override that Hydra was reading when it raised a bare exception, as for `scheduler=null`."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not frames or not frames[-1].f_globals["__name__"].startswith("hydra."):
        return None
    return _override(error) or "GROUP=NAME"


def _override(error: Exception) -> str:
    """Return the override that Hydra was reading when an exception was raised; "" if none."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    overrides = (getattr(frame.f_locals.get("override"), "input_line", "") for frame in frames)
    return "".join(map(str, overrides))
