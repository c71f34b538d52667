"""A GPU for each of the processes that hydra/launcher=parallel starts on one machine."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from harness.files import LOCK_SECONDS, LockedError, lock

VARIABLE = "HARNESS_GPU_SLOTS"  # the slots, for the processes
_POLL = 0.2  # seconds
_HELD = ExitStack()  # the lock of this process's slot, as long as the process is there
_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process of the sweep ends


def offer(devices: Sequence[str], processes: int) -> None:
    """Let the processes that this one starts share GPUs, each with one; `devices` as in CUDA_VISIBLE_DEVICES."""
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix="harness-gpus-"))
    slots = [devices[number % len(devices)] for number in range(processes)]
    os.environ[VARIABLE] = json.dumps([_FOLDERS[-1].name, slots])


def claim() -> None:
    """Let this process see its GPU alone, if it is one of those that share them. Call it before CUDA is used.

    A process that takes the place of another gets the slot of that. Raises `LockedError` if there is none.
    """
    given = os.environ.pop(VARIABLE, None)
    if given is None:
        return
    folder, slots = json.loads(given)
    last = time.monotonic() + LOCK_SECONDS
    while True:
        for number, device in enumerate(slots):
            try:
                _HELD.enter_context(lock(Path(folder, str(number))))
            except LockedError:
                continue
            os.environ["CUDA_VISIBLE_DEVICES"] = device
            return
        if time.monotonic() > last:
            raise LockedError(Path(folder), f"{len(slots)} processes")
        time.sleep(_POLL)
