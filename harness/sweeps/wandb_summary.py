"""The W&B run of a whole sweep: its verdict, its paired differences, its page."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import schema as conf
from harness.analysis import results
from harness.config.errors import Attempts
from harness.files import read_json
from harness.runs.wandb_run import PATIENCE_SECONDS, Label, Mirror, start

if TYPE_CHECKING:
    import wandb

ARM = "summary"  # the job type of the run, by which dashboards leave it out of the curves


def publish(sweep: Path, to: Path | None = None) -> str:
    """Log the sweep's own run, tracked as the first of its runs is; again, if it was before.

    With `to` it goes to the server, wandb's files there, and errors are raised. Returns the
    address of its page; empty offline, without W&B, and for a sweep without a verdict.
    """
    if not ((sweep / "plan.json").exists() and (sweep / "verdict.json").exists()):
        return ""
    known = [found for folder in results.folders(sweep) if (found := results.result(folder))]
    if not known:
        return ""
    tracked = conf.from_dict(known[0]["config"]).tracking
    verdict = read_json(sweep / "verdict.json")
    values = {"claim": verdict["claim"]}
    if to and isinstance(tracked, conf.Wandb):
        mirror = Mirror(start(tracked, "online", label(sweep), to, values, PATIENCE_SECONDS))
    else:
        mirror = Mirror.open(tracked, label(sweep), sweep, values)
    if not mirror.where:
        return ""
    steps, summary = Attempts(*([Exception] if to else [])), {}
    with steps.step("W&B: the report is not attached"):
        mirror.attach(_page(sweep))
    with steps.step("W&B: the verdict is not sent"):
        summary = _summary(verdict)
    mirror.finish(summary, exit_code=0)
    for failure in steps.failures:
        print(f"warning: {failure}", file=sys.stderr)
    return mirror.where if mirror.where.startswith("http") else ""


def label(sweep: Path) -> Label:
    """How the sweep's own run is called; its id follows from `plan.json`."""
    name = sweep.resolve().name
    document = results.read_plan(sweep)
    content = (sweep / "plan.json").read_bytes()
    if document.get("search"):  # whose plan grows
        content = json.dumps([name, document["command"]]).encode()
    plan = hashlib.sha256(content).hexdigest()
    return Label(f"sweep{plan[:16]}", name, name, ARM)


def _summary(verdict: dict[str, Any]) -> dict[str, Any]:
    """The sentence, the figures of each comparison, and the pairs as a table."""
    import wandb

    columns: list[str | int] = ["comparison", "seed", "baseline", "treatment", "difference"]
    pairs, figures = [], {}
    for one in verdict["comparisons"]:
        name = f"{one['treatment']} against {one['baseline']}"
        name += f" at {one['cell']}" if one["cell"] else ""
        told = {key: one[key] for key in ("verdict", "n", "mean", "ci95", "p_holm")}
        figures[name] = {key: value for key, value in told.items() if value is not None}
        pairs += [[name, *(pair[str(key)] for key in columns[1:])] for pair in one["pairs"]]
    table = wandb.Table(columns, pairs)
    return {"verdict": verdict["sentence"], **figures, "paired differences": table}


def _page(sweep: Path) -> wandb.Artifact:
    import wandb

    artifact = wandb.Artifact(f"report-{label(sweep).run_id}", type="report")
    for name in ("report.html", "verdict.json", "plan.json"):
        artifact.add_file(str(sweep / name), name)
    return artifact
