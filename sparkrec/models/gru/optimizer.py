"""Adagrad with momentum, as GRU4Rec uses it: the accumulator starts at 0 and the learning rate does not decay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

EPSILON = 1e-6


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

    def step_rows(
        self,
        table: torch.Tensor,
        rows: torch.Tensor,
        grad: torch.Tensor,
        scale: float = 1.0,
        first: torch.Tensor | None = None,
    ) -> None:
        """Updates rows of a table in place.

        Args:
            table: float32 ``[n, 3, width]``: of each row the weights, the accumulator and the velocity.
            rows: int64 ``[r]``, distinct but for ``first``.
            grad: float32 ``[r, width]``.
            scale: Factor of the gradient.
            first: int64 ``[r]``, of each row the first place with the same; the gradients of equal rows are summed.
        """
        if first is not None:
            grad = torch.zeros_like(grad).index_add_(0, first, grad)[first]  # so equal rows become equal
        block = table.index_select(0, rows)
        self.step(block[:, 0], block[:, 1], block[:, 2], grad, scale)
        table.index_copy_(0, rows, block)

    def numbers(self, scale: float) -> tuple[np.float32, ...]:
        """What the compiled loops take after the arrays, for a gradient times ``scale``."""
        return tuple(np.float32(number) for number in (scale, self.learning_rate, self.momentum, EPSILON))
