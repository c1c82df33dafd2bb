"""The gradients of a step summed over the ranks: all on each rank or, where memory is shared, a part on each."""

from __future__ import annotations

import torch

from sparkrec.models.gru.protocol import Gradients, Parameters
from sparkrec.ranks.comm import Comm
from sparkrec.ranks.shared_memory import SharedMemory


def summed(found: Gradients, comm: Comm, memory: SharedMemory | None) -> tuple[torch.Tensor, Parameters, list[slice]]:
    """Sums a step over the ranks.

    Args:
        found: This rank's loss and gradients, of the same rows on all ranks.
        comm: The ranks.
        memory: Theirs, where they update one and the same weights, each a part.

    Returns:
        The loss; the gradients; and which rows of each table, and last of the flat vector, these are of.
    """
    parts = [*found.tables, found.flat, found.loss.view(1)]
    own = [slice(None)] * len(parts)
    if memory:
        own = [*(memory.part_of(len(part)) for part in parts[:-1]), slice(None)]
        parts = memory.sum_parts(parts, own)
    elif comm.size > 1:
        sent = comm.allreduce_sum(torch.cat([part.reshape(-1) for part in parts]))
        parts = [s.view(p.shape) for s, p in zip(sent.split([p.numel() for p in parts]), parts, strict=True)]
    *tables, flat, loss = parts
    return loss[0], Parameters(tuple(tables), flat), own[:-1]
