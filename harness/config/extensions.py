"""Python files of the user's own that add models, data sets, optimizers and schedules to choose from.

They are named by `extensions=[mine.py]` of a command, and by the environment, which a command hands on to
the processes and jobs that it starts; by no file that a sweep, a store or somebody else wrote.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

from hydra.core.override_parser.overrides_parser import OverridesParser

from harness.config import measures, own_class, registry
from harness.config.errors import ConfigError
from harness.config.fields import Section, choice, duration, number, without_effect
from harness.config.schema import Config, Metric
from harness.config.source import Source, source_of

VARIABLE = "HARNESS_EXTENSIONS"  # paths and modules, parted by commas
_KEY = "extensions="
_PLACES = "places.json"  # of what is shipped: the folder and the file of each
_LOADED: dict[str, str] = {}  # by path or module, the name of the module
_SOURCES: dict[type[Section], Source] = {}
_NO_NAMES = ("null", "none", "nan", "inf", "true", "false", "default")
S = TypeVar("S", bound=type[Section])


def load(words: Sequence[str]) -> bool:
    """Load what the environment and the overrides among `words` name, relative paths from the current folder.

    Return whether anything was; what is loaded already stays. Processes that this one starts load the same. Raises `ConfigError` for what cannot be loaded.
    """
    named = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    for word in words:
        if word.startswith(_KEY):
            named += _names(word)
    new = [name for name in dict.fromkeys(map(_absolute, named)) if name not in _LOADED]
    for name in new:
        _LOADED[name] = _load(name)
    if new:
        os.environ[VARIABLE] = ",".join(_LOADED)
    return bool(new)


def loaded() -> list[str]:
    """Return the absolute paths, and the modules, that are loaded."""
    return list(_LOADED)


def ship(folder: Path) -> None:
    """Copy the code of what is loaded below `folder`, for `load_shipped` on another machine."""
    roots: dict[Path, str] = {}
    places = {}
    for name, module in _LOADED.items():
        code = source_of(module)
        root = folder / roots.setdefault(code.root, str(len(roots)))
        for own, content in code.files.items():
            copy = root / own
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
        places[name] = [root.name, code.path.relative_to(code.root).as_posix()]
    if places:
        (folder / _PLACES).write_text(json.dumps(places))


def load_shipped(folder: Path, names: Sequence[str]) -> None:
    """Load from `folder` what `loaded` returned where it was shipped, under the same names.

    On the machine that shipped it Python would find the original: its folder is taken from where Python looks.
    """
    new = [name for name in names if name not in _LOADED]
    places = json.loads((folder / _PLACES).read_text()) if new else {}
    for name in new:
        place, file = places[name]
        root = folder / place
        if not os.path.isabs(name):
            _make_importable(str(root))
            _LOADED[name] = _load(name)
            continue
        own = root / Path(name).name
        with suppress(FileExistsError):  # a link is shipped as what it leads to
            own.symlink_to(root / file)
        _forget(os.path.dirname(name))
        _LOADED[name] = _load(str(own))


def check_loaded(names: Sequence[str]) -> None:
    """Raise `ConfigError` for an extension that a file of the configuration names, and no command."""
    for name in names:
        if _absolute(name) not in _LOADED:
            raise ConfigError(
                f"{_KEY}[{name}]: stands in a file of the configuration, which loads no code; give it with "
                f"the command, or in the environment as {VARIABLE}"
            )


@dataclass_transform(field_specifiers=(number, duration, choice, without_effect))
def register(name: str) -> Callable[[S], S]:
    """Decorate a class of one's own with the name by which it is chosen; `@register("mine")` makes it a dataclass.

    It is a `Model`, a `Dataset`, an `Optimizer`, a `Scheduler` or a `Metric`. Raises `ConfigError` for a name that is
    taken, or that the command line would read as something else, and for a class that cannot be chosen by a key.
    """
    if not isinstance(name, str):
        raise ConfigError('@register: has no name; write @register("mine")')

    def add(node: S) -> S:
        own_class.check_base(name, node)
        own = f"{node.section}={name}"
        if not name.isidentifier() or name.lower() in _NO_NAMES:
            raise ConfigError(f"{own}: must be a name of letters, digits and _, that is no value")
        kinds: dict[str, Any] = (
            registry.METRICS if issubclass(node, Metric) else registry.KINDS[node.section]
        )
        known = kinds.get(name)
        if known and (known.__module__, known.__name__) != (node.__module__, node.__name__):
            raise ConfigError(f"{own}: is there already; give {node.__name__} another name")
        if issubclass(node, Metric):
            _check_metric(own, name, node)
        if "__dataclass_fields__" not in vars(node):
            dataclass(node)
        node.__hash__ = _hash  # type: ignore[method-assign, assignment]
        own_class.check_fields(own, node)
        kinds[name] = node
        registry.group_files.cache_clear()
        _SOURCES[node] = source_of(node.__module__)
        return node

    return add


def _check_metric(own: str, name: str, node: type[Metric]) -> None:
    """Raise `ConfigError` for a metric whose name is taken, or which does not say what its number means."""
    if name in measures.BUILTIN:
        raise ConfigError(f"{own}: is there already; give {node.__name__} another name")
    if not hasattr(node, "better"):
        raise ConfigError(f'{own}: does not say which is better; add better = "higher" or "lower"')
    try:
        measures.Measure(node.better, node.unit)
    except ValueError as error:
        raise ConfigError(f"{own}: {error}") from None


def _hash(section: Section) -> int:
    return hash(repr(section))  # a field may be a list


def source(section: Section | type[Section]) -> Source | None:
    """Return the code that `section` comes from; None for those of the package."""
    return _SOURCES.get(section if isinstance(section, type) else type(section))


def sources(config: Config) -> list[Source]:
    """Return the code of extensions that a configuration uses: of its sections and its metrics."""
    return [code for _, code in _own_sections(config)]


def _names(word: str) -> list[str]:
    """Return what an override names. Raises `ConfigError` unless it is a list."""
    value = OverridesParser.create().parse_override(word).value()
    if not isinstance(value, list):
        raise ConfigError(f"{word}: is a list; write {_KEY}[{word.removeprefix(_KEY)}]")
    return [str(getattr(one, "text", one)) for one in value]


def _absolute(name: str) -> str:
    is_path = name.endswith((".py", ".ipynb")) or os.sep in name
    return os.path.abspath(os.path.expanduser(name)) if is_path else name


def _load(name: str) -> str:
    """Import a file or a module; return the module's name. Raises `ConfigError` if that fails."""
    path, module = Path(name), name
    given = f"{_KEY}[{name}]"
    if path.is_absolute():
        if path.is_dir():
            raise ConfigError(f"{given}: is a folder; name the file in it that registers a class")
        if not path.is_file():
            raise ConfigError(f"{given}: there is no such file")
        if path.suffix != ".py" or not path.stem.isidentifier():
            raise ConfigError(f"{given}: must have a name that Python can import, as in mine.py")
        module = path.stem
        _make_importable(str(path.parent))
    before = len(_SOURCES)
    try:
        found = importlib.import_module(module)
    except ConfigError as error:
        raise ConfigError(f"{error}{_place(error, path)}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{given}: {describe(error, path)}{_import_fix(error, name)}") from error
    if path.is_absolute() and not _is(found.__file__, path):
        raise ConfigError(
            f"{given}: Python has another module {module} ({found.__file__}); rename the file"
        )
    if before == len(_SOURCES) and not any(node.__module__ == module for node in _SOURCES):
        raise ConfigError(f'{given}: registers nothing; put @register("NAME") before a class')
    return module


def _import_fix(error: BaseException, name: str) -> str:
    """Return what to do about an error of an import, for those whose text does not say it."""
    if isinstance(error, SystemExit):
        return '; begin what the file does as a program with if __name__ == "__main__":'
    if "attempted relative import" in str(error):
        return "; write import NAME, or name it as a module of its package, extensions=[PACKAGE.MODULE]"
    if isinstance(error, ModuleNotFoundError) and Path(f"{name}.py").is_file():
        return f"; did you mean {name}.py?"
    return ""


def _is(file: str | None, path: Path) -> bool:
    return file is not None and os.path.realpath(file) == os.path.realpath(path)


def _make_importable(folder: str) -> None:
    """Let this process, and those that it starts, import from `folder` what no other place has."""
    if folder in sys.path:
        return
    sys.path.append(folder)
    paths = [*filter(None, [os.environ.get("PYTHONPATH")]), folder]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def _forget(folder: str) -> None:
    sys.path[:] = [path for path in sys.path if path != folder]
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path != folder)


@contextmanager
def own_code(section: Section, what: str) -> Iterator[None]:
    """Raise errors of a section's own code as a `ConfigError` of one line with its place; others as they are."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        code = source(section)
        if code is None:
            raise
        raise ConfigError(f"{_given(section)}: {what}: {describe(error, code.path)}") from error


@contextmanager
def any_own_code(config: Config) -> Iterator[None]:
    """Raise errors that come from the code of an extension of `config` as `own_code` does; others as they are."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        files = {Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)}
        for section, code in _own_sections(config):
            if files & {code.root / name for name in code.files}:
                raise ConfigError(f"{_given(section)}: {describe(error, code.path)}") from error
        raise


def _own_sections(config: Config) -> Iterator[tuple[Section | type[Section], Source]]:
    parts = [part for part in vars(config).values() if isinstance(part, Section)]
    used: list[Section | type[Section]] = [*parts, *(registry.METRICS[n] for n in config.metrics)]
    for section in used:
        if code := source(section):
            yield section, code


def _given(section: Section | type[Section]) -> str:
    """Return how a command chooses a section."""
    if section.section == Metric.section:
        return f"metrics=[{registry.kind(section)}]"
    return f"{section.section}={registry.kind(section)}"


def describe(error: BaseException, path: Path) -> str:
    """Return an error as `ValueError: TEXT (mine.py, line 3)`; the line is the last in the folder of `path`."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, SyntaxError) and error.filename:
        return f"SyntaxError: {error.msg} ({Path(error.filename).name}, line {error.lineno})"
    return text + _place(error, path)


def _place(error: BaseException, path: Path) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_beside(frame.filename, path)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _is_beside(file: str, path: Path) -> bool:
    return path.is_absolute() and Path(file).parent == path.parent
