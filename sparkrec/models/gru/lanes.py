"""Session-parallel lanes: the sessions of a snapshot file as dense matrices, one column a lane.

Each file has lanes of its own, which walk its sessions in order of their first event, or in a drawn one; the next
session takes the lane that is free first. As the files do not depend on the number of ranks, neither does any lane.
Each pair of neighbouring events is one step of one lane, in which the first is the input and the second the target.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from sparkrec.errors import InvariantError
from sparkrec.models.gru.protocol import NO_START, SESSION_START, USER_START
from sparkrec.ranks.comm import Comm

NO_TARGET = -1
_START_BITS, _START_MASK = 2, 3  # an input travels with its start; items stay below 2 ** 29


@dataclass(frozen=True)
class Lanes:
    """Matrices [T, lanes]; where ``target`` is −1 the lane has no event and is masked."""

    input: np.ndarray  # int32
    target: np.ndarray  # int32
    start: np.ndarray  # int8: SESSION_START or USER_START where this input is the first event of one, else NO_START
    types: np.ndarray | None = None  # int32, of the inputs' events, where the network asks for them


def lanes_of_files(n_lanes: int, rows: list[int]) -> list[int]:
    """Lanes of each file: ``n_lanes`` dealt out in turn; a file with rows has one at least, one without rows none."""
    n = len(rows)
    dealt = [n_lanes // n + (f < n_lanes % n) for f in range(n)]
    return [max(1, lanes) if count else 0 for lanes, count in zip(dealt, rows, strict=True)]


def walk_lanes(
    session: np.ndarray,
    item: np.ndarray,
    n_lanes: int,
    shuffle: np.random.Generator | None = None,
    user: np.ndarray | None = None,
    types: np.ndarray | None = None,
) -> Lanes:
    """Lays a file's sessions out on lanes.

    Args:
        session: [rows], equal values adjacent, sessions in order of their first event.
        item: int [rows], in order of time within each session.
        n_lanes: Columns.
        shuffle: Walks the sessions in an order drawn from it; default in that of their first event.
        user: [rows], equal values adjacent: a user's sessions follow each other on one lane, and it is users that are
            shuffled. Default: each session takes a lane for itself.
        types: int [rows], codes of the events' types. An input has that of its own event, never that of the target.

    Raises:
        InvariantError: The rows of a session or user are not adjacent.
    """
    first = _runs(session, "session")
    steps = np.diff(np.append(first, len(session))) - 1  # a session of n events has n - 1 steps
    first, steps = first[steps > 0], steps[steps > 0]
    begins = np.cumsum(steps) - steps  # of each session among all steps
    walk = np.arange(len(first)) if user is None else _runs(user[first], "user")  # first session of what takes a lane
    lengths = np.add.reduceat(steps, walk) if len(walk) else steps
    order = np.arange(len(walk)) if shuffle is None else shuffle.permutation(len(walk))
    lane, start, length = _assign(lengths[order], n_lanes)
    lane, start = lane[np.argsort(order)], start[np.argsort(order)]
    row = np.repeat(first - begins, steps) + np.arange(steps.sum())
    t = np.repeat(start - begins[walk], lengths) + np.arange(steps.sum())
    column = np.repeat(lane, lengths)
    lanes = Lanes(
        np.zeros((length, n_lanes), np.int32),
        np.full((length, n_lanes), NO_TARGET, np.int32),
        np.full((length, n_lanes), NO_START, np.int8),
        None if types is None else np.zeros((length, n_lanes), np.int32),
    )
    lanes.input[t, column] = item[row]
    lanes.target[t, column] = item[row + 1]
    if types is not None and lanes.types is not None:
        lanes.types[t, column] = types[row]
    lanes.start[t[begins], column[begins]] = SESSION_START
    if user is not None:
        lanes.start[start, lane] = USER_START
    return lanes


def _runs(values: np.ndarray, what: str) -> np.ndarray:
    """The first place of each run of equal values."""
    first = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])) if len(values) else np.zeros(0, int)
    if len(np.unique(values[first])) != len(first):
        raise InvariantError(f"the rows of a {what} are not adjacent in its snapshot file")
    return first


def _assign(steps: np.ndarray, n_lanes: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(lane, first step) of each session and the number of steps in all: the lane free first, else the lower one."""
    free = list(range(n_lanes))  # first free step * n_lanes + lane, a heap
    taken = np.empty(len(steps), dtype=np.int64)
    for i, n in enumerate(steps.tolist()):  # sequential by nature, below a microsecond a session
        key = free[0]
        heapq.heapreplace(free, key + n * n_lanes)
        taken[i] = key
    return taken % n_lanes, taken // n_lanes, max(free) // n_lanes if len(steps) else 0


@dataclass(frozen=True)
class Chunk:
    """Some steps of all ranks' lanes [K, L], the lanes in file order whatever the number of ranks.

    Inputs and starts begin with those of the steps before, as many as the lanes look back; before the first step of an
    epoch these are item 0.
    """

    input: torch.Tensor  # int64 [back + K, L]
    target: torch.Tensor  # int64, −1 where masked
    start: torch.Tensor  # int8 [back + K, L], NO_START, SESSION_START or USER_START
    n_valid: list[int]  # of each step the lanes that have an event
    types: torch.Tensor | None = None  # int64 [back + K, L], of the inputs' events; 0 before the first step

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Chunk:
        """The chunk with its tensors changed."""
        types = None if self.types is None else change(self.types)
        return Chunk(change(self.input), change(self.target), change(self.start), self.n_valid, types)

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All tensors that there are."""
        return (self.input, self.target, self.start, *([] if self.types is None else [self.types]))


@dataclass(frozen=True)
class LaneTable:
    """A rank's lanes and their places among those of all ranks."""

    lanes: dict[int, Lanes]  # of this rank's files
    places: torch.Tensor  # int64 [lanes of this rank]: their columns in a chunk
    order: torch.Tensor  # int64 [all lanes]: their rows in the gathered (rank, lane) order
    padded: int  # lanes that each rank sends
    length: int  # steps, on every rank the same
    typed: bool = False  # whether inputs have types, on every rank the same

    @property
    def valid(self) -> int:
        """Pairs of events on this rank's lanes."""
        return sum(int((lanes.target != NO_TARGET).sum()) for lanes in self.lanes.values())


def lane_table(lanes: dict[int, Lanes], widths: list[int], comm: Comm, typed: bool = False) -> LaneTable:
    """Places this rank's lanes among all.

    Args:
        lanes: File number → its lanes, for the files of this rank (file f is rank f mod size's).
        widths: Number of lanes of every file.
        comm: The ranks.
        typed: Whether the lanes of all ranks have types.
    """
    of_rank = [[f for f in range(len(widths)) if f % comm.size == r] for r in range(comm.size)]
    padded = max(sum(widths[f] for f in mine) for mine in of_rank)
    starts = np.cumsum([0, *widths])
    rows = np.zeros(starts[-1], dtype=np.int64)
    for r, mine in enumerate(of_rank):
        place = r * padded
        for f in mine:
            rows[starts[f] : starts[f + 1]] = np.arange(place, place + widths[f])
            place += widths[f]
    here = max((len(part.target) for part in lanes.values()), default=0)
    longest = int(comm.allgather(torch.tensor([here])).max())
    places = [np.arange(starts[f], starts[f + 1]) for f in of_rank[comm.rank]]
    own = np.concatenate(places) if places else np.zeros(0, dtype=np.int64)
    return LaneTable(lanes, torch.from_numpy(own), torch.from_numpy(rows), padded, longest, typed)


def chunks(table: LaneTable, steps: int, comm: Comm, back: int = 0) -> Iterator[Chunk]:
    """The epoch in chunks of ``steps`` steps: every rank gets all lanes' ids (ids alone travel, once a chunk).

    Args:
        table: The lanes.
        steps: Steps in a chunk.
        comm: The ranks.
        back: Earlier steps whose inputs and starts a chunk begins with.
    """
    before = torch.zeros(3, back, len(table.order), dtype=torch.int32)
    for start in range(0, table.length, steps):
        stop = min(start + steps, table.length)
        sent = torch.from_numpy(_packed(table, start, stop))
        gathered = comm.allgather(sent).index_select(0, table.order)  # [L, 2 or 3, K]
        ids = gathered.permute(1, 2, 0).contiguous()
        target, ids = ids[1].long(), torch.cat([before[: len(ids)], ids], dim=1)
        before = ids[:, ids.shape[1] - back :]
        begins, types = (ids[0] & _START_MASK).to(torch.int8), ids[2].long() if table.typed else None
        yield Chunk((ids[0] >> _START_BITS).long(), target, begins, (target != NO_TARGET).sum(1).tolist(), types)


def _packed(table: LaneTable, start: int, stop: int) -> np.ndarray:
    """int32 [padded lanes, 2, K]: inputs (with the start in the low bits) and targets of this rank's lanes.

    Where inputs have types, these are a third part.
    """
    packed = np.zeros((table.padded, 3 if table.typed else 2, stop - start), np.int32)
    packed[:, 1] = NO_TARGET
    place = 0
    for f in sorted(table.lanes):
        part = table.lanes[f]
        width, n = part.target.shape[1], max(0, min(stop, len(part.target)) - start)
        block = slice(start, start + n)
        inputs = part.input[block] << _START_BITS | part.start[block]
        packed[place : place + width, 0, :n] = inputs.T
        packed[place : place + width, 1, :n] = part.target[block].T
        if part.types is not None:
            packed[place : place + width, 2, :n] = part.types[block].T
        place += width
    return packed
