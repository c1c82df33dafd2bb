"""Metrics of the next product in a basket: what stands beside the previous one, against what was really taken next.

Each pair of neighbours in a held-out basket is one prediction: the query is the earlier product, the truth the later
one, and the list that of the query. As there is a single relevant item, with ``r`` its rank in the list,

    recall    1 where r <= k (the hit rate is the same number)
    ndcg      1 / log2(r + 1) where r <= k      (Järvelin, Kekäläinen, TOIS 2002, with binary gains)
    mrr       1 / r where r <= k                (Voorhees, TREC-8 1999)

each 0 elsewhere, averaged over all pairs. A query without a list, or a truth that no list can hold, is a miss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparkrec.errors import InvariantError
from sparkrec.evaluation.gains import COUNT, GAIN, MODEL, OWNER, GainsBook
from sparkrec.evaluation.ranking import ALL, SEGMENTS
from sparkrec.evaluation.values import MetricValue
from sparkrec.log import log_event
from sparkrec.warehouse.tables import ITEM_IDX, ITEMS, QUERY_IDX, RANK

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

N = "n"  # times that a pair was seen
ACCURACY = ("recall", "hit_rate", "ndcg", "mrr")
COLD_NEXT = "cold_next"


def next_products(baskets: DataFrame) -> DataFrame:
    """The neighbours in baskets, and how often each pair was seen.

    Args:
        baskets: ``(items array<int>)``, distinct items of each basket in order.

    Returns:
        ``(query_idx int, item_idx int, n bigint)``, distinct.
    """
    import pyspark.sql.functions as F

    rest = F.greatest(F.size(ITEMS) - 1, F.lit(0))
    pairs = F.arrays_zip(F.slice(ITEMS, 1, rest).alias(QUERY_IDX), F.slice(ITEMS, 2, rest).alias(ITEM_IDX))
    each = baskets.select(F.inline(pairs).alias(QUERY_IDX, ITEM_IDX))
    return each.groupBy(QUERY_IDX, ITEM_IDX).agg(F.count("*").alias(N))


def in_segment(pairs: DataFrame, items: DataFrame, name: str = COLD_NEXT) -> DataFrame:
    """Marks the pairs whose next item is one of some.

    Args:
        pairs: Of ``next_products``; ``segments`` that it has already are kept.
        items: ``(item_idx int)``, e.g. those that were seldom seen in training.
        name: Of the segment.

    Returns:
        The pairs with ``segments array<string>``.
    """
    import pyspark.sql.functions as F

    there = items.select(ITEM_IDX).distinct().withColumn("_there", F.lit(True))
    marked = F.when(F.col("_there"), F.array(F.lit(name))).otherwise(F.array().cast("array<string>"))
    earlier = F.col(SEGMENTS) if SEGMENTS in pairs.columns else F.array().cast("array<string>")
    joined = pairs.join(F.broadcast(there), ITEM_IDX, "left")
    return joined.withColumn(SEGMENTS, F.concat(earlier, marked)).select(QUERY_IDX, ITEM_IDX, N, SEGMENTS)


def basket_metrics(
    lists: DataFrame, pairs: DataFrame, ks: Sequence[int], gains: tuple[GainsBook, str, str] | None = None
) -> dict[str, list[MetricValue]]:
    """Judges lists of items beside items by what was taken next.

    Args:
        lists: ``(query_idx int, item_idx int, rank int from 1)``, at least as long as the largest cut-off.
        pairs: ``(query_idx int, item_idx int, n bigint)``, and optionally ``segments array<string>``: the parts that
            a pair belongs to, besides the whole.
        ks: Cut-offs.
        gains: Where each query's share of a metric is noted, under which hold-out, and of which model.

    Returns:
        Under ``ALL`` and each segment: for each k recall, hit_rate, ndcg and mrr, then ``pairs_without_list`` (a
        number); ``n`` is the number of pairs judged, each as often as it was seen.

    Raises:
        InvariantError: There is no pair, one is not counted or is there twice, or a list holds an item or a rank twice.
    """
    import pyspark.sql.functions as F

    total = _check_pairs(pairs)
    doubled = (F.count_distinct(ITEM_IDX) < F.count("*")) | (F.count_distinct(RANK) < F.count("*"))
    places = F.collect_list(F.struct(ITEM_IDX, RANK)).alias("places")
    whole = lists.where(F.col(RANK) <= max(ks)).groupBy(QUERY_IDX).agg(places, doubled.alias("doubled"))
    found = F.filter("places", lambda place: place[ITEM_IDX] == F.col(ITEM_IDX))
    ranked = pairs.join(whole, QUERY_IDX, "left").withColumn(RANK, F.get(found, F.lit(0))[RANK])
    rows = _means(ranked, ks)
    if gains is not None:
        book, split, model = gains
        gain = F.when(F.col(RANK) <= book.k, _gains()[book.metric] * F.col(N)).otherwise(0.0)
        noted = ranked.select(
            F.lit(model).alias(MODEL), F.col(QUERY_IDX).alias(OWNER), gain.alias(GAIN), F.col(N).alias(COUNT)
        )
        book.add(split, noted, total)
    if rows[ALL]["doubled"]:
        raise InvariantError(f"{rows[ALL]['doubled']} lists hold an item or a rank twice")
    if rows[ALL][N] != total:  # the joins may neither lose nor repeat a pair
        raise InvariantError(f"{rows[ALL][N]} pairs judged, there are {total}")
    log_event("basket_metrics", pairs=rows[ALL][N], pairs_without_list=rows[ALL]["missing"])
    return {segment: _values(row, ks) for segment, row in sorted(rows.items())}


def _means(ranked: DataFrame, ks: Sequence[int]) -> dict[str, dict[str, Any]]:
    """By segment: number of pairs, of those without a list, and the metrics' means."""
    import pyspark.sql.functions as F

    segments = F.array(F.lit(ALL))
    if SEGMENTS in ranked.columns:
        segments = F.concat(segments, F.col(SEGMENTS))
    columns = [F.sum(N).alias(N), F.sum(F.when(F.col("places").isNull(), F.col(N)).otherwise(0)).alias("missing")]
    columns.append(F.count_distinct(F.when(F.col("doubled"), F.col(QUERY_IDX))).alias("doubled"))
    columns += [
        (F.sum(F.when(F.col(RANK) <= k, value * F.col(N)).otherwise(0.0)) / F.sum(N)).alias(f"{name}_{k}")
        for k in ks
        for name, value in _gains().items()
    ]
    rows = ranked.withColumn("segment", F.explode(segments)).groupBy("segment").agg(*columns)
    return {row["segment"]: row.asDict() for row in rows.collect()}


def _gains() -> dict[str, Column]:
    import pyspark.sql.functions as F

    hit = F.lit(1.0)
    return {"recall": hit, "hit_rate": hit, "ndcg": 1 / F.log2(F.col(RANK) + 1), "mrr": 1 / F.col(RANK)}


def _values(row: dict[str, Any], ks: Sequence[int]) -> list[MetricValue]:
    values = [MetricValue(name, k, row[f"{name}_{k}"], row[N]) for k in ks for name in ACCURACY]
    return [*values, MetricValue("pairs_without_list", None, float(row["missing"]), row[N])]


def _check_pairs(pairs: DataFrame) -> int:
    """Number of the pairs, each as often as it was seen."""
    import pyspark.sql.functions as F

    keys = F.count_distinct(QUERY_IDX, ITEM_IDX).alias("distinct")
    wrong = F.count_if(F.col(N).isNull() | (F.col(N) < 1)).alias("wrong")
    row = pairs.agg(F.sum(N).alias(N), F.count("*").alias("rows"), keys, wrong).first()
    if row is None or not row["rows"]:
        raise InvariantError("no basket with two items after the cutoff: nothing to judge by")
    if row["wrong"] or row["distinct"] != row["rows"]:
        raise InvariantError(f"of {row['rows']} pairs {row['wrong']} have no count, {row['distinct']} are distinct")
    return int(row[N])
