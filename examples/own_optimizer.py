"""An optimizer of one's own: python train.py extensions=[examples/own_optimizer.py] optimizer=muon"""

import torch
from torch import Tensor, optim

from harness.extend import Optimizer, Parameters, number, register


@register("muon")
class Muon(Optimizer):
    """Momentum whose matrices are made orthogonal (Jordan et al. 2024); plain momentum for vectors."""

    lr: float = number(above=0, below=1e6, default=0.02)
    momentum: float = number(at_least=0, below=1, default=0.95)

    def build(self, parameters: Parameters) -> optim.Optimizer:
        options = {"lr": self.lr, "weight_decay": self.weight_decay, "beta": self.momentum}
        return _Muon(parameters, options)


class _Muon(optim.Optimizer):
    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                moment = self.state[p].setdefault("momentum", torch.zeros_like(p))
                moment.mul_(group["beta"]).add_(p.grad)
                update = p.grad.add(moment, alpha=group["beta"])
                if p.ndim > 1:
                    update = _orthogonal(update.flatten(1)).view_as(p)
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])


def _orthogonal(matrix: Tensor) -> Tensor:
    """Return about U V' of a matrix U S V', by five steps of Newton and Schulz."""
    x: Tensor = matrix / (matrix.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (2.0315 * square @ square - 4.775 * square) @ x
    return x
