"""A sweep before it is trained: every arm's configuration and plan, and what the arms share.

Nothing is read but the number and the shape of the images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from harness import data, models, schedules, trajectory
from harness.config import AdamW, Config
from harness.results import common
from harness.schedules import Plan


@dataclass(frozen=True)
class Arm:
    """One run of a sweep, planned."""

    name: str
    config: Config
    plan: Plan

    @cached_property
    def kin(self) -> str:
        """Equal for runs that differ in nothing but their plans."""
        dataset = json.dumps(vars(self.config.dataset), sort_keys=True, default=str)
        return trajectory.fingerprint(self.config, dataset, self.config.trainer.precision)


def plan(name: str, config: Config) -> Arm:
    """Raises `ConfigError` if the schedule does not fit the data and the budget."""
    outline = data.outline(config.dataset)
    updates_per_epoch = data.updates_per_epoch(outline.train, config.trainer.batch_size)
    return Arm(name, config, schedules.plan(config, updates_per_epoch))


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
    """The stretches that begin after `begin` updates, all of `arms` being equal up to there."""
    by_next: dict[float, list[Arm]] = {}
    for arm in arms:
        if arm.plan.updates > begin:
            by_next.setdefault(float(arm.plan.lr[begin]), []).append(arm)
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
    for root in roots:
        size = _checkpoint_bytes(root.arms[0].config)
        for stretch in root:
            inside = {
                end for end in stretch.arms[0].plan.cycle_ends if stretch.begin < end <= stretch.end
            }
            total += size * len(inside | {stretch.end})
    return total


def _checkpoint_bytes(config: Config) -> int:
    outline = data.outline(config.dataset)
    with torch.device("meta"):
        network = models.build(config.model, outline.channels, outline.image_size, outline.classes)
    parameters = sum(p.numel() for p in network.parameters())
    buffers = sum(b.numel() for b in network.buffers())
    moments = 2 if isinstance(config.optimizer, AdamW) else 1
    return 4 * (parameters * (1 + moments) + buffers)


def draw(roots: Sequence[Stretch]) -> str:
    """The trees as text: a line a stretch, in epochs, with the arms that end in it."""
    lines: list[str] = []
    for root in roots:
        _draw(root, "", "", lines)
    return "\n".join(lines)


def _draw(stretch: Stretch, lead: str, below: str, lines: list[str]) -> None:
    plan = stretch.arms[0].plan
    ending = [arm.name for arm in stretch.arms if arm.plan.updates == stretch.end]
    shared = f", shared by {len(stretch.arms)}" if len(stretch.arms) > 1 else ""
    ends = f": ends {'; '.join(ending)}" if ending else ""
    span = f"{plan.epochs(stretch.begin):g}–{plan.epochs(stretch.end):g}"
    lines.append(f"{lead}epochs {span}{shared}{ends}")
    for index, branch in enumerate(stretch.then):
        last = index == len(stretch.then) - 1
        _draw(branch, below + ("└ " if last else "├ "), below + ("  " if last else "│ "), lines)
