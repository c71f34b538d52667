"""Runs of a W&B project are read from a server on loopback, to which real clients uploaded them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import polars as pl
import pytest
import wandb
import wandb_server
from conftest import essential
from wandb_server import Server

from harness.config.errors import ConfigError
from harness.reading import wandb_api

ROWS = 30


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with four runs of the project `p`: t_mult 1 and 2, seeds 0 and 1; the last failed."""
    folder = tmp_path_factory.mktemp("wandb")
    wandb.teardown()  # of runs in other tests of this process
    with pytest.MonkeyPatch.context() as patch, wandb_server.serve() as running:
        _use(patch, running, folder)
        for number in range(4):
            _upload(number, folder)
        wandb.teardown()
        assert running.unknown == []
        yield running


@pytest.fixture
def server(uploaded: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """The server, as the one that this process reads from."""
    _use(monkeypatch, uploaded, tmp_path)
    uploaded.requests = 0
    yield uploaded
    wandb.teardown()
    assert uploaded.unknown == []
    uploaded.fault, uploaded.fault_after, uploaded.faults_left = None, None, None
    uploaded.parquet = False


def _use(patch: pytest.MonkeyPatch, server: Server, home: Path) -> None:
    for name, value in {**server.environment(), "HOME": str(home)}.items():
        patch.setenv(name, value)
    patch.setenv("WANDB_ERROR_REPORTING", "false")
    patch.setenv("WANDB_MODE", "online")


def _upload(number: int, folder: Path) -> None:
    t_mult, seed = number // 2 + 1, number % 2
    run = wandb.init(
        project="p", id=f"id{number}", name=f"run {number}", group=f"t{t_mult}", job_type="train",
        tags=["all", f"seed{seed}"], dir=folder, config={"seed": seed, "scheduler": {"t_mult": t_mult}},
        settings=wandb.Settings(silent=True, console="off"),
    )  # fmt: skip
    for step in range(ROWS):
        run.log({"loss": {"train": 1 / (step + 1 + seed)}, "acc": 0.1 + number * step / 7}, step=10 * step)  # fmt: skip
    run.log({"odd": float("nan"), "inf": float("-inf"), "text": "so", "acc": 5e-324}, step=1000)
    run.summary["test/acc"] = 0.1 + 0.2
    run.finish(exit_code=int(number == 3))


def _sent(server: Server, number: int) -> list[tuple[int, float]]:
    lines = server.runs[f"id{number}"].streams["wandb-history.jsonl"]
    rows = map(json.loads, lines)
    return [(row["_step"], row["acc"]) for row in rows]


@pytest.mark.parametrize("parquet", [False, True])
def test_all_rows_arrive_to_the_last_bit(server: Server, parquet: bool) -> None:
    server.parquet = parquet
    found = wandb_api.read("wandb:tester/p", {})
    assert found.runs["run"].to_list() == [f"run {number}" for number in range(4)]
    assert found.runs["status"].to_list() == ["complete"] * 3 + ["failed"]
    assert found.runs["where"][0] == f"{server.url}/tester/p/runs/id0"
    for number in range(4):
        own = found.curves.filter(run=number)
        accuracies = own.filter(pl.col("acc").is_not_null())
        assert accuracies.select("step", "acc").rows() == _sent(server, number)
        assert own["test/acc"].drop_nulls().to_list() == [0.1 + 0.2]
        assert own["step"][-1] == 1000, "what only the summary has is at the last step"
        assert own["odd"].is_nan().sum() == 1
        assert own["inf"].drop_nulls().to_list() == [float("-inf")]
    if not parquet:  # which wandb_server.py writes without text
        assert found.notes == ("columns without numbers are left out: text",)
    assert json.loads(found.runs["settings"][3]) == {
        "group": "t2", "job_type": "train", "tags": "all, seed1", "seed": 1, "scheduler.t_mult": 2,
    }  # fmt: skip


def test_runs_come_in_pages(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_api, "_RUNS_A_PAGE", 3)
    monkeypatch.setattr(wandb_api, "_ROWS_A_PAGE", 7)
    found = wandb_api.read("wandb:p", {})  # of the default entity
    assert len(found.runs) == 4
    for number in range(4):
        rows = found.curves.filter(pl.col("run") == number, pl.col("acc").is_not_null())
        assert rows.select("step", "acc").rows() == _sent(server, number)
    assert "WANDB_SERVICE" not in os.environ, "wandb's service ended with the folder where it logs"


FILTERS: dict[str, tuple[dict[str, str], list[int]]] = {
    "group": ({"group": "t2"}, [2, 3]),
    "state": ({"state": "failed"}, [3]),
    "tag": ({"tags": "seed1"}, [1, 3]),
    "a number of the config": ({"config.seed": "0"}, [0, 2]),
    "a nested key": ({"config.scheduler.t_mult": "1"}, [0, 1]),
    "two": ({"config.seed": "1", "job_type": "train", "group": "t1"}, [1]),
}


@pytest.mark.parametrize("name", FILTERS)
def test_the_server_filters(server: Server, name: str) -> None:
    where, numbers = FILTERS[name]
    found = wandb_api.read("wandb:tester/p", where)
    assert found.runs["run"].to_list() == [f"run {number}" for number in numbers]


REFUSED: dict[str, tuple[str, dict[str, str], str]] = {
    "no such project": ("wandb:tester/other", {}, "wandb:tester/other: there is no such project"),
    "no such entity": ("wandb:nobody/p", {}, "wandb:nobody/p: there is no such project"),
    "no such run": ("wandb:tester/p", {"group": "x"}, "wandb:tester/p: there is no run with group=x"),
    "a filter": ("wandb:tester/p", {"colour": "red"}, "colour: W&B filters by group, job_type"),
    "an address": ("wandb:a/b/c", {}, "wandb:a/b/c: must be wandb:ENTITY/PROJECT"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_there_is_one_line(server: Server, name: str) -> None:
    address, where, message = REFUSED[name]
    assert _refusal(address, where).startswith(message)


def _refusal(address: str, where: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as refused:
        wandb_api.read(address, where)
    message = str(refused.value)
    assert "\n" not in message
    assert wandb_server.KEY not in message
    return message


def test_no_key_is_one_line(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    assert _refusal("wandb:tester/p", {}).endswith("there is no W&B key; run `wandb login`")


@pytest.mark.slow
def test_a_rate_limit_is_waited_for(server: Server) -> None:
    server.fault, server.faults_left = "429", 2
    assert len(wandb_api.read("wandb:tester/p", {"group": "t1"}).runs) == 2
    assert server.fault is None


FAULTS = [(7, "hang"), (0, "hang"), (7, "500"), (0, "500"), (7, "429"), (0, "429")]


@pytest.mark.parametrize("case", essential(FAULTS, 2))
def test_a_server_that_does_not_answer_is_one_line(
    server: Server, monkeypatch: pytest.MonkeyPatch, case: tuple[int, str]
) -> None:
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "1")
    server.fault_after = case
    message = _refusal("wandb:tester/p", {})
    assert "refused, or did not answer in time" in message
    assert server.requests > case[0]


def test_a_dead_address_is_one_line(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "1")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 refused" in _refusal("wandb:tester/p", {})


def test_settings_that_wandb_refuses_are_one_line(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb.teardown()
    monkeypatch.setenv("WANDB_BASE_URL", "nonsense")
    assert "should be a valid URL" in _refusal("wandb:tester/p", {})
    monkeypatch.setenv("WANDB_BASE_URL", server.url)


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [False, True])
def test_the_command_ends_though_wandb_would_wait(
    server: Server, tmp_path: Path, stopped: bool
) -> None:
    server.fault = "hang"
    longest = os.environ | {"WANDB_HTTP_TIMEOUT": "300" if stopped else "1"}
    words = ("scripts/judge.py", "wandb:tester/p", f"--out={tmp_path / 'out'}")
    program = forked.Program(tmp_path / "log", *words, env=longest)
    program.until(lambda: server.requests)
    if stopped:
        program.send_signal(signal.SIGINT)
    assert program.wait() != 0
    assert stopped or "did not answer in time" in program.said


def test_a_mode_of_new_runs_does_not_matter(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert len(wandb_api.read("wandb:tester/p", {"group": "t1"}).runs) == 2


def test_a_service_that_does_not_end_is_ended(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, stopped = wandb_api._end_service, []

    def stop_then_end() -> None:
        process = wandb.setup().assert_service()._proc._process  # type: ignore[union-attr]
        process.send_signal(signal.SIGSTOP)
        end()
        stopped.append(process.returncode)

    monkeypatch.setattr(wandb_api, "_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(wandb_api, "_end_service", stop_then_end)
    assert len(wandb_api.read("wandb:tester/p", {"group": "t1"}).runs) == 2
    assert stopped == [-signal.SIGKILL]


def test_nothing_is_left_in_the_users_folders(server: Server, tmp_path: Path) -> None:
    before: Any = set(tmp_path.rglob("*.parquet"))
    server.parquet = True
    wandb_api.read("wandb:tester/p", {"group": "t1"})
    assert set(tmp_path.rglob("*.parquet")) == before
