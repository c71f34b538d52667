"""A metric of one's own: python train.py extensions=[examples/own_metric.py] metrics=[calibration]"""

from torch import Tensor

from harness.extend import Metric, number, register


@register("calibration")
class Calibration(Metric):
    """The expected calibration error: how far confidence is from accuracy (Guo et al. 2017)."""

    better = "lower"
    unit = "%"

    bins: int = number(at_least=2, at_most=100, default=15)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        confidence, chosen = logits.double().softmax(1).max(1)
        place = (confidence * self.bins).long().clamp(max=self.bins - 1)
        gap = (chosen == labels).double() - confidence
        self.gaps = gap.new_zeros(self.bins).index_add(0, place, gap)
        self.images = len(labels)

    def compute(self) -> float:
        return float(100 * self.gaps.abs().sum() / self.images)
