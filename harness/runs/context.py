"""What a run is given: made once, in `job.py`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from harness.config.schema import Config
from harness.runs.run_dir import RunInfo
from harness.runs.signals import Stop
from harness.training.distributed import SINGLE_PROCESS, World


class PhaseTimer(dict[str, float]):
    """Seconds by phase."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self[name] = self.get(name, 0.0) + time.perf_counter() - begin


@dataclass(frozen=True)
class RunContext:
    """All that a run is given: what to train, where to write, with which processes, until which signal."""

    config: Config
    info: RunInfo
    world: World = SINGLE_PROCESS
    timer: PhaseTimer = field(default_factory=PhaseTimer)
    stop: Stop = field(default_factory=Stop)
