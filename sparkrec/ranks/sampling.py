"""Drawing additional negatives by popularity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sparkrec.ranks.loops import loop

_CELLS_PER_ITEM = 8


@dataclass(frozen=True)
class PopularitySampler:
    """Draws items with probability ∝ count ** alpha by inverting the cumulative distribution.

    Equal cells of the unit interval say which item a number in them stands for; only where a cell holds the border of
    two items, one in eight at most, it is searched for. Their number is a power of two, so that no rounding moves a
    number to another cell.
    """

    cumulative: torch.Tensor  # float64 [n_items]
    first: torch.Tensor  # int32 [cells + 1], the item at the lower border of each cell
    last: int  # the last item that can be drawn

    @classmethod
    def from_counts(cls, counts: torch.Tensor, alpha: float) -> PopularitySampler:
        """Builds the sampler from the items' event counts [n_items]; an item without events is never drawn."""
        cumulative = torch.where(counts > 0, counts.double().clamp_min(1) ** alpha, 0.0).cumsum(0)
        cells = 1 << (_CELLS_PER_ITEM * len(counts) - 1).bit_length()
        borders = torch.arange(cells + 1, dtype=torch.float64, device=counts.device) / cells
        last = int(counts.nonzero().max())
        return cls(cumulative, _search(cumulative, borders, last).int(), last)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        """int64 items of this shape, drawn independently."""
        u = torch.rand(shape, dtype=torch.float64, generator=generator, device=self.cumulative.device).view(-1)
        if u.device.type == "cpu":
            found = torch.empty(u.shape, dtype=torch.int64)
            given = (u.numpy(), self.cumulative.numpy(), self.first.numpy(), self.last)
            popular_items(*given, found.numpy())
            return found.view(shape)
        cell = (u * (len(self.first) - 1)).long()
        lower = self.first[cell]
        open_cells = (lower != self.first[1:][cell]).nonzero().squeeze(1)
        found = lower.long()
        found[open_cells] = _search(self.cumulative, u[open_cells], self.last)
        return found.view(shape)


@loop()
def popular_items(u: Any, cumulative: Any, first: Any, last: Any, items: Any) -> None:
    """The items at places of a cumulative distribution: ``PopularitySampler.draw`` on the CPU, compiled by numba.

    The loop takes: u float64 [S] in [0, 1); cumulative float64 [n]; first int32 [cells + 1], the item at the lower
    border of each of the equal cells of [0, 1); the last item there is; and the array int64 [S] to write to.
    """
    total, cells = cumulative[-1], first.size - 1
    for i in range(u.size):
        cell = int(u[i] * cells)
        low, high = first[cell], first[cell + 1]
        if low != high:
            place = u[i] * total
            while low < high:  # the first item whose sum is above the place
                middle = (low + high) // 2
                if cumulative[middle] > place:
                    high = middle
                else:
                    low = middle + 1
        items[i] = min(low, last)


def _search(cumulative: torch.Tensor, u: torch.Tensor, last: int) -> torch.Tensor:
    """The items at places u in [0, 1] of the distribution."""
    found = torch.searchsorted(cumulative, u * cumulative[-1], right=True)
    return found.clamp_max_(last)  # where u rounds up to the total
