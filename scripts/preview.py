"""What a sweep costs and what its runs share, before it is trained.

    python scripts/preview.py -m <the same as for train.py>

Trains nothing. Prints the tree of plans: a beginning that several runs share is trained once.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from harness import config, preview, sweep
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
    roots = preview.tree(arms)
    print(preview.draw(roots))
    print(sweep.announce(arms, roots))


if __name__ == "__main__":
    main()
