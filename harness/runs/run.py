"""The composition root of one run: builds everything, trains, and leaves the run folder behind."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from harness.config.errors import ConfigError
from harness.config.schema import Config
from harness.config.values import changes, to_dict
from harness.files import Locked, atomic, lock, read_json, write_json
from harness.runs import requeue as clusters
from harness.runs import wandb_run as tracking
from harness.runs.progress import Progress
from harness.runs.run_dir import Place
from harness.runs.signals import Interrupted, Stop, stopping
from harness.store import checkpointer as checkpoints
from harness.store.checkpointer import Checkpoints
from harness.store.identity import Trajectory, fingerprint, weights_sha256
from harness.store.store import Store
from harness.training import datasets as data
from harness.training import device as machine
from harness.training import models, schedules
from harness.training import optimizers as compiled
from harness.training.batches import EvalBatches, TrainBatches
from harness.training.distributed import ALONE, Lost, World
from harness.training.loop import Cadence, Diverged, Precision, Row, Step, TrainState, fit

_STOPS = (Interrupted, KeyboardInterrupt)


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
    batches: TrainBatches
    val: EvalBatches
    test: EvalBatches | None
    trajectory: Trajectory
    numerics: dict[str, Any]
    world: World


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Raise `ConfigError` if another process trains the run there."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(folder / ".lock"))
        except Locked as locked:
            raise ConfigError(
                f"{folder}: {locked.holder} is training this run; wait for its end, or take another "
                "folder (hydra.run.dir, hydra.sweep.dir)"
            ) from None
        yield


class RefusedBefore(ConfigError):
    """The network could not be built the last time, and nobody asked to try it again."""


def run(config: Config, place: Place, world: World = ALONE) -> dict[str, Any]:
    """Train `config` in `place.folder` and return what its `result.json` says.

    All processes of `world` do so; those after the first in a folder that nobody sees. A run that is
    complete there stays as it is. A run that diverges ends as `diverged`, with its history. Any other error is written down as
    `failed` (`interrupted` for a signal) and raised again; the store remembers a divergence, and a
    network that cannot be built, but no failure that may come from outside of the run. Raises `ConfigError`, with nothing touched,
    if another run has begun in the folder, or another process is at it.
    """
    with _alone(place.folder):
        claim_sha256 = _freeze(config, place)
        if before := world.from_first(lambda: _complete(config, place)):
            if world.rank == 0:
                print(f"{place.position} {place.name}: is complete".strip(), file=sys.stderr)
            return before
        return _begin(config, place, world, claim_sha256)


def _begin(config: Config, place: Place, world: World, claim_sha256: str | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "status": "failed",
        "name": place.name,
        "arm": place.arm,
        "group": place.group,
        "error": None,
        "config": to_dict(config),
        "overrides": place.overrides,
        "swept": place.swept,
        "claim_sha256": claim_sha256,
        "restarts": _note_start(place.folder),
    }
    (place.folder / "result.json").unlink(missing_ok=True)
    seconds = Seconds()
    with (
        stopping() as stop,
        _told(config, place, result, seconds),
        seconds.phase("total"),
        world.guarded(),
    ):
        _run(config, place, result, seconds, world, stop)
    if not clusters.in_a_job():  # which ends now anyway; a sweep would go on
        stop.pass_on()
    return result


@contextmanager
def _told(config: Config, place: Place, result: dict[str, Any], seconds: Seconds) -> Iterator[None]:
    """Write `result.json` at the end of a run, however it ends."""
    try:
        yield
    except _STOPS as stop:
        result["status"] = "interrupted"
        result["error"] = f"stopped by {getattr(stop, 'signal', 'SIGINT')}"
        again = "; the same command goes on from there" if config.reuse else ""
        print(f"{place.name}: {result['error']}{again}", file=sys.stderr)
        raise
    except Lost as lost:
        result["status"], result["error"] = "interrupted", str(lost)
        raise
    except Exception as error:
        result["status"], result["error"] = "failed", str(error).strip() or type(error).__name__
        raise
    finally:
        result["seconds"] = {name: round(s, 3) for name, s in seconds.items()}
        if place.folder.exists():  # else someone has removed it
            write_json(place.folder / "result.json", result)


def _run(
    config: Config,
    place: Place,
    result: dict[str, Any],
    seconds: Seconds,
    world: World,
    stop: Stop,
) -> None:
    tracking.check(config.tracking)
    p = prepare(config, seconds, world)
    t = p.trajectory
    result |= {"run_id": t.run_id, "fingerprint": t.fingerprint, "plan": t.plan.describe()}
    result |= {"numerics": p.numerics, "no_test": None}
    result |= {"data_sha256": p.splits.sha256, "test_sha256": p.splits.test_sha256}
    with atomic(place.folder / "lr.npy") as file:
        np.save(file, t.plan.lr)
    if warning := schedules.misalignment(t.plan):
        print(f"warning: {place.name}: {warning}", file=sys.stderr)

    store = Store(Path(config.store.dir)) if config.reuse else None
    if store:
        store.warn_of_older()
    if end := world.from_first(lambda: store.outcome(t) if store and not config.retry else None):
        again = f"{end['error']}; that was before, retry=true trains it again"
        if end["status"] == "refused":
            raise RefusedBefore(again)
        with Recording(config, place, p, result, seconds, end["rows"]):
            result |= {"status": end["status"], "error": again, **_summary(end["rows"])}
        return
    try:
        with world.guarded():
            _train(config, place, p, store, result, seconds, stop)
    except Exception:
        stop.check()  # what a signal to all processes led to is no failure of the run
        raise


def _freeze(config: Config, place: Place) -> str | None:
    """Note configuration and claim at the first start; later ones must agree. Returns the first claim.

    A requeued job composes its configuration again, from files that may have been edited since.
    """
    path = place.folder / "config.json"
    if not path.exists():
        write_json(path, {"config": to_dict(config), "claim_sha256": place.claim_sha256})
    frozen = read_json(path)
    if changed := changes(frozen["config"], to_dict(config)):
        raise ConfigError(
            f"{', '.join(changed)}: not what the run in {place.folder} began with; "
            "undo that, or take another folder (hydra.run.dir, hydra.sweep.dir)"
        )
    first: str | None = frozen["claim_sha256"]
    return first


def _complete(config: Config, place: Place) -> dict[str, Any] | None:
    """What the run in the folder came to, if it is over and mirrored where this one is to be."""
    path, history = place.folder / "result.json", place.folder / "history.jsonl"
    if not (path.exists() and history.exists()):
        return None
    before = read_json(path)
    if config.retry and before.get("no_test"):
        return None
    mirrored = before.get("config", {}).get("tracking") == to_dict(config)["tracking"]
    return before if before.get("status") == "complete" and mirrored else None


def _note_start(folder: Path) -> int:
    """How often a run has begun in `folder` before, killed ones too: a line each in `starts.txt`."""
    path = folder / "starts.txt"
    with path.open("a") as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')}\n")
    return len(path.read_text().splitlines()) - 1


def prepare(config: Config, seconds: Seconds, world: World = ALONE) -> Prepared:
    """Data, plan and identity of a run. Raises `ConfigError` for what does not fit or is not there."""
    data.refuse_without_test(config)
    device = machine.device(config.trainer.device, world)
    world.check(config.trainer, device)
    compiled.check(config.trainer.compile, device)
    precision = Precision.resolve(config.trainer.precision, device)
    machine.reset(config, device)
    with seconds.phase("data"):
        with world.in_turn():
            splits = data.load(config.dataset)
        batches = TrainBatches(splits, config, device, world)
        val = EvalBatches(splits.val, splits, config, device, world)
        test = None
        if splits.test is not None:
            test = EvalBatches(splits.test, splits, config, device, world)
    plan = schedules.plan(config, batches.updates_per_epoch)
    cadence = Cadence.of(plan, config.trainer)
    fingerprint = fingerprint(config, splits.sha256, precision.name)
    t = Trajectory(fingerprint, plan, cadence)
    own = (t.run_id, splits.test_sha256)
    if world.from_first(lambda: own) != own:
        raise ConfigError(f"process {world.rank}: has other data or settings than the first one")
    numerics = machine.numerics(config, device, precision, world)
    return Prepared(device, precision, splits, batches, val, test, t, numerics, world)


@contextmanager
def _remembering(store: Store | None, t: Trajectory) -> Iterator[None]:
    """Note in the store that the network cannot be built: unlike other failures, that follows from
    what the run's key holds."""
    try:
        yield
    except ConfigError as error:
        if store:
            store.note_outcome(t, "refused", str(error), [])
        raise


def _train(
    config: Config,
    place: Place,
    p: Prepared,
    store: Store | None,
    result: dict[str, Any],
    seconds: Seconds,
    stop: Stop,
) -> None:
    """Build the state, take it to where the store has got to, and train it to the end."""
    plan, cadence, world = p.trajectory.plan, p.trajectory.cadence, p.world
    with seconds.phase("build"), _remembering(store, p.trajectory):
        state, step = build(config, p.splits, p.device, p.precision, world)
    keep = checkpoints.kept(config.store.keep, plan, place.branches)
    stop.catch()
    with ExitStack() as stack:
        alive: Callable[[], None] = lambda: None  # noqa: E731
        origin = None
        if store:
            with seconds.phase("store"):
                claim = store.training(p.trajectory, keep, config.store.wait, stop.check)
                alive = stack.enter_context(claim)
                origin = checkpoints.restore(store, p.trajectory, state)
        origin = checkpoints.hand_on(origin, state, world)
        rows = cadence.select(origin.rows) if origin else []
        recording = stack.enter_context(Recording(config, place, p, result, seconds, rows))
        saving = Checkpoints(
            store,
            p.trajectory,
            p.numerics,
            state,
            recording.rows,
            origin,
            keep,
            config.trainer.checkpoint_every,
        )
        result |= saving.source()

        def evaluate() -> Row:
            with seconds.phase("evaluate"):
                return step.evaluate(state.network, p.val, "val")

        world.wait()
        world.reseed(config.seed, state.updates)

        def after_update() -> None:
            with suppress(OSError):
                recording.progress.tick()
            alive()
            result["updates_trained"] += 1
            with seconds.phase("store"):
                signal, due = world.agree(stop.number, saving.due())
                saving.after_update(signal, due)
                if due:
                    world.wait()
            world.reseed(config.seed, state.updates)

        try:
            with seconds.phase("fit"):
                fit(state, step, plan, p.batches, cadence, evaluate, recording.record, after_update)
            stored = saving.tested(p.splits.test_sha256)
            with seconds.phase("evaluate"):
                result["test"], result["no_test"] = stored or _test(p, step, state)
        except Diverged as error:
            result["status"], result["error"] = "diverged", str(error)
        else:
            if not stored:
                with seconds.phase("store"):
                    saving.finish(result["test"], p.splits.test_sha256, config.store.keep)
            result["status"] = "complete"
            result["weights_sha256"] = weights_sha256(state.network.state_dict())
        result |= _summary(recording.rows)
        if store:
            store.note_outcome(p.trajectory, result["status"], result["error"], recording.rows)


def _test(p: Prepared, step: Step, state: TrainState) -> tuple[Row, str | None]:
    """The metrics of the test set; or none, and why: the run stands without them."""
    if p.test is None:
        return {}, "there is no test set"
    try:
        row = step.evaluate(state.network, p.test, "test")
    except (ConfigError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
            raise
        nothing = torch.full((3,), math.nan, dtype=torch.float64, device=p.device)
        p.world.sum(nothing)  # for the other processes, which sum their parts
        return {}, f"the test set cannot be read: {error}"
    if math.isnan(row["test/acc"]):
        return {}, "the test set cannot be read by another process"
    return state.checked(row), None


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
        self._result, self._seconds, t = result, seconds, p.trajectory
        with seconds.phase("tracking"):
            self._history = tracking.History(place.folder / "history.jsonl", rows)
            label, values = tracking.described(result)
            try:
                self._mirror = tracking.Mirror.open(config.tracking, label, place.folder, values)
            except Exception:
                self._history.close()
                raise
            for row in rows:
                self._mirror.log(row)
        self.rows = self._history.rows
        name = f"{place.position} {place.name}".strip()
        done = int(rows[-1]["step"]) if rows else 0
        self.progress = Progress(name, t.plan, done, p.batches.batch_size)

    def __enter__(self) -> Self:
        return self

    def record(self, row: Row) -> None:
        self._history.append(row)
        self._mirror.log(row)
        with suppress(OSError):  # of a terminal that is gone
            self.progress.show(row)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._history.close()
        status = self._result["status"]
        if kind is not None:
            status = "interrupted" if issubclass(kind, _STOPS) else "failed"
        with suppress(OSError):
            self.progress.end(status, self._result)
        summary = tracking.summary(self._result | {"status": status})
        with self._seconds.phase("tracking"):
            self._mirror.finish(summary, exit_code=int(status != "complete"))
        self._result["tracking"] = self._mirror.where


def build(
    config: Config,
    splits: data.Splits,
    device: torch.device,
    precision: Precision,
    world: World = ALONE,
) -> tuple[TrainState, Step]:
    """The network, its optimizer and its schedule before the first update, and the step itself.

    The initial weights follow from `config.seed`, the model and the data's shape.
    """
    torch.manual_seed(config.seed)
    network = config.model.build(splits.channels, splits.image_size, splits.classes)
    models.check_batch(network, config.trainer.batch_size, splits.channels, splits.image_size)
    network = world.synchronised(network, device)
    layout = torch.channels_last if config.trainer.channels_last else torch.contiguous_format
    network = network.to(device, memory_format=layout)  # type: ignore[call-overload]
    mode = config.trainer.compile if world.size == 1 else "none"
    by_scaler = precision.name == "fp16"  # which has the optimizer skip updates
    optimizer = config.optimizer.build(list(network.parameters()), "none" if by_scaler else mode)
    updates_per_epoch = data.updates_per_epoch(len(splits.train.labels), config.trainer.batch_size)
    schedule = schedules.build(config, optimizer, updates_per_epoch)
    forward: Any = world.averaging(network, device)
    if config.trainer.compile != mode:  # gradients are averaged within the update
        forward = torch.compile(forward, mode=config.trainer.compile)
    weight = world.weight(config.trainer.batch_size)
    step = Step(forward, precision, config.trainer.label_smoothing, world, weight, mode)
    return TrainState(network, optimizer, schedule, precision.scaler()), step


def _summary(rows: list[Row]) -> dict[str, Any]:
    """The last and the best evaluation of a history; empty for one without evaluations."""
    evaluations = [row for row in rows if "val/acc" in row]
    if not evaluations:
        return {"final": {}, "best": {}}
    best = max(evaluations, key=lambda row: row["val/acc"])
    return {"final": evaluations[-1], "best": best}
