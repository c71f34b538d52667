"""The device of a run and the settings of the process, as the machine has them."""

from __future__ import annotations

import pytest
import torch
from conftest import make_config

from harness.config.errors import ConfigError
from harness.training import device
from harness.training.distributed import World
from harness.training.loop import Precision
from harness.training.ranks import ProcessRank

CPU = torch.device("cpu")


def pretend(monkeypatch: pytest.MonkeyPatch, kind: str, count: int = 1) -> None:
    """Let torch say that it finds devices of a kind: none is there, so nothing runs on them."""
    found = torch.device(kind) if count else None
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: found)
    if kind == "mps":
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: count > 0)
    else:
        monkeypatch.setattr(torch.get_device_module(kind), "device_count", lambda: count)


def test_auto_is_the_first_gpu_or_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "cuda", 0)
    assert device.device("auto") == CPU
    pretend(monkeypatch, "cuda", 2)
    assert device.device("auto") == torch.device("cuda", 0)
    assert device.device("cuda:1") == torch.device("cuda", 1)
    assert device.device("cpu") == CPU


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_auto_is_whatever_torch_finds(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    pretend(monkeypatch, kind)
    assert device.device("auto") == device.device(kind) == torch.device(kind, 0)
    assert device.device("cpu") == CPU
    pretend(monkeypatch, kind, 0)
    assert device.device("auto") == CPU
    with pytest.raises(ConfigError, match=rf"^trainer.device={kind}: no \w+ GPU is found; use "):
        device.device(kind)


def test_a_kind_of_device_that_was_never_tried_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = torch.device("hpu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: found)
    assert device.device("auto") == CPU


@pytest.mark.parametrize(
    ("kind", "override", "line"),
    [
        ("mps", "trainer.deterministic=true", "trainer.deterministic=true: is for CUDA and CPUs; on mps repeats may differ"),
        ("xpu", "trainer.deterministic=true", "trainer.deterministic=true: is for CUDA and CPUs; on xpu repeats may differ"),
        ("mps", "trainer.compile=default", "trainer.compile=default: does not work on mps; use trainer.compile=none"),
        ("xpu", "trainer.compile=reduce-overhead", "trainer.compile=reduce-overhead: does not work on xpu; use trainer.compile=none"),
        ("xpu", "trainer.compile=default", None),
        ("mps", "trainer.compile=none", None),
    ],
)  # fmt: skip
def test_what_a_device_cannot_do_is_one_line(kind: str, override: str, line: str | None) -> None:
    trainer, own = make_config(override).trainer, torch.device(kind, 0)
    for known in ("cpu", "cuda"):
        device.check(trainer, torch.device(known))
    if line is None:
        device.check(trainer, own)
        return
    with pytest.raises(ConfigError) as error:
        device.check(trainer, own)
    assert str(error.value) == line


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_several_processes_take_cuda_or_cpus(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    pretend(monkeypatch, kind)
    with pytest.raises(ConfigError) as error:
        device.device("auto", World(ProcessRank(1, 2, 1, "env://")))
    assert str(error.value) == (
        f"trainer.device=auto: {kind} takes one process a run, and there are 2; "
        "start one, or use trainer.device=cpu"
    )


@pytest.mark.parametrize(
    ("wanted", "count", "has"),
    [
        ("cuda", 0, "no GPU is found"),
        ("cuda:1", 1, "this machine has 1 GPU"),
        ("cuda:4", 4, "this machine has 4 GPUs"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, wanted: str, count: int, has: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(ConfigError) as error:
        device.device(wanted)
    assert str(error.value) == f"trainer.device={wanted}: {has}; use trainer.device=auto or cpu"


def test_each_run_sets_what_the_process_keeps() -> None:
    strict = torch.are_deterministic_algorithms_enabled()
    try:
        for wanted in (True, False):
            device.reset(make_config(f"trainer.deterministic={str(wanted).lower()}"), CPU)
            assert torch.are_deterministic_algorithms_enabled() == wanted
            assert torch.backends.cudnn.benchmark != wanted
            assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.use_deterministic_algorithms(strict)


def test_numerics_say_what_changes_rounding() -> None:
    precision = Precision("bf16", CPU)
    plain = device.numerics(make_config(), CPU, precision)
    assert (plain["device"], plain["precision"], plain["processes"]) == ("cpu", "bf16", 1)
    assert plain["torch"] == torch.__version__
    assert plain["threads"] == torch.get_num_threads()
    for override, key in (
        ("trainer.channels_last=true", "channels_last"), ("trainer.compile=default", "compile"),
    ):  # fmt: skip
        other = device.numerics(make_config(override), CPU, precision)
        assert {name for name in plain if plain[name] != other[name]} <= {key}
    assert device.numerics(make_config("trainer.compile=default"), CPU, precision) != plain


def test_a_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    second = World(ProcessRank(5, 8, 1, "env://"))
    pretend(monkeypatch, "cuda", 4)
    assert device.device("cuda", second) == device.device("auto", second)
    assert device.device("cuda", second) == torch.device("cuda", 1)
    assert device.device("auto") == torch.device("cuda", 0)
    assert device.device("cpu", second) == CPU
    with pytest.raises(ConfigError) as error:
        device.device("cuda:1", second)
    assert str(error.value) == (
        "trainer.device=cuda:1: is one GPU, and there are 8 processes; use trainer.device=cuda"
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # bound to it by Slurm
    assert device.device("cuda", second) == torch.device("cuda", 0)
