"""Compiled updates against plain ones, and what CUDA graphs ask of them, without a GPU."""

from __future__ import annotations

import dataclasses
import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import pytest
import torch
import torch._dynamo.config as dynamo
from conftest import no_waiting
from test_loop import CPU, CUDA, Doubled, Training, assert_resumes, prepare
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._guards import TracingContext
from torch._subclasses.fake_tensor import FakeTensorMode

from harness.config.schema import DatasetShape
from harness.runs.setup import build
from harness.training import batches
from harness.training import optimizers as compiled
from harness.training.loop import Precision, TrainState, TrainStep

logging.getLogger("torch.__trace").propagate = False  # or pytest collects what torch logs to nobody

BUDGET = ("trainer.epochs=2", "scheduler.t_0=1", "scheduler.t_mult=1", "trainer.log_every=1")
GROUPS = "optimizer.groups=[{params:head.*,lr_factor:2}] optimizer.no_decay=norm_bias"
SGD = pytest.param(("optimizer.lr=0.01",), id="SGD")
ADAMW = pytest.param(("optimizer=adamw", "optimizer.lr=1e-3"), id="AdamW")
SLOW_ADAMW = pytest.param(*ADAMW.values, id="AdamW", marks=pytest.mark.slow)


@cache
def with_torchs_kernels(plain: Callable[..., Any], mode: str) -> Callable[..., Any]:
    return torch.compile(plain, backend="aot_eager", dynamic=False)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates are traced as ever, and nothing waits for g++."""
    monkeypatch.setattr(compiled, "function", with_torchs_kernels)


@contextmanager
def no_compilation() -> Iterator[None]:
    """Where compiling anything raises."""
    torch.compiler.set_stance("fail_on_recompile")
    try:
        yield
    finally:
        torch.compiler.set_stance("default")


def parameters_and_momenta(state: TrainState) -> list[Tensor]:
    momenta = [one["momentum_buffer"] for one in state.optimizer.state.values()]
    return [*state.network.parameters(), *momenta]


def doubled(*overrides: str) -> Training:
    t = prepare(*BUDGET, *overrides)
    t.state.network.double()
    t.batches = Doubled(t.splits, t.config, CPU)
    t.log_schedule = type(t.log_schedule)(1, frozenset())
    return t


def weights(t: Training) -> dict[str, Tensor]:
    return t.state.network.state_dict()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("overrides", "tolerance"),
    [
        pytest.param("", 1e-12, id="SGD"),
        pytest.param("optimizer.momentum=0", 1e-12, id="SGD without momentum"),
        pytest.param("optimizer.nesterov=true", 1e-12, id="Nesterov"),
        pytest.param(
            f"{GROUPS} optimizer.accumulate=2 optimizer.clip=0.25",
            1e-12,
            id="groups",
            marks=pytest.mark.slow,
        ),
        # torch has the bias corrections of compiled code in float32
        pytest.param("optimizer=adamw optimizer.lr=1e-3", 1e-6, id="AdamW", marks=pytest.mark.slow),
        pytest.param(
            f"{GROUPS} optimizer=adamw optimizer.lr=1e-3",
            1e-6,
            id="AdamW in groups",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_in_float64_compiled_updates_are_the_plain_ones(overrides: str, tolerance: float) -> None:
    counters.clear()
    both = (f"trainer.compile={mode}" for mode in ("none", "default"))
    plain, whole = (doubled("optimizer.lr=0.01", *overrides.split(), m).fit() for m in both)
    assert not counters["graph_break"]
    assert [row["lr"] for row in whole.rows] == whole.plan.lr.tolist()
    close = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)
    close(weights(whole), weights(plain))
    close(*(t.state.snapshot()["optimizer"] for t in (whole, plain)))


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("overrides", [SGD, SLOW_ADAMW])
def test_compiled_code_reads_the_plans_lr_and_is_not_compiled_again(
    overrides: tuple[str, ...],
) -> None:
    def train(*more: str) -> None:
        t = prepare("trainer.epochs=2", "trainer.compile=default", *overrides, *more)
        used: list[float] = []
        t.state.optimizer.register_step_post_hook(lambda o, *_: used.append(o._lrs[0].item()))
        t.fit()
        assert used[-11:] == t.plan.lr[1:].tolist()  # the first update makes the optimizer's state
        assert len(set(used)) > 5

    train("scheduler.t_0=1")
    with no_compilation():
        train("seed=1", "scheduler=linear")


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("overrides", [SGD, ADAMW])
def test_compiled_updates_go_on_from_a_snapshot(overrides: tuple[str, ...]) -> None:
    assert_resumes(lambda: prepare(*BUDGET, "trainer.compile=default", *overrides), stop=7)


@pytest.mark.usefixtures("traced")
def test_compiled_code_keeps_no_network_alive() -> None:
    t = prepare(*BUDGET, "trainer.compile=default").fit(until=3)
    network, momentum = (
        weakref.ref(t.state.network),
        weakref.ref(next(iter(t.state.optimizer.state.values()))["momentum_buffer"]),
    )
    del t
    gc.collect()
    assert network() is None
    assert momentum() is None


@pytest.mark.parametrize(
    ("overrides", "optimizer"),
    [
        pytest.param((), "sgd", id="SGD"),
        pytest.param(("optimizer.momentum=0",), "sgd", id="SGD without momentum"),
        pytest.param(("optimizer=adamw",), "adamw", id="AdamW"),
    ],
)
def test_loss_and_optimizer_are_compiled_in_the_mode_that_was_asked_for(
    overrides: tuple[str, ...], optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[tuple[str, str]] = set()

    def function(plain: Callable[..., Any], mode: str) -> Callable[..., Any]:
        asked.add((plain.__name__, mode))
        return with_torchs_kernels(plain, "default")

    monkeypatch.setattr(compiled, "function", function)
    prepare(*BUDGET, "trainer.compile=reduce-overhead", *overrides).fit(until=3)
    assert asked == {("loss", "reduce-overhead"), (optimizer, "reduce-overhead")}


def test_a_process_compiles_for_more_shapes_than_torch_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda plain, mode, **options: compile_(plain, backend="eager", **options)
    )

    def double(x: Tensor) -> Tensor:
        return 2 * x

    counters.clear()
    with dynamo.patch(recompile_limit=8, accumulated_recompile_limit=8):
        for size in range(2, 22):
            compiled.function(double, "default")(torch.zeros(size))
    assert counters["stats"]["unique_graphs"] == 20


@pytest.mark.parametrize("overrides", [SGD, ADAMW])
@pytest.mark.slow
def test_what_compiled_code_changes_stays_where_it_is(
    overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or CUDA graphs, which write to fixed addresses, would be given up."""
    changed: list[tuple[set[int], set[int]]] = []

    def look(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        reported = TracingContext.get().fw_metadata
        assert reported
        mutated = {i for i, told_of in enumerate(reported.input_info) if told_of.mutates_data}
        changed.append((mutated, set(reported.static_input_indices)))
        return make_boxed_func(graph.forward)

    looking = aot_autograd(fw_compiler=look)
    monkeypatch.setattr(
        compiled, "function", cache(lambda plain, mode: torch.compile(plain, backend=looking))
    )
    prepare(*BUDGET, "trainer.compile=default", *overrides).fit(until=3)
    assert len(changed) >= 2  # the loss (with its batch norms) and the optimizer
    for mutated, static in changed:
        assert mutated <= static


def test_the_loss_waits_for_nothing_on_a_gpu() -> None:
    """A pretended one, on which whatever needs a value raises."""
    t = prepare()
    cuda = torch.device("cuda")
    with FakeTensorMode():
        with cuda:
            network = t.config.model.build(DatasetShape(80, 1, 8, 4))
        step = TrainStep(network, Precision("fp32", cuda), 0.1)
        images, labels = next(batches.TrainBatches(t.splits, t.config, cuda).epoch(0))
        assert step.loss(images, labels).device.type == "cuda"


def test_a_gradient_scaler_keeps_torchs_own_optimizer() -> None:
    t = prepare("trainer.compile=default")
    state, step = build(t.config, t.splits, CPU, Precision("fp16", CPU))
    assert type(t.state.optimizer) is compiled.SGD
    assert type(state.optimizer) is torch.optim.SGD
    assert step.mode == "default"


def test_updates_that_a_scaler_skips_leave_weights_and_momenta_alone() -> None:
    """torch's fused SGD leaves momenta uninitialised where its first step is skipped."""
    t = prepare("scheduler=constant")
    scaled, step = build(t.config, t.splits, CPU, Precision("fp16", CPU))
    step = dataclasses.replace(step, precision=Precision("fp32", CPU), loss_weight=4.0)
    plain, plain_step = build(t.config, t.splits, CPU, step.precision)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)  # gradients overflow
    images, labels = next(t.batches.epoch(0))

    before = [tensor.detach().clone() for tensor in parameters_and_momenta(scaled)]
    assert not any(momentum.any() for momentum in before[len(before) // 2 :])
    step.train(scaled, images, labels)
    assert all(map(torch.equal, before, parameters_and_momenta(scaled)))
    while torch.equal(before[0], parameters_and_momenta(scaled)[0]):
        step.train(scaled, images, labels)
    assert scaled.updates > 2
    dataclasses.replace(plain_step, loss_weight=4.0).train(plain, images, labels)
    for own, without in zip(
        parameters_and_momenta(scaled), parameters_and_momenta(plain), strict=True
    ):
        torch.testing.assert_close(own, without)


# --- with code generation ------------------------------------------------------------------------


@pytest.mark.slow
def test_compiled_training_is_the_plain_one_but_for_rounding() -> None:
    torch.compiler.reset()
    counters.clear()
    budget = (*BUDGET, "optimizer.lr=0.001")
    plain, whole = (prepare(*budget, f"trainer.compile={m}").fit() for m in ("none", "default"))
    assert not counters["graph_break"]
    assert [row["lr"] for row in whole.rows] == plain.plan.lr.tolist()
    assert [row.keys() for row in whole.rows] == [row.keys() for row in plain.rows]
    for row, expected in zip(whole.rows, plain.rows, strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(weights(whole), weights(plain), rtol=1e-4, atol=1e-5)

    with no_compilation():
        assert_resumes(lambda: prepare(*budget, "seed=1", "trainer.compile=default"), stop=7)


# --- on a GPU ------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")  # torch's compiler warns of what it uses itself
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_updates_on_the_gpu_never_wait_and_follow_the_plain_ones(mode: str) -> None:
    budget = (*BUDGET, "optimizer.lr=0.001", "trainer.precision=fp32", "trainer.log_every=100")
    plain = prepare(*budget, device=CUDA)
    whole = prepare(*budget, f"trainer.compile={mode}", device=CUDA)
    losses: list[list[Tensor]] = [[], []]
    for index, (images, labels) in enumerate(whole.batches.epoch(0)):
        with no_waiting() if index >= 4 else nullcontext():  # it is compiled and captured
            for t, kept in zip((plain, whole), losses, strict=True):
                kept.append(t.step.train(t.state, images, labels))
    first, second = (torch.stack(kept) for kept in losses)
    torch.testing.assert_close(second, first, rtol=1e-2, atol=1e-2)  # TF32
    assert len(set(second.tolist())) == len(second)  # none was overwritten
