"""The events of sessions that a model can be judged on: of items that it was trained on, and maybe new to the user."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparkrec.processes import begin_task
from sparkrec.retrieval.block_search import IntArray
from sparkrec.retrieval.topk import SEEN
from sparkrec.spark.broadcast import broadcast
from sparkrec.warehouse.tables import ITEMS

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

NEW_RANK = "new_rank"  # among the items that are new to the user; null for an event of another one


def left_out(sessions: DataFrame, trained: np.ndarray) -> dict[str, int]:
    """What a model's ``next_item_ranks`` leaves out of its evaluation.

    Returns:
        events, sessions: all there are; events_unseen: of items not trained; sessions_short: left with fewer than
        two events; events_short: the single events of these. Where the sessions have ``seen``: events_new: the events
        to predict that are of items new to the user; sessions_new: with such an event.
    """
    from pyspark.sql import functions as F

    mask = broadcast(sessions.sparkSession, np.asarray(trained, bool))

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        begin_task()
        for batch in batches:
            flat, before = flat_lists(batch.column(ITEMS))
            flat, after = known_items(flat, before, mask.value)
            short = after < 2
            values = [before.sum(), len(before), (before - after).sum(), short.sum(), after[short].sum()]
            taken = Taken.of(batch, mask.value)
            if taken is not None:
                per_session = taken.predicted(flat, after)
                values += [per_session.sum(), (per_session > 0).sum()]
            yield pa.RecordBatch.from_arrays([pa.array([int(v)]) for v in values], names=names)

    names = ["events", "sessions", "events_unseen", "sessions_short", "events_short"]
    names += ["events_new", "sessions_new"] if SEEN in sessions.columns else []
    schema = ", ".join(f"{n} bigint" for n in names)
    columns = [name for name in (ITEMS, SEEN) if name in sessions.columns]
    counted = sessions.select(*columns).mapInArrow(count, schema)
    row = counted.agg(*[F.coalesce(F.sum(n), F.lit(0)).alias(n) for n in names]).head()
    assert row is not None  # an aggregate without groups has one row
    return {n: int(row[n]) for n in names}


def known_items(flat: np.ndarray, lengths: np.ndarray, trained: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leaves out the events of items that are not trained (or newer than the catalogue): flat items and lengths."""
    keep = of_known_items(flat, trained)
    row = np.repeat(np.arange(len(lengths)), lengths)
    return flat[keep], np.bincount(row[keep], minlength=len(lengths))


def of_known_items(flat: np.ndarray, trained: np.ndarray) -> npt.NDArray[np.bool_]:
    """Which events (of items ``flat``) are of items that are trained."""
    inside = (flat >= 0) & (flat < len(trained))
    found: npt.NDArray[np.bool_] = inside & trained[np.where(inside, flat, 0)]
    return found


def flat_lists(column: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """The elements of all lists one after another, and the number of each list's."""
    return column.flatten().to_numpy(zero_copy_only=False), np.diff(column.offsets.to_numpy())


@dataclass(frozen=True)
class Taken:
    """What the users of S sessions had taken before these began.

    Attributes:
        items: int64: of all sessions, one after another.
        lengths: int64 ``[S]``: how many each has.
    """

    items: IntArray
    lengths: IntArray

    @staticmethod
    def of(batch: pa.RecordBatch, among: npt.NDArray[np.bool_]) -> Taken | None:
        """The column ``seen array<int>`` of a batch, items outside of ``among`` left out; None where it has none."""
        return Taken.listed(batch.column(SEEN), among) if SEEN in batch.schema.names else None

    @staticmethod
    def listed(column: pa.ListArray, among: npt.NDArray[np.bool_]) -> Taken:
        """The lists of a column, which has one for each session."""
        return Taken(*known_items(*flat_lists(column), among))

    def part(self, sessions: slice) -> Taken:
        """Those of some of the sessions."""
        ends = np.concatenate([[0], np.cumsum(self.lengths)])
        return Taken(self.items[ends[sessions.start] : ends[sessions.stop]], self.lengths[sessions])

    def new(self, flat: IntArray, lengths: IntArray) -> npt.NDArray[np.bool_]:
        """Which events are of items that neither the user had taken nor the session had before: bool ``[E]``.

        Args:
            flat: int ``[E]``: the items of all sessions' events, one after another.
            lengths: int ``[S]``: events of each session.
        """
        span = 1 + max(int(flat.max(initial=0)), int(self.items.max(initial=0)))
        keys = np.repeat(np.arange(len(lengths)), lengths) * span + flat
        first = np.zeros(len(flat), dtype=np.bool_)
        first[np.unique(keys, return_index=True)[1]] = True
        theirs = np.repeat(np.arange(len(self.lengths)), self.lengths) * span + self.items
        found: npt.NDArray[np.bool_] = first & ~np.isin(keys, theirs)
        return found

    def predicted(self, flat: IntArray, lengths: IntArray) -> IntArray:
        """How many new events there are to predict in each session, all but its first one: int64 ``[S]``."""
        later = np.arange(len(flat)) != np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        return np.bincount(rows[self.new(flat, lengths) & later], minlength=len(lengths))

    def before(self, flat: IntArray, sessions: IntArray, begins: IntArray, ends: IntArray) -> tuple[IntArray, IntArray]:
        """What was taken by b moments: by the users before their sessions began, and in these.

        Args:
            flat: int: the items of all sessions' events.
            sessions: int ``[b]``: the session of each moment.
            begins: int ``[b]``: where it begins in ``flat``.
            ends: int ``[b]``: where what has come of it ends.

        Returns:
            Moments, ascending, and items: int64 ``[m]`` each, distinct pairs.
        """
        last = np.cumsum(self.lengths)[sessions]
        theirs = _spans(self.items, last - self.lengths[sessions], last)
        own = _spans(flat, begins, ends)
        rows, items = (np.concatenate(both) for both in zip(theirs, own, strict=True))
        span = 1 + int(items.max(initial=0))
        moments, distinct = np.divmod(np.unique(rows * span + items), span)
        return moments, distinct


def _spans(flat: IntArray, begins: IntArray, ends: IntArray) -> tuple[IntArray, IntArray]:
    """The numbers of spans of ``flat``, and what these hold."""
    lengths = ends - begins
    rows = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return rows, flat[begins[rows] + within].astype(np.int64)
