"""The events of sessions that a model can be judged on: those of items that it was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from sparkrec.processes import begin_task
from sparkrec.spark.broadcast import broadcast
from sparkrec.warehouse.tables import ITEMS

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame


def left_out(sessions: DataFrame, trained: np.ndarray) -> dict[str, int]:
    """What a model's ``next_item_ranks`` leaves out of its evaluation.

    Returns:
        events, sessions: all there are; events_unseen: of items not trained; sessions_short: left with fewer than
        two events; events_short: the single events of these.
    """
    from pyspark.sql import functions as F

    mask = broadcast(sessions.sparkSession, np.asarray(trained, bool))

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        begin_task()
        for batch in batches:
            flat, before = flat_lists(batch.column(ITEMS))
            after = known_items(flat, before, mask.value)[1]
            short = after < 2
            values = [before.sum(), len(before), (before - after).sum(), short.sum(), after[short].sum()]
            yield pa.RecordBatch.from_arrays([pa.array([int(v)]) for v in values], names=names)

    names = ["events", "sessions", "events_unseen", "sessions_short", "events_short"]
    schema = ", ".join(f"{n} bigint" for n in names)
    counted = sessions.select(ITEMS).mapInArrow(count, schema)
    row = counted.agg(*[F.coalesce(F.sum(n), F.lit(0)).alias(n) for n in names]).head()
    assert row is not None  # an aggregate without groups has one row
    return {n: int(row[n]) for n in names}


def known_items(flat: np.ndarray, lengths: np.ndarray, trained: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leaves out the events of items that are not trained (or newer than the catalogue): flat items and lengths."""
    inside = (flat >= 0) & (flat < len(trained))
    keep = inside & trained[np.where(inside, flat, 0)]
    row = np.repeat(np.arange(len(lengths)), lengths)
    return flat[keep], np.bincount(row[keep], minlength=len(lengths))


def flat_lists(column: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """The elements of all lists one after another, and the number of each list's."""
    return column.flatten().to_numpy(zero_copy_only=False), np.diff(column.offsets.to_numpy())
