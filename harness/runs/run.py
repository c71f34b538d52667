"""One run, from its configuration to its folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from harness import correct
from harness.config import extensions, measures
from harness.config.errors import ConfigError
from harness.config.values import changes, to_dict
from harness.config.warnings import warn, warn_once
from harness.files import LockedError, atomic, lock, read_json, write_json
from harness.runs import requeue, tracking
from harness.runs.context import RunContext
from harness.runs.evaluator import Evaluator
from harness.runs.recording import Recorder
from harness.runs.result import (
    Complete,
    Diverged,
    Evaluation,
    Identity,
    NetworkRefusedError,
    Provenance,
    RunResult,
    outcome_of,
    read_complete,
)
from harness.runs.setup import Setup, build, prepare
from harness.runs.signals import RunInterruptedError, stopping
from harness.store.checkpointer import Checkpointer, broadcast_state, restore, steps_to_keep
from harness.store.identity import RunIdentity, weights_sha256
from harness.store.store import Store
from harness.training import schedules
from harness.training.averages import Averages
from harness.training.loop import DivergedError, Row, TrainState, updates

_OTHER_CODE = (
    "the store has checkpoints of these settings, but by other code: an extension was edited since; "
    "they are not used"
)


def run(ctx: RunContext) -> RunResult:
    """Train a configuration in its folder and return what `result.json` says.

    All processes of `ctx.world` do so; those after the first in a temporary folder. A run that is
    complete there stays as it is. One that diverges ends as `diverged`, with its history. Any other
    error is written down as `failed` (`interrupted` for a signal) and raised again; the store remembers
    a divergence, and a network that cannot be built, but no failure that may come from outside of the
    run. Raises `ConfigError`, before anything is changed, if another run has begun in the folder, or another
    process is at it.
    """
    with exclusive_lock(ctx.info.folder):
        claim_sha256 = check_config_unchanged(ctx)
        _keep_code(ctx)
        if before := ctx.world.broadcast_from_rank_zero(lambda: _complete_before(ctx)):
            if ctx.world.rank == 0:
                name = f"{ctx.info.position} {ctx.info.name}".strip()
                print(f"{name}: is complete", file=sys.stderr)
            return before
        with stopping(ctx.stop), write_result_on_exit(ctx, claim_sha256) as result:
            tracking.check(ctx.config.tracking)
            setup = prepare(ctx.config, ctx.timer, ctx.world)
            result.identity = _identity(setup)
            result.metrics = measures.described(ctx.config.metrics)
            _write_lr_plan(ctx, setup)
            store = Store(Path(ctx.config.store.dir)) if ctx.config.reuse else None
            if not _ended_before(ctx, setup, store, result):
                try:
                    with ctx.world.translate_peer_errors(), extensions.any_own_code(ctx.config):
                        train(ctx, setup, store, result)
                except Exception:
                    ctx.stop.check()  # what a signal to all processes led to is no failure of the run
                    raise
        if not requeue.in_a_job():  # which ends now anyway; a sweep would go on
            ctx.stop.pass_on()
        return result


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Raise `ConfigError` if another process trains the run there."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(folder / ".lock"))
        except LockedError as locked:
            raise ConfigError(
                f"{folder}: {locked.holder} is training this run; wait for its end, or take another "
                "folder (hydra.run.dir, hydra.sweep.dir)"
            ) from None
        yield


def check_config_unchanged(ctx: RunContext) -> str | None:
    """Note configuration and claim at the first start; later ones must agree. Return the first claim.

    A requeued job composes its configuration again, from files that may have been edited since. A start that
    failed before its first row does not count: what it was refused for may be corrected.
    """
    path, config = ctx.info.folder / "config.json", to_dict(ctx.config)
    if not path.exists() or _failed_at_once(ctx.info.folder):
        write_json(path, {"config": config, "claim_sha256": ctx.info.claim_sha256})
    frozen = read_json(path)
    if changed := changes(frozen["config"], config):
        raise ConfigError(
            f"{', '.join(changed)}: not what the run in {ctx.info.folder} began with; "
            "undo that, or take another folder (hydra.run.dir, hydra.sweep.dir)"
        )
    first: str | None = frozen["claim_sha256"]
    return first


def _failed_at_once(folder: Path) -> bool:
    """Return whether the last start in `folder` ended with an error, and none has recorded anything."""
    result, history = folder / "result.json", folder / "history.jsonl"
    if not result.exists() or (history.exists() and history.stat().st_size):
        return False
    return read_json(result).get("status") == "failed"


def _keep_code(ctx: RunContext) -> None:
    """Keep a copy of the code of extensions that the run is trained with."""
    for code in extensions.sources(ctx.config):
        for name, content in code.files.items():
            copy = ctx.info.folder / "extensions" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            with atomic(copy) as file:
                file.write(content)


def _complete_before(ctx: RunContext) -> RunResult | None:
    """Return the result in the folder, if the run is over and logged where this one is to be."""
    if not (ctx.info.folder / "history.jsonl").exists():
        return None
    before = read_complete(ctx.info.folder)
    if before is None or (ctx.config.retry and before.evaluations["test"].missing):
        return None
    same_tracking = before.config.get("tracking") == to_dict(ctx.config)["tracking"]
    return before if same_tracking else None


@contextmanager
def write_result_on_exit(ctx: RunContext, claim_sha256: str | None) -> Iterator[RunResult]:
    """Begin a result, and write it to `result.json` however the block ends."""
    info, folder = ctx.info, ctx.info.folder
    result = RunResult(
        info.name, info.arm, info.group, to_dict(ctx.config), info.overrides, info.swept,
        claim_sha256, restarts=_note_start(folder), options=info.options,
    )  # fmt: skip
    (folder / "result.json").unlink(missing_ok=True)
    try:
        with ctx.timer.phase("total"), ctx.world.translate_peer_errors():
            yield result
    except BaseException as error:
        result.outcome = outcome_of(error)
        if isinstance(error, RunInterruptedError | KeyboardInterrupt):
            again = f"; {info.again}" if ctx.config.reuse and info.again else ""
            print(f"{info.name}: {result.outcome.error}{again}", file=sys.stderr)
        raise
    finally:
        result.seconds = {name: round(s, 3) for name, s in ctx.timer.items()}
        if folder.exists():  # else someone has removed it
            result.write(folder)


def _note_start(folder: Path) -> int:
    """Return how often a run has begun in `folder` before, killed ones too: a line each in `starts.txt`."""
    path = folder / "starts.txt"
    with path.open("a") as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')}\n")
    return len(path.read_text().splitlines()) - 1


def _identity(setup: Setup) -> Identity:
    own, splits = setup.identity, setup.splits
    return Identity(
        own.run_id, own.fingerprint, own.plan.describe(), setup.numerics, splits.sha256,
        splits.test_sha256, splits.sizes,
    )  # fmt: skip


def _write_lr_plan(ctx: RunContext, setup: Setup) -> None:
    plan = setup.identity.plan
    with atomic(ctx.info.folder / "lr.npy") as file:
        np.save(file, plan.lr)
    if warning := schedules.misalignment(plan):
        warn(f"{ctx.info.name}: {warning}")


def _ended_before(ctx: RunContext, setup: Setup, store: Store | None, result: RunResult) -> bool:
    """Return whether the store remembers that this run diverged; then that is its result.

    Raises `NetworkRefusedError` if it remembers that the network cannot be built.
    """
    if store:
        store.warn_of_older()
    end = ctx.world.broadcast_from_rank_zero(
        lambda: store.outcome(setup.identity) if store and not ctx.config.retry else None
    )
    if end is None:
        return False
    again = f"{end['error']}; that was before, retry=true trains it again"
    if end["status"] == "refused":
        raise NetworkRefusedError(again)
    rows = setup.identity.log_schedule.select(end["rows"])
    with Recorder(ctx, setup.identity.plan, result, rows):
        result.outcome = Diverged(again)
        result.evaluated(rows)
    return True


def train(ctx: RunContext, setup: Setup, store: Store | None, result: RunResult) -> None:
    """Build the state, take it to where the store has got to, and train it to the end."""
    identity, timer, world = setup.identity, ctx.timer, ctx.world
    with timer.phase("build"), _refusal_noted(store, identity):
        state, step = build(ctx.config, setup.splits, setup.device, setup.precision, world)
    if planned := identity.log_schedule.averages:
        state.averages = Averages(state.network, planned)
    evaluator = Evaluator(world, setup, step, state)
    ctx.stop.catch()
    with _resumed(ctx, setup, store, state, result) as (recorder, checkpointer, heartbeat):
        provenance = result.provenance = _provenance(checkpointer)
        world.wait()
        world.reseed(ctx.config.seed, state.updates)
        try:
            with timer.phase("fit"):
                for lr in updates(state, step, identity.plan, setup.batches):
                    if identity.log_schedule.is_row(state.updates):
                        recorder.record(_row(ctx, evaluator, lr))
                    recorder.tick()
                    heartbeat()
                    provenance.updates_trained += 1
                    with timer.phase("store"):
                        _save_if_due(ctx, checkpointer)
                    world.reseed(ctx.config.seed, state.updates)
            _finish(ctx, evaluator, checkpointer, result)
        except DivergedError as error:
            result.outcome = Diverged(str(error))
        result.evaluated(recorder.rows)
        if store:
            store.note_outcome(identity, result.status, result.outcome.error, recorder.rows)


@contextmanager
def _refusal_noted(store: Store | None, identity: RunIdentity) -> Iterator[None]:
    """Note in the store that the network cannot be built: unlike other failures, that follows from
    what the run's key holds; but code of the user's may have wanted a file, or a package."""
    try:
        yield
    except ConfigError as error:
        if identity.apart_from_code:
            raise
        if store:
            store.note_outcome(identity, "refused", str(error), [])
        raise NetworkRefusedError(str(error)) from error


@contextmanager
def _resumed(
    ctx: RunContext, setup: Setup, store: Store | None, state: TrainState, result: RunResult
) -> Iterator[tuple[Recorder, Checkpointer, Callable[[], None]]]:
    """Take `state` to the longest stored beginning of the run; yield what the loop works with."""
    identity, settings = setup.identity, ctx.config.store
    keep = steps_to_keep(settings.keep, identity.plan, ctx.info.branch_steps)
    heartbeat: Callable[[], None] = lambda: None  # noqa: E731
    origin = None
    with ExitStack() as stack:
        if store:
            with ctx.timer.phase("store"):
                store.note_settings(identity, ctx.config)
                lease = store.lease(identity, keep, settings.wait, ctx.stop.check)
                heartbeat = stack.enter_context(lease)
                origin = restore(store, identity, state)
                if origin is None and store.has_other_code(identity):
                    warn_once(_OTHER_CODE)
        origin = broadcast_state(origin, state, ctx.world)
        rows = identity.log_schedule.select(origin.rows) if origin else []
        recorder = stack.enter_context(Recorder(ctx, identity.plan, result, rows))
        checkpointer = Checkpointer(
            store, identity, setup.numerics, state, recorder.rows, origin, keep,
            ctx.config.trainer.checkpoint_every,
        )  # fmt: skip
        yield recorder, checkpointer, heartbeat


def _provenance(checkpointer: Checkpointer) -> Provenance:
    origin, exact, code = checkpointer.origin, checkpointer.exact, checkpointer.commit._asdict()
    if origin is None:
        return Provenance(None, 0, 0.0, exact, **code)
    return Provenance(origin.key, origin.step, origin.seconds, exact, **code)


def _row(ctx: RunContext, evaluator: Evaluator, lr: float) -> Row:
    """Return the row of the history for the update just done, whose LR was `lr`."""
    state, identity = evaluator.state, evaluator.setup.identity
    row = state.row(identity.plan, lr)
    if state.updates in identity.log_schedule.evaluations:
        with ctx.timer.phase("evaluate"):
            row |= evaluator.val()
    return row


def _save_if_due(ctx: RunContext, checkpointer: Checkpointer) -> None:
    """Write a checkpoint if one is due. Raise `RunInterruptedError`, with it written, after a signal."""
    number, due = ctx.world.all_reduce_stop_and_save(ctx.stop.number, checkpointer.due())
    if number is not None or due:
        checkpointer.save()
    if number is not None:
        raise RunInterruptedError(number)
    if due:
        ctx.world.wait()


def _finish(
    ctx: RunContext, evaluator: Evaluator, checkpointer: Checkpointer, result: RunResult
) -> None:
    """Test the trained network, unless the store has that, and keep the end of the run."""
    test_sha256 = evaluator.setup.splits.test_sha256
    stored = checkpointer.tested(test_sha256)
    with ctx.timer.phase("evaluate"):
        test = Evaluation(stored) if stored else evaluator.test()
    result.evaluations["test"] = test
    if not stored:
        with ctx.timer.phase("store"):
            checkpointer.finish(test.values, test_sha256, ctx.config.store.keep)
    _keep_correct(ctx, evaluator, checkpointer, checkpointer.rows[-1] | test.values)
    result.outcome = Complete(weights_sha256(evaluator.state.network.state_dict()))


def _keep_correct(
    ctx: RunContext, evaluator: Evaluator, checkpointer: Checkpointer, recorded: Row
) -> None:
    """Write which images are classified correctly, in the evaluations that gave `recorded`, into the
    run's folder and beside the checkpoint of its end."""
    path, stored = ctx.info.folder / correct.FILE, {}
    if checkpointer.starts_at_end:
        stored = ctx.world.broadcast_from_rank_zero(checkpointer.correct)
    with ctx.timer.phase("evaluate"):
        found = evaluator.correct(stored, recorded)
    if not found:
        path.unlink(missing_ok=True)  # of an earlier start
        return
    correct.write(path, found)
    if any(bits is not stored.get(split) for split, bits in found.items()):
        with ctx.timer.phase("store"):
            checkpointer.keep_correct(found)
