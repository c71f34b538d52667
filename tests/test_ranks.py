"""Which process of a run this one is, as torchrun and Slurm say."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from harness.training import ranks as processes
from harness.training.ranks import ProcessRank, first_host, process_rank

STEP = {
    "SLURM_JOB_ID": "1001", "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "node[07-08]",
}  # fmt: skip


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        pytest.param({}, ProcessRank(), id="alone"),
        pytest.param(
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, ProcessRank(5, 8, 1, "env://"),
            id="torchrun",
        ),
        pytest.param({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, ProcessRank(), id="torchrun of 1"),
        pytest.param(STEP, ProcessRank(3, 4, 1, "tcp://node07:23033"), id="srun"),
        pytest.param(
            STEP | {"SLURM_STEP_NUM_NODES": "1"}, ProcessRank(3, 4, 1, "tcp://127.0.0.1:23033"),
            id="srun on one node",
        ),
        pytest.param(
            STEP | {"MASTER_ADDR": "login", "MASTER_PORT": "9"}, ProcessRank(3, 4, 1, "tcp://login:9"),
            id="srun, with its address",
        ),
        pytest.param(
            STEP | {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, ProcessRank(1, 2, 1, "env://"),
            id="torchrun in srun",
        ),
        pytest.param(STEP | {"SLURM_STEP_NUM_TASKS": "1"}, ProcessRank(), id="srun of one task"),
        pytest.param(
            {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, ProcessRank(),
            id="in a batch script, without srun",
        ),
    ],
)  # fmt: skip
def test_the_seat_is_what_the_starter_gave(env: Mapping[str, str], expected: ProcessRank) -> None:
    assert process_rank(env) == expected


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu1", "gpu1"), ("a,b", "a"), ("node[03-05,9],gpu1", "node03"), ("n[7,9]-ib", "n7-ib"),
        ("rack[1-2]node[3-4]", "rack1node3"),
    ],
)  # fmt: skip
def test_the_first_of_slurms_nodes(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_a_sweep_of_one_process_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    processes.refuse_sweep()
