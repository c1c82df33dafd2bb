"""Two-tower retrieval: a user and an item become vectors whose dot product is the score.

In-batch sampled softmax with the log Q correction follows Yi et al., "Sampling-Bias-Corrected Neural Modeling for
Large Corpus Item Recommendations" (RecSys 2019), equations 2 to 5; uniform negatives beside those of the batch follow
Yang et al., "Mixed Negative Sampling" (WWW 2020). The score is

    s(u, i, t) = <z_u, z_i> / temperature + <a_u, phi(i, t)>

where z are the (normalised) outputs of the towers and phi(i, t) the momentum of the item at the time of the query
(log counts over windows that end there, log age), whose coefficients a_u depend on the user. The second term is part
of the product, not of the item tower, because an in-batch negative must be judged as of the *example's* time: as of
its own time it has just been taken, as every positive has, and momentum would tell the two apart no more. At serving
time is fixed, so that both terms are one dot product: [z_u / temperature, a_u] with [z_i, phi_i].

All embedding tables are segments of one table of equal width, so that a step works on one block of touched rows.
Nothing here knows Spark, Petastorm or Horovod.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

PAD = -1  # a row number that stands for nothing: its vector is zero
N_NUMERIC = 3  # log age of the last event in days, log number of events, whether there is any history


@dataclass(frozen=True)
class Feature:
    """A categorical feature: codes 1..n_codes (0: unknown), at most ``width`` of them for each user or item."""

    name: str
    n_codes: int
    width: int


@dataclass(frozen=True)
class TowerShape:
    """What the weights' shapes follow from."""

    n_users: int
    n_items: int
    dim: int
    hidden: tuple[int, ...] = ()
    user_features: tuple[Feature, ...] = ()
    item_features: tuple[Feature, ...] = ()
    windows_days: tuple[float, ...] = (7.0,)
    history_length: int = 20
    temperature: float = 0.05
    normalize: bool = True
    history_pooling: str = "mean"  # mean | attention
    second_outputs: int = 0  # of the second head: 0: there is none; 1: a rating; more: an event type each

    @property
    def n_momentum(self) -> int:
        """Number of momentum features: a log count for each window, and the log age."""
        return len(self.windows_days) + 1

    @property
    def segments(self) -> dict[str, tuple[int, int]]:
        """Segments of the embedding table: name to (first row, number of rows)."""
        sizes = [("user", self.n_users), ("item", self.n_items)]
        sizes += [(f"user.{f.name}", f.n_codes) for f in self.user_features]
        sizes += [(f"item.{f.name}", f.n_codes) for f in self.item_features]
        found, first = {}, 0
        for name, size in sizes:
            found[name] = (first, size)
            first += size
        return found

    @property
    def n_rows(self) -> int:
        """Rows of the embedding table."""
        first, size = list(self.segments.values())[-1]
        return first + size

    def id_rows(self, side: str, ids: Tensor) -> Tensor:
        """Table rows of user or item numbers; PAD for a negative one or one beyond the table."""
        first, size = self.segments[side]
        return torch.where((ids >= 0) & (ids < size), ids.long() + first, PAD)

    def code_rows(self, side: str, codes: Tensor) -> Tensor:
        """Table rows of feature codes [n, sum of widths]; PAD for code 0 (unknown) or one beyond the table."""
        parts, column = [], 0
        for feature in self.user_features if side == "user" else self.item_features:
            first, size = self.segments[f"{side}.{feature.name}"]
            part = codes[:, column : column + feature.width].long()
            parts.append(torch.where((part >= 1) & (part <= size), part - 1 + first, PAD))
            column += feature.width
        return torch.cat(parts, dim=1) if parts else codes.new_zeros((len(codes), 0), dtype=torch.long)


class UserBatch(NamedTuple):
    """Users as of a time each. Rows are numbers of rows in the table, or positions in a block of it."""

    user: Tensor  # int64 [n]
    history: Tensor  # int64 [n, history_length], the most recent first, PAD where shorter
    history_days: Tensor  # float32 [n, history_length], age of each in days
    codes: Tensor  # int64 [n, sum of widths]
    numeric: Tensor  # float32 [n, N_NUMERIC]
    keep: Tensor | None = None  # float32 [n, dim]: dropout's mask, scaled


class ItemBatch(NamedTuple):
    """Items. Rows as in UserBatch."""

    item: Tensor  # int64 [n]
    codes: Tensor  # int64 [n, sum of widths]
    keep: Tensor | None = None  # float32 [n, dim]


class TwoTower(nn.Module):
    """The dense part of both towers; the embedding rows are handed in by the caller.

    ``block`` is a float32 [rows, dim] slice of the embedding table; indices in a batch are positions in it, PAD
    included.
    """

    def __init__(self, shape: TowerShape) -> None:
        super().__init__()
        self.shape = shape
        self.user_bias = nn.Parameter(torch.randn(shape.dim) / math.sqrt(shape.dim))
        self.history = nn.Linear(shape.dim, shape.dim, bias=False)
        nn.init.eye_(self.history.weight)
        self.decay = nn.Parameter(torch.zeros(()))  # weight of a recent item: (1 + age in days) ** -decay
        self.numeric = nn.Linear(N_NUMERIC, shape.dim, bias=False)
        nn.init.zeros_(self.numeric.weight)
        if shape.history_pooling == "attention":
            self.attention = nn.Linear(shape.dim, shape.dim, bias=False)
            nn.init.zeros_(self.attention.weight)  # begins as the mean
        if shape.second_outputs:
            self.second = nn.Linear(3 * shape.dim, shape.second_outputs)
        self.user_layers = _layers(shape)
        self.item_layers = _layers(shape)
        self.momentum = nn.Linear(shape.dim, shape.n_momentum)
        nn.init.zeros_(self.momentum.weight)
        nn.init.zeros_(self.momentum.bias)

    def users(self, block: Tensor, batch: UserBatch) -> tuple[Tensor, Tensor]:
        """Vectors z_u [n, dim] and momentum coefficients a_u [n, n_momentum]."""
        rows = with_zero_row(block)
        z = rows_at(rows, batch.user) + self.user_bias + self.numeric(batch.numeric)
        z = z + _bags(rows, batch.codes, self.shape.user_features)
        z = z + self.history(self._pooled(rows, batch, z))
        z = self.user_layers(z if batch.keep is None else z * batch.keep)
        return self._out(z), self.momentum(z)

    def items(self, block: Tensor, batch: ItemBatch) -> Tensor:
        """Vectors z_i [n, dim]."""
        rows = with_zero_row(block)
        z = rows_at(rows, batch.item) + _bags(rows, batch.codes, self.shape.item_features)
        return self._out(self.item_layers(z if batch.keep is None else z * batch.keep))

    def query(self, block: Tensor, batch: UserBatch) -> Tensor:
        """The user's side of the score as one vector [n, dim + n_momentum]."""
        z, a = self.users(block, batch)
        return torch.cat([z / self.shape.temperature, a], dim=1)

    def second_scores(self, z_users: Tensor, z_items: Tensor) -> Tensor:
        """The second head on pairs [n, second_outputs]: linear in both vectors and their product.

        The product is the generalised matrix factorisation of He et al., "Neural Collaborative Filtering" (WWW 2017,
        eq. 9), the vectors themselves stand for the biases of user and item.
        """
        return self.second(torch.cat([z_users, z_items, z_users * z_items], dim=1))

    def _pooled(self, rows: Tensor, batch: UserBatch, asking: Tensor) -> Tensor:
        """The recent items as one vector [n, d]: a mean by age, or by age and attention.

        Attention is the scaled dot product of Vaswani et al., "Attention Is All You Need" (2017, eq. 1), with what
        else is known of the user as the query and the age as a bias.
        """
        weight = (1.0 + batch.history_days).pow(-self.decay) * (batch.history != PAD)
        if self.shape.history_pooling == "attention":
            recent = rows_at(rows, batch.history)
            match = torch.einsum("nd,nhd->nh", self.attention(asking), recent) / math.sqrt(self.shape.dim)
            match = match.masked_fill(batch.history == PAD, float("-inf"))
            weight = weight * (match - match.amax(1, keepdim=True).clamp(min=-1e30)).exp()
            pooled = torch.einsum("nh,nhd->nd", weight, recent)
        else:
            places = _places(rows, batch.history)
            pooled = nn.functional.embedding_bag(places, rows, per_sample_weights=weight, mode="sum")
        return pooled / weight.sum(1, keepdim=True).clamp(min=1e-6)

    def _out(self, z: Tensor) -> Tensor:
        # The constant keeps the gradient of a vector near zero finite.
        return z / (z.square().sum(1, keepdim=True) + 1e-6).sqrt() if self.shape.normalize else z


def new_table(shape: TowerShape, generator: torch.Generator) -> Tensor:
    """The initial embedding table [n_rows, dim]: users zero, all else normal with variance 1 / dim.

    A user's row is what sets the user apart from what history and features say, so it starts from nothing.
    """
    table = torch.empty(shape.n_rows, shape.dim)
    table[: shape.n_users] = 0.0
    table[shape.n_users :].normal_(0.0, 1.0 / math.sqrt(shape.dim), generator=generator)
    return table


def with_zero_row(block: Tensor) -> Tensor:
    """The block with a row of zeros at its end, which is where PAD (-1) points."""
    return torch.cat([block, block.new_zeros(1, block.shape[1])])


def rows_at(rows: Tensor, places: Tensor) -> Tensor:
    """Rows of ``with_zero_row`` at places of any shape [...]: [..., dim]; PAD is the zero row."""
    return rows.index_select(0, _places(rows, places).flatten()).view(*places.shape, rows.shape[1])


def _places(rows: Tensor, places: Tensor) -> Tensor:
    return torch.where(places == PAD, len(rows) - 1, places)


def log_expected_count(batch_share: Tensor, n_batch: float, n_uniform: float) -> Tensor:
    """Log of the number of times that each candidate is expected in the sample: log Q, up to a constant.

    Args:
        batch_share: float32 [candidates], each one's share of the examples.
        n_batch: Examples of the global batch.
        n_uniform: How often each item is expected among those drawn uniformly beside them.
    """
    # Where the share is known, as in a snapshot, it takes the place of the streaming estimate of Yi et al., section 4.
    return (batch_share * n_batch + n_uniform).clamp(min=1e-9).log()


def sampled_softmax_(
    scores: Tensor, target: Tensor, count: Tensor, log_q: Tensor, hidden: Tensor | None = None
) -> Tensor:
    """Cross-entropy over a sample of candidates, corrected for how they were drawn, and its gradient.

    Candidates are distinct items with the number of times that each was drawn, which is the same as one column for
    each draw with accidental hits masked: a row's own item counts once, as its target, never as a negative.

    Args:
        scores: float32 [n, candidates]; overwritten by the gradient of each row's loss by its scores.
        target: int64 [n], the column of each row's positive.
        count: float32 [candidates], times that each was drawn.
        log_q: float32 [candidates], weight times the log of the expected count (Yi et al., equation 3).
        hidden: bool [n, candidates], negatives to leave out, e.g. items that the user has already.

    Returns:
        float32 [n], the loss of each row.
    """
    rows = torch.arange(len(target), device=scores.device)
    positive = scores[rows, target] - log_q[target]
    scores.add_(count.log() - log_q)
    if hidden is not None:
        scores.masked_fill_(hidden, float("-inf"))
    scores[rows, target] = positive
    largest = scores.amax(1)
    shares = scores.sub_(largest[:, None]).exp_()
    total = shares.sum(1)
    shares.div_(total[:, None])
    shares[rows, target] -= 1.0
    return total.log() + largest - positive


def second_loss(scores: Tensor, label: Tensor) -> Tensor:
    """The loss of the second head for each row [n]; 0 where the label is not a number.

    Args:
        scores: float32 [n, outputs]. One output: a standardised rating, by squared error; more: event types, by
            cross-entropy.
        label: float32 [n]: the rating, or the number of the event type.
    """
    known = ~label.isnan()
    filled = torch.where(known, label, 0.0)
    if scores.shape[1] == 1:
        losses = (scores[:, 0] - filled).square()
    else:
        losses = nn.functional.cross_entropy(scores, filled.long(), reduction="none")
    return losses * known


def _layers(shape: TowerShape) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = shape.dim
    for hidden in shape.hidden:
        layers += [nn.Linear(width, hidden), nn.ReLU()]
        width = hidden
    if layers:
        layers.append(nn.Linear(width, shape.dim))
    return nn.Sequential(*layers)


def _bags(rows: Tensor, codes: Tensor, features: tuple[Feature, ...]) -> Tensor:
    """The sum over the features of the mean of each one's known codes [n, dim]."""
    total = rows.new_zeros(len(codes), rows.shape[1])
    column = 0
    for feature in features:
        part = codes[:, column : column + feature.width]
        known = (part != PAD).sum(1, keepdim=True).clamp(min=1)
        total = total + rows_at(rows, part).sum(1) / known
        column += feature.width
    return total
