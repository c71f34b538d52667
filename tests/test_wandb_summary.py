"""The W&B run of a whole sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Main, make_config
from test_callback import FILES, SWEEP, raising, warnings_at_the_end
from test_summary import TWO, complete, made
from test_wandb_run import call, environment, read, server  # noqa: F401
from wandb_server import Server

from harness.analysis.verdict import Claim
from harness.config.values import to_dict
from harness.sweeps import wandb_summary as publish


def made_sweep(folder: Path, claim: Claim | None) -> Path:
    """A sweep in two cells, whose runs are tracked; none of them is on W&B."""
    sweep = made(folder, {"1": complete(90, 91), "2": complete(91, 93)}, claim)
    plan = read(sweep / "plan.json")
    for arm in plan["arms"]:
        arm["swept"]["optimizer.lr"] = "0.1" if arm["seed"] == 0 else "0.2"
        path = sweep / f"{arm['num']}/result.json"
        config = read(path)["config"] | {
            "tracking": to_dict(make_config("tracking=wandb"))["tracking"],
            "optimizer": {"kind": "sgd", "lr": float(arm["swept"]["optimizer.lr"])},
        }
        path.write_text(json.dumps(read(path) | {"config": config, "swept": arm["swept"]}))
    (sweep / "plan.json").write_text(json.dumps(plan))
    return sweep


@pytest.mark.slow
def test_each_comparison_of_a_sweep_has_its_figures_and_pairs(
    server: Server, tmp_path: Path
) -> None:
    sweep = made_sweep(tmp_path / "sweep", TWO)
    done = call("scripts/report.py", sweep, cwd=tmp_path, server=server)
    assert done.returncode == 0, done.stderr
    (own,) = server.runs.values()
    names = [f"2 against 1 at optimizer.lr={lr}" for lr in ("0.1", "0.2")]
    assert [own.summary[name]["mean"] for name in names] == [1, 2]
    assert "ci95" not in own.summary[names[0]], "one pair has no interval"
    (table,) = (json.loads(own.files[name]) for name in own.files if "paired" in name)
    assert table["columns"] == ["comparison", "seed", "baseline", "treatment", "difference"]
    assert table["data"] == [[names[0], 0, 90, 91, 1], [names[1], 1, 91, 93, 2]]


def test_a_sweep_without_a_verdict_has_no_run_of_its_own(tmp_path: Path, report: Main) -> None:
    sweep = made_sweep(tmp_path / "sweep", None)
    done = report(sweep)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (sweep / "wandb").exists()


WANDB = {
    "_page": (
        PermissionError("Unable to write staging files"),
        "warning: W&B: the report is not attached: Unable to write staging files",
    ),
    "_summary": (
        OSError("no room for the table"),
        "warning: W&B: the verdict is not sent: no room for the table",
    ),
    "label": (ValueError("odd"), "warning: W&B: ValueError: odd; later: python scripts/report.py"),
}


@pytest.mark.parametrize("part", WANDB)
@pytest.mark.slow
def test_so_does_what_w_and_b_does_not_take(
    tmp_path: Path, main: Main, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    error, line = WANDB[part]
    monkeypatch.setattr(publish, part, raising(error))
    done = main(*SWEEP, "tracking.mode=offline", f"hydra.sweep.dir={tmp_path}/sweep", "reuse=false")
    assert done.returncode == 0, done.stderr
    (warning,) = warnings_at_the_end(done.stderr)
    assert warning.startswith(line)
    assert all((tmp_path / "sweep" / file).exists() for file in FILES)
