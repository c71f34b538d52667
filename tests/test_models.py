"""Networks against what their papers say of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import make_config
from torch import Tensor, nn

from harness.config.errors import ConfigError
from harness.config.schema import DatasetShape
from harness.training.models import Block


def build(overrides: str, channels: int = 3, image_size: int = 32, classes: int = 10) -> nn.Module:
    return make_config(*overrides.split()).model.build(
        DatasetShape(100, channels, image_size, classes)
    )


def shapes_after(
    layers: list[nn.Module], network: nn.Module, images: Tensor
) -> list[tuple[int, ...]]:
    """(channels, height, width) that each of `layers` gives out, in the order of the pass."""
    seen: list[tuple[int, ...]] = []
    for layer in layers:
        layer.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:])))
    network.eval()(images)
    return seen


@pytest.mark.parametrize(
    ("depth", "millions", "rounding"),
    [(20, 0.27, 0.005), (32, 0.46, 0.005), (44, 0.66, 0.005), (56, 0.85, 0.005), (110, 1.7, 0.05)],
)
def test_resnets_are_as_large_as_table_6_of_he_et_al_says(
    depth: int, millions: float, rounding: float
) -> None:
    network = build(f"model=resnet{depth}")
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(
        millions, abs=rounding
    )


@pytest.mark.parametrize("depth", [8, 20, 56])
def test_a_resnet_has_as_many_layers_as_its_name_says(depth: int) -> None:
    layers = [
        m for m in build(f"model=resnet{depth}").modules() if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    assert len(layers) == depth


@pytest.mark.parametrize(
    ("overrides", "channels", "image_size", "classes"),
    [
        pytest.param("model=resnet8", 1, 8, 4, id="8x8 grey"),
        pytest.param("model=resnet8", 3, 32, 10, id="32x32 colour"),
        pytest.param("model=resnet20 model.width=4", 1, 28, 10, id="28x28 grey, narrow"),
        pytest.param("model=resnet18", 1, 8, 10, id="resnet18, 8x8 grey"),
        pytest.param("model=resnet18", 3, 32, 100, id="resnet18, 32x32 colour"),
        pytest.param(
            "model=torchvision model.arch=mobilenet_v3_small", 3, 32, 7, id="mobilenet, colour"
        ),
        pytest.param("model=torchvision model.arch=resnet18", 1, 64, 7, id="usual stem, grey"),
        pytest.param("model=torchvision model.arch=googlenet", 3, 32, 7, id="auxiliary heads off"),
        pytest.param(
            "model=torchvision model.arch=resnet34 model.stem=small", 3, 16, 7, id="resnet34, small stem"
        ),
    ],
)  # fmt: skip
def test_logits_have_a_value_for_each_image_and_class(
    overrides: str, channels: int, image_size: int, classes: int
) -> None:
    network = build(overrides, channels, image_size, classes)
    logits = network(torch.randn(2, channels, image_size, image_size))
    assert logits.shape == (2, classes)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize(
    ("image_size", "sizes"), [(32, (32, 16, 8)), (28, (28, 14, 7)), (8, (8, 4, 2))]
)
def test_each_stage_after_the_first_halves_the_image_and_doubles_the_channels(
    image_size: int, sizes: tuple[int, ...]
) -> None:
    network = build("model=resnet20", 1, image_size)
    blocks: list[nn.Module] = [m for m in network.modules() if isinstance(m, Block)]
    expected = [(16 * 2**stage, size, size) for stage, size in enumerate(sizes) for _ in range(3)]
    images = torch.randn(1, 1, image_size, image_size)
    assert shapes_after(blocks, network, images) == expected


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 4), (4, 8)])
def test_shortcuts_are_option_a_strided_and_zero_padded(inputs: int, outputs: int) -> None:
    block = Block(inputs, outputs)
    nn.init.zeros_(block.norm2.weight)  # leaves the shortcut only
    x = torch.rand(2, inputs, 6, 6)
    stride = outputs // inputs
    shortcut = torch.zeros(2, outputs, 6 // stride, 6 // stride)
    shortcut[:, :inputs] = x[:, :, ::stride, ::stride]
    assert torch.equal(block(x), shortcut)


def test_resnet18_with_the_small_stem_keeps_the_resolution_up_to_layer1() -> None:
    network: Any = build("model=resnet18", 1, 8)
    assert shapes_after([network.layer1, network.layer4], network, torch.randn(1, 1, 8, 8)) == [
        (64, 8, 8),
        (512, 1, 1),
    ]
    assert network.conv1.stride == (1, 1)
    assert not [m for m in network.modules() if isinstance(m, nn.MaxPool2d)]


def test_grey_images_are_shown_to_colour_networks_three_times() -> None:
    network = build("model=torchvision model.arch=resnet18", 1, 32).eval()
    grey = torch.randn(2, 1, 32, 32)
    inner = next(network.children())
    assert torch.equal(network(grey), inner(torch.cat([grey] * 3, dim=1)))


@pytest.mark.parametrize(
    ("overrides", "image_size", "message"),
    [
        pytest.param(
            "model.arch=resnet19", 32, "model.arch=resnet19: did you mean resnet18? choose from ",
            id="unknown arch",
        ),
        pytest.param(
            "model.arch=mobilenet_v3_small model.stem=small", 32,
            "model.stem=small: mobilenet_v3_small has no stem to exchange, only the ResNet family has; "
            "use model.stem=imagenet",
            id="small stem where there is none",
        ),
        pytest.param(
            "model.arch=resnet18", 8,
            "model.stem=imagenet: needs images of at least 32 pixels, these have 8; use model.stem=small",
            id="usual stem on 8x8",
        ),
        pytest.param(
            "model.arch=alexnet", 32, "model.arch=alexnet: does not take images of 32 pixels (",
            id="images that the network cannot take",
        ),
    ],
)  # fmt: skip
def test_a_network_that_does_not_fit_is_refused_with_the_mend(
    overrides: str, image_size: int, message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        build(f"model=torchvision {overrides}", 3, image_size)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    ["model=resnet8", "model=resnet18", "model=torchvision model.arch=mobilenet_v3_small"],
)
def test_initial_weights_follow_from_the_seed(overrides: str) -> None:
    def weights(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return build(overrides).state_dict()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_trying_an_architecture_out_leaves_no_trace_in_it() -> None:
    network = build("model=torchvision model.arch=resnet18", 3, 32)
    assert network.training
    assert all(
        type(t) in (Tensor, nn.Parameter) for t in network.state_dict(keep_vars=True).values()
    )
    norm: Any = next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.num_batches_tracked == 0
    assert torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean))


def test_a_resnet_is_the_papers_formula() -> None:
    """The whole network, written out once more with nothing but functions."""
    torch.manual_seed(0)
    network = build("model=resnet8", 1, 8, 4).eval()
    w = network.state_dict()
    for name in w:
        if "norm" in name and w[name].is_floating_point():
            w[name] = 0.5 + torch.rand_like(w[name])
    network.load_state_dict(w)

    def conv_norm(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        x = F.conv2d(x, w[f"{conv}.weight"], stride=stride, padding=1)
        mean, var = (w[f"{norm}.running_{name}"][:, None, None] for name in ("mean", "var"))
        weight, bias = (w[f"{norm}.{name}"][:, None, None] for name in ("weight", "bias"))
        normalised: Tensor = (x - mean) / (var + 1e-5).sqrt() * weight + bias
        return normalised

    images = torch.randn(3, 1, 8, 8)
    x = conv_norm(images, "stem", "norm").relu()
    for stage in range(3):
        stride, block = 1 + (stage > 0), f"stages.{stage}"
        inner = conv_norm(x, f"{block}.conv1", f"{block}.norm1", stride).relu()
        inner = conv_norm(inner, f"{block}.conv2", f"{block}.norm2")
        inner[:, : x.shape[1]] += x[:, :, ::stride, ::stride]
        x = inner.relu()
    logits = x.mean((2, 3)) @ w["head.weight"].T + w["head.bias"]
    torch.testing.assert_close(network(images), logits, rtol=1e-4, atol=1e-4)
