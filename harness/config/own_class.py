"""What a class of the user's must have to be chosen by a key: a base class, its methods, usable fields."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from omegaconf import MISSING, OmegaConf

from harness.config.errors import ConfigError
from harness.config.fields import check_value
from harness.config.schema import Dataset, Metric, Model, Optimizer, Scheduler

_BASES = (Model, Dataset, Optimizer, Scheduler, Metric)
_RECORDED = ("kind", "source")  # beside the fields, in results


def check_base(name: str, node: Any) -> None:
    """Raise `ConfigError` unless `node` is a class of a base class with all its methods."""
    own = getattr(node, "__name__", str(node))
    bases = (base for base in _BASES if isinstance(node, type) and issubclass(node, base))
    if (base := next(bases, None)) is None:
        names = ", ".join(base.__name__ for base in _BASES)
        raise ConfigError(f"{name}: {own} must be a class of one of harness.extend: {names}")
    if node.section != base.section:
        raise ConfigError(f"{name}: {own} has a field section; give it another name")
    if missing := sorted(node.__abstractmethods__):
        raise ConfigError(f"{node.section}={name}: {own} has no method {', '.join(missing)}")
    for method in sorted(base.__abstractmethods__):
        given, needed = (inspect.signature(getattr(one, method)) for one in (node, base))
        try:
            given.bind(*needed.parameters)
        except TypeError:
            raise ConfigError(
                f"{node.section}={name}: {method} must take ({', '.join(needed.parameters)})"
            ) from None


def check_fields(own: str, node: Any) -> None:
    """Raise `ConfigError` for a field of a dataclass that cannot be a key, and for a default that does not fit."""
    for f in dataclasses.fields(node):
        if f.name in _RECORDED:
            raise ConfigError(f"{own}: a field cannot be called {f.name}; give it another name")
        if issubclass(node, Metric) and f.default == MISSING:
            raise ConfigError(
                f"{own}: {f.name}: has no default, and metrics have no keys; give it one"
            )
    try:
        OmegaConf.structured(node)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"{own}: {reason}; fields are of int, float, bool, str, lists of them, or with | None"
        ) from error
    for f in dataclasses.fields(node):
        default = f.default
        if f.default_factory is not dataclasses.MISSING:
            default = f.default_factory()
        if default not in (MISSING, dataclasses.MISSING):
            check_value(f, f"{node.section}.{f.name}", default)
