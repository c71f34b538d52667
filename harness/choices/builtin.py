"""The choices that come with the harness, by the names that results and checkpoints record."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from harness.choices import datasets, models, optimizers, schedulers
from harness.config import compose, extensions, registry
from harness.config.fields import Section

_BUILTIN: dict[str, dict[str, type[Section]]] = {
    "model": {"resnet": models.ResNet, "torchvision": models.Torchvision},
    "dataset": {
        "digits": datasets.Digits,
        "synthetic": datasets.Synthetic,
        "torchvision": datasets.TorchvisionDataset,
        "image_folder": datasets.ImageFolder,
    },
    "optimizer": {"sgd": optimizers.SGD, "adamw": optimizers.AdamW},
    "scheduler": {
        "cosine": schedulers.Cosine,
        "cosine_warm": schedulers.CosineWarm,
        "step": schedulers.Step,
        "multistep": schedulers.MultiStep,
        "linear": schedulers.Linear,
        "constant": schedulers.Constant,
        "polynomial": schedulers.Polynomial,
        "wsd": schedulers.WSD,
        "one_cycle": schedulers.OneCycle,
        "piecewise": schedulers.Piecewise,
        "list": schedulers.LRList,
    },
}


def register(words: Sequence[str] = ()) -> None:
    """Make the choices known to configurations and to Hydra, and those of extensions, which `words` may name.

    `words` are those of a command. Raises `ConfigError` for an extension that cannot be loaded.
    """
    _register_builtin()
    if extensions.load(words):
        compose.register_schema()


@cache
def _register_builtin() -> None:
    for group, kinds in _BUILTIN.items():
        for name, node in kinds.items():
            registry.add(group, name, node)
    compose.register_schema()
