"""Tables as W&B's website exports them."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import polars as pl

from harness.config.errors import ConfigError
from harness.reading.recorded import Recorded, RunRecord, collect
from harness.reading.table_cells import IN_EACH_RUN, are_times, steps
from harness.reading.table_files import Table
from harness.reading.walk import SETTING

RUNS_TABLE = "W&B's export of a table of runs"
ABOUT_RUNS = {"notes", "user", "tags", "created", "runtime", "id"}  # neither settings nor metrics
_CURVE = re.compile(r"(?P<run>.+) - (?P<metric>.+?)(?P<bound>__MIN|__MAX)?")
_KEY = re.compile(r"[\w./]+")


def is_runs_table(names: list[str]) -> bool:
    """Return whether columns are those of W&B's export of a table of runs."""
    lower = {name.lower() for name in names}
    return {"name", "state"} <= lower and len(lower & (ABOUT_RUNS | {"sweep"})) > 1


def is_chart(table: Table) -> bool:
    """Return whether columns are a step, of numbers, and then `RUN - METRIC`, as W&B exports a chart."""
    first, *others = table.names
    if " - " in first or not all(map(_CURVE.fullmatch, others)):
        return False
    return 2 * table.text(first).cast(pl.Float64, strict=False).null_count() < table.rows


def read_chart(table: Table) -> Recorded:
    """Return the runs of a chart, a column a run; settings are the `KEY=VALUE` parts of its name.

    Raises `ConfigError` where `__MIN` and `__MAX` differ from the value: that is a mean over runs or steps.
    """
    x = table.names[0]
    notes = ["W&B samples long runs for a chart: the last row here need not be the last one recorded"]  # fmt: skip
    before = len(notes)
    step = steps(table.path, x, table.values(x), notes)
    with_fractions = len(notes) > before
    curves: dict[str, dict[str, pl.Series]] = {}
    bounds = []
    for name in table.names[1:]:
        found = _CURVE.fullmatch(name)
        assert found
        if found["bound"]:
            if found["metric"] != "_step":  # many of which fall on one epoch
                bounds.append((name, found))
        else:
            curves.setdefault(found["run"], {})[found["metric"]] = _numbers(table, name)
    for name, found in bounds:
        value = curves.get(found["run"], {}).get(found["metric"])
        if value is None or _numbers(table, name).ne_missing(value).any():
            raise ConfigError(
                f"{table.path}: {name!r} is not the value, so the chart shows means; ungroup its runs, set smoothing to 0 and the x axis to Step, and export it again"
            )
    rows = sum(next(iter(own.values())).count() for own in curves.values())
    ranked = with_fractions and len(curves) > 1 and are_times(step.n_unique(), rows)
    if ranked:
        notes[-1] += IN_EACH_RUN
    return collect(
        "W&B's export of a chart",
        [_run(table, name, step, metrics, ranked) for name, metrics in curves.items()],
        [*notes, *table.notes],
    )


def _numbers(table: Table, name: str) -> pl.Series:
    values = table.values(name)
    if values.dtype.is_numeric() or values.null_count() == len(values):
        return values.cast(pl.Float64)
    raise ConfigError(f"{table.path}: the column {name!r} has cells that are no numbers; leave it out")  # fmt: skip


def _run(table: Table, name: str, step: pl.Series, metrics: dict[str, pl.Series], ranked: bool) -> RunRecord:  # fmt: skip
    if taken := {"run", "step"} & set(metrics):
        raise ConfigError(f"{table.path}: a metric is named {min(taken)!r}; leave it out of the chart")  # fmt: skip
    rows = pl.DataFrame({"step": step, **metrics})
    recorded = rows.filter(~pl.all_horizontal(pl.all().exclude("step").is_null()))
    if ranked:  # over the rows of all runs
        recorded = recorded.with_columns(pl.col("step").rank("dense").cast(pl.Int64))
    return RunRecord(name, _settings(name), recorded, str(table.path))


def _settings(name: str) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for part in re.split(r"[,;\s]+", name):
        pairs = {key: _value(text) for key, text in SETTING.findall(part)}
        cut = [*pairs.values()][:-1]  # before a `_`, which may be a part of text
        if all(map(_KEY.fullmatch, pairs)) and not any(isinstance(one, str) for one in cut):
            settings |= {
                key: value for key, value in pairs.items() if value != "" and "=" not in str(value)
            }
    return settings


def _value(text: str) -> object:
    with suppress(ValueError):
        value = json.loads(text)
        if isinstance(value, bool | int | float):
            return value
    with suppress(ValueError):
        return float(text)
    return text
