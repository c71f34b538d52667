"""Averages of a run's weights, kept beside it: they are evaluated, and never change what is trained.

The exponential moving average is torch's `get_ema_multi_avg_fn`; the means are those of SWA (Izmailov et al. 2018,
after each epoch or at cycle ends) and LAWA (Kaddour 2022), torch's `get_swa_multi_avg_fn`.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.config import schema
from harness.config.errors import ConfigError
from harness.config.fields import show
from harness.training.schedules import LRPlan

RECALIBRATION_IMAGES = 2048  # on which batch norms get their statistics


@dataclass(frozen=True)
class Average:
    """An average of weights: with a `decay` the exponential one of every update, else the mean after `steps`."""

    name: str  # as in ema:0.99
    decay: float | None
    steps: tuple[int, ...]  # numbers of updates done, rising

    def started(self, updates: int) -> bool:
        return self.decay is not None or self.steps[0] <= updates

    def sampled(self, updates: int) -> list[int] | None:
        """Return after which of the first `updates` updates weights were taken; None: after each."""
        return None if self.decay is not None else [step for step in self.steps if step <= updates]


def planned(settings: schema.Averages, plan: LRPlan) -> tuple[Average, ...]:
    """Return the averages of a run. Raises `ConfigError` for a mean of fewer than two sets of weights."""
    found = [Average(schema.average("ema", decay), decay, ()) for decay in settings.ema]
    for number in settings.cycle_ends:
        ends = plan.cycle_ends[-number:]
        if len(ends) < number:
            raise ConfigError(
                f"averages.cycle_ends={show(settings.cycle_ends)}: the schedule has {len(ends)} cycle "
                f"ends in its budget; give at most that many, or leave it out"
            )
        found.append(Average(schema.average("cycle_ends", number), None, ends))
    for share in settings.tail:
        steps = _tail(share, plan)
        if len(steps) < 2:
            least = 2 * plan.updates_per_epoch / plan.updates
            fix = "raise trainer.epochs" if least >= 2 else f"give {min(least, 1):.2g} or more"
            raise ConfigError(
                f"averages.tail={show(settings.tail)}: the last {show(share)} of the training has one "
                f"epoch end; {fix}, or leave it out"
            )
        found.append(Average(schema.average("tail", share), None, steps))
    return tuple(found)


def _tail(share: float, plan: LRPlan) -> tuple[int, ...]:
    """Return the epoch ends in the last `share` of the updates; the last update ends an epoch too."""
    begin = plan.updates * (1 - share) + 1e-6
    ends = {*range(plan.updates_per_epoch, plan.updates + 1, plan.updates_per_epoch), plan.updates}
    return tuple(sorted(end for end in ends if end > begin))


class Averages:
    """The averages of the weights of `network`, and a copy of it in which they are evaluated."""

    def __init__(self, network: nn.Module, planned: tuple[Average, ...]) -> None:
        self.planned = planned
        self._trained, self._copy = network, copy.deepcopy(network).requires_grad_(False)
        self._parameters = [name for name, _ in network.named_parameters()]
        self._weights = [parameter.detach() for parameter in network.parameters()]
        self._means: dict[str, list[Tensor]] = {}  # by name, once it has started

    @property
    def names(self) -> list[str]:
        """Return the averages that there are so far."""
        return [one.name for one in self.planned if one.name in self._means]

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take the weights after `updates` updates into the averages. Waits for no GPU."""
        for one in self.planned:
            number = bisect_left(one.steps, updates)
            if one.decay is None and updates not in one.steps[number : number + 1]:
                continue
            share = 1 / (number + 1) if one.decay is None else 1 - one.decay
            if one.name in self._means:
                torch._foreach_lerp_(self._means[one.name], self._weights, share)
            else:
                self._means[one.name] = [weight.clone() for weight in self._weights]

    @torch.no_grad()
    def network(self, name: str) -> nn.Module:
        """Return a copy of the network with the weights of an average; buffers are as in the trained one.

        The next call returns the same object.
        """
        torch._foreach_copy_(list(self._copy.parameters()), self._means[name])
        for own, trained in zip(self._copy.buffers(), self._trained.buffers(), strict=True):
            own.copy_(trained)
        return self._copy

    def sampled(self, updates: int) -> dict[str, list[int] | None]:
        """Return what each average is of, after `updates` updates, as `Average.sampled` does."""
        return {one.name: one.sampled(updates) for one in self.planned if one.started(updates)}

    def snapshot(self, updates: int) -> dict[str, Any]:
        """Return what `restore` takes, after `updates` updates: of each average `steps`, and `weights` by name."""
        sampled = self.sampled(updates)
        weights = {
            name: dict(zip(self._parameters, self._means[name], strict=True)) for name in self.names
        }
        return {name: {"steps": sampled[name], "weights": own} for name, own in weights.items()}

    def restore(self, saved: Mapping[str, Any], updates: int) -> None:
        """Go to where `saved` stood after `updates` updates; others' averages in it are left out.

        Raises KeyError, TypeError or ValueError if it does not fit.
        """
        means = {}
        for name, sampled in self.sampled(updates).items() if updates else ():
            if saved[name]["steps"] != sampled:
                raise ValueError(f"the average {name} is of other updates")
            means[name] = [
                _like(weight, saved[name]["weights"][parameter])
                for parameter, weight in zip(self._parameters, self._weights, strict=True)
            ]
        self._means = means


def _like(weight: Tensor, value: Tensor) -> Tensor:
    if value.shape != weight.shape:
        raise ValueError(f"an average has the shape {tuple(value.shape)}")
    return torch.empty_like(weight).copy_(value)


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of a network that keep statistics."""
    norms = (module for module in network.modules() if isinstance(module, _BatchNorm))
    return [norm for norm in norms if norm.running_mean is not None]


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the statistics of all batch norms to their means over `batches`, as torch's `update_bn` does.

    Other layers are as in evaluation, dropout too, so that no random number is drawn.
    """
    norms = batch_norms(network.eval())
    usual = [norm.momentum for norm in norms]
    for number, images in enumerate(batches, start=1):
        for norm in norms:
            norm.train()
            norm.momentum = 1 / number
        network(images)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    network.eval()
