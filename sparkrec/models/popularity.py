"""Popularity of items: the baseline that every model is held against, and what users without a list are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from sparkrec.prepare.cut import utc
from sparkrec.prepare.weights import WEIGHT, counted
from sparkrec.retrieval.block_search import FloatArray, ItemMatrix
from sparkrec.retrieval.topk import VECTOR
from sparkrec.tables import ITEM_IDX, N_EVENTS, SCORE, TS, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def popularity(
    interactions: DataFrame,
    event_weights: Mapping[str, float],
    as_of: datetime,
    days: float | None,
    *,
    by: Literal["users", "events"] = "users",
) -> DataFrame:
    """Popularity of the items taken before ``as_of``.

    Args:
        interactions: In the columns of ``tables.INTERACTIONS``; events without a positive weight do not count.
        event_weights: Weight of each event type.
        as_of: Events before this time count, UTC.
        days: Length of the window that ends at ``as_of``; None: all time.
        by: ``users``: number of distinct users, each anonymous event counting as one more; it is not swayed by one
            user who repeats an item. ``events``: sum of the events' weights.

    Returns:
        ``(item_idx int, n_events bigint, score double)``, score > 0.
    """
    import pyspark.sql.functions as F

    within = F.col(TS) < utc(as_of)
    if days is not None:
        within = within & (F.col(TS) >= utc(as_of - timedelta(days=days)))
    taken = counted(interactions, event_weights).where(within)
    if by == "events":
        score = F.sum(WEIGHT)
        return taken.groupBy(ITEM_IDX).agg(F.count("*").alias(N_EVENTS), score.alias(SCORE))
    pairs = taken.groupBy(ITEM_IDX, USER_IDX).agg(F.count("*").alias(N_EVENTS))
    users = F.when(F.col(USER_IDX).isNull(), F.col(N_EVENTS)).otherwise(1)
    return pairs.groupBy(ITEM_IDX).agg(F.sum(N_EVENTS).alias(N_EVENTS), F.sum(users).cast("double").alias(SCORE))


def popularity_arrays(
    interactions: DataFrame,
    event_weights: Mapping[str, float],
    as_of: datetime,
    windows: Sequence[float | None],
    n_items: int,
    *,
    by: Literal["users", "events"] = "users",
) -> list[npt.NDArray[np.float64]]:
    """The scores of ``popularity`` in several windows, from one pass.

    Args:
        interactions: As for ``popularity``.
        event_weights: As for ``popularity``.
        as_of: As for ``popularity``.
        windows: Days of each; None: all time.
        n_items: Size of the index: ``item_idx`` is below it.
        by: As for ``popularity``.

    Returns:
        For each window float64 ``[n_items]``, 0 for an item that was not taken in it.
    """
    import pyspark.sql.functions as F

    within = [F.lit(True) if days is None else F.col(TS) >= utc(as_of - timedelta(days=days)) for days in windows]
    taken = counted(interactions, event_weights).where((F.col(TS) < utc(as_of)) & reduce(or_, within))
    names = [f"{SCORE}_{n}" for n in range(len(windows))]
    if by == "events":
        sums = [F.sum(F.when(inside, F.col(WEIGHT)).otherwise(0.0)) for inside in within]
    else:
        times = [F.count_if(inside).alias(name) for inside, name in zip(within, names, strict=True)]
        taken = taken.groupBy(ITEM_IDX, USER_IDX).agg(*times)
        sums = [F.sum(F.when(F.col(USER_IDX).isNull(), F.col(n)).otherwise(F.least(n, F.lit(1)))) for n in names]
    found = taken.groupBy(ITEM_IDX).agg(*[s.cast("double").alias(name) for s, name in zip(sums, names, strict=True)])
    return item_columns(found, names, n_items)


def item_columns(rows: DataFrame, names: Sequence[str], n_items: int) -> list[npt.NDArray[Any]]:
    """Collects columns of numbers by ``item_idx``: each an array ``[n_items]``, 0 for an item without a row."""
    table = rows.select(ITEM_IDX, *names).toArrow()
    idx, arrays = table.column(ITEM_IDX).to_numpy(), []
    for name in names:
        values = table.column(name).to_numpy()
        array = np.zeros(n_items, dtype=values.dtype)
        array[idx] = values
        arrays.append(array)
    return arrays


def popularity_matrix(scores: npt.NDArray[np.float64], taken: npt.NDArray[np.float64] | None = None) -> ItemMatrix:
    """Popularity as an item matrix of one dimension, for ``top_k``.

    Args:
        scores: float64 ``[n_items]``, of ``popularity_arrays``.
        taken: The same over all time where a list may hold whatever was ever taken; by default it may hold the items
            with a score.
    """
    eligible = (scores if taken is None else taken) > 0
    return ItemMatrix(scores.astype(np.float32)[:, None], None, eligible)


def fallback_matrix(ever: npt.NDArray[np.float64], recent: npt.NDArray[np.float64]) -> ItemMatrix:
    """What fills up lists: all items that were ever taken, those of the recent window first.

    Args:
        ever: float64 ``[n_items]``: popularity over all time.
        recent: float64 ``[n_items]``: in the recent window.

    Returns:
        The score of an item is its number of users in the window; where that is 0, its number of users of all time as
        a share of one more than the largest, which is below 1.
    """
    share = ever.astype(np.float32) / (ever.max(initial=0.0) + 1.0)
    scores = np.where(recent > 0, recent.astype(np.float32), share.astype(np.float32))
    return ItemMatrix(scores[:, None], None, ever > 0)


def popularity_factors(users: FloatArray, strength: float) -> FloatArray:
    """``(users + 1) ** strength``, float32 of the shape of ``users``."""
    factors: FloatArray = ((users.astype(np.float64) + 1.0) ** strength).astype(np.float32)
    return factors


def times_popularity(items: ItemMatrix, users: FloatArray, strength: float) -> ItemMatrix:
    """Every score times ``(users + 1) ** strength``: a prior for models whose scores are degrees of preference.

    Args:
        items: What is searched.
        users: float32 ``[n]``: users who took each item of late.
        strength: 0 leaves the scores as they are.
    """
    factor = popularity_factors(users, strength)
    bias = None if items.bias is None else items.bias * factor
    return ItemMatrix(items.vectors * factor[:, None], bias, items.eligible)


def plus_popularity(items: ItemMatrix, users: FloatArray, strength: float) -> ItemMatrix:
    """Every score plus ``strength · ln(users + 1)``: the same prior for models whose scores are log-probabilities.

    Args:
        items: What is searched.
        users: float32 ``[n]``: users who took each item of late.
        strength: 0 leaves the scores as they are.
    """
    prior = (strength * np.log1p(users.astype(np.float64))).astype(np.float32)
    return ItemMatrix(items.vectors, prior if items.bias is None else items.bias + prior, items.eligible)


def popularity_queries(keys: DataFrame) -> DataFrame:
    """Queries for ``popularity_matrix``: each key with the vector ``[1.0]``."""
    import pyspark.sql.functions as F

    return keys.withColumn(VECTOR, F.array(F.lit(1.0).cast("float")))
