"""One training step of prod2vec and Meta-prod2vec, the same on one rank and on many.

Independent of the number of ranks by construction: the pairs of a step are slices of files, and the negatives come
from a common seed. The ranks tell each other once a chunk of steps which rows their pairs touch; so the rows of a step
are the same set on every rank, and their gradients travel as one dense message. The tables themselves never do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import block_diag
from torch import Tensor

from sparkrec.models.prod2vec.skipgram import Batch, Tables, adagrad_rows_, gradients
from sparkrec.ranks.comm import Comm
from sparkrec.ranks.sampling import PopularitySampler

DRAWS_A_NEGATIVE = 32  # negatives of a step, common to all its pairs, for each one that a pair asks for
_NO_ROW = -1


class Pairs(NamedTuple):
    """A rank's pairs of a step, as rows of the tables."""

    input: np.ndarray  # int64 [P]
    target: np.ndarray  # int64 [P]
    weight: np.ndarray | None = None  # float32 [P]; None: all 1
    group: np.ndarray | None = None  # int64 [P], group of the target; None: all of group 0


class Touched(NamedTuple):
    """Rows of a step, each ascending."""

    input: np.ndarray  # int64
    target: np.ndarray  # int64


@dataclass(frozen=True)
class Group:
    """Targets that are each other's negatives: a segment of the tables."""

    first: int
    sampler: PopularitySampler | None  # None: no target has a count

    @classmethod
    def of(cls, first: int, counts: Tensor, ns_exponent: float) -> Group:
        """The rows from ``first`` on, drawn by count ** ns_exponent; rows without a count are never drawn."""
        return cls(first, PopularitySampler.from_counts(counts, ns_exponent) if counts.any() else None)

    def draw(self, shape: tuple[int, int], generator: torch.Generator) -> np.ndarray:
        """int64, rows drawn independently; [n, 0] where there are none."""
        if self.sampler is None:
            return np.zeros((shape[0], 0), dtype=np.int64)
        return self.first + self.sampler.draw(shape, generator).numpy()


class Negatives(NamedTuple):
    """The negatives of a step, the same on all ranks."""

    row: np.ndarray  # int64 [N], ascending
    share: np.ndarray  # float32 [groups, N], see ``models.prod2vec.skipgram.Batch``


def draw_negatives(groups: Sequence[Group], k: int, n_steps: int, generator: torch.Generator) -> list[Negatives]:
    """The negatives of some steps: ``DRAWS_A_NEGATIVE`` · k draws of each group, which together weigh k of a pair."""
    drawn = [group.draw((n_steps, DRAWS_A_NEGATIVE * k), generator) for group in groups]
    found = []
    for step in range(n_steps):
        parts = [np.unique(rows[step], return_counts=True) for rows in drawn]  # segments: ascending one after another
        share = block_diag(*[times / DRAWS_A_NEGATIVE for _, times in parts]).astype(np.float32)
        found.append(Negatives(np.concatenate([rows for rows, _ in parts]), share))
    return found


def numbered(*parts: np.ndarray) -> tuple[Tensor, ...]:
    """The rows int64 that are in any of the parts, ascending, and for each part its rows' places among them."""
    rows, places = torch.unique(torch.from_numpy(np.concatenate(parts)), return_inverse=True)
    return rows, *places.split([len(part) for part in parts])


def touched_by_all(pairs: Sequence[Pairs], comm: Comm) -> list[Touched]:
    """The rows that the pairs of all ranks touch, for some steps of which a rank has the given pairs."""
    own = [np.unique(rows) for step in pairs for rows in (step.input, step.target)]
    width = int(comm.allgather(torch.tensor([max(map(len, own))])).max())
    padded = np.full((len(own), width), _NO_ROW, dtype=np.int64)
    for line, rows in enumerate(own):
        padded[line, : len(rows)] = rows
    everyone = comm.allgather(torch.from_numpy(padded)).numpy().reshape(comm.size, len(pairs), 2, width)
    parts = [[everyone[:, step, side] for side in range(2)] for step in range(len(pairs))]
    return [Touched(*(np.unique(rows[rows != _NO_ROW]) for rows in step)) for step in parts]


def take_step(
    tables: Tables, pairs: Pairs, negatives: Negatives, everyone: Touched | None, rate: float, comm: Comm
) -> Tensor:
    """Moves the touched rows by the gradient of all ranks' pairs, in place.

    Args:
        tables: Weights and sums, the same on all ranks.
        pairs: This rank's.
        negatives: Of the step.
        everyone: Rows of all ranks' pairs; None: there is no other rank.
        rate: Learning rate.
        comm: The ranks.

    Returns:
        The loss summed over the pairs of all ranks.
    """
    device = tables.vectors.device
    (inputs, targets), batch = _batch(pairs, negatives, device)
    mine = [inputs, targets]
    loss, *found = gradients(tables.vectors[inputs], tables.contexts[targets], batch)
    rows = mine
    if everyone is not None:
        all_targets = np.union1d(everyone.target, negatives.row)
        rows = [torch.from_numpy(r).to(device) for r in (everyone.input, all_targets)]
        loss, found = _summed(comm, loss, found, mine, rows)
    adagrad_rows_(tables.vectors, tables.vector_squares, rows[0], found[0], rate)
    adagrad_rows_(tables.contexts, tables.context_squares, rows[1], found[1], rate)
    return loss


def _batch(pairs: Pairs, negatives: Negatives, device: torch.device) -> tuple[list[Tensor], Batch]:
    """The step on the device: the rows of its two blocks, each ascending, and the pairs as places in them."""
    inputs, input_place = numbered(pairs.input)
    targets, target_place, negative_place = numbered(pairs.target, negatives.row)
    weight, group = (None if a is None else torch.from_numpy(a).to(device) for a in (pairs.weight, pairs.group))
    batch = Batch(
        input=input_place.to(device),
        target=target_place.to(device),
        weight=weight,
        group=group,
        negative=negative_place.to(device),
        share=torch.from_numpy(negatives.share).to(device),
    )
    return [inputs.to(device), targets.to(device)], batch


def _summed(
    comm: Comm, loss: Tensor, found: list[Tensor], mine: list[Tensor], rows: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The loss and the gradients of ``rows``, summed over the ranks in one message; ``mine``: this rank's rows."""
    blocks = [g.new_zeros(len(r), g.shape[1]) for g, r in zip(found, rows, strict=True)]
    for block, gradient, own, all_rows in zip(blocks, found, mine, rows, strict=True):
        block[torch.searchsorted(all_rows, own)] = gradient
    sent = comm.allreduce_sum(torch.cat([*(block.view(-1) for block in blocks), loss.view(1)]))
    *parts, total = sent.split([*(block.numel() for block in blocks), 1])
    return total[0], [part.view(block.shape) for part, block in zip(parts, blocks, strict=True)]
