"""What a verdict costs: the Fashion-MNIST claim of docs/study.md, by core seconds."""

from __future__ import annotations

import json
import os
import statistics
import time

from benchmarks import usual
from benchmarks.commands import Rows, folder, seconds, train

EPOCHS, PAIRS, MOST = 35, 16, 30
IMAGES, WIDTH = 4992, 8
_CLAIM = (
    "--config-dir", "docs/study/conf/fashion", "-m", "+tuned=times_1,times_2",
    "claim.factor=tuned", "dataset=fashion_mnist", f"dataset.train_size={IMAGES}",
    "dataset.val_size=5000", "trainer.batch_size=128", "model=resnet8", f"model.width={WIDTH}",
    f"trainer.epochs={EPOCHS}", "tracking=none",
)  # fmt: skip


def to_a_verdict(repeats: int) -> Rows:
    """Count the core seconds of two arms with a fixed number of pairs, and until the claim is decided.

    What is fixed is counted from parts: a usual program by its epochs, the harness by the pairs that were
    trained until decided. The whole takes twelve minutes for each repeat.
    """
    programs, fixed, decided, pairs = [], [], [], []
    for _ in range(repeats):
        programs.append(2 * PAIRS * EPOCHS * _usual_epoch())
        cost, taken = _until_decided()
        decided.append(cost)
        fixed.append(cost / taken * PAIRS)
        pairs.append(taken)
    times = [statistics.median(a) / statistics.median(decided) for a in (programs, fixed)]
    until = f"until decided with at most {MOST}: {pairs[0]} pairs"
    return [
        (f"core seconds to a verdict: usual program, {PAIRS} pairs", _middle(programs), ""),
        (f"… this harness, {PAIRS} pairs", _middle(fixed), ""),
        (f"… this harness, {until}", _middle(decided), ""),
        ("usual program against until decided", f"{times[0]:.2f}", "≥ 3.5"),
        (f"{PAIRS} pairs of this harness against until decided", f"{times[1]:.2f}", ""),
    ]


def _usual_epoch() -> float:
    """Return the core seconds of an epoch with validation, the median of three after the first."""
    epoch = usual.plain(0, EPOCHS, IMAGES, WIDTH)
    found = []
    for _ in range(4):
        begin = time.process_time()
        epoch()
        found.append(time.process_time() - begin)
    return statistics.median(found[1:])


def _until_decided() -> tuple[float, int]:
    """Return the core seconds of the whole command, and the pairs of its verdict."""
    with folder() as where:
        before = _used()
        seconds(*train(where, *_CLAIM, "claim.until=decided", f"claim.most={MOST}"))
        used = _used() - before
        verdict = json.loads((where / "runs/verdict.json").read_text())
    return used, verdict["comparisons"][0]["n"]


def _used() -> float:
    own = os.times()
    return own.children_user + own.children_system


def _middle(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} s ({min(values):,.0f} to {max(values):,.0f})"
