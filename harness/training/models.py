"""Networks: the ResNets for small images of He et al. 2015, and any torchvision classifier.

`harness/choices/models.py` names them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from harness.config import extensions, registry
from harness.config.errors import ConfigError, nearest
from harness.config.schema import DatasetShape, Model

_MIN_IMAGENET_STEM = 32  # pixels: the usual stem and stages shrink images 32 times


class ResNet(nn.Module):
    """ResNet of `depth` = 6n+2 layers, He et al. 2015, section 4.2, with option A shortcuts."""

    def __init__(self, depth: int, width: int, channels: int, classes: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.stem = _conv(channels, width)
        self.norm = nn.BatchNorm2d(width)
        widths = [width, 2 * width, 4 * width]
        self.stages = nn.Sequential(
            *(
                Block(widths[max(0, stage - (block == 0))], widths[stage])
                for stage in range(3)
                for block in range(blocks)
            )
        )
        self.head = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(images)), inplace=True)
        logits: Tensor = self.head(self.stages(x).mean((2, 3)))
        return logits


class Block(nn.Module):
    """Two 3x3 convolutions; where the width doubles, the image is halved and the shortcut padded."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, stride=outputs // inputs)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.extra = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        out = self.norm2(self.conv2(out))
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.extra)) if self.extra else x
        return F.relu(out + shortcut, inplace=True)


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    if not conv.weight.is_meta:  # there a preview counts them, and torch would import its compiler
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class GrayToRGB(nn.Module):
    """Shows grey images to a network that expects three channels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.expand(-1, 3, -1, -1))
        return logits


def torchvision_classifier(arch: str, stem: str, shape: DatasetShape) -> nn.Module:
    """Return a network of torchvision's. Raises `ConfigError` if there is none, or it does not fit."""
    import torchvision  # seconds, which the networks of this file do not need

    known = torchvision.models.list_models(module=torchvision.models)
    if arch not in known:
        raise ConfigError(f"model.arch={arch}: {nearest(arch, known)}")
    with_defaults_about_to_change = arch in ("googlenet", "inception_v3")
    options = {"aux_logits": False, "init_weights": True} if with_defaults_about_to_change else {}
    network: nn.Module = torchvision.models.get_model(
        arch, weights=None, num_classes=shape.classes, **options
    )
    resnet = isinstance(network, torchvision.models.ResNet)
    if resnet and stem == "small":
        network.conv1 = _conv(shape.channels, 64)
        network.maxpool = nn.Identity()
        return network
    if shape.image_size < _MIN_IMAGENET_STEM:
        raise ConfigError(
            (f"model.stem={stem}" if resnet else f"model.arch={arch}")
            + f": needs images of at least {_MIN_IMAGENET_STEM} pixels, these have {shape.image_size}; use "
            + ("model.stem=small" if resnet else "model.arch=resnet18 model.stem=small")
        )
    if shape.channels == 1:
        network = GrayToRGB(network)
    was_training = network.training
    try:
        _pass(network.eval(), 2, shape)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"model.arch={arch}: does not take images of {shape.image_size} pixels ({reason}); "
            "use model.arch=resnet18"
        ) from error
    network.train(was_training)
    if stem == "small":
        raise ConfigError(
            f"model.stem=small: {arch} has no stem to exchange, only the ResNet family has; "
            "use model.stem=imagenet"
        )
    return network


def without_weights(model: Model, shape: DatasetShape) -> nn.Module:
    """Return the network that `model` builds, on the meta device: its shapes alone."""
    try:
        with torch.device("meta"):
            return model.build(shape)
    except NotImplementedError:  # torchvision's RegNets compute their widths with tensors
        return model.build(shape).to("meta")
    except Exception:  # so may a model of the user's, or it does not work on the CPU either
        if not extensions.source(model):
            raise
        return build(model, shape).to("meta")


def build(model: Model, shape: DatasetShape) -> nn.Module:
    """Return the network of `model`. Raises `ConfigError`, also where code of the user's does not build one."""
    if not extensions.source(model):
        return model.build(shape)
    with extensions.own_code(model, "build"):
        built: object = model.build(shape)
    if not isinstance(built, nn.Module):
        fault = f"build returns a {type(built).__name__}, not an nn.Module"
    elif any(map(is_lazy, built.parameters())):
        fault = "has lazy modules, without weights; give them their sizes"
    elif elsewhere := {str(one.device) for one in _weights(built)} - {"cpu"}:
        fault = f"has weights on {', '.join(elsewhere)}; build them on the CPU, the run moves them"
    else:
        return built
    raise ConfigError(f"model={registry.kind(model)}: {fault}")


def check_own(model: Model, shape: DatasetShape) -> None:
    """Raise `ConfigError` unless a model of the user's is built twice alike, fits the images and can be trained."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        first = build(model, shape)
        torch.manual_seed(0)
        network = build(model, shape)
        if not all(map(_same, _weights(first), _weights(network))):
            raise ConfigError(
                f"model={registry.kind(model)}: build gives other weights each time; draw them from "
                "torch's global generator alone"
            )
        _check_logits(model, network, shape)


def _weights(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) or bool(one.isnan().any())  # which the first loss says


def _check_logits(model: Model, network: nn.Module, shape: DatasetShape) -> None:
    name = f"model={registry.kind(model)}"
    images = torch.zeros(2, shape.channels, shape.image_size, shape.image_size)
    for mode in ("evaluation", "training"):
        with extensions.own_code(model, f"forward, in {mode}"):
            logits = network.train(mode == "training")(images)
        size = getattr(logits, "shape", type(logits).__name__)
        if size != (2, shape.classes) or not logits.is_floating_point():
            given = f"{logits.dtype} {tuple(size)}" if isinstance(logits, Tensor) else f"a {size}"
            raise ConfigError(
                f"{name}: gives {given} for 2 images, in {mode}; must give logits of (2, {shape.classes}), "
                "one for each class"
            )
    if not logits.requires_grad:
        raise ConfigError(f"{name}: the logits follow from no parameter that can be trained")
    with extensions.own_code(model, "backward"):
        logits.sum().backward()


def check_batch(network: nn.Module, batch_size: int, shape: DatasetShape) -> None:
    """Raise `ConfigError` if a batch norm of the network would see one value a channel."""
    if batch_size > 1:
        return
    try:
        _pass(network.train(), batch_size, shape)
    except ValueError as error:
        raise ConfigError(
            f"trainer.batch_size={batch_size}: batch norm needs two images at least where the network "
            "has come down to one pixel; use trainer.batch_size=2"
        ) from error


def _pass(network: nn.Module, batch_size: int, shape: DatasetShape) -> None:
    """Make a forward pass without data or arithmetic; the network stays as it is."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    size = batch_size, shape.channels, shape.image_size, shape.image_size
    images = torch.empty(size, device="meta")
    with torch.no_grad():
        torch.func.functional_call(network, {n: t.to("meta") for n, t in tensors}, images)
