"""Adagrad with momentum, as GRU4Rec uses it: the accumulator starts at 0 and the learning rate does not decay."""

from __future__ import annotations

from dataclasses import dataclass

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
