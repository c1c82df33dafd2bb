"""Metrics of next-item prediction in sessions, and popularity under the same protocol.

For each next event the model ranks all items; ``rank`` is the place of the true one, among equal scores the last one
unless asked otherwise (``rank_of``). Recall@k is the share of events with rank ≤ k, MRR@k the mean of 1 / rank, 0
beyond k (Hidasi et al. 2016, "Session-based recommendations with recurrent neural networks", sec. 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparkrec.errors import InvariantError
from sparkrec.evaluation.values import MetricValue
from sparkrec.tables import ITEM_IDX, ITEMS, RANK, SCORE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


NEXT_ITEM_METRICS = ("recall", "mrr", "ndcg")


def session_metrics(ranks: DataFrame, ks: Sequence[int]) -> list[MetricValue]:
    """Recall@k, MRR@k and NDCG@k; with one relevant item the ideal gain is 1, so the last is mean 1 / log2(1 + rank).

    Args:
        ranks: ``(rank)``, a number for each predicted event, from 1.
        ks: Cut-offs.

    Raises:
        InvariantError: There is no event, or a rank is null or below 1.
    """
    import pyspark.sql.functions as F

    columns = [F.count("*").alias("n"), F.count_if(F.col(RANK).isNull() | (F.col(RANK) < 1)).alias("wrong")]
    gain = F.try_divide(F.lit(1.0), F.log2(1.0 + F.col(RANK)))
    for k in ks:
        within = F.col(RANK) <= k
        columns.append(F.avg(within.cast("double")).alias(f"recall_{k}"))
        columns.append(F.avg(F.when(within, F.try_divide(F.lit(1.0), F.col(RANK))).otherwise(0.0)).alias(f"mrr_{k}"))
        columns.append(F.avg(F.when(within, gain).otherwise(0.0)).alias(f"ndcg_{k}"))
    row = ranks.agg(*columns).first()
    if row is None or not row["n"]:
        raise InvariantError("no event to predict after the cutoff: nothing to judge by")
    if row["wrong"]:
        raise InvariantError(f"{row['wrong']} of {row['n']} ranks are null or below 1")
    return [MetricValue(name, k, row[f"{name}_{k}"], row["n"]) for k in ks for name in NEXT_ITEM_METRICS]


def rank_of(at_least: Any, more: Any, ties: str) -> Any:
    """The rank of an item, from 1, for numbers, arrays or columns alike.

    Args:
        at_least: Number of items that score at least as high, itself among them.
        more: Number of items that score higher.
        ties: conservative: behind all equal ones | standard: before them | median: in the middle, maybe a half.
    """
    ranks = {"conservative": at_least, "standard": more + 1, "median": (at_least + more + 1) / 2}
    return ranks[ties]


def popularity_ranks(
    sessions: DataFrame, scores: DataFrame, catalogue: DataFrame, ties: str = "conservative"
) -> DataFrame:
    """The rank that popularity gives to each next item of the test sessions.

    Args:
        sessions: Test sessions ``(items array<int>)``; each item but the first is predicted.
        scores: ``(item_idx int, score)``; other items of the catalogue have the score 0.
        catalogue: ``(item_idx int)``, distinct: the items that are ranked.
        ties: See ``rank_of``.

    Returns:
        ``(rank double)``; an item outside of the catalogue stands after all of it.
    """
    import pyspark.sql.functions as F
    from pyspark.sql import Window

    ranked = catalogue.select(ITEM_IDX).join(scores.select(ITEM_IDX, SCORE), ITEM_IDX, "left").fillna(0.0, [SCORE])
    levels = ranked.groupBy(SCORE).agg(F.count("*").alias("n"))
    at_least = F.sum("n").over(Window.orderBy(F.desc(SCORE)))  # over the catalogue's distinct scores, a small table
    placed = levels.select(SCORE, rank_of(at_least, at_least - F.col("n"), ties).alias(RANK))
    ranks = ranked.join(placed, SCORE, "inner").select(ITEM_IDX, RANK)
    following = sessions.select(F.explode(F.slice(ITEMS, 2, F.greatest(F.size(ITEMS) - 1, F.lit(0)))).alias(ITEM_IDX))
    last = catalogue.agg((F.count("*") + 1).alias("last"))
    found = following.join(ranks, ITEM_IDX, "left").crossJoin(F.broadcast(last))
    return found.select(F.coalesce(RANK, "last").cast("double").alias(RANK))
