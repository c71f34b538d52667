"""Batch norm over the batch of all processes, for CPUs: torch's `SyncBatchNorm` needs GPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class BatchNorm(_BatchNorm):
    """A batch norm whose statistics are those of the batch of all processes."""

    @classmethod
    def of(cls, norm: _BatchNorm) -> BatchNorm:
        """Return one with the parameters and buffers of `norm`."""
        new = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        for name, parameter in norm.named_parameters():
            setattr(new, name, parameter)
        for name, buffer in norm.named_buffers():
            setattr(new, name, buffer)
        return new

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(x.dim())]
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        own = values.new_tensor([x.numel() / x.shape[1]])
        sums: Tensor = _Sum.apply(torch.cat([values.sum(axes), own]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = values - mean.view(shape)
        var: Tensor = _Sum.apply(centred.square().sum(axes)) / count
        self._update_running(mean.detach(), var.detach() * count / (count - 1))
        scale = (var + self.eps).rsqrt()
        if self.affine:
            return (centred * (scale * self.weight).view(shape) + self.bias.view(shape)).to(x.dtype)
        return (centred * scale.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, var: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is summed too, since each process's loss depends on every summand."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        total = gradient.clone()
        dist.all_reduce(total)
        return total
