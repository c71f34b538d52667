"""The W&B run of a whole sweep: its verdict, its paired differences, its page."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis import results
from harness.analysis.sentences import comparison_label
from harness.config.one_line_errors import Attempts
from harness.config.schema import Wandb
from harness.config.values import section_from_dict
from harness.config.warnings import warn
from harness.files import read_json
from harness.runs.wandb_run import UPLOAD_TIMEOUT_S, Label, WandbRun, start

if TYPE_CHECKING:
    import wandb

_JOB_TYPE = "summary"  # by which dashboards leave the run out of the curves


def publish_sweep(sweep: Path, to: Path | None = None) -> str:
    """Log the sweep's own run, tracked as the first of its runs is; again if it was logged before.

    With `to` it goes to the server, wandb's files go there, and errors are raised. Return the
    address of its page; empty offline, without W&B, and for a sweep without a verdict.
    """
    if not ((sweep / "plan.json").exists() and (sweep / "verdict.json").exists()):
        return ""
    known = filter(None, map(results.result, results.folders(sweep)))
    if (first := next(known, None)) is None:
        return ""
    tracked: Any = section_from_dict("tracking", first["config"]["tracking"])
    verdict = read_json(sweep / "verdict.json")
    values = {"claim": verdict["claim"]}
    if to and isinstance(tracked, Wandb):
        mirror = WandbRun(start(tracked, "online", label(sweep), to, values, UPLOAD_TIMEOUT_S))
    else:
        mirror = WandbRun.open(tracked, label(sweep), sweep, values)
    if not mirror.where:
        return ""
    steps, summary = Attempts(*([Exception] if to else [])), {}
    with steps.step("W&B: the report is not attached"):
        mirror.attach(_page(sweep))
    with steps.step("W&B: the verdict is not sent"):
        summary = _summary(verdict)
    mirror.finish(summary, exit_code=0)
    for failure in steps.failures:
        warn(failure)
    return mirror.where if mirror.where.startswith("http") else ""


def label(sweep: Path) -> Label:
    """Return the names of the sweep's own run; its id follows from `plan.json`."""
    name = sweep.resolve().name
    document = results.read_plan(sweep)
    content = (sweep / "plan.json").read_bytes()
    if document.get("search"):  # whose plan grows
        content = json.dumps([name, document["command"]]).encode()
    plan = hashlib.sha256(content).hexdigest()
    return Label(f"sweep{plan[:16]}", name, name, _JOB_TYPE)


def _summary(verdict: dict[str, Any]) -> dict[str, Any]:
    """Return the sentence, the figures of each comparison, and the pairs as a table."""
    import wandb

    columns: list[str | int] = ["comparison", "seed", "baseline", "treatment", "difference"]
    pairs, figures = [], {}
    for one in verdict["comparisons"]:
        name = comparison_label(one)
        values = {key: one.get(key) for key in ("verdict", "n", "mean", "ci95", "p_adjusted")}
        figures[name] = {key: value for key, value in values.items() if value is not None}
        pairs += [[name, *(pair[str(key)] for key in columns[1:])] for pair in one["pairs"]]
    table = wandb.Table(columns, pairs)
    return {"verdict": verdict["sentence"], **figures, "paired differences": table}


def _page(sweep: Path) -> wandb.Artifact:
    import wandb

    artifact = wandb.Artifact(f"report-{label(sweep).run_id}", type="report")
    for name in ("report.html", "verdict.json", "plan.json"):
        artifact.add_file(str(sweep / name), name)
    return artifact
