"""The networks to choose from. To add one: a class here, its line in `builtin.py`, a file in `conf/model/`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import MISSING

from harness.config.errors import ConfigError
from harness.config.fields import choice, number
from harness.config.schema import DatasetShape, Model

if TYPE_CHECKING:
    from torch import nn


@dataclass
class ResNet(Model):
    """The ResNets for small images of He et al. 2015, section 4.2: depth 6n+2, three stages."""

    depth: int = number(at_least=8, at_most=10_000)
    width: int = number(at_least=1, at_most=4096)  # channels of the first stage; then 2x, 4x

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.depth - 2) % 6:
            low = self.depth - (self.depth - 2) % 6
            raise ConfigError(
                f"model.depth={self.depth}: must be 6n+2; the nearest are {low} and {low + 6}"
            )

    def build(self, shape: DatasetShape) -> nn.Module:
        from harness.training import models

        return models.ResNet(self.depth, self.width, shape.channels, shape.classes)


@dataclass
class Torchvision(Model):
    """Any torchvision classifier, by name."""

    arch: str = MISSING
    stem: str = choice("small", "imagenet")

    def build(self, shape: DatasetShape) -> nn.Module:
        from harness.training import models

        return models.torchvision_classifier(self.arch, self.stem, shape)
