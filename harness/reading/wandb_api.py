"""Runs of a project on a W&B server: `wandb:ENTITY/PROJECT`."""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from harness.config.errors import ConfigError
from harness.reading.recorded import (
    COMPLETE,
    MOST_ROWS,
    MOST_RUNS,
    Recorded,
    RunRecord,
    clean,
    collect,
    listed,
    refuse_more,
)
from harness.reading.wandb_values import Rows, ended, left_out_note, settings

if TYPE_CHECKING:
    import wandb

KIND = "W&B project"
_FIELDS = {"group": "group", "job_type": "jobType", "state": "state", "tags": "tags", "sweep": "sweep"}  # fmt: skip
_RUNS_A_PAGE = 50
_ROWS_A_PAGE = 1_000
_LONGEST_SECONDS = 120  # of a request with all its retries; WANDB_HTTP_TIMEOUT overrides it
_PATIENCE_SECONDS = 2


def read(address: str, where: Mapping[str, str]) -> Recorded:
    """Return the runs of `wandb:ENTITY/PROJECT`, or of `wandb:PROJECT` of the default entity.

    `where` holds what the server filters by: group, job_type, state, tags, sweep, config.KEY. All rows of the histories
    are read, none sampled. Raises `ConfigError` where there is no key, no such project or run, or no answer.
    """
    filters = _filters(where)
    entity, _, project = address.removeprefix("wandb:").rpartition("/")
    if not project or "/" in entity:
        raise ConfigError(f"{address}: must be wandb:ENTITY/PROJECT")
    with _own_folder():
        try:
            api = _connect(address)
            runs = api.runs(f"{entity or api.default_entity}/{project}", filters, per_page=_RUNS_A_PAGE, lazy=False)  # fmt: skip
            found = list(_read_runs(address, where, runs))
        except ConfigError:
            raise
        except Exception as error:  # wandb raises anything
            raise _explained(address, error) from error
    short = [one.name for one, _, lacking in found if lacking]
    notes = left_out_note(rows for _, rows, _ in found)
    if short:
        notes.append(f"the server gave fewer rows than it counts: {listed(short, 5)}")
    return collect(KIND, [record for record, _, _ in found], notes)


def is_filter(key: str) -> bool:
    """Return whether the server filters runs by `key`."""
    return key in _FIELDS or (key.startswith("config.") and key != "config.")


def _filters(where: Mapping[str, str]) -> dict[str, Any]:
    """Return filters in MongoDB's language; a config value is compared as text, and as JSON where it is a scalar."""
    found: dict[str, Any] = {}
    for key, text in where.items():
        if key in _FIELDS:
            found[_FIELDS[key]] = text
        elif is_filter(key):
            try:
                value = json.loads(text)
            except ValueError:
                value = text
            scalar = isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))  # fmt: skip
            found[key] = {"$in": [value, text]} if scalar else text
        else:
            raise ConfigError(f"{key}: W&B filters by {', '.join(_FIELDS)} and config.KEY")
    return found


@contextmanager
def _own_folder() -> Iterator[None]:
    """Give wandb a temporary folder: it makes one for each run that it reads, and keeps copies of histories.

    Its service logs there, and ends with it: a later program of this environment would use it else.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # wandb's reports about itself

    names = ("WANDB_DIR", "WANDB_CACHE_DIR")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ.update(dict.fromkeys(names, folder))
        try:
            yield
        finally:
            _end_service()
            for name, value in before.items():
                os.environ.pop(name)
                os.environ.update({name: value} if value is not None else {})


def _connect(address: str) -> wandb.Api:
    """Return the API of the server. Never asks for a key."""
    import wandb
    from wandb.sdk.lib import wbauth

    host = wandb.setup(wandb.Settings(silent=True)).settings.base_url
    if not wbauth.authenticate_session(host=host, source="", prompt=False, update_session=False):
        raise ConfigError(f"{address}: there is no W&B key; run `wandb login`")
    longest = wandb.env.get_http_timeout(_LONGEST_SECONDS)
    api = wandb.Api(timeout=longest)
    service = api._service_api  # which waits for histories without end
    send = service.send_api_request
    service.send_api_request = lambda request, timeout=None: send(request, timeout or longest)  # type: ignore[method-assign]
    return api


def _end_service() -> None:
    """End wandb's service, by force where it has not ended `_PATIENCE_SECONDS` after wandb asked it to.

    It may go on for ever, with a request that has no answer and, once, with none; wandb waits for it.
    """
    import wandb

    with suppress(Exception):  # there is none: settings that wandb refuses, or another process's
        process = wandb.setup().assert_service()._proc._process  # type: ignore[union-attr]
        force = threading.Timer(_PATIENCE_SECONDS, process.kill)
        force.daemon = True
        force.start()
    with suppress(Exception, SystemExit):  # as the service does not answer, and for its exit status
        wandb.teardown()


def _read_runs(
    address: str, where: Mapping[str, str], runs: Any
) -> Iterator[tuple[RunRecord, Rows, bool]]:
    """Yield each run, its rows, and whether there are fewer than the server counts."""
    if not (number := len(runs)):
        asked = ", ".join(f"{key}={value}" for key, value in where.items())
        dots = "; W&B finds no key that has a dot in its own name" if "config." in asked else ""
        raise ConfigError(f"{address}: there is no run {f'with {asked}{dots}' if asked else 'in it'}")  # fmt: skip
    refuse_more("runs", number, MOST_RUNS)
    read = 0
    for run in tqdm(runs, total=number, unit="run", desc="W&B", disable=None, leave=False):
        rows, lacking = _history(run)
        refuse_more("rows", read := read + len(rows), MOST_ROWS)
        rows.add_summary(_summary(run))
        yield _record(run, rows), rows, lacking


def _summary(run: Any) -> dict[str, Any]:
    found: dict[str, Any] = run.summary_metrics or {}
    return found


def _history(run: Any) -> tuple[Rows, bool]:
    """Return all rows of a run. A page is a range of steps, chosen to hold a thousand rows where they are sparse."""
    lines = run.historyLineCount or 0
    last = (run.historyKeys or {}).get("lastStep", -1)
    steps = max(1, math.ceil((last + 1) / max(1, lines)))
    rows, number = Rows(), 0
    for row in run.scan_history(page_size=_ROWS_A_PAGE * steps, use_cache=False):
        number += 1
        rows.add(row["_step"], row)
    return rows, number < lines


def _record(run: Any, rows: Rows) -> RunRecord:
    labels = {"group": run.group, "job_type": run.jobType, "sweep": run.sweepName}
    status, error = _end(run)
    return RunRecord(
        name=run.name or run.id,
        settings=settings(run.config, labels, run.tags or ()),
        rows=rows.frame(),
        where=run.url,
        status=status,
        error=error,
    )


def _end(run: Any) -> tuple[str, str | None]:
    match run.state:
        case "finished":
            return COMPLETE, None
        case "failed":
            return ended(1, _summary(run))[0], "it ended with an exit code other than 0"
        case state:
            return state, f"W&B says {state}"


def _explained(address: str, error: Exception) -> ConfigError:
    """Return what wandb raised in one line, with what to do."""
    reason = clean(error)
    if "Could not find project" in reason:
        return ConfigError(f"{address}: there is no such project, or the key of `wandb login` may not see it")  # fmt: skip
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    return ConfigError(
        f"{address}: {server} refused, or did not answer in time ({reason.rstrip('.')}); check the network, the key "
        "(`wandb login`) and WANDB_BASE_URL, and run the command again"
    )
