"""Arms of one's own, in a folder of one's own: README, “Your own arms”."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import ROOT, Main

ARMS = {
    "step": ("step", "step_size: 2", 0.2),
    "cosine": ("cosine", "eta_min: 0.001", 0.1),
    "one_cycle": ("one_cycle", "pct_start: 0.4", 0.4),
}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "arm").mkdir(parents=True)
    for name, (scheduler, key, lr) in ARMS.items():
        head = f"# @package _global_\ndefaults:\n  - override /scheduler: {scheduler}\n"
        text = f"{head}scheduler:\n  {key}\noptimizer:\n  lr: {lr}\n"
        (folder / "arm" / f"{name}.yaml").write_text(text)
    return folder


@pytest.mark.slow
def test_schedules_with_their_own_keys_and_lrs_are_judged(
    tmp_path: Path, mine: Path, main: Main
) -> None:
    """The command of the README."""
    done = main(
        "--config-dir", mine, "-m", f"arm={','.join(ARMS)}", "seed=range(0,8)",
        "dataset=synthetic", "dataset.images=200", "dataset.image_size=4", "model.width=1", "trainer.epochs=3",
        "tracking=none", f"hydra.sweep.dir={tmp_path}/sweep", f"store.dir={tmp_path}/store",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "judged by: arm=cosine, one_cycle against step" in done.stderr
    verdict = json.loads((tmp_path / "sweep/verdict.json").read_text())
    assert verdict["claim"]["factor"] == "arm"
    assert verdict["claim"]["inferred"]
    found = {one["treatment"]: one for one in verdict["comparisons"]}
    assert {*found} == {"cosine", "one_cycle"}
    assert {one["n"] for one in found.values()} == {8}
    assert "invalid" not in {one["verdict"] for one in found.values()}
    assert "Given these LRs: 0.1 against 0.2." in found["cosine"]["sentence"]
    plan = json.loads((tmp_path / "sweep/plan.json").read_text())
    kinds = {run["differs"].get("scheduler", plan["config"]["scheduler"])["kind"] for run in plan["arms"]}  # fmt: skip
    assert kinds == {"step", "cosine", "one_cycle"}


def test_the_file_of_the_readme_is_an_arm(tmp_path: Path, main: Main) -> None:
    text = (ROOT / "README.md").read_text().partition("## Your own arms")[2]
    (block,) = re.findall(r"\n\n((?:    .*\n)*    # @package(?:.*\n)+?)\n", text)
    (tmp_path / "arm").mkdir()
    file = "\n".join(line.removeprefix("    ") for line in block.splitlines())
    (tmp_path / "arm/step.yaml").write_text(file)
    done = main("--config-dir", tmp_path, "arm=step", "--cfg", "job")
    assert "lr: 0.2" in done.stdout
    assert "step_size: 15" in done.stdout


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("scheduler.gamma=0.5", "scheduler.gamma=0.5: is a key of step, and not of one_cycle; "),
        ("++scheduler.gamma=0.5", "scheduler=one_cycle: scheduler.gamma=0.5: is a key of step, and not of one_cycle; "),
        ("scheduler.gamma=0.1,0.5", "scheduler=one_cycle, gamma=0.1: scheduler.gamma=0.1: is a key of step, and not of one_cycle; "),
    ],
)  # fmt: skip
def test_a_key_that_not_all_swept_schedulers_have_leads_to_arms(
    tmp_path: Path, main: Main, override: str, line: str
) -> None:
    done = main(
        "-m", "scheduler=step,one_cycle", override, "tracking=none",
        f"hydra.sweep.dir={tmp_path}/sweep", f"store.dir={tmp_path}/store",
    )  # fmt: skip
    assert done.returncode == 1
    (error,) = done.stderr.splitlines()
    assert error.startswith(f"error: {line}")
    arms = "make arms: a file conf/arm/NAME.yaml for each, then arm=A,B (README, “Your own arms”)"
    assert error.endswith(arms)
    assert not (tmp_path / "sweep/plan.json").exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("defaults:\n  - override /scheduler: step\nscheduler:\n  gamma: 0.5\n", "# @package _global_"),
        ("# @package _global_\ndefaults:\n  - /scheduler: step\n", "override /scheduler"),
        ("# @package _global_\ndefaults:\n  - override scheduler: step\n", "- override /scheduler: CHOICE"),
        ("defaults:\n  - override scheduler: step\n", "- override /scheduler: CHOICE, and the first line is # @package"),
        ("# @package _global_\ndefaults:\n  - scheduler: step\n", "- override /scheduler: CHOICE"),
        ("# @package _global_\ndefaults:\n  - override /scheduler:step\n", "write - override /scheduler: step"),
        ("# @package _global_\ndefaults:\n  - override /schedular: step\n", "/schedular: is no group; did you mean scheduler?"),
        ("# @package _global_\ndefaults:\n  override /scheduler: step\n", "arm/own.yaml: defaults is a list"),
        ("# @package _global_\nscheduler: step\n", "below defaults:, with - override /scheduler: step"),
        ("# @package _global_\noptimizer:\n  lr=0.2\n", "a space follows the colon; write lr: 0.2"),
        ("# @package _global_\noptimizer:\n  lr: 0,2\n", "a fraction has a point, 0.2"),
        ("# @package _global_\noptimizer.lr: 0.2\n", "optimizer: and, indented below it, lr: VALUE"),
        ("# @package _global_\noptimizer:\n\tlr: 0.2\n", "arm/own.yaml, line 3: begins with a tab; YAML takes spaces"),
        ("# @package _global_\noptimizer:\n  lr: 0.2\n   nesterov: true\n", "arm/own.yaml, line 4: is indented further"),
        ("# @package _global_\noptimizer:\nlr: 0.2\n", "arm/own.yaml: optimizer: has no keys below it"),
        ("scheduler:\n  t_0: 7\n", "# @package _global_"),
        ("# @package _global_\nscheduler:\n  gamma: 0.5\n", "scheduler.gamma"),
        ("# @package _global_\noptimizer:\n  lrs: 0.5\n", "did you mean lr?"),
    ],
    ids=[
        "without a package", "without override", "without a slash", "without a slash and a package",
        "without a slash and override", "without a space", "a group that is none", "without a dash",
        "a choice as a value", "= in a file", "a decimal comma", "a dotted key", "a tab", "indented too far",
        "not indented", "without both", "a key of another", "misspelt",
    ],
)  # fmt: skip
def test_a_mistake_in_an_arm_is_one_line(tmp_path: Path, main: Main, text: str, line: str) -> None:
    (tmp_path / "arm").mkdir()
    (tmp_path / "arm/own.yaml").write_text(text)
    done = main("--config-dir", tmp_path, "arm=own", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 1
    (error,) = done.stderr.splitlines()
    assert line in error
