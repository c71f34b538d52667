"""What the weights of a run follow from, and how they are named.

The weights after `k` updates follow from the fingerprint and `plan.lr[:k]`, and from nothing else.
So a checkpoint is stored under (fingerprint, k, SHA-256 of `plan.lr[:k]`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harness.config import extensions
from harness.config.fields import Section
from harness.config.schema import Config, Dataset
from harness.config.values import without_added
from harness.training.loop import LogSchedule
from harness.training.schedules import LRPlan

# Raised when the same configuration comes to train differently, or is stored differently.
FORMAT = 3
_AUGMENTATION = ("crop", "flip", "resized_crop", "rand_augment", "erase")
_FINGERPRINT = re.compile(r"(?:(\d{1,9})-)?[0-9a-f]{64}")  # the first two formats had no number


def fingerprint(config: Config, data: str, precision: str, code: bool = True) -> str:
    """Return `FORMAT` and a SHA-256 over all that shapes the weights but the schedule and the length.

    `data` is the hash of the content of training and validation images, `precision` the one in use,
    never `auto`. What changes rounding only (device, threads, processes, versions, memory format,
    compilation) is not in it. Nor is a key that has the value of before it existed (`config.added`).
    A section of the user's own code adds that, unless `code` is false, and its fields; a scheduler's are in
    the plan.
    """
    c = without_added(config)
    del c["optimizer"]["lr"]  # in the plan
    if groups := c["optimizer"].get("groups"):  # whose order changes nothing
        groups.sort(key=lambda group: str(group["params"]))
    shaping: dict[str, Any] = {
        "seed": c["seed"],
        "model": c["model"],
        "optimizer": c["optimizer"],
        "data": data,
        "augmentation": _named(c["dataset"], *_AUGMENTATION),
        "trainer": _named(c["trainer"], "batch_size", "label_smoothing"),
        "precision": precision,
    }
    if config.metrics:  # whose values the rows of a checkpoint have
        shaping["metrics"] = c["metric_sources"] if code else sorted(c["metric_sources"])
    for name in ("model", "dataset", "optimizer", "scheduler"):
        shaping |= _own_code(name, getattr(config, name), c[name])
        if not code and isinstance(own := shaping.get(name), dict):
            own.pop("source", None)
    return f"{FORMAT}-{hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()}"


def _named(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _own_code(group: str, section: Section, values: dict[str, Any]) -> dict[str, Any]:
    """Return what the code of an extension shapes; nothing for a section of the package."""
    if extensions.source(section) is None:
        return {}
    if group == "scheduler":
        return {group: _named(values, "kind", "source")}
    without = {f.name for f in dataclasses.fields(section) if not f.metadata.get("shaping", True)}
    sizes = {f.name for f in dataclasses.fields(Dataset)} if group == "dataset" else {"lr"}
    return {group: {name: value for name, value in values.items() if name not in without | sizes}}


@dataclass(frozen=True)
class RunIdentity:
    """The weights that a run passes through, and what it records of them."""

    fingerprint: str
    plan: LRPlan
    log_schedule: LogSchedule
    apart_from_code: str | None = (
        None  # the fingerprint without the code of extensions, where there are any
    )

    @property
    def run_id(self) -> str:
        """Return 16 hexadecimal digits that name the whole run, on W&B too."""
        whole = self.fingerprint.encode() + self.plan.lr.tobytes()
        return hashlib.sha256(whole).hexdigest()[:16]


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 over the names, types, shapes and bytes of all parameters and buffers, a `state_dict`."""
    whole = hashlib.sha256()
    for name, tensor in state.items():
        values: Any = tensor.detach().cpu().contiguous().numpy()
        whole.update(f"{name} {values.dtype} {values.shape}\n".encode())
        whole.update(values)
    return whole.hexdigest()


def _format(fingerprint: str) -> int:
    number = _FINGERPRINT.fullmatch(fingerprint)
    return int(number[1] or 0) if number else FORMAT


def stem(step: int, plan_sha256: str) -> str:
    """Return the name of a checkpoint's files, but for their endings."""
    return f"{step:09d}-{plan_sha256[:32]}"


def plan_hashes(plan: LRPlan, steps: Iterable[int]) -> Iterator[tuple[int, str]]:
    """Yield (step, SHA-256 of `plan.lr[:step]`) for each of `steps`, in rising order, in one pass."""
    whole, done = hashlib.sha256(), 0
    for step in sorted(steps):
        whole.update(plan.lr[done:step].tobytes())
        done = step
        yield step, whole.hexdigest()
