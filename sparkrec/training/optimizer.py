"""Adagrad with momentum, as GRU4Rec uses it: the accumulator starts at 0 and the learning rate does not decay."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

EPSILON = 1e-6
SIGNATURE = "void(float32[:, :, ::1], int64[::1], float32[:, ::1], float32, float32, float32, float32)"


@dataclass(frozen=True)
class AdagradMomentum:
    """acc += g²; v = momentum v − lr g / sqrt(acc + 1e-6); p += v."""

    learning_rate: float
    momentum: float

    def step(
        self, p: torch.Tensor, acc: torch.Tensor, velocity: torch.Tensor, grad: torch.Tensor, scale: float = 1.0
    ) -> None:
        """Updates a tensor and its state in place by the gradient times ``scale``; ``grad`` is left as it is."""
        acc.addcmul_(grad, grad, value=scale * scale)
        velocity.mul_(self.momentum).addcdiv_(grad, (acc + EPSILON).sqrt_(), value=-self.learning_rate * scale)
        p.add_(velocity)

    def step_rows(self, table: torch.Tensor, rows: torch.Tensor, grad: torch.Tensor, scale: float = 1.0) -> None:
        """Updates rows of a table in place, on the CPU in one pass over them.

        Args:
            table: float32 ``[n, 3, width]``: of each row the weights, the accumulator and the velocity.
            rows: int64 ``[r]``, distinct.
            grad: float32 ``[r, width]``.
            scale: Factor of the gradient.
        """
        if table.is_cuda:
            block = table.index_select(0, rows)
            self.step(block[:, 0], block[:, 1], block[:, 2], grad, scale)
            table.index_copy_(0, rows, block)
        else:
            numbers = (np.float32(number) for number in (scale, self.learning_rate, self.momentum, EPSILON))
            row_update()(table.numpy(), rows.numpy(), grad.contiguous().numpy(), *numbers)


@functools.cache
def row_update() -> Callable[..., None]:
    """The update of rows on the CPU; the first call compiles it, which takes a second or two."""
    import numba

    # With numpy's error model a division does not look for zeros, and the loop takes several numbers at a time.
    @numba.njit(SIGNATURE, nogil=True, error_model="numpy")  # type: ignore[misc]
    def update(table: Any, rows: Any, grad: Any, scale: Any, rate: Any, momentum: Any, epsilon: Any) -> None:
        for i in range(rows.size):
            state, of_row = table[rows[i]], grad[i]
            weight, acc, velocity = state[0], state[1], state[2]
            for j in range(of_row.size):
                g = of_row[j] * scale
                a = acc[j] + g * g
                v = momentum * velocity[j] - rate * g / np.sqrt(a + epsilon)
                acc[j] = a
                velocity[j] = v
                weight[j] += v

    return update
