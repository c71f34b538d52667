"""The optimizers to choose from. To add one: a class here, its line in `builtin.py`, a file in `conf/optimizer/`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import MISSING

from harness.config.errors import ConfigError
from harness.config.fields import number
from harness.config.schema import Optimizer

if TYPE_CHECKING:
    from torch import optim

    from harness.config.schema import Parameters


@dataclass
class SGD(Optimizer):
    moments: ClassVar[int] = 1

    momentum: float = number(at_least=0, below=1)
    nesterov: bool = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and self.momentum == 0:
            raise ConfigError(
                "optimizer.nesterov=true: needs optimizer.momentum > 0, or optimizer.nesterov=false"
            )

    def build(self, parameters: Parameters) -> optim.Optimizer:
        import torch

        return torch.optim.SGD(parameters, fused=True, **self._options())

    def compiled(self, parameters: Parameters, mode: str) -> optim.Optimizer:
        from harness.training import optimizers

        return optimizers.SGD(parameters, mode, **self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "momentum": self.momentum,
            "nesterov": self.nesterov,
        }


@dataclass
class AdamW(Optimizer):
    moments: ClassVar[int] = 2

    beta1: float = number(at_least=0, below=1)
    beta2: float = number(at_least=0, below=1)
    eps: float = number(above=0, below=1)

    def build(self, parameters: Parameters) -> optim.Optimizer:
        import torch

        return torch.optim.AdamW(parameters, fused=True, **self._options())

    def compiled(self, parameters: Parameters, mode: str) -> optim.Optimizer:
        from harness.training import optimizers

        return optimizers.AdamW(parameters, mode, **self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "betas": (self.beta1, self.beta2),
            "eps": self.eps,
        }
