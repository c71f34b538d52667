"""Averages of a run's weights as arms: each run counts once with its last weights, and once with each average.

The factor of such a claim is `average`, its levels are `last` and the names of `averages` in the configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.config.fields import decimal
from harness.config.measures import BUILTIN
from harness.config.schema import Averages

if TYPE_CHECKING:
    import polars as pl

FACTOR = "average"
LAST = "last"  # the level of the weights after the last update
RECALIBRATED = "their batch norms have the statistics of training images"
_BY_NEED = ("missing", "waiting")  # statuses of an arm for which a run is still trained, or may be


def levels(config: Mapping[str, Any]) -> list[str]:
    """Return the levels that a run of this configuration, made by `to_dict`, has."""
    own = {name: value for name, value in config.get("averages", {}).items() if name != "kind"}
    return [LAST, *(Averages(**own).names() if own else ())]


def metric(name: str, average: str) -> str:
    """Return what a metric of an average is called in a history: `val/acc@ema:0.99`."""
    return name if average == LAST else f"{name}@{average}"


def metrics_of(values: Mapping[str, Any], average: str) -> dict[str, Any]:
    """Return a row of a history, or the metrics of the test set, as those of one average alone."""
    if average == LAST:
        return {name: value for name, value in values.items() if "@" not in name}
    own = {name: value for name, value in values.items() if "/" not in name or name == "train/loss"}
    ending = metric("", average)
    return own | {
        name.removesuffix(ending): value for name, value in values.items() if name.endswith(ending)
    }


def as_run(
    result: Mapping[str, Any], average: str, best: Mapping[str, float | None]
) -> dict[str, Any]:
    """Return the `result.json` of a run as that of one whose weights were averaged: training it took nothing more.

    `best` has the average's best validation value of each metric. One of which the last metrics are not finite has diverged.
    """
    if average == LAST or not result:
        return dict(result)
    reused = [result.get("updates_trained"), result.get("updates_reused")]
    measures = result.get("metrics", {}).items()
    own = {
        "final": metrics_of(result.get("final", {}), average),
        "test": metrics_of(result.get("test", {}), average),
        "best": {"val/acc": best.get("acc")},
        "metrics": {name: {**one, "best": best.get(name)} for name, one in measures},
        "updates_trained": 0,
        "updates_reused": sum(filter(None, reused)),
        "seconds": {"total": 0.0},
    }
    lost = [
        f"val/{name}" for name in (*BUILTIN, *own["metrics"]) if f"val/{name}" not in own["final"]
    ]
    if result.get("status") == "complete" and lost:
        own |= {"status": "diverged", "error": f"{lost[0]} of {average} is not finite"}
    return {**result, **own}


def of_runs(runs: pl.DataFrame) -> pl.DataFrame:
    """Return one row a run of a table that may have a row for each of its averages: that of its last weights.

    A run that is not trained yet has the status of the arm that needs it most.
    """
    import polars as pl  # not by a command that only plans

    if "average" not in runs.columns or (runs["average"] == LAST).all():
        return runs
    statuses: dict[str, str] = {}
    for folder, status in runs.select("folder", "status").iter_rows():
        known = statuses.setdefault(folder, status)
        statuses[folder] = next((one for one in _BY_NEED if one in (known, status)), known)
    last = runs.filter(average=LAST)
    whole = pl.Series([statuses[folder] for folder in last["folder"]], dtype=pl.String)
    ended = ~pl.col("status").is_in([*_BY_NEED, "not needed"])
    return last.with_columns(status=pl.when(ended).then("status").otherwise(whole))


def of_table(runs: pl.DataFrame) -> list[str]:
    """Return the average of each row of a table."""
    return runs["average"].to_list() if "average" in runs.columns else [LAST] * len(runs)


def describe(names: Iterable[str]) -> str:
    """Return what the levels of a claim are averages of, in a sentence; empty without an average."""
    texts = [f"{name} is {_described(name)}" for name in names if name != LAST]
    return f"Of the same runs, {'; '.join(texts)}; {RECALIBRATED}." if texts else ""


def _described(name: str) -> str:
    kind, _, value = name.partition(":")
    match kind:
        case "ema":
            return f"the exponential moving average of the weights over all updates, with decay {value}"
        case "cycle_ends":
            return f"their mean over the last {value} cycle ends"
        case "tail":
            return f"their mean over the epoch ends of the last {decimal(100 * float(value))} % of the training"
    return "another average"


def variants(
    jobs: Sequence[Mapping[str, Any]], configured: Sequence[Sequence[str]]
) -> list[dict[str, Any]]:
    """Return each of `jobs` once for each level that it has, with that in `swept`."""
    return [
        {**job, "swept": job["swept"] | {FACTOR: level}}
        for job, own in zip(jobs, configured, strict=True)
        for level in own
    ]
