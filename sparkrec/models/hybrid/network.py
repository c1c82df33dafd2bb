"""The network that ranks candidates by the models' embeddings of the user and the item, joined.

The vectors of the user and of the item are concatenated over the models that have such, and so are their products by
element (He et al. 2017, "Neural collaborative filtering", eq. 7 and 9); beside them stand the cosine of each model's
pair, which is what the two vectors say without layers, and the features that all blenders read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class BlenderShape:
    """What decides the network's weights."""

    n_features: int
    widths: tuple[int, ...]  # of each model's vectors
    hidden: tuple[int, ...]

    @property
    def n_inputs(self) -> int:
        """Features, a cosine a model, and user, item and product of each dimension."""
        return self.n_features + len(self.widths) + 3 * sum(self.widths)


class BlenderNetwork(nn.Module):
    """Layers over the joined inputs, with ReLU, then a weight for each of the last and of the inputs themselves."""

    mean: Tensor  # float32 [n_features], of the features in training
    deviation: Tensor  # likewise; 1 where a feature does not vary

    def __init__(self, shape: BlenderShape) -> None:
        """Weights as PyTorch has them; see ``new_network``."""
        super().__init__()
        self.shape = shape
        widths = [shape.n_inputs, *shape.hidden]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.direct = nn.Linear(shape.n_features + len(shape.widths), 1)
        self.last = nn.Linear(widths[-1], 1, bias=False)
        self.register_buffer("mean", torch.zeros(shape.n_features))
        self.register_buffer("deviation", torch.ones(shape.n_features))

    def forward(self, features: Tensor, user: Tensor, item: Tensor, keep: Tensor | None = None) -> Tensor:
        """The log-odds that the user takes the item.

        Args:
            features: float32 [n, n_features].
            user: float32 [n, sum of widths], of each model of length 1, or 0 where it does not know the user.
            item: The same of the item.
            keep: float32 [n, inputs]: 0 for an input that is dropped, else 1 / (1 − rate); None: all are kept.

        Returns:
            float32 [n].
        """
        scaled = (features - self.mean) / self.deviation
        product = user * item
        parts = product.split(list(self.shape.widths), 1) if self.shape.widths else []
        cosines = [part.sum(1, keepdim=True) for part in parts]
        plain = torch.cat([scaled, *cosines], 1)
        x = torch.cat([plain, user, item, product], 1)
        x = x if keep is None else x * keep
        for layer in self.layers:
            x = torch.relu(layer(x))
        return (self.direct(plain) + self.last(x)).squeeze(1)


def new_network(shape: BlenderShape, seed: int) -> BlenderNetwork:
    """A network whose layers are uniform in ±sqrt(6 / (in + out)) (Glorot & Bengio 2010), and all else 0.

    So it begins with nothing to say, and learns what the features say by themselves first.
    """
    network, generator = BlenderNetwork(shape), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.dim() == 2 and name.startswith("layers"):
                bound = math.sqrt(6.0 / sum(weight.shape))
                weight.uniform_(-bound, bound, generator=generator)
            else:
                weight.zero_()
    return network


def lengths_one(vectors: Tensor, widths: Sequence[int]) -> Tensor:
    """The vectors [n, sum of widths] with each model's part of length 1, zeros where it is zeros."""
    parts = vectors.split(list(widths), 1) if len(widths) else []
    return torch.cat([nn.functional.normalize(part) for part in parts], 1) if len(parts) else vectors
