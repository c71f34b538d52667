"""Fields of a section, declared with their bounds, and the section that checks them."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

from omegaconf import MISSING

from harness.config.errors import ConfigError, nearest


def number(
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    default: Any = MISSING,
) -> Any:
    """Declare a number (or list of numbers, or null if the type says so) within bounds.

    Without a `default` it is required.
    """
    bounds = {">": above, "≥": at_least, "<": below, "≤": at_most}
    return _field(default, {"bounds": {sign: b for sign, b in bounds.items() if b is not None}})


def _field(default: Any, metadata: dict[str, Any]) -> Any:
    if isinstance(default, list):  # each object has its own
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def duration(*, default: Any = MISSING, **least: float) -> Any:
    """Declare, as by `number`, a number of epochs or updates, small enough for floats to count exactly."""
    return number(**least, at_most=1e9, default=default)


def choice(*names: str, default: Any = MISSING) -> Any:
    """Declare a string, one of `names`; required without a `default`."""
    return _field(default, {"choices": names})


def without_effect(declared: Any) -> Any:
    """Declare a field of one's own section, as `number` and `choice` do, that does not change what is trained.

    Another value of it then takes the checkpoints that are stored, as another number of worker processes should.
    """
    metadata = {**declared.metadata, "shaping": False}
    if declared.default_factory is not dataclasses.MISSING:
        return field(default_factory=declared.default_factory, metadata=metadata)
    return field(default=declared.default, metadata=metadata)


def added(before: object, declared: Any = None) -> Any:
    """Declare a key that is newer than checkpoints in use, further declared as by `number` and `choice`.

    At the value `before` the program does what it did when there was no such key.
    """
    metadata = {} if declared is None else declared.metadata
    return field(default=MISSING, metadata={**metadata, "before": before})


def newer(before: Any, declared: Any = None) -> Any:
    """Declare a key that configurations in use may lack; it then has the value `before`."""
    metadata = {} if declared is None else declared.metadata
    return field(default=before, metadata={**metadata, "before": before})


_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list[float]": "a list of numbers",
    "list[str]": "a list of texts",
    "list[int]": "a list of whole numbers",
    "list[ParameterGroup]": "a list of groups, as in [{params: head.*, lr_factor: 10}],",
    "Any": "a text or a list",
}


def describe_constraint(f: dataclasses.Field[Any]) -> str:
    """Return what fits a field, in words: `must be a whole number ≥ 1`."""
    if "choices" in f.metadata:
        return f"choose from {', '.join(map(str, f.metadata['choices']))}"
    type_, _, null = getattr(f.type, "__name__", str(f.type)).partition(" | ")
    bounds = " and ".join(
        f"{sign} {decimal(b)}" for sign, b in f.metadata.get("bounds", {}).items()
    )
    words = f"{_WORDS.get(type_, 'keys and values')} {bounds}".rstrip()
    return f"must be {words} or null" if null else f"must be {words}"


def show(value: object) -> str:
    """Return `value` as one would write it on the command line."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case float():
            return repr(value).removesuffix(".0")
        case list():
            return f"[{','.join(map(show, value))}]"
        case dict():
            return f"{{{', '.join(f'{key}: {show(item)}' for key, item in value.items())}}}"
    return str(value)


def decimal(value: float, digits: int = 6) -> str:
    """Return `value` in `digits` digits, all of those before the point: 1234567, 11.6667, 10.

    Exponents are for less than 0.0001 only.
    """
    if not math.isfinite(value) or abs(value) < 1e-4:
        return f"{value:.{digits}g}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if places else text


def _within(value: object, bounds: dict[str, float]) -> bool:
    if value is None:
        return True
    if isinstance(value, list):
        return all(_within(item, bounds) for item in value)
    assert isinstance(value, int | float)
    holds = {
        ">": lambda b: value > b,
        "≥": lambda b: value >= b,
        "<": lambda b: value < b,
        "≤": lambda b: value <= b,
    }
    finite = isinstance(value, int) or math.isfinite(value)
    return finite and all(holds[sign](b) for sign, b in bounds.items())


def _percent(value: object, bounds: dict[str, float]) -> str:
    """Return a hint for a percentage where a share belongs."""
    if not isinstance(value, int | float) or not 1 < value <= 100 or bounds.get("<", 2) > 1:
        return ""
    share = value / 100
    return f"; {decimal(value)} % is {decimal(share)}" if _within(share, bounds) else ""


def check_value(f: dataclasses.Field[Any], key: str, value: Any) -> None:
    """Raise `ConfigError` for a value of `key` outside of what its field declares."""
    plain = re.match(r"list\[(str|int|float|bool)\]", str(f.type))
    if plain and any(isinstance(one, list | dict) for one in value or ()):
        raise ConfigError(f"{key}={show(value)}: must be a list of plain values, as in [a,b]")
    if "bounds" in f.metadata and not _within(value, f.metadata["bounds"]):
        constraint = describe_constraint(f) + _percent(value, f.metadata["bounds"])
        raise ConfigError(f"{key}={show(value)}: {constraint}")
    if "choices" in f.metadata and value not in f.metadata["choices"]:
        names = [str(name) for name in f.metadata["choices"]]
        raise ConfigError(f"{key}={value}: {nearest(str(value), names)}")


@dataclass
class Section:
    """One group of the configuration; checks every field against the bounds declared with it."""

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            key = f"{self.section}.{f.name}" if self.section else f.name
            value = getattr(self, f.name)
            if value == MISSING:
                raise ConfigError(f"{key}: has no value; give one with {key}=VALUE")
            check_value(f, key, value)
