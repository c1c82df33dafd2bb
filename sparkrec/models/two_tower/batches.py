"""From event sequences to the batches of the two-tower model: numpy only.

The snapshot holds one row an event, whole users to a file, so that histories need no column: a user's history before
an event is the slice of rows before it. A global batch takes a fixed slice of every file (a lane), in an order that
depends on the seed, the epoch and the file alone: what it contains does not depend on the number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparkrec.models.two_tower.network import N_NUMERIC, PAD, Feature

if TYPE_CHECKING:
    from sparkrec.models.two_tower.clock import Clock

DAY_S = 86_400
SECONDS, WEIGHT, LABEL = "ts_s", "weight", "label"  # columns of a snapshot of examples


def code_columns(features: Sequence[Feature]) -> list[str]:
    """Names of the flat code columns: ``code_0``, ``code_1``, … over all features and their widths."""
    return [f"code_{n}" for n in range(sum(f.width for f in features))]


@dataclass(frozen=True)
class Sequences:
    """Events of whole users, ordered by user and time; n events."""

    user: np.ndarray  # int32 [n]
    item: np.ndarray  # int32 [n]
    ts: np.ndarray  # int64 [n], seconds since 1970
    weight: np.ndarray  # float32 [n], weight of the event as an example
    codes: np.ndarray  # int32 [n, w], feature codes of the user
    start: np.ndarray  # int64 [n], first row of the row's user
    key: np.ndarray  # int64 [n], ascending: user, then time
    first: np.ndarray  # bool [n], the user's first event with this item
    label: np.ndarray  # float32 [n], of the second head; NaN where the event has none

    def __len__(self) -> int:
        return len(self.user)

    def rows_before(self, rows: np.ndarray, cutoff: np.ndarray) -> np.ndarray:
        """End (exclusive) of the rows of each row's user that lie strictly before ``cutoff`` (seconds)."""
        base = self.key[rows] - self.ts[rows]
        # A cutoff before the user's first event must not reach into the user before.
        clipped = np.maximum(cutoff, self.ts[self.start[rows]])
        return np.searchsorted(self.key, base + np.minimum(clipped, self.ts[rows]), side="left")


@dataclass(frozen=True)
class UserArrays:
    """What the user tower reads, for n users as of a time each."""

    user: np.ndarray  # int64 [n]
    history: np.ndarray  # int64 [n, h] item numbers, the most recent first, PAD where shorter
    history_days: np.ndarray  # float32 [n, h]
    codes: np.ndarray  # int64 [n, w]
    numeric: np.ndarray  # float32 [n, N_NUMERIC]


def sequences(
    user: np.ndarray,
    item: np.ndarray,
    ts: np.ndarray,
    weight: np.ndarray,
    codes: np.ndarray,
    label: np.ndarray | None = None,
) -> Sequences:
    """Orders the events of a file by user, time and item, whatever order they came in.

    Args:
        user: int [n].
        item: int [n].
        ts: int [n], seconds since 1970.
        weight: float [n].
        codes: int [n, w].
        label: float [n], of the second head; None: no event has one.
    """
    if label is None:
        label = np.full(len(user), np.nan, dtype=np.float32)
    order = np.lexsort((item, ts, user))
    user, item, ts = user[order].astype(np.int32), item[order].astype(np.int32), ts[order].astype(np.int64)
    new_user = np.ones(len(user), dtype=bool)
    new_user[1:] = user[1:] != user[:-1]
    number = np.cumsum(new_user, dtype=np.int64) - 1
    span = int(ts.max() - ts.min()) + 2 if len(ts) else 1
    return Sequences(
        user=user,
        item=item,
        ts=ts,
        weight=weight[order].astype(np.float32),
        codes=codes[order].astype(np.int32),
        start=np.flatnonzero(new_user)[number] if len(ts) else number,
        key=number * span + ts,
        first=_first_of_pair(user, item),
        label=label[order].astype(np.float32),
    )


def user_arrays(seq: Sequences, rows: np.ndarray, cutoff: np.ndarray, length: int) -> UserArrays:
    """The users of ``rows`` as of ``cutoff``: only events strictly before it are seen.

    Args:
        seq: The events.
        rows: int64 [n], one event of each user, at or after the cutoff (or the user's last one).
        cutoff: int64 [n], seconds.
        length: Length of the history.
    """
    return _arrays(seq, rows, seq.rows_before(rows, cutoff), cutoff, length)


def last_arrays(seq: Sequences, as_of: int, length: int) -> UserArrays:
    """Every user of ``seq`` once, after all of their events, as of ``as_of`` (seconds)."""
    rows = np.flatnonzero(np.append(seq.user[1:] != seq.user[:-1], True)) if len(seq) else np.zeros(0, np.int64)
    return _arrays(seq, rows, rows + 1, np.full(len(rows), as_of, np.int64), length)


def numeric_features(n_events: np.ndarray, last_days: np.ndarray) -> np.ndarray:
    """float32 [n, N_NUMERIC] from the number of earlier events and the age of the last one in days."""
    known = n_events > 0
    columns = [np.where(known, np.log1p(np.maximum(last_days, 0.0)), 0.0), np.log1p(n_events), known]
    return np.stack(columns, axis=1).astype(np.float32).reshape(-1, N_NUMERIC)


@dataclass(frozen=True)
class Plan:
    """How the examples of all files fall into the steps of an epoch."""

    examples: tuple[int, ...]  # of each file
    steps: int

    @classmethod
    def of(cls, examples: list[int], batch_size: int) -> Plan:
        """As many steps as batches of ``batch_size`` examples, over all files, are needed."""
        return cls(tuple(examples), max(1, math.ceil(sum(examples) / batch_size)))

    def slice(self, lane: int, step: int) -> slice:
        """The part of a file's order that belongs to a step; the parts of all steps are the whole."""
        n = self.examples[lane]
        return slice(n * step // self.steps, n * (step + 1) // self.steps)

    def rank_size(self, rank: int, size: int, step: int) -> int:
        """Examples of a rank in a step; its files are those with ``lane % size == rank``."""
        slices = [self.slice(lane, step) for lane in range(rank, len(self.examples), size)]
        return sum(s.stop - s.start for s in slices)

    def width(self, size: int, step: int) -> int:
        """The largest of the ranks' sizes in a step."""
        return max(self.rank_size(rank, size, step) for rank in range(size))


@dataclass(frozen=True)
class Lane:
    """The examples of one file in the order of one epoch."""

    seq: Sequences
    rows: np.ndarray  # int64 [examples]
    cutoff: np.ndarray  # int64 [examples], the time as of which the user and the items are seen


@dataclass(frozen=True)
class Batch:
    """Examples of one rank in one step."""

    users: UserArrays
    item: np.ndarray  # int64 [n]
    day: np.ndarray  # int64 [n], of the look
    weight: np.ndarray  # float32 [n]
    label: np.ndarray  # float32 [n], of the second head; NaN where there is none
    keep: np.ndarray | None  # float32 [n, dim], dropout


def positives(seq: Sequences, repeats: bool) -> np.ndarray:
    """Rows that are examples: each user's first event with an item, or every event; weight above zero."""
    return np.flatnonzero((seq.weight > 0) & (seq.first | repeats))


def lane(seq: Sequences, rows: np.ndarray, seed: tuple[int, ...], horizon_days: float) -> Lane:
    """Shuffles a file's examples and draws how long before its event each one is looked at.

    Args:
        seq: The file's events.
        rows: int64, its examples.
        seed: Seed, epoch and number of the file.
        horizon_days: The look is up to this long before the event, uniformly: a list that is used for that long
            must foretell events that come that much later.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows)
    lag = rng.uniform(0.0, horizon_days * DAY_S, len(order)).astype(np.int64)
    return Lane(seq, order, seq.ts[order] - lag)


def lane_batch(source: Lane, part: slice, clock: Clock, length: int) -> Batch:
    """The examples of one lane in one step, without dropout."""
    rows, cutoff = source.rows[part], source.cutoff[part]
    return Batch(
        users=user_arrays(source.seq, rows, cutoff, length),
        item=source.seq.item[rows].astype(np.int64),
        day=clock.day_of(cutoff),
        weight=source.seq.weight[rows],
        label=source.seq.label[rows],
        keep=None,
    )


def dropout_mask(seed: tuple[int, ...], n: int, dim: int, rate: float) -> np.ndarray | None:
    """float32 [n, dim] of 0 and 1 / (1 - rate); None at rate 0."""
    if rate <= 0:
        return None
    kept = np.random.default_rng(seed).random((n, dim), dtype=np.float32) >= rate
    return (kept / (1.0 - rate)).astype(np.float32)


def join(parts: list[Batch]) -> Batch:
    """One batch of several, its rows in order of their days: those of a day have the items' momentum in common."""
    users = [p.users for p in parts]
    keeps = [p.keep for p in parts if p.keep is not None]
    order = np.argsort(np.concatenate([p.day for p in parts]), kind="stable")

    def joined(arrays: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(arrays)[order]

    return Batch(
        users=UserArrays(
            user=joined([u.user for u in users]),
            history=joined([u.history for u in users]),
            history_days=joined([u.history_days for u in users]),
            codes=joined([u.codes for u in users]),
            numeric=joined([u.numeric for u in users]),
        ),
        item=joined([p.item for p in parts]),
        day=joined([p.day for p in parts]),
        weight=joined([p.weight for p in parts]),
        label=joined([p.label for p in parts]),
        keep=joined(keeps) if keeps else None,
    )


def _arrays(seq: Sequences, rows: np.ndarray, end: np.ndarray, cutoff: np.ndarray, length: int) -> UserArrays:
    start = seq.start[rows]
    index = end[:, None] - 1 - np.arange(length)[None, :]
    valid = index >= start[:, None]
    index = np.where(valid, index, 0)
    days = np.where(valid, (cutoff[:, None] - seq.ts[index]) / DAY_S, 0.0) if len(seq) else np.zeros(index.shape)
    last_days = (cutoff - seq.ts[np.maximum(end - 1, 0)]) / DAY_S if len(seq) else np.zeros(0)
    return UserArrays(
        user=seq.user[rows].astype(np.int64),
        history=np.where(valid, seq.item[index], PAD).astype(np.int64) if len(seq) else index,
        history_days=days.astype(np.float32),
        codes=seq.codes[rows].astype(np.int64),
        numeric=numeric_features(end - start, last_days),
    )


def _first_of_pair(user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Whether no earlier row has the same user and item: bool [n]; rows are ordered by user and time."""
    order = np.lexsort((np.arange(len(user)), item, user))
    repeated = np.zeros(len(user), dtype=bool)
    same = (user[order][1:] == user[order][:-1]) & (item[order][1:] == item[order][:-1])
    repeated[order[1:]] = same
    return ~repeated
