"""Several processes that train one run, against one that does: real ones, started as users start them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import forked
import numpy as np
import pytest
import torch
from conftest import ROOT, make_config
from golden import write_images
from torch import Tensor, nn

from harness import correct
from harness.config.errors import ConfigError
from harness.runs.context import RunContext
from harness.runs.run import run
from harness.runs.run_dir import RunInfo
from harness.runs.signals import RunInterruptedError
from harness.training import datasets as data
from harness.training.batches import EvalBatches, TrainBatches
from harness.training.distributed import SINGLE_PROCESS, World
from harness.training.ranks import ProcessRank

CPU = torch.device("cpu")
SMALL = (
    "tracking=none", "dataset.crop=1", "dataset.flip=true", "trainer.batch_size=93",
    "optimizer.lr=0.01", "scheduler=constant", "trainer.log_every=1", "trainer.evals_per_epoch=2",
)  # fmt: skip
UPDATES_PER_EPOCH = 12
OPTIMIZER = (
    "optimizer.groups=[{params: head.*, lr_factor: 3}]", "optimizer.no_decay=norm_bias",
    "optimizer.accumulate=2", "optimizer.clip=0.5",
)  # fmt: skip
AUGMENTED = (
    "dataset.rand_augment=9", "dataset.erase=0.5", "averages.ema=[0.5,0.9]", "averages.tail=[1]",
)  # fmt: skip
# `train.py` in float64, where rounding hides no error: in float32 an activation that rounding takes to
# the other side of ReLU's kink changes weights by 1e-5 within an epoch or two.
DOUBLE = """
import runpy, sys
from harness.choices import models
from harness.training import batches
build, normalise = models.ResNet.build, batches.Normalise.__call__
models.ResNet.build = lambda self, shape: build(self, shape).double()
batches.Normalise.__call__ = lambda self, pixels: normalise(self, pixels).double()
"""
# … and with a network that has no batch norm.
PLAIN = """
import runpy, sys
from torch import nn
from harness.choices import models
models.ResNet.build = lambda self, shape: nn.Sequential(
    nn.Conv2d(shape.channels, 4, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(36, shape.classes))
"""


def script(folder: Path, patches: str) -> Path:
    """`train.py` after `patches`."""
    path, train = folder / "patched.py", str(ROOT / "train.py")
    run = f"sys.argv[0] = {train!r}\nrunpy.run_path({train!r}, run_name='__main__')\n"
    path.write_text(patches + run)
    return path


def world(rank: int, size: int) -> World:
    return World(ProcessRank(rank, size))


# --- what each does ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [8, 93, 128])
def test_parts_are_all_of_it_and_weigh_one_on_average(count: int, size: int) -> None:
    worlds = [world(rank, size) for rank in range(size)]
    assert [i for w in worlds for i in range(count)[w.shard(count)]] == list(range(count))
    sizes = [len(range(count)[w.shard(count)]) for w in worlds]
    assert max(sizes) - min(sizes) <= 1
    weights = [w.loss_weight(count) for w in worlds]
    assert sum(weights) == pytest.approx(size)
    assert weights == pytest.approx([own * size / count for own in sizes])


def test_a_batch_with_less_than_an_image_a_process_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        world(0, 3).check(make_config("trainer.batch_size=2").trainer, CPU)
    assert str(error.value) == ("trainer.batch_size=2: must be at least the number of processes, 3")


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("source", ["memory", "disk", "per image"])
def test_the_parts_of_a_batch_are_the_batch(source: str, size: int, tmp_path: Path) -> None:
    settings = ["dataset.crop=1", "dataset.flip=true", "trainer.batch_size=31"]
    if source == "per image":
        settings += ["dataset=synthetic", "dataset.images=200", "dataset.rand_augment=9"]
    if source == "disk":
        root = write_images(tmp_path)
        settings += ["dataset=image_folder", f"dataset.root={root}", "dataset.image_size=8"]
        settings += ["dataset.workers=0"]
    config = make_config(*settings)
    splits = data.load(config.dataset)

    def batches(of: World) -> list[tuple[Tensor, Tensor]]:
        return list(TrainBatches(splits, config, CPU, of).epoch(2, start=1))

    whole, parts = batches(SINGLE_PROCESS), [batches(world(rank, size)) for rank in range(size)]
    assert len(whole) > 2
    for number, (images, labels) in enumerate(whole):
        assert torch.equal(torch.cat([part[number][0] for part in parts]), images)
        assert torch.equal(torch.cat([part[number][1] for part in parts]), labels)


@pytest.mark.parametrize("size", [2, 3, 500])
@pytest.mark.parametrize("source", ["memory", "disk"])
def test_evaluation_sees_every_image_once(source: str, size: int, tmp_path: Path) -> None:
    settings = []
    if source == "disk":
        root = write_images(tmp_path)
        settings = ["dataset=image_folder", f"dataset.root={root}", "dataset.image_size=8"]
        settings += ["dataset.workers=0"]
    config = make_config(*settings)
    splits = data.load(config.dataset)

    def images(of: World) -> list[Tensor]:
        return [x for x, _ in EvalBatches(splits.val, splits, config, CPU, of)]

    parts = [part for rank in range(size) for part in images(world(rank, size))]
    assert torch.equal(torch.cat(parts), torch.cat(images(SINGLE_PROCESS)))


def test_alone_nothing_changes() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    assert (
        SINGLE_PROCESS.wrap_ddp(SINGLE_PROCESS.convert_sync_batch_norm(network, CPU), CPU)
        is network
    )
    assert type(network[1]) is nn.BatchNorm2d
    assert SINGLE_PROCESS.all_reduce_stop_and_save(None, due=True) == (None, True)
    with SINGLE_PROCESS.process_group(), SINGLE_PROCESS.rank_zero_first():
        assert not torch.distributed.is_initialized()
    before = torch.get_rng_state()
    SINGLE_PROCESS.reseed(0, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_processes_draw_other_dropout_than_each_other_at_every_update() -> None:
    def drawn(rank: int, seed: int, updates: int) -> float:
        torch.manual_seed(1)
        world(rank, 4).reseed(seed, updates)
        return torch.rand(()).item()

    cases = [
        (rank, seed, updates) for rank in (1, 2, 3) for seed in (0, 1) for updates in (0, 1, 2)
    ]
    draws = {case: drawn(*case) for case in cases}
    assert len(set(draws.values())) == len(cases)
    assert all(drawn(*case) == draw for case, draw in draws.items()), "and again the same"
    assert drawn(0, 0, 1) == drawn(0, 1, 2), "the first goes on with the generator it has"


# --- real processes ------------------------------------------------------------------------------


def environment(**extra: str) -> dict[str, str]:
    """Without a network, and without what started this process, if Slurm did."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "RANK", "WORLD_"))}
    return env | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | extra


def torchrun(size: int, script: Path | str, *arguments: str) -> list[str]:
    run = ["torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    return [sys.executable, "-m", *run, str(script), *arguments]


def settings(folder: Path, *overrides: str) -> list[str]:
    return [*SMALL, f"store.dir={folder}.store", *overrides, f"hydra.run.dir={folder}"]


def train(folder: Path, *overrides: str, size: int, script: Path = ROOT / "train.py") -> Any:
    """What `result.json` of the run in `folder` says, trained by `size` processes."""
    run_together(size, script, *settings(folder, *overrides), cwd=folder.parent)
    return json.loads((folder / "result.json").read_text())


def run_together(size: int, script: Path, *arguments: str, cwd: Path) -> None:
    """Run the script in `size` processes that find in the environment what torchrun puts there."""
    ranks = environment(WORLD_SIZE=f"{size}", MASTER_ADDR="127.0.0.1", MASTER_PORT=f"{free_port()}")
    with TemporaryDirectory() as logs:
        programs = [
            forked.Program(
                Path(logs, f"{rank}"), str(script), *arguments, cwd=cwd,
                env=ranks | {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}"},
            )
            for rank in range(size)
        ]  # fmt: skip
        codes = [program.wait() for program in programs]
        assert codes == [0] * size, [program.said for program in programs]


def history(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, Tensor]:
    """Of the longest checkpoint in the store beside `folder`."""
    last = max(Path(f"{folder}.store").glob("*/*.pt"), key=lambda path: path.name)
    state: dict[str, Tensor] = torch.load(last, weights_only=True)["network"]
    return state


def assert_close(folder: Path, other: Path, updates: int, tolerance: float = 1e-5) -> None:
    rows, others = history(folder), history(other)
    assert len(rows) == len(others) == updates
    for row, expected in zip(rows, others, strict=True):
        assert row == pytest.approx(expected, rel=max(tolerance, 1e-6))  # evaluated in float32
    ours, theirs = weights(folder), weights(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=tolerance, atol=tolerance)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "epochs", "overrides", "updates"),
    [
        pytest.param(2, 1, (), UPDATES_PER_EPOCH, id="2"),
        pytest.param(3, 1, (), UPDATES_PER_EPOCH, id="3"),
        pytest.param(2, 1, OPTIMIZER, UPDATES_PER_EPOCH // 2, id="2, accumulating in groups"),
        pytest.param(2, 2, AUGMENTED, 2 * UPDATES_PER_EPOCH, id="2, augmented, with averages"),
    ],
)
def test_several_processes_train_what_one_does(
    size: int, epochs: int, overrides: tuple[str, ...], updates: int, tmp_path: Path
) -> None:
    double, several = script(tmp_path, DOUBLE), tmp_path / "several"
    words = (f"trainer.epochs={epochs}", *overrides)
    subprocess.run(
        torchrun(size, double, *settings(several, *words)),
        capture_output=True, check=True, env=environment(), cwd=tmp_path,
    )  # fmt: skip
    result = json.loads((several / "result.json").read_text())
    others = files(tmp_path)
    alone = train(tmp_path / "one", *words, size=1, script=double)
    assert_close(tmp_path / "several", tmp_path / "one", updates, 1e-12)
    assert result["numerics"] == alone["numerics"] | {"processes": size}
    for key in ("run_id", "fingerprint", "status", "updates_trained", "exact", "restarts"):
        assert result[key] == alone[key], key
    assert result["test"] == pytest.approx(alone["test"], rel=1e-5)
    bits, of_one = (correct.read(tmp_path / name / correct.FILE) for name in ("several", "one"))
    assert (list(bits)[:2], len(bits["val"])) == (["val", "test"], 288)
    assert list(bits) == list(of_one)
    assert all(np.array_equal(bits[split], of_one[split]) for split in bits)
    assert [correct.read(path) for path in Path(f"{several}.store").glob("*/*.npz")]
    assert files(tmp_path / "several") == files(tmp_path / "one")
    assert {name.split("/")[0] for name in others} == {"patched.py", "several", "several.store"}


@pytest.mark.slow
def test_in_float32_they_do_to_five_digits(tmp_path: Path) -> None:
    for name, size in (("several", 2), ("one", 1)):
        train(tmp_path / name, "trainer.epochs=1", "optimizer.lr=1e-4", size=size)
    assert_close(tmp_path / "several", tmp_path / "one", UPDATES_PER_EPOCH)


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["0/202.png", "9/254.png"])
def test_a_test_set_that_one_of_them_cannot_read_costs_the_test_accuracy_alone(
    tmp_path: Path, broken: str
) -> None:
    """The image breaks after it was looked at: here, it is only remembered as whole."""
    root = write_images(tmp_path / "images")
    for path in root.rglob("*.png"):
        os.utime(path, (1e9, 1e9))
    words = (
        "dataset=image_folder",
        f"dataset.root={root}",
        "dataset.image_size=8",
        "dataset.workers=0",
    )
    make_config(*words).dataset.check()
    path = root / "test" / broken
    path.write_bytes(b"x" * path.stat().st_size)
    os.utime(path, (1e9, 1e9))
    result = train(tmp_path / "run", *words, "trainer.batch_size=60", "trainer.epochs=1", size=2)
    assert (result["status"], result["test"]) == ("complete", {})
    assert "the test set cannot be read" in result["no_test"]
    assert result["final"]
    assert list(correct.read(tmp_path / "run" / correct.FILE)) == ["val"]


@pytest.mark.slow
def test_so_does_a_network_without_batch_norm(tmp_path: Path) -> None:
    plain = script(tmp_path, PLAIN)
    for name, size in (("several", 2), ("one", 1)):
        train(tmp_path / name, "trainer.epochs=1", size=size, script=plain)
    assert_close(tmp_path / "several", tmp_path / "one", UPDATES_PER_EPOCH, 1e-6)
    assert not any("running" in name for name in weights(tmp_path / "several"))


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 2)])
def test_a_checkpoint_goes_on_with_another_number_of_processes(
    first: int, second: int, tmp_path: Path
) -> None:
    double = script(tmp_path, DOUBLE)
    train(tmp_path / "run", "trainer.epochs=1", size=first, script=double)
    shutil.rmtree(tmp_path / "run")  # the store is beside it
    result = train(tmp_path / "run", "trainer.epochs=2", size=second, script=double)
    train(tmp_path / "one", "trainer.epochs=2", size=1, script=double)
    assert result["updates_reused"] == UPDATES_PER_EPOCH
    assert not result["exact"]
    assert result["numerics"]["processes"] == second
    assert_close(tmp_path / "run", tmp_path / "one", 2 * UPDATES_PER_EPOCH, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_an_end_of_an_old_store_is_evaluated_again_by_all_of_them(
    size: int, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    train(folder, "trainer.epochs=1", size=1)
    before = correct.read(folder / correct.FILE)
    for again in ("evaluated", "found"):
        shutil.rmtree(folder)
        if again == "evaluated":
            next(Path(f"{folder}.store").glob("*/*.npz")).unlink()
        result = train(folder, "trainer.epochs=1", size=size)
        assert result["updates_trained"] == 0
        found = correct.read(folder / correct.FILE)
        assert list(found) == ["val", "test"]
        assert all(np.array_equal(found[split], before[split]) for split in found)


@pytest.mark.slow
def test_going_on_draws_the_same_dropout(tmp_path: Path) -> None:
    dropping = (
        "model=torchvision", "model.arch=mobilenet_v3_small", "dataset=synthetic",
        "dataset.image_size=32", "dataset.images=80", "dataset.classes=2", "trainer.batch_size=8",
    )  # fmt: skip
    train(tmp_path / "run", *dropping, "trainer.epochs=1", size=2)
    shutil.rmtree(tmp_path / "run")  # the store is beside it
    result = train(tmp_path / "run", *dropping, "trainer.epochs=2", size=2)
    expected = train(tmp_path / "whole", *dropping, "trainer.epochs=2", size=2)
    assert result["updates_reused"] > 0
    assert result["exact"]
    assert result["weights_sha256"] == expected["weights_sha256"]


EXACT = """
import sys, torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from harness.training import distributed, ranks as processes
from harness.training.loop import Precision, TrainStep, TrainState
from harness.training.schedules import Schedule
world, cpu = distributed.World(processes.process_rank()), torch.device("cpu")
class Never:
    def advance(self, updates): pass
with world.process_group():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).double()
    images, labels = torch.randn(6, 7, 1, 8, 8).double(), torch.randint(3, (6, 7))
    network.eval()(images[0])
    network = world.convert_sync_batch_norm(network.train(), cpu)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5, momentum=0.9)
    state = TrainState(network, optimizer, Never(), torch.amp.GradScaler("cpu", enabled=False))
    own, together, exchanges = world.shard(7), int(sys.argv[2]), []
    forward, weight = world.wrap_ddp(network, cpu), world.loss_weight(7) / together
    def count(group, bucket):
        exchanges.append(bucket.index())
        return allreduce_hook(group, bucket)
    if world.size > 1:
        forward.register_comm_hook(None, count)
    step = TrainStep(forward, Precision("fp32", cpu), 0.1, world, weight, accumulate=together, clip=0.5)
    parts = [(x[own], y[own]) for x, y in zip(images, labels)]
    for begin in range(0, len(parts), together):
        first, *more = parts[begin : begin + together]
        state.pending_losses.append(step.train(state, *first, more))
    assert len(exchanges) == (world.size > 1) * len(parts) / together, exchanges
    state.last_loss = lambda: None
    result = {"losses": torch.stack(state.pending_losses), **network.state_dict()}
    torch.save(result, f"{sys.argv[1]}/{world.size}.{world.rank}.pt")
"""


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 3])
def test_gradients_are_those_of_the_whole_batch_to_the_last_digits(
    accumulate: int, tmp_path: Path
) -> None:
    """In float64, where rounding cannot hide an error: seven images, on one and three processes.

    They are exchanged once an update, and clipped after that.
    """
    exact = tmp_path / "exact.py"
    exact.write_text(EXACT)
    for size in (1, 3):
        run_together(size, exact, str(tmp_path), str(accumulate), cwd=ROOT)
    alone = torch.load(tmp_path / "1.0.pt")
    first = torch.load(tmp_path / "3.0.pt")
    for rank in range(3):
        other = torch.load(tmp_path / f"3.{rank}.pt")
        assert all(torch.equal(other[name], first[name]) for name in first)
    for name, tensor in alone.items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-12, atol=1e-12)


# Four processes on two nodes, by their local ranks; the last one ends as `sys.argv[2]` says.
TALK = """
import json, os, sys
from pathlib import Path
import torch
from harness.training import distributed, ranks as processes
from harness.training.distributed import RemoteRankError, PeerLostError
folder, end = Path(sys.argv[1]), sys.argv[2]
os.environ |= json.loads(sys.argv[3])
world = distributed.World(processes.process_rank())
rank, last = world.rank, world.rank == world.size - 1
said = {}
try:
    with world.process_group():
        with world.rank_zero_first(), (folder / "turns").open("a") as file:
            file.write(str(rank))
        said["signal of the third"] = world.all_reduce_stop_and_save(15 if rank == 2 else None, due=False)
        said["signals of two"] = world.all_reduce_stop_and_save({1: 10, 2: 12}.get(rank), due=False)
        said["due in the first"] = world.all_reduce_stop_and_save(None, due=rank == 0)
        said["due in others"] = world.all_reduce_stop_and_save(None, due=rank > 0)
        said["from the first"] = world.broadcast_from_rank_zero(lambda: {"rank": rank, "x": torch.tensor(1.5)})["rank"]
        said["sum"] = world.sum(torch.tensor(2.0**rank)).item()
        said["mean"] = world.mean(torch.tensor(2.0**rank)).item()
        with world.translate_peer_errors():
            if last and end == "fails":
                raise ValueError("it does not add up")
            if last and end == "is killed":
                os._exit(9)
            world.wait()
except (RemoteRankError, PeerLostError, ValueError) as error:
    said |= {"error": type(error).__name__, "why": str(error), "reports errors": world.reports_errors}
(folder / f"{rank}.json").write_text(json.dumps(said))
"""


@pytest.mark.parametrize("end", ["fails", "is killed"])
def test_what_processes_tell_each_other(tmp_path: Path, end: str) -> None:
    talk, port = tmp_path / "talk.py", str(free_port())
    talk.write_text(TALK)
    env = {"WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    seats = [env | {"RANK": str(rank), "LOCAL_RANK": str(rank % 2)} for rank in range(4)]
    programs = [
        forked.Program(tmp_path / f"log{rank}", str(talk), str(tmp_path), end, json.dumps(own))
        for rank, own in enumerate(seats)
    ]
    codes = [program.wait() for program in programs]
    assert codes == [0, 0, 0, 0 if end == "fails" else 9], [program.said for program in programs]
    turns = (tmp_path / "turns").read_text()
    assert (turns[:2], sorted(turns[2:])) == ("02", ["1", "3"])
    said = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("?.json"))]
    for one in said:
        assert one["signal of the third"] == [signal.SIGTERM, False]
        assert one["signals of two"] == [signal.SIGUSR2, False]
        assert one["due in the first"] == [None, True]
        assert one["due in others"] == [None, False]
        assert (one["from the first"], one["sum"], one["mean"]) == (0, 15, 3.75)
    if end == "fails":
        ended = [("RemoteRankError", False)] * 3 + [("ValueError", True)]
        assert [(one["error"], one["reports errors"]) for one in said] == ended
        reasons = {"process 3 of 4: it does not add up", "it does not add up"}
        assert {one["why"] for one in said} == reasons
        return
    assert [one["error"] for one in said] == ["PeerLostError"] * 3
    printed = [line for program in programs for line in program.said.splitlines()]
    lost = (
        r"error: process [0-2] of 4: another process of the run was killed or is out of reach; .*"
    )
    (line,) = printed
    assert re.fullmatch(lost, line)


TOGETHER = """
import json, sys, torch
from torch import nn
from harness.training import distributed, ranks as processes
from harness.training.loop import DivergedError, Precision, TrainStep, TrainState
world, cpu = distributed.World(processes.process_rank()), torch.device("cpu")
class Never:
    def advance(self, updates): pass
with world.process_group():
    own = world.shard(5)
    seen = {"mean": world.mean(torch.tensor(2.0 + world.rank)).item()}
    seen["sum"] = world.sum(torch.tensor([1.0, 10.0 * world.rank])).tolist()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    images, labels = torch.randn(5, 1, 2, 2)[own], torch.tensor([0, 1, 2, 0, 1])[own]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    state = TrainState(network, optimizer, Never(), torch.amp.GradScaler("cpu", enabled=False))
    step = TrainStep(network, Precision("fp32", cpu), 0.0, world, world.loss_weight(5))
    seen["row"] = state.checked(step.evaluate(network, [(images, labels)], "val"))
    seen["loss"] = step.loss(images, labels).detach()
    seen["loss"] = world.mean(seen["loss"]).item()
    if world.rank == world.size - 1:
        images[0, 0, 0, 0] = float("nan")  # in one process alone
    seen["ends"] = []
    try:
        state.checked(step.evaluate(network, [(images, labels)], "val"))
    except DivergedError as error:
        seen["ends"].append(str(error))
    state.pending_losses.append(step.train(state, images, labels))
    try:
        state.last_loss()
    except DivergedError as error:
        seen["ends"].append(str(error))
    with open(f"{sys.argv[1]}/{world.size}.{world.rank}.json", "w") as file:
        json.dump(seen, file)
"""


def test_means_and_sums_are_of_all_processes_and_a_nan_of_one_ends_all(tmp_path: Path) -> None:
    together = tmp_path / "together.py"
    together.write_text(TOGETHER)
    for size in (1, 2):
        run_together(size, together, str(tmp_path), cwd=ROOT)
    alone, first, second = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1.0", "2.0", "2.1")
    )
    assert first == second, "every process sees the same"
    assert (first["mean"], first["sum"]) == (2.5, [2.0, 10.0])
    assert (alone["mean"], alone["sum"]) == (2.0, [1.0, 0.0])
    assert first["row"] == pytest.approx(alone["row"], rel=1e-6), "parts of 2 and 3 images"
    assert first["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    ends = ["val/loss after update 0 is nan", "the loss of update 1 is nan"]
    assert first["ends"] == alone["ends"] == ends


# --- stopped, killed, refused --------------------------------------------------------------------

LONG = ("trainer.epochs=20", "trainer.checkpoint_every=0.2", "averages.ema=[0.9]")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Rank(forked.Program):
    """One process of a run."""

    def end(self) -> str:
        """What it printed to stderr, once it has ended."""
        self.wait()
        return self.errors.read_text()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode


@contextmanager
def step_of_two(
    folder: Path, *given: str, script: Path = ROOT / "train.py", fresh: bool = False
) -> Iterator[list[Rank]]:
    """Two processes as `srun` starts them, with nobody above who ends one when the other does."""
    overrides = [*SMALL, f"store.dir={folder}.store", f"hydra.run.dir={folder}"]
    arguments = sorted([*overrides, *given], key=lambda word: word != "-m")
    port = str(free_port())
    with TemporaryDirectory() as logs:
        started = [
            Rank(
                Path(logs, f"out{rank}"), str(script), *arguments,
                errors=Path(logs, f"errors{rank}"), cwd=folder.parent, fresh=fresh,
                env=environment(
                    SLURM_JOB_ID="1", SLURM_STEP_ID="0", SLURM_STEP_NUM_TASKS="2",
                    SLURM_STEP_NUM_NODES="1", SLURM_STEP_NODELIST="here", SLURM_PROCID=str(rank),
                    SLURM_LOCALID=str(rank), MASTER_PORT=port,
                ),
            )
            for rank in range(2)
        ]  # fmt: skip
        try:
            yield started
        finally:
            for process in started:
                process.kill()


def wait_for_rows(folder: Path, rows: int) -> None:
    end = time.monotonic() + 120
    while not (folder / "history.jsonl").exists() or len(history(folder)) < rows:
        assert time.monotonic() < end, "no rows came"
        time.sleep(0.02)


@pytest.mark.slow
def test_stopped_and_killed_runs_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    with step_of_two(run, *LONG) as (first, second):
        wait_for_rows(run, 30)
        second.kill()
        begin = time.monotonic()
        error = first.end()
        assert time.monotonic() - begin < 20
    assert error.splitlines()[-1] == (
        "error: process 0 of 2: another process of the run was killed or is out of reach; "
        "the same command goes on from the last checkpoint"
    )
    assert "Traceback" not in error
    assert json.loads((run / "result.json").read_text())["status"] == "interrupted"

    with step_of_two(run, *LONG, fresh=True) as (first, second):  # torch is silent, too
        wait_for_rows(run, 100)
        first.kill()  # it alone writes, and keeps the store where they meet
        error = second.end()
        assert error.startswith("error: process 1 of 2: another process of the run was killed")
        assert len(error.splitlines()) == 1

    with step_of_two(run, *LONG) as (first, second):
        wait_for_rows(run, 150)
        second.send_signal(signal.SIGTERM)
        error = first.end()
        assert second.end() == ""
        assert (first.returncode, second.returncode) == (143, 143)
    assert error.endswith("stopped by SIGTERM; the same command goes on from there\n")
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert result["updates_trained"] > 0

    result = train(run, *LONG, size=2)
    assert result["updates_reused"] >= 150
    assert result["exact"]
    expected = train(whole, *LONG, size=2)
    assert result["weights_sha256"] == expected["weights_sha256"]
    assert (run / "history.jsonl").read_bytes() == (whole / "history.jsonl").read_bytes()
    assert not list(Path(f"{run}.store").glob("*/*.training"))


BROKEN = """
import os, runpy, sys
from harness.training.loop import TrainStep
train = TrainStep.train
def broken(self, state, *batches):
    if state.updates == 5 and os.environ["SLURM_PROCID"] == "1":
        raise ArithmeticError("it does not add up")
    return train(self, state, *batches)
TrainStep.train = broken
"""


@pytest.mark.slow
def test_what_fails_in_one_process_is_said_by_it_and_recorded(tmp_path: Path) -> None:
    broken = script(tmp_path, BROKEN)
    with step_of_two(tmp_path / "run", script=broken) as started:
        first, second = (process.end() for process in started)
    assert [process.returncode for process in started] == [1, 1]
    assert first == ""
    assert second.splitlines()[-1] == "error: process 1 of 2: ArithmeticError: it does not add up"
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert (result["status"], result["error"]) == ("failed", "process 1 of 2: it does not add up")


@pytest.mark.slow
def test_sigterm_to_torchrun_leaves_a_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    endless = ("trainer.epochs=10000", "trainer.checkpoint_every=600")  # torchrun takes its time
    arguments = (*SMALL, *endless, f"store.dir={run}.store")
    with subprocess.Popen(
        torchrun(2, ROOT / "train.py", *arguments, f"hydra.run.dir={run}"),
        stderr=subprocess.PIPE, text=True, env=environment(), cwd=tmp_path,
    ) as started:  # fmt: skip
        wait_for_rows(run, 30)
        started.terminate()
        error = started.communicate(timeout=60)[1]
    assert "stopped by SIGTERM; the same command goes on from there" in error
    (checkpoint,) = Path(f"{run}.store").glob("*/*-*.json")
    assert json.loads(checkpoint.read_text())["step"] >= 30


def test_a_signal_that_comes_while_processes_agree_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agree, asked = World.all_reduce_stop_and_save, 0

    def interrupted(self: World, number: int | None, due: bool) -> tuple[int | None, bool]:
        nonlocal asked
        asked += 1
        reported = agree(self, number, due)
        if asked == 3:
            os.kill(os.getpid(), signal.SIGTERM)  # its handler runs before anything is returned
        return reported

    monkeypatch.setattr(World, "all_reduce_stop_and_save", interrupted)
    settings = make_config(*SMALL, "trainer.epochs=1", f"store.dir={tmp_path / 'store'}")
    with pytest.raises(RunInterruptedError) as stopped:
        run(RunContext(settings, RunInfo(tmp_path / "run", "run"))).to_json()
    assert (stopped.value.number, asked) == (signal.SIGTERM, 4)
    assert len(history(tmp_path / "run")) == 4


@pytest.mark.slow
def test_a_divergence_ends_all(tmp_path: Path) -> None:
    result = train(
        tmp_path / "run", "optimizer.lr=9e5", "trainer.epochs=2", "trainer.log_every=5", size=2
    )
    assert result["status"] == "diverged"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param(
            ("-m", "seed=0,1"),
            "error: -m: is started once, not by 2 processes; for several processes a run, "
            "use hydra/launcher=slurm hydra.launcher.tasks_per_node=2",
            id="a sweep",
        ),
        pytest.param(
            ("trainer.batch_size=1",),
            "trainer.batch_size=1: must be at least the number of processes, 2",
            id="a batch of one",
        ),
        pytest.param(
            ("trainer.batch_size=0",),
            "error: trainer.batch_size=0: must be a whole number ≥ 1",
            id="a bad value",
        ),
    ],
)
def test_what_does_not_fit_is_said_once(
    arguments: tuple[str, ...], line: str, tmp_path: Path
) -> None:
    with step_of_two(tmp_path / "run", *arguments) as started:
        errors = [process.end() for process in started]
    assert [process.returncode for process in started] == [1, 1]
    said = [one for error in errors for one in error.splitlines()]
    assert len(said) == 1, said
    assert line in said[0]
    assert {name.partition("/")[0] for name in files(tmp_path)} <= {"run"}


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_the_same(found: list[Any], own: object, group: object) -> None:
        found[:] = [own] * len(found)

    monkeypatch.setattr(torch.distributed, "all_gather_object", all_the_same)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: type("Properties", (), {"uuid": "a"})
    )
    trainer = make_config().trainer
    with pytest.raises(ConfigError) as error:
        world(0, 2).check(trainer, torch.device("cuda", 0))
    assert str(error.value) == (
        "trainer.device=auto: 2 processes need a GPU each, there are 1; start 1, or use "
        "trainer.device=cpu"
    )
    world(0, 2).check(trainer, torch.device("cpu"))
    world(0, 2).check(make_config("trainer.batch_size=2").trainer, CPU)
