"""What a sweep costs and what its runs share, before it is trained.

    python scripts/preview.py -m <the same as for train.py>

Trains nothing. Tells of each arm where its LR restarts and where it ends, what the arms share (a
beginning that several runs have is trained once), and what would make their comparison unfair.
Draws the LR curves too: preview.html and preview.png in outputs/preview/.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from harness.choices.builtin import register
from harness.config.one_line_errors import one_line_errors
from harness.sweeps import callback as sweep


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--multirun", action="store_true", help="may be left out")
    parser.add_argument(
        "--config-dir", "-cd", metavar="DIR", help="a folder of more choices, as for train.py"
    )
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for train.py")
    arguments = parser.parse_intermixed_args()
    register()
    conf = Path(__file__).resolve().parent.parent / "conf"
    overrides = arguments.overrides
    if arguments.config_dir:
        folder = Path(arguments.config_dir).absolute().as_posix()
        overrides = [f"hydra.searchpath=[{json.dumps(f'file://{folder}')}]", *overrides]
    with one_line_errors(), initialize_config_dir(str(conf), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        composed = loader.load_configuration("config", overrides, run_mode=RunMode.MULTIRUN)
        planned = sweep.planned(composed)
    from harness.sweeps import preview

    runs, question = planned.arms, planned.question
    roots = preview.tree(runs)
    text = (
        f"{preview.table(runs)}\n\nwhat is trained, and what is shared:\n{preview.draw(roots)}\n\n"
        f"{sweep.announce(runs, roots)}\n{question.text()}"
    )
    print(text)
    warnings = [f"warning: {warning}" for warning in preview.warnings(runs, question)]
    datasets = {repr(run.config.dataset): run.config.dataset for run in runs}
    if unchecked := sum(dataset.unchecked() for dataset in datasets.values()):
        warnings.append(
            f"note: {unchecked:,} image files were not looked into; training decodes each before it begins"
        )
    print("\n".join(warnings), file=sys.stderr)
    for path in preview.write(Path("outputs/preview"), runs, "\n".join([text, "", *warnings])):
        print(path)


if __name__ == "__main__":
    main()
