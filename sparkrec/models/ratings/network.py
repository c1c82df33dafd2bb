"""The networks that predict what a rating is above or below what the biases expect. Tensors only.

With p_u and q_i the embeddings, x all that layers read (p_u, q_i, the features' embeddings, statistics, and what a
network has besides):

    mf             p_u · q_i                                (Koren, Bell, Volinsky 2009; its priors: Salakhutdinov and
                                                            Mnih 2007, "Probabilistic matrix factorization")
    gmf            h · (p_u ∘ q_i)                          (He et al. 2017, "Neural collaborative filtering", eq. 9)
    mlp            w · MLP(x)                               (eq. 10)
    neumf          w · [p'_u ∘ q'_i, MLP(x)]                (eq. 12), with embeddings of its own on either side
    cross          w · [x_L, MLP(x)], x_(l+1) = x ∘ (W x_l + b) + x_l        (Wang et al. 2021, "DCN V2", eq. 1)
    word2vec_mlp   mlp, x with the item's vector of prod2vec
    text           mlp, x with what a CNN makes of the user's and of the item's other reviews (Zheng, Noroozi, Yu 2017,
                   "Joint deep modeling of users and items using reviews", DeepCoNN)

The CNN is that of Kim 2014 ("Convolutional neural networks for sentence classification"): filters over some words, the
maximum over time of each (or its ``k_max`` largest values, in their order: Kalchbrenner, Grefenstette, Blunsom 2014).
Over several reviews it is the maximum of each value, which is that over the joined text but for the windows across two
reviews: so a pair's own review is left out without reading the others again.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparkrec.models.two_tower.network import Feature

N_STATISTICS = 6
_FIRST = 0.05  # deviation of embeddings before the first step


@dataclass(frozen=True)
class RatingShape:
    """What the weights' shapes follow from."""

    network: str
    n_users: int
    n_items: int
    dim: int
    hidden: tuple[int, ...] = ()
    cross_layers: int = 0
    statistics: bool = True
    dropout: float = 0.0
    user_features: tuple[Feature, ...] = ()
    item_features: tuple[Feature, ...] = ()
    item_vectors: int = 0  # width of prod2vec's
    vocabulary: int = 0  # of words; 0: no text
    word_dim: int = 0
    filters: int = 0
    filter_widths: tuple[int, ...] = ()
    k_max: int = 1

    @property
    def layered(self) -> bool:
        """Whether it has layers, and so reads features and statistics."""
        return self.network not in ("mf", "gmf")

    @property
    def width(self) -> int:
        """Of an embedding: neumf has two in one."""
        return 2 * self.dim if self.network == "neumf" else self.dim

    @property
    def features(self) -> tuple[Feature, ...]:
        """Those of users, then of items, as far as they are read."""
        return (*self.user_features, *self.item_features) if self.layered else ()

    @property
    def n_rows(self) -> int:
        """Rows of the table of embeddings: users, items, then the codes from 1 on of each feature."""
        return self.n_users + self.n_items + sum(feature.n_codes for feature in self.features)

    @property
    def text(self) -> int:
        """Values that a review has."""
        return len(self.filter_widths) * self.filters * self.k_max if self.vocabulary else 0

    @property
    def input(self) -> int:
        """Width of what layers read."""
        embedded = (2 + len(self.features)) * self.dim
        return embedded + N_STATISTICS * self.statistics + self.item_vectors + 2 * self.text

    @property
    def dropped(self) -> int:
        """Values of an example that dropout is of."""
        return 2 * self.dim + sum(self.hidden) if self.layered else 0


class Inputs(NamedTuple):
    """What a network reads of n pairs."""

    user: Tensor  # float32 [n, width]
    item: Tensor  # float32 [n, width]
    features: Tensor  # float32 [n, features, width], means of the codes' embeddings; 0 for none
    statistics: Tensor  # float32 [n, N_STATISTICS]
    vectors: Tensor | None = None  # float32 [n, item_vectors]
    texts: Tensor | None = None  # float32 [n, 2 * text], of the user's and of the item's other reviews
    keep: Tensor | None = None  # float32 [n, dropped], 0 or 1 / (1 - dropout)


class RatingNetwork(nn.Module):
    """The dense weights; embeddings are handed in."""

    def __init__(self, shape: RatingShape) -> None:
        super().__init__()
        self.shape = shape
        if shape.network == "gmf":
            self.weights = nn.Parameter(torch.ones(shape.dim))
        if shape.vocabulary:
            self.words = nn.Embedding(shape.vocabulary + 1, shape.word_dim, padding_idx=0)
            self.filters = nn.ModuleList(
                nn.Conv1d(shape.word_dim, shape.filters, width) for width in shape.filter_widths
            )
        if not shape.layered:
            return
        widths = [shape.input, *shape.hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.crosses = nn.ModuleList(
            nn.Linear(shape.input, shape.input) for _ in range(shape.cross_layers if shape.network == "cross" else 0)
        )
        beside = {"neumf": shape.dim, "cross": shape.input}.get(shape.network, 0)
        self.out = nn.Linear(beside + widths[-1], 1)
        nn.init.zeros_(self.out.weight)  # it begins as the biases
        nn.init.zeros_(self.out.bias)

    def forward(self, of: Inputs) -> Tensor:
        """float32 [n], in deviations of what the biases leave."""
        shape = self.shape
        if shape.network == "mf":
            return (of.user * of.item).sum(1)
        if shape.network == "gmf":
            return (of.user * of.item) @ self.weights
        user, item = of.user[:, -shape.dim :], of.item[:, -shape.dim :]
        keep = [] if of.keep is None else list(of.keep.split([2 * shape.dim, *shape.hidden], dim=1))
        both = torch.cat([user, item], dim=1)
        parts = [both * keep[0] if keep else both, of.features[:, :, -shape.dim :].flatten(1)]
        parts += [of.statistics] if shape.statistics else []
        parts += [part for part in (of.vectors, of.texts) if part is not None]
        x = torch.cat(parts, dim=1)
        hidden = x
        for n, layer in enumerate(self.layers):
            hidden = F.relu(layer(hidden))
            hidden = hidden * keep[n + 1] if keep else hidden
        beside = []
        if shape.network == "neumf":
            beside = [of.user[:, : shape.dim] * of.item[:, : shape.dim]]
        if shape.network == "cross":
            crossed = x
            for layer in self.crosses:
                crossed = x * layer(crossed) + crossed
            beside = [crossed]
        return self.out(torch.cat([*beside, hidden], dim=1))[:, 0]

    def reviews(self, words: Tensor) -> Tensor:
        """float32 [m, text], at least 0, of reviews as int64 [m, words], 0 behind the last word."""
        embedded = self.words(words).transpose(1, 2)
        kept = []
        for filters in self.filters:
            found = F.relu(filters(embedded))
            if self.shape.k_max == 1:
                kept.append(found.amax(2))
                continue
            k = min(self.shape.k_max, found.shape[2])
            places = found.topk(k, dim=2).indices.sort(dim=2).values
            kept.append(F.pad(found.gather(2, places), (0, self.shape.k_max - k)).flatten(1))
        return torch.cat(kept, dim=1)


def of_reviews(values: Tensor, drawn: Tensor) -> Tensor:
    """float32 [n, text]: the largest of each value over the reviews drawn for each of n pairs; 0 without one.

    Args:
        values: float32 [m, text], of ``RatingNetwork.reviews``.
        drawn: int64 [n, r], rows of ``values``, -1 for none.
    """
    there = (drawn >= 0)[:, :, None]
    return (values[drawn.clamp(min=0)] * there).amax(1)


def statistics_of(user_bias: Tensor, item_bias: Tensor, user_count: Tensor, item_count: Tensor, scale: float) -> Tensor:
    """float32 [n, N_STATISTICS] of what others' ratings say of user and item."""
    columns = [user_bias / scale, item_bias / scale, torch.log1p(user_count) / 3, torch.log1p(item_count) / 3]
    return torch.stack([*columns, (user_count > 0).float(), (item_count > 0).float()], dim=1)


def code_rows(shape: RatingShape, codes: Tensor, features: Sequence[Feature], first: int) -> Tensor:
    """int64 [n, w]: rows of the table for codes int64 [n, w] of some features; -1 for code 0, unknown.

    Args:
        shape: Of the network.
        codes: One column for each place of each feature, in order.
        features: Which they are.
        first: The features before these, of ``shape.features``.
    """
    start = shape.n_users + shape.n_items + sum(f.n_codes for f in shape.features[:first])
    columns, at = [], 0
    for feature in features:
        own = codes[:, at : at + feature.width]
        columns.append(torch.where((own > 0) & (own <= feature.n_codes), own - 1 + start, -1))
        at, start = at + feature.width, start + feature.n_codes
    return torch.cat(columns, dim=1) if columns else codes.new_zeros(len(codes), 0)


def mean_rows(table: Tensor, rows: Tensor, widths: Sequence[int]) -> Tensor:
    """float32 [n, features, width]: the mean of the rows of each feature; 0 where all are -1."""
    there = (rows >= 0).float()
    found = table[rows.clamp(min=0)] * there[:, :, None]
    means = [
        part.sum(1) / count.sum(1, keepdim=True).clamp(min=1)
        for part, count in zip(found.split(list(widths), 1), there.split(list(widths), 1), strict=True)
    ]
    return torch.stack(means, dim=1) if means else table.new_zeros(len(rows), 0, table.shape[1])


def new_table(shape: RatingShape, seed: int, level: float | None = None) -> Tensor:
    """float32 [n_rows, width] before the first step: the same for the same seed.

    Args:
        shape: Of the network.
        seed: Of the model.
        level: Of embeddings of at least 0: what the product of two of them begins with.
    """
    table = torch.randn(shape.n_rows, shape.width, generator=torch.Generator().manual_seed(seed)) * _FIRST
    return table if level is None else table.abs_().add_((level / shape.width) ** 0.5)


def new_network(shape: RatingShape, seed: int) -> RatingNetwork:
    """Fresh dense weights: the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RatingNetwork(shape)
