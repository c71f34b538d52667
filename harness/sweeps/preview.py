"""A sweep before it is trained: each run's LR plan, what is unfair about the comparison, a picture.

Nothing is read but the number and the shape of the images.
"""

from __future__ import annotations

import html
import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from harness.analysis.arms import Question
from harness.analysis.run_tables import columns
from harness.config.fields import decimal
from harness.store.identity import plan_hashes
from harness.sweeps.prefix_tree import PlannedRun
from harness.training import schedules
from harness.training.schedules import LRPlan

MAX_FINAL_LR_GAP = 0.05  # of the peak, between the final LRs of arms that are compared fairly
_MAX_POINTS = 20_000  # of all LR curves in the picture
_POINTS = 0.2  # the default of claim.margin


def arms_table(runs: Sequence[PlannedRun]) -> str:
    """Return a table with a row an arm: what its LR does, and where it ends."""
    seeds = Counter(run.arm for run in runs)
    header = ["arm", "seeds", "epochs", "restarts at epochs", "last cycle", "LR at end", "mean LR",
              "ends a cycle"]  # fmt: skip
    rows = [[arm, str(seeds[arm]), *_cells(plan)] for arm, plan in _plan_of_each_arm(runs).items()]
    return columns(header, rows)


def _plan_of_each_arm(runs: Sequence[PlannedRun]) -> dict[str, LRPlan]:
    plans: dict[str, LRPlan] = {}
    for run in runs:
        plans.setdefault(run.arm, run.plan)
    return plans


def _cells(plan: LRPlan) -> list[str]:
    restarts = [decimal(plan.epochs(update)) for update in plan.restarts]
    shown = ", ".join(restarts[:6]) + (f", … ({len(restarts)})" if len(restarts) > 6 else "")
    ends = [end for end in plan.cycle_ends if end < plan.updates]
    last = plan.epochs(plan.updates - (ends[-1] if ends else 0))
    return [
        decimal(plan.epochs(plan.updates)), shown or "-", decimal(last), f"{plan.share_at_end:.1%}",
        decimal(float(plan.lr.mean()), 3), ("yes" if plan.aligned else "NO") if plan.cycle_ends else "-",
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
            f"arms have different budgets ({', '.join(map(decimal, sorted(budgets)))} epochs): "
            "only arms of one budget are compared with each other"
        )
    lines += dict.fromkeys(_same_runs(runs))
    if (claim := question.claim) and claim.unit != "%" and claim.margin == _POINTS:
        lines.append(
            f"claim.margin={_POINTS}: is the default, which is meant for points of accuracy; give the smallest "
            f"difference of {claim.metric} that matters"
        )
    if shortage := question.seed_shortage():
        lines.append(shortage)
    return lines


def _same_runs(runs: Sequence[PlannedRun]) -> Iterator[str]:
    """Yield a line for each run that another arm has too: the arms differ in nothing that these settings use."""
    first: dict[tuple[str, str], str] = {}
    for run in runs:
        ((_, lrs),) = plan_hashes(run.plan, [run.plan.updates])
        arm = first.setdefault((run.sharing_key, lrs), run.arm)
        if arm != run.arm:
            yield f"{arm} and {run.arm} are the same runs with these settings, no comparison"


def tuning_runs(runs: Sequence[PlannedRun]) -> int:
    """Return how many runs the arms of a sweep need to choose from the grid that is given."""
    claim = runs[0].config.claim
    return len({run.arm for run in runs}) * math.prod(map(len, claim.grids())) * claim.tuning_seeds


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
    names = list(plans)[: charts.MOST_ARMS]
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
