"""Everything of Hydra's that its documentation does not promise, each with the reason why it is used.

Tried with hydra-core 1.3.8. After an upgrade run `tests/test_hydra_private.py`, `tests/test_jobs.py`
and `tests/test_sweep.py`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.plugin import Plugin
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from harness.config.errors import ConfigError
from harness.config.hints import options_in_one_line, refuse_lists

_NOT_SWEPT = ("hydra", "store", "claim", "ledger", "tracking", "reuse", "retry")
SWEEPER = "hydra_plugins.harness.Sweeper"  # `_target_` in conf/hydra/sweeper/harness.yaml
RAY_LAUNCHER = "hydra_plugins.harness.RayLauncher"  # in conf/hydra/launcher/ray.yaml


def take_options_anywhere() -> None:
    """Let `python train.py` take its options between overrides too, and refuse unknown ones in one line.

    Hydra's parser takes overrides in one piece only, and answers a mistake with its whole usage.
    """

    parser: Any = get_args_parser()
    options_in_one_line(parser)

    def parse(*given: Any) -> Any:
        arguments = parser.parse_intermixed_args(*given)
        refuse_lists(arguments.overrides)
        refuse_repeated(arguments.overrides)
        return arguments

    parser.parse_args = parse
    main: Any = importlib.import_module("hydra.main")  # `hydra.main` is the decorator in it
    main.get_args_parser = lambda: parser


def given_options(words: Sequence[str]) -> list[str]:
    """Return the options among the `words` behind `train.py` that say where its configuration is."""
    given, _ = get_args_parser().parse_known_args([*words])
    named = {
        "--config-path": given.config_path,
        "--config-dir": given.config_dir,
        "--config-name": given.config_name,
    }
    return [word for name, value in named.items() if value for word in (name, value)]


def refuse_repeated(words: Sequence[str], sweeps: bool = True) -> None:
    """Raise `ConfigError` if a key is given twice; Hydra would take the last value and say nothing.

    A later `++KEY=VALUE` says that it is meant. The message has what trains each of the values, where the
    command is one that `sweeps`.
    """
    given: dict[str, list[str]] = {}
    for word in words:
        if "=" in word and not (word.startswith("++") and _key(word) in given):
            given.setdefault(_key(word), []).append(word)
    for key, same in given.items():
        if len(same) < 2:
            continue
        texts = [word.partition("=")[2] for word in same]
        values = dict.fromkeys(value for text in texts for value in text.split(","))
        plain = all(re.fullmatch(r"[\w.+-]+", value) for value in values)
        each = sweeps and plain and len(values) > 1 and not key.startswith(_NOT_SWEPT)
        fix = f", or for each of them -m {key}={','.join(values)}" * each
        fix += f"; a later ++{key}=VALUE counts in its place" * sweeps
        raise ConfigError(f"{key}: is given more than once, {' '.join(same)}; keep one{fix}")


def last_given(words: Sequence[str]) -> list[str]:
    """Return `words` with each key once, where it is given first, with the value that is given last."""
    by_key = {_key(word) if "=" in word else place: word for place, word in enumerate(words)}
    return [*by_key.values()]


def _key(word: str) -> str:
    return word.lstrip("+").partition("=")[0]


@contextmanager
def multirun_config(config_dir: Path, overrides: Sequence[str]) -> Iterator[DictConfig]:
    """Yield the configuration that `python train.py -m OVERRIDES` hands to its sweeper.

    `hydra.compose` cannot compose for RunMode.MULTIRUN: it refuses values such as `1,2`.
    """
    refuse_lists(overrides)
    with initialize_config_dir(str(config_dir), job_name="train", version_base="1.3"):
        yield _loader().load_configuration("config", list(overrides), run_mode=RunMode.MULTIRUN)


def _loader() -> ConfigLoader:
    """Return the loader of the command or of the `initialize` block that is running."""
    return GlobalHydra.instance().config_loader()


def share_config_store() -> None:
    """Let copies of the ConfigStore be the store itself: Hydra copies it, whole, at each look at a group."""
    store: Any = ConfigStore.instance()
    store.__deepcopy__ = lambda memo: store


def parse(overrides: Sequence[str]) -> list[Override]:
    """Return `overrides` in the grammar of the command line; `glob(…)` looks into `conf/`."""
    return OverridesParser.create(_loader()).parse_overrides(list(overrides))


def read_value(text: str) -> Any:
    """Return the value that `text` is in the grammar of the command line. Raises `HydraException` for none."""
    return OverridesParser.create().parse_override(f"key={text}").value()


def quote(text: str) -> str:
    """Return `text` as a value in the grammar of the command line."""
    return QuotedString(text, Quote.single).with_quotes()


def split_jobs(overrides: Sequence[Override], shuffle: bool = False) -> list[list[str]]:
    """Return the overrides of each job, in the order in which they are written, or as they say to be shuffled.

    BasicSweeper has no public method for the jobs of a sweep. A plan is not shuffled: the first level is the
    baseline of the claim.
    """
    for override in overrides if not shuffle else ():
        value = override.value() if override.is_sweep_override() else None
        if isinstance(value, ChoiceSweep | RangeSweep):
            value.shuffle = False
    (jobs,) = BasicSweeper.split_arguments(list(overrides), max_batch_size=None)
    return jobs


def register_plugins(plugins: Mapping[str, type[Plugin]]) -> None:
    """Make `plugins` known to Hydra by their names.

    `Plugins.register` uses the name of a class's module, and Hydra instantiates those of `hydra_plugins` alone.
    """
    Plugins.instance().class_name_to_class.update(plugins)


def apply_values(overrides: list[Override], config: DictConfig) -> None:
    """Set single values in a `config` that was composed without them.

    Composing takes a fifth of a second, and the jobs of a sweep mostly differ in values alone.
    """
    ConfigLoaderImpl._apply_overrides_to_config(overrides, config)


def is_group(key: str, search_path: Sequence[str]) -> bool:
    """Return whether `key` names a folder of files to choose from, in `conf/` or in the search path."""
    return bool(_loader().get_group_options(key, ObjectType.CONFIG, "config", list(search_path)))


def sweep_subdir(sweep: DictConfig, overrides: Sequence[str], number: int) -> str:
    """Return what `hydra.sweep.subdir` becomes for a job. Slow: everything is composed again.

    Hydra offers it to the job alone, which has begun by then. The resolver `${hydra:…}` reads a
    singleton, which is therefore replaced for the moment.
    """
    composed = _loader().load_sweep_config(sweep, list(overrides))
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = number
    current: Any = HydraConfig.instance()
    before = current.cfg
    try:
        current.set_config(composed)
        return str(composed.hydra.sweep.subdir)
    finally:
        current.cfg = before
