"""Several processes that train one run, a slice of every batch each.

All run the same code; the first alone has a folder to write to, a store and a terminal.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    redirect_stderr,
    suppress,
)
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from harness.config.errors import ConfigError
from harness.config.schema import Trainer
from harness.training.ranks import ProcessRank
from harness.training.sync_batch_norm import BatchNorm

RENDEZVOUS_TIMEOUT = timedelta(minutes=10)  # from the first process's start to the last's
COLLECTIVE_TIMEOUT = timedelta(seconds=60)  # in training, after which a process counts as lost
BARRIER_TIMEOUT = timedelta(days=1)  # while the first waits for data, for other runs, for a disk

_LOST = (
    "another process of the run was killed or is out of reach; "
    "the same command goes on from the last checkpoint"
)

T = TypeVar("T")


class PeerLostError(SystemExit):
    """Another process of the run was killed, or is not heard of: this one cannot go on."""

    def __init__(self) -> None:
        super().__init__(1)

    def __str__(self) -> str:
        return _LOST


class RemoteRankError(Exception):
    """Another process of the run failed; the message is what it said."""


class World:
    """The processes of one run; alone, nothing is exchanged and no process group exists."""

    def __init__(self, process: ProcessRank) -> None:
        self.rank, self.size, self.local_rank = (
            process.rank,
            process.size,
            process.local_rank,
        )
        self.reports_errors = True  # not where another process has said why the run ends
        self._process = process
        self._store: Store | None = None
        self._control_group: ProcessGroup | None = None

    @contextmanager
    def process_group(self) -> Iterator[None]:
        """Join the process group of the run, and leave it at the end."""
        if self._process.address is None:
            yield
            return
        with self.translate_peer_errors():
            self._rendezvous(self._process.address)
        try:
            yield
        except Exception as error:
            self._end(str(error))  # before the others notice that this process has left
            raise
        finally:
            dist.destroy_process_group()

    def _rendezvous(self, address: str) -> None:
        self._store, _, _ = next(
            rendezvous(address, self.rank, self.size, timeout=RENDEZVOUS_TIMEOUT)
        )
        self._store.set(f"here/{self.rank}", "")
        self._store.wait([f"here/{rank}" for rank in range(self.size)], RENDEZVOUS_TIMEOUT)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=PrefixStore("run", self._store),
            rank=self.rank,
            world_size=self.size,
            timeout=COLLECTIVE_TIMEOUT,
        )
        patient = dist.new_group(backend="gloo", timeout=BARRIER_TIMEOUT)
        assert isinstance(patient, ProcessGroup)
        self._control_group = patient

    @contextmanager
    def translate_peer_errors(self) -> Iterator[None]:
        """Raise `PeerLostError` or `RemoteRankError` for what torch raises when another process ends."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise
            why = self._end(_LOST)
            if not why.endswith(_LOST):
                raise RemoteRankError(why) from error
            if self.reports_errors:
                print(f"error: {why}", file=sys.__stderr__, flush=True)
            raise PeerLostError from error

    def _end(self, reason: str) -> str:
        """Return why the run ends: `reason`, unless another process has given one before."""
        own = f"{self._process}: {reason}"
        first = own
        if self._store:
            with suppress(RuntimeError):  # the process that kept the store may be gone
                first = self._store.compare_set("end", "", own).decode()
        self.reports_errors = first == own
        return first

    # --- its own share ------------------------------------------------------------------------

    def shard(self, count: int) -> slice:
        """Return this process's share of `count` things; the sizes of the shares differ by one at most."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def loss_weight(self, count: int) -> float:
        """Return the weight of the mean over the own shard in the mean of all processes' means."""
        shard = self.shard(count)
        own: int = shard.stop - shard.start
        return own * self.size / count

    def reseed(self, seed: int, updates: int) -> None:
        """Seed dropout differently from the first process, whose generator is the one in checkpoints."""
        if self.rank:
            digest = hashlib.sha256(f"{seed}/{self.rank}/{updates}".encode()).digest()
            torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    @contextmanager
    def scratch_dir(self) -> Iterator[Path | None]:
        """Yield None in the first process; in others a folder that is removed at the end, with stderr silenced."""
        if self.rank == 0:
            yield None
            return
        with (
            tempfile.TemporaryDirectory() as folder,
            open(os.devnull, "w") as devnull,
            redirect_stderr(devnull),
        ):
            yield Path(folder)

    @contextmanager
    def rank_zero_first(self) -> Iterator[None]:
        """Run the block in the first process, then in the first of every other node, then in the rest."""
        turn = 0 if self.rank == 0 else 1 if self.local_rank == 0 else 2
        for _ in range(turn):
            self.wait()
        yield
        for _ in range(2 - turn):
            self.wait()

    # --- communication -------------------------------------------------------------

    def wait(self) -> None:
        """Wait until all processes have come here, however long one takes."""
        if self.size > 1:
            dist.barrier(group=self._control_group)

    def broadcast_from_rank_zero(self, make: Callable[[], T]) -> T:
        """Return what `make` returns in the first process, for which the others wait; tensors on the CPU."""
        if self.size == 1:
            return make()
        content: list[bytes | None] = [None]
        if self.rank == 0:
            buffer = io.BytesIO()
            torch.save(make(), buffer)
            content = [buffer.getvalue()]
        dist.broadcast_object_list(content, src=0, group=self._control_group)
        if content[0] is None:
            raise RuntimeError("the first process sent nothing")
        made: T = torch.load(io.BytesIO(content[0]), map_location="cpu", weights_only=False)
        return made

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over all processes, in place."""
        return self.sum(value).div_(self.size) if self.size > 1 else value

    def all_reduce_stop_and_save(self, signal: int | None, due: bool) -> tuple[int | None, bool]:
        """Return the signal that any process was sent, and whether the first is to write a checkpoint.

        Waits for the other processes, never for a GPU.
        """
        if self.size == 1:
            return signal, due
        message = torch.tensor([signal or 0, int(due and self.rank == 0)])
        dist.all_reduce(message, dist.ReduceOp.MAX)
        number, first_is_due = message.tolist()
        return number or None, bool(first_is_due)

    def check(self, trainer: Trainer, device: torch.device) -> None:
        """Raise `ConfigError` for batches of less than an image a process, and unless each process
        has a GPU of its own, or none has one."""
        if self.size == 1:
            return
        if trainer.batch_size < self.size:
            raise ConfigError(
                f"trainer.batch_size={trainer.batch_size}: "
                f"must be at least the number of processes, {self.size}"
            )
        own = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None
        all_: list[Any] = [None] * self.size
        dist.all_gather_object(all_, own, group=self._control_group)
        gpus = {gpu for gpu in all_ if gpu}
        if gpus and len(gpus) < self.size:
            raise ConfigError(
                f"trainer.device={trainer.device}: {self.size} processes need a GPU each, there are "
                f"{len(gpus)}; start {len(gpus)}, or use trainer.device=cpu"
            )

    # --- networks ------------------------------------------------------------------------------

    def convert_sync_batch_norm(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Return `network` with batch norms that see the whole batch; its parameters and names stay."""
        if self.size == 1:
            return network
        if device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-any-return, no-untyped-call]
        for module in network.modules():
            for name, child in module.named_children():
                if isinstance(child, _BatchNorm):
                    setattr(module, name, BatchNorm.of(child))
        return network

    def wrap_ddp(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Return `network`, whose gradients become the mean over all processes."""
        if self.size == 1:
            return network
        ids = [device.index] if device.type == "cuda" else None
        with warnings.catch_warnings():  # the new name of the option is not in torch 2.9
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            return DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)

    def local_gradients(self, forward: Any) -> AbstractContextManager[None]:
        """Return a block in which the gradients of `forward`, a network of `wrap_ddp`, add up in each process.

        The next backward pass of a forward pass outside it averages them.
        """
        return nullcontext() if self.size == 1 else forward.no_sync()


SINGLE_PROCESS = World(ProcessRank())
