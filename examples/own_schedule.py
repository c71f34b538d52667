"""A schedule of one's own: python train.py extensions=[examples/own_schedule.py] scheduler=triangular"""

from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from harness.extend import Durations, Scheduler, duration, number, register


@register("triangular")
class Triangular(Scheduler):
    """Up and down in straight lines, each peak `decay` times the one before (Smith 2017, “triangular2”)."""

    period: float = duration(above=0, default=5.0)  # epochs from one minimum to the next
    decay: float = number(above=0, at_most=1, default=0.5)
    floor: float = number(at_least=0, below=1, default=0.01)  # share of the peak at the minimum

    def build(self, optimizer: Optimizer, durations: Durations) -> LambdaLR:
        steps = durations.steps("period", self.period)
        return LambdaLR(optimizer, partial(self.share, steps))

    def share(self, period: int, step: int) -> float:
        """Return the LR after `step` steps as a share of the peak."""
        cycle, place = divmod(step, period)
        height = 1 - abs(2 * place / period - 1)
        return self.floor + (1 - self.floor) * height * self.decay**cycle
