"""Updates as compiled code, for `trainer.compile`: what stays to do in Python is to launch it.

Three pieces make an update: the loss (`loop.TrainStep.loss`), its gradients, and the optimizer's step. In
CUDA graphs (`reduce-overhead`) they run in one memory pool, and nothing is copied between them. Nothing
compiled belongs to a run: networks, state and the LR come in as arguments, so that one process
compiles once for all its runs of the same shapes and constants. `torch.compile` of torch's own
`Optimizer.step`, with the LR in a tensor, gives the same curve, but compiles anew for every optimizer,
which is every run of a sweep (EXPERIMENTS.md, 2026-11-26).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from harness.config import extensions, registry
from harness.config.errors import ConfigError
from harness.config.fields import show
from harness.config.schema import Optimizer

if TYPE_CHECKING:
    from harness.config.schema import Parameters

P = ParamSpec("P")
T = TypeVar("T")

_TRIED = 3  # updates of an optimizer of the user's before it goes on as from a checkpoint
_SHAPES = 256  # of one piece in a process: networks, batches, constants; torch gives up after 8


@cache
def function(plain: Callable[P, T], mode: str) -> Callable[P, T]:
    """Return `plain`, compiled for every shape that it meets. It must not be a closure."""
    import torch._dynamo.config as dynamo

    dynamo.recompile_limit = _SHAPES
    dynamo.accumulated_recompile_limit = _SHAPES
    return torch.compile(plain, mode=mode, dynamic=False)


@cache
def check(mode: str, device: torch.device) -> None:
    """Raise `ConfigError` if torch.compile does not work here, as without a C++ compiler or Triton."""
    if mode == "none":
        return
    try:
        torch.compile(torch.add)(torch.zeros(2, device=device), 1)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"trainer.compile={mode}: torch.compile does not work here ({reason}); use "
            "trainer.compile=none, or install a C++ compiler (g++, or what CXX names)"
        ) from error


def build(settings: Optimizer, parameters: Parameters, mode: str) -> torch.optim.Optimizer:
    """Return the optimizer, compiled in a mode of torch.compile or not (none). Raises `ConfigError`."""
    with extensions.own_code(settings, "build"):
        if mode != "none":
            return settings.compiled(parameters, mode)
        return settings.build(parameters)


def check_own(settings: Optimizer, parameters: Parameters) -> None:
    """Raise `ConfigError` unless an optimizer of the user's makes updates, and goes on exactly from a checkpoint."""
    name = f"optimizer={registry.kind(settings)}"
    first = copy.deepcopy(parameters)
    optimizer = build(settings, first, "none")
    if fault := _fault(settings, optimizer):
        raise ConfigError(f"{name}: {fault}")
    with torch.random.fork_rng([]), extensions.own_code(settings, "step"):
        before = [p.shape for p in _params(optimizer)]
        _step(optimizer, _TRIED)
        if before != [p.shape for p in _params(optimizer)]:
            raise ConfigError(f"{name}: step changes the shape of parameters")
        second = build(settings, copy.deepcopy(first), "none")
        second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        torch.manual_seed(0)
        _step(optimizer, 1)
        torch.manual_seed(0)
        _step(second, 1)
    if not all(map(torch.equal, _params(optimizer), _params(second))):
        raise ConfigError(
            f"{name}: goes on otherwise from a checkpoint; what step remembers belongs in self.state[parameter]"
        )
    if (
        settings.weight_decay
        and isinstance(parameters[0], dict)
        and _ignores_decay(settings, parameters)
    ):
        raise ConfigError(
            f"{name}: step takes no weight decay of its groups, so that optimizer.no_decay and groups would change "
            'nothing; read group["weight_decay"] there'
        )


def _ignores_decay(settings: Optimizer, parameters: Parameters) -> bool:
    """Return whether an optimizer of the user's makes the same updates with and without weight decay in its groups."""
    own, without = (build(settings, copy.deepcopy(parameters), "none") for _ in range(2))
    for group in without.param_groups:
        group["weight_decay"] = 0.0
    for one in (own, without):
        torch.manual_seed(0)
        _step(one, _TRIED)
    return all(map(torch.equal, _params(own), _params(without)))


def _params(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _step(optimizer: torch.optim.Optimizer, times: int) -> None:
    """Make updates with gradients of the size of the weights; equal ones for equal weights."""
    for _ in range(times):
        for parameter in _params(optimizer):
            parameter.grad = parameter.detach().cos() / 100
        optimizer.step()


def _fault(settings: Optimizer, built: Any) -> str | None:
    """Return what keeps an optimizer of the user's from training as its settings say; None for nothing."""
    if not isinstance(built, torch.optim.Optimizer):
        return f"build returns a {type(built).__name__}, not a torch.optim.Optimizer"
    groups = built.param_groups
    if all(group["lr"] != settings.lr for group in groups):
        lrs = ", ".join(show(group["lr"]) for group in groups)
        return f"build gives the LR {lrs}, not optimizer.lr={show(settings.lr)}; pass lr=self.lr on"
    if settings.weight_decay and not (
        "weight_decay" in built.defaults and any(group["weight_decay"] for group in groups)
    ):
        decay = f"optimizer.weight_decay={show(settings.weight_decay)}"
        return f"build leaves {decay} out; pass weight_decay=self.weight_decay on, or leave it at 0"
    return None


def start_momenta(optimizer: torch.optim.Optimizer) -> None:
    """Give torch's SGD momenta of zero before its first step, which then gives what it would give without.

    Where a gradient scaler skips the first step, its fused kernel would leave them uninitialised.
    """
    if isinstance(optimizer, torch.optim.SGD):
        for group in optimizer.param_groups:
            for parameter in group["params"] if group["momentum"] else ():
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


class SGD(torch.optim.SGD):
    """torch's, with a compiled step. Its state and `param_groups` are torch's, the LR a float."""

    def __init__(self, parameters: Parameters, mode: str, **options: Any) -> None:
        super().__init__(parameters, fused=True, **options)
        self._mode = mode
        self._lrs = [_lr_of(group) for group in self.param_groups]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        if self.defaults["momentum"] and not self.state:
            super().step()  # makes the state
            return
        for group, lr in zip(self.param_groups, self._lrs, strict=True):
            params, grads = _with_gradients(group)
            momenta = [
                self.state[p]["momentum_buffer"] if group["momentum"] else None for p in params
            ]
            _static(lr.fill_(group["lr"]), *momenta)
            names = ("weight_decay", "momentum", "dampening", "nesterov")
            function(sgd, self._mode)(
                params,
                grads,
                momenta,
                foreach=True,
                lr=lr,
                maximize=False,
                **{name: group[name] for name in names},
            )


class AdamW(torch.optim.AdamW):
    """torch's, with a compiled step. Its state and `param_groups` are torch's, the LR a float."""

    def __init__(self, parameters: Parameters, mode: str, **options: Any) -> None:
        super().__init__(parameters, fused=True, **options)
        self._mode = mode
        self._lrs = [_lr_of(group) for group in self.param_groups]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        if not self.state:
            super().step()  # makes the state
            return
        for group, lr in zip(self.param_groups, self._lrs, strict=True):
            params, grads = _with_gradients(group)
            averages, squares, steps = (
                [self.state[p][name] for p in params] for name in ("exp_avg", "exp_avg_sq", "step")
            )
            _static(lr.fill_(group["lr"]), *averages, *squares, *steps)
            beta1, beta2 = group["betas"]
            function(adamw, self._mode)(
                params,
                grads,
                averages,
                squares,
                [],
                steps,
                foreach=True,
                capturable=True,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=lr,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )


def _lr_of(group: dict[str, Any]) -> Tensor:
    """Return a tensor from which compiled code reads the LR: a constant would be compiled anew at every update."""
    return torch.zeros((), dtype=torch.float64, device=group["params"][0].device)


def _with_gradients(group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    params = [p for p in group["params"] if p.grad is not None]
    return params, [p.grad for p in params]


def _static(*tensors: Tensor | None) -> None:
    """Let CUDA graphs use these tensors at their addresses; others are copied, and may not change."""
    for tensor in tensors:
        if tensor is not None:
            torch._dynamo.mark_static_address(tensor)
