"""What the command line adds: one-line errors, the run's place, the exit code."""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from harness import config, sweep
from harness.config import ConfigError, nearest

_FULL = "HYDRA_FULL_ERROR"


def job(composed: DictConfig) -> float:
    """One run at the place that Hydra gives it. Returns the last validation accuracy in percent.

    In a sweep a run that fails does not stop the others: its error is printed and it counts as NaN.
    """
    hydra: Any = HydraConfig.get()
    place = sweep.place(hydra)
    try:
        checked = config.load(composed)
        from harness.run import run

        result = run(checked, place)
    except Exception as error:
        label = f"{place.position} {place.name}: " if place.position else ""
        report(error, label)
        if hydra.mode == RunMode.RUN:
            raise SystemExit(1) from error
        return math.nan
    return float(result["final"].get("val/acc", math.nan))


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print errors that a user can mend as one line, and exit with 1."""
    os.environ.setdefault(_FULL, "1")  # Hydra then raises its errors instead of printing them
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit("interrupted") from None
    except Exception as error:
        report(error)
        raise SystemExit(1) from None


def report(error: Exception, label: str = "") -> None:
    """Print `error` on stderr: one line if a user can mend it, otherwise its traceback."""
    line = explain(error)
    if line is None:
        traceback.print_exception(error)
        line = f"{type(error).__name__}: {error}"
    print(f"error: {label}{line}", file=sys.stderr)


def explain(error: BaseException) -> str | None:
    """One line that names the key and the mend; None for errors that are ours, not the user's."""
    match error:
        case ConfigError():
            return " ".join(str(error).split())
        case MissingConfigException(missing_cfg_file=str(missing), options=options) if options:
            group, _, name = missing.removesuffix(".yaml").rpartition("/")
            return f"{group}={name}: {nearest(name, sorted(options))}"
        case ConfigCompositionException(__cause__=OmegaConfBaseException() as cause):
            return _explain_omegaconf(cause, str(error))
        case OmegaConfBaseException():
            return _explain_omegaconf(error, str(error))
        case HydraException() | OSError():
            return " ".join(str(error).split())
    return None


def _explain_omegaconf(cause: OmegaConfBaseException, message: str) -> str:
    key = cause.full_key or ""
    parent = cause.parent_node
    if isinstance(cause, ConfigKeyError | AttributeError) and isinstance(parent, DictConfig):
        known = [f"{key.rpartition('.')[0]}.{name}".lstrip(".") for name in map(str, parent)]
        return f"{key}: is not a key; {nearest(key, known)}"
    reason = str(cause).splitlines()[0] if str(cause) else message.splitlines()[0]
    return f"{key}: {reason[0].lower()}{reason[1:]}" if key else reason
