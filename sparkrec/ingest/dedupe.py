"""Equal rows. Pure transforms."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from sparkrec.warehouse.tables import EVENT_DATE, EVENT_ID, EVENT_ORDER, EVENTS, ITEM_ID, QUANTITY, SOURCE, TS

FILE_NO, LAST_NO, N_ROWS, NTH = "file_no", "last_no", "n_rows", "_nth"
IN_TABLE = -1
# Equal in all of these: the same event. What decides between equal times is no part of it.
EVENT_KEY = [name for name in EVENTS.column_names if name not in (SOURCE, EVENT_ORDER)]


def numbered(rows: DataFrame, of: str | None) -> DataFrame:
    """Equal rows numbered 1, 2, … in the column ``_nth``, so that each counts.

    Args:
        rows: In the columns of ``events``.
        of: The file: rows of several are numbered apart; None: together, as those of the table, where each is one.
    """
    parts = [*EVENT_KEY, *([of] if of else [])]
    order = [F.col(name) for name in (EVENT_ORDER, SOURCE) if name in rows.columns]
    return rows.withColumn(NTH, F.row_number().over(Window.partitionBy(*parts).orderBy(*order)))


def added(batch: DataFrame) -> DataFrame:
    """Rows of a file that are equal but for their quantity become one, of the sum; where there is none, one counts 1.

    Args:
        batch: Valid rows with the columns of ``events`` but ``source``, and ``file_no``.

    Returns:
        The columns of ``events`` but ``source``, ``file_no``, and ``n_rows``: rows that it was.
    """
    key = [name for name in EVENT_KEY if name != QUANTITY]
    total = F.sum(F.coalesce(QUANTITY, F.lit(1.0)))
    quantity = F.when((F.count(F.lit(1)) > 1) | (F.count(QUANTITY) > 0), total)
    own = batch.groupBy(*key, FILE_NO).agg(
        quantity.alias(QUANTITY), F.min(EVENT_ORDER).alias(EVENT_ORDER), F.count(F.lit(1)).alias(N_ROWS)
    )
    return own.select(*EVENT_KEY, EVENT_ORDER, FILE_NO, N_ROWS)


def group_equal(batch: DataFrame, existing: DataFrame | None, ordered: bool = False, by_id: bool = False) -> DataFrame:
    """Groups the rows of a batch, and the events of the table, that are the same event.

    One shuffle, by the item and the day: equal rows have both, and most groups are of one row, so that counting them
    before the shuffle would only cost. By id one by the id.

    Args:
        batch: Valid rows with the columns of ``events`` but ``source``, ``file_no``, and maybe ``_nth`` and ``n_rows``.
        existing: Rows of ``events`` of the same days (of others too, if need be), or None; with ``_nth`` if the batch
            has it.
        ordered: Whether the rows have an ``event_order``; else it is taken for null.
        by_id: Whether rows with an id are the same event where the id is; the smallest row of the first file is kept.

    Returns:
        The event columns and ``event_order``, ``file_no``: the smallest that has the event, or ``IN_TABLE``,
        ``last_no``: the largest, and ``n_rows``: rows of the batch in the group.
    """
    extra = [name for name in (NTH,) if name in batch.columns]
    n_rows = F.col(N_ROWS) if N_ROWS in batch.columns else F.lit(1).cast("bigint")
    rows = batch.select(*EVENT_KEY, *extra, EVENT_ORDER, FILE_NO, n_rows.alias(N_ROWS))
    if existing is not None:
        here = (F.lit(IN_TABLE).cast("bigint").alias(FILE_NO), F.lit(0).cast("bigint").alias(N_ROWS))
        rows = rows.unionByName(existing.select(*EVENT_KEY, *extra, EVENT_ORDER, *here))
    files = (F.max(FILE_NO).alias(LAST_NO), F.sum(N_ROWS).alias(N_ROWS))
    if by_id:
        names = [FILE_NO, *[name for name in EVENT_KEY if name != EVENT_ID], EVENT_ORDER, EVENT_ID]
        grouped = rows.groupBy(same_event(True).alias("_same")).agg(F.min(F.struct(*names)).alias("_first"), *files)
        return grouped.select(*[f"_first.{name}" for name in (*EVENT_KEY, EVENT_ORDER, FILE_NO)], LAST_NO, N_ROWS)
    rows = rows.repartition(EVENT_DATE, ITEM_ID)
    if not ordered:
        grouped = rows.groupBy(*EVENT_KEY, *extra).agg(F.min(FILE_NO).alias(FILE_NO), *files)
        return grouped.withColumn(EVENT_ORDER, F.lit(None).cast("bigint")).drop(NTH)
    grouped = rows.groupBy(*EVENT_KEY, *extra).agg(F.min(F.struct(FILE_NO, EVENT_ORDER)).alias("_first"), *files)
    return grouped.select(*EVENT_KEY, f"_first.{FILE_NO}", f"_first.{EVENT_ORDER}", LAST_NO, N_ROWS)


def holders(batch: DataFrame, existing: DataFrame | None, shared: DataFrame, by_id: bool = False) -> DataFrame:
    """Which files hold the same events.

    Args:
        batch: As of :func:`group_equal`.
        existing: Likewise.
        shared: Its groups that more than one file has.
        by_id: Likewise.

    Returns:
        ``holders``: each set of files that some events are in, as structs of ``file_no`` (of the batch) and ``source``
        (in the table); the other is null.
    """
    fingerprint = (same_event(True) if by_id else _fingerprint()).alias("fingerprint")
    rows = batch.select(fingerprint, FILE_NO, F.lit(None).cast("string").alias(SOURCE))
    if existing is not None:
        rows = rows.unionByName(existing.select(fingerprint, F.lit(None).cast("bigint").alias(FILE_NO), SOURCE))
    found = rows.join(shared.select(fingerprint), "fingerprint", "leftsemi")
    sets = found.groupBy("fingerprint").agg(F.sort_array(F.collect_set(F.struct(FILE_NO, SOURCE))).alias("holders"))
    return sets.select("holders").distinct()


def same_event(by_id: bool, but_quantity: bool = False) -> Column:
    """What is equal of the same event, as a text: its id, or where it has none a hash of all of it.

    Args:
        by_id: Whether the id is all that counts where there is one.
        but_quantity: Whether the quantity may differ.
    """
    names = [name for name in EVENT_KEY if name != QUANTITY or not but_quantity]
    whole = [F.unix_micros(TS).alias(TS) if name == TS else F.col(name) for name in names]  # JSON has milliseconds
    hashed = F.concat(F.lit("#"), F.sha2(F.to_json(F.struct(*whole)), 256))
    if not by_id:
        return hashed
    return F.when(F.col(EVENT_ID).isNull(), hashed).otherwise(F.concat(F.lit("="), EVENT_ID))


def _fingerprint() -> Column:
    """A hash of the event; of nulls too, which the hash alone would leave out."""
    nulls = [F.col(name).isNull() for name in EVENT_KEY if EVENTS.column(name).nullable]
    return F.xxhash64(*EVENT_KEY, *nulls)
