"""The composition root of one run: builds everything, trains, and leaves the run folder behind."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from harness import config as conf
from harness import data, models, schedules, tracking, trajectory
from harness.config import Config, ConfigError, to_dict
from harness.files import atomic, write_json
from harness.loop import Cadence, Diverged, Precision, Row, Step, TrainState, fit
from harness.place import Place
from harness.progress import Progress
from harness.schedules import Plan
from harness.signals import Interrupted, Stop, stopping
from harness.trajectory import Prefix, Store, Trajectory


class Seconds(dict[str, float]):
    """Seconds by phase."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self[name] = self.get(name, 0.0) + time.perf_counter() - begin


@dataclass(frozen=True)
class Prepared:
    """What a run needs before its first update, but its state."""

    device: torch.device
    precision: Precision
    splits: data.Splits
    batches: data.TrainBatches
    val: data.EvalBatches
    test: data.EvalBatches
    trajectory: Trajectory
    numerics: dict[str, Any]


class FailedBefore(ConfigError):
    """The run failed the last time, and nobody asked to try it again."""


def run(config: Config, place: Place) -> dict[str, Any]:
    """Train `config` in `place.folder` and return what its `result.json` says.

    A run that diverges ends as `diverged`, with its history. Any other error is written down as
    `failed` (`interrupted` for a signal) and raised again.
    """
    result: dict[str, Any] = {
        "status": "failed",
        "name": place.name,
        "arm": place.arm,
        "error": None,
        "config": to_dict(config),
        "overrides": place.overrides,
    }
    (place.folder / "result.json").unlink(missing_ok=True)
    seconds = Seconds()
    try:
        with seconds.phase("total"):
            _run(config, place, result, seconds)
    except (Interrupted, KeyboardInterrupt) as stop:
        result["status"] = "interrupted"
        result["error"] = f"stopped by {getattr(stop, 'signal', 'SIGINT')}"
        again = "; the same command goes on from there" if config.reuse else ""
        print(f"{place.name}: {result['error']}{again}", file=sys.stderr)
        raise
    except Exception as error:
        result["status"], result["error"] = "failed", str(error).strip() or type(error).__name__
        raise
    finally:
        result["seconds"] = {name: round(s, 3) for name, s in seconds.items()}
        write_json(place.folder / "result.json", result)
    return result


def _run(config: Config, place: Place, result: dict[str, Any], seconds: Seconds) -> None:
    p = _prepare(config, seconds)
    t = p.trajectory
    result |= {"run_id": t.run_id, "fingerprint": t.fingerprint, "plan": _describe(t.plan)}
    result["numerics"] = p.numerics
    with atomic(place.folder / "lr.npy") as file:
        np.save(file, t.plan.lr)
    if warning := schedules.misalignment(t.plan):
        print(f"warning: {place.name}: {warning}", file=sys.stderr)

    store = Store(Path(config.store.dir)) if config.reuse else None
    if store and not config.retry and (end := store.outcome(t)):
        again = f"{end['error']}; that was before, retry=true trains it again"
        with Recording(config, place, p, result, seconds, end["rows"]):
            result |= {"status": end["status"], "error": again, **_summary(end["rows"])}
        if end["status"] == "failed":
            raise FailedBefore(again)
        return
    try:
        _train(config, place, p, store, result, seconds)
    except Exception as error:
        if store:
            store.note_outcome(t, "failed", str(error), [])
        raise


def _prepare(config: Config, seconds: Seconds) -> Prepared:
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
    fingerprint = trajectory.fingerprint(config, splits.sha256, precision.name)
    t = Trajectory(fingerprint, plan, cadence)
    numerics = _numerics(config, device, precision)
    return Prepared(device, precision, splits, batches, val, test, t, numerics)


def _train(
    config: Config,
    place: Place,
    p: Prepared,
    store: Store | None,
    result: dict[str, Any],
    seconds: Seconds,
) -> None:
    """Build the state, take it to where the store has got to, and train it to the end."""
    plan, cadence = p.trajectory.plan, p.trajectory.cadence
    with seconds.phase("build"):
        state, step = build(config, p.splits, p.device, p.precision)
    keep = _kept(config.store.keep, plan, place.branches)
    with ExitStack() as stack:
        stop = stack.enter_context(stopping())
        alive: Callable[[], None] = lambda: None  # noqa: E731
        origin = None
        if store:
            with seconds.phase("store"):
                claim = store.training(p.trajectory, keep, config.store.wait)
                alive = stack.enter_context(claim)
                origin = _restore(store, p, state)
        rows = cadence.select(origin.rows) if origin else []
        recording = stack.enter_context(Recording(config, place, p, result, seconds, rows))
        checkpoints = Checkpoints(
            store, p, state, recording.rows, origin, keep, config.trainer.checkpoint_every
        )
        result |= checkpoints.source()

        def evaluate() -> Row:
            with seconds.phase("evaluate"):
                return step.evaluate(state.network, p.val, "val")

        def after_update() -> None:
            recording.progress.tick()
            alive()
            result["updates_trained"] += 1
            with seconds.phase("store"):
                checkpoints.after_update(stop)

        try:
            with seconds.phase("fit"):
                fit(state, step, plan, p.batches, cadence, evaluate, recording.record, after_update)
        except Diverged as error:
            result["status"], result["error"] = "diverged", str(error)
        else:
            if origin and origin.step == plan.updates and origin.test:
                result["test"] = origin.test
            else:
                with seconds.phase("evaluate"):
                    result["test"] = step.evaluate(state.network, p.test, "test")
                with seconds.phase("store"):
                    checkpoints.finish(result["test"], config.store.keep)
            result["status"] = "complete"
            result["weights_sha256"] = trajectory.weights_sha256(state.network)
        result |= _summary(recording.rows)
        if store:
            store.note_outcome(p.trajectory, result["status"], result["error"], recording.rows)


def _kept(keep: str, plan: Plan, branches: Collection[int]) -> frozenset[int]:
    """After which updates checkpoints are kept; the end is written last, with the test's metrics."""
    match keep:
        case "cycles":
            return frozenset({*plan.cycle_ends, *branches, plan.updates})
        case "last":
            return frozenset({plan.updates})
    return frozenset()


def _restore(store: Store, p: Prepared, state: TrainState) -> Prefix | None:
    """Take `state` to the longest stored prefix of the run; None if there is none."""
    for prefix in store.prefixes(p.trajectory):
        try:
            state.restore(trajectory.read_state(prefix))
        except (trajectory.Damaged, KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            trajectory.warn(f"{prefix.path}: {reason}; it is passed over")
            continue
        return prefix
    return None


class Checkpoints:
    """When a run writes checkpoints, and which of them it takes away again."""

    def __init__(
        self,
        store: Store | None,
        p: Prepared,
        state: TrainState,
        rows: list[Row],
        origin: Prefix | None,
        keep: frozenset[int],
        every_seconds: float,
    ) -> None:
        self._store, self._trajectory, self._numerics = store, p.trajectory, p.numerics
        self._state, self._rows, self._origin = state, rows, origin
        self._keep, self._every_seconds = keep, every_seconds
        self._begin = self._last = time.monotonic()
        self._passing = origin.path if origin and not origin.kept else None
        same = origin is None or (origin.exact and origin.numerics == p.numerics)
        self._exact = origin is None or (same and p.numerics["deterministic"])

    def source(self) -> dict[str, Any]:
        """For the result: where the run comes from."""
        origin = self._origin
        if origin and not self._exact:
            _warn_inexact(origin.numerics, self._numerics)
        return {
            "parent": origin.key if origin else None,
            "updates_reused": origin.step if origin else 0,
            "updates_trained": 0,
            "seconds_reused": origin.seconds if origin else 0.0,
            "exact": self._exact,
        }

    def after_update(self, stop: Stop) -> None:
        """Raises `Interrupted`, with the checkpoint written, if a signal asked for it."""
        if stop.number is not None:
            self._save(kept=False)
            raise Interrupted(stop.number)
        done = self._state.updates
        if done == self._trajectory.plan.updates:
            return
        if done in self._keep:
            self._save(kept=True)
        elif time.monotonic() - self._last >= self._every_seconds:
            self._save(kept=False)

    def finish(self, test: Row, keep: str) -> None:
        """Keep the end, with the test's metrics; with `keep` none, nothing is left of the run."""
        if keep != "none":
            self._save(kept=True, test=test)
        elif self._passing and self._store:
            self._store.drop(self._passing)

    def _save(self, kept: bool, test: Row | None = None) -> None:
        if self._store is None:
            return
        before = self._origin.seconds if self._origin else 0.0
        path = self._store.save(
            self._trajectory,
            self._state.updates,
            self._state.snapshot(),
            rows=self._rows,
            numerics=self._numerics,
            exact=self._exact,
            kept=kept,
            seconds=before + time.monotonic() - self._begin,
            test=test,
        )
        self._last = time.monotonic()
        if path is None:
            return
        if self._passing and self._passing != path:
            self._store.drop(self._passing)
        self._passing = None if kept else path


@cache
def _warned_of(difference: str) -> None:
    trajectory.warn(
        f"starts from a checkpoint of other numerics ({difference}): results are close, not bit-equal"
    )


def _warn_inexact(there: dict[str, Any], here: dict[str, Any]) -> None:
    differing = [
        f"{n} {there.get(n)} there, {here[n]} here" for n in here if there.get(n) != here[n]
    ]
    _warned_of("; ".join(differing) or "it had such a beginning itself, or is not deterministic")


class Recording:
    """Where a run's rows go: the history, W&B, the terminal. `rows` are those from before."""

    def __init__(
        self,
        config: Config,
        place: Place,
        p: Prepared,
        result: dict[str, Any],
        seconds: Seconds,
        rows: list[Row],
    ) -> None:
        self._result, t = result, p.trajectory
        with seconds.phase("tracking"):
            self._history = tracking.History(place.folder / "history.jsonl", rows)
            label = tracking.Label(t.run_id, place.name, place.group, place.arm)
            values = {**result["config"], "plan": result["plan"], "overrides": place.overrides}
            self._mirror = tracking.Mirror.open(config.tracking, label, place.folder, values)
            for row in rows:
                self._mirror.log(row)
        result["tracking"] = self._mirror.where
        self.rows = self._history.rows
        name = f"{place.position} {place.name}".strip()
        done = int(rows[-1]["step"]) if rows else 0
        self.progress = Progress(name, t.plan, done, p.batches.batch_size)

    def __enter__(self) -> Self:
        return self

    def record(self, row: Row) -> None:
        self._history.append(row)
        self._mirror.log(row)
        self.progress.show(row)

    def __exit__(self, *error: object) -> None:
        self._history.close()
        status = self._result["status"] if error[0] is None else "failed"
        self.progress.end(status, self._result)
        summary = {**self._result.get("test", {}), "status": status}
        self._mirror.finish(summary, exit_code=int(status != "complete"))


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
    updates_per_epoch = data.updates_per_epoch(len(splits.train.labels), config.trainer.batch_size)
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
