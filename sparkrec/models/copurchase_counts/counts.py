"""Pairs of items that stand close to each other in baskets or sessions, counted and scored.

c_ij is the number of baskets in which i and j stand at most ``within`` places apart, c_i the number that hold i, N the
number of baskets:

    count    c_ij
    cosine   c_ij / √(c_i c_j), of the items' vectors of baskets (Linden, Smith, York, "Amazon.com Recommendations",
             IEEE Internet Computing 2003)
    lift     N c_ij / (c_i c_j)  (Brin, Motwani, Ullman, Tsur, "Dynamic Itemset Counting", SIGMOD 1997, "interest")

A basket counts a pair once, however often a session comes back to it, and a pair has no direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as F

from sparkrec.models.copurchase_counts.settings import CopurchaseCountsConfig
from sparkrec.models.neighbours.nearest import NEIGHBOUR_IDX
from sparkrec.warehouse.tables import ITEM_IDX, ITEMS, SCORE

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

N_TOGETHER, N_HERE, N_THERE = "n_together", "n_here", "n_there"


def pair_scores(baskets: DataFrame, config: CopurchaseCountsConfig) -> DataFrame:
    """The best partners of each item.

    Args:
        baskets: ``(items array<int>)``, the items of each basket or session in order.
        config: What makes a pair, its score, and how many are kept.

    Returns:
        ``(item_idx int, neighbour_idx int, score float)``, both directions of each pair, score > 0; at most
        ``config.neighbours`` rows for each item, of equal scores the smaller number.
    """
    pairs = baskets.select(F.inline(F.array_distinct(_close(config.within))).alias(ITEM_IDX, NEIGHBOUR_IDX))
    counted = pairs.groupBy(ITEM_IDX, NEIGHBOUR_IDX).agg(F.count(F.lit(1)).alias(N_TOGETHER))
    enough = counted.where(F.col(N_TOGETHER) >= config.min_count)
    back = enough.select(F.col(NEIGHBOUR_IDX).alias(ITEM_IDX), F.col(ITEM_IDX).alias(NEIGHBOUR_IDX), N_TOGETHER)
    both = enough.unionByName(back)
    scored = both.withColumn(SCORE, F.col(N_TOGETHER).cast("float"))
    if config.score != "count":
        held = baskets.select(F.explode(F.array_distinct(ITEMS)).alias(ITEM_IDX)).groupBy(ITEM_IDX)
        sizes = held.agg(F.count(F.lit(1)).alias(N_HERE))
        theirs = sizes.select(F.col(ITEM_IDX).alias(NEIGHBOUR_IDX), F.col(N_HERE).alias(N_THERE))
        joined = both.join(sizes, ITEM_IDX, "inner").join(theirs, NEIGHBOUR_IDX, "inner")
        scored = joined.withColumn(SCORE, _score(config.score, baskets.count()).cast("float"))
    best = Window.partitionBy(ITEM_IDX).orderBy(F.desc(SCORE), NEIGHBOUR_IDX)
    ranked = scored.withColumn("place", F.row_number().over(best)).where(F.col("place") <= config.neighbours)
    return ranked.select(ITEM_IDX, NEIGHBOUR_IDX, SCORE)


def _close(within: int) -> Column:
    """The pairs of a basket, array of ``struct<item_idx, neighbour_idx>``, the smaller number first."""

    def apart(step: int) -> Column:
        rest = F.greatest(F.size(ITEMS) - step, F.lit(0))
        pairs = F.arrays_zip(F.slice(ITEMS, 1, rest).alias("a"), F.slice(ITEMS, step + 1, rest).alias("b"))
        ordered = F.transform(
            pairs,
            lambda pair: F.struct(
                F.least(pair["a"], pair["b"]).alias(ITEM_IDX), F.greatest(pair["a"], pair["b"]).alias(NEIGHBOUR_IDX)
            ),
        )
        return F.filter(ordered, lambda pair: pair[ITEM_IDX] < pair[NEIGHBOUR_IDX])

    return F.concat(*[apart(step) for step in range(1, within + 1)])


def _score(name: str, n_baskets: int) -> Column:
    together, here, there = F.col(N_TOGETHER), F.col(N_HERE), F.col(N_THERE)
    if name == "cosine":
        return together / F.sqrt(here * there)
    return F.lit(float(n_baskets)) * together / (here * there)
