"""Momentum of the two towers' items at any day: what was taken how often in the days before it, and for how long.

Days are counted back from the moment that the model is trained for. Of each item the days on which it was taken are
kept, and how often: as many numbers as there are different (item, day) among the events, however many items and days
there are. A step makes the momentum of its candidates at its examples' days from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sparkrec.errors import InvariantError
from sparkrec.models.two_tower.batches import DAY_S, Sequences
from sparkrec.ranks.comm import Comm

if TYPE_CHECKING:
    from typing import Any

_ITEMS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Clock:
    """When each item was taken.

    Attributes:
        first: int64 [n_items + 1], where the days of each item begin.
        day: int32 [m], the days on which an item was taken, ascending for each item.
        count: float32 [m], how often.
        n_days: Of the log; day n_days is the one that begins at the moment that the model is trained for.
        origin: Seconds since 1970 at which day 0 begins.
        windows: Days that momentum looks back.
    """

    first: Tensor
    day: Tensor
    count: Tensor
    n_days: int
    origin: int
    windows: tuple[int, ...]

    def day_of(self, ts: np.ndarray) -> np.ndarray:
        """Int64: the last day that begins not after ``ts`` (seconds); 0 before the first."""
        return np.clip((ts - self.origin) // DAY_S, 0, self.n_days)

    def momentum(self, days: Tensor, items: Tensor) -> Tensor:
        """What happened before the days: float32 [d, windows + 1, c], log counts in the windows and log age in days.

        Args:
            days: int64 [d], ascending.
            items: int64 [c].
        """
        windows = torch.tensor(self.windows, dtype=torch.int64, device=days.device)
        begins = (days[:, None] - windows).clamp(min=0)
        bounds = torch.cat([days, begins.flatten()]).unique()
        until, birth = self._counts(bounds, items)
        found = torch.empty(len(days), len(windows) + 1, len(items), device=days.device)
        ends = until.index_select(0, torch.searchsorted(bounds, days))
        for k, place in enumerate(torch.searchsorted(bounds, begins.T.contiguous())):
            torch.sub(ends, until.index_select(0, place), out=found[:, k])
        found[:, -1] = (days[:, None] - birth).clamp(min=0)
        return found.log1p_()

    def last(self) -> np.ndarray:
        """float32 [n_items, windows + 1]: all items' momentum at the moment that the model is trained for."""
        end = torch.tensor([self.n_days], device=self.day.device)
        items = torch.arange(len(self.first) - 1, device=self.day.device)
        parts = [self.momentum(end, part)[0].T for part in items.split(_ITEMS_AT_ONCE)]
        return torch.cat(parts).cpu().numpy()

    def to(self, device: Any) -> Clock:
        """The same on a device."""
        first, day, count = (tensor.to(device) for tensor in (self.first, self.day, self.count))
        return Clock(first, day, count, self.n_days, self.origin, self.windows)

    def _counts(self, bounds: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """How often items were taken before days, float32 [b, c], and their first days, int64 [c], n_days for none."""
        begin, end = self.first[items], self.first[items + 1]
        lengths = end - begin
        column = torch.repeat_interleave(torch.arange(len(items), device=items.device), lengths)
        skipped = begin - (lengths.cumsum(0) - lengths)
        cell = torch.arange(len(column), device=items.device) + skipped[column]
        all_days = torch.arange(self.n_days + 1, device=items.device)
        row = torch.searchsorted(bounds, all_days, right=True)[self.day[cell].long()]  # the first bound after the day
        taken = torch.zeros(len(items), len(bounds) + 1, device=items.device)
        taken.view(-1).index_add_(0, column * taken.shape[1] + row, self.count[cell])
        birth = torch.full((len(items),), self.n_days, device=items.device)
        birth[lengths > 0] = self.day[begin[lengths > 0]].long()
        return taken.cumsum(1).T.contiguous(), birth


def new_clock(comm: Comm, files: Iterable[Sequences], as_of: int, n_items: int, windows_days: Sequence[float]) -> Clock:
    """Counts the events of all ranks.

    Args:
        comm: The ranks.
        files: This rank's events.
        as_of: Seconds since 1970: the moment that the model is trained for.
        n_items: Size of the index.
        windows_days: Rounded to whole days, and at least one.

    Raises:
        InvariantError: An event is not before ``as_of``, or names an item outside of the index.
    """
    files = list(files)
    first = min([int(seq.ts.min()) for seq in files if len(seq)], default=as_of - 1)
    first = int(comm.allgather(torch.tensor([first], dtype=torch.int64)).min())
    n_days = max(1, -(-(as_of - first) // DAY_S))
    origin = as_of - n_days * DAY_S
    cells, counts = _of_all_ranks(comm, *_day_cells(files, origin, n_days, n_items))
    bounds = torch.arange(n_items + 1) * n_days
    day, count = (cells % n_days).int(), counts.float()
    return Clock(torch.searchsorted(cells, bounds), day, count, n_days, origin, whole_days(windows_days))


def whole_days(windows_days: Sequence[float]) -> tuple[int, ...]:
    """The windows in days."""
    return tuple(max(1, round(days)) for days in windows_days)


def _day_cells(files: Sequence[Sequences], origin: int, n_days: int, n_items: int) -> tuple[Tensor, Tensor]:
    """The different (item, day), as item * n_days + day, ascending, and the number of events of each."""
    keys = [np.zeros(0, dtype=np.int64)]
    for seq in files:
        day = (seq.ts - origin) // DAY_S
        if len(seq) and (day.min() < 0 or day.max() >= n_days or seq.item.min() < 0 or seq.item.max() >= n_items):
            raise InvariantError("an event of the snapshot lies outside of its time span or of the item index")
        keys.append(seq.item.astype(np.int64) * n_days + day)
    cells, counts = np.unique(np.concatenate(keys), return_counts=True)
    return torch.from_numpy(cells), torch.from_numpy(counts)


def _of_all_ranks(comm: Comm, cells: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The cells of all ranks, ascending, and their counts' sums."""
    if comm.size == 1:
        return cells, counts
    longest = int(comm.allgather(torch.tensor([len(cells)])).max())
    mine = torch.nn.functional.pad(torch.stack([cells, counts], 1), (0, 0, 0, longest - len(cells)))
    everyones = comm.allgather(mine)
    everyones = everyones[everyones[:, 1] > 0]  # rows of zeros fill up
    together, place = everyones[:, 0].unique(return_inverse=True)
    return together, torch.zeros_like(together).index_add_(0, place, everyones[:, 1])
