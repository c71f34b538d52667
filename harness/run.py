"""The composition root of one run: builds everything, trains, and leaves the run folder behind."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from harness import config as conf
from harness import data, models, schedules, tracking, trajectory
from harness.config import Config, ConfigError, to_dict
from harness.files import atomic, write_json
from harness.loop import Cadence, Diverged, Precision, Row, Step, TrainState, fit
from harness.schedules import Plan


@dataclass(frozen=True)
class Place:
    """Where a run lies, and how people call it."""

    folder: Path
    name: str  # its overrides, in short
    arm: str = ""  # the same without the seed
    group: str | None = None  # the sweep's name
    position: str = ""  # "2/8" in a sweep
    overrides: list[str] = field(default_factory=list)


class Seconds(dict[str, float]):
    """Seconds by phase."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self[name] = self.get(name, 0.0) + time.perf_counter() - begin


def run(config: Config, place: Place) -> dict[str, Any]:
    """Train `config` in `place.folder` and return what its `result.json` says.

    A run that diverges ends as `diverged`, with its history. Any other error is written down as
    `failed` (`interrupted` for Ctrl-C) and raised again.
    """
    result: dict[str, Any] = {
        "status": "failed",
        "name": place.name,
        "arm": place.arm,
        "error": None,
        "config": to_dict(config),
        "overrides": place.overrides,
    }
    seconds = Seconds()
    try:
        with seconds.phase("total"):
            _run(config, place, result, seconds)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        result["status"] = "interrupted" if stopped else "failed"
        result["error"] = str(error).strip() or type(error).__name__
        raise
    finally:
        result["seconds"] = {name: round(s, 3) for name, s in seconds.items()}
        write_json(place.folder / "result.json", result)
    return result


def _run(config: Config, place: Place, result: dict[str, Any], seconds: Seconds) -> None:
    device = _device(config.trainer.device)
    precision = Precision.resolve(config.trainer.precision, device)
    _reset(config, device)
    with seconds.phase("data"):
        splits = data.load(config.dataset)
        batches = data.TrainBatches(splits, config, device)
        val, test = (
            data.EvalBatches(split, splits, config, device) for split in (splits.val, splits.test)
        )
    plan = schedules.plan(config, batches.updates_per_epoch)
    cadence = Cadence.of(plan, config.trainer)
    with seconds.phase("build"):
        state, step = build(config, splits, device, precision)
    identity = trajectory.fingerprint(config, splits, precision.name)
    run_id = trajectory.run_id(identity, plan)
    result |= {"run_id": run_id, "fingerprint": identity, "plan": _describe(plan)}
    result["numerics"] = _numerics(config, device, precision)
    with atomic(place.folder / "lr.npy") as file:
        np.save(file, plan.lr)
    if warning := schedules.misalignment(plan):
        print(f"warning: {place.name}: {warning}", file=sys.stderr)

    with seconds.phase("tracking"):
        history = tracking.History(place.folder / "history.jsonl", [])
        name = tracking.Identity(run_id, place.name, place.group, place.arm)
        values = {**result["config"], "plan": result["plan"], "overrides": place.overrides}
        mirror = tracking.Mirror.open(config.tracking, name, place.folder, values)
    result["tracking"] = mirror.where
    bar = Progress(plan, place, batches.batch_size)

    def evaluate() -> Row:
        with seconds.phase("evaluate"):
            return step.evaluate(state.network, val, "val")

    def record(row: Row) -> None:
        history.append(row)
        mirror.log(row)
        bar.show(row)

    exit_code = 1
    try:
        try:
            with seconds.phase("fit"):
                fit(state, step, plan, batches, cadence, evaluate, record, bar.tick)
        except Diverged as error:
            result["status"], result["error"] = "diverged", str(error)
        else:
            with seconds.phase("evaluate"):
                result["test"] = step.evaluate(state.network, test, "test")
            result["status"] = "complete"
            exit_code = 0
        result |= _summary(history.rows)
        result["weights_sha256"] = trajectory.weights_sha256(state.network)
        result |= {"updates_trained": state.updates, "updates_reused": 0, "parent": None}
        result |= {"exact": True, "restarts": 0}
        bar.end(result)
    finally:
        history.close()
        mirror.finish({**result.get("test", {}), "status": result["status"]}, exit_code)


def build(
    config: Config, splits: data.Splits, device: torch.device, precision: Precision
) -> tuple[TrainState, Step]:
    """The network, its optimizer and its schedule before the first update, and the step itself.

    The initial weights follow from `config.seed`, the model and the data's shape.
    """
    torch.manual_seed(config.seed)
    network = models.build(config.model, splits.channels, splits.image_size, splits.classes)
    layout = torch.channels_last if config.trainer.channels_last else torch.contiguous_format
    network = network.to(device, memory_format=layout)  # type: ignore[call-overload]
    optimizer = _optimizer(config.optimizer, network)
    updates_per_epoch = len(splits.train.labels) // config.trainer.batch_size
    schedule = schedules.build(config, optimizer, updates_per_epoch)
    forward: Any = network
    if config.trainer.compile != "none":
        forward = torch.compile(network, mode=config.trainer.compile)
    step = Step(forward, precision, config.trainer.label_smoothing)
    return TrainState(network, optimizer, schedule, precision.scaler()), step


def _optimizer(config: conf.Optimizer, network: nn.Module) -> torch.optim.Optimizer:
    parameters = network.parameters()
    match config:
        case conf.SGD():
            return torch.optim.SGD(
                parameters,
                lr=config.lr,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
                nesterov=config.nesterov,
                fused=True,
            )
        case conf.AdamW():
            return torch.optim.AdamW(
                parameters,
                lr=config.lr,
                betas=(config.beta1, config.beta2),
                eps=config.eps,
                weight_decay=config.weight_decay,
                fused=True,
            )
    raise TypeError(f"no optimizer for {type(config).__name__}")


def _device(wanted: str) -> torch.device:
    """Raises `ConfigError` for a GPU that is not there."""
    found = torch.cuda.device_count()
    if wanted == "auto":
        return torch.device("cuda", 0) if found else torch.device("cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= found:
        has = f"this machine has {found} GPU{'s' * (found != 1)}" if found else "no GPU is found"
        raise ConfigError(f"trainer.device={wanted}: {has}; use trainer.device=auto or cpu")
    return device


def _reset(config: Config, device: torch.device) -> None:
    """Process-wide settings, all set by every run: several runs may share one process."""
    strict = config.trainer.deterministic
    if strict:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(strict)
    torch.backends.cudnn.benchmark = not strict
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs, where precision is fp32
    if device.type == "cuda":
        torch.cuda.set_device(device)


def _numerics(config: Config, device: torch.device, precision: Precision) -> dict[str, Any]:
    """What changes rounding but not the trajectory: equal numerics, equal bits."""
    trainer = config.trainer
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "torch": torch.__version__,
        "device": name,
        "threads": torch.get_num_threads(),
        "precision": precision.name,
        "deterministic": trainer.deterministic or device.type == "cpu",
        "channels_last": trainer.channels_last,
        "compile": trainer.compile,
    }


def _describe(plan: Plan) -> dict[str, Any]:
    return {
        "updates": plan.updates,
        "updates_per_epoch": plan.updates_per_epoch,
        "restart_epochs": [plan.epochs(update) for update in plan.restarts],
        "cycle_end_epochs": [plan.epochs(update) for update in plan.cycle_ends],
        "aligned": plan.aligned,
        "lr_share_at_end": plan.share_at_end,
    }


def _summary(rows: list[Row]) -> dict[str, Any]:
    """The last and the best evaluation of a history; empty for one without evaluations."""
    evaluations = [row for row in rows if "val/acc" in row]
    if not evaluations:
        return {"final": {}, "best": {}}
    best = max(evaluations, key=lambda row: row["val/acc"])
    return {"final": evaluations[-1], "best": best}


class Progress:
    """A bar on terminals; elsewhere a line when the run begins and ends, and at times between."""

    def __init__(self, plan: Plan, place: Place, batch_size: int) -> None:
        self._plan, self._batch_size = plan, batch_size
        self._label = f"{place.position} {place.name}".strip()
        self._terminal = sys.stderr.isatty()
        self._begin = self._spoke = time.monotonic()
        self._val = ""
        self._bar = tqdm(
            total=plan.updates, desc=self._label, disable=not self._terminal,
            bar_format="{desc}: {percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}",
        )  # fmt: skip

    def tick(self) -> None:
        self._bar.update()

    def show(self, row: Row) -> None:
        if "val/acc" in row:
            self._val = f", val/acc {row['val/acc']:.2f} %"
        now = time.monotonic()
        if not self._terminal and not (now - self._spoke > 10 and "val/acc" in row):
            return
        images = row["step"] * self._batch_size / max(now - self._begin, 1e-9)
        total = self._plan.epochs(self._plan.updates)
        text = f"epoch {row['epoch']:.3g}/{total:g}, lr {row['lr']:.4f}{self._val}, {images:,.0f} images/s"
        if self._terminal:
            self._bar.set_postfix_str(text, refresh=False)
        else:
            self._spoke = now
            print(f"{self._label}: {text}", file=sys.stderr)

    def end(self, result: dict[str, Any]) -> None:
        self._bar.close()
        if result["status"] == "diverged":
            print(f"{self._label}: diverged: {result['error']}", file=sys.stderr)
        elif not self._terminal:
            seconds = time.monotonic() - self._begin
            val, test = result["final"]["val/acc"], result["test"]["test/acc"]
            print(
                f"{self._label}: done in {seconds:.1f} s, val/acc {val:.2f} %, test {test:.2f} %",
                file=sys.stderr,
            )
