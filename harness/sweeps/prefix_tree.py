"""What the runs of a sweep share: trees of LR plans that begin alike; each beginning is trained once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.analysis.run_tables import common
from harness.config.fields import decimal
from harness.config.schema import Config
from harness.store.identity import fingerprint
from harness.training.datasets import training_shape
from harness.training.models import without_weights
from harness.training.schedules import LRPlan


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep before it is trained."""

    name: str
    arm: str  # the name without the seed
    config: Config
    plan: LRPlan

    @cached_property
    def sharing_key(self) -> str:
        """Equal for runs that differ in nothing but their LR plans."""
        dataset = json.dumps(vars(self.config.dataset), sort_keys=True, default=str)
        return fingerprint(self.config, dataset, self.config.trainer.precision)


@dataclass(frozen=True)
class PrefixNode:
    """The updates from `begin` to `end` of one or more LR plans, trained once for all of `runs`."""

    begin: int
    end: int
    runs: tuple[PlannedRun, ...]
    children: tuple[PrefixNode, ...]

    def __iter__(self) -> Iterator[PrefixNode]:
        """Yield this node and all below it."""
        yield self
        for child in self.children:
            yield from child


def prefix_trees(runs: Sequence[PlannedRun]) -> list[PrefixNode]:
    """Return the LR plans of `runs` as trees; runs that cannot share anything have roots of their own."""
    groups: dict[str, list[PlannedRun]] = {}
    for run in runs:
        groups.setdefault(run.sharing_key, []).append(run)
    return [node for group in groups.values() for node in _nodes(group, 0)]


def _nodes(runs: Sequence[PlannedRun], begin: int) -> list[PrefixNode]:
    """Return the nodes that begin after `begin` updates, all of `runs` being equal up to there.

    What is equal for less than another epoch is not worth a checkpoint: it counts as different.
    """
    by_next_epoch: dict[bytes, list[PlannedRun]] = {}
    for run in runs:
        if run.plan.updates > begin:
            epoch = run.plan.lr[begin : begin + run.plan.updates_per_epoch]
            by_next_epoch.setdefault(epoch.tobytes(), []).append(run)
    return [_node(group, begin) for group in by_next_epoch.values()]


def _node(runs: Sequence[PlannedRun], begin: int) -> PrefixNode:
    first = runs[0].plan.lr
    end = min(common(first, run.plan.lr) for run in runs)
    return PrefixNode(begin, end, tuple(runs), tuple(_nodes(runs, end)))


def branch_steps(roots: Sequence[PrefixNode]) -> dict[str, set[int]]:
    """Return, by the name of each run, the updates after which other runs branch off and need its checkpoint."""
    steps: dict[str, set[int]] = {}
    for root in roots:
        for node in root:
            for run in node.runs:
                own = steps.setdefault(run.name, set())
                if len(node.runs) > 1:
                    own.add(node.end)
    return steps


def shared_updates(roots: Sequence[PrefixNode]) -> dict[str, int]:
    """Return, by the name of each run that has any, the updates that an earlier run trains for it."""
    return {run.name: node.end for root in roots for node in root for run in node.runs[1:]}


def total_epochs(runs: Sequence[PlannedRun]) -> float:
    """Return the sum of the runs' budgets."""
    return sum(run.plan.epochs(run.plan.updates) for run in runs)


def epochs_to_train(roots: Sequence[PrefixNode]) -> float:
    """Return what the runs cost when beginnings are shared."""
    return sum(node.runs[0].plan.epochs(node.end - node.begin) for root in roots for node in root)


def describe_cost(runs: Sequence[PlannedRun], roots: Sequence[PrefixNode]) -> str:
    """Return what the sweep costs: runs, epochs, and what the store saves of them."""
    config = runs[0].config
    total, to_train = total_epochs(runs), epochs_to_train(roots)
    text = f"{len(runs)} run{'s' * (len(runs) != 1)}, {decimal(total)} epochs"
    if not config.reuse:
        return text
    if to_train < total:
        text += f", {decimal(to_train)} to train since beginnings are shared"
    if config.store.keep == "cycles":
        size = checkpoints_bytes(roots) / 1e6
        text += f"; checkpoints: about {size:.1f} MB in {config.store.dir}"
    return text


def checkpoints_bytes(roots: Sequence[PrefixNode]) -> int:
    """Return about how much the store keeps of the sweep with `store.keep=cycles`."""
    total = 0
    sizes: dict[str, int] = {}
    for root in roots:
        config = root.runs[0].config
        network = f"{type(config.model)} {config.model} {config.dataset} {type(config.optimizer)} {config.averages}"
        if network not in sizes:
            sizes[network] = _checkpoint_bytes(config)
        for node in root:
            ends = {end for end in node.runs[0].plan.cycle_ends if node.begin < end <= node.end} | {
                node.end
            }
            total += sizes[network] * len(ends)
    return total


def _checkpoint_bytes(config: Config) -> int:
    shape = training_shape(config.dataset)
    network = without_weights(config.model, shape)
    parameters = sum(p.numel() for p in network.parameters())
    buffers = sum(b.numel() for b in network.buffers())
    copies = 1 + config.optimizer.moments + len(config.averages.names())
    return 4 * (parameters * copies + buffers)


def draw_trees(roots: Sequence[PrefixNode]) -> str:
    """Return the trees as text: a line a node, in epochs, with the arms that end in it.

    Trees of equal shape, as different seeds have them, are drawn once.
    """
    equal = Counter(tuple(_draw(root)) for root in roots)
    blocks = []
    for lines, times in equal.items():
        head = [f"{times} times, once a seed:"] if times > 1 else []
        blocks.append("\n".join([*head, *lines]))
    return "\n".join(blocks)


def _draw(node: PrefixNode) -> Iterator[str]:
    plan = node.runs[0].plan
    ending = dict.fromkeys(run.arm for run in node.runs if run.plan.updates == node.end)
    shared = f", shared by {len(node.runs)}" if len(node.runs) > 1 else ""
    ends = f": ends {'; '.join(ending)}" if ending else ""
    yield f"epochs {decimal(plan.epochs(node.begin))}–{decimal(plan.epochs(node.end))}{shared}{ends}"
    for child in node.children:
        last = child is node.children[-1]
        first, *others = _draw(child)
        yield f"{'└ ' if last else '├ '}{first}"
        yield from (f"{'  ' if last else '│ '}{line}" for line in others)
