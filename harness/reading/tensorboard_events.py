"""Folders of TensorBoard's event files: scalars, the hparams plugin, and what our own runs write as text."""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl

from harness import files
from harness.config.errors import ConfigError
from harness.files import UnreadableError
from harness.reading.meaning import SPLITS
from harness.reading.recorded import (
    COMPLETE,
    MOST_COLUMNS,
    MOST_ROWS,
    Recorded,
    RunRecord,
    clean,
    collect,
    flat_settings,
    refuse_more,
)
from harness.reading.run_files import settings_of_yaml
from harness.reading.walk import NO_ROWS, Notes, all_settings, find, read_each, run_name

KIND = "TensorBoard event files"
_LONG = {"tag": pl.String, "step": pl.Int64, "value": pl.Float64}
_HPARAMS = "hparams.yaml"  # of Lightning's TensorBoardLogger
_BLOCK = re.compile(r"```\n(.*)\n```", re.DOTALL)
_OWN_TEXT = ("config/text_summary", "status/text_summary")
_SUCCESS, _FAILURE, _RUNNING = 1, 2, 3  # of tensorboard/plugins/hparams/api.proto, Status
_FLOAT = 1  # of tensorboard/compat/proto/types.proto, DataType; then double, int32, int64, half
_NUMBERS = (_FLOAT, 2, 3, 9, 19)
_START = 1  # of tensorboard/compat/proto/event.proto, SessionLog.SessionStatus
_ATTEMPT = ""  # a column that is no tag's


@dataclass
class _Events:
    """What event files say of a run; `values`, a row a scalar, in their order, with the columns of `_LONG`."""

    values: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_LONG))
    began: float = 0.0  # s, Unix time
    purged: int | None = (
        None  # the step from which on a session log says that earlier values do not count
    )
    settings: dict[str, Any] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)
    status: str | None = None
    has_hparams: bool = False
    hparams_metrics: set[str] = field(default_factory=set)  # tags that the hparams plugin shows
    float32: bool = False
    error: OSError | None = None

    @property
    def tags(self) -> list[str]:
        return self.values["tag"].unique(maintain_order=True).to_list()


def read(folder: Path) -> Recorded:
    """Return the runs in `folder` and below it, one a folder with event files. Raises `ConfigError` if there are none.

    Several files of a folder are one run that was started again: from the step at which a later file begins a tag,
    its values replace the earlier ones, as TensorBoard's data server does (`preempt` in tensorboard/data/server/reservoir.rs).
    One with a `purge_step` replaces all tags from there on (the documentation of PyTorch's `SummaryWriter`; TensorBoard's
    `_CheckForRestartAndMaybePurge` in plugin_event_accumulator.py does so from the second one on). Values that
    `add_hparams` or `log_hyperparams` gave a tag with a curve are no part of it. Sub-folders that `add_hparams` and
    `add_scalars` write belong to the run above; `train` and `validation` beside each other are one run.
    """
    if find_spec("tensorboard") is None:
        raise ConfigError(
            f"{folder}: to read event files, install tensorboard: pip install -e '.[tensorboard]'"
        )
    notes = Notes()
    found = find(folder, _is_read, notes)
    runs: dict[Path, _Events] = {}
    number = 0
    for here, paths in found.items():
        if events := [path for path in paths if path.name != _HPARAMS]:
            runs[here] = _folder(events, notes)
            refuse_more("values", number := number + len(runs[here].values), MOST_ROWS)
    if not runs:
        raise ConfigError(f"{folder}: has no file events.out.tfevents.*, in it or below it")
    _join_subfolders(runs, notes)
    _join_splits(runs)

    def settings(here: Path) -> dict[str, Any]:
        yaml, events = here / _HPARAMS, runs[here]
        hparams = settings_of_yaml(yaml, notes) if yaml in found.get(here, ()) else {}
        own = _own_configuration(events) or {}
        recorded = events.settings | flat_settings(hparams) | flat_settings(own)
        return all_settings(folder, here, recorded, notes)

    def one(here: Path) -> RunRecord:
        status, error, rows = _run(here, runs[here], notes)
        return RunRecord(run_name(folder, here), settings(here), rows, str(here), status, error)

    if any(events.float32 for events in runs.values()):
        notes.add("values are single-precision numbers (about 7 digits)", folder)
    return collect(KIND, read_each(folder, runs, one, settings), notes.lines())


def _is_read(name: str) -> bool:
    return name == _HPARAMS or (
        name.startswith("events.out.tfevents.") and not name.endswith(".profile-empty")
    )


def _run(here: Path, events: _Events, notes: Notes) -> tuple[str | None, str | None, pl.DataFrame]:
    """Return a run's status, why it is not complete, and its rows, but for values at steps below 0."""
    if events.error is not None:
        raise events.error
    below, values = (
        events.values.filter(part) for part in (pl.col("step") < 0, pl.col("step") >= 0)
    )
    for tag in below["tag"].unique(maintain_order=True):
        notes.add(f"values of {tag} at steps below 0 are left out", here)
    status, error = events.status, None
    if _own_configuration(events) is not None:
        status = clean(_own_text(events.text.get("status", ""))) or "unfinished"
        error = None if status == COMPLETE else "result.json in the run's own folder says why"
    rows = _rows(values, here, notes)
    if rows.is_empty():
        status, error = status if status not in (None, COMPLETE) else "no rows", "it has no scalars"
    return status, error, rows


def _own_text(text: str) -> str:
    """Return what harness/runs/tensorboard_run.py put in a block of text; nothing for another text."""
    block = _BLOCK.fullmatch(text)
    return block[1] if block else ""


def _own_configuration(events: _Events) -> dict[str, Any] | None:
    try:
        found = json.loads(_own_text(events.text.get("config", "")))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _rows(values: pl.DataFrame, here: Path, notes: Notes) -> pl.DataFrame:
    """Return a row a step with a column a tag: tags of one file may count different steps.

    Each time a tag's steps go back, rows of its own begin after the earlier ones; within them rows are by step.
    """
    values = values.with_columns(
        pl.col("tag").replace_strict(_names(values), default=pl.col("tag"))
    )
    if left := set(values["tag"].unique()) & {"", "run", "step"}:
        notes.add(
            f"tags that name no metric are left out: {', '.join(map(repr, sorted(left)))}", here
        )
        values = values.filter(~pl.col("tag").is_in(left))
    if values.is_empty():
        return NO_ROWS
    refuse_more("columns", values["tag"].n_unique(), MOST_COLUMNS)
    back = (pl.col("step") < pl.col("step").shift()).fill_null(False)
    values = values.with_columns(back.cum_sum().over("tag").alias(_ATTEMPT))
    values = values.unique(
        keep="last", maintain_order=True
    )  # Lightning logs `epoch` with each of its metrics
    single = values.unique(["tag", "step", _ATTEMPT], keep="last", maintain_order=True)
    if twice := len(values) - len(single):
        notes.add(
            f"{twice:,} values are of a step that has a later one of the tag, and are left out",
            here,
        )
    index = [_ATTEMPT, "step"]
    return single.pivot(on="tag", index=index, values="value").sort(index).drop(_ATTEMPT)


def _names(values: pl.DataFrame) -> dict[str, str]:
    return {tag: clean(tag) for tag in values["tag"].unique()}


def _folder(paths: Sequence[Path], notes: Notes) -> _Events:
    """Return what the files of one folder say, in the order in which they were begun."""
    read: list[_Events] = []
    errors: list[OSError] = []
    for path in paths:
        try:
            read.append(_file(path, notes))
        except OSError as error:
            errors.append(error)
    if not read:
        return _Events(error=errors[0])
    for lost in errors:
        notes.add("a file cannot be read; others of the run are read", lost)
    found, of_hparams, here = _Events(), [_Events().values], paths[0].parent
    for one in sorted(read, key=lambda one: one.began):
        is_of_hparams = _is_beside_curve(one, found.values)
        of_hparams.append(one.values.filter(is_of_hparams))
        own = one.values.filter(~is_of_hparams)
        found = _Events(
            _continued(found.values, own, one.purged, here, notes), settings=found.settings | one.settings,
            text=found.text | one.text, status=one.status or found.status,
            has_hparams=found.has_hparams or one.has_hparams, float32=found.float32 or one.float32,
        )  # fmt: skip
    final = pl.concat(of_hparams).unique("tag", keep="last", maintain_order=True)
    _add_final(found, final, here, notes)
    return found


def _is_beside_curve(one: _Events, earlier: pl.DataFrame) -> pl.Series:
    """Return which values of a file are those of the hparams plugin, and not a curve's.

    Their tags are among the plugin's metrics. `add_hparams(run_name=".")` writes them to a file of their own, a value a
    tag; others go to the run's file, at step 0 after the curve.
    """
    of_plugin = pl.col("tag").is_in([*one.hparams_metrics])
    alone = len(one.tags) == len(one.values) and one.hparams_metrics.issuperset(one.tags)
    after = (pl.col("step") == 0) & (pl.col("step").cum_max().over("tag") > 0)
    rows = pl.concat([earlier, one.values])
    return rows.select(of_plugin & (after | alone)).to_series().tail(len(one.values))


def _continued(
    earlier: pl.DataFrame, later: pl.DataFrame, purged: int | None, here: Path, notes: Notes
) -> pl.DataFrame:
    """Return earlier values, of each tag before the step at which the later ones begin, and the later ones.

    From the step `purged` on, all earlier values are left out.
    """
    begins = later.group_by("tag").agg(pl.col("step").first().alias("begins"))
    end = pl.min_horizontal("begins", pl.lit(purged, pl.Int64))
    kept = (
        earlier.join(begins, on="tag", how="left", maintain_order="left")
        .filter((pl.col("step") < end).fill_null(True))
        .select(*_LONG)
    )
    if replaced := len(earlier) - len(kept):
        notes.add(f"it was started again: {replaced:,} values are replaced by a later file", here)
    return pl.concat([kept, later])


def _join_subfolders(runs: dict[Path, _Events], notes: Notes) -> None:
    """Put what `add_scalars` and `add_hparams` wrote in sub-folders into the runs above, in `runs`.

    Several sub-folders of `add_hparams` below one folder are a run each. A folder without a value above others is
    no run.
    """
    for here in sorted(runs, key=lambda path: -len(path.parts)):
        if here.parent not in runs:
            continue
        above, below = runs[here.parent], runs[here]
        if (name := _scalars_name(here, below)) is not None:
            renamed = below.values.with_columns(pl.lit(name).alias("tag"))
            above.values = pl.concat([above.values, renamed])
            above.float32 |= below.float32
            del runs[here]
        elif _is_of_hparams(below) and not any(
            other != here and other.parent == here.parent and _is_of_hparams(events)
            for other, events in runs.items()
        ):
            _join_hparams(above, below, here, notes)
            del runs[here]
    for here in [path for path, events in runs.items() if _is_bare(events)]:
        if any(here in other.parents for other in runs):
            notes.add("has event files without a value above those of runs, and is left out", here)
            del runs[here]


def _join_splits(runs: dict[Path, _Events]) -> None:
    """Make one run of folders such as `train` and `validation` that are side by side, with tags as `validation/acc`."""
    splits = [path for path in runs if path.name.lower() in SPLITS]
    several = Counter(path.parent for path in splits)
    for here in splits:
        if several[here.parent] < 2:
            continue
        own, above = runs.pop(here), runs.setdefault(here.parent, _Events())
        tag = (pl.lit(f"{here.name}/") + pl.col("tag")).alias("tag")
        above.values = pl.concat([above.values, own.values.with_columns(tag)])
        above.settings, above.text = own.settings | above.settings, own.text | above.text
        above.status, above.error = above.status or own.status, above.error or own.error
        above.float32 |= own.float32


def _is_bare(events: _Events) -> bool:
    return events.values.is_empty() and not events.settings and not events.text and not events.error


def _scalars_name(here: Path, events: _Events) -> str | None:
    """Return `TAG/NAME` for a folder that `add_scalars` named `TAG_NAME`, with values of TAG only."""
    tags = events.tags
    if len(tags) != 1 or events.settings or events.text:
        return None
    prefix = tags[0].replace("/", "_") + "_"
    return f"{tags[0]}/{here.name.removeprefix(prefix)}" if here.name.startswith(prefix) else None


def _is_of_hparams(events: _Events) -> bool:
    return events.has_hparams and len(events.tags) == len(events.values)


def _join_hparams(above: _Events, below: _Events, here: Path, notes: Notes) -> None:
    _add_final(above, below.values, here, notes)
    above.settings |= below.settings
    above.status = below.status or above.status
    above.float32 |= below.float32


def _add_final(events: _Events, final: pl.DataFrame, here: Path, notes: Notes) -> None:
    """Add values of the hparams plugin, which have no step of their own: the run's last is theirs."""
    added = final.join(events.values, on="tag", how="anti", maintain_order="left")
    if len(added) < len(final):
        notes.add("values of add_hparams that the run has in its curves are left out", here)
    if len(events.values):
        added = added.with_columns(step=pl.lit(events.values["step"].max(), pl.Int64))
    events.values = pl.concat([events.values, added])


def _file(path: Path, notes: Notes) -> _Events:
    """Return what one file says. Raises `UnreadableError` for a file without a readable event, unless it is empty."""
    found = _Events()
    reading = _Reading(found)
    number = 0
    for number, event in enumerate(_records(path, notes), 1):
        if number == 1:
            found.began = event.wall_time
        if event.session_log.status == _START and found.purged is None:
            found.purged = event.step
        for value in event.summary.value:
            reading.take(event.step, value)
    if not number and path.stat().st_size:
        raise UnreadableError(f"{path}: is no event file, or damaged from its start")
    found.values = reading.values()
    if reading.left_out:
        notes.add("tags whose values are no single numbers are left out", path)
    return found


def _records(path: Path, notes: Notes) -> Iterator[Any]:
    """Yield the events of a file up to where it is damaged, by TensorBoard's reader of records."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub import errors
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    if (size := path.stat().st_size) > files.MOST_BYTES:
        raise UnreadableError(
            f"{path}: has {size:,} bytes, and at most {files.MOST_BYTES:,} are read"
        )
    reader = PyRecordReader_New(str(path))
    while True:
        try:
            reader.GetNext()
            event = Event.FromString(reader.record())
        except errors.OutOfRangeError:
            return
        except (errors.DataLossError, DecodeError, MemoryError, OverflowError):
            notes.add("is cut or damaged: what is before that is read", path)
            return
        yield event


class _Reading:
    """The values of a file's summaries, taken one by one."""

    def __init__(self, found: _Events) -> None:
        self._found = found
        self._plugins: dict[str, str] = {}  # of each tag; only its first value names it
        self._names: dict[str, int] = {}
        self._tags, self._steps, self._values = array("q"), array("q"), array("d")
        self.left_out = False

    def values(self) -> pl.DataFrame:
        names = pl.Series(list(self._names), dtype=pl.String)
        return pl.DataFrame(
            {
                "tag": names.gather(pl.Series(self._tags, dtype=pl.Int64)),
                "step": pl.Series(self._steps, dtype=pl.Int64),
                "value": pl.Series(self._values, dtype=pl.Float64),
            },
            schema=_LONG,
        )

    def take(self, step: int, value: Any) -> None:
        if name := value.metadata.plugin_data.plugin_name:
            self._plugins[value.tag] = name
        plugin, kind = self._plugins.get(value.tag), value.WhichOneof("value")
        if kind == "simple_value":
            self._found.float32 = True
            self._add(value.tag, step, value.simple_value)
        elif plugin == "hparams":
            self._take_hparams(value.metadata.plugin_data.content)
        elif plugin == "scalars" and kind == "tensor":
            number = _number(value.tensor)
            self._found.float32 |= value.tensor.dtype == _FLOAT
            self.left_out |= number is None
            if number is not None:
                self._add(value.tag, step, number)
        elif kind == "tensor" and value.tag in _OWN_TEXT and len(value.tensor.string_val) == 1:
            name = value.tag.removesuffix("/text_summary")
            self._found.text[name] = value.tensor.string_val[0].decode(errors="replace")

    def _add(self, tag: str, step: int, value: float) -> None:
        self._tags.append(self._names.setdefault(tag, len(self._names)))
        self._steps.append(step)
        self._values.append(value)

    def _take_hparams(self, content: bytes) -> None:
        from google.protobuf.message import DecodeError
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        try:
            data = HParamsPluginData.FromString(content)
        except DecodeError:
            self.left_out = True
            return
        self._found.hparams_metrics |= {one.name.tag for one in data.experiment.metric_infos}
        if data.HasField("session_start_info"):
            self._found.has_hparams = True
            self._found.settings |= {
                clean(key): _setting(value)
                for key, value in sorted(data.session_start_info.hparams.items())
            }
        if data.HasField("session_end_info"):
            self._found.status = _status(data.session_end_info)


def _setting(value: Any) -> Any:
    """Return a setting; the plugin has numbers as floats only, of which whole ones are integers here."""
    kind = value.WhichOneof("kind")
    if kind in (None, "null_value"):
        return None
    number: Any = getattr(value, kind)
    if isinstance(number, float) and number.is_integer() and abs(number) < 2**53:
        return int(number)
    return number if isinstance(number, float | str | bool) else clean(number)


def _status(end: Any) -> str | None:
    """Return how a session ended. PyTorch writes a success, without its time, when a run begins: it says nothing."""
    if end.status == _SUCCESS:
        return COMPLETE if end.end_time_secs else None
    return {_FAILURE: "failed", _RUNNING: "running"}.get(end.status)


def _number(tensor: Any) -> float | None:
    from tensorboard.util.tensor_util import make_ndarray

    if tensor.dtype not in _NUMBERS or any(dim.size != 1 for dim in tensor.tensor_shape.dim):
        return None
    try:
        return float(make_ndarray(tensor).item())
    except (ValueError, TypeError):
        return None
