"""Loops of a GRU's training step on the CPU, compiled by numba: one pass where PyTorch would need a dozen.

They are compiled at their first call, which takes a second or two each, and kept in numba's cache beside their files
where that can be written; ``load`` makes them ready before a training begins. They are for the shipped network
(``models.gru.fused``); others take their steps by PyTorch's operations, of which the loss alone, BPR-max, and what is
drawn are loops where these run on the CPU.
"""

from __future__ import annotations

import numpy as np

from sparkrec.models.gru.compiled import blas, items, step
from sparkrec.ranks.sampling import popular_items


def load(loss: str) -> None:
    """Calls the loops of a training with this loss on next to nothing, so that none is compiled in its midst."""
    numbers, rows = np.zeros(1, np.int64), np.zeros((1, 3), np.float32)
    popular_items(np.zeros(1), np.ones(1), np.zeros(2, np.int32), 0, numbers.copy())
    items.dropout(numbers, np.uint64(0), 0.5, np.float32(2.0), rows.copy())
    if loss == "bpr-max":
        step.bpr_max(rows.copy(), numbers, np.ones(3, np.float32), np.float32(0.0), np.float32(0.0))


def load_whole_steps(n_ranks: int) -> None:
    """The same with those of whole steps (``models.gru.fused``) by so many ranks."""
    blas.provide()
    numbers, widths, batch = np.zeros(1, np.int64), np.ones(2, np.int64), items.Numbered.room(1, 1, 1)
    items.number_step(numbers, numbers, np.zeros(1, np.int8), numbers, numbers, np.full(1, -1, np.int32), batch)
    table, flat, hidden = np.zeros((1, 3, 1), np.float32), np.zeros((3, 12), np.float32), np.zeros(1, np.float32)
    masked, room, message = np.zeros(2, bool), step.Room.of(widths, 3, 1), np.zeros(128, np.float32)
    step.forward(table, table.copy(), flat[0], widths, batch, hidden, masked, room, message)
    step.backward(flat[0], widths, batch, masked, room, message, 0.0)
    four = [np.float32(1.0)] * 4
    step.update(table, table.copy(), flat, widths, batch, (message,) * n_ranks, 0, 1, 0, 12, room, *four)
