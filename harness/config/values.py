"""Configurations as plain values: for results, hashes and comparisons, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.config import extensions, registry
from harness.config.errors import ConfigError
from harness.config.fields import Section, show
from harness.config.registry import kind
from harness.config.schema import Config, Dataset, Model, Optimizer, Scheduler

_BASES: dict[str, type[Section]] = {
    base.section: base for base in (Model, Dataset, Optimizer, Scheduler)
}


def to_dict(config: Config) -> dict[str, Any]:
    """Return `config` as plain values, each section with its `kind`: for W&B, results and hashes.

    A section of the user's own code has the hash of that as `source`; of metrics, where there are any,
    `metric_sources` has them by name.
    """
    values = {
        f.name: _section_to_dict(value)
        if isinstance(value := getattr(config, f.name), Section)
        else value
        for f in dataclasses.fields(config)
    }
    if config.metrics:
        codes = {name: extensions.source(registry.METRICS[name]) for name in config.metrics}
        values["metric_sources"] = {n: code and code.sha256 for n, code in sorted(codes.items())}
    return values


def _section_to_dict(section: Section) -> dict[str, Any]:
    code = extensions.source(section)
    known = {} if code is None else {"source": code.sha256}
    return {"kind": kind(section), **known, **dataclasses.asdict(section)}


def without_added(config: Config) -> dict[str, Any]:
    """Return `to_dict` without the keys that were `added` later and change nothing."""
    values = to_dict(config)
    for section, kept in [
        (config, values),
        *((getattr(config, n), values[n]) for n in registry.KINDS),
    ]:
        for name, before in _before(type(section)).items():
            if getattr(section, name) == before:
                del kept[name]
    return values


def _before(section: type[Section]) -> dict[str, Any]:
    """Return the `added` keys of a section, with the value of each that changes nothing."""
    fields = dataclasses.fields(section)
    return {f.name: f.metadata["before"] for f in fields if "before" in f.metadata}


def completed(values: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded `to_dict` with keys that are newer than it, at their values of before they existed.

    Of a kind that is not registered here these are the keys of its base class.
    """
    whole = {
        name: _section_to_dict(value) if isinstance(value, Section) else value
        for name, value in _before(Config).items()
    }
    found = whole | values
    for group, kinds in registry.KINDS.items():
        section = values.get(group)
        if isinstance(section, dict) and "kind" in section:
            node = kinds.get(section["kind"], _BASES.get(group))
            found[group] = (_before(node) if node else {}) | section
    return found


# What leaves a run the one that was planned: where its files go, and whether it is trained at all.
SAME_RUN = (
    "store.", "tracking.", "ledger.", "extensions", "reuse", "retry", "trainer.checkpoint_every", "claim.title",
)  # fmt: skip


_SAME_WEIGHTS = (*SAME_RUN, "claim.")  # its claim is the one of the sweep's plan.json


def changes(
    then: dict[str, Any], now: dict[str, Any], allowed: tuple[str, ...] = _SAME_WEIGHTS
) -> list[str]:
    """Return what would make it another run, as `KEY=NOW (was THEN)`, between two of `to_dict`.

    Keys that begin with one of `allowed` may differ.
    """
    before, after = flat(completed(then)), flat(completed(now))
    return [
        f"{key}={show(after.get(key))} (was {show(before.get(key))})"
        for key in sorted(before.keys() | after.keys())
        if not key.startswith(allowed) and before.get(key) != after.get(key)
    ]


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """Return `{"optimizer": {"lr": 0.1}, "seed": 0}` as `{"optimizer.lr": 0.1, "seed": 0}`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        parts = value if isinstance(value, dict) else {"": value}
        found |= {f"{name}.{key}".rstrip("."): part for key, part in parts.items()}
    return found


def from_dict(values: dict[str, Any]) -> Config:
    """Return the `Config` that `to_dict` made `values` of. Raises `ConfigError` if they do not fit.

    Keys that were `added` since then have the value of before they existed.
    """
    try:
        for name, sha256 in values.get("metric_sources", {}).items():
            _refuse_other_code(f"metrics=[{name}]", registry.METRICS.get(name), sha256)
        parts = {
            name: section_from_dict(name, value) if name in registry.KINDS else value
            for name, value in values.items()
            if name != "metric_sources"
        }
        return Config(**_before(Config) | parts)
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"a recorded configuration is not of this version: {error}") from error


def section_from_dict(group: str, values: dict[str, Any]) -> Section:
    """Return one section of a recorded configuration. Raises KeyError or TypeError if it does not fit."""
    node, given = registry.KINDS[group].get(values["kind"]), f"{group}={values['kind']}"
    if node is None and "source" not in values:
        raise KeyError(given)
    node = _refuse_other_code(given, node, values.get("source"))
    return node(**_before(node) | {k: v for k, v in values.items() if k not in ("kind", "source")})


def _refuse_other_code(given: str, node: type[Section] | None, sha256: str | None) -> type[Section]:
    """Return the class that a choice names. Raises `ConfigError` unless it is there, and its code that of then."""
    if node is None:
        raise ConfigError(
            f"{given}: is of an extension; name it in the environment as {extensions.VARIABLE}"
        )
    code = extensions.source(node)
    if sha256 != (code and code.sha256):
        raise ConfigError(
            f"{given}: its code is not that of then; {code and code.path} was edited, or is another"
        )
    return node
