"""Which runs may be compared: those whose configurations agree but for the factor and the seed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import polars as pl

from harness.analysis import arms
from harness.analysis.verdict import Claim
from harness.config.fields import show
from harness.config.values import flat

# What changes rounding only; verdicts name it where the arms of a comparison differ in it.
_NUMERICS = (
    "trainer.device", "trainer.precision", "trainer.deterministic", "trainer.compile",
    "trainer.channels_last",
)  # fmt: skip

Settings = dict[str, Any]  # a configuration by its full keys


def assign_cells(runs: pl.DataFrame, claim: Claim) -> pl.DataFrame:
    """Return `runs` with the cell in which each is compared, and what sets it apart in its name and arm.

    `runs` as `results.read` gives them, with `plan`, the number of the sweep that each is of. A cell is named by
    what was swept beside the factor and, where runs of one name do not agree, by the keys in which they differ.
    """
    rows = [row | {"swept": json.loads(row["swept"])} for row in runs.to_dicts()]
    settings = [_settings(row) for row in rows]
    compared = _compared_settings(claim, rows, settings)
    signatures = _signatures(rows, compared)
    names: dict[str, str] = {}
    for signature, row in zip(signatures, rows, strict=True):
        names[signature] = max(names.get(signature, ""), row["cell"], key=len)
    known = {text: own for text, own in zip(signatures, compared, strict=True) if own}
    apart = _set_apart(names, known)
    columns: dict[str, list[str]] = {"cell": [], "name": [], "arm": []}
    for row, signature in zip(rows, signatures, strict=True):
        for column, values in columns.items():
            own = names[signature] if column == "cell" else row[column]
            values.append(", ".join(filter(None, [own, apart[signature]])))
    return runs.with_columns(pl.Series(k, values, dtype=pl.String) for k, values in columns.items())


def _settings(row: dict[str, Any]) -> Settings:
    return flat(json.loads(row["config"] or "null") or {})


def _signatures(rows: Sequence[dict[str, Any]], compared: Sequence[Settings]) -> list[str]:
    """Return a text a run, equal for runs that are compared with each other.

    A run whose configuration is not known, as a missing one of an old plan, is with those of its name and sweep.
    """
    texts = [json.dumps({k: show(v) for k, v in own.items()}, sort_keys=True) for own in compared]
    known = {
        (row["plan"], row["cell"]): text
        for row, own, text in zip(rows, compared, texts, strict=True)
        if own
    }
    return [
        text if own else known.get(place := (row["plan"], row["cell"]), str(place))
        for row, own, text in zip(rows, compared, texts, strict=True)
    ]


def _compared_settings(
    claim: Claim, rows: Sequence[dict[str, Any]], settings: Sequence[Settings]
) -> list[Settings]:
    """Return of each run's settings those that must agree in a cell.

    Left out is what belongs to files, judging and rounding, to the seed, and to the factor: what follows from
    it within a sweep, if it has one value for each level in all sweeps. Where it has several, it counts; if it
    differs between the levels of a sweep too, as a set of its values by level.
    """
    tuned = claim.tuned_over
    swept = {key for row in rows for key in row["swept"]} - {claim.factor, "seed", tuned}
    by_factor, by_seed = (_follow(key, rows, settings) for key in (claim.factor, "seed"))
    by_tuned = _follow(tuned, rows, settings) if tuned else {}
    of_factor = {key for keys in by_factor.values() for key in keys}
    values = _values_by_level(rows, settings)

    @cache
    def by_level(key: str, plan: int) -> str:
        """Return the values of a key in a sweep by level: `0.1 in a, 0.2 in b`."""
        pairs = zip(rows, settings, strict=True)
        own = {row["level"]: show(own.get(key)) for row, own in pairs if row["plan"] == plan}
        return ", ".join(f"{value} in {level}" for level, value in own.items())

    found = []
    for row, own in zip(rows, settings, strict=True):
        plan, kept = row["plan"], Settings()
        seeded = by_seed.get(plan, set()) | _given_by_seed(row)
        for key, value in own.items():
            if key in swept:
                kept[key] = value
            elif (
                _makes_no_cell(key, claim.metric)
                or key in by_tuned.get(plan, ())
                or (tuned and _is_part(key, tuned))
            ):
                continue
            elif key in seeded:
                kept[key] = "${seed}"
            elif not (_is_part(key, claim.factor) or key in of_factor):
                kept[key] = value
            elif key != claim.factor and any(len(of) > 1 for of in values[key].values()):
                follows = key in by_factor.get(plan, ())
                kept[key] = by_level(key, plan) if follows else value
        found.append(kept)
    return found


def _makes_no_cell(key: str, metric: str) -> bool:
    return key == "seed" or key in _NUMERICS or arms.makes_no_cell(key, metric)


def _is_part(key: str, of: str) -> bool:
    return key == of or key.startswith(f"{of}.")


def _given_by_seed(row: dict[str, Any]) -> set[str]:
    """Return the keys that the overrides of a run give as `${seed}`."""
    given = arms.override_values(json.loads(row.get("overrides") or "[]"))
    return {key for key, text in given.items() if "${seed}" in text}


def _follow(
    key: str, rows: Sequence[dict[str, Any]], settings: Sequence[Settings]
) -> dict[int, set[str]]:
    """Return, by sweep, the settings that follow from `key`: they differ where nothing else that is swept does.

    As those that a file of `arm=NAME` sets, or `dataset.split_seed=${seed}`.
    """
    alike: dict[tuple[int, str], list[Settings]] = {}
    for row, values in zip(rows, settings, strict=True):
        others = sorted((k, v) for k, v in row["swept"].items() if k != key)
        if key != "seed":
            others.append(("seed", str(row["seed"])))
        if values:
            alike.setdefault((row["plan"], json.dumps(others)), []).append(values)
    found: dict[int, set[str]] = {}
    for (plan, _), (first, *more) in alike.items():
        for other in more:
            differing = [k for k in first.keys() & other.keys() if first[k] != other[k]]
            found.setdefault(plan, set()).update(differing, first.keys() ^ other.keys())
    return found


def _values_by_level(
    rows: Sequence[dict[str, Any]], settings: Sequence[Settings]
) -> dict[str, dict[str | None, set[str]]]:
    """Return, by key and level, the values that runs have."""
    found: dict[str, dict[str | None, set[str]]] = {}
    for row, own in zip(rows, settings, strict=True):
        for key, value in own.items():
            found.setdefault(key, {}).setdefault(row["level"], set()).add(show(value))
    return found


def _set_apart(names: dict[str, str], settings: dict[str, Settings]) -> dict[str, str]:
    """Return, by signature, the keys in which cells of one name differ; "" where there is one of the name."""
    found = dict.fromkeys(names, "")
    for name in set(names.values()):
        same = [signature for signature in settings if names[signature] == name]
        if len(same) > 1:
            differences = arms.name_differences([settings[signature] for signature in same])
            for signature, own in zip(same, differences, strict=True):
                found[signature] = ", ".join(f"{key}={value}" for key, value in own.items())
    taken: Counter[str] = Counter()
    for signature, name in names.items():
        place = ", ".join(filter(None, [name, found[signature]]))
        taken[place] += 1
        if taken[place] > 1:
            found[signature] += f" ({taken[place]})"
    return found
