"""Look after the checkpoint store: what is in it, is it sound, what can go.

python scripts/store.py ls
python scripts/store.py verify
python scripts/store.py prune --older-than 30      days since it was written
python scripts/store.py prune --largest-first 2    until 2 GB are left
python scripts/store.py prune --ends               keep finished runs' ends only
python scripts/store.py prune --older-formats      what no run of this version can use
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from harness.analysis.run_tables import columns
from harness.config.fields import decimal
from harness.files import read_json
from harness.store.checkpoint import (
    Checkpoint,
    CorruptCheckpointError,
    correct_path,
    read_checkpoint,
    read_correct,
    read_state,
)
from harness.store.identity import FORMAT
from harness.store.store import ABOUT, Store

_LS = ["fingerprint", "model", "data set", "seed", "epochs", "kept", "ends", "MB", "written"]
_ROOT = Path(__file__).resolve().parent.parent
_DAY = 86_400.0  # seconds


@dataclass(frozen=True)
class Stored:
    """A checkpoint with the size and the age of its own files; its rows are its run's."""

    prefix: Checkpoint
    size: int  # bytes
    written: float  # seconds since 1970

    @classmethod
    def of(cls, prefix: Checkpoint) -> Stored:
        files = [prefix.path, *_beside(prefix)]
        stats = [file.stat() for file in files if file.exists()]
        return cls(prefix, sum(s.st_size for s in stats), max(s.st_mtime for s in stats))

    def remove(self) -> None:
        for path in (self.prefix.path, *_beside(self.prefix)):
            path.unlink(missing_ok=True)


def _beside(checkpoint: Checkpoint) -> list[Path]:
    """Return the files that are a checkpoint's alone: weights, bits of images."""
    return [checkpoint.path.parent / checkpoint.file, correct_path(checkpoint.path)]


def _shared(checkpoint: Checkpoint) -> list[Path]:
    """Return the files that a checkpoint shares with others of its fingerprint."""
    return [checkpoint.path.parent / name for name in (checkpoint.rows_file, ABOUT)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = os.environ.get("HARNESS_STORE") or _ROOT / "trajectories"
    parser.add_argument("--dir", type=Path, default=usual, help="store.dir")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("ls", help="model, data set, epochs, size")
    commands.add_parser("verify", help="compare all checksums")
    prune = commands.add_parser("prune", help="remove checkpoints")
    which = prune.add_mutually_exclusive_group(required=True)
    which.add_argument("--older-than", type=float, metavar="DAYS")
    which.add_argument("--largest-first", type=float, metavar="GB", help="until GB are left")
    which.add_argument("--ends", action="store_true", help="all but the ends of finished runs")
    which.add_argument("--older-formats", action="store_true", help="of versions before this one")
    prune.add_argument("--dry-run", action="store_true", help="only say what would go")
    arguments = parser.parse_args()
    if not arguments.dir.is_dir():
        sys.exit(
            f"error: --dir {arguments.dir}: there is no store; nothing was trained with it yet"
        )
    stored, damaged = _read(arguments.dir)
    match arguments.command:
        case "ls":
            _ls(stored)
        case "verify":
            damaged += _verify(stored)
        case "prune" if arguments.older_formats:
            _remove_older(arguments.dir, arguments.dry_run)
        case "prune":
            _remove(_chosen(stored, arguments), arguments.dry_run)
            _remove_strays(arguments.dir, arguments.dry_run)
    Store(arguments.dir).warn_of_older()
    for what in damaged:
        print(f"damaged: {what}", file=sys.stderr)
    sys.exit(bool(damaged))


def _read(folder: Path) -> tuple[list[Stored], list[str]]:
    stored, damaged = [], []
    for path in sorted(folder.glob(f"{FORMAT}-*/*-*.json")):
        try:
            stored.append(Stored.of(read_checkpoint(path)))
        except CorruptCheckpointError as error:
            damaged.append(str(error))
    return stored, damaged


def _ls(stored: list[Stored]) -> None:
    """Print a line a fingerprint; model and data set as the first run with it had them."""
    groups: dict[str, list[Stored]] = {}
    for one in stored:
        groups.setdefault(one.prefix.fingerprint, []).append(one)
    lines, whole = [], 0.0
    for fingerprint, group in groups.items():
        rows = group[0].prefix.path.parent.glob("*.rows")
        size = _mb(group) + sum(path.stat().st_size for path in rows) / 1e6
        whole += size
        newest = time.strftime("%Y-%m-%d", time.localtime(max(one.written for one in group)))
        ends = sum(one.prefix.is_end for one in group)
        numbers = (f"{len(group)}", f"{ends}", f"{size:.1f}", newest)
        lines.append([fingerprint[:12], *_about(group), *numbers])
    texts = [max(len(line[column]) for line in [_LS, *lines]) for column in range(3)]
    head, *lines = ([*map(str.ljust, line, texts), *line[3:]] for line in [_LS, *lines])
    if lines:
        print(columns(head, lines))
    print(f"{len(groups)} fingerprints, {len(stored)} checkpoints, {whole:.1f} MB")


def _about(group: list[Stored]) -> list[str]:
    """Return model, data set, seed and longest run of a fingerprint in epochs, as far as that is known."""
    longest = max((one.prefix for one in group), key=lambda prefix: prefix.step)
    try:
        about = read_json(longest.path.parent / ABOUT)
        model, dataset = about["model"], about["dataset"]
        name, of = model.get("arch", model["kind"]), ("kind", "arch")
        settings = [f"{key}={value}" for key, value in model.items() if key not in of]
        epochs = longest.step / about["updates_per_epoch"]
        found = [" ".join([name, *settings]), dataset.get("name", dataset["kind"])]
        return [
            *(textwrap.shorten(text, 24, placeholder=" …") for text in found),
            f"{about['seed']}",
            decimal(epochs, 4),
        ]
    except (OSError, LookupError, TypeError, AttributeError, ZeroDivisionError):  # of before
        return ["-", "-", "-", "-"]


def _verify(stored: list[Stored]) -> list[str]:
    damaged = []
    for one in tqdm(stored, unit="checkpoint", disable=not sys.stderr.isatty()):
        try:
            read_state(one.prefix)
            one.prefix.rows  # noqa: B018 - reading checks
            read_correct(one.prefix)
        except CorruptCheckpointError as error:
            damaged.append(str(error))
    print(f"{len(stored) - len(damaged)} of {len(stored)} checkpoints are sound")
    return damaged


def _chosen(stored: list[Stored], arguments: argparse.Namespace) -> list[Stored]:
    if arguments.ends:
        return [one for one in stored if not one.prefix.is_end]
    if arguments.older_than is not None:
        return [one for one in stored if one.written < time.time() - arguments.older_than * _DAY]
    left = sum(one.size for one in stored)
    chosen = []
    for one in sorted(stored, key=lambda one: one.size, reverse=True):
        if left <= arguments.largest_first * 1e9:
            break
        chosen.append(one)
        left -= one.size
    return chosen


def _remove(chosen: list[Stored], dry_run: bool) -> None:
    if not dry_run:
        for one in chosen:
            one.remove()
    print(f"{_done(dry_run)} {len(chosen)} checkpoints, {_mb(chosen):.1f} MB")


def _remove_strays(folder: Path, dry_run: bool) -> None:
    """Unfinished files that a crash left, and weights, rows and bits that no checkpoint has (any more)."""
    named = {
        path for one in _read(folder)[0] for path in (*_beside(one.prefix), *_shared(one.prefix))
    }
    old = time.time() - _DAY
    strays = [
        path
        for pattern in (".*", "*.pt", "*.rows", "*.npz", ABOUT)
        for path in folder.glob(f"{FORMAT}-*/{pattern}")
        if path not in named and path.stat().st_mtime < old
    ]
    for path in strays:
        if not dry_run:
            path.unlink(missing_ok=True)
    if strays:
        print(f"{_done(dry_run)} {len(strays)} files that none of them needs")


def _remove_older(folder: Path, dry_run: bool) -> None:
    older = Store(folder).older()
    checkpoints = [path for one in older for path in one.glob("*-*.json")]
    size = sum(path.stat().st_size for one in older for path in one.iterdir()) / 1e6
    if not dry_run:
        for one in older:
            shutil.rmtree(one)
    print(f"{_done(dry_run)} {len(checkpoints)} checkpoints of older formats, {size:.1f} MB")


def _done(dry_run: bool) -> str:
    return "would remove" if dry_run else "removed"


def _mb(stored: Iterable[Stored]) -> float:
    return sum(one.size for one in stored) / 1e6


if __name__ == "__main__":
    main()
