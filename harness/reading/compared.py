"""Which runs of a source are compared: their arms and cells, from the settings in which they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.config.errors import ConfigError
from harness.config.fields import show
from harness.reading.meaning import is_measure, is_named_result, is_seed, no_setting
from harness.reading.recorded import listed

Settings = Mapping[str, Any]
ABSENT = "not given"
_FEWEST_OF_A_GRID = 3  # unpaired runs of each level and value
_MOST_APART = 1 / 4  # of the runs of a level


@dataclass
class Keys:
    """What the settings in which compared runs differ are to a comparison.

    `cells`: they make cells. `with_factor`: each level has one value of its own, so that they may be what the factor's
    difference comes from. `with_seed`: each seed has. `ignored`: names, places and times, and those that were asked for.
    """

    cells: list[str] = field(default_factory=list)
    with_factor: dict[str, str] = field(default_factory=dict)  # key → its values by level, as text
    with_seed: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)  # of a table of final values

    @property
    def others(self) -> list[str]:
        """Those that could have been the factor."""
        return [*self.with_factor, *self.cells]


def sort_keys(
    runs: Sequence[Settings], levels: Sequence[str], seeds: Sequence[int | None], skipped: Collection[str], results: Collection[str]
) -> Keys:  # fmt: skip
    """Return what each key in which `runs` differ is. `skipped` are the factor, the seed and those to ignore.

    Of the columns that may be `results` too, as in a table of final values, the name says which they are.
    """
    found = Keys(ignored=[key for key in skipped if len({*_values(runs, key)}) > 1])
    repeated = None not in seeds and len({*seeds}) < len(seeds)
    others: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for one in runs for key in one):
        values = _values(runs, key)
        distinct = len({*values})
        if distinct < 2 or key in skipped:
            continue
        if (
            key in results
            and is_named_result(key)
            and not (is_measure(key) and _is_grid(values, levels, seeds))
        ):
            found.results.append(key)
        elif no_setting(key) or (distinct == len(runs) and _is_text(runs, key)):
            found.ignored.append(key)
        elif (
            (repeated or is_seed(key)) and _follows(values, seeds) and not _follows(values, levels)
        ):
            found.with_seed.append(key)
        else:
            others[key] = values
    _add_others(found, others, levels)
    return found


def _add_others(found: Keys, others: Mapping[str, list[str]], levels: Sequence[str]) -> None:
    """Add the keys that are left: those that have one value for each level, and keys of cells, to the others.

    Keys each of whose values is there with several levels make cells first: others may follow from these and the
    level, as a number of restarts does from the epochs and T_mult.
    """
    crossed = [key for key, values in others.items() if _crossed(values, levels)]
    places = [*zip(levels, *(others[key] for key in crossed), strict=True)]
    for key, values in others.items():
        if key in crossed or not _follows(values, places):
            found.cells.append(key)
            continue
        by_level: dict[str, dict[str, None]] = {}
        for value, level in zip(values, levels, strict=True):
            by_level.setdefault(level, {})[value] = None
        texts = (f"{listed([*own], 4)} with {level}" for level, own in by_level.items())
        found.with_factor[key] = "; ".join(texts)


def _is_grid(values: Sequence[str], levels: Sequence[str], seeds: Sequence[int | None]) -> bool:
    """Return whether runs of each level and seed have the same values equally often, as of a setting in a grid."""
    places: dict[tuple[str, int | None], Counter[str]] = {}
    for value, level, seed in zip(values, levels, seeds, strict=True):
        places.setdefault((level, seed), Counter())[value] += 1
    first = next(iter(places.values()))
    fewest = 1 if seeds[0] is not None else _FEWEST_OF_A_GRID
    alike = all(own == first for own in places.values())
    return alike and len(places) > 1 and len(first) > 1 and min(first.values()) >= fewest


def unbalanced(
    runs: Sequence[Settings], levels: Sequence[str], keys: Sequence[str], baseline: str
) -> str | None:
    """Return a key of yes and no of which the share of yes in a level is not that in the baseline, if there is one.

    It may be a result, as `success`, by which a comparison would choose its runs.
    """
    for key in keys:
        if not all(one.get(key) in (0, 1) for one in runs):
            continue
        by_level: dict[str, list[float]] = {}
        for one, level in zip(runs, levels, strict=True):
            by_level.setdefault(level, []).append(float(one[key]))
        shares = {level: sum(own) / len(own) for level, own in by_level.items()}
        if any(abs(own - shares[baseline]) > _MOST_APART for own in shares.values()):
            return key
    return None


def _crossed(values: Sequence[str], levels: Sequence[str]) -> bool:
    there = {*zip(values, levels, strict=True)}
    return min(Counter(value for value, _ in there).values()) > 1


def _values(runs: Sequence[Settings], key: str) -> list[str]:
    return [show(one[key]) if key in one else ABSENT for one in runs]


def _is_text(runs: Sequence[Settings], key: str) -> bool:
    return all(isinstance(one.get(key, ""), str) for one in runs)


def _follows(values: Sequence[str], of: Sequence[Any]) -> dict[Any, str]:
    """Return the one value that goes with each of `of`; empty where one has several."""
    found: dict[Any, str] = {}
    for value, other in zip(values, of, strict=True):
        if found.setdefault(other, value) != value:
            return {}
    return found


def apart(runs: Sequence[Settings], keys: Sequence[str]) -> list[dict[str, str]]:
    """Return of each run the values of those `keys` that it takes to set the cells of `runs` apart."""
    found: list[dict[str, str]] = [{} for _ in runs]
    classes = 1
    for key in keys:
        values = [repr(one) if {*",="} & {*one} else one for one in _values(runs, key)]
        joined = [own | {key: value} for own, value in zip(found, values, strict=True)]
        if (distinct := len({*map(str, joined)})) > classes:
            found, classes = joined, distinct
    return found


def comparable(
    cells: Sequence[str], levels: Sequence[str], baseline: str, keys: Sequence[str]
) -> set[str]:
    """Return the cells that have the baseline and another level. Raises `ConfigError` if there are none."""
    own: dict[str, set[str]] = {}
    for cell, level in zip(cells, levels, strict=True):
        own.setdefault(cell, set()).add(level)
    found = {cell for cell, there in own.items() if baseline in there and len(there) > 1}
    if not found:
        raise ConfigError(
            f"no run of the baseline {baseline} agrees with one of another level in all other settings: "
            f"{listed(keys)} differ; --ignore KEY compares runs that differ in it"
        )
    return found
