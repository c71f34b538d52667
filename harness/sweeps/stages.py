"""What a sweep trains next: arms that tune, then the claim, in looks until it is decided.

Everything follows from the files: whoever asks again, after a kill or in a job of its own, gets the same answer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from harness.analysis import averages, results, sweep_plan
from harness.analysis.needed import NOT_NEEDED, WAITING
from harness.config.hydra_private import quote
from harness.sweeps import planning, tuned_arms

_NOT_NOW = ("complete", "diverged", NOT_NEEDED, WAITING)


@dataclass(frozen=True)
class Batch:
    """Runs of a sweep that are trained before anything is judged, by their positions in its plan."""

    sweep: Path
    runs: list[int]

    def overrides(self) -> list[list[str]]:
        """Return the overrides of each run for Hydra's launcher, its folder among them."""
        plan = sweep_plan.read_frozen(self.sweep)
        folder = f"hydra.sweep.dir={quote(str(self.sweep))}"
        planned = (plan["arms"][number] for number in self.runs)
        return [
            [*run["overrides"], folder, f"hydra.sweep.subdir={quote(sweep_plan.run_folder(run))}"]
            for run in planned
        ]


def has_stages(config: DictConfig) -> bool:
    return bool(config.claim.until or config.claim.tune)


def begin(config: DictConfig) -> int:
    """Plan the sweep, or the tuning before it. Return how many runs are trained at once at the most."""
    if config.claim.tune:
        return len(tuned_arms.begin(config)["arms"])
    plan = planning.begin_sweep(config)
    looks = (plan["claim"] or {}).get("looks")
    return len(plan["arms"]) * looks[0] // looks[-1] if looks else len(plan["arms"])


def last_folder(config: DictConfig) -> Path:
    """Return the folder of the last sweep that was planned: that of the tuning until the claim is."""
    folder = Path(config.hydra.sweep.dir)
    tuned = tuned_arms.folder(config)
    planned = (folder / "plan.json").exists() or not (tuned / "plan.json").exists()
    return folder if planned else tuned


def batches(config: DictConfig) -> Iterator[Batch]:
    """Yield what is to be trained, until all is decided, or runs have failed and hold their look open."""
    tuned = None
    while config.claim.tune and tuned is None:
        folder = tuned_arms.folder(config)
        yield from open_runs(folder, config.retry, config.retry)
        if unfinished(folder):
            return
        tuned = tuned_arms.go_on(config)
    if tuned:
        planning.begin_sweep(config, tuned)
    yield from open_runs(Path(config.hydra.sweep.dir), config.retry, config.retry)


def open_runs(sweep: Path, refused: bool = False, diverged: bool = False) -> Iterator[Batch]:
    """Yield the runs of a sweep that are needed now, each once; what else, as `unfinished` says."""
    tried: set[int] = set()
    while runs := [n for n in unfinished(sweep, refused, diverged) if n not in tried]:
        yield Batch(sweep, runs)
        tried |= {*runs}
        print_progress(sweep)


def unfinished(sweep: Path, refused: bool = False, diverged: bool = False) -> list[int]:
    """Return the positions in its plan of the runs that are needed now and have not ended.

    Those that diverged, and those whose network cannot be built (`refused`), have ended, unless they are asked for.
    """
    runs = averages.of_runs(results.read(sweep))
    ended = runs["status"].is_in(_NOT_NOW)
    if not refused:
        ended |= runs["refused"]
    if diverged:
        ended &= runs["status"] != "diverged"
    return [number for number, over in enumerate(ended) if not over]


def print_progress(sweep: Path) -> None:
    """Print what the looks of a sweep have come to so far."""
    from harness.analysis import needed

    for line in needed.progress(sweep):
        print(line, file=sys.stderr)
