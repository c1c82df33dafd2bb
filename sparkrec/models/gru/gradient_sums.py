"""The gradients of a step summed over the ranks: all of them on each rank or, where memory is shared, a part on each.

The gradient of a table's rows as candidates is a product of scores' gradients and vectors, which are smaller than it
while the lanes are few. Ranks that share memory give each other these, and each multiplies its own rows out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from sparkrec.models.gru.protocol import Batch, Factored, Gradients, Parameters, multiplied_out
from sparkrec.ranks.comm import Comm
from sparkrec.ranks.shared_memory import SharedMemory, sum_in_order


def summed(
    found: Gradients,
    comm: Comm,
    memory: SharedMemory | None,
    batch: Batch,
    meanwhile: Callable[[], None] | None = None,
) -> tuple[torch.Tensor, Parameters, list[slice]]:
    """Sums a step over the ranks.

    Args:
        found: This rank's loss and gradients, of the same rows on all ranks.
        comm: The ranks.
        memory: Theirs, where they update one and the same weights, each a part.
        batch: The step.
        meanwhile: What to do while other ranks have not come so far yet; not called where nothing is waited for.

    Returns:
        The loss; the gradients; and which rows of each table, and last of the flat vector, these are of.
    """
    if memory:
        return _own_parts(found, memory, batch, meanwhile)
    everything = [slice(None)] * (len(found.tables) + 1)
    if comm.size == 1:
        return found.loss, found.weights, everything
    weights = found.weights
    parts = [*weights.tables, weights.flat, found.loss]
    sent = comm.allreduce_sum(torch.cat([part.reshape(-1) for part in parts]))
    *tables, flat, loss = (s.view(p.shape) for s, p in zip(sent.split([p.numel() for p in parts]), parts, strict=True))
    return loss, Parameters(tuple(tables), flat), everything


def _own_parts(
    found: Gradients, memory: SharedMemory, batch: Batch, meanwhile: Callable[[], None] | None
) -> tuple[torch.Tensor, Parameters, list[slice]]:
    worth = all(_worth(t, batch.n_lanes, memory.size) for t in found.tables if isinstance(t, Factored))
    tables = found.tables if worth else found.weights.tables
    if not memory.fits(_bytes_at_most(tables, found.flat, batch)):
        parts = [*replace(found, tables=tables).weights.tables, found.flat]
        own = [memory.part_of(len(part)) for part in parts]
        *sums, flat, loss = memory.sum_parts([*parts, found.loss.view(1)], [*own, slice(0, 1)])
        return loss[0], Parameters(tuple(sums), flat), own
    lengths = [t.n_rows if isinstance(t, Factored) else len(t) for t in (*tables, found.flat)]
    slices = [[memory.part_of(n, rank) for rank in range(memory.size)] for n in lengths]
    sent: list[torch.Tensor | Sequence[torch.Tensor]] = [found.loss.view(1)]
    for t, rows in zip((*tables, found.flat), slices, strict=True):
        if isinstance(t, Factored):
            sent += [[t.d_scores[:, r] for r in rows], t.vectors, t.place, t.added]
        else:
            sent.append([t[r] for r in rows])
    of_ranks = [iter(got) for got in memory.exchange(sent, meanwhile)]
    loss = sum_in_order([next(got) for got in of_ranks])[0]
    sums = []
    for t, rows in zip((*tables, found.flat), slices, strict=True):
        if isinstance(t, Factored):
            mine = rows[memory.rank]
            got = [(next(g), next(g), next(g) - mine.start, next(g)) for g in of_ranks]
            sums.append(multiplied_out([Factored(mine.stop - mine.start, *tensors) for tensors in got]))
        else:
            sums.append(sum_in_order([next(got) for got in of_ranks]))
    return loss, Parameters(tuple(sums[:-1]), sums[-1]), [rows[memory.rank] for rows in slices]


def _worth(t: Factored, n_lanes: int, size: int) -> bool:
    """Whether the factors of all lanes are smaller than the product; the same on all ranks."""
    return n_lanes <= size * t.vectors.shape[1]


def _bytes_at_most(tables: Sequence[torch.Tensor | Factored], flat: torch.Tensor, batch: Batch) -> int:
    """Bytes of a rank's message if it had all lanes: the same on all ranks, which must agree on the way."""
    total, n_inputs = 4 * flat.numel(), batch.n_lanes * (1 + len(batch.past))
    for t in tables:
        if isinstance(t, Factored):
            width = t.vectors.shape[1]
            total += 4 * batch.n_lanes * (t.d_scores.shape[1] + width) + n_inputs * (4 * width + 8)
        else:
            total += 4 * t.numel()
    return total
