"""A sweep before it is trained: every arm's configuration and plan, and what the arms share.

Nothing is read but the number and the shape of the images.
"""

from __future__ import annotations

import html
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from harness.store.identity import fingerprint
from harness.training import datasets as data
from harness.training import models
from harness.training import schedules
from harness.store import store as trajectory
from harness.analysis.arms import Question
from harness.config.schema import Config
from harness.analysis.results import columns, common
from harness.training.schedules import LRPlan

_DRAWN = 100  # arms, at most, in the picture: nobody tells more apart
_POINTS = 20_000  # of all LR curves in the picture
_UNLIKE = 0.05  # of the peak: how far the LRs at the ends of fairly compared arms may lie apart


@dataclass(frozen=True)
class Arm:
    """One run of a sweep, planned."""

    name: str
    arm: str  # the name without the seed
    config: Config
    plan: LRPlan

    @cached_property
    def kin(self) -> str:
        """Equal for runs that differ in nothing but their plans."""
        dataset = json.dumps(vars(self.config.dataset), sort_keys=True, default=str)
        return fingerprint(self.config, dataset, self.config.trainer.precision)


outline_once = lru_cache(data.training_shape)  # a folder of images is listed once for all runs of a sweep
_PLANS: dict[str, LRPlan] = {}  # seeds have the same


def plan(name: str, arm: str, config: Config) -> Arm:
    """Raises `ConfigError` if the schedule does not fit the data and the budget."""
    data.refuse_without_test(config)
    outline = outline_once(config.dataset)
    updates_per_epoch = data.updates_per_epoch(outline.train, config.trainer.batch_size)
    if config.trainer.batch_size == 1:
        shape = outline.channels, outline.image_size
        network = models.without_weights(config.model, *shape, outline.classes)
        models.check_batch(network, 1, *shape)
    key = f"{config.scheduler} {config.optimizer.lr} {config.trainer.epochs} {updates_per_epoch}"
    if key not in _PLANS:
        _PLANS[key] = schedules.lr_plan(config, updates_per_epoch)
    return Arm(name, arm, config, _PLANS[key])


def shape(plan: LRPlan) -> dict[str, Any]:
    """What a sweep's plan says of the LR plan of a run."""
    described = plan.describe()
    names = ("budget_epochs", "aligned", "nearest_aligned_epochs", "updates_per_epoch")
    return {name: described[name] for name in names}


@dataclass(frozen=True)
class Stretch:
    """A part of a plan that is trained once, from update `begin` to `end`, and who shares it."""

    begin: int
    end: int
    arms: tuple[Arm, ...]
    then: tuple[Stretch, ...]

    def __iter__(self) -> Iterator[Stretch]:
        """This stretch and all that follow it."""
        yield self
        for stretch in self.then:
            yield from stretch


def tree(arms: Sequence[Arm]) -> list[Stretch]:
    """The plans of `arms` as trees, a root for each set of runs that could share anything."""
    kin: dict[str, list[Arm]] = {}
    for arm in arms:
        kin.setdefault(arm.kin, []).append(arm)
    return [stretch for group in kin.values() for stretch in _branches(group, 0)]


def _branches(arms: Sequence[Arm], begin: int) -> list[Stretch]:
    """The stretches that begin after `begin` updates, all of `arms` being equal up to there.

    What is equal for less than another epoch is not worth a checkpoint: it counts as different.
    """
    by_next: dict[bytes, list[Arm]] = {}
    for arm in arms:
        if arm.plan.updates > begin:
            epoch = arm.plan.lr[begin : begin + arm.plan.updates_per_epoch]
            by_next.setdefault(epoch.tobytes(), []).append(arm)
    return [_stretch(group, begin) for group in by_next.values()]


def _stretch(arms: Sequence[Arm], begin: int) -> Stretch:
    first = arms[0].plan.lr
    end = min(common(first, arm.plan.lr) for arm in arms)
    return Stretch(begin, end, tuple(arms), tuple(_branches(arms, end)))


def branches(roots: Sequence[Stretch]) -> dict[str, set[int]]:
    """For each arm's name, after which updates others part from it: where checkpoints serve them."""
    found: dict[str, set[int]] = {}
    for root in roots:
        for stretch in root:
            for arm in stretch.arms:
                found.setdefault(arm.name, set()).update(
                    {stretch.end} if len(stretch.arms) > 1 else ()
                )
    return found


def epochs(arms: Sequence[Arm]) -> float:
    """What the arms' budgets add up to."""
    return sum(arm.plan.epochs(arm.plan.updates) for arm in arms)


def epochs_to_train(roots: Sequence[Stretch]) -> float:
    """What they cost when beginnings are shared."""
    return sum(
        stretch.arms[0].plan.epochs(stretch.end - stretch.begin)
        for root in roots
        for stretch in root
    )


def checkpoints_bytes(roots: Sequence[Stretch]) -> int:
    """About what the store keeps of the sweep with `store.keep=cycles`."""
    total = 0
    sizes: dict[str, int] = {}
    for root in roots:
        config = root.arms[0].config
        network = f"{config.model} {config.dataset} {type(config.optimizer)}"
        if network not in sizes:
            sizes[network] = _checkpoint_bytes(config)
        size = sizes[network]
        for stretch in root:
            inside = {
                end for end in stretch.arms[0].plan.cycle_ends if stretch.begin < end <= stretch.end
            }
            total += size * len(inside | {stretch.end})
    return total


def _checkpoint_bytes(config: Config) -> int:
    outline = data.training_shape(config.dataset)
    network = models.without_weights(
        config.model, outline.channels, outline.image_size, outline.classes
    )
    parameters = sum(p.numel() for p in network.parameters())
    buffers = sum(b.numel() for b in network.buffers())
    return 4 * (parameters * (1 + config.optimizer.moments) + buffers)


def table(arms: Sequence[Arm]) -> str:
    """One row an arm: what its LR does, and where it ends."""
    seeds = Counter(arm.arm for arm in arms)
    first = {arm.arm: arm for arm in reversed(arms)}
    header = ["arm", "seeds", "epochs", "restarts at epochs", "last cycle", "LR at end", "mean LR",
              "ends a cycle"]  # fmt: skip
    rows = [[name, str(seeds[name]), *_cells(first[name].plan)] for name in seeds]
    return columns(header, rows)


def _cells(plan: LRPlan) -> list[str]:
    restarts = [f"{plan.epochs(update):g}" for update in plan.restarts]
    shown = ", ".join(restarts[:6]) + (f", … ({len(restarts)})" if len(restarts) > 6 else "")
    ends = [end for end in plan.cycle_ends if end < plan.updates]
    last = plan.epochs(plan.updates - (ends[-1] if ends else 0))
    return [
        f"{plan.epochs(plan.updates):g}", shown or "-", f"{last:g}", f"{plan.share_at_end:.1%}",
        f"{plan.lr.mean():.4f}", ("yes" if plan.aligned else "NO") if plan.cycle_ends else "-",
    ]  # fmt: skip


def warnings(arms: Sequence[Arm], question: Question) -> list[str]:
    """What would make the comparison of `arms` unfair or undecided, a line each."""
    found = list(
        dict.fromkeys(
            f"{arm.arm}: {line}" for arm in arms if (line := schedules.misalignment(arm.plan))
        )
    )
    shares = {arm.arm: arm.plan.share_at_end for arm in arms if arm.plan.cycle_ends}
    if shares and max(shares.values()) - min(shares.values()) > _UNLIKE:
        told = ", ".join(f"{share:.0%} in {name}" for name, share in shares.items())
        found.append(f"the arms do not end alike, an unfair comparison: LR at the end {told}")
    budgets = {arm.plan.epochs(arm.plan.updates) for arm in arms}
    if len(budgets) > 1:
        found.append(
            f"arms have different budgets ({', '.join(f'{b:g}' for b in sorted(budgets))} epochs): "
            "only arms of one budget are compared with each other"
        )
    if shortage := question.shortage():
        found.append(shortage)
    return found


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Preview of a sweep</title>
<body style="margin: 2em; font-family: sans-serif">
<pre>{text}</pre>
{drawing}
</html>
"""


def write(folder: Path, arms: Sequence[Arm], text: str) -> list[Path]:
    """`preview.html`, with `text` above the LR curves, and `preview.png`, the curves alone."""
    import vl_convert

    from harness.report import charts

    first = {arm.arm: arm.plan for arm in reversed(arms)}
    every = list(dict.fromkeys(arm.arm for arm in arms))
    names = every[:_DRAWN]
    if len(every) > len(names):
        text += f"\n\ndrawn below: the first {len(names)} of {len(every)} arms"
    most = _POINTS // len(names)
    curves = [charts.lr_curve(n, first[n].lr, first[n].updates_per_epoch, most) for n in names]
    chart = charts.lr_panels(pl.concat(curves), names)
    folder.mkdir(parents=True, exist_ok=True)
    page, picture = folder / "preview.html", folder / "preview.png"
    drawing = io.StringIO()
    chart.save(drawing, format="svg")  # a page of scripts takes two seconds more
    page.write_text(_PAGE.format(text=html.escape(text), drawing=drawing.getvalue()))
    picture.write_bytes(vl_convert.svg_to_png(drawing.getvalue(), scale=2))
    return [page, picture]


def draw(roots: Sequence[Stretch]) -> str:
    """The trees as text: a line a stretch, in epochs, with the arms that end in it.

    Trees of equal shape, as different seeds have them, are drawn once.
    """
    alike = Counter(tuple(_drawn(root)) for root in roots)
    blocks = []
    for lines, times in alike.items():
        head = [f"{times} times, once a seed:"] if times > 1 else []
        blocks.append("\n".join([*head, *lines]))
    return "\n".join(blocks)


def _drawn(root: Stretch) -> list[str]:
    lines: list[str] = []
    _draw(root, "", "", lines)
    return lines


def _draw(stretch: Stretch, lead: str, below: str, lines: list[str]) -> None:
    plan = stretch.arms[0].plan
    ending = dict.fromkeys(arm.arm for arm in stretch.arms if arm.plan.updates == stretch.end)
    shared = f", shared by {len(stretch.arms)}" if len(stretch.arms) > 1 else ""
    ends = f": ends {'; '.join(ending)}" if ending else ""
    span = f"{plan.epochs(stretch.begin):g}–{plan.epochs(stretch.end):g}"
    lines.append(f"{lead}epochs {span}{shared}{ends}")
    for index, branch in enumerate(stretch.then):
        last = index == len(stretch.then) - 1
        _draw(branch, below + ("└ " if last else "├ "), below + ("  " if last else "│ "), lines)
