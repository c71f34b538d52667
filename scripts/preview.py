"""What a sweep costs and what its runs share, before it is trained.

    python scripts/preview.py -m <the same as for train.py>

Trains nothing. Tells of each arm where its LR restarts and where it ends, what the arms share (a
beginning that several runs have is trained once), and what would make their comparison unfair.
Draws the LR curves too: preview.html and preview.png in outputs/preview/.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from harness import config, sweep
from harness.errors import one_line_errors


def main() -> None:
    overrides = [word for word in sys.argv[1:] if word not in ("-m", "--multirun")]
    if {"-h", "--help"} & set(overrides):
        print(__doc__.strip())
        return
    config.register()
    conf = Path(__file__).resolve().parent.parent / "conf"
    with one_line_errors(), initialize_config_dir(str(conf), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        composed = loader.load_configuration("config", overrides, run_mode=RunMode.MULTIRUN)
        arms = [sweep.plan(job) for job in sweep.expand(composed)]
    from harness import preview

    roots = preview.tree(arms)
    text = (
        f"{preview.table(arms)}\n\nwhat is trained, and what is shared:\n{preview.draw(roots)}\n\n"
        f"{sweep.announce(arms, roots)}"
    )
    print(text)
    warnings = [f"warning: {warning}" for warning in preview.warnings(arms)]
    print("\n".join(warnings), file=sys.stderr)
    for path in preview.write(Path("outputs/preview"), arms, "\n".join([text, "", *warnings])):
        print(path)


if __name__ == "__main__":
    main()
