"""Compiled loops over the items of a training step: which there are, which are drawn, what is dropped."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sparkrec.ranks.loops import loop


class Numbered(NamedTuple):
    """The items of one step, for a rank with B of the L lanes that have an event; arrays with room for the largest."""

    rows: np.ndarray  # int64 [R], distinct: the C candidates, which are targets or negatives, then inputs that are none
    n_target: np.ndarray  # float32 [C], targets of lanes that are this item
    n_sampled: np.ndarray  # float32 [C], additional negatives that are this item
    input_row: np.ndarray  # int64 [B], places of the inputs in ``rows``
    target: np.ndarray  # int64 [B], of the targets
    own: np.ndarray  # int64 [B], the lanes' numbers among this rank's
    lanes: np.ndarray  # int64 [B], and among all ranks'
    start: np.ndarray  # int8 [B]
    sizes: np.ndarray  # int64 [3]: C, R, B

    @classmethod
    def room(cls, n_lanes: int, n_sample: int, n_here: int) -> Numbered:
        """Room for any step of so many lanes and negatives, of whose lanes so many are this rank's."""
        most = n_lanes + n_sample
        rows, (n_target, n_sampled) = np.zeros(most + n_lanes, np.int64), np.zeros((2, most), np.float32)
        input_row, target, own, lanes = np.zeros((4, n_here), np.int64)
        start, sizes = np.zeros(n_here, np.int8), np.zeros(3, np.int64)
        return cls(rows, n_target, n_sampled, input_row, target, own, lanes, start, sizes)


@loop(inline="always")
def _placed(item: Any, seen: Any, distinct: Any, given: Any) -> Any:
    """Gives an item that has no number in ``seen`` the next one; returns how many are given then."""
    if seen[item] < 0:
        seen[item] = given
        distinct[given] = item
        given += 1
    return given


@loop()
def dropout(lanes: Any, key: Any, keep: Any, value: Any, mask: Any) -> None:
    """Dropout masks that depend on a lane, a column and a key alone, so on no rank.

    The loop takes: lanes int64 [B]; the key; the share to keep; the value of what is kept; and the mask float32
    [B, width] to write to. Each place is kept where a hash of (key, lane, column), the finaliser of MurmurHash3
    (Appleby 2011), lies below the share of 2^32.
    """
    width = np.uint32(mask.shape[1])
    low, high = np.uint32(key & np.uint64(0xFFFFFFFF)), np.uint32(key >> np.uint64(32))
    limit = np.uint32(min(keep * 4294967296.0, 4294967295.0))
    for i in range(lanes.size):
        first = np.uint32(lanes[i]) * width
        for j in range(mask.shape[1]):
            h = np.uint32((first + np.uint32(j)) * np.uint32(0x9E3779B1)) ^ low
            h ^= h >> np.uint32(16)
            h = np.uint32(h * np.uint32(0x85EBCA6B))
            h ^= (h >> np.uint32(13)) ^ high
            h = np.uint32(h * np.uint32(0xC2B2AE35))
            h ^= h >> np.uint32(16)
            mask[i, j] = value if h < limit else np.float32(0.0)


@loop()
def number_step(inputs: Any, targets: Any, starts: Any, negatives: Any, here: Any, seen: Any, batch: Any) -> None:
    """The distinct items of a step, in the order of their first occurrence; lanes without an event are left out.

    The loop takes: of all lanes, inputs and targets int64 [L] (−1 where there is no event) and starts int8 [L];
    negatives int64 [S]; here int64 [B], the lanes of this rank; seen int32 [n], −1 everywhere, which it is again when
    the loop returns; and a ``Numbered`` to write to.
    """
    batch.n_target[:] = 0.0
    batch.n_sampled[:] = 0.0
    candidates = 0
    for item in targets:
        if item >= 0:
            candidates = _placed(item, seen, batch.rows, candidates)
            batch.n_target[seen[item]] += 1.0
    for item in negatives:
        candidates = _placed(item, seen, batch.rows, candidates)
        batch.n_sampled[seen[item]] += 1.0
    rows = candidates
    for lane in range(targets.size):
        if targets[lane] >= 0:
            rows = _placed(inputs[lane], seen, batch.rows, rows)
    b = 0
    for i in range(here.size):
        lane = here[i]
        if targets[lane] >= 0:
            batch.input_row[b], batch.target[b] = seen[inputs[lane]], seen[targets[lane]]
            batch.own[b], batch.lanes[b], batch.start[b] = i, lane, starts[lane]
            b += 1
    for i in range(rows):
        seen[batch.rows[i]] = -1
    batch.sizes[0], batch.sizes[1], batch.sizes[2] = candidates, rows, b
