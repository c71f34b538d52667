"""A source's address → its reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from harness.config.errors import ConfigError
from harness.files import UnreadableError
from harness.reading import hugging_face, lightning, tables, tensorboard_events, timm, wandb_offline
from harness.reading.recorded import Recorded
from harness.reading.recover import Asked
from harness.reading.walk import Notes, find

WANDB = "wandb:"
# kind → a file that shows it, its reader
_FOLDERS: dict[str, tuple[str, Callable[[Path], Recorded]]] = {
    "wandb": ("*.wandb", wandb_offline.read),
    "tensorboard": ("events.out.tfevents.*", tensorboard_events.read),
    "lightning": ("metrics.csv", lightning.read),
    "timm": ("summary.csv", timm.read),
    "hugging_face": ("trainer_state.json", hugging_face.read),
}
KINDS = tuple(_FOLDERS)
# kind → a file beside it, as tables of others may have its name
_BESIDE = {"lightning": "hparams.yaml", "timm": "args.yaml"}


def read(address: str, kind: str | None, asked: Asked) -> tuple[Recorded, Asked]:
    """Return what is at `address`: wandb:ENTITY/PROJECT, a table, a file of a run, or a folder of runs.

    `kind`, one of `KINDS`, says which of a folder's files are read where there are several kinds. The second value is
    what is still asked: W&B's server has filters of its own, and a table's columns take the names of their roles.
    Raises `ConfigError` for what is no source; `UnreadableError` for damaged files.
    """
    if address.startswith(WANDB):
        from harness.reading import wandb_api

        _refuse_options(kind, asked.mapping)
        own = {key: value for key, value in asked.where.items() if wandb_api.is_filter(key)}
        rest = {key: value for key, value in asked.where.items() if key not in own}
        return wandb_api.read(address, own), replace(asked, where=rest)
    path = Path(address)
    if not path.exists():
        raise ConfigError(f"{address}: does not exist, and is not {WANDB}ENTITY/PROJECT")
    if path.is_dir():
        _refuse_options(None, asked.mapping)
        return _reader(path, kind)(path), asked
    of_run = next((one for one, (name, *_) in _FOLDERS.items() if path.match(name)), None)
    beside = _BESIDE.get(of_run or "")
    if of_run is None or (beside and not (path.parent / beside).exists()):
        _refuse_options(kind, {})
        try:
            names = {asked.metric or "", asked.factor or "", *asked.ignore, *asked.where} - {""}
            return tables.read(path, asked.mapping, names), replace(asked, mapping={})
        except OSError as error:  # as of a device, whose errors do not name it
            known = isinstance(error, UnreadableError) or error.filename
            raise error if known else UnreadableError(f"{path}: {error.strerror}") from error
    _refuse_options(kind, asked.mapping)
    return _FOLDERS[of_run][1](path.parent), asked


def _refuse_options(kind: str | None, mapping: Mapping[str, str]) -> None:
    """Raise `ConfigError` for an option that would have no effect."""
    if kind is not None:
        raise ConfigError(f"--as {kind}: is for folders that hold several kinds of files")
    if of_tables := {"run", "step", "status"} & {*mapping}:
        raise ConfigError(
            f"--map {min(of_tables)}=: is for tables; runs of this source have their own"
        )


def _reader(path: Path, kind: str | None) -> Callable[[Path], Recorded]:
    """Return the reader of a folder's files."""
    found = _kinds(path)
    if kind is None and (path / "plan.json").exists():
        raise ConfigError(
            f"{path}: is a sweep of this program: python scripts/report.py {path} judges it{_as(found)}"
        )
    if kind is not None and kind not in found:
        raise ConfigError(f"--as {kind}: {path} holds no {_FOLDERS[kind][0]}{_as(found)}")
    if not found:
        names = ", ".join(pattern for pattern, _ in _FOLDERS.values())
        raise ConfigError(
            f"{path}: holds no runs ({names}); of tables, name the file; of a CSV file a run, make one table: "
            "docs/judge.md#a-csv-file-a-run"
        )
    if kind is None and len(found) > 1:
        raise ConfigError(f"{path}: holds several kinds of files{_as(found)}")
    return _FOLDERS[kind or found[0]][1]


def _kinds(folder: Path) -> list[str]:
    """Return the kinds of files in a folder."""
    patterns = {kind: pattern for kind, (pattern, _) in _FOLDERS.items()}
    files = find(folder, lambda name: any(fnmatch(name, one) for one in patterns.values()), Notes())
    names = {file.name for own in files.values() for file in own}
    return [
        kind for kind, pattern in patterns.items() if any(fnmatch(name, pattern) for name in names)
    ]


def _as(found: list[str]) -> str:
    return f"; {' or '.join(f'--as {one}' for one in found)} says which are read" * bool(found)
