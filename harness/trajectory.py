"""The identity of a run: what its weights follow from, hashed.

The weights after `k` updates follow from the fingerprint and `plan.lr[:k]`, and from nothing else.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from torch import nn

from harness.config import Config, to_dict
from harness.data import Splits
from harness.schedules import Plan

FORMAT = 1  # raised when the same configuration comes to train differently


def fingerprint(config: Config, splits: Splits, precision: str) -> str:
    """SHA-256 over all that shapes the weights but the schedule and the length.

    `precision` is the one in use, never `auto`. What changes rounding only (device, threads,
    versions, memory format, compilation) is not in it.
    """
    c = to_dict(config)
    del c["optimizer"]["lr"]  # in the plan
    shaping: dict[str, Any] = {
        "format": FORMAT,
        "seed": c["seed"],
        "model": c["model"],
        "optimizer": c["optimizer"],
        "data": splits.sha256,
        "augmentation": {name: c["dataset"][name] for name in ("crop", "flip")},
        "trainer": {name: c["trainer"][name] for name in ("batch_size", "label_smoothing")},
        "precision": precision,
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def run_id(fingerprint: str, plan: Plan) -> str:
    """16 hexadecimal digits that name the whole run, on W&B too."""
    return hashlib.sha256(fingerprint.encode() + plan.lr.tobytes()).hexdigest()[:16]


def weights_sha256(network: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of all parameters and buffers."""
    whole = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        values = tensor.detach().cpu().contiguous().numpy()
        whole.update(f"{name} {values.dtype} {values.shape}\n".encode())
        whole.update(values)
    return whole.hexdigest()
