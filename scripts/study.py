"""The study of docs/study.md: `make study`, or `python scripts/study.py [plan | run | write]`.

`plan` writes docs/study/plan.json: what is trained, what is compared, what counts. `run` trains it, a
sweep a step, into sweeps/study/; stopped, the same command goes on. `write` judges what is there and
writes the other files of docs/study/. Without a word: `run`, then `write`. Two hours on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl

from harness.analysis import paired_stats as paired
from harness.analysis import phase, results
from harness.analysis.verdict import Claim, judge
from harness.config.errors import ConfigError
from harness.config.one_line_errors import one_line_errors
from harness.files import atomic, write_json
from harness.report import page as report
from harness.report import summary, verdict_charts
from harness.report.pictures import lr_png, page_chart_png, val_acc_png

DOCS = Path("docs/study")
SWEEPS = Path("sweeps/study")

ARMS = ("times_1", "times_2", "one_cosine", "as_many_restarts", "cosine_5", "linear", "constant")
LRS = (0.05, 0.1, 0.2)
TUNING_SEEDS = (1000, 1001)
EPOCHS, SHORT = 35, 15  # where cycles of 5 epochs, equal or doubling, all end
MISALIGNED = 50  # where doubling ones do not


@dataclass(frozen=True)
class Cell:
    """A data set and a model; `seeds` of times_1 and times_2, `others` of all arms."""

    name: str
    settings: tuple[str, ...]
    seeds: int
    others: int
    closely: bool = False  # also evaluated four times an epoch, also at the article's 50 epochs

    @property
    def conf(self) -> Path:
        """Return the folder of each arm with its tuned LR, for --config-dir."""
        return DOCS / "conf" / self.name

    def sweep(self, step: str) -> Path:
        return SWEEPS / self.name / step

    def steps(self) -> dict[str, list[str]]:
        """Return the arguments of train.py, by step, in their order."""

        def tuned(arms: tuple[str, ...], seeds: int, epochs: int, *more: str) -> list[str]:
            return [
                f"+tuned={','.join(arms)}", f"seed=range(0,{seeds})", f"trainer.epochs={epochs}",
                "claim.factor=tuned", "claim.baseline=times_1", *more,
            ]  # fmt: skip

        pair = ("times_1", "times_2")
        same_beginning = (*pair, "cosine_5", "constant")  # whose LR does not depend on the budget
        lrs, seeds = ",".join(map(str, LRS)), ",".join(map(str, TUNING_SEEDS))
        steps = {
            "tuning": [
                f"arm={','.join(ARMS)}", f"optimizer.lr={lrs}", f"seed={seeds}",
                f"trainer.epochs={EPOCHS}", "claim.factor=arm", "claim.baseline=times_1",
            ]
        }  # fmt: skip
        if self.closely:
            steps["phase"] = tuned(("times_1", "cosine_5"), 6, EPOCHS, "trainer.evals_per_epoch=4")
        steps["claim"] = tuned(pair, self.seeds, EPOCHS)
        steps["arms"] = tuned(ARMS, self.others, EPOCHS)
        steps["short"] = tuned(same_beginning, self.others, SHORT)
        if self.closely:
            steps["article"] = tuned(pair, 3, MISALIGNED)
        return {
            step: [
                *([] if step == "tuning" else ["--config-dir", str(self.conf)]),
                "-m", "hydra/launcher=parallel", f"hydra.sweep.dir={self.sweep(step)}",
                "tracking=none", *self.settings, *arguments,
            ]
            for step, arguments in steps.items()
        }  # fmt: skip


CELLS = (
    Cell(
        "fashion",
        ("dataset=fashion_mnist", "dataset.train_size=4992", "dataset.val_size=5000",
         "trainer.batch_size=128", "model=resnet8", "model.width=8"),
        seeds=16, others=8, closely=True,
    ),
    Cell("digits", ("dataset=digits", "trainer.batch_size=120", "model=resnet8"), 30, 30),
    Cell(
        "digits_resnet20",
        ("dataset=digits", "trainer.batch_size=120", "model=resnet20", "model.width=8"),
        seeds=16, others=16,
    ),
)  # fmt: skip

PRIMARY = Claim("tuned", "times_1", ("times_2",))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", choices=("plan", "run", "write"))
    part = parser.parse_args().part
    os.chdir(Path(__file__).resolve().parent.parent)
    with one_line_errors():
        if part == "plan":
            write_json(DOCS / "plan.json", study_plan())
        if part in (None, "run"):
            run()
        if part in (None, "write"):
            write_docs()


def study_plan() -> dict[str, Any]:
    """Return what is fixed before the first run."""
    return {
        "question": "Does T_mult>1 end better than equal cycles, once each has its own peak LR?",
        "primary": {
            "claim": PRIMARY.to_dict(),
            "in": {cell.name: f"{cell.seeds} pairs" for cell in CELLS},
            "rules": "docs/verdict.md; Holm over the cells",
        },
        "secondary": {
            "arms": "each arm against times_1, within a cell, Holm over six comparisons: "
            + ", ".join(f"{cell.name} {cell.others} pairs" for cell in CELLS),
            "phase": "accuracy around the minima of the LR, cosine_5 and times_1: harness/phase.py",
            "short": f"budget {SHORT}, from the same trajectories, Holm over three comparisons",
            "article": f"budget {MISALIGNED}, the article's, in mid-cycle for times_2: shown, not judged",
        },
        "tuning": {
            "optimizer.lr": list(LRS),
            "seeds": list(TUNING_SEEDS),
            "rule": f"per cell and arm the LR with the best mean val/acc after {EPOCHS} epochs, "
            "the lower of equals; not one with a run that diverged",
        },
        "test set": "reported, never chosen by",
        "commands": {
            cell.name: {
                step: shlex.join(["python", "train.py", *arguments])
                for step, arguments in cell.steps().items()
            }
            for cell in CELLS
        },
    }


def run() -> None:
    """Train all steps. Raises `ConfigError` if the plan is not the written one, or runs are incomplete."""
    written = DOCS / "plan.json"
    if not written.exists() or json.loads(written.read_text()) != study_plan():
        raise ConfigError(
            f"{DOCS / 'plan.json'}: is not this plan; scripts/study.py plan writes it"
        )
    for cell in CELLS:
        for step, arguments in cell.steps().items():
            print(f"\n{cell.name}, {step}", flush=True)
            subprocess.run([sys.executable, "train.py", *arguments], check=False)
            runs = read(cell, step)
            left = runs.filter(~pl.col("status").is_in(["complete", "diverged"]))
            if len(left):
                raise ConfigError(
                    f"{cell.sweep(step)}: {len(left)} of {len(runs)} runs are not complete; "
                    "the same command goes on"
                )
            if step == "tuning":
                tune(cell, runs)


def tune(cell: Cell, runs: pl.DataFrame) -> None:
    """Write each arm with its LR, as configurations that `tuned=ARM` chooses."""
    for arm, lr in best_lrs(runs).items():
        path = cell.conf / "tuned" / f"{arm}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path, "w") as file:
            file.write(Path(f"conf/arm/{arm}.yaml").read_text().rstrip())
            file.write(f"\n\noptimizer:\n  lr: {lr} # the best of {', '.join(map(str, LRS))}\n")


def best_lrs(runs: pl.DataFrame) -> dict[str, float]:
    """Return the LR of each arm (`level`) by the plan's rule."""
    tried = (
        runs.group_by("level", "lr")
        .agg(pl.col("final").mean(), whole=(pl.col("status") == "complete").all())
        .filter("whole")
        .sort("final", "lr", descending=[True, False])
        .unique("level", keep="first", maintain_order=True)
    )
    return dict(tried.select("level", "lr").iter_rows())


# --- the results -----------------------------------------------------------------------------


def write_docs() -> None:
    """Write the verdicts, every run, tables, pictures and the page of what is in sweeps/study/."""
    subprocess.run(
        [sys.executable, "scripts/snapshot_ensemble.py", *(str(c.sweep("arms")) for c in CELLS)],
        check=True,
    )
    runs = pl.concat(
        [read(cell, step) for cell in CELLS for step in cell.steps()], how="vertical_relaxed"
    )
    with atomic(DOCS / "runs.csv") as file:
        runs.select(_SHOWN).write_csv(file)
    found = verdicts(runs)
    write_json(DOCS / "verdict.json", found)
    with atomic(DOCS / "tables.md", "w") as file:
        file.write(tables(runs, found))
    pictures(runs, found)
    page(runs, found)


_SHOWN = (
    "cell", "step", "level", "lr", "seed", "budget", "status", "final", "best", "test", "aligned",
    "restarts", "lr_share_at_end", "updates_trained", "updates_reused", pl.col("seconds").round(1),
    "name", "fingerprint",
)  # fmt: skip


def read(cell: Cell, step: str) -> pl.DataFrame:
    """Return the step's runs, with `step`, `lr` (the peak; null without a result) and the study's `cell`."""
    runs = results.read(cell.sweep(step))
    recorded = [results.result(Path(folder)) for folder in runs["folder"]]
    lrs = [one["config"]["optimizer"]["lr"] if one else None for one in recorded]
    return runs.with_columns(
        cell=pl.lit(cell.name), step=pl.lit(step), lr=pl.Series(lrs, dtype=pl.Float64)
    )


def verdicts(runs: pl.DataFrame) -> dict[str, Any]:
    """Return the verdicts by question: `primary` over all cells, `arms` and `short` by cell, `phase`, `article`.

    `one_cosine` is not in the plan: times_2 against a single cosine.
    """

    def of(step: str, cell: str) -> pl.DataFrame:
        return runs.filter(step=step, cell=cell)

    def against_times_1(step: str, cell: str) -> dict[str, Any]:
        table = of(step, cell).with_columns(cell=pl.lit(""))
        levels = table["level"].unique(maintain_order=True).to_list()
        rivals = tuple(level for level in levels if level == "one_cosine")
        return compare(replace(PRIMARY, treatments=tuple(levels[1:]), rivals=rivals), table)

    return {
        "primary": compare(PRIMARY, runs.filter(step="claim")),
        "arms": {
            cell.name: against_times_1("arms", cell.name)
            | {
                "anytime": results.anytime(of("arms", cell.name)),
                "snapshots": results.snapshots(of("arms", cell.name)),
            }
            for cell in CELLS
        },
        "one_cosine": compare(replace(PRIMARY, baseline="one_cosine"), runs.filter(step="arms")),
        "short": {cell.name: against_times_1("short", cell.name) for cell in CELLS},
        "article": against_times_1("article", "fashion"),
        "phase": phase.analyze(of("phase", "fashion")),
    }


def compare(claim: Claim, runs: pl.DataFrame) -> dict[str, Any]:
    return judge(claim, results.with_values(runs, claim.metric))


def tables(runs: pl.DataFrame, found: dict[str, Any]) -> str:
    """Return the reader's tables, in Markdown."""
    parts = [
        "# The study in tables\n\nWritten by `make study`; what they mean: [../study.md](../study.md). Accuracies are in "
        "percent, means over seeds, ± half a 95 % t interval; differences are paired by seed, in points of `val/acc` after "
        "the last update, each arm less times_1 unless said otherwise.\n",
        f"## Claim: times_2 against times_1\n\n{found['primary']['sentence']}\n",
        _differences(found["primary"]),
    ]
    for cell in CELLS:
        judged = found["arms"][cell.name]
        parts += [
            f"## {cell.name}: {EPOCHS} epochs, {cell.others} seeds\n",
            _arms(runs.filter(cell=cell.name, step="arms"), judged),
            _differences(judged),
            f"{judged['sentence']}\n",
            f"## {cell.name}: the same runs after {SHORT} epochs\n",
            _differences(found["short"][cell.name]),
            f"## {cell.name}: tuning, mean `val/acc` over {len(TUNING_SEEDS)} seeds\n",
            _tuning(runs.filter(cell=cell.name, step="tuning")),
        ]
    article = runs.filter(step="article")
    parts += [
        f"## times_2 against one_cosine, which the plan does not have\n\n{found['one_cosine']['sentence']}\n",
        _differences(found["one_cosine"]),
        f"## The article's {MISALIGNED} epochs: fashion\n",
        _arms(article, {"anytime": results.anytime(article), "snapshots": None}),
        f"{found['article']['sentence']}\n",
        f"## Accuracy around the LR's minima: fashion\n\n{found['phase']['sentence']}\n",
        _phase(found["phase"]),
    ]
    return "\n".join(parts)


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _plus_minus(values: pl.Series) -> str:
    complete = values.drop_nulls().to_numpy()
    if len(complete) < 2:
        return "–"
    low, high = paired.interval(complete, 0.05)
    return f"{complete.mean():.2f} ± {(high - low) / 2:.2f}"


def _arms(runs: pl.DataFrame, judged: dict[str, Any]) -> str:
    area = {one["arm"]: f"{one['area']:.2f}" for one in judged["anytime"] or []}
    ensembles: dict[str, str] = {}
    for one in judged["snapshots"] or []:  # the last row of an arm has the most members
        ensembles[one["arm"]] = f"{one['test_acc_mean']:.2f} ({one['members']})"
    header = ["arm", "peak LR", "complete", "final", "best", "test", "anytime area",
              "snapshot ensemble (members)"]  # fmt: skip
    return _markdown(
        header,
        (
            [
                group["level"][0], f"{group['lr'][0]:g}",
                f"{(group['status'] == 'complete').sum()} of {len(group)}",
                *(_plus_minus(group.filter(status="complete")[name]) for name in ("final", "best", "test")),
                area.get(arm, "–"), ensembles.get(arm, "–"),
            ]
            for (arm,), group in runs.group_by("arm", maintain_order=True)
        ),
    )  # fmt: skip


def _differences(judged: dict[str, Any]) -> str:
    rows = []
    for one in judged["comparisons"]:
        arm = ", ".join(filter(None, [one["treatment"], one["cell"]]))
        measured = ["–", "–", "–"]
        if one["ci95"] and one["p_adjusted"] is not None:
            low, high = one["ci95"]
            measured = [
                f"{one['mean']:+.2f}",
                f"{low:+.2f} to {high:+.2f}",
                f"{one['p_adjusted']:.2g}",
            ]
        rows.append([arm, f"{one['n']}", *measured, one["verdict"]])
    return _markdown(
        ["arm", "pairs", "difference", "95 % interval", "p (adjusted)", "verdict"], rows
    )


def _tuning(runs: pl.DataFrame) -> str:
    best = best_lrs(runs)
    rows = []
    for arm in ARMS:
        tried = [runs.filter(level=arm, lr=lr)["final"] for lr in LRS]
        shown = ["–" if one.null_count() else f"{fmean(one):.2f}" for one in tried]
        rows.append(
            [arm, *(f"**{m}**" if lr == best[arm] else m for lr, m in zip(LRS, shown, strict=True))]
        )
    return _markdown(["arm", *(f"LR {lr:g}" for lr in LRS)], rows)


def _phase(judged: dict[str, Any]) -> str:
    rows = []
    for arm in judged["arms"]:
        drop, r, best = arm["drop_points"], arm["correlation_with_lr"], arm["best_position"]
        back = arm["recovery_epochs"]
        rows.append([
            arm["arm"], f"{arm['runs']}", f"{drop['mean']:.2f} ({drop['ci95'][0]:.2f} to {drop['ci95'][1]:.2f})",
            f"{back['median']:.2f} ({back['recovered']} of {back['of']} came back)",
            f"{r['mean']:+.2f} ({r['ci95'][0]:+.2f} to {r['ci95'][1]:+.2f})",
            f"{best['lr_rank']:.0%} (p = {best['p']:.2g})",
        ])  # fmt: skip
    header = ["arm", "runs", "drop in the epoch after a minimum (points)", "epochs until it is back, median",
              "correlation with the LR", "LR rank of a cycle's best accuracy, 50 % by chance"]  # fmt: skip
    return _markdown(header, rows)


def pictures(runs: pl.DataFrame, found: dict[str, Any]) -> None:
    """Draw the claim's differences, C2, and fashion's arms at 35 and at 50 epochs: accuracy and LR."""
    profile = found["phase"]["profile"]
    measured = list(dict.fromkeys(point["arm"] for point in profile))
    differences = verdict_charts.differences(found["primary"], dots=True)
    drawn: dict[str, bytes | None] = {
        "verdict": page_chart_png(differences, []),
        "phase": page_chart_png(
            verdict_charts.profile(profile, measured), [a.removeprefix("tuned=") for a in measured]
        ),
    }
    for step in ("arms", "article"):
        table = runs.filter(step=step, cell="fashion").with_columns(arm="level")
        drawn |= {f"{step}_val_acc": val_acc_png(table), f"{step}_lr": lr_png(table)}
    for name, picture in drawn.items():
        if picture is None:
            continue
        with atomic(DOCS / f"{name}.png") as file:
            file.write(picture)


def page(runs: pl.DataFrame, found: dict[str, Any]) -> None:
    """Write `report.html`: the claim over all cells, with C2."""
    claim = runs.filter(step="claim").with_columns(arm=pl.format("{}: {}", "cell", "level"))
    sweeps = [cell.sweep("claim") for cell in CELLS]
    about = summary.about("The study: times_2 against times_1", sweeps, claim, [])
    verdict = found["primary"] | {"phase": found["phase"], "claim_changed": False}
    report.write_page(DOCS, claim, verdict, about)


if __name__ == "__main__":
    main()
