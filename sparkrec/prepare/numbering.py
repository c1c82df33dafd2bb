"""Numbers the rows of a DataFrame in order, on all partitions at once."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

POSITION = "position"
PARTITION_BITS = 33  # of monotonically_increasing_id: the partition above, the row within it below


def cut_lineage(rows: DataFrame) -> DataFrame:
    """Computes ``rows`` now and keeps them on the executors: what follows neither repeats nor changes them.

    An executor lost afterwards fails the job, instead of letting it go on with rows computed anew.
    """
    return rows.localCheckpoint(eager=True)


def numbered(rows: DataFrame, *order: str) -> tuple[DataFrame, int]:
    """Adds ``position`` (bigint: 0, 1, 2, …) in the order of the columns ``order``, which must be a key of ``rows``.

    Ranges of the order are sorted side by side; only the number of rows of each partition reaches the driver. The
    ranges come from a sample that differs from run to run, so they are frozen before they are counted; the positions
    do not depend on them.

    Returns:
        The numbered rows, and how many they are.
    """
    ranges = rows.repartitionByRange(*order).sortWithinPartitions(*order)
    ranges = cut_lineage(ranges.withColumn(POSITION, F.monotonically_increasing_id()))
    partition = F.shiftright(POSITION, PARTITION_BITS).cast("int")
    sizes: dict[int, int] = dict(ranges.groupBy(partition).count().collect())
    offsets = [0, *accumulate(sizes.get(p, 0) for p in range(max(sizes, default=0) + 1))]
    offset = F.element_at(F.lit(offsets), partition + 1).cast("bigint")
    within = F.col(POSITION).bitwiseAND(F.lit((1 << PARTITION_BITS) - 1))
    return ranges.withColumn(POSITION, offset + within), offsets[-1]
