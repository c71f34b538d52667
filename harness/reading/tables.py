"""One table file of somebody else's → its runs."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl

from harness.config.errors import ConfigError, nearest
from harness.reading import table_exports as exports
from harness.reading.meaning import is_clock, is_meant, is_named_result
from harness.reading.recorded import (
    FINAL_VALUES,
    MOST_RUNS,
    RUNS,
    STEPS,
    Recorded,
    clean,
    flat_settings,
    name_row,
    refuse_more,
    unique_names,
)
from harness.reading.table_cells import READ_AS_TEXT, steps, steps_of_epochs
from harness.reading.table_files import Table, in_decimal, open_table
from harness.reading.table_parts import refuse_parts
from harness.reading.table_rows import refuse_merged, without_repeats
from harness.reading.table_states import flag_columns, status_column, statuses, words_by_row

ROLES = ("run", "seed", "step", "epoch", "status", "lr")
_RUN = ("run", "run_id", "run_name", "id", "name", "trial", "experiment")
_ONE_RUN = _RUN[:3]  # names of a column that has another value in each run
_STEP = ("step", "global_step", "_step", "trainer/global_step", "update", "iteration", "iter", "training_iteration", "epoch")  # fmt: skip
_SEED = ("seed", "random_seed", "rng_seed")
_A_SEED = re.compile(r"(?:seed|run|trial|rep|repeat)[ _-]?#?\d+", re.I)


@dataclass(frozen=True)
class _Roles:
    """The columns that are a run, a step, a seed, a status and flags beside it, and the names that the others get."""

    run: tuple[str, ...]
    step: str | None
    seed: str | None
    status: str | None
    flags: tuple[str, ...]
    names: dict[str, str]
    asked: set[str]  # columns that the question names


@dataclass
class _Found:
    """A value a run for each setting, and a column a metric; `left` are columns that are neither."""

    settings: dict[str, pl.Series] = field(default_factory=dict)
    metrics: dict[str, pl.Series] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def read(path: Path, mapping: Mapping[str, str], asked: Collection[str] = ()) -> Recorded:
    """Return the runs in a file that holds one table.

    A table with a step has a row a recorded step: a column that is constant in each run is a setting, a numeric one
    that varies within a run is a metric. A table without a step, or with one row a run, holds final values, and
    `curves.step` is null without a step. **Its numeric columns are settings and metrics, both**, but for the seed and
    the run; the names tell them apart later (`meaning.is_named_result`). So is a numeric column of a long table that
    has one value, and empty cells, in each run, or is named as a result.

    `mapping` takes a name of `ROLES` to a column of the file; `run` takes several, as `t_mult,seed`, where only
    together they name a run. Columns that are mapped to seed, epoch and lr are renamed to that. What is `asked` by name, or
    the last part of one, is a setting or a metric, and no flag of how a run ended.
    Raises OSError; `UnreadableError` and `ConfigError`, in one line, for what is no such table.
    """
    table = open_table(path)
    if exports.is_chart(table):
        if mapping:
            raise ConfigError(f"{path}: is W&B's export of a chart, whose columns are known; leave out --map")  # fmt: skip
        return exports.read_chart(table)
    roles = _roles(table, mapping, asked)
    if roles.step is None or exports.is_runs_table(table.names):
        return _final_values(table, roles)
    if not roles.run:
        raise ConfigError(
            f"{path}: no column names the run; --map run=COLUMN, or several that do together, as run=t_mult,seed; columns are {_list(table.names)}"
        )
    key = _key(table, roles.run)
    runs = key.unique(maintain_order=True)
    refuse_more("runs", len(runs), MOST_RUNS)
    if len(runs) == len(key):
        return _final_values(table, roles)
    return _long(table, roles, key, runs)


def _list(names: Sequence[str]) -> str:
    return clean(", ".join(names))


def _roles(table: Table, mapping: Mapping[str, str], asked: Collection[str]) -> _Roles:
    """Return the mapped columns, and those that are known by name. Raises `ConfigError` for what is no column."""
    _check(table, mapping)
    lower = {name.lower(): name for name in reversed(table.names)}
    parts = {name.replace("/", ".").rpartition(".")[2].lower(): name for name in reversed(table.names)}  # fmt: skip
    roles = {column: role for role, column in mapping.items() if role != "epoch"}

    def known(role: str, names: Sequence[str], found: dict[str, str]) -> str | None:
        free = (found[n] for n in names if n in found and roles.get(found[n], role) == role)
        return mapping.get(role) or next(free, None)

    exported = exports.is_runs_table(table.names)
    step = known("step", ("_step",) if exported else _STEP, lower) or mapping.get("epoch")
    if (
        exported and step == "_step" and table.values(step).null_count()
    ):  # of runs that logged nothing
        step = None
    named = {n for n in table.names if any(is_meant(n, one) for one in asked)}
    taken = {column for column in roles if roles[column] != "status"} | named
    status = mapping.get("status") or (
        known("status", ("state",), lower) if exported else status_column(table, taken)
    )
    flags = flag_columns(table, taken)
    status = None if status in flags else status
    of_run = known("run", ("name",) if exported else _RUN, lower)
    run = _run_columns(table, mapping) if "run" in mapping else (of_run,) if of_run else ()
    if twice := {step, status} & set(run):
        raise ConfigError(f"{table.path}: the column {min(map(str, twice))!r} is the run and the step or the status; --map run=COLUMN")  # fmt: skip
    renamed = {mapping[role]: role for role in ("seed", "epoch", "lr") if role in mapping}
    own = {"run", "step", *renamed.values()}
    names = {n: renamed.get(n, f"{n} (column)" if n in own else n) for n in table.names}
    return _Roles(run, step, known("seed", _SEED, parts), status, flags, names, named)


def _check(table: Table, mapping: Mapping[str, str]) -> None:
    for role, column in mapping.items():
        if role not in ROLES:
            raise ConfigError(f"--map {role}={column}: {nearest(role, ROLES)}")
        if role != "run" and column not in table.names:
            _no_column(table, role, column)
    for one, other in combinations(mapping, 2):
        if mapping[one] == mapping[other] and {one, other} != {"step", "epoch"}:
            raise ConfigError(f"--map {one}={mapping[one]} {other}={mapping[one]}: a column has one meaning; leave out one of them")  # fmt: skip


def _run_columns(table: Table, mapping: Mapping[str, str]) -> tuple[str, ...]:
    """Return the columns that are mapped to the run, by their names or by the roles that they are mapped to."""
    if (given := mapping["run"]) in table.names:
        return (given,)
    parts = (part.strip() for part in given.split(","))
    columns = tuple(part if part in table.names else mapping.get(part, part) for part in parts)
    for column in columns:
        if column not in table.names:
            _no_column(table, "run", column)
    return columns


def _no_column(table: Table, role: str, column: str) -> None:
    raise ConfigError(clean(f"--map {role}={column}: {table.path} has no such column; {nearest(column, table.names)}"))  # fmt: skip


def _key(table: Table, columns: tuple[str, ...]) -> pl.Series:
    """Return the name of each row's run. Raises `ConfigError` for a row without one."""
    cells = [table.text(column) for column in columns]
    for column, one in zip(columns, cells, strict=True):
        empty = (one.is_null() | (one == "")).arg_true()
        if len(empty):
            raise ConfigError(f"{table.path}: row {empty[0] + 1} has no run in the column {column!r}; fill it in, or take another by --map run=COLUMN")  # fmt: skip
    if len(cells) == 1:
        return cells[0]
    named = [pl.lit(f"{column}=") + one for column, one in zip(columns, cells, strict=True)]
    return pl.select(pl.concat_str(named, separator=", ")).to_series()


def _final_values(table: Table, roles: _Roles) -> Recorded:
    exported = exports.is_runs_table(table.names)
    refuse_more("runs", table.rows, MOST_RUNS)
    table = without_repeats(table, exported)
    if len(seeds := [name for name in table.names if _A_SEED.fullmatch(name)]) > 1:
        raise ConfigError(f"{table.path}: {_list(seeds)} are a column a seed; give a row a run, with a column seed (pandas: melt)")  # fmt: skip
    key = _key(table, roles.run) if roles.run else None
    unique = key is not None and key.n_unique() == len(key)
    if key is not None and not unique and roles.step is None and roles.run[0].lower() in _ONE_RUN:
        raise ConfigError(f"{table.path}: {roles.run[0]!r} has several rows of a run, and no column is a step; --map step=COLUMN, or rename {roles.run[0]!r} if a row is a run")  # fmt: skip
    known = {roles.status, roles.step, *(roles.run if unique and len(roles.run) == 1 else ())}
    found = _Found()
    for name in table.names:
        if name in known or (exported and name.lower() in exports.ABOUT_RUNS):
            continue
        values = table.values(name)
        if name not in roles.flags and (roles.step is None or not is_clock(name)):
            found.settings[roles.names[name]] = values
        if values.dtype.is_numeric() and name not in (*roles.run, roles.seed):
            found.metrics[roles.names[name]] = values.cast(pl.Float64)
    if any(map(is_named_result, found.metrics)):  # else a flag may be what is judged
        found.metrics = {n: own for n, own in found.metrics.items() if n not in roles.flags}
    if not exported:
        kept = {n: roles.names[n] for n in table.names if n not in roles.asked}
        refuse_merged(
            table.path, {n: found.settings[n] for n in kept.values() if n in found.settings}
        )
    names = [name_row(n) for n in range(1, table.rows + 1)] if key is None else key.to_list()
    status = words_by_row(table, roles.status, roles.flags)
    kind = exports.RUNS_TABLE if exported else f"{table.format}, {FINAL_VALUES}"
    number = pl.arange(table.rows, dtype=pl.UInt32, eager=True)
    step = pl.Series([None], dtype=pl.Int64).new_from_index(0, table.rows)
    if roles.step is not None:
        values = table.values(roles.step)
        step = steps(table.path, roles.step, values, table.notes)
        if "epoch" in (roles.step.lower(), roles.names[roles.step]):
            found.metrics["epoch"] = values.cast(pl.Float64)
    return _recorded(table, kind, _runs(table, names, found, status), [number, step], found)


def _runs(table: Table, names: list[str], found: _Found, status: pl.Series | None) -> pl.DataFrame:
    values = [in_decimal(column).to_list() for column in found.settings.values()]
    rows: Any = zip(*values, strict=True) if values else [()] * len(names)
    states = [None] * len(names) if status is None else statuses(status, table.notes)
    return pl.DataFrame(
        {
            "run": unique_names([clean(name) for name in names]),
            "status": states,
            "error": [None] * len(names),
            "where": [clean(table.path)] * len(names),
            "settings": [json.dumps(flat_settings(_given(found.settings, row))) for row in rows],
        },
        schema=RUNS,
    )  # fmt: skip


def _given(names: Iterable[str], cells: Iterable[Any]) -> dict[str, Any]:
    """Return the cells that are not empty."""
    return {name: cell for name, cell in zip(names, cells, strict=True) if cell is not None}


def _recorded(
    table: Table, kind: str, runs: pl.DataFrame, first: list[pl.Series], found: _Found
) -> Recorded:
    if not found.metrics:
        text = "".join(f"; {note}" for note in table.notes if READ_AS_TEXT in note)
        raise ConfigError(f"{table.path}: no column of numbers can be a metric; columns are {_list(table.names)}{text}")  # fmt: skip
    if found.left:
        table.notes.append(f"left out, as they vary within a run and are no numbers: {_list(found.left)}")  # fmt: skip
    columns = [first[0].alias("run"), first[1].alias("step")]
    metrics = [values.alias(name) for name, values in found.metrics.items()]
    return Recorded(kind, runs, pl.DataFrame(columns + metrics), tuple(dict.fromkeys(table.notes)))


def _long(table: Table, roles: _Roles, key: pl.Series, runs: pl.Series) -> Recorded:
    """Return the runs of a table with a row a recorded step, whose rows need not be sorted."""
    assert roles.step is not None
    number = key.cast(pl.Enum(runs)).to_physical().cast(pl.UInt32)
    order = None
    if not number.is_sorted():
        order = (
            number.to_frame("run").select(pl.arg_sort_by("run", maintain_order=True)).to_series()
        )
        number = number.gather(order)
    same = number.eq_missing(number.shift(1))
    found = _Found()
    flags = [n for n in roles.flags if pl.DataFrame([key.alias("run"), table.values(n).alias("value")]).n_unique() == len(runs)]  # fmt: skip
    status = words_by_row(table, roles.status, flags)
    if status is not None:
        status = status if order is None else status.gather(order)
        status = _per_run(number, status, pl.col("value").drop_nulls().last())
    for name in table.names:
        if name in (roles.status, *flags) or (name in roles.run and len(roles.run) == 1):
            continue
        values = table.values(name)
        values = values if order is None else values.gather(order)
        if name == roles.step:
            before = len(table.notes)
            step = steps(table.path, name, values, table.notes, number)
            if len(table.notes) > before or "epoch" in (name.lower(), roles.names[name]):
                found.metrics[roles.names[name]] = values.cast(pl.Float64)
        else:
            _add(found, roles.names[name], values, number, same)
            if name == roles.seed and roles.names[name] not in found.settings:
                raise ConfigError(f"{table.path}: the seed {name!r} changes within a run; name the columns that make a run, as --map run={','.join((*roles.run, name))}")  # fmt: skip
    rows = pl.DataFrame({"run": number, "step": step})
    epoch = next((own for key, own in found.metrics.items() if key.lower() == "epoch"), None)
    if epoch is not None:
        rows = rows.with_columns(step=steps_of_epochs(roles.step, rows, epoch, table.notes))
    known = (*roles.run, roles.step, roles.status, *flags)
    others = {name: roles.names[name] in found.left for name in table.names if name not in known}
    refuse_parts(table, others, roles.run, rows, order)
    kind = f"{table.format}, {STEPS}"
    return _recorded(table, kind, _runs(table, runs.to_list(), found, status), [number, rows["step"]], found)  # fmt: skip


def _per_run(number: pl.Series, values: pl.Series, take: pl.Expr) -> pl.Series:
    frame = pl.DataFrame({"run": number, "value": values})
    return frame.group_by("run", maintain_order=True).agg(take.alias("taken"))["taken"]


def _add(found: _Found, name: str, values: pl.Series, number: pl.Series, same: pl.Series) -> None:
    """Add a column to the settings if it has one value in each run, else to the metrics if it is numeric."""
    varies = bool((values.ne_missing(values.shift(1)) & same).any())
    sparse = False
    if varies and values.null_count():
        one = pl.col("value").drop_nulls()
        sparse = bool((_per_run(number, values, one.n_unique()) <= 1).all())
    if sparse:
        found.settings[name] = _per_run(number, values, one.first())
    elif not varies:
        found.settings[name] = values.gather((~same).arg_true())
    of_runs = not varies and is_named_result(name) and values.n_unique() > 1
    if (varies or of_runs) and values.dtype.is_numeric():
        found.metrics[name] = values.cast(pl.Float64)
    elif varies and not sparse:
        found.left.append(name)
