"""Ensembles of the checkpoints at the ends of cycles."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Main
from test_advice import BASE, places


def snapshots(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    """What `scripts/snapshot_ensemble.py WORDS` exits with."""
    monkeypatch.setattr(sys, "argv", ["snapshot_ensemble.py", *words])
    try:
        runpy.run_path(str(ROOT / "scripts/snapshot_ensemble.py"), run_name="__main__")
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.mark.slow
def test_runs_without_checkpoints_are_named_and_keep_their_ensembles(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ("-m", *BASE, "scheduler.t_0=1", "scheduler.t_mult=1", "seed=0,1")
    assert main(*base, *places(tmp_path)).returncode == 0
    sweep = tmp_path / "sweep"
    capsys.readouterr()
    assert snapshots(monkeypatch, str(sweep)) == 0
    head, _, line, following = capsys.readouterr().out.splitlines()
    assert head.split() == ["test/acc", "%,", "by", "members", "1", "2", "3"]
    assert re.fullmatch(r"run( +\d+\.\d\d ± \d+\.\d\d){3}", line)
    assert following == f"python scripts/report.py {sweep}  # shows it in report.html"
    before = [(sweep / f"{number}/snapshots.json").read_bytes() for number in range(2)]
    assert [len(json.loads(content)["test/acc"]) for content in before] == [3, 3]

    first = json.loads((sweep / "0/result.json").read_text())
    for path in (tmp_path / "store" / first["fingerprint"]).glob("*.json"):
        path.unlink()
    code = snapshots(monkeypatch, str(sweep))
    assert str(code).startswith("error: no checkpoint of a cycle end is stored of ")
    assert f"{sweep}/0 (store.dir={tmp_path}/store);" in str(code)
    assert [(sweep / f"{number}/snapshots.json").read_bytes() for number in range(2)] == before

    advice = ("store.keep=cycles", f"store.dir={tmp_path}/other", f"hydra.sweep.dir={tmp_path}/new")
    assert main(*base, *places(tmp_path), *advice).returncode == 0
    assert snapshots(monkeypatch, str(tmp_path / "new")) == 0
    assert (tmp_path / "new/0/snapshots.json").read_bytes() == before[0]


@pytest.mark.slow
def test_fewer_checkpoints_than_cycles_are_warned_of(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("-m", *BASE, "scheduler.t_0=1", "scheduler.t_mult=1", "seed=0,1", "store.keep=last")
    assert main(*words, *places(tmp_path)).returncode == 0
    assert snapshots(monkeypatch, str(tmp_path / "sweep")) == 0
    assert f"warning: {tmp_path}/sweep/0: 1 of its last 3 cycle ends are stored" in capsys.readouterr().err  # fmt: skip


@pytest.mark.slow
def test_arms_of_one_name_in_two_sweeps_are_not_averaged(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweeps = [str(tmp_path / name / "sweep") for name in "ab"]
    for width, sweep in enumerate(sweeps, start=1):
        words = (*BASE, "scheduler.t_0=1", "scheduler.t_mult=1", "seed=0,1", f"model.width={width}")
        done = main("-m", *words, f"hydra.sweep.dir={sweep}", f"store.dir={tmp_path}/store")
        assert done.returncode == 0
    tables = []
    for given in (sweeps[:1], sweeps[1:], sweeps):
        capsys.readouterr()
        assert snapshots(monkeypatch, *given) == 0
        tables.append(capsys.readouterr().out)
    first, second, both = tables
    assert first.splitlines()[2] != second.splitlines()[2]
    assert both == f"{sweeps[0]}:\n{first}{sweeps[1]}:\n{second}"
