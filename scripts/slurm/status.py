"""Print the state of each run of a submitted sweep: `python scripts/slurm/status.py SWEEP`"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.config.one_line_errors import one_line_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path, metavar="SWEEP")
    sweep = parser.parse_args().sweep
    with one_line_errors():
        from harness.sweeps import slurm

        tuning = sweep / "tuning"
        if (tuning / "plan.json").exists():
            print(f"tuning:\n{slurm.status(tuning)}")
            if not (sweep / "plan.json").exists():
                return
            print("\nclaim:")
        print(slurm.status(sweep))


if __name__ == "__main__":
    main()
