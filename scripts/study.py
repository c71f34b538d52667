"""The study of docs/study.md: `make study`, or `python scripts/study.py [plan | run | write]`.

`plan` writes docs/study/plan.json: what is trained, what is compared, what counts. `run` trains it, a
sweep a step, into sweeps/study/; stopped, the same command goes on. `write` judges what is there and
writes the other files of docs/study/. Without a word: `run`, then `write`. Two hours on two cores.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from harness import results
from harness.claims import Claim
from harness.config import ConfigError
from harness.errors import one_line_errors
from harness.files import atomic, write_json

ROOT = Path(__file__).resolve().parent.parent
DOCS = Path("docs/study")
SWEEPS = Path("sweeps/study")

ARMS = ("times_1", "times_2", "one_cosine", "as_many_restarts", "cosine_5", "linear", "constant")
LRS = (0.05, 0.1, 0.2)
TUNING_SEEDS = (1000, 1001)
EPOCHS, SHORT, MISALIGNED = (
    35,
    15,
    50,
)  # cycles of 5 epochs, equal or doubling, all end at 15 and 35


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
        """Each arm with its tuned LR, for --config-dir."""
        return DOCS / "conf" / self.name

    def sweep(self, step: str) -> Path:
        return SWEEPS / self.name / step

    def steps(self) -> dict[str, list[str]]:
        """The arguments of train.py, by step, in their order."""

        def tuned(arms: tuple[str, ...], seeds: int, epochs: int, *more: str) -> list[str]:
            return [
                f"+tuned={','.join(arms)}", f"seed=range(0,{seeds})", f"trainer.epochs={epochs}",
                "claim.factor=tuned", "claim.baseline=times_1", *more,
            ]  # fmt: skip

        pair = ("times_1", "times_2")
        same_beginning = (
            *pair,
            "cosine_5",
            "constant",
        )  # a shorter budget leaves their LR as it is
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
    with one_line_errors():
        if part == "plan":
            write_json(ROOT / DOCS / "plan.json", plan())
        if part in (None, "run"):
            run()


def plan() -> dict[str, Any]:
    """What is fixed before the first run."""
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
    """Raises `ConfigError` if the plan is not the one that was written, or runs are left open."""
    written = ROOT / DOCS / "plan.json"
    if not written.exists() or json.loads(written.read_text()) != plan():
        raise ConfigError(
            f"{DOCS / 'plan.json'}: is not this plan; scripts/study.py plan writes it"
        )
    for cell in CELLS:
        for step, arguments in cell.steps().items():
            print(f"\n{cell.name}, {step}", flush=True)
            subprocess.run([sys.executable, "train.py", *arguments], cwd=ROOT, check=False)
            runs = results.read(ROOT / cell.sweep(step))
            left = runs.filter(~pl.col("status").is_in(["complete", "diverged"]))
            if len(left):
                raise ConfigError(
                    f"{cell.sweep(step)}: {len(left)} of {len(runs)} runs are not complete; "
                    "the same command goes on, those that failed are tried again with retry=true"
                )
            if step == "tuning":
                tune(cell, runs)


def tune(cell: Cell, runs: pl.DataFrame) -> None:
    """Write each arm with its LR, as configurations that `tuned=ARM` chooses."""
    for arm, lr in best_lrs(runs).items():
        path = ROOT / cell.conf / "tuned" / f"{arm}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path, "w") as file:
            file.write((ROOT / f"conf/arm/{arm}.yaml").read_text().rstrip())
            file.write(f"\n\noptimizer:\n  lr: {lr} # the best of {', '.join(map(str, LRS))}\n")


def best_lrs(runs: pl.DataFrame) -> dict[str, float]:
    """By arm (`level`), the LR (`cell`: `optimizer.lr=LR`) by the plan's rule."""
    tried = (
        runs.with_columns(lr=pl.col("cell").str.strip_prefix("optimizer.lr=").cast(pl.Float64))
        .group_by("level", "lr")
        .agg(pl.col("final").mean(), whole=(pl.col("status") == "complete").all())
        .filter("whole")
        .sort("final", "lr", descending=[True, False])
        .unique("level", keep="first", maintain_order=True)
    )
    return dict(tried.select("level", "lr").iter_rows())


if __name__ == "__main__":
    main()
