"""prod2vec: skip-gram with negative sampling over items. Tensors only.

Each item has a vector x (as an input) and a context vector c (as a target). For pairs (i, j) of items that were taken
together, with weights w, the loss is that of Mikolov et al. 2013 ("Distributed representations of words and phrases
and their compositionality", eq. 4), which Grbovic et al. 2015 ("E-commerce in your inbox", eq. 1) took to products:

    Σ_(i,j) w [ −log σ(x_i · c_j) − K Σ_s q_s log σ(−x_i · c_s) ]

with K negatives a pair drawn by q ∝ count ** ns_exponent. Here the negatives of a step are common to all its pairs: S
of them are drawn, and each weighs K / S of a pair. The expectation of the gradient is the same, an input meets more
different negatives than K, and they take three matrix products instead of K more pairs each. A negative that is a
pair's own target does not count for that pair, as in word2vec.

Targets are of groups (items; the values of each side feature of Meta-prod2vec): the negatives of a pair are of the
group of its target.

The updates are row-wise Adagrad: of each row the mean of the squared gradient is summed up, and the whole row takes
steps of learning_rate / √sum (Duchi et al. 2011, with one accumulator a row, as embedding tables in recommenders are
trained). Word2vec moves a vector after each pair by the plain gradient; the sum of a batch's gradients would throw
frequent items far beyond their minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ADAGRAD_EPS = 1e-10
SIDE_EVENTS = 5.0  # an item's side information weighs as much as so many of its own events
_NARROW = 1 << 16  # numpy sorts 16-bit integers by radix
_PIECE = 1024  # pairs


class Batch(NamedTuple):
    """The pairs and negatives of a step; inputs and targets are places in blocks of rows."""

    input: Tensor  # int64 [P], rows of the inputs' block
    target: Tensor  # int64 [P], rows of the targets' block
    weight: Tensor | None  # float32 [P]; None: all 1
    group: Tensor | None  # int64 [P], group of the target; None: all of group 0
    negative: Tensor  # int64 [N], distinct rows of the targets' block
    share: Tensor  # float32 [groups, N], K m / S for a negative of the group that was drawn m times, 0 for others


class Tables(NamedTuple):
    """The weights and the optimiser's sums: input vectors and context vectors of R rows."""

    vectors: Tensor  # float32 [R, dim]
    contexts: Tensor  # float32 [R, dim]
    vector_squares: Tensor  # float32 [R]
    context_squares: Tensor  # float32 [R]


def new_tables(n_rows: int, dim: int, seed: int) -> Tables:
    """Weights as word2vec begins with: vectors uniform in ±0.5 / dim, contexts 0."""
    vectors = (torch.rand(n_rows, dim, generator=torch.Generator().manual_seed(seed)) - 0.5) / dim
    return Tables(vectors, torch.zeros(n_rows, dim), torch.zeros(n_rows), torch.zeros(n_rows))


def gradients(x: Tensor, c: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The loss and its gradients.

    Args:
        x: float32 [U, dim], the inputs' block.
        c: float32 [V, dim], the targets' block.
        batch: The pairs, and the negatives among the targets.

    Returns:
        The loss summed over the pairs (a scalar), its gradient of x and that of c.
    """
    mass = _mass(batch, len(x)) @ batch.share  # [U, N], pairs that meet the negative
    against = c[batch.negative]
    scores = x @ against.T
    loss_negative = torch.dot(mass.view(-1), F.softplus(scores).view(-1))
    slope = torch.sigmoid_(scores).mul_(mass)
    own, loss_positive = _positive(x, c, batch)
    d_x = slope @ against
    d_x += _weighted_sums(own, batch.input, batch.target, c, len(x))
    d_c = _weighted_sums(own, batch.target, batch.input, x, len(c))
    d_c.index_add_(0, batch.negative, slope.T @ x)
    return loss_positive + loss_negative, d_x, d_c


def adagrad_rows_(table: Tensor, squares: Tensor, rows: Tensor, gradient: Tensor, rate: float) -> None:
    """One step of row-wise Adagrad in place: ``table[rows]`` and ``squares[rows]``, by gradient [len(rows), dim]."""
    summed = squares[rows] + torch.linalg.vecdot(gradient, gradient) / gradient.shape[1]
    squares[rows] = summed
    table.index_add_(0, rows, gradient * (-rate / (summed.sqrt() + ADAGRAD_EPS))[:, None])


def learning_rate(first: float, last: float, progress: float) -> float:
    """The rate at a share of the training, from 0 to 1: it falls in a line, as word2vec's."""
    return first + (last - first) * progress


def served_vectors(tables: Tables, counts: Tensor, side: Sequence[Tensor] = ()) -> tuple[Tensor, dict[str, int]]:
    """The vectors that items are searched by; zero for an item without one.

    An item that was in no pair has learnt nothing: its row is what it began with, and is left out. With side
    information, m is the mean direction of an item's values (of each feature equally), and

        vector = (n x/|x| + k m) / (n + k),    n the item's events, k = ``SIDE_EVENTS``,

    the mean of its own direction and that of its kind with the weight of k more events: a product that was seen a few
    times leans on its category, brand and so on, one never seen (n = 0) is placed by them alone. Values that no pair
    had are left out as well; an item with none of either has no vector.

    Args:
        tables: Trained; the first rows are the items.
        counts: int64 [n_items].
        side: For each feature int64 [n_items, width], table rows of the items' values, -1 for none.

    Returns:
        float32 [n_items, dim], and how many items are ``learnt``, placed ``by_side`` alone, and ``without`` a vector.
    """
    learnt = tables.vector_squares > 0
    own = learnt[: len(counts), None]
    vectors = torch.where(own, tables.vectors[: len(counts)], 0.0)
    if side:
        kind = F.normalize(sum(_mean_direction(tables.vectors, learnt, rows) for rows in side))  # type: ignore[arg-type]
        n = torch.where(own, counts[:, None], 0).float()
        vectors = (n * F.normalize(vectors) + SIDE_EVENTS * kind) / (n + SIDE_EVENTS)
    n_own, n_found = int(own.sum()), int((vectors != 0).any(1).sum())
    return vectors, {"learnt": n_own, "by_side": n_found - n_own, "without": len(counts) - n_found}


def _mean_direction(table: Tensor, learnt: Tensor, rows: Tensor) -> Tensor:
    """[n, dim], the mean of the learnt rows' directions; 0 where there is none."""
    known = (rows >= 0) & learnt[rows.clamp(min=0)]
    directions = F.normalize(table[rows.clamp(min=0)], dim=2) * known[:, :, None]
    return directions.sum(1) / known.sum(1, keepdim=True).clamp(min=1)


def _positive(x: Tensor, c: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """The derivative of the loss by each pair's score, float32 [P], and the pairs' part of the loss.

    The pair's own target is taken off the negatives, where ``gradients`` counts it with all others.
    """
    score = _pair_scores(x, c, batch)
    drawn = torch.zeros(len(c), device=c.device).index_copy_(0, batch.negative, batch.share.sum(0))[batch.target]
    sigma = torch.sigmoid(score)
    slope = sigma - 1 - drawn * sigma
    loss = F.softplus(-score) - drawn * F.softplus(score)
    if batch.weight is None:
        return slope, loss.sum()
    return slope * batch.weight, torch.dot(loss, batch.weight)


def _mass(batch: Batch, n_inputs: int) -> Tensor:
    """float32 [U, groups], the summed weights of an input's pairs with targets of each group."""
    groups = len(batch.share)
    place = batch.input if batch.group is None else batch.input * groups + batch.group
    counted = torch.bincount(place, weights=batch.weight, minlength=n_inputs * groups)
    return counted.to(batch.share.dtype).view(n_inputs, groups)


def _pair_scores(x: Tensor, c: Tensor, batch: Batch) -> Tensor:
    """float32 [P], x_i · c_j of each pair. On the CPU piece by piece, so that the copied rows stay in the cache."""
    if x.is_cuda:
        return (x[batch.input] * c[batch.target]).sum(1)
    rows, columns = batch.input.numpy(), batch.target.numpy()
    scores = np.empty(len(rows), dtype=np.float32)
    left, right = (np.empty((_PIECE, x.shape[1]), dtype=np.float32) for _ in range(2))
    for begin in range(0, len(rows), _PIECE):
        piece = slice(begin, min(begin + _PIECE, len(rows)))
        n = piece.stop - begin
        np.take(x.numpy(), rows[piece], axis=0, out=left[:n], mode="clip")  # "raise" would copy once more
        np.take(c.numpy(), columns[piece], axis=0, out=right[:n], mode="clip")
        np.einsum("ij,ij->i", left[:n], right[:n], out=scores[piece])
    return torch.from_numpy(scores)


def _weighted_sums(weight: Tensor, into: Tensor, of: Tensor, table: Tensor, n: int) -> Tensor:
    """[n, dim], row r: Σ over the pairs p with ``into[p] == r`` of ``weight[p] * table[of[p]]``, in the order of p."""
    if table.is_cuda:
        order = torch.argsort(into, stable=True)
        counts = torch.bincount(into, minlength=n)
    else:  # numpy sorts in a fraction of the time
        places = into.numpy().astype(np.uint16 if n <= _NARROW else np.int64)
        order = torch.from_numpy(np.argsort(places, kind="stable"))
        counts = torch.from_numpy(np.bincount(places, minlength=n))
    bags = counts.cumsum(0) - counts
    return F.embedding_bag(of[order], table, bags, mode="sum", per_sample_weights=weight[order])
