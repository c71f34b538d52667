"""A W&B workspace and a report of sweeps: `python scripts/wandb_workspace.py SWEEP…`

Each sweep gets one of both: its curves as mean ± standard deviation over seeds, its final accuracies,
its verdict. Saves them on W&B, which needs a key, and prints where they are. A second time it updates
the same ones: `wandb_workspace.json` in the sweep's folder remembers them. What was changed by hand
in their panels and text is made anew then.

With --json nothing is sent, and no key is needed. Needs `pip install -e '.[dashboards]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import string
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.config.errors import ConfigError
from harness.config.one_line_errors import one_line_errors
from harness.files import read_json, write_json
from harness.runs.run_dir import short

_HEADER = ["comparison", "pairs", "difference, points", "interval", "p (Holm)", "verdict"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="SWEEP")
    parser.add_argument("--entity", help="whose project; default: that of the runs, or your own")
    parser.add_argument("--project", help="default: that of the runs")
    parser.add_argument("--name", help="of workspace and report; default: the sweep's folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write both there, send nothing")
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
            for url in save(sweep, arguments.entity, arguments.project):
                print(url)


@dataclass(frozen=True)
class Sweep:
    """What the files of a sweep tell."""

    folder: Path
    group: str  # of its runs on W&B
    name: str
    plan: dict[str, Any]
    configs: list[dict[str, Any]]  # of the runs that left a result
    verdict: dict[str, Any] | None

    @classmethod
    def read(cls, folder: Path, name: str | None = None) -> Sweep:
        """Raises `ConfigError` if `folder` is no sweep, or has no run."""
        plan, verdict = folder / "plan.json", folder / "verdict.json"
        if not plan.exists():
            raise ConfigError(f"{folder}: is not the folder of a sweep: it has no plan.json")
        results = [read_json(path) for path in sorted(folder.glob("*/result.json"))]
        if not results:
            raise ConfigError(f"{folder}: has no run with a result")
        judged = read_json(verdict) if verdict.exists() else None
        group, configs = short(results[0]["group"]), [result["config"] for result in results]
        name = name or folder.resolve().name
        return cls(folder, group, name, read_json(plan), configs, judged)

    @property
    def keys(self) -> list[str]:
        """The swept keys without the seed, if all of them are single values of the configuration.

        Otherwise none (as where `scheduler` is swept, or `arm`): then the job type tells the arms.
        """
        swept = [key for key in self.plan["arms"][0]["swept"] if key != "seed"]
        single = all(not isinstance(v, dict | list) for key in swept for v in self.values(key))
        return swept if single else []

    @property
    def factor(self) -> str | None:
        """The swept key that accuracy is drawn against, a number: the claim's if it is one."""
        numbers = [key for key in self.keys if {int, float} >= {*map(type, self.values(key))}]
        claimed = (self.plan["claim"] or {}).get("factor")
        return claimed if claimed in numbers else next(iter(numbers), None)

    def values(self, key: str) -> list[Any]:
        """What the runs' configurations have at a dotted key; {} where there is no such key."""

        def below(part: Any, name: str) -> Any:
            return part.get(name, {}) if isinstance(part, dict) else {}

        return [reduce(below, key.split("."), config) for config in self.configs]

    @property
    def metric(self) -> str:
        """The summary metric that counts: the last value, not the best one."""
        metric = (self.plan["claim"] or {}).get("metric", "val/acc")
        return "val/acc.last" if metric == "val/acc" else metric

    @property
    def runs(self) -> str:
        """The filter for its runs, without the one that only tells the verdict.

        The library rewrites `=`, `<` and `>` wherever they are, so the name is written without them.
        """
        group = "".join(f"\\U{ord(char):08x}" for char in self.group)
        return f'Metric("Group") == "{group}" and Metric("JobType") != "summary"'


def sections(wr: Any, sweep: Sweep) -> dict[str, list[Any]]:
    """The panels, new at each call, since each has a place and an id."""
    arms = wr.Config(sweep.keys[0]) if len(sweep.keys) == 1 else wr.Metric("JobType")
    over_seeds = {
        "groupby": arms,
        "groupby_aggfunc": "mean",
        "groupby_rangefunc": "stddev",
        "max_runs_to_show": len(sweep.plan["arms"]),
    }

    def place(x: int, w: int) -> Any:
        return wr.Layout(x=x, y=0, w=w, h=8)

    def curve(metric: str, title: str, x: int) -> Any:
        return wr.LinePlot(
            title=title, x="epoch", y=[metric], title_x="epoch", layout=place(x, 12), **over_seeds
        )

    bars = wr.BarPlot(
        title=f"{sweep.metric}, mean ± standard deviation over seeds",
        metrics=[sweep.metric],
        layout=place(0, 12),
        **over_seeds,
    )
    dots = wr.ScatterPlot(
        title=f"{sweep.metric} against {sweep.factor}",
        x=wr.Config(sweep.factor or ""),
        y=wr.SummaryMetric(sweep.metric),
        layout=place(12, 12),
    )
    axes = [wr.Config(key) for key in sweep.keys] or [wr.Metric("JobType")]
    columns = [*axes, wr.SummaryMetric(sweep.metric)]
    parallel = wr.ParallelCoordinatesPlot(
        title=f"swept keys and {sweep.metric}",
        columns=[wr.ParallelCoordinatesPlotColumn(column) for column in columns],
        layout=place(0, 24),
    )
    return {
        "Curves": [
            curve("lr", "learning rate", 0),
            curve("val/acc", "validation accuracy, %, mean ± standard deviation over seeds", 12),
        ],
        "Final accuracy": [bars, dots] if sweep.factor else [bars],
        "Swept keys": [parallel],
    }


def workspace(ws: Any, wr: Any, sweep: Sweep, entity: str, project: str) -> Any:
    """The workspace of the sweep, not yet saved."""
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


def report(wr: Any, sweep: Sweep, entity: str, project: str) -> Any:
    """The report of the sweep, not yet saved. Where an entity is named, this asks the server.

    Curves are of groups; accuracies are of single runs, so that each seed is a dot and a line.
    """
    groups = [f"config.{key}" for key in sweep.keys] or ["JobType"]
    blocks = [wr.H2("Verdict"), wr.P(_sentence(sweep.verdict))]
    if sweep.verdict:
        blocks.append(wr.MarkdownBlock(table(sweep.verdict)))
    for name, panels in sections(wr, sweep).items():
        runset = wr.Runset(
            entity=entity,
            project=project,
            name=sweep.name,
            filters=sweep.runs,
            groupby=groups if name == "Curves" else [],
        )
        blocks += [wr.H2(name), wr.PanelGrid(runsets=[runset], panels=panels)]
    command = "python " + shlex.join(sweep.plan["command"])
    blocks += [wr.H2("How it was made"), wr.CodeBlock(command, language=None)]
    title = f"{sweep.name[:100]}: verdict"  # 128 characters at most
    return wr.Report(entity=entity, project=project, title=title, blocks=blocks, width="fluid")


def _sentence(verdict: dict[str, Any] | None) -> str:
    if verdict is None:
        return "No verdict: nothing was compared."
    changed = "The claim was changed after the plan was written. " * verdict["claim_changed"]
    return f"{changed}{verdict['sentence']}"


def table(verdict: dict[str, Any]) -> str:
    """The comparisons of `verdict.json` in Markdown."""
    claim, rows = verdict["claim"], [_HEADER, ["---"] * len(_HEADER)]
    for one in verdict["comparisons"]:
        place = f" at {one['cell']}" if one["cell"] else ""
        about = f"{claim['factor']}={one['treatment']} against {one['baseline']}{place}"
        mean, ends, p = one["mean"], one["ci95"], one["p_holm"]
        cells = [
            about,
            str(one["n"]),
            "–" if mean is None else f"{mean:+.2f}",
            f"{ends[0]:+.2f} to {ends[1]:+.2f} ({100 * (1 - claim['level']):g} %)" if ends else "–",
            "–" if p is None else f"{p:.3g}",
            one["verdict"],
        ]
        rows.append([_escaped(cell) for cell in cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _escaped(text: str) -> str:
    """`text` so that Markdown shows it as it is, in one line."""
    marks = re.escape(string.punctuation)
    return re.sub(f"([{marks}])", r"\\\1", " ".join(text.split()))


def _plain(name: str) -> str:
    """`name` without symbols, for which the library refuses the name of a workspace: = is one."""
    kinds = ("So", "Sk", "Sm", "Sc", "Cs")
    return "".join("-" if unicodedata.category(char) in kinds else char for char in name)


def document(sweep: Sweep) -> dict[str, Any]:
    """Both as the server would get them, without it."""
    ws, wr = _libraries()
    made, told = workspace(ws, wr, sweep, "", ""), report(wr, sweep, "", "")

    def spec(one: Any) -> Any:
        # The library has no public way to a specification.
        return json.loads(one._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))

    return {
        "sweep": str(sweep.folder),
        "workspace": {"name": made.name, "spec": spec(made)},
        "report": {"title": told.title, "spec": spec(told)},
    }


def save(sweep: Sweep, entity: str | None, project: str | None) -> Iterator[str]:
    """Make or update both on the server; yields their addresses."""
    os.environ.setdefault("WANDB_SHOW_INFO", "false")  # wandb would print the addresses too
    ws, wr = _libraries()
    tracked = sweep.configs[0]["tracking"]
    project = project or tracked.get("project")
    if project is None:
        raise ConfigError(f"{sweep.folder}: its runs were not tracked; --project says where to")
    with _told_in_one_line():
        api = import_module("wandb").Api()
        entity = entity or tracked.get("entity") or api.default_entity
    if entity is None:
        raise ConfigError("--entity: is needed, since your W&B key has no default one")
    path = sweep.folder / "wandb_workspace.json"
    remembered = read_json(path) if path.exists() else {}
    place = f"{api.settings['base_url']}/{entity}/{project}, group {sweep.group}"
    known = remembered.setdefault(place, {})
    with _told_in_one_line():
        made = workspace(ws, wr, sweep, entity, project)
        old = _earlier(ws.Workspace.from_url, known.get("workspace"))
        made = _saved(made, old, ("name", "sections", "settings", "runset_settings"))
        known["workspace"] = made.url
        write_json(path, remembered)
        yield made.url
        told = report(wr, sweep, entity, project)
        old = _earlier(wr.Report.from_url, known.get("report"))
        known["report"] = _link(_saved(told, old, ("title", "blocks", "width")))
        write_json(path, remembered)
        yield known["report"]


def _earlier(load: Callable[[str], Any], url: str | None) -> Any | None:
    """What was saved at `url`; None if it is gone, which the library tells by these errors."""
    with suppress(ValueError, TypeError):
        return load(url) if url else None
    return None


def _saved(new: Any, old: Any | None, fields: tuple[str, ...]) -> Any:
    """Save `new`, in the place of `old` if there is one."""
    if old is None:
        return new.save()
    for field in fields:
        setattr(old, field, getattr(new, field))
    return old.save()


def _link(report: Any) -> str:
    """The address of a report; in the library's own a title with `/`, `?` or `#` breaks it."""
    server, title = urlsplit(report.url), re.sub(r"[^A-Za-z0-9]+", "-", report.title).strip("-")
    place = f"{report.entity}/{report.project}/reports/{title}--{report.id.rstrip('=')}"
    return f"{server.scheme}://{server.netloc}/{place}"


@contextmanager
def _told_in_one_line() -> Iterator[None]:
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
