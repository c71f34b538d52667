"""One metric of all runs: its values by step, where they end, what the LR did. Works on millions of rows."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from harness.config.errors import ConfigError
from harness.reading.recorded import Recorded

_MOST_STEPS = 2**40
_ROWS_A_CYCLE = 4  # recorded LRs that show where a run ends in a cycle, or more
_RISE = 0.1  # of the peak: what a restart rises by in a row, or more
_NEAR_0 = 0.1  # of the LR before: that at which a second warmup begins, or less
_SUDDEN = 4  # falls of the row before: the fall to that, or more
_STEP, _KEY = pl.col("step"), pl.col("key")


@dataclass(frozen=True)
class Series:
    """The values of one column: `rows` (run, step, value) in rising steps of each run.

    `repeated` counts the rows that were recorded again under the same or an earlier step, so that the later ones
    count; `resumed` are the runs, by row, that went back to an earlier step, `sorted` those whose rows were in another
    order, `turned` those that had the newest row first, and `several` those that are several runs with one name: they go
    from their first step to their last more than once, with other values.
    """

    rows: pl.DataFrame
    repeated: int
    resumed: list[int]
    sorted: list[int]
    turned: list[int]
    several: list[int]


def series(recorded: Recorded, column: str) -> Series:
    """Return a column of the curves. Where steps go back, a run was resumed: rows from there on replace earlier ones.

    A run whose steps go back although none has two values was not resumed: its rows are in another order, and are sorted
    by step (where a step is there twice, if steps fall more than half as often as they rise). Other rows whose steps fall
    more often than they rise are read from the last to the first. Rows without a step are left out; in a table of final
    values, which has no steps, all have step 0. Raises `ConfigError` for steps that are none.
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
        return Series(named, 0, [], [], [], [])
    mixed, turned = _out_of_order(
        named.with_columns(moved=pl.when(same_run).then(_STEP - _STEP.shift()))
    )
    if len(mixed) or len(turned):
        last_first = pl.when(pl.col("run").is_in(turned.implode())).then(-pl.int_range(pl.len()))
        by_step = pl.when(pl.col("run").is_in(mixed.implode())).then(_STEP)
        place = by_step.otherwise(last_first.otherwise(0))
        named = named.sort("run", place, maintain_order=True)
    keyed = named.with_columns(key=pl.col("run").cast(pl.Int64) * _MOST_STEPS + _STEP)
    later = _KEY.cum_min(reverse=True).shift(-1)  # of the same run, as runs follow each other
    kept = keyed.filter((later > _KEY).fill_null(True)).drop("key")
    resumed = keyed.filter(_KEY.cum_max() > _KEY)["run"].unique().sort()
    several = _whole_again(named.filter(pl.col("run").is_in(resumed.implode())))
    return Series(
        kept, len(named) - len(kept), resumed.to_list(), mixed.to_list(), turned.to_list(), several
    )


def _whole_again(rows: pl.DataFrame) -> list[int]:
    """Return the runs with several blocks of rising steps from the run's first to its last, and not all of equal values."""
    falls = (pl.col("run") == pl.col("run").shift()) & (_STEP.shift() > _STEP)
    blocks = (
        rows.with_columns(block=falls.fill_null(False).cum_sum())
        .group_by("run", "block", maintain_order=True)
        .agg(first=_STEP.first(), last=_STEP.last(), values=pl.struct("step", "value").hash().sum())
    )
    first, last = pl.col("first"), pl.col("last")
    ends = (first == first.min().over("run")) & (last == last.max().over("run")) & (first < last)
    of_run = blocks.filter(ends).group_by("run").agg(pl.col("values").n_unique())
    return of_run.filter(pl.col("values") > 1)["run"].sort().to_list()


def _out_of_order(rows: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """Return the runs whose rows are to be sorted, and those whose rows are to be turned; `moved` is the step's change."""
    moved = pl.col("moved")
    of_run = rows.group_by("run").agg(
        falls=(moved < 0).sum(), rises=(moved > 0).sum(), steps=_STEP.n_unique(), rows=pl.len(),
        different=pl.struct("step", "value").n_unique(),
    ).filter(pl.col("falls") > 0).sort("run")  # fmt: skip
    falls, rises, steps = pl.col("falls"), pl.col("rises"), pl.col("steps")
    mixed = (steps == pl.col("rows")) | ((steps == pl.col("different")) & (2 * falls > rises))
    return of_run.filter(mixed)["run"], of_run.filter(~mixed, falls > rises)["run"]


def _without_steps(recorded: Recorded) -> bool:
    return recorded.curves["step"].null_count() == len(recorded.curves)


def rows_without_step(recorded: Recorded) -> int:
    """Count the rows of curves that have no step although others do."""
    return 0 if _without_steps(recorded) else recorded.curves["step"].null_count()


def ends(rows: pl.DataFrame, better: str) -> pl.DataFrame:
    """Return a row a run of `rows` (of a `Series`): `run`, `step` and `value` of the last one, `finite`, the last
    finite value, `best`, and `every`, the steps from each value to the next where these are always as many.
    """
    finite = pl.col("value").filter(pl.col("value").is_finite())
    best = finite.max() if better == "higher" else finite.min()
    between = _STEP.diff()
    every = pl.when(between.min() == between.max()).then(between.max())
    return rows.group_by("run", maintain_order=True).agg(
        _STEP.last(), pl.col("value").last(), finite.last().alias("finite"), best.alias("best"),
        every.alias("every"),
    )  # fmt: skip


def lr_ends(rows: pl.DataFrame) -> pl.DataFrame:
    """Return a row a run of the LR's `rows`: `peak`, `last`, `restarts` and `aligned`; null of runs with one row.

    A restart is a rise by a tenth of the peak or more, from an LR to which it had fallen. A run with restarts is aligned
    if it ends at an LR not above the one from which the last restart rose. It is not if that is further away than the
    LR fell in the last row, if the last row is no restart, and if there are four rows a cycle or more; else `aligned` is
    null, as without restarts, and with fewer rows so is `restarts`: LRs that are recorded seldom do not show it. `last`
    is null where the last row is a restart: it may be the LR of the next update, which there was none of. A second
    warmup, as of a run that was resumed, is no restart (`_warmed_again`).
    """
    value = pl.col("value").filter(pl.col("value").is_finite())
    before, peak, last = value.shift(), value.max(), value.last()
    fallen = (before < value.cum_max().shift()) & (before <= value.shift(2))
    restart = (value - before > _RISE * peak) & fallen & (peak > 0) & ~_warmed_again(value)
    trough = before.filter(restart).last()
    fall = (value.get(-2, null_on_oob=True) - last).clip(0)
    several, number = value.len() > 1, restart.sum().cast(pl.Int64)
    at_restart = restart.last().fill_null(False)
    often = value.len() >= _ROWS_A_CYCLE * (number + 1)
    shown = often & ~at_restart
    above = last - fall > trough * (1 + 1e-6) + 1e-9 * peak
    return rows.group_by("run", maintain_order=True).agg(
        pl.when(several).then(peak).alias("peak"),
        pl.when(several & ~at_restart).then(last).alias("last"),
        pl.when(often).then(number).alias("restarts"),
        pl.when(last <= trough * (1 + 1e-6))
        .then(True)
        .when(shown & above)
        .then(False)
        .alias("aligned"),
    )


def _warmed_again(value: pl.Expr) -> pl.Expr:
    """Return whether a rise of LRs is that of a warmup after a run was resumed, and not of the schedule.

    After two rows without a rise the LR fell in one row to a tenth or less, by four falls of the row before or more; it
    rises for two rows or more; and from then on it comes to half of what it had been, or more, and never above. So a
    second warmup is not known if it takes one row, begins in one of the first three or higher, or if the LR is higher later.
    """
    trough, fell_from, earlier = (value.shift(rows) for rows in (1, 2, 3))
    highest = value.cum_max(reverse=True)
    sudden = (
        (fell_from <= earlier)
        & (earlier <= value.shift(4))
        & (fell_from - trough >= _SUDDEN * (earlier - fell_from))
    )
    back = (value.shift(-1) > value) & (highest <= fell_from) & (2 * highest >= fell_from)
    return (sudden & back & (trough <= _NEAR_0 * fell_from)).fill_null(False)


def copies(rows: pl.DataFrame, different: int) -> dict[int, int]:
    """Return, of the runs whose values are those of another run in all steps and digits, the first such run.

    Only of runs with so many `different` values: few may agree by chance.
    """
    of_run = rows.group_by("run", maintain_order=True).agg(
        pl.struct("step", "value").hash().sum().alias("hash"),
        pl.len().alias("rows"),
        pl.col("value").n_unique().alias("different"),
    )
    several = of_run.filter(pl.col("different") >= different)
    first, number = (one.over("hash", "rows") for one in (pl.col("run").first(), pl.len()))
    same = several.with_columns(first=first, number=number).filter(pl.col("number") > 1)
    return dict(same.select("run", "first").iter_rows())
