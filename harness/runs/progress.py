"""How a run shows what it is doing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from threading import RLock

from tqdm import tqdm

from harness.config import streams
from harness.config.fields import decimal
from harness.runs.result import Complete, Diverged, RunResult
from harness.training.loop import Row
from harness.training.schedules import LRPlan

tqdm.set_lock(RLock())  # the usual one is a semaphore between processes, left behind by a kill
_QUIET = 10.0  # seconds between two lines where there is no terminal


def on_terminal() -> bool:
    """Return whether stderr is a terminal that can draw bars."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def describe(row: Mapping[str, float | None], budget: float, speed: float) -> str:
    """Return the words beside a bar: of `row`, with the last val/acc if there is one, at `speed` images a second."""
    parts = [f"epoch {decimal(row['epoch'] or 0.0, 3)}/{decimal(budget)}"]
    if (lr := row.get("lr")) is not None:
        parts.append(f"lr {decimal(lr, 3)}")
    if (accuracy := row.get("val/acc")) is not None:
        parts.append(f"val/acc {accuracy:.2f} %")
    return ", ".join([*parts, *[f"{speed:,.0f} img/s"] * (speed > 0)])


class Progress:
    """A bar on terminals; elsewhere a line at the end, and one in between every ten seconds.

    An update takes `images` images.
    """

    def __init__(self, label: str, plan: LRPlan, done: int, images: int) -> None:
        self._label, self._plan, self._images = label, plan, images
        self._done = done  # updates that were there already
        self._terminal = on_terminal()
        self._silent = self._terminal and streams.BARS in os.environ  # the sweep draws the bar
        self._begin = self._spoke = time.monotonic()
        self._val: float | None = None
        self._bar = tqdm(
            total=plan.updates,
            initial=done,
            desc=label,
            disable=self._silent or not self._terminal,
            bar_format="{desc}: {percentage:.0f} %{postfix} |{bar}| {elapsed}<{remaining}",
        )

    def tick(self) -> None:
        self._bar.update()

    def show(self, row: Row) -> None:
        self._val = row.get("val/acc", self._val)
        now = time.monotonic()
        due = self._terminal or ("val/acc" in row and now - self._spoke > _QUIET)
        if self._silent or not due:
            return
        speed = (row["step"] - self._done) * self._images / max(now - self._begin, 1e-9)
        budget = self._plan.epochs(self._plan.updates)
        text = describe({**row, "val/acc": self._val}, budget, speed)
        if self._terminal:
            self._bar.set_postfix_str(text, refresh=False)
        else:
            self._spoke = now
            print(f"{self._label}: {text}", file=sys.stderr)

    def end(self, result: RunResult) -> None:
        """Print how the run ended, if it did."""
        self._bar.close()
        match result.outcome:
            case Diverged(error=error):
                print(f"{self._label}: diverged: {error}", file=sys.stderr)
            case Complete():
                print(f"{self._label}: {self._completed(result)}", file=sys.stderr)

    def _completed(self, result: RunResult) -> str:
        final, test = result.evaluations["final"].values, result.evaluations["test"]
        metrics = ["acc", *(name for name in result.metrics if name not in ("acc", "loss"))]
        values = [_described(f"val/{name}", final) for name in metrics]
        if test.values:
            values += [_described(f"test/{name}", test.values) for name in metrics]
        else:
            values.append(f"no test/acc: {test.missing}")
        assert result.provenance
        trained = self._plan.epochs(result.provenance.updates_trained)
        reused = self._plan.epochs(result.provenance.updates_reused)
        epochs = "epoch" if trained == 1 else "epochs"
        parts = f"{decimal(trained)} {epochs} trained" + (
            f", {decimal(reused)} reused" if reused else ""
        )
        seconds = time.monotonic() - self._begin
        return f"{', '.join(values)} ({parts}, training {seconds:.1f} s)"


def _described(metric: str, values: Row) -> str:
    """Return `val/acc 71.30 %`, and of other metrics `val/ece 0.0312`."""
    return (
        f"{metric} {values[metric]:.2f} %"
        if metric.endswith("/acc")
        else f"{metric} {values[metric]:.4g}"
    )
