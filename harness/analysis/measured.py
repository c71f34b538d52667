"""The metrics that runs recorded: what they mean, and the columns of a table of runs with one of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import polars as pl

from harness.config.errors import ConfigError
from harness.config.measures import BUILTIN, Measure, is_metric

if TYPE_CHECKING:
    from harness.analysis.verdict import Claim


def measures_of(result: dict[str, Any]) -> dict[str, Measure]:
    """Return what the metrics of a `result.json` mean, by name; one of before they were recorded has acc and loss."""
    known = result.get("metrics") or {name: vars(one) for name, one in BUILTIN.items()}
    return {
        name: Measure(one["better"], one["unit"])
        for name, one in known.items()
        if is_metric(f"val/{name}")
    }


def own_names(metrics: Iterable[str]) -> list[str]:
    """Return those of `metrics` that not every history has."""
    return [name for name in metrics if name not in BUILTIN]


def of_result(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metrics of a run, as the column `metrics` has them; none of a run without a result."""
    final, test = result.get("final", {}), result.get("test", {})
    best = {name: one.get("best") for name, one in result.get("metrics", {}).items()}
    best.setdefault("acc", result.get("best", {}).get("val/acc"))
    return {
        name: vars(measure)
        | {"final": final.get(f"val/{name}"), "best": best.get(name), "test": test.get(f"test/{name}")}
        for name, measure in (measures_of(result) if result else {}).items()
    }  # fmt: skip


def recorded(runs: pl.DataFrame) -> dict[str, Measure]:
    """Return what the metrics that any of `runs` has recorded mean, by name."""
    found: dict[str, Measure] = {}
    for text in runs["metrics"].drop_nulls() if "metrics" in runs.columns else ():
        for name, one in json.loads(text).items():
            found.setdefault(name, Measure(one["better"], one["unit"]))
    return found


def of_metric(runs: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return `runs` with `final`, `best` and `test` of the metric `name` in place of acc; null where it is not known."""
    if name == "acc" or "metrics" not in runs.columns:
        return runs
    own = [json.loads(text).get(name) or {} for text in runs["metrics"]]
    return runs.with_columns(
        pl.Series(part, [one.get(part) for one in own], pl.Float64, strict=False)
        for part in ("final", "best", "test")
    )


def with_values(runs: pl.DataFrame, claim: Claim) -> pl.DataFrame:
    """Return `runs` with `value` (null of incomplete runs), `last`, `test`, `images` and `code` of the claim's metric.

    Raises `ConfigError` if a run recorded that the metric has another direction or unit than the claim says.
    """
    refuse_other_measures(runs, claim)
    name, of_test = claim.scale.name, claim.metric.startswith("test/")
    images = "test_images" if of_test else "val_images"
    counted = (
        pl.col(images)
        if images in runs.columns and claim.scale.is_accuracy
        else pl.lit(None, pl.Int64)
    )
    last, complete = pl.col("test" if of_test else "final"), pl.col("status") == "complete"
    texts = runs["config"].to_list() if "config" in runs.columns else [None] * len(runs)
    configs = [json.loads(text or "null") or {} for text in texts]
    codes = [one.get("metric_sources", {}).get(name) for one in configs]
    return of_metric(runs, name).with_columns(
        pl.when(complete).then(last).alias("value"),
        last.alias("last"),
        images=counted,
        code=pl.Series(codes, dtype=pl.String),
    )


def refuse_other_measures(runs: pl.DataFrame, claim: Claim) -> None:
    """Raise `ConfigError` if a run recorded another direction or unit of the claim's metric than the claim has."""
    if "metrics" not in runs.columns:
        return
    for name, text in runs.select("name", "metrics").iter_rows():
        own = json.loads(text).get(claim.scale.name)
        if own and (own["better"], own["unit"]) != (claim.better, claim.unit):
            raise ConfigError(
                f"claim.metric={claim.metric}: {claim.better} is better{_in(claim.unit)} by the claim, "
                f"{own['better']}{_in(own['unit'])} by the run {name}; report what agrees by itself"
            )


def _in(unit: str) -> str:
    return f" (in {unit})" if unit else ""
