"""A network of one's own: python train.py extensions=[examples/own_model.py] model=small_cnn model.width=32"""

from torch import nn

from harness.extend import DatasetShape, Model, choice, number, register


@register("small_cnn")
class SmallCNN(Model):
    """Three convolutions, then a linear layer."""

    width: int = number(at_least=1, at_most=1024, default=16)
    activation: str = choice("relu", "gelu", default="relu")

    def build(self, shape: DatasetShape) -> nn.Module:
        layers: list[nn.Module] = []
        inputs = shape.channels
        for outputs in (self.width, 2 * self.width, 4 * self.width):
            act = nn.ReLU() if self.activation == "relu" else nn.GELU()
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), act]
            inputs = outputs
        return nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, shape.classes)
        )
