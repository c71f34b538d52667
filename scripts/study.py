"""Plan, train and judge a study: python scripts/study.py study=NAME [KEY=VALUE …] [--plan]

A study is a file of conf/study/: a claim, the cells in which it is judged, further sweeps. KEY=VALUE sets a
key of the file, as claim.margin=0.5 or folder=PATH. The command says what the study costs, then trains each
sweep in each cell by train.py, judges the claim over the cells, and writes all into studies/NAME: verdict.json,
report.html, tables.md, runs.csv, pictures, a folder a sweep. Stopped, the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
from omegaconf import OmegaConf

from harness.analysis import results, tuning
from harness.choices.builtin import register
from harness.config.errors import ConfigError
from harness.config.fields import decimal
from harness.config.one_line_errors import Attempts, one_line_errors
from harness.config.study import CONF, Study, load, studies, write_choice
from harness.config.values import changes
from harness.files import atomic, read_json, write_json

_ABOUT_TABLES = (
    "Accuracies are means over seeds, in percent, ± half a 95 % t interval. Differences are paired by seed, "
    "after the last update: in points, or the unit of the claim's other metric, which then stands for accuracy."
)


def main() -> None:
    os.chdir(CONF.parent)
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="studies:\n" + "".join(f"  {name:12} {_question(path)}\n" for name, path in studies().items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "words", nargs="+", metavar="KEY=VALUE", help="study=NAME, and changes of its keys"
    )
    parser.add_argument("--plan", action="store_true", help="say what it costs, and train nothing")
    arguments = parser.parse_intermixed_args()
    with one_line_errors():
        register(arguments.words)
        study = load(arguments.words)
        from harness.sweeps.study_cost import study_cost

        _refuse_another_plan(study)
        print(study_cost(study), flush=True)
        if not arguments.plan:
            _train(study)
            _judge(study)


def _question(path: Path) -> str:
    keys: Any = OmegaConf.to_container(OmegaConf.load(path))
    return str(keys.get("question", ""))


# --- before anything is trained ----------------------------------------------------------------


def _refuse_another_plan(study: Study) -> None:
    """Raise `ConfigError` if the folder has a study that is not this one."""
    path = Path(study.folder, "study.json")
    before = read_json(path)["fixed"] if path.exists() else study.fixed()
    if differing := changes(before, study.fixed(), ()):
        more = f" and {len(differing) - 3} more" * (len(differing) > 3)
        raise ConfigError(
            f"{study.folder}: has another plan: {', '.join(differing[:3])}{more}; take back the change, "
            "or another folder (folder=PATH)"
        )


# --- training ------------------------------------------------------------------------------------


def _train(study: Study) -> None:
    """Train each sweep in each cell. Raises `ConfigError` where one does not come to its end."""
    path = Path(study.folder, "study.json")
    commands = {
        str(folder): shlex.join(["python", "train.py", *study.command(sweep, cell, folder)])
        for _, sweep, cell, folder in study.parts()
    }
    if not path.exists():
        write_json(path, {"question": study.question, "fixed": study.fixed(), "commands": commands})
    for name, sweep, cell, folder in study.parts():
        print(f"\n{cell}, {name}", flush=True)
        for arm, overrides in study.arms.items():
            write_choice(study.made_for(cell) / "arm" / f"{arm}.yaml", overrides)
        if sweep.tuned:
            _write_tuned(study, cell, sweep.tuned)
        if _wait_for(study.command(sweep, cell, folder)):
            raise ConfigError(f"{folder}: stopped before its end; the same command goes on")


def _write_tuned(study: Study, cell: str, sweep: str) -> None:
    """Write each arm with the values that it chose in `sweep`, as configurations that `+tuned=ARM` takes."""
    tuned = results.read_plan(Path(study.folder, cell, sweep))["tuning"]
    for one in tuned["arms"]:
        arm, value = one["arm"].removeprefix("arm="), tuning.from_text(one["value"])
        values = [value] if isinstance(value, str) else value
        chosen = [f"{k}={v}" for k, v in zip(tuned["keys"], values, strict=True)]
        own = study.arms.get(arm, [f"arm={arm}"])
        write_choice(study.made_for(cell) / "tuned" / f"{arm}.yaml", [*own, *chosen])


def _wait_for(arguments: list[str]) -> int:
    """Return the exit status of train.py; it gets the signals that should end it, and has its time to end."""
    process = subprocess.Popen([sys.executable, "train.py", *arguments])
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),  # a terminal sends it to both
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.terminate()),
    }
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- the results ---------------------------------------------------------------------------------


def _judge(study: Study) -> None:
    """Judge the claim over all cells; write the verdict, the page, every run, tables and pictures."""
    from harness.report import data_files, summary

    out, cells = Path(study.folder), list(study.seeds)
    path = os.environ.get("HARNESS_LEDGER", "ledger.jsonl")
    ledger = None if path in ("", "none") else Path(path).absolute()
    text, failures = summary.write_summary(
        [out / cell / "claim" for cell in cells], out, ledger, cells
    )
    verdict = read_json(out / "verdict.json")
    with atomic(out / "tables.md", "w") as file:
        file.write(_tables(study, verdict))
    steps = Attempts()
    written = data_files.write_data_files(out, _every_run(study), steps)
    print(text, out / "tables.md", *written, sep="\n")
    if failures := [*failures, *steps.failures]:
        raise SystemExit("\n".join(f"error: {failure}" for failure in failures))


def _every_run(study: Study) -> pl.DataFrame:
    from harness.report import tables

    found = []
    for name, _, cell, folder in study.parts():
        for stage in ("tuning", ""):
            if (folder / stage / "plan.json").exists():
                sweep = pl.lit(f"{name} {stage}".strip()).alias("sweep")
                runs = tables.trained(folder / stage)
                found.append(runs.with_columns(sweep, cell=pl.lit(cell)))
    return pl.concat(found, how="vertical_relaxed")


def _tables(study: Study, verdict: dict[str, Any]) -> str:
    """Return the joint verdict, and each sweep's tables; its own verdict where it is not part of the joint one."""
    from harness.report import tables

    parts = [f"# {study.question}\n\n{_ABOUT_TABLES}\n\n## All cells\n\n{verdict['sentence']}\n"]
    parts.append(tables.differences(verdict))
    for name, sweep, cell, folder in study.parts():
        wanted = [table for table in sweep.tables if (name, table) != ("claim", "differences")]
        if not wanted:
            continue
        own = read_json(folder / "verdict.json")
        parts.append(f"## {cell}: {name}, {decimal(sweep.budget)} epochs\n")
        parts += [f"{own['sentence']}\n"] * (name != "claim")
        if "snapshots" in wanted:
            command = [sys.executable, "scripts/snapshot_ensemble.py", str(folder)]
            subprocess.run(command, check=True)
        parts += [tables.BY_NAME[table](folder, own) for table in wanted]
    return "\n".join(filter(None, parts))


if __name__ == "__main__":
    main()
