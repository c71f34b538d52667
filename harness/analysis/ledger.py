"""The ledger: an append-only file of which claims were judged on which runs, a JSON object a line.

It belongs to the user who gives the commands: no file of a sweep names it, so that a sweep of somebody
else cannot have anything written.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from harness.files import LOCK_SECONDS, UnreadableError, lock
from harness.files import read as read_bytes

_TYPES = {  # of a claim's fields
    "factor": str, "baseline": str, "treatments": list, "metric": str, "margin": float,
    "level": float, "seeds": list,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A claim that was judged on runs: `runs` are their run ids, `plan` is the hash of what was planned."""

    time: str  # ISO 8601, UTC
    plan: str
    claim: dict[str, Any]  # the fields of `Claim`
    runs: list[str]
    sweep: str  # the name of its folder
    tuning: list[str] = field(default_factory=list)  # ids of the runs by which its arms were tuned

    @classmethod
    def now(cls, plan: str, claim: Mapping[str, Any], runs: list[str], sweep: str) -> Self:
        time = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(
            time, plan, {name: claim[name] for name in claim if name != "sha256"}, runs, sweep
        )

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Return the entry of a line. Raises ValueError, TypeError, LookupError or RecursionError for none."""
        entry = cls(**json.loads(line))
        datetime.fromisoformat(entry.time)
        claim = [entry.claim[name] for name in _TYPES]
        wanted = [(int, float) if kind is float else kind for kind in _TYPES.values()]
        texts = [entry.plan, entry.sweep, *entry.runs, *entry.tuning, *entry.claim["treatments"]]
        texts += [*entry.claim.get("rivals", ()), entry.claim.get("tuned_over") or ""]
        lists = isinstance(entry.runs, list) and isinstance(entry.tuning, list)
        whole = lists and all(map(isinstance, claim, wanted))
        if not whole or not all(isinstance(one, str) for one in texts):
            raise TypeError("a value has another type")
        if not all(type(seed) is int for seed in entry.claim["seeds"]):
            raise TypeError("a seed is no whole number")
        if not all(math.isfinite(entry.claim[name]) for name in ("margin", "level")):
            raise ValueError("a number is not finite")
        return entry

    def covers(self, other: Entry) -> bool:
        """Return whether `other` adds nothing to this entry."""
        return self.plan == other.plan and {*other.runs} <= {*self.runs}


def judged(path: Path | None, entry: Entry) -> tuple[list[Entry], list[str]]:
    """Add `entry` to the ledger at `path`. Return the entries that it had, and what is wrong with it.

    An entry of the same plan with the same runs is not added again. Whatever is wrong, a damaged line
    or a ledger that cannot be written, is a line of text each. Without a `path` there is no ledger.
    """
    if path is None:
        return [], []
    found: list[Entry] = []
    faults: list[str] = []
    try:
        found, faults = read(path)
        if entry.runs and not any(one.covers(entry) for one in found):
            _append(path, entry)
    except OSError as error:
        faults.append(f"the ledger is not complete: {error}")
    return found, faults


def read(path: Path) -> tuple[list[Entry], list[str]]:
    """Return the entries of a ledger, and a line about each damaged one. Raises OSError.

    A ledger that is not there is empty.
    """
    _refuse_link(path)
    if not path.exists():
        return [], []
    found, faults = [], []
    for number, line in enumerate(read_bytes(path).splitlines(), start=1):
        try:
            found.append(Entry.from_line(line))
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            reason = " ".join(str(error).split())[:80]
            faults.append(f"{path}, line {number}: is no entry of a ledger ({reason})")
    return found, faults


def _append(path: Path, entry: Entry) -> None:
    """Append `entry`, unless another process has done so meanwhile. Raises OSError."""
    beside = path.with_name(f"{path.name}.lock")
    _refuse_link(beside)
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock(beside, LOCK_SECONDS):
        if any(one.covers(entry) for one in read(path)[0]):
            return
        with path.open("a+b") as file:
            file.seek(max(0, file.tell() - 1))
            begin = (
                b"" if file.read() in (b"", b"\n") else b"\n"
            )  # a line that was cut off ends there
            values = {k: v for k, v in dataclasses.asdict(entry).items() if v or k != "tuning"}
            file.write(begin + json.dumps(values).encode() + b"\n")


def _refuse_link(path: Path) -> None:
    """Raise `UnreadableError` for a link: someone else's folder may hold one that leads anywhere."""
    if path.is_symlink():
        raise UnreadableError(f"{path}: is a link; give the file that it leads to")
