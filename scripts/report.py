"""Make the table, verdict, pictures and page of sweeps: `python scripts/report.py SWEEP… [--out DIR] [--ledger PATH]`

For any sweep folders, unfinished ones too; several are judged as one. Also for folders of single runs, as a
W&B agent starts them, and folders of such folders: they are judged by the configurations that they recorded.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from harness.config.errors import ConfigError
from harness.config.one_line_errors import one_line_errors


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="SWEEP")
    parser.add_argument("--out", type=Path, help="where to write; a single sweep: its own folder")
    parser.add_argument(
        "--ledger", default=os.environ.get("HARNESS_LEDGER", "ledger.jsonl"), metavar="PATH",
        help="where it is written down which claims were judged on which runs (%(default)s); none: nowhere",
    )  # fmt: skip
    with one_line_errors():
        arguments = parser.parse_args()
        if arguments.out is None and len(arguments.sweeps) > 1:
            raise ConfigError("--out: say where the report of several sweeps is to go")
        for sweep in arguments.sweeps:
            if not sweep.is_dir():
                raise ConfigError(f"{sweep}: is not a folder")
        out = arguments.out or arguments.sweeps[0]
        out.mkdir(parents=True, exist_ok=True)
        ledger = None if arguments.ledger in ("", "none") else Path(arguments.ledger).absolute()
        from harness.report import summary
        from harness.sweeps.wandb_summary import publish_sweep

        text, failures = summary.write_summary(arguments.sweeps, out, ledger)
        print(text)
        if [out] == arguments.sweeps and (where := publish_sweep(out)):
            print(where)
        if failures:
            raise SystemExit("\n".join(f"error: {failure}" for failure in failures))


if __name__ == "__main__":
    main()
