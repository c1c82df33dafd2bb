"""Lists that a model leaves short are filled up from popularity, so that every active user has a whole list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.retrieval.topk import VECTOR, top_k
from sparkrec.warehouse.tables import ITEM_IDX, RANK, SCORE, SOURCE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FROM_MODEL, FROM_POPULARITY, FROM_GROUP = "model", "popularity", "group"
DUE = "due"


@dataclass(frozen=True)
class ListCounts:
    """What there is of a model's lists.

    Attributes:
        rows: Their rows.
        popular: Rows that came from popularity, overall or in a group of users.
        lists: Keys that have a row.
        whole: Keys that have ``k``.
        expected: Keys that the model should have a list for.
        served: Of these those that have a row.
        short: Keys that should have one, or have one, and have fewer than ``k`` rows.
    """

    rows: int
    popular: int
    lists: int
    whole: int
    expected: int
    served: int
    short: int


def count_lists(lists: DataFrame, keys: DataFrame, *, key: Sequence[str], k: int) -> ListCounts:
    """ListCounts lists in one pass.

    Args:
        lists: ``(key…, source)``, a row for each place of a list.
        keys: ``(key…)``, distinct: who should have a list; optionally ``due bool``: whether the model itself should
            know of one, all by default.
        key: The column or columns that identify a list.
        k: Length of a whole list.
    """
    import pyspark.sql.functions as F

    names, n, due = list(key), F.col("n"), F.col(DUE) if DUE in keys.columns else F.lit(True)
    places = lists.select(*names, F.col(SOURCE), F.lit(False).alias(DUE))
    nowhere = F.lit(None).cast("string").alias(SOURCE)  # null: no place of a list
    both = places.unionByName(keys.select(*names, nowhere, due.alias(DUE)))
    lengths = both.groupBy(*names).agg(
        F.count(SOURCE).alias("n"),
        F.count_if(F.col(SOURCE) != FROM_MODEL).alias("popular"),
        F.bool_or(DUE).alias(DUE),
    )
    row = lengths.agg(
        F.coalesce(F.sum("n"), F.lit(0)).alias("rows"),
        F.coalesce(F.sum("popular"), F.lit(0)).alias("popular"),
        F.count_if(n > 0).alias("lists"),
        F.count_if(n == k).alias("whole"),
        F.count_if(DUE).alias("expected"),
        F.count_if(F.col(DUE) & (n > 0)).alias("served"),
        F.count_if(n < k).alias("short"),
    ).head()
    assert row is not None  # an aggregate without groups has one row
    return ListCounts(**row.asDict())


def popularity_queries(keys: DataFrame) -> DataFrame:
    """Queries for ``popularity_matrix``: each key with the vector ``[1.0]``."""
    import pyspark.sql.functions as F

    return keys.withColumn(VECTOR, F.array(F.lit(1.0).cast("float")))


def filled_up(
    lists: DataFrame,
    keys: DataFrame,
    popular: ItemMatrix,
    *,
    key: Sequence[str],
    k: int,
    seen: DataFrame | None = None,
    queries: Callable[[DataFrame], DataFrame] = popularity_queries,
    source: str = FROM_POPULARITY,
    block_mb: int = 64,
) -> DataFrame:
    """The lists with what they lack of ``k`` items, by popularity, below what they hold.

    Args:
        lists: ``(key…, item_idx int, rank int from 1, score float, source string)``; read several times, so persist it.
        keys: ``(key…)``, distinct: who should have a list, besides those of ``lists``.
        popular: ``popularity_matrix``, or what ``queries`` ask.
        key: The column or columns that identify a list.
        k: Length of a whole list.
        seen: ``(key columns or some of them, item_idx)``: pairs to leave out.
        queries: Adds the ``vector`` to the keys of short lists.
        source: What the rows that fill up say of themselves.
        block_mb: Memory of a block of scores, per worker process.

    Returns:
        ``(key…, item_idx, rank, score, source)``: the rows of ``lists`` and those that fill up, whose score is the
        popularity. A list stays short where no more items are popular that its key has not seen.
    """
    import pyspark.sql.functions as F

    names = list(key)
    lengths = lists.groupBy(*names).agg(F.count("*").cast("int").alias("n"))
    short = keys.select(*names).join(lengths, names, "full").fillna(0, "n").where(F.col("n") < k)
    own = lists.select(*names, ITEM_IDX).join(short.select(*names), names, "left_semi")
    taken = own
    if seen is not None:
        on = [name for name in names if name in seen.columns]
        among_short = short.select(*names).join(seen.select(*on, ITEM_IDX), on, "inner")
        taken = own.unionByName(among_short.select(*names, ITEM_IDX)).distinct()
    more = top_k(queries(short.select(*names)), popular, key=names, k=k, seen=taken, block_mb=block_mb)
    below = more.join(short, names, "inner").withColumn(RANK, F.col(RANK) + F.col("n")).where(F.col(RANK) <= k)
    columns = [*names, ITEM_IDX, RANK, SCORE]
    return lists.select(*columns, SOURCE).unionByName(below.select(*columns, F.lit(source).alias(SOURCE)))
