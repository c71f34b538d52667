"""Sweeps that tune and go on until decided, submitted to a real Slurm and left."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import verified
from test_stages import DIGITS, Whole, judged, trained, weights, with_second_look

from cluster.test_slurm import slurm_does, squeue, until
from cluster.test_submit import Sent, again, nothing_left_in_the_queue, script, submit  # noqa: F401

pytestmark = [
    pytest.mark.usefixtures("slurm", "nothing_left_in_the_queue"),
    pytest.mark.timeout(600),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The same sweep without Slurm."""
    return with_second_look(tmp_path_factory.mktemp("here"))


def sent_to_slurm(folder: Path, here: Whole) -> Sent:
    return submit(folder, *DIGITS, here.margin, f"store.dir={folder / 'store'}")


def assert_same(sent: Sent, here: Whole) -> None:
    assert judged(sent.folder) == judged(here.out)
    assert weights(sent.folder) == weights(here.out)
    assert weights(sent.folder / "tuning") == weights(here.out / "tuning")
    assert verified(sent.folder)


def test_each_stage_submits_the_next_one(tmp_path: Path, here: Whole) -> None:
    sent = sent_to_slurm(tmp_path, here)
    assert re.search(r"submitted: arms \d+, then \d+\n", sent.out)
    sent.finish()
    assert_same(sent, here)
    assert all(sent.starts(int(path.parent.name)) == 1 for path in sent.folder.glob("*/starts.txt"))
    logs = [(sent.folder / place / "report.log").read_text() for place in ("tuning", ".")]
    assert all(re.search(r"submitted: arms \d+, then \d+\n", log) for log in logs)
    assert "look 1 of 2, 6 of at most 8 pairs; " in logs[1]
    assert "verdict: " in logs[1]
    status = script("status", str(sent.folder)).stdout
    assert status.startswith("tuning:\n")
    unneeded = 16 - sum(map(len, trained(sent.folder).values()))
    assert status.count("not needed") == unneeded + (unneeded > 0)
    assert again(sent) == "nothing to submit: every arm has ended or is on its way\n"


def test_what_was_cancelled_goes_on_with_again(tmp_path: Path, here: Whole) -> None:
    """All jobs of the tuning, all of the claim, and at last a single run, which holds its look open."""
    sent = sent_to_slurm(tmp_path, here)
    for stage in (sent.folder / "tuning", sent.folder):
        until((stage / "jobs.json").exists, "the stage", 240)
        for job in squeue("%A"):
            slurm_does("scancel", job)
        until(lambda: not squeue("%A"), "an empty queue")
        assert "submitted: " in again(sent)
    slurm_does("scancel", sent.jobs()[11])
    sent.finish()
    assert (sent.folder / "report.log").read_text().count("submitted: ") == 0
    assert "interim" in (sent.folder / "report.log").read_text()
    assert "cancelled" in sent.states() or "killed" in sent.states()
    assert "submitted: " in again(sent)
    sent.finish()
    assert_same(sent, here)
