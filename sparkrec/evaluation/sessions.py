"""Metrics of next-item prediction in sessions, and popularity under the same protocol.

For each next event the model ranks all items; ``rank`` is the place of the true one, among equal scores the last one
unless asked otherwise (``rank_of``). Recall@k is the share of events with rank ≤ k, MRR@k the mean of 1 / rank, 0
beyond k (Hidasi et al. 2016, "Session-based recommendations with recurrent neural networks", sec. 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from sparkrec.errors import InvariantError
from sparkrec.evaluation.values import MetricValue
from sparkrec.warehouse.tables import ITEM_IDX, ITEMS, RANK

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


Doubles = npt.NDArray[np.float64]
_MODEL = "model"
_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")  # at least as high; higher
NEXT_ITEM_METRICS = ("recall", "mrr", "ndcg")


def session_metrics(ranks: DataFrame, ks: Sequence[int]) -> list[MetricValue]:
    """Recall@k, MRR@k and NDCG@k of one model; see ``all_session_metrics``."""
    return all_session_metrics({_MODEL: ranks}, ks)[_MODEL]


def all_session_metrics(ranks: Mapping[str, DataFrame], ks: Sequence[int]) -> dict[str, list[MetricValue]]:
    """Recall@k, MRR@k and NDCG@k of several models, in one pass over all their ranks.

    With one relevant item the ideal gain is 1, so NDCG@k is the mean of 1 / log2(1 + rank), 0 beyond k.

    Args:
        ranks: Name → ``(rank)``, a number for each predicted event, from 1.
        ks: Cut-offs.

    Raises:
        InvariantError: There is no event, or a rank is null or below 1.
    """
    import pyspark.sql.functions as F

    parts = [
        one.select(F.lit(name).alias(_MODEL), F.col(RANK).cast("double").alias(RANK)) for name, one in ranks.items()
    ]
    columns = [F.count("*").alias("n"), F.count_if(F.col(RANK).isNull() | (F.col(RANK) < 1)).alias("wrong")]
    gain = F.try_divide(F.lit(1.0), F.log2(1.0 + F.col(RANK)))
    for k in ks:
        within = F.col(RANK) <= k
        columns.append(F.avg(within.cast("double")).alias(f"recall_{k}"))
        columns.append(F.avg(F.when(within, F.try_divide(F.lit(1.0), F.col(RANK))).otherwise(0.0)).alias(f"mrr_{k}"))
        columns.append(F.avg(F.when(within, gain).otherwise(0.0)).alias(f"ndcg_{k}"))
    rows = reduce(lambda some, more: some.unionByName(more), parts).groupBy(_MODEL).agg(*columns).collect()
    found = {row[_MODEL]: row for row in rows}
    if set(found) != set(ranks):
        raise InvariantError("no event to predict after the cutoff: nothing to judge by")
    for row in rows:
        if row["wrong"]:
            raise InvariantError(f"{row['wrong']} of {row['n']} ranks are null or below 1")
    return {
        name: [
            MetricValue(metric, k, found[name][f"{metric}_{k}"], found[name]["n"])
            for k in ks
            for metric in NEXT_ITEM_METRICS
        ]
        for name in ranks
    }


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
    sessions: DataFrame, scores: Doubles, among: npt.NDArray[np.bool_], ties: str = "conservative"
) -> DataFrame:
    """The rank that popularity gives to each next item of test sessions.

    Args:
        sessions: Test sessions ``(items array<int>)``; each item but the first is predicted.
        scores: float64 ``[n_items]``.
        among: Bool ``[n_items]``: the catalogue, the items that are ranked.
        ties: See ``rank_of``.

    Returns:
        ``(rank double)``; an item outside of the catalogue stands after all of it.
    """
    import pyarrow as pa
    import pyspark.sql.functions as F

    items, ordered = np.flatnonzero(among), np.sort(scores[among])
    at_least, more = (len(ordered) - np.searchsorted(ordered, scores[items], side) for side in _SIDES)
    ranks = np.asarray(rank_of(at_least, more, ties), dtype=np.float64)
    placed = sessions.sparkSession.createDataFrame(pa.table({ITEM_IDX: pa.array(items.astype(np.int32)), RANK: ranks}))
    following = sessions.select(F.explode(F.slice(ITEMS, 2, F.greatest(F.size(ITEMS) - 1, F.lit(0)))).alias(ITEM_IDX))
    found = following.join(F.broadcast(placed), ITEM_IDX, "left")
    return found.select(F.coalesce(RANK, F.lit(len(items) + 1.0)).alias(RANK))
