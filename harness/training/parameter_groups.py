"""Parameters of a network in groups, each with its own weight decay and a constant multiple of the LR."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any

from torch import nn

from harness.config.errors import ConfigError, nearest
from harness.config.schema import Optimizer, ParameterGroup

if TYPE_CHECKING:
    from harness.config.schema import Parameters


def parameter_groups(network: nn.Module, settings: Optimizer) -> Parameters:
    """Return what torch's optimizers take: the network's parameters or, if the settings make groups, those.

    A group is a dictionary of `params`, `weight_decay` and `lr_factor`. Parameters with equal values
    share a group, in the network's order, whatever the order of the settings. Raises `ConfigError` for a
    pattern that fits no parameter, and for two that fit the same.
    """
    if settings.no_decay == "none" and not settings.groups:
        return list(network.parameters())
    named = dict(network.named_parameters())
    entries = _by_name(list(named), settings.groups or [])
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in named.items():
        entry = entries.get(name, ParameterGroup(params=name))
        decay = settings.weight_decay * entry.weight_decay_factor
        if settings.no_decay == "norm_bias" and _is_norm_or_bias(name, parameter):
            decay = 0.0
        new = {"params": [], "weight_decay": decay, "lr_factor": entry.lr_factor}
        groups.setdefault((decay, entry.lr_factor), new)["params"].append(parameter)
    return list(groups.values())


def _by_name(names: list[str], entries: list[ParameterGroup]) -> dict[str, ParameterGroup]:
    found: dict[str, ParameterGroup] = {}
    for entry in entries:
        fitting = [name for name in names if fnmatch.fnmatchcase(name, entry.params)]
        if not fitting:
            begins = {f"{first}.*" if rest else first for first, _, rest in _parted(names)}
            raise ConfigError(
                f"optimizer.groups: params: {entry.params} fits no parameter of the network; "
                + nearest(entry.params, sorted(begins))
            )
        for name in fitting:
            if name in found:
                raise ConfigError(
                    f"optimizer.groups: params: {found[name].params} and params: {entry.params} both fit "
                    f"{name}, and a parameter has one entry; narrow one of the patterns"
                )
            found[name] = entry
    return found


def _parted(names: list[str]) -> list[tuple[str, str, str]]:
    return [name.partition(".") for name in names]


def _is_norm_or_bias(name: str, parameter: nn.Parameter) -> bool:
    """Return whether it is a bias or has one dimension at most, as timm's `param_groups_weight_decay` has it."""
    return parameter.ndim <= 1 or name.endswith(".bias")
