"""Show what a sweep costs and what its runs share, before it is trained.

    python scripts/preview.py -m <the same as for train.py>

Trains nothing. Prints each arm's restarts and final LR, what the runs share (a beginning that several
runs have is trained once), the time that this takes, and what would make their comparison unfair.
Draws the LR curves too: preview.html and preview.png, in a new folder of outputs/preview/.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path

from harness.choices.builtin import register
from harness.config.compose import unused_folder
from harness.config.hints import options_in_one_line
from harness.config.hydra_private import multirun_config, refuse_repeated
from harness.config.one_line_errors import one_line_errors
from harness.sweeps.jobs import PlannedSweep, plan_sweep
from harness.sweeps.launchers import check_launcher


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--multirun", action="store_true", help="may be left out")
    parser.add_argument(
        "--config-dir", "-cd", metavar="DIR", help="a folder of more choices, as for train.py"
    )
    parser.add_argument(
        "--time", action="store_true",
        help="where no run is recorded that says how long an epoch takes, train a few updates to measure it",
    )  # fmt: skip
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for train.py")
    options_in_one_line(parser)
    with one_line_errors():
        register()  # before the options are read: what is refused of them names keys
        preview(parser.parse_intermixed_args())


def preview(arguments: argparse.Namespace) -> None:
    """Plan the sweep that the command line asks for, and show it."""
    conf = Path(__file__).resolve().parent.parent / "conf"
    overrides = arguments.overrides
    if arguments.config_dir:
        folder = Path(arguments.config_dir).absolute().as_posix()
        overrides = [f"hydra.searchpath=[{json.dumps(f'file://{folder}')}]", *overrides]
    refuse_repeated(arguments.overrides)
    register(arguments.overrides)
    with multirun_config(conf, overrides) as composed:
        check_launcher(composed.hydra.launcher)
        planned = plan_sweep(composed)
    show(planned, arguments.time)


def show(planned: PlannedSweep, measure: bool) -> None:
    """Print what the sweep is, what it costs and what it lacks; draw its LR curves."""
    from harness.sweeps import preview
    from harness.sweeps.prefix_tree import describe_cost, draw_trees, prefix_trees
    from harness.sweeps.speeds import recorded_speeds, time_to_train

    runs, question = planned.runs, planned.question
    roots = prefix_trees(runs)
    speeds = recorded_speeds(*map(Path, ("sweeps", "outputs", "studies")))
    text = (
        f"{preview.arms_table(runs)}\n\nwhat is trained, and what is shared:\n{draw_trees(roots)}\n\n"
        f"{describe_cost(runs, roots)}\n{time_to_train(roots, speeds, measure)}\n{question.text()}"
    )
    claim = runs[0].config.claim
    if claim.tune:
        text += (
            f"\nbefore that each arm chooses {' and '.join(claim.tuned_keys())}, in {preview.tuning_runs(runs)} runs "
            "or more where the grid goes on; the plans above have the values as given"
        )
    print(text)
    notes = [f"warning: {warning}" for warning in preview.comparison_warnings(runs, question)]
    datasets = {repr(run.config.dataset): run.config.dataset for run in runs}
    if unchecked := sum(dataset.unchecked() for dataset in datasets.values()):
        notes.append(
            f"note: {unchecked:,} image files were not looked into; training decodes each before it begins"
        )
    for note in notes:
        print(note, file=sys.stderr)
    folder = Path(unused_folder(f"outputs/preview/{datetime.now():%Y-%m-%d_%H-%M-%S}"))
    for path in preview.write_preview(folder, runs, "\n".join([text, "", *notes])):
        print(path)


if __name__ == "__main__":
    main()
