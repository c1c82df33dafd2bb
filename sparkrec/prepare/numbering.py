"""Numbers the rows of a DataFrame in order, on all partitions at once."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from sparkrec.prepare.counts import Counts

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

POSITION = "position"
PARTITION_BITS = 33  # of monotonically_increasing_id: the partition above, the row within it below
ONE_TASK = 1_000_000  # so many rows are sorted in one task sooner than in ranges that a sample must find first


def cut_lineage(rows: DataFrame) -> DataFrame:
    """Computes ``rows`` now and keeps them on the executors: what follows neither repeats nor changes them.

    An executor lost afterwards fails the job, instead of letting it go on with rows computed anew.
    """
    return rows.localCheckpoint(eager=True)


def cut_and_count(rows: DataFrame, /, **aggregates: Column) -> tuple[DataFrame, dict[str, int]]:
    """:func:`cut_lineage`, and aggregates of the rows (integers, by name), observed on the way."""
    counts = Counts()
    kept = cut_lineage(counts.observe(rows, **aggregates))
    if counts.complete():
        return kept, counts.get()
    counted = kept.agg(*(F.coalesce(a, F.lit(0)).alias(name) for name, a in aggregates.items())).first()
    assert counted is not None  # an aggregate without groups has one row
    return kept, {name: int(value) for name, value in counted.asDict().items()}


def numbered(rows: DataFrame, *order: str) -> tuple[DataFrame, int]:
    """Adds ``position`` (bigint: 0, 1, 2, …) in the order of the columns ``order``, which must be a key of ``rows``.

    Few rows are sorted in one task. Of many, ranges of the order are sorted side by side; only the number of rows of
    each partition reaches the driver. The ranges come from a sample that differs from run to run, so they are frozen
    before they are counted; the positions do not depend on them.

    Returns:
        The numbered rows, and how many they are.
    """
    rows, counted = cut_and_count(rows, rows=F.count(F.lit(1)))
    if counted["rows"] > ONE_TASK:
        return _numbered_in_ranges(rows, *order)
    ordered = rows.coalesce(1).sortWithinPartitions(*order)
    return ordered.withColumn(POSITION, F.monotonically_increasing_id()), counted["rows"]


def _numbered_in_ranges(rows: DataFrame, *order: str) -> tuple[DataFrame, int]:
    ranges = rows.repartitionByRange(*order).sortWithinPartitions(*order)
    ranges = cut_lineage(ranges.withColumn(POSITION, F.monotonically_increasing_id()))
    partition = F.shiftright(POSITION, PARTITION_BITS).cast("int")
    sizes: dict[int, int] = dict(ranges.groupBy(partition).count().collect())
    offsets = [0, *accumulate(sizes.get(p, 0) for p in range(max(sizes, default=0) + 1))]
    offset = F.element_at(F.lit(offsets), partition + 1).cast("bigint")
    within = F.col(POSITION).bitwiseAND(F.lit((1 << PARTITION_BITS) - 1))
    return ranges.withColumn(POSITION, offset + within), offsets[-1]
