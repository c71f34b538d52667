"""Runs that were recorded offline are sent later."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_wandb_run import (  # noqa: F401
    LONG,
    SHORT,
    SWEEP,
    assert_arrived,
    assert_described,
    assert_published,
    call,
    environment,
    history,
    read,
    server,
    start,
    sync,
    train,
    wait_for_rows,
)
from wandb_server import Server


@pytest.mark.slow
def test_offline_runs_are_synced_once(server: Server, tmp_path: Path) -> None:
    train(tmp_path, None, *SWEEP)
    assert "5 runs uploaded" in sync(tmp_path, server, "out")
    for number in range(4):
        folder = tmp_path / "out" / str(number)
        assert_described(assert_arrived(server, folder), folder)
    assert_published(server, tmp_path / "out")
    before = server.requests
    assert "nothing to upload" in sync(tmp_path, server, "out")
    assert server.requests == before
    assert server.unknown == []

    train(tmp_path, None, *SWEEP, "hydra.sweep.dir=again/out")
    sync(tmp_path, server, "out", "again")
    for number in range(4):
        assert_arrived(server, tmp_path / "again/out" / str(number))


@pytest.mark.slow
def test_wandb_sync_itself_takes_the_offline_folder(server: Server, tmp_path: Path) -> None:
    train(tmp_path, None, *SHORT, "averages.ema=[0.99]")
    folder = read(tmp_path / "out/result.json")["tracking"]
    tool = [str(Path(sys.executable).parent / "wandb"), "sync", folder]
    subprocess.run(tool, env=environment(server), check=True, capture_output=True)
    assert_arrived(server, tmp_path / "out")


@pytest.mark.slow
def test_a_run_that_was_synced_when_it_was_stopped_is_completed(
    server: Server, tmp_path: Path
) -> None:
    """Here `wandb sync` would append the second attempt's rows to the first's."""
    each_row = (*LONG, "trainer.log_every=1")
    running = start(tmp_path, None, *each_row)
    wait_for_rows(tmp_path, running, 100)
    running.send_signal(signal.SIGTERM)
    assert running.wait() == 128 + signal.SIGTERM
    sync(tmp_path, server, "out")
    (arrived,) = server.runs.values()
    assert len(arrived.rows()) >= 100
    assert (arrived.exit_code, arrived.summary["status"]) == (1, "interrupted")
    train(tmp_path, None, *each_row)
    sync(tmp_path, server, "out")
    assert_arrived(server, tmp_path / "out")


@pytest.mark.slow
def test_a_run_that_the_server_refuses_does_not_keep_back_the_others(
    server: Server, tmp_path: Path
) -> None:
    train(tmp_path, None, *SWEEP)
    refused = read(tmp_path / "out/1/result.json")["run_id"]
    server.refused = refused
    done = call("scripts/wandb_sync.py", "out", cwd=tmp_path, server=server)
    assert done.returncode == 1
    assert "4 runs uploaded" in done.stdout
    first, second = done.stderr.splitlines()[-2:]
    assert first == "error: 1 not uploaded:"
    assert re.fullmatch(rf"out/1/wandb/offline-run-\S+-{refused}: .*it is not wanted.*", second)
    for number in (0, 2, 3):
        assert_arrived(server, tmp_path / "out" / str(number))
    assert_published(server, tmp_path / "out")
    server.refused = None
    assert "1 runs uploaded" in sync(tmp_path, server, "out")
    assert_arrived(server, tmp_path / "out/1")
