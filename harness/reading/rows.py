"""The runs that are compared, with what their curves came to, as the table of runs that `analysis` takes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from harness.analysis import arms
from harness.analysis.pairing import natural_key
from harness.analysis.scale import Scale
from harness.config.errors import ConfigError
from harness.config.measures import Measure
from harness.reading.recorded import COMPLETE, STEPS, Recorded, counted, is_unnamed, listed_runs
from harness.reading.recover import Question, Run
from harness.reading.series import Series, copies, ends, lr_ends, rows_without_step, series

_SURELY_DIFFERENT = 5  # values of a curve that is a copy if another is equal to it
_DIGITS_OF_A_COPY = 10  # of all results of a row, or more
NO_VALUE = "no value"
SHORTER = "shorter"  # the status of a run that ends before others of its arm, where nothing says how it ended


@dataclass(frozen=True)
class Curves:
    """The curves of the compared runs by the number of the run: `rows` have run, step, epoch, lr and value.

    `ends` as `series.ends` returns them, with the `epoch` of the last value and the step of the last row, `recorded`, null
    of a run that was resumed; `lrs` as `lr_ends` does, None without an LR; `copies` as `series.copies`. `epoch` and `lr`
    of `rows` are null where they are not known. `unit` is what budgets are in: epochs, steps, or "" without either.
    """

    rows: pl.DataFrame
    ends: pl.DataFrame
    lrs: pl.DataFrame | None
    copies: dict[int, int]
    unit: str
    notes: list[str]


def curves(recorded: Recorded, found: Question, roles: Mapping[str, str], better: str) -> Curves:
    """Return the curves of the runs that are compared; `roles` are the columns of `value`, `lr` and `epoch`.

    Raises `ConfigError` where rows of a table are those of several runs with one name.
    """
    part = _of_runs(recorded, found.runs)
    parts = {role: series(part, column) for role, column in roles.items()}
    if recorded.kind.endswith(STEPS) and (several := parts["value"].several):
        names = [found.runs[number].name for number in several]
        raise ConfigError(
            f"rows of {counted(len(names), 'run')} go from the first step to the last several times ({listed_runs(names)}): "
            "are these several runs with one name? --map run=COLUMN takes a column that names each run, or several that do, as run=name,seed; add one where none does"
        )
    notes = _recorded_again(found, parts["value"])
    if lost := rows_without_step(part):
        notes.append(f"{counted(lost, 'row')} without a step left out")
    last = ends(parts["value"].rows, better)
    went_on = ~pl.col("run").is_in(parts["value"].resumed)  # of others the last steps may be gone
    rows_end = part.curves.filter(went_on).group_by("run").agg(recorded=pl.col("step").max())
    last = last.join(rows_end, "run", "left", maintain_order="left")
    steps = part.curves["step"].null_count() < len(part.curves)
    if not steps:
        parts = {"value": parts["value"]}  # a column of final values is no curve of the LR
    if "epoch" in parts:
        at_end = parts["epoch"].rows.join(last.select("run", "step"), ["run", "step"], "semi")
        last = last.join(at_end.rename({"value": "epoch"}), ["run", "step"], "left")
    surely, alike = (copies(parts["value"].rows, least) for least in (_SURELY_DIFFERENT, 2))
    if perhaps := [found.runs[number].name for number in alike if number not in surely]:
        notes.append(f"few values of {counted(len(perhaps), 'run')} are those of others, in all digits ({listed_runs(perhaps)}): are they copies?")  # fmt: skip
    rows = _joined({role: one.rows for role, one in parts.items()})
    by_epoch = rows.drop_nulls("value")["epoch"].is_finite().fill_null(False).all()
    unit = "epochs" if by_epoch and len(rows) else "steps" if steps else ""
    if unit == "epochs":
        rows, reckoned = _with_epochs(rows, parts["epoch"].rows)
        if reckoned:
            notes.append(f"LRs of {counted(reckoned, 'run')} have no epoch: they are drawn at that of their step, between the rows that have one")  # fmt: skip
    lrs = lr_ends(parts["lr"].rows).drop_nulls("peak") if "lr" in parts else None
    lrs = None if lrs is None or lrs.is_empty() else lrs
    return Curves(rows, last, lrs, surely, unit, notes)


def _of_runs(recorded: Recorded, runs: Sequence[Run]) -> Recorded:
    """Return `recorded` with the curves of `runs` alone, numbered in their order."""
    rows = [run.row for run in runs]
    if rows == [*range(len(recorded.runs))]:
        return recorded
    new = pl.Series([*range(len(rows))], dtype=pl.UInt32)
    mapped = recorded.curves["run"].replace_strict(
        pl.Series(rows, dtype=pl.UInt32), new, default=None
    )
    kept = recorded.curves.with_columns(run=mapped).filter(pl.col("run").is_not_null())
    return replace(recorded, curves=kept)


def _recorded_again(found: Question, values: Series) -> list[str]:
    notes = []
    if values.sorted:
        names = [found.runs[number].name for number in values.sorted]
        notes.append(f"rows of {counted(len(names), 'run')} are in no order of steps ({listed_runs(names)}): sorted by step")  # fmt: skip
    if values.turned:
        names = [found.runs[number].name for number in values.turned]
        notes.append(f"the rows of {counted(len(names), 'run')} are newest first ({listed_runs(names)}): read from the end")  # fmt: skip
    if values.resumed:
        names = [found.runs[number].name for number in values.resumed]
        notes.append(
            f"{counted(len(names), 'run')} went back to an earlier step ({listed_runs(names)}): the rows recorded last count"
        )
    elif values.repeated:
        notes.append(
            f"{counted(values.repeated, 'row')} of {found.metric} recorded a step again: those recorded last count"
        )
    return notes


def _joined(parts: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Return the values of several series side by side, by run and step; null where one lacks them."""
    rows = parts["value"]
    for name in ("lr", "epoch"):
        if name not in parts:
            rows = rows.with_columns(pl.lit(None, pl.Float64).alias(name))
            continue
        own = parts[name].rename({"value": name})
        if own.select("run", "step").equals(rows.select("run", "step")):
            rows = rows.with_columns(own[name])
        else:
            how: Any = "full" if name == "lr" else "left"
            rows = rows.join(own, ["run", "step"], how, coalesce=True).sort("run", "step")
    return rows.select("run", "step", "epoch", "lr", "value")


def _with_epochs(rows: pl.DataFrame, known: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Return `rows` in which LRs without an epoch, as Lightning records them, have one, and of how many runs they are.

    `known` has the epochs by run and step, as `value`. Between them epochs are linear in the steps; before the first and
    after the last one of a run they are that one. Rows with a value keep what was recorded.
    """
    lacking = rows.filter(pl.col("epoch").is_null(), pl.col("value").is_null())
    if lacking.is_empty():
        return rows, 0
    own = known.filter(pl.col("value").is_finite()).rename({"value": "found"})
    both = own.join(lacking.select("run", "step"), ["run", "step"], "full", coalesce=True)
    line = pl.col("found").interpolate_by("step").over("run")
    outside = pl.col("found").forward_fill().backward_fill().over("run")
    found = both.sort("run", "step").with_columns(line).with_columns(outside)
    epochs = lacking.drop("epoch").join(found, ["run", "step"], "left").drop_nulls("found")
    rows = rows.join(
        epochs.select("run", "step", "found"), ["run", "step"], "left", maintain_order="left"
    )
    epoch = pl.coalesce("epoch", "found").alias("epoch")
    return rows.with_columns(epoch).drop("found"), epochs["run"].n_unique()


def table(
    found: Question, own: Curves, measure: Measure, source: str, folder: Path
) -> pl.DataFrame:
    """Return the runs as `results.read` does, arms in the order of their levels, the baseline's first.

    `folder` is that in which a run's curves are found under its number. A run without a state that ends before others of its
    arm and cell is `shorter`; a complete one whose last value is not finite has `diverged`.
    """
    last = {row["run"]: row for row in own.ends.to_dicts()}
    lrs = {row["run"]: row for row in own.lrs.to_dicts()} if own.lrs is not None else {}
    longest: dict[tuple[str, str], int] = {}  # by cell and level, and by cell
    for number, run in enumerate(found.runs):
        for place in ((found.cell(run), run.level), (found.cell(run), "")):
            longest[place] = max(longest.get(place, 0), last.get(number, {}).get("step") or 0)
    order = {level: number for number, level in enumerate([found.baseline, *found.treatments])}
    numbered = sorted(
        enumerate(found.runs),
        key=lambda pair: (natural_key(found.cell(pair[1])), order[pair[1].level], pair[1].seed or 0, natural_key(pair[1].name)),
    )  # fmt: skip
    rows = []
    for number, run in numbered:
        end, place = last.get(number), (found.cell(run), run.level)
        status, error = _status(run, end, own.unit, found.metric)
        if status == COMPLETE and end is not None:
            status, error = _too_short(
                run, end, longest[place], longest[place[0], ""], found.metric
            )
        done = status == COMPLETE  # others make no comparison invalid
        rows.append(
            _row(found, run, measure, end or {}, lrs.get(number, {}) if done else {})
            | {"num": number, "folder": str(folder / str(number)), "sweep": source, "status": status, "error": error}
            | {"budget": _budget(end, own.unit) if done else None, "budget_unit": own.unit or None}
        )  # fmt: skip
    return pl.DataFrame(rows, schema_overrides=_TYPES, infer_schema_length=None)


def _status(
    run: Run, last: dict[str, Any] | None, unit: str, metric: str
) -> tuple[str, str | None]:
    """Return how a run ended, and why it is not complete."""
    if run.status not in (None, COMPLETE):
        return str(run.status), run.error
    if last is None:
        return NO_VALUE, f"has recorded no {metric}"
    if not math.isfinite(last["value"]):
        where = f" at step {last['step']}" if unit else ""
        return "diverged", f"its last value{where} is {last['value']}"
    return COMPLETE, None


def _too_short(
    run: Run, last: dict[str, Any], of_arm: int, of_cell: int, metric: str
) -> tuple[str, str | None]:
    """Return the status of a run that may lack values at its end: those of others go to the steps `of_arm`, `of_cell`."""
    at, recorded = last["step"], last["recorded"]
    if recorded is not None and at < of_cell <= recorded:
        if last["every"] and at + last["every"] > recorded:
            return NO_VALUE, f"was last evaluated at step {at}, as every {last['every']} steps; others are at {of_cell}"  # fmt: skip
        return NO_VALUE, f"has no {metric} after step {at}, but rows to step {recorded}: an empty cell may be a NaN"  # fmt: skip
    if run.status is None and at < of_arm:
        return SHORTER, f"ends at step {at}, others of its arm at {of_arm}"
    return COMPLETE, None


def without_repeats(found: Question, runs: pl.DataFrame) -> pl.DataFrame:
    """Return `runs` with one run a seed, level and cell: the complete one, where others did not end or ended alike.

    The others are `not_compared`. Raises `ConfigError` where several are complete and differ, or one has diverged.
    """
    if not found.paired:
        return runs
    dropped: list[str] = []
    for _, group in runs.group_by("cell", "level", "seed", maintain_order=True):
        if len(group) == 1:
            continue
        ended = group.filter(pl.col("status").is_in([COMPLETE, "diverged"]))
        first = (ended if len(ended) else group).row(0, named=True)
        if ended.select("status", "final").n_unique() > 1:
            one, other = ended.filter(pl.struct("status", "final").is_first_distinct())["name"][:2]
            raise ConfigError(
                f"{one} and {other} have one level, seed and cell, and ended differently; "
                "--seed KEY,KEY pairs by several keys, --seed none without, --where takes a part of the runs"
            )
        for name in group["name"]:
            if name != first["name"]:
                dropped.append(name)
                found.not_compared[name] = "was run again with one level, seed and cell"
    return runs.filter(~pl.col("name").is_in(dropped))


def same_rows(found: Question) -> dict[int, int]:
    """Return as `series.copies` does the rows of a table of final values that are equal in all columns.

    Only rows without a name of their own whose results have many digits: others may agree by chance.
    """
    first: dict[str, int] = {}
    same: dict[int, int] = {}
    for number, run in enumerate(found.runs):
        results = [run.settings.get(name) for name in (found.metric, *found.keys.results)]
        digits = sum(len(re.findall(r"\d", repr(one))) for one in results if isinstance(one, float))
        if digits < _DIGITS_OF_A_COPY or not is_unnamed(run.name):
            continue
        text = json.dumps(run.settings, sort_keys=True)
        if first.setdefault(text, number) != number:
            same |= {number: first[text], first[text]: first[text]}
    return same


def without_copies(found: Question, runs: pl.DataFrame, same: dict[int, int]) -> pl.DataFrame:
    """Return `runs`, which are not paired, with one run of a level and cell of those whose curves are equal in all digits.

    The first complete one stays. Of pairs, whose seeds differ, all stay, and a note names them.
    """
    copied = runs.filter(pl.col("num").is_in([*same]))
    if found.paired:
        if len(copied):
            names = listed_runs(copied["name"].to_list())
            found.notes.append(f"values of {counted(len(copied), 'run')} are those of others, in all digits ({names}): is their seed used?")  # fmt: skip
        return runs
    done = (pl.col("status") == COMPLETE).not_()
    marked = copied.with_columns(first=pl.col("num").replace_strict(same)).sort(
        done, maintain_order=True
    )
    kept = marked.unique(["cell", "level", "first"], keep="first", maintain_order=True)["num"]
    dropped = copied.filter(~pl.col("num").is_in(kept.implode()))
    why = "has the values of another run of its arm, in all digits"
    found.not_compared |= dict.fromkeys(dropped["name"], why)
    return runs.filter(~pl.col("num").is_in(dropped["num"].implode()))


def _budget(last: dict[str, Any] | None, unit: str) -> float | None:
    """Return where the last value of a run was recorded: epochs, but for what adding parts of one rounded, else steps."""
    if last is None or not unit:
        return None
    return float(round(last["epoch"], 6) if unit == "epochs" else last["step"])


def _share(last: float | None, peak: float | None) -> float | None:
    return None if last is None or not peak or peak < 0 else last / peak


def _row(
    found: Question, run: Run, measure: Measure, last: dict[str, Any], lr: dict[str, Any]
) -> dict[str, Any]:
    final, best = last.get("finite"), last.get("best")
    if last and math.isfinite(last["value"]):
        final = last["value"]
    scale = Scale(found.metric, measure.better, measure.unit, 0.0)
    of_test = found.metric == f"test/{scale.name}"
    values = {"final": final, "best": best, "test": final if of_test else None}
    shown = {scale.name: vars(measure) | values}
    return {
        "name": run.name, "run": run.name, "arm": arms.label_run(run.swept)["name"], "seed": run.seed,
        "level": run.level, "cell": found.cell(run), "end_known": run.status is not None, **values,
        "nearest_aligned": None, "aligned": lr.get("aligned"), "restarts": lr.get("restarts"),
        "lr_share_at_end": _share(lr.get("last"), lr.get("peak")), "lr": None,
        "updates_per_epoch": None, "updates_trained": None, "updates_reused": None, "exact": None,
        "seconds": None, "fingerprint": None, "run_id": None, "commit": None, "dirty": None,
        "weights_sha256": None, "begun_again": None, "claim_sha256": None, "tracking": run.where,
        "val_images": None, "test_images": None, "tuned": None, "refused": False, "numerics": "{}",
        "config": None, "swept": json.dumps(run.swept), "overrides": "[]", "metrics": json.dumps(shown), "plan": 0,
    }  # fmt: skip


_TYPES: dict[str, Any] = {
    **dict.fromkeys(("seed", "restarts", "updates_per_epoch", "updates_trained", "updates_reused", "begun_again", "val_images", "test_images"), pl.Int64),
    **dict.fromkeys(("final", "best", "test", "budget", "lr_share_at_end", "lr", "seconds"), pl.Float64),
    **dict.fromkeys(("error", "fingerprint", "run_id", "commit", "weights_sha256", "claim_sha256", "tuned", "config", "budget_unit"), pl.String),
    **dict.fromkeys(("aligned", "exact", "dirty"), pl.Boolean),
    "nearest_aligned": pl.List(pl.Float64),
}  # fmt: skip
