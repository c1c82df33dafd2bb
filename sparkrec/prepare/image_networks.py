"""Pretrained networks whose last layer before the classifier is an image's vector.

VGG16 (Simonyan and Zisserman 2015, arXiv 1409.1556; the vector is fc7), ResNet (He et al. 2016, arXiv 1512.03385) and
EfficientNet (Tan and Le 2019, arXiv 1905.11946) are torchvision's. EfficientNet-Lite0, the variant without squeeze and
excitation and with ReLU6, is not among them and is written here, with the names of its published weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparkrec.errors import UserError

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's weights: mean and deviation of a colour
_LITE = (127 / 255,) * 3, (128 / 255,) * 3
# Of EfficientNet-Lite0's blocks: kernel, stride, factor of expansion, channels out, repeats.
_LITE0 = (
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)  # fmt: skip
_EPSILON = 1e-3  # of the batch normalisation of TensorFlow's EfficientNets


@dataclass(frozen=True)
class ImageNetwork:
    """A network, and what images it expects.

    Attributes:
        width: Of the vectors.
        make: Makes the network with random weights, whose names are those of the published ones.
        features: Makes the last layer before the classifier what the network returns.
        mean: Of each colour in 0 to 1.
        deviation: Likewise.
    """

    width: int
    make: Callable[[], nn.Module]
    features: Callable[[nn.Module], nn.Module]
    mean: tuple[float, ...] = _IMAGENET[0]
    deviation: tuple[float, ...] = _IMAGENET[1]


class _Same(nn.Conv2d):
    """A convolution padded as TensorFlow does: outputs are ceil(input / stride), what is odd is padded at the end."""

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, channels, height, width]."""
        pads: list[int] = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            whole = max(0, (-(-size // stride) - 1) * stride + kernel - size)
            pads += [whole // 2, whole - whole // 2]
        return self._conv_forward(F.pad(x, pads), self.weight, self.bias)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON)


class _Block(nn.Module):
    """An inverted residual block (Sandler et al. 2018, arXiv 1801.04381)."""

    def __init__(self, n_in: int, kernel: int, stride: int, factor: int, n_out: int) -> None:
        super().__init__()
        wide, self.whole, self.wider = n_in * factor, stride == 1 and n_in == n_out, factor > 1
        if self.wider:
            self._expand_conv, self._bn0 = _Same(n_in, wide, 1, bias=False), _norm(wide)
        self._depthwise_conv = _Same(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv, self._bn2 = _Same(wide, n_out, 1, bias=False), _norm(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, channels, height, width]."""
        wide = F.relu6(self._bn0(self._expand_conv(x))) if self.wider else x
        found: Tensor = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(wide)))))
        return x + found if self.whole else found


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 for images of 224 × 224."""

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self._conv_stem, self._bn0 = _Same(3, 32, 3, 2, bias=False), _norm(32)
        blocks, n_in = [], 32
        for kernel, stride, factor, n_out, repeats in _LITE0:
            for n in range(repeats):
                blocks.append(_Block(n_in, kernel, stride if n == 0 else 1, factor, n_out))
                n_in = n_out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = _Same(n_in, 1280, 1, bias=False), _norm(1280)
        self._fc: nn.Module = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """x: float32 [n, 3, 224, 224] → [n, 1000], or [n, 1280] where the classifier is taken off."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        return self._fc(x.mean((2, 3)))  # type: ignore[no-any-return]


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        try:
            from torchvision import models
        except ImportError as error:
            fix = "pip install 'sparkrec[images]' on the driver and the executors, or take efficientnet_lite0"
            raise UserError("torchvision is not installed", where=f"prepare.image.network={name}", fix=fix) from error
        found: nn.Module = getattr(models, name)(weights=None)
        return found

    return make


def _without(layer: str) -> Callable[[nn.Module], nn.Module]:
    def change(network: nn.Module) -> nn.Module:
        setattr(network, layer, nn.Identity())
        return network

    return change


def _fc7(network: Any) -> nn.Module:
    network.classifier = network.classifier[:5]  # fc6, ReLU, dropout, fc7, ReLU
    return network  # type: ignore[no-any-return]


NETWORKS = {
    "efficientnet_lite0": ImageNetwork(1280, EfficientNetLite0, _without("_fc"), *_LITE),
    "efficientnet_b0": ImageNetwork(1280, _torchvision("efficientnet_b0"), _without("classifier")),
    "resnet18": ImageNetwork(512, _torchvision("resnet18"), _without("fc")),
    "resnet50": ImageNetwork(2048, _torchvision("resnet50"), _without("fc")),
    "vgg16": ImageNetwork(4096, _torchvision("vgg16"), _fc7),
}


def load_network(name: str, weights: bytes, where: str) -> nn.Module:
    """The network with its weights, which returns vectors.

    Args:
        name: One of ``NETWORKS``.
        weights: A safetensors file of all weights, by the network's own names.
        where: Where they are from, for the message.

    Raises:
        UserError: They are damaged, or another network's; torchvision is needed and not installed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    known = NETWORKS[name]
    network = known.make()
    try:
        network.load_state_dict(load(weights))
    except (SafetensorError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        fix = f"a safetensors file of all weights of {name}, under the names that its published ones have"
        raise UserError(f"the weights are not those of {name}: {reason}", where=where, fix=fix) from error
    network = known.features(network).eval()
    for weight in network.parameters():
        weight.requires_grad_(False)
    return network


@torch.no_grad()
def vectors(network: nn.Module, images: Tensor) -> Tensor:
    """The vectors of images float32 [n, 3, 224, 224], as ``image_vectors.pixels`` makes them: [n, width]."""
    found: Tensor = network(images)
    return found.flatten(1)
