"""Drawing additional negatives by popularity."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class PopularitySampler:
    """Draws items with probability ∝ count ** alpha by inverting the cumulative distribution."""

    cumulative: torch.Tensor  # float64 [n_items]
    last: int  # the last item that can be drawn

    @classmethod
    def from_counts(cls, counts: torch.Tensor, alpha: float) -> PopularitySampler:
        """Builds the sampler from the items' event counts [n_items]; an item without events is never drawn."""
        weight = torch.where(counts > 0, counts.double().clamp_min(1) ** alpha, 0.0)
        return cls(weight.cumsum(0), int(counts.nonzero().max()))

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        """int64 items of this shape, drawn independently."""
        u = torch.rand(shape, dtype=torch.float64, generator=generator, device=self.cumulative.device)
        found = torch.searchsorted(self.cumulative, u.mul_(self.cumulative[-1]), right=True)
        return found.clamp_max_(self.last)  # where u rounds up to the total
