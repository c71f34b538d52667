"""A sweep before it is trained: each run's LR plan, what is unfair about the comparison, a picture.

Nothing is read but the number and the shape of the images.
"""

from __future__ import annotations

import html
import io
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import polars as pl

from harness.analysis.arms import Question
from harness.analysis.results import columns
from harness.config.schema import Config
from harness.sweeps.prefix_tree import PlannedRun
from harness.training import datasets as data
from harness.training import models, schedules
from harness.training.schedules import Plan

MAX_FINAL_LR_GAP = 0.05  # of the peak, between the final LRs of arms that are compared fairly
_MAX_DRAWN = 100  # arms in the picture: nobody distinguishes more
_MAX_POINTS = 20_000  # of all LR curves in the picture


outline_once = lru_cache(data.outline)  # a folder of images is listed once for all runs of a sweep
_PLANS: dict[str, Plan] = {}  # seeds have the same


def plan_run(name: str, arm: str, config: Config) -> PlannedRun:
    """Return a run with its LR plan. Raises `ConfigError` if it does not fit the data and the budget."""
    data.refuse_without_test(config)
    outline = outline_once(config.dataset)
    updates_per_epoch = data.updates_per_epoch(outline.train, config.trainer.batch_size)
    if config.trainer.batch_size == 1:
        shape = outline.channels, outline.image_size
        network = models.without_weights(config.model, *shape, outline.classes)
        models.check_batch(network, 1, *shape)
    key = f"{config.scheduler} {config.optimizer.lr} {config.trainer.epochs} {updates_per_epoch}"
    if key not in _PLANS:
        _PLANS[key] = schedules.plan(config, updates_per_epoch)
    return PlannedRun(name, arm, config, _PLANS[key])


def arms_table(runs: Sequence[PlannedRun]) -> str:
    """Return a table with a row an arm: what its LR does, and where it ends."""
    seeds = Counter(run.arm for run in runs)
    header = ["arm", "seeds", "epochs", "restarts at epochs", "last cycle", "LR at end", "mean LR",
              "ends a cycle"]  # fmt: skip
    rows = [[arm, str(seeds[arm]), *_cells(plan)] for arm, plan in _plan_of_each_arm(runs).items()]
    return columns(header, rows)


def _plan_of_each_arm(runs: Sequence[PlannedRun]) -> dict[str, Plan]:
    plans: dict[str, Plan] = {}
    for run in runs:
        plans.setdefault(run.arm, run.plan)
    return plans


def _cells(plan: Plan) -> list[str]:
    restarts = [f"{plan.epochs(update):g}" for update in plan.restarts]
    shown = ", ".join(restarts[:6]) + (f", … ({len(restarts)})" if len(restarts) > 6 else "")
    ends = [end for end in plan.cycle_ends if end < plan.updates]
    last = plan.epochs(plan.updates - (ends[-1] if ends else 0))
    return [
        f"{plan.epochs(plan.updates):g}", shown or "-", f"{last:g}", f"{plan.share_at_end:.1%}",
        f"{plan.lr.mean():.4f}", ("yes" if plan.aligned else "NO") if plan.cycle_ends else "-",
    ]  # fmt: skip


def comparison_warnings(runs: Sequence[PlannedRun], question: Question) -> list[str]:
    """Return what would make the comparison of `runs` unfair or undecided, a line each."""
    misaligned = (
        f"{run.arm}: {line}" for run in runs if (line := schedules.misalignment(run.plan))
    )
    lines = list(dict.fromkeys(misaligned))
    final_lr = {run.arm: run.plan.share_at_end for run in runs if run.plan.cycle_ends}
    if final_lr and max(final_lr.values()) - min(final_lr.values()) > MAX_FINAL_LR_GAP:
        shares = ", ".join(f"{share:.0%} in {arm}" for arm, share in final_lr.items())
        lines.append(f"the arms do not end alike, an unfair comparison: LR at the end {shares}")
    budgets = {run.plan.epochs(run.plan.updates) for run in runs}
    if len(budgets) > 1:
        lines.append(
            f"arms have different budgets ({', '.join(f'{b:g}' for b in sorted(budgets))} epochs): "
            "only arms of one budget are compared with each other"
        )
    if shortage := question.seed_shortage():
        lines.append(shortage)
    return lines


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Preview of a sweep</title>
<body style="margin: 2em; font-family: sans-serif">
<pre>{text}</pre>
{drawing}
</html>
"""


def write_preview(folder: Path, runs: Sequence[PlannedRun], text: str) -> list[Path]:
    """Write `preview.html`, with `text` above the LR curves, and `preview.png`, the curves alone."""
    import vl_convert

    from harness.report import charts

    plans = _plan_of_each_arm(runs)
    names = list(plans)[:_MAX_DRAWN]
    if len(plans) > len(names):
        text += f"\n\ndrawn below: the first {len(names)} of {len(plans)} arms"
    most = _MAX_POINTS // len(names)
    curves = [charts.lr_curve(n, plans[n].lr, plans[n].updates_per_epoch, most) for n in names]
    chart = charts.lr_panels(pl.concat(curves), names)
    folder.mkdir(parents=True, exist_ok=True)
    page, picture = folder / "preview.html", folder / "preview.png"
    drawing = io.StringIO()
    chart.save(drawing, format="svg")  # a page of scripts takes two seconds more
    page.write_text(_PAGE.format(text=html.escape(text), drawing=drawing.getvalue()))
    picture.write_bytes(vl_convert.svg_to_png(drawing.getvalue(), scale=2))
    return [page, picture]
