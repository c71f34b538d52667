"""Judge runs that exist already: `python scripts/judge.py SOURCE --factor KEY --baseline LEVEL --metric NAME`

SOURCE is wandb:ENTITY/PROJECT, a folder with W&B's offline logs, TensorBoard's event files, runs of Lightning's
CSVLogger, of timm or of Hugging Face's Trainer, or a table: W&B's CSV export, CSV, JSONL or Parquet with a row a
recorded step, or with the final values (factor, seed, value). What cannot be recovered is asked for, in a line.
The verdict is by each run's last value, with the rules of sweeps (docs/judge.md), and never preregistered.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.config.errors import ConfigError
from harness.config.one_line_errors import one_line_errors
from harness.reading.detect import KINDS

_ROLES = ("run", "seed", "step", "epoch", "status", "lr")


def main() -> None:
    with one_line_errors():
        arguments = _parser().parse_args()
        if not arguments.source.strip():
            raise ConfigError("SOURCE: is empty; name a file, a folder or wandb:ENTITY/PROJECT")
        if arguments.out is not None and not arguments.out.strip():
            raise ConfigError("--out: is empty; name a folder")
        with _out_errors(arguments.out):
            out = _out(arguments.source, arguments.out and Path(arguments.out))
        from harness.reading import judging
        from harness.reading.recover import Asked
        from harness.report.judged import best_values, write_judged

        asked = Asked(
            factor=arguments.factor, baseline=arguments.baseline, treatments=tuple(arguments.treatment),
            metric=arguments.metric, better=arguments.better, margin=arguments.margin, level=arguments.level,
            seed=arguments.seed, ignore=tuple(arguments.ignore), where=_pairs("--where", arguments.where),
            mapping=_pairs("--map", arguments.map, _ROLES),
        )  # fmt: skip
        with TemporaryDirectory(prefix="judge-") as scratch:
            found = judging.judge_source(arguments.source, arguments.as_, asked, Path(scratch))
            if arguments.at == "best":
                print(best_values(found.claim, found.runs, found.source))
                return
            with _out_errors(out):
                out.mkdir(parents=True, exist_ok=True)
            text, failures = write_judged(out, found.claim, found.runs, found.source, sys.argv)
        print(text)
        if failures:
            raise SystemExit("\n".join(f"error: {failure}" for failure in failures))


_OPTIONS: dict[str, dict[str, Any]] = {
    "--factor": {"metavar": "KEY", "help": "the setting that is compared, as scheduler.t_mult"},
    "--baseline": {"metavar": "LEVEL", "help": "the value of it that the others are compared with"},
    "--treatment": {"metavar": "LEVEL", "action": "append", "default": [], "help": "a value to compare, may be repeated; all others without"},
    "--metric": {"metavar": "NAME", "help": "the column that is judged, as val/acc"},
    "--better": {"choices": ("higher", "lower"), "help": "which is better, where the metric's name does not say"},
    "--margin": {"type": float, "help": "the smallest difference that matters; of accuracies in %%: 0.2 points"},
    "--level": {"type": float, "default": 0.05, "help": "of errors (%(default)s)"},
    "--seed": {"metavar": "KEY", "help": "the setting that makes the pairs, or several, as KEY,KEY; none: the runs are not paired"},
    "--ignore": {"metavar": "KEY", "action": "append", "default": [], "help": "a setting in which compared runs may differ; may be repeated"},
    "--where": {"metavar": "KEY=VALUE", "action": "append", "default": [], "help": "only runs with this setting, or status=complete; may be repeated"},
    "--map": {"metavar": "ROLE=COLUMN", "action": "append", "default": [], "help": f"the column of: {', '.join(_ROLES)}; may be repeated"},
    "--as": {"dest": "as_", "choices": KINDS, "help": "which files of a folder to read, where it has several kinds"},
    "--at": {"choices": ("last", "best"), "default": "last", "help": "best: a table of best values, which are optimistic, and no verdict"},
    "--out": {"help": "where to write; judged/NAME without"},
}  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE")
    for name, own in _OPTIONS.items():
        parser.add_argument(name, **own)
    return parser


def _pairs(option: str, texts: Sequence[str], known: Sequence[str] = ()) -> dict[str, str]:
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            raise ConfigError(f"{option} {text}: write KEY=VALUE")
        if known and key not in known:
            raise ConfigError(f"{option} {text}: choose from {', '.join(known)}")
        if key in found:
            raise ConfigError(f"{option} {text}: {key} is given twice")
        found[key] = value
    return found


@contextmanager
def _out_errors(out: object) -> Iterator[None]:
    """Raise `ConfigError` that names --out for the system's own error."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be made ({error.strerror}); name another folder") from error  # fmt: skip


def _out(source: str, out: Path | None) -> Path:
    """Return where to write. Raises `ConfigError` for a place in the source, whose files stay as they are."""
    named = "".join(
        one if one.isalnum() or one in "-_." else "_" for one in Path(source).name or "source"
    )
    out = out or Path("judged", named.lstrip(".") or "source")
    path = Path(source)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: is a file")
    if path.is_file() and path.resolve().parent == out.resolve():
        raise ConfigError(
            f"--out {out}: holds the source, which would be overwritten; name another folder"
        )
    if (out / "plan.json").exists():
        raise ConfigError(f"--out {out}: is a sweep's folder; name another one")
    if path.is_dir() and path.resolve() in (out.resolve(), *out.resolve().parents):
        raise ConfigError(
            f"--out {out}: lies in the source, where nothing is written; name another folder"
        )
    return out


if __name__ == "__main__":
    main()
