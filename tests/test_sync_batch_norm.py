"""Batch norm over the batch of all processes."""

from __future__ import annotations

from test_distributed import CPU, world
from torch import nn

from harness.training.sync_batch_norm import BatchNorm


def test_synchronised_batch_norms_keep_names_and_parameters() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2, affine=False)))
    state, parameters = network.state_dict(), list(network.parameters())
    changed = world(0, 2).convert_sync_batch_norm(network, CPU)
    assert isinstance(changed[1][0], BatchNorm)  # type: ignore[index]
    assert changed.state_dict().keys() == state.keys()
    assert all(a is b for a, b in zip(changed.parameters(), parameters, strict=True))
