"""Which runs may be compared: those whose configurations agree but for the factor and the seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
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
    Runs without a configuration, as of old plans, are in the cells of their names.
    """
    rows = runs.to_dicts()
    settings = [_settings(row) for row in rows]
    ignored = _ignored(claim, rows, settings)
    compared = [{k: v for k, v in own.items() if k not in ignored} for own in settings]
    signatures = [
        show_settings(own) if own else row["cell"] for own, row in zip(compared, rows, strict=True)
    ]
    names: dict[str, str] = {}
    for signature, row in zip(signatures, rows, strict=True):
        names[signature] = max(names.get(signature, ""), row["cell"], key=len)
    apart = _set_apart(names, dict(zip(signatures, compared, strict=True)))
    words = [apart[signature] for signature in signatures]
    joined = [
        [
            _join(row[column] if column != "cell" else names[s], word)
            for row, s, word in zip(rows, signatures, words, strict=True)
        ]
        for column in ("cell", "name", "arm")
    ]
    return runs.with_columns(
        pl.Series(column, values, dtype=pl.String)
        for column, values in zip(("cell", "name", "arm"), joined, strict=True)
    )


def _settings(row: dict[str, Any]) -> Settings:
    return flat(json.loads(row["config"] or "null") or {})


def show_settings(settings: Settings) -> str:
    return json.dumps({key: show(value) for key, value in settings.items()}, sort_keys=True)


def _join(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _ignored(
    claim: Claim, rows: Sequence[dict[str, Any]], settings: Sequence[Settings]
) -> set[str]:
    """Return the keys that make no cell: of the factor, of the seed, of rounding, of files and of judging."""
    swept = [json.loads(row["swept"]) for row in rows]
    keys = {key for own in settings for key in own}
    elsewhere = {key for own in swept for key in own} - {claim.factor, "seed"}
    ignored = {key for key in keys if key.startswith(arms.NO_SETTINGS)} | {*_NUMERICS, "seed"}
    ignored |= {key for key in keys if key == claim.factor or key.startswith(f"{claim.factor}.")}
    for follows in (claim.factor, "seed"):
        ignored |= set(_follow(follows, rows, swept, settings))
    return ignored - elsewhere | {claim.tuned_over or ""}


def _follow(
    key: str,
    rows: Sequence[dict[str, Any]],
    swept: Sequence[dict[str, str]],
    settings: Sequence[Settings],
) -> Iterator[str]:
    """Yield the settings that follow from `key`: within a sweep they differ where nothing else that is swept does.

    As those that a file of `arm=NAME` sets, or `dataset.split_seed=${seed}`.
    """
    alike: dict[str, list[Settings]] = {}
    for row, own, values in zip(rows, swept, settings, strict=True):
        others = sorted((k, v) for k, v in own.items() if k != key)
        if key != "seed":
            others.append(("seed", str(row["seed"])))
        alike.setdefault(json.dumps([row["plan"], others]), []).append(values)
    for first, *more in alike.values():
        for other in more:
            yield from (k for k in first.keys() | other.keys() if first.get(k) != other.get(k))


def _set_apart(names: dict[str, str], settings: dict[str, Settings]) -> dict[str, str]:
    """Return, by signature, the keys in which cells of one name differ; "" where there is one of the name."""
    found = dict.fromkeys(names, "")
    for name in set(names.values()):
        same = [signature for signature in names if names[signature] == name]
        if len(same) > 1:
            differences = arms.name_differences([settings[signature] for signature in same])
            for signature, own in zip(same, differences, strict=True):
                found[signature] = ", ".join(f"{key}={value}" for key, value in own.items())
    return found
