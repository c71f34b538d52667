"""One metric of all runs: its values by step, where they end, what the LR did. Works on millions of rows."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from harness.config.errors import ConfigError
from harness.reading.recorded import Recorded

_MOST_STEPS = 2**40
_JUMP = 0.5  # of the peak: a rise of the LR from one row to the next that is a restart, as in the page's charts
_STEP, _KEY = pl.col("step"), pl.col("key")


@dataclass(frozen=True)
class Series:
    """The values of one column: `rows` (run, step, value) in rising steps of each run.

    `repeated` counts the rows that were recorded again under the same or an earlier step, so that the later ones
    count; `resumed` are the runs, by row, that went back to an earlier step.
    """

    rows: pl.DataFrame
    repeated: int
    resumed: list[int]


def series(recorded: Recorded, column: str) -> Series:
    """Return a column of the curves. Where steps go back, a run was resumed: rows from there on replace earlier ones.

    Rows without a step are left out; in a table of final values, which has no steps, all have step 0. Raises
    `ConfigError` for steps that are none.
    """
    named = recorded.curves.select("run", "step", pl.col(column).alias("value")).drop_nulls("value")
    steps = _STEP.fill_null(0) if _without_steps(recorded) else _STEP
    named = named.with_columns(steps).drop_nulls("step")
    if not named["run"].is_sorted():
        named = named.sort("run", maintain_order=True)
    low, high = named.select(_STEP.min(), _STEP.max().alias("high")).row(0)
    if len(named) and not 0 <= low <= high < _MOST_STEPS:
        raise ConfigError(
            f"step: {low if low < 0 else high} is no step; --map step=COLUMN names another column"
        )
    same_run = pl.col("run") == pl.col("run").shift()
    if not named.select((same_run & (_STEP.shift() >= _STEP)).any()).item():
        return Series(named, 0, [])
    keyed = named.with_columns(key=pl.col("run").cast(pl.Int64) * _MOST_STEPS + _STEP)
    later = _KEY.cum_min(reverse=True).shift(
        -1
    )  # runs follow each other, so that this is of the same run
    kept = keyed.filter((later > _KEY).fill_null(True)).drop("key")
    back = keyed.filter(_KEY.cum_max() > _KEY)["run"]
    return Series(kept, len(named) - len(kept), back.unique().sort().to_list())


def _without_steps(recorded: Recorded) -> bool:
    return recorded.curves["step"].null_count() == len(recorded.curves)


def rows_without_step(recorded: Recorded) -> int:
    """Count the rows of curves that have no step although others do."""
    return 0 if _without_steps(recorded) else recorded.curves["step"].null_count()


def ends(rows: pl.DataFrame, better: str) -> pl.DataFrame:
    """Return a row a run of `rows` (of a `Series`): `run`, `step` and `value` of the last one, `finite`, the last
    finite value, and `best`.
    """
    finite = pl.col("value").filter(pl.col("value").is_finite())
    best = finite.max() if better == "higher" else finite.min()
    return rows.group_by("run", maintain_order=True).agg(
        _STEP.last(), pl.col("value").last(), finite.last().alias("finite"), best.alias("best")
    )


def lr_ends(rows: pl.DataFrame) -> pl.DataFrame:
    """Return a row a run of the LR's `rows`: `run`, `peak`, `last`, `restarts` and `aligned`.

    A restart is a rise by half of the peak after the LR has fallen. A run with restarts is aligned if it ends at an
    LR not above that from which a restart rose: in mid-cycle it is higher. `aligned` is null without restarts.
    """
    value = pl.col("value")
    before = value.shift()
    restart = (value - before > _JUMP * value.max()) & (before < value.cum_max().shift())
    trough = before.filter(restart).max()
    return rows.group_by("run", maintain_order=True).agg(
        value.max().alias("peak"),
        value.last().alias("last"),
        restart.sum().cast(pl.Int64).alias("restarts"),
        (value.last() <= trough * (1 + 1e-6)).alias("aligned"),
    )
