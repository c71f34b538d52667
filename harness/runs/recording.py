"""Where a run's rows go: the history, its mirror, the terminal."""

from __future__ import annotations

from contextlib import suppress
from typing import Self

from harness.runs import tracking, wandb_run
from harness.runs.contention import Contention
from harness.runs.context import RunContext
from harness.runs.history import History
from harness.runs.progress import Progress
from harness.runs.result import RunResult, outcome_of
from harness.training.loop import Row
from harness.training.schedules import LRPlan


class Recorder:
    """Records the rows of a run under way, after those that it starts with; `rows` has them all."""

    def __init__(self, ctx: RunContext, plan: LRPlan, result: RunResult, rows: list[Row]) -> None:
        self._result, self._timer, info = result, ctx.timer, ctx.info
        with ctx.timer.phase("tracking"):
            self._history = History(info.folder / "history.jsonl", rows)
            label, values = wandb_run.wandb_metadata(result.to_json())
            try:
                self._mirror = tracking.start(ctx.config.tracking, label, info.folder, values)
            except Exception:
                self._history.close()
                raise
            for row in rows:
                self._mirror.log(row)
        self.rows = self._history.rows
        done = int(rows[-1]["step"]) if rows else 0
        name = f"{info.position} {info.name}".strip()
        images = ctx.config.trainer.batch_size * ctx.config.optimizer.accumulate
        self._progress = Progress(name, plan, done, images)
        numerics = result.identity.numerics if result.identity else {}
        on_cpu, alone = (
            numerics.get("device") == "cpu",
            not getattr(ctx.config.dataset, "workers", 0),
        )
        self._contention = Contention(numerics["threads"] if on_cpu and alone else 1)

    def __enter__(self) -> Self:
        return self

    def record(self, row: Row) -> None:
        self._history.append(row)
        self._mirror.log(row)
        with suppress(OSError):  # of a terminal that is gone
            self._progress.show(row)
            self._contention.look()

    def tick(self) -> None:
        """Show that an update is done."""
        with suppress(OSError):
            self._progress.tick()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._history.close()
        if error is not None:
            self._result.outcome = outcome_of(error)
        with suppress(OSError):
            self._progress.end(self._result)
        with self._timer.phase("tracking"):
            summary = wandb_run.summary(self._result.to_json())
            self._mirror.finish(summary, exit_code=int(self._result.status != "complete"))
        self._result.tracking = self._mirror.where
