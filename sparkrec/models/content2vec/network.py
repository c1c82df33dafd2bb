"""content2vec: an item's content and its prod2vec vector as one vector, trained on pairs taken together. Tensors only.

Nedelec, Smirnova, Vasile 2017 ("Specializing joint representations for the task of product recommendation"): items
have an embedding for each modality, and the similarity of a pair is a weighted sum of the modalities' similarities
plus a residual over all of them together (the pairwise residual unit). Here, with u_m the unit vector of modality m
and r an MLP of them all,

    v = [ √w_1 u_1, …, √w_M u_M, r(u_1, …, u_M) ]        ⟨v_a, v_b⟩ = Σ_m w_m ⟨u_m(a), u_m(b)⟩ + ⟨r_a, r_b⟩

and the probability that two items are taken together is σ(γ cos(v_a, v_b) + β). So the cosine of two vectors is what
was trained, and serving needs nothing but them. ``concatenation`` leaves r out: the weights alone are learnt.

A modality that an item does not have is zero, and r is told so. The prod2vec vector is different: new items lack it,
and without it their norm, and so their place in all lists, would not be comparable. Where it lacks, a linear map of the
content takes its place; training hides the vectors of a share of the items, so that the map is learnt (as DropoutNet
does: Volkovs, Yu, Poutanen 2017).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN_SHARE = 0.3  # of the items, whose prod2vec vectors are hidden in a step
_FIRST_SCALE, _FIRST_BIAS = 5.0, -1.0  # a pair of unlike items begins at σ(-1): there are more negatives than pairs
_FIRST_RESIDUAL = 0.1  # size of r beside the modalities


@dataclass(frozen=True)
class Content2VecShape:
    """What the weights' shapes follow from."""

    content: tuple[int, ...]  # widths of the content vectors
    behaviour: int  # width of the prod2vec vectors
    dim: int  # of the residual; 0: none
    hidden: tuple[int, ...] = ()  # widths of its hidden layers

    @property
    def width(self) -> int:
        """Of the vectors served."""
        return sum(self.content) + self.behaviour + self.dim


class Content2Vec(nn.Module):
    """The weights. Vectors of items are handed in by the caller, of length 1, or 0 where an item has none."""

    def __init__(self, shape: Content2VecShape, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        n_content = len(shape.content)
        self.log_weights = nn.Parameter(torch.zeros(n_content + 1))  # of the modalities, prod2vec last
        self.log_scale = nn.Parameter(torch.tensor(math.log(_FIRST_SCALE)))
        self.bias = nn.Parameter(torch.tensor(_FIRST_BIAS))
        self.stand_in = _linear(sum(shape.content) + n_content, shape.behaviour, generator)
        if shape.dim:
            widths = [sum(shape.content) + shape.behaviour + n_content + 1, *shape.hidden, shape.dim]
            layers: list[nn.Module] = []
            for before, after in itertools.pairwise(widths):
                layers += [_linear(before, after, generator), nn.ReLU()]
            self.residual = nn.Sequential(*layers[:-1])

    def forward(self, content: list[Tensor], behaviour: Tensor) -> Tensor:
        """The items' vectors.

        Args:
            content: For each modality float32 [n, width].
            behaviour: float32 [n, width], of prod2vec; 0 for an item without one, or whose vector is hidden.

        Returns:
            float32 [n, ``shape.width``], of length 1; 0 for an item that has nothing.
        """
        there = torch.cat([(part != 0).any(1, keepdim=True) for part in (*content, behaviour)], dim=1).float()
        has_content, has_behaviour = there[:, :-1].amax(1, keepdim=True), there[:, -1:]
        stand_in = F.normalize(self.stand_in(torch.cat([*content, there[:, :-1]], dim=1))) * has_content
        modalities = [*content, torch.where(has_behaviour > 0, behaviour, stand_in)]
        weights = (0.5 * self.log_weights).exp().unbind()
        parts = [part * weight for part, weight in zip(modalities, weights, strict=True)]
        if self.shape.dim:
            parts.append(_FIRST_RESIDUAL * self.residual(torch.cat([*modalities, there], dim=1)))
        return F.normalize(torch.cat(parts, dim=1)) * there.amax(1, keepdim=True)

    def sides(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides of the score as vectors [n, width + 1]: ⟨x_a, c_b⟩ = γ cos(v_a, v_b) + β."""
        one = torch.ones(len(vectors), 1, device=vectors.device)
        return torch.cat([vectors * self.log_scale.exp(), self.bias * one], dim=1), torch.cat([vectors, one], dim=1)


def new_content2vec(shape: Content2VecShape, seed: int) -> Content2Vec:
    """Fresh weights: the same on every rank, for the same seed."""
    return Content2Vec(shape, torch.Generator().manual_seed(seed))


def _linear(before: int, after: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer that begins as PyTorch's do, uniform in ±1/√before, but with a generator of its own."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, before, after)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(before**-0.5), before**-0.5, generator=generator)
    return layer
