"""Exact duplicates. Pure transforms."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec.warehouse.tables import EVENT_DATE, EVENTS, ITEM_ID, SOURCE

FILE_NO, LAST_NO, N_ROWS = "file_no", "last_no", "n_rows"
IN_TABLE = -1
EVENT_KEY = [name for name in EVENTS.column_names if name != SOURCE]  # equal in all of these: the same event


def group_equal(batch: DataFrame, existing: DataFrame | None) -> DataFrame:
    """Groups the rows of a batch, and the events of the table, that are equal in all but the file.

    One shuffle, by the item and the day: equal rows have both, and most groups are of one row, so that counting them
    before the shuffle would only cost.

    Args:
        batch: Valid rows with the columns of ``events`` but ``source``, and ``file_no``.
        existing: Rows of ``events`` of the same days (of others too, if need be), or None.

    Returns:
        The event columns, ``file_no``: the smallest that has the event, or ``IN_TABLE``, ``last_no``: the largest,
        and ``n_rows``: rows of the batch in the group.
    """
    rows = batch.select(*EVENT_KEY, FILE_NO)
    if existing is not None:
        rows = rows.unionByName(existing.select(*EVENT_KEY, F.lit(IN_TABLE).cast("bigint").alias(FILE_NO)))
    n_rows = F.count_if(F.col(FILE_NO) != IN_TABLE).alias(N_ROWS)
    return (
        rows.repartition(EVENT_DATE, ITEM_ID)
        .groupBy(*EVENT_KEY)
        .agg(F.min(FILE_NO).alias(FILE_NO), F.max(FILE_NO).alias(LAST_NO), n_rows)
    )


def holders(batch: DataFrame, existing: DataFrame | None, shared: DataFrame) -> DataFrame:
    """Which files hold the same events.

    Args:
        batch: As of :func:`group_equal`.
        existing: Likewise.
        shared: Its groups that more than one file has.

    Returns:
        ``holders``: each set of files that some events are in, as structs of ``file_no`` (of the batch) and ``source``
        (in the table); the other is null.
    """
    rows = batch.select(_fingerprint(), FILE_NO, F.lit(None).cast("string").alias(SOURCE))
    if existing is not None:
        rows = rows.unionByName(existing.select(_fingerprint(), F.lit(None).cast("bigint").alias(FILE_NO), SOURCE))
    found = rows.join(shared.select(_fingerprint()), "fingerprint", "leftsemi")
    sets = found.groupBy("fingerprint").agg(F.sort_array(F.collect_set(F.struct(FILE_NO, SOURCE))).alias("holders"))
    return sets.select("holders").distinct()


def _fingerprint() -> Column:
    """A hash of the event; of nulls too, which the hash alone would leave out."""
    nulls = [F.col(name).isNull() for name in EVENT_KEY if EVENTS.column(name).nullable]
    return F.xxhash64(*EVENT_KEY, *nulls).alias("fingerprint")
