"""A W&B workspace of a sweep: `python scripts/wandb_workspace.py SWEEP…`

Shows its curves as mean ± standard deviation over seeds, and its final accuracies. Saves it on W&B, which
needs a key, and prints its address. A second time it updates the same workspace, whose address is in
`wandb_workspace.json` in the sweep's folder; changes by hand in its panels are lost then.

With --json nothing is sent, and no key is needed. Needs `pip install -e '.[dashboards]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.config.errors import ConfigError
from harness.config.one_line_errors import one_line_errors
from harness.files import read_json, write_json
from harness.runs.run_dir import short

_OVER_SEEDS = "mean ± standard deviation over seeds"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="SWEEP")
    parser.add_argument("--entity", help="whose project; default: that of the runs, or your own")
    parser.add_argument("--project", help="default: that of the runs")
    parser.add_argument("--name", help="of the workspace; default: the sweep's folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write it there, send nothing")
    with one_line_errors():
        arguments = parser.parse_args()
        if arguments.name and len(arguments.sweeps) > 1:
            raise ConfigError("--name: of several sweeps each is named after its folder")
        sweeps = [Sweep.read(folder, arguments.name) for folder in arguments.sweeps]
        if arguments.json:
            write_json(arguments.json, [document(sweep) for sweep in sweeps])
            print(arguments.json)
            return
        for sweep in sweeps:
            print(save(sweep, arguments.entity, arguments.project))


@dataclass(frozen=True)
class Sweep:
    """What a workspace shows of a sweep, from its files."""

    folder: Path
    group: str  # of its runs on W&B
    name: str
    plan: dict[str, Any]
    configs: list[dict[str, Any]]  # of the runs that left a result

    @classmethod
    def read(cls, folder: Path, name: str | None = None) -> Sweep:
        """Raise `ConfigError` if `folder` is no sweep, or has no run."""
        from harness.analysis import results  # polars, which --help does without

        plan = results.read_plan(folder)
        recorded = [found for run in results.folders(folder) if (found := results.result(run))]
        if not recorded:
            raise ConfigError(f"{folder}: has no run with a result")
        group, configs = short(recorded[0]["group"]), [result["config"] for result in recorded]
        return cls(folder, group, name or folder.resolve().name, plan, configs)

    @property
    def keys(self) -> list[str]:
        """Return the swept keys without the seed, if all of them are single values of the configuration.

        Otherwise none (as where `scheduler` is swept, or `arm`): then the job type names the arm.
        """
        swept = [key for key in self.plan["arms"][0]["swept"] if key != "seed"]
        single = all(not isinstance(v, dict | list) for key in swept for v in self.values(key))
        return swept if single else []

    @property
    def factor(self) -> str | None:
        """Return the swept key that accuracy is drawn against, a number: the claim's if it is one."""
        numbers = [key for key in self.keys if {int, float} >= {*map(type, self.values(key))}]
        claimed = (self.plan["claim"] or {}).get("factor")
        return claimed if claimed in numbers else next(iter(numbers), None)

    def values(self, key: str) -> list[Any]:
        """Return the values of a dotted key in the runs' configurations; {} where there is no such key."""

        def below(part: Any, name: str) -> Any:
            return part.get(name, {}) if isinstance(part, dict) else {}

        return [reduce(below, key.split("."), config) for config in self.configs]

    @property
    def metric(self) -> str:
        """Return the summary metric of the verdict: the last value, not the best one."""
        metric = (self.plan["claim"] or {}).get("metric", "val/acc")
        return "val/acc.last" if metric == "val/acc" else metric

    def averaged(self, metric: str) -> list[str]:
        """Return `metric` of the last weights and, of a claim about averages, of each average."""
        from harness.analysis import averages

        about = (self.plan["claim"] or {}).get("factor") == averages.FACTOR
        names = averages.levels(self.configs[0])[1:] if about else []
        return [metric, *(f"{metric.removesuffix('.last')}@{name}" for name in names)]

    @property
    def runs(self) -> str:
        """Return the filter for its runs, without the sweep's own run, which has the verdict.

        The library rewrites `=`, `<` and `>` wherever they are, so the name is written without them.
        """
        group = "".join(f"\\U{ord(char):08x}" for char in self.group)
        return f'Metric("Group") == "{group}" and Metric("JobType") != "summary"'


def sections(wr: Any, sweep: Sweep) -> dict[str, list[Any]]:
    """Return the panels of each section."""
    arms = wr.Config(sweep.keys[0]) if len(sweep.keys) == 1 else wr.Metric("JobType")
    over_seeds = {
        "groupby": arms,
        "groupby_aggfunc": "mean",
        "groupby_rangefunc": "stddev",
        "max_runs_to_show": len(sweep.plan["arms"]),
    }
    claimed = sweep.metric.removesuffix(".last").replace("test/", "val/", 1)
    bars = wr.BarPlot(
        title=f"{sweep.metric}, {_OVER_SEEDS}",
        metrics=sweep.averaged(sweep.metric),
        layout=_place(wr, 0, 12),
        **over_seeds,
    )
    dots = wr.ScatterPlot(
        title=f"{sweep.metric} against {sweep.factor}",
        x=wr.Config(sweep.factor or ""),
        y=wr.SummaryMetric(sweep.metric),
        layout=_place(wr, 12, 12),
    )
    axes = [wr.Config(key) for key in sweep.keys] or [wr.Metric("JobType")]
    columns = [*axes, wr.SummaryMetric(sweep.metric)]
    parallel = wr.ParallelCoordinatesPlot(
        title=f"swept keys and {sweep.metric}",
        columns=[wr.ParallelCoordinatesPlotColumn(column) for column in columns],
        layout=_place(wr, 0, 24),
    )
    final = "Final accuracy" if claimed == "val/acc" else f"Final {sweep.metric}"
    return {
        "Curves": _curves(wr, sweep, claimed, over_seeds),
        final: [bars, dots] if sweep.factor else [bars],
        "Swept keys": [parallel],
    }


def _curves(wr: Any, sweep: Sweep, claimed: str, over_seeds: dict[str, Any]) -> list[Any]:
    """Return the LR's curves, those of the validation accuracy, and those of another metric that is claimed."""
    titles = {"val/acc": f"validation accuracy, %, {_OVER_SEEDS}"}
    titles.setdefault(claimed, f"{claimed}, {_OVER_SEEDS}")
    lines = [(["lr"], "learning rate")]
    lines += [(sweep.averaged(name), title) for name, title in titles.items()]
    return [
        wr.LinePlot(
            title=title,
            x="epoch",
            y=metrics,
            title_x="epoch",
            layout=_place(wr, 12 * at, 12),
            **over_seeds,
        )
        for at, (metrics, title) in enumerate(lines)
    ]


def _place(wr: Any, x: int, w: int) -> Any:
    return wr.Layout(x=x, y=0, w=w, h=8)


def workspace(ws: Any, wr: Any, sweep: Sweep, entity: str, project: str) -> Any:
    """Return the workspace of the sweep, not yet saved."""
    return ws.Workspace(
        entity=entity,
        project=project,
        name=_plain(sweep.name),
        sections=[
            ws.Section(
                name=name,
                panels=panels,
                is_open=True,
                layout_settings=ws.SectionLayoutSettings(columns=len(panels), rows=1),
            )
            for name, panels in sections(wr, sweep).items()
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=len(sweep.plan["arms"])),
        runset_settings=ws.RunsetSettings(
            filters=sweep.runs,
            groupby=[ws.Config(key) for key in sweep.keys] or [ws.Metric("JobType")],
        ),
    )


def _plain(name: str) -> str:
    """Return `name` without symbols, for which the library refuses the name of a workspace: = is one."""
    kinds = ("So", "Sk", "Sm", "Sc", "Cs")
    return "".join("-" if unicodedata.category(char) in kinds else char for char in name)


def document(sweep: Sweep) -> dict[str, Any]:
    """Return the workspace as the server would get it, without it."""
    made = workspace(*_libraries(), sweep, "", "")
    # The library has no public way to a specification.
    spec = made._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)
    return {
        "sweep": str(sweep.folder),
        "workspace": {"name": made.name, "spec": json.loads(spec)},
    }


def save(sweep: Sweep, entity: str | None, project: str | None) -> str:
    """Make or update the workspace on the server; return its address."""
    os.environ.setdefault("WANDB_SHOW_INFO", "false")  # wandb would print the address too
    ws, wr = _libraries()
    tracked = sweep.configs[0]["tracking"]
    project = project or tracked.get("project")
    if project is None:
        raise ConfigError(f"{sweep.folder}: its runs were not tracked; --project says where to")
    with _wandb_errors():
        api = import_module("wandb").Api()
        entity = entity or tracked.get("entity") or api.default_entity
    if entity is None:
        raise ConfigError("--entity: is needed, since your W&B key has no default one")
    path = sweep.folder / "wandb_workspace.json"
    remembered = read_json(path) if path.exists() else {}
    place = f"{api.settings['base_url']}/{entity}/{project}, group {sweep.group}"
    known = remembered.setdefault(place, {})
    with _wandb_errors():
        made = workspace(ws, wr, sweep, entity, project)
        if (earlier := _load(ws, known.get("workspace"))) is not None:
            for field in ("name", "sections", "settings", "runset_settings"):
                setattr(earlier, field, getattr(made, field))
            made = earlier
        known["workspace"] = url = str(made.save().url)
    write_json(path, remembered)
    return url


def _load(ws: Any, url: str | None) -> Any | None:
    """Return the workspace at `url`; None if it is gone, for which the library raises these errors."""
    with suppress(ValueError, TypeError):
        return ws.Workspace.from_url(url) if url else None
    return None


@contextmanager
def _wandb_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # wandb raises a dozen kinds, bare `Exception` among them
        raise ConfigError(f"W&B: {error}") from error


def _libraries() -> tuple[Any, Any]:
    try:
        names = ("wandb_workspaces.workspaces", "wandb_workspaces.reports.v2")
        ws, wr = map(import_module, names)
    except ModuleNotFoundError:
        missing = "wandb-workspaces is not installed: pip install -e '.[dashboards]'"
        raise ConfigError(missing) from None
    return ws, wr


if __name__ == "__main__":
    main()
