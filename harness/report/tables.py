"""The tables of a study, in Markdown. Accuracies are means over seeds, in percent, ± half a 95 % t interval.

Of a claim about another metric, that stands in place of accuracy in the table of the arms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl

from harness.analysis import measured, needed, results, run_tables, states
from harness.analysis import paired_stats as paired
from harness.analysis.pairing import natural_key
from harness.analysis.scale import ACCURACY, Scale
from harness.config.fields import show

_RULE = "\nMean `{}` on the tuning seeds; bold: chosen, the smallest value within one standard error of the best.\n"


def trained(sweep: Path) -> pl.DataFrame:
    """Return `results.read` without the runs that a claim with looks did not need."""
    runs = results.read(sweep)
    return runs.filter(~pl.col("status").is_in([needed.NOT_NEEDED, needed.WAITING]))


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, empty without rows."""
    rows = list(rows)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) if rows else ""


def differences(verdict: dict[str, Any]) -> str:
    """Return a row a comparison of `verdict.json`."""
    rows, scale = [], Scale.of(verdict["claim"])
    for one in verdict["comparisons"]:
        arm = ", ".join(filter(None, [one["treatment"], one["cell"]]))
        measured = ["–", "–", "–"]
        if one["ci95"] and one["verdict"] != states.INVALID:
            low, high = one["ci95"]
            p = _number(one["p_adjusted"], ".2g")  # none of a claim that was judged in looks
            measured = [scale.shown(one["mean"]), f"{scale.shown(low)} to {scale.shown(high)}", p]
        rows.append([arm, f"{one['n']}", *measured, one["verdict"]])
    if verdict["claim"].get("looks"):  # repeated intervals; there is no p
        rows = [[*row[:4], row[-1]] for row in rows]
        return _markdown(["arm", "pairs", "difference", "repeated 95 % interval", "verdict"], rows)
    header = ["arm", "pairs", "difference", "95 % interval", "p (adjusted)", "verdict"]
    return _markdown(header, rows)


def arms(runs: pl.DataFrame, scale: Scale = ACCURACY) -> str:
    """Return a row an arm of `runs`, as `results.read` gives them, with the metric of a claim, its `scale`."""
    runs, values = (
        measured.of_metric(runs, scale.name),
        "" if scale.is_accuracy else f" {scale.on_val.values}",
    )
    area = {one["arm"]: f"{one['area']:.2f}" for one in run_tables.anytime(runs) or []}
    rows = []
    for (arm,), group in runs.group_by("arm", maintain_order=True):
        done = group.filter(status="complete")
        whole = f"{len(done)} of {len(group)}"
        lr = ", ".join(show(lr) for lr in group["lr"].drop_nulls().unique().sort())
        means = [_plus_minus(done[name], scale.places_shown) for name in ("final", "best", "test")]
        rows.append([group["level"][0] or arm, lr, whole, *means, area.get(arm, "–")])
    header = ["arm", "peak LR", "complete", f"final{values}", "best", "test", "anytime area"]
    return _markdown(header, rows)


def _plus_minus(values: pl.Series, places: int) -> str:
    complete = values.drop_nulls().to_numpy()
    if len(complete) < 2:
        return "–"
    low, high = paired.interval(complete, 0.05)
    return f"{complete.mean():.{places}f} ± {(high - low) / 2:.{places}f}"


def snapshots(runs: pl.DataFrame) -> str:
    """Return the test accuracy of an arm's snapshot ensembles by number of members."""
    found = run_tables.snapshots(runs.with_columns(arm=pl.coalesce("level", "arm"))) or []
    most = max((one["members"] for one in found), default=0)
    by_arm: dict[str, list[str]] = {}
    for one in found:
        by_arm.setdefault(one["arm"], []).append(f"{one['test_acc_mean']:.2f}")
    rows = [[arm, *means, *["–"] * (most - len(means))] for arm, means in by_arm.items()]
    header = ["arm", "1 member", *(f"{n} members" for n in range(2, most + 1))]
    return _markdown(header, rows)


def phase(verdict: dict[str, Any]) -> str:
    """Return what `verdict.json` says of accuracy around the minima of the LR."""
    rows = []
    for arm in (verdict["phase"] or {"arms": []})["arms"]:
        back, best = arm["recovery_epochs"], arm["best_position"]
        rows.append([
            arm["arm"], f"{arm['runs']}", _with_interval(arm["drop_points"], ".2f"),
            f"{_number(back['median'], '.2f')} ({back['recovered']} of {back['of']} came back)",
            _with_interval(arm["correlation_with_lr"], "+.2f"),
            f"{_number(best['lr_rank'], '.0%')} (p = {_number(best['p'], '.2g')})",
        ])  # fmt: skip
    header = ["arm", "runs", "drop in the epoch after a minimum (points)", "epochs until it is back, median",
              "correlation with the LR", "LR rank of a cycle's best accuracy, 50 % by chance"]  # fmt: skip
    return _markdown(header, rows)


def _with_interval(one: dict[str, Any], form: str) -> str:
    ends = " to ".join(_number(end, form) for end in one["ci95"] or ())
    return f"{_number(one['mean'], form)} ({ends})" if ends else _number(one["mean"], form)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}".replace("-", "−", value < 0)


def tuning(plan: dict[str, Any]) -> str:
    """Return the mean of what each arm came to at each value that it tried, of `plan.json`; the chosen one is bold."""
    tuned = plan.get("tuning") or {"arms": []}
    factor, scale = str(plan["claim"]["factor"]).rpartition(".")[2], Scale.of(plan["claim"]).on_val
    tried = {value: value.split(", ") for one in tuned["arms"] for value in one["tried"]}
    values = sorted(tried, key=lambda value: [*map(natural_key, tried[value])])
    keys = [key.rpartition(".")[2] for key in tuned.get("keys", ())]
    rows = []
    for one in tuned["arms"]:
        row = [one["arm"].removeprefix(f"{factor}=")]
        for value in values:
            accuracies = one["tried"].get(value, ())
            shown = "diverged" if None in accuracies else "–"
            if accuracies and None not in accuracies:
                shown = f"{fmean(accuracies):.{scale.places_shown}f}"
            row.append(f"**{shown}**" if value == one["value"] else shown)
        rows.append(row)
    header = (
        ", ".join(f"{key}={part}" for key, part in zip(keys, tried[value], strict=True))
        for value in values
    )
    return _markdown(["arm", *header], rows) + _RULE.format(scale.metric) * bool(rows)


BY_NAME: dict[str, Callable[[Path, dict[str, Any]], str]] = {
    "differences": lambda sweep, verdict: differences(verdict),
    "arms": lambda sweep, verdict: arms(trained(sweep), Scale.of(verdict["claim"])),
    "tuning": lambda sweep, verdict: tuning(results.read_plan(sweep)),
    "phase": lambda sweep, verdict: phase(verdict),
    "snapshots": lambda sweep, verdict: snapshots(trained(sweep)),
}
