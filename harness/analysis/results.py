"""Run folders → tables. Reads files only; refuses files that are not of this version."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.analysis import arms as arms_of
from harness.analysis import averages, measured, packed
from harness.analysis.sweep_plan import run_folder
from harness.config.errors import ConfigError
from harness.config.fields import show
from harness.config.measures import Measure
from harness.config.schema import ClaimSettings
from harness.config.values import completed, flat, section_from_dict
from harness.files import UnreadableError, read_json
from harness.files import read as read_bytes

_HISTORY = {
    "step": pl.Int64, "epoch": pl.Float64, "lr": pl.Float64,
    "train/loss": pl.Float64, "val/acc": pl.Float64, "val/loss": pl.Float64,
}  # fmt: skip
_FROM_RESULT = (
    "fingerprint", "run_id", "updates_trained", "updates_reused", "exact", "tracking", "commit",
    "dirty", "weights_sha256",
)  # fmt: skip
_TAIL_BYTES = 4096  # of a history that `last_row` reads first


def read(sweep: Path | str) -> pl.DataFrame:
    """Return one row a run of the plan of the sweep in a folder; a run that left no result has the status `missing`.

    Of a claim about averages (`claim.factor=average`): one row for each average of each run.

    Columns: num, folder, name, arm, seed; level (of the claim's factor) and cell (what else is
    swept); status, error; `final`, `best` (val/acc in percent), `test` (test/acc in percent);
    budget and nearest_aligned (epochs), aligned; restarts (of the LR), lr_share_at_end;
    fingerprint, run_id, updates_per_epoch, updates_trained, updates_reused, exact, seconds;
    commit, dirty (of the program that trained); weights_sha256 (at the end); begun_again (starts of the run but the first);
    average (of the weights, `last` for those after the last update);
    tracking (W&B page or folder), claim_sha256 (of the claim when the run began); lr (the peak),
    val_images and test_images (of the two sets), tuned (the value of the claim's `tuned_over`), refused
    (the network cannot be built); numerics, config, swept and overrides (JSON); metrics (JSON: by name of all
    metrics, acc too, `better`, `unit`, and `final`, `best` and `test`, null where not known).

    A run that a claim with looks does not need is `not needed` or `waiting` in place of `missing`.
    Name, arm, seed, level and cell are those that the run recorded, of the plan while it left no
    result. Raises `ConfigError` without a plan; `UnreadableError` for files that are not of this version.
    """
    sweep = Path(sweep)
    plan, path = read_plan(sweep), sweep / "plan.json"
    runs = rows_of(plan, folders(sweep), path)
    if not (plan["claim"] or {}).get("looks"):
        return runs
    from harness.analysis import needed
    from harness.analysis.verdict import Claim

    with this_version(path):
        claim = Claim.from_dict(plan["claim"])
    return needed.mark(runs, claim)


def rows_of(plan: dict[str, Any], run_folders: Sequence[Path], path: Path) -> pl.DataFrame:
    """Do as `read` with a plan whose runs are in `run_folders`; `path` is named in errors."""
    rows = [
        row
        for folder, run in zip(run_folders, plan["arms"], strict=True)
        for row in _rows(folder, run, plan, recorded="gathered" not in plan)
    ]
    with this_version(path):
        return pl.DataFrame(rows, infer_schema_length=None)


def read_plan(sweep: Path) -> dict[str, Any]:
    """Return the sweep's `plan.json`. Raises `ConfigError` if there is none."""
    path = sweep / "plan.json"
    if not path.exists():
        raise ConfigError(f"{sweep}: is not the folder of a sweep: it has no plan.json")
    return read_json(path)


def refuse_planned(folder: Path) -> None:
    """Raise `ConfigError` for the folder of a sweep or of one of its runs, which a single run would overwrite."""
    here = folder.absolute()
    for sweep in (here, *here.parents):
        planned = [sweep]
        with suppress(ConfigError, UnreadableError):  # without a plan, or with another program's
            planned = [sweep, *folders(sweep)]
        if (sweep / "plan.json").exists() and here in planned:
            raise ConfigError(
                f"hydra.run.dir={folder}: belongs to the sweep in {sweep}; -m hydra.sweep.dir={sweep} goes on "
                "with that, a single run needs another folder"
            )


def folders(sweep: Path) -> list[Path]:
    """Return the folder of each planned run, in the order of the plan; some may not exist yet."""
    plan = read_plan(sweep)
    with this_version(sweep / "plan.json"):
        return [sweep / run_folder(run) for run in plan["arms"]]


def gathered(paths: Sequence[Path]) -> tuple[dict[str, Any], list[Path]]:
    """Plan runs that had no plan, as those of W&B agents; return the plan and their folders.

    `paths` are run folders, or folders with run folders in them. Names, arms and levels are what differs
    between the configurations that the runs recorded. Raises `ConfigError` where there is no run.
    """
    run_folders = _run_folders(paths)
    configs, seeded = [], set[str]()
    for folder in run_folders:
        with this_version(folder / "config.json"):
            configs.append(completed(read_json(folder / "config.json")["config"]))
            given = arms_of.override_values(result(folder).get("overrides", []))
            seeded |= {key for key, text in given.items() if "${seed}" in text}
    runs = []
    for number, (folder, config) in enumerate(zip(run_folders, configs, strict=True)):
        shape = {"budget_epochs": config["trainer"]["epochs"]} | result(folder).get("plan", {})
        runs.append({"num": number, "seed": config["seed"], "plan": shape})
    for run, swept in zip(runs, arms_of.config_differences(configs, seeded), strict=True):
        run |= arms_of.label_run(swept)
    with this_version(run_folders[0] / "config.json"):
        settings: Any = section_from_dict("claim", configs[0]["claim"])
        known = [measured.measures_of(result(folder)) for folder in run_folders]
    question = _question(settings, runs, known, configs)
    claim = question.claim and replace(question.claim, seeds=())  # nobody planned any
    return {
        "gathered": True,
        **replace(question, claim=claim).for_plan(),
        "arms": runs,
        "command": ["scripts/report.py", *map(str, paths)],
    }, run_folders


def _question(
    settings: ClaimSettings,
    runs: list[dict[str, Any]],
    known: Sequence[dict[str, Measure]],
    configs: Sequence[dict[str, Any]],
) -> arms_of.Question:
    """Return what runs without a plan are judged by, their metric as the first one that has it recorded it."""
    name = settings.metric.partition("/")[2]
    measure = next((one[name] for one in known if name in one), None)
    if measure is None:
        return arms_of.Question(None, f"claim.metric={settings.metric}: no run has recorded it")
    levels = [*map(averages.levels, configs)]
    return arms_of.infer_question_afterwards(settings, runs, measure, levels)


def _run_folders(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in dict.fromkeys(paths):
        own = [path] if (path / "config.json").exists() else []
        if not own and (sweeps := sorted(file.parent for file in path.glob("*/plan.json"))):
            several = "" if len(sweeps) == 1 else f", or several, {sweeps[0]} {sweeps[1]} --out DIR"
            raise ConfigError(f"{path}: holds sweeps; name one, {sweeps[-1]}{several}")
        own = own or [file.parent for file in sorted(path.glob("*/config.json"))]
        if not own:
            raise ConfigError(
                f"{path}: has neither the plan.json of a sweep nor the config.json of a run"
            )
        found += [folder for folder in own if folder not in found]
    return found


def result(folder: Path) -> dict[str, Any]:
    """Return a run's `result.json`; empty while there is none."""
    path = folder / "result.json"
    return read_json(path) if path.exists() else {}


@contextmanager
def this_version(path: Path) -> Iterator[None]:
    """Raise `UnreadableError` where the content of the file at `path` is not what the block expects."""
    try:
        yield
    except (
        LookupError, TypeError, AttributeError, ValueError, EOFError, MemoryError,
        pl.exceptions.PolarsError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200]
        raise UnreadableError(
            f"{path}: is not of this version ({type(error).__name__}: {reason})"
        ) from error


def _rows(
    folder: Path, planned: dict[str, Any], plan: dict[str, Any], recorded: bool
) -> list[dict[str, Any]]:
    """Return a run's row, in a claim about averages or of a run alone one for each; `recorded` as for `_row`."""
    own = result(folder)
    about = (plan["claim"] or {}).get("factor") == averages.FACTOR
    alone = "gathered" in plan and len(plan["arms"]) == 1
    with this_version(folder / "result.json" if own else folder.parent / "plan.json"):
        config = own.get("config") or _planned_config(plan, planned) or {}
        levels = averages.levels(config) if about or alone else [averages.LAST]
        if levels == [averages.LAST] and not about:
            return [_row(folder, planned, plan, recorded, own) | {"average": averages.LAST}]
        rows = []
        for level in levels:
            labels = [
                arms_of.label_run(one.get("swept", planned["swept"]) | {averages.FACTOR: level})
                for one in (planned, own)
            ]
            best = _best(folder, level, measured.measures_of(own)) if own else {}
            found = averages.as_run(own, level, best) | (labels[1] if own else {})
            row = _row(folder, planned | labels[0], plan, recorded, found)
            rows.append(row | {"average": level})
        return rows


def _best(folder: Path, average: str, measures: Mapping[str, Measure]) -> dict[str, Any]:
    """Return the best validation value of each metric of an average, by the metric's name."""
    table = history(folder, average, measured.own_names(measures))
    columns = {name: table[f"val/{name}"].drop_nans() for name in measures}
    return {
        name: columns[name].max() if measure.better == "higher" else columns[name].min()
        for name, measure in measures.items()
    }


def _row(
    folder: Path,
    planned: dict[str, Any],
    plan: dict[str, Any],
    recorded: bool,
    own: dict[str, Any],
) -> dict[str, Any]:
    """Return the row of a run whose result is `own`; `recorded`: with the names in that, else those of the plan."""
    with this_version(folder / "result.json" if own else folder.parent / "plan.json"):
        named = own if own and recorded else planned
        swept = named.get("swept", planned["swept"])
        shape = planned["plan"]
        config = own.get("config") or _planned_config(plan, planned)
        config = config and completed(config)
        factor, tuned_over = ((plan["claim"] or {}).get(k) for k in ("factor", "tuned_over"))
        images = own.get("images") or {}
        return {
            "num": planned["num"],
            "folder": str(folder),
            "name": named["name"],
            "arm": named["arm"],
            "seed": own["config"]["seed"] if own else planned["seed"],
            "level": swept.get(factor),
            "cell": arms_of.cell(swept, factor, tuned_over),
            "status": own.get("status", "missing"),
            "error": own.get("error") or (None if own else "left no result"),
            "final": own.get("final", {}).get("val/acc"),
            "best": own.get("best", {}).get("val/acc"),
            "test": own.get("test", {}).get("test/acc"),
            **_of_schedule(shape, own.get("plan", {})),
            "seconds": own.get("seconds", {}).get("total"),
            **{name: own.get(name) for name in _FROM_RESULT},
            "begun_again": own.get("restarts"),
            "claim_sha256": own.get("claim_sha256") if recorded else None,
            "lr": (config or {}).get("optimizer", {}).get("lr"),
            "val_images": images.get("val"),
            "test_images": images.get("test"),
            "tuned": _tuned(tuned_over, swept, config),
            "refused": bool(own.get("refused")),
            "numerics": json.dumps(own.get("numerics") or {}, sort_keys=True),
            "config": json.dumps(config, sort_keys=True),
            "swept": json.dumps(swept),
            "overrides": json.dumps(own.get("overrides") or planned.get("overrides") or []),
            "metrics": json.dumps(measured.of_result(own)),
        }


def _of_schedule(shape: dict[str, Any], schedule: dict[str, Any]) -> dict[str, Any]:
    """Return the columns about a schedule, of its shape in the plan and of what the run recorded."""
    return {
        "budget": shape["budget_epochs"],
        "updates_per_epoch": shape.get("updates_per_epoch"),
        "aligned": shape.get("aligned"),
        "nearest_aligned": shape.get("nearest_aligned_epochs"),
        "restarts": len(schedule["restart_epochs"]) if schedule else None,
        "lr_share_at_end": schedule.get("lr_share_at_end"),
    }


def _planned_config(plan: dict[str, Any], planned: dict[str, Any]) -> dict[str, Any] | None:
    return plan["config"] | planned["differs"] if "differs" in planned else None


def _tuned(key: str | None, swept: dict[str, str], config: dict[str, Any] | None) -> str | None:
    """Return a run's value of the key that a claim is tuned over: of its configuration, or of a group's choice."""
    if key is None:
        return None
    settings = flat(config) if config else {}
    return show(settings[key]) if key in settings else swept.get(key)


def history(
    folder: Path | str, average: str = averages.LAST, metrics: Sequence[str] = ()
) -> pl.DataFrame:
    """Return the rows of a run's `history.jsonl`, null where a row lacks a metric; none without the file.

    Validation metrics are those of the last weights, or of an `average`; `metrics` are names of others than acc
    and loss, of which the column val/NAME is wanted. A last line that is being written is left out, and so are keys
    that are no metric of ours.
    """
    path = Path(folder, "history.jsonl")
    schema = _HISTORY | {f"val/{name}": pl.Float64 for name in metrics}
    if packed.is_packed(Path(folder)):
        return packed.history(Path(folder), schema)
    content = read_bytes(path) if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        return pl.DataFrame(schema=schema)
    names = {
        name: averages.metric(name, average) if name.startswith("val/") else name for name in schema
    }
    schema = {names[name]: dtype for name, dtype in schema.items()}
    with this_version(path):
        table = pl.read_ndjson(BytesIO(whole), schema=schema)
        return table.rename({own: name for name, own in names.items()})


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return the whole rows of a run's history as they were written, with the metrics of its averages."""
    path = folder / "history.jsonl"
    content = read_bytes(path)
    with this_version(path):
        return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


def last_row(folder: Path, metric: str = "step") -> dict[str, Any]:
    """Return the last whole row of a run's history that has `metric`, as it was written; empty without one.

    Only the end of the file is read: sweeps have thousands of runs. Raises OSError if there is no history, or the row is none.
    """
    path = folder / "history.jsonl"
    size, tail = path.stat().st_size, _TAIL_BYTES
    while True:
        with path.open("rb") as file:
            file.seek(max(0, size - tail))
            lines = file.read().splitlines(keepends=True)
        for line in reversed(lines):
            if line.startswith(b"{") and line.endswith(b"\n") and f'"{metric}"'.encode() in line:
                with this_version(path):
                    row: dict[str, Any] = json.loads(line)
                return row
        if tail >= size:
            return {}
        tail *= 16


def lr(folder: Path | str) -> NDArray[np.float64]:
    """Return the LR of every update of the run's plan."""
    path = Path(folder, "lr.npy")
    with this_version(path):
        lrs = np.load(BytesIO(read_bytes(path)), allow_pickle=False)
        if lrs.dtype != np.float64 or lrs.ndim != 1:
            raise TypeError(f"{lrs.dtype}, {lrs.ndim} dimensions")
    return np.asarray(lrs)


def arms(runs: pl.DataFrame) -> pl.DataFrame:
    """Return one row an arm, in the order of the sweep: means and standard deviations over its seeds.

    Accuracies, or what `of_metric` put in their place, are over the runs that are complete; `seeds` counts those, `of`
    counts all; `seconds` is a sum; `lr_share_at_end` is the median, with `lr_share_low` and `lr_share_high`.
    """
    done = pl.col("status") == "complete"
    accuracies = ["final", "best", "test"]
    return runs.group_by("arm", maintain_order=True).agg(
        done.sum().alias("seeds"),
        pl.len().alias("of"),
        *(pl.col(name).filter(done).mean().alias(name) for name in accuracies),
        *(pl.col(name).filter(done).std().alias(f"{name}_sd") for name in accuracies),
        pl.col("restarts").max(),
        pl.col("lr_share_at_end").median(),
        pl.col("lr_share_at_end").min().alias("lr_share_low"),
        pl.col("lr_share_at_end").max().alias("lr_share_high"),
        pl.when(pl.col("seconds").is_not_null().any()).then(pl.col("seconds").sum()),
    )
