"""A source → the claim, the table of runs and their curves, and what is said of the source."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from harness.analysis.pairing import level_key
from harness.analysis.source import Source
from harness.analysis.verdict import Claim
from harness.config.errors import ConfigError, one_line
from harness.config.fields import show
from harness.config.measures import Measure
from harness.reading import meaning
from harness.reading.detect import read
from harness.reading.recorded import FINAL_VALUES, Recorded, counted, listed, listed_runs
from harness.reading.recover import Asked, Question, recover
from harness.reading.refused import refuse_mixed_units
from harness.reading.rows import Curves, curves, same_rows, table, without_copies, without_repeats

_MOST_NAMED = 200  # runs that are not compared, in `verdict.json`
_LARGEST = 1e30  # of the values that differences are computed of; the smallest is its inverse
_SURELY_PERCENT = 20.0  # of an accuracy that is no fraction
_MOST_LR_GAP = 0.05  # of the highest LR: between the last ones of two arms that get no note


@dataclass(frozen=True)
class Judged:
    """What is judged, and what is said of where it comes from."""

    claim: Claim
    runs: pl.DataFrame
    source: Source


def judge_source(address: str, kind: str | None, asked: Asked, scratch: Path) -> Judged:
    """Read a source and return what is judged of it; the curves are kept in a file in `scratch` meanwhile.

    Raises `ConfigError` for what must be said or cannot be judged; `UnreadableError` for damaged files.
    """
    recorded, left = read(address, kind, asked)
    found = recover(recorded, left)
    roles, open_roles = meaning.roles(found.metric, recorded.metrics, left.mapping)
    others = _others(recorded, found, [*roles.values()])
    recorded = recorded.only(roles.values())  # millions of rows
    better = meaning.direction(found.metric, asked.better)
    own = curves(recorded, found, roles, better)
    last = _last_values(found, own)
    refuse_mixed_units(found.metric, _by_level(found, own))
    measure, margin = meaning.measure(found.metric, better, last, asked.margin)
    claim = _claim(found, asked, measure, margin)
    file = scratch / "curves.parquet"
    _write(file, own, claim)
    runs = without_repeats(found, table(found, own, measure, address, file))
    copies = same_rows(found) if recorded.kind.endswith(FINAL_VALUES) else own.copies
    runs = without_copies(found, runs, copies)
    filters = [
        f"only runs with {key}={value} were asked for"
        for key, value in asked.where.items()
        if key not in left.where
    ]
    notes = [
        *recorded.notes,
        *filters,
        *found.notes,
        *open_roles,
        *own.notes,
        *_unused_seeds(found, asked),
        *_notes(found, runs, last),
    ]
    source = Source(
        address=one_line(address), kind=recorded.kind, notes=notes, unknown=_unknown(found, own),
        **_settings(found), others=others, confounded=[*found.keys.with_factor],
        not_compared=dict([*found.not_compared.items()][:_MOST_NAMED]),
    )  # fmt: skip
    return Judged(claim, runs, source)


def _last_values(found: Question, own: Curves) -> list[float]:
    """Return the finite last values of the compared runs. Raises `ConfigError` if there are none, or no such sizes."""
    finite = own.ends.drop_nulls("finite")
    if finite.is_empty():
        raise ConfigError(f"--metric {found.metric}: no run that is compared has recorded it")
    sizes = finite["finite"].abs()
    beyond = finite.filter((sizes > _LARGEST) | ((sizes > 0) & (sizes < 1 / _LARGEST)))
    if len(beyond):
        name, value = found.runs[beyond["run"][0]].name, beyond["finite"][0]
        raise ConfigError(f"--metric {found.metric}: {name} ends at {value:g}, which is too large or small to judge; leave it out by --where")  # fmt: skip
    values: list[float] = finite["finite"].to_list()
    return values


def _by_level(found: Question, own: Curves) -> dict[str, list[float]]:
    """Return the finite last values of the runs of each level."""
    values: dict[str, list[float]] = {}
    finite = own.ends.filter(pl.col("value").is_finite())
    for run, value in finite.select("run", "value").iter_rows():
        values.setdefault(f"{found.factor}={found.runs[run].level}", []).append(value)
    return values


def _claim(found: Question, asked: Asked, measure: Measure, margin: float) -> Claim:
    if 0 < margin < 1 / _LARGEST:
        raise ConfigError(f"--margin={margin:g}: is too small; 0 is possible")
    try:
        return Claim(
            factor=found.factor, baseline=found.baseline, treatments=found.treatments, metric=found.metric,
            margin=margin, level=asked.level, inferred=found.inferred, better=measure.better,
            unit=measure.unit, paired=found.paired, planned=False,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(f"--{error}" if re.match(r"\w+=", str(error)) else str(error)) from error


def _write(file: Path, own: Curves, claim: Claim) -> None:
    """Write the curves as `analysis.packed` reads them; without epochs, steps stand in their place."""
    epoch = pl.col("epoch") if own.unit == "epochs" else pl.col("step").cast(pl.Float64)
    rows = own.rows.select(
        "run", "step", epoch.alias("epoch"), "lr", pl.col("value").alias(f"val/{claim.scale.name}")
    )
    rows.write_parquet(file, compression="uncompressed")


def _unused_seeds(found: Question, asked: Asked) -> list[str]:
    """Return a line where runs have seeds, and were asked not to be paired by them."""
    keys = sorted({key for run in found.runs for key in run.settings if meaning.is_seed(key)})
    unused = asked.seed == "none" and keys
    return (
        [f"the source has seeds ({listed(keys)}): --seed none switched pairing off"]
        if unused
        else []
    )


def _notes(found: Question, runs: pl.DataFrame, last: Sequence[float]) -> list[str]:
    """Return what a reader must know of the comparison, a line each."""
    keys = found.keys
    notes = [
        f"{key} differs between the levels too: {text}" for key, text in keys.with_factor.items()
    ]
    if keys.results:
        notes.append(f"these are taken for results, and make no cells: {listed(keys.results)}")
    if meaning.may_be_best(found.metric):
        notes.append(f"{found.metric} may be a best value by its name, which would be optimistic")
    if keys.with_seed:
        notes.append(f"these go with the seed, and make no cells: {listed(keys.with_seed)}")
    if keys.ignored:
        notes.append(
            f"these differ between compared runs, and make no cells: {listed(keys.ignored)}"
        )
    if min(last) <= 1 < _SURELY_PERCENT < max(last) and min(last) >= 0:
        notes.append(
            f"{found.metric} ends between {min(last):g} and {max(last):g}: are fractions and percent mixed?"
        )
    for why in dict.fromkeys(found.not_compared.values()):
        names = [name for name, own in found.not_compared.items() if own == why]
        notes.append(f"not compared, {counted(len(names), 'run')} ({listed_runs(names)}): {why}")
    shares = {
        level: runs.filter(level=level)["lr_share_at_end"].median()
        for level in (found.baseline, *found.treatments)
    }
    known = {level: share for level, share in shares.items() if isinstance(share, float)}
    if known and max(known.values()) - min(known.values()) > _MOST_LR_GAP:
        texts = [f"{found.factor}={level} at {share:.0%}" for level, share in known.items()]
        notes.append(f"the arms ended at different shares of their highest LR: {', '.join(texts)}")
    return notes


def _unknown(found: Question, own: Curves) -> list[str]:
    """Return what the source does not say, and what no source of this kind can."""
    unknown = {
        "the LR": own.lrs is None,
        "epochs": own.unit == "steps",
        "steps": not own.unit,
        "how runs ended": any(run.status is None for run in found.runs),
        "seeds": not any(meaning.is_seed(key) for run in found.runs for key in run.settings),
        "settings that were not recorded": True,
        "whether runs were left out before": True,
        "code, data and images": True,
    }
    return [what for what, lacking in unknown.items() if lacking]


def _settings(found: Question) -> dict[str, Mapping[str, Any]]:
    """Return the settings that all compared runs share, and the values of the others, as `Source` takes them."""
    values: dict[str, dict[str, Any]] = {}
    for run in found.runs:
        for key, value in run.settings.items():
            values.setdefault(key, {})[show(value)] = value
    everywhere = {key for key in values if all(key in run.settings for run in found.runs)}
    same = {
        key: next(iter(own.values()))
        for key, own in values.items()
        if len(own) == 1 and key in everywhere
    }
    return {
        "same": same,
        "varied": {key: [*own.values()] for key, own in values.items() if key not in same},
    }


def _others(recorded: Recorded, found: Question, roles: Sequence[str]) -> dict[str, Sequence[str]]:
    """Return what else could have been compared: settings that differ, levels that were left out, numbers."""
    known = {level_key(level) for level in (found.baseline, *found.treatments)}
    levels: dict[object, str] = {}
    for text in recorded.runs["settings"]:
        settings = json.loads(text)
        if found.factor in settings:
            levels.setdefault(level_key(show(settings[found.factor])), show(settings[found.factor]))
    shown = {key for run in found.runs for key in run.settings} - {*found.keys.results}
    curves = recorded.curves
    if len(found.runs) < len(recorded.runs):
        curves = curves.filter(pl.col("run").is_in([run.row for run in found.runs]))
    return {
        "settings": found.keys.others,
        "levels": [text for key, text in levels.items() if key not in known],
        "numbers": [
            name
            for name in recorded.metrics
            if name not in [*roles, *shown]
            and meaning.is_result(name)
            and curves[name].null_count() < len(curves)
        ],
    }
