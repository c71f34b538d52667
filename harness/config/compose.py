"""From what Hydra composed to a `Config`: training, store and the run itself see no `DictConfig`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import textwrap
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

from harness.config import extensions, hydra_private, measures
from harness.config.errors import ConfigError, nearest
from harness.config.fields import Section, show
from harness.config.hints import unknown_key
from harness.config.registry import CONF, KINDS, METRICS, group_files, is_builtin
from harness.config.schema import Config
from harness.config.values import SAME_RUN, flat, to_dict, without_added

PROJECT = "HARNESS_PROJECT"  # the checkout that a copy of the code was made of


def register_schema() -> None:
    """Make the sections known to Hydra, as the `schema` group that the files in `conf/` build on."""
    hydra_private.share_config_store()
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for group, kinds in KINDS.items():
        for name, node in kinds.items():
            store.store(group=f"schema/{group}", name=name, node=node, package=group)
            if not is_builtin(node):  # which no file of conf/ chooses
                store.store(group=group, name=name, node=node)
    OmegaConf.register_new_resolver("groups", _groups, replace=True)
    OmegaConf.register_new_resolver("unused", unused_folder, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("project", _project, replace=True)
    OmegaConf.register_new_resolver("epochs", _in_epochs, replace=True)


def unused_folder(path: str) -> str:
    """Make the folder `path`, with a number behind its name if it is there: the resolver `${unused:}`.

    Two commands of one second then have two folders.
    """
    candidate = Path(path)
    candidate.parent.mkdir(parents=True, exist_ok=True)
    for number in count(2):
        try:
            candidate.mkdir()
        except FileExistsError:
            candidate = Path(f"{path}_{number}")
        else:
            break
    return str(candidate)


def _groups() -> str:
    """Resolve `${groups:}` of the help: all choices, those of this command line starred."""
    chosen = HydraConfig.get().runtime.choices
    found = group_files()
    indent = 4 + max(map(len, found))
    return "\n".join(
        textwrap.fill(
            "  ".join(f"{name}*" if name == chosen.get(group) else name for name in names),
            width=80,
            initial_indent=f"  {group}".ljust(indent),
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
        )
        for group, names in found.items()
    )


def _project() -> str:
    """Resolve `${project:}`: the checkout, also for a copy of its code on another machine."""
    return os.environ.get(PROJECT, str(CONF.parent))


def _in_epochs(default: Any, *, _parent_: DictConfig) -> Any:
    """Return a default duration, as in `t_0: ${epochs:5}`; raise `ConfigError` where durations count updates."""
    if (_parent_.unit, _parent_.interval) == ("batch", "batch"):
        raise ConfigError(f"its default, {show(default)}, counts epochs")
    return default


def load(composed: DictConfig) -> Config:
    """Return the typed, checked configuration that Hydra composed.

    Raises `ConfigError` for a value out of its range, for one that is not given, and for a key that `+` added to the schema.
    """
    try:
        config = OmegaConf.to_object(composed)
    except InterpolationResolutionError as error:
        cause: BaseException | None = error
        while cause and not isinstance(cause, ConfigError):
            cause = cause.__context__
        if cause is None:
            raise
        key = error.full_key
        raise ConfigError(
            f"{key}: {cause}; with scheduler.unit=batch give updates, {key}=VALUE"
        ) from None
    except MissingMandatoryValue:
        key = min(OmegaConf.missing_keys(composed))
        if key in KINDS:
            names = ", ".join(group_files()[key])
            raise ConfigError(f"{key}: a run needs one; choose from {names}") from None
        given, entry, _ = key.partition("[")
        fix = f"'{given}=[{{{key.rpartition('.')[2]}: VALUE}}]'" if entry else f"{key}=VALUE"
        raise ConfigError(f"{key}: has no value; give one with {fix}") from None
    assert isinstance(config, Config)
    extensions.check_loaded(config.extensions)
    config.extensions = extensions.loaded()
    if len({*config.metrics}) < len(config.metrics):
        raise ConfigError(f"metrics={show(config.metrics)}: name each metric once")
    for metric in config.metrics:
        if metric not in METRICS:
            fix = nearest(metric, sorted(METRICS)) if METRICS else "no extension registers one"
            raise ConfigError(f"metrics={show(config.metrics)}: {metric}: {fix}")
    measures.of_claim(config.claim.metric, config.metrics)
    for section in (config, *vars(config).values()):
        if isinstance(section, Section):
            known = {f.name for f in dataclasses.fields(section)}
            for name in [name for name in vars(section) if name not in known]:
                given = f"{section.section}.{name}={show(getattr(section, name))}".lstrip(".")
                raise ConfigError(f"{given}: {unknown_key(type(section), name, given)}")
    return config


@dataclass(frozen=True)
class Composed:
    """A checked configuration, and the text of each value that was given as `${…}`, by its key."""

    config: Config
    interpolated: dict[str, Any]

    @cached_property
    def values(self) -> dict[str, Any]:
        """Return `to_dict` of the configuration."""
        return to_dict(self.config)

    @cached_property
    def sha256(self) -> str:
        """Return a hash that is equal for two jobs that are the same run of a sweep.

        A value given as `${…}` counts by its text: what `${now:%f}` or `${oc.env:NAME}` came to when
        the sweep was planned is what the run is trained with.
        """
        values = flat(without_added(self.config)) | self.interpolated
        same = {key: value for key, value in values.items() if not key.startswith(SAME_RUN)}
        return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


def load_composed(composed: DictConfig) -> Composed:
    """Return what `load` does, with the text of interpolations. Raises `ConfigError`."""
    raw: Any = OmegaConf.to_container(composed, resolve=False)
    texts = {key: value for key, value in flat(raw).items() if "${" in str(value)}
    return Composed(load(composed), texts)
