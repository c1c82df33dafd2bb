"""Popularity of items: the baseline that every model is held against, and what users without a list are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from sparkrec.prepare.cut import utc
from sparkrec.prepare.weights import WEIGHT, counted
from sparkrec.retrieval.block_search import FloatArray, ItemMatrix
from sparkrec.warehouse.tables import ITEM_IDX, N_EVENTS, SCORE, TS, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Doubles = npt.NDArray[np.float64]


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


def popularities(
    interactions: DataFrame,
    event_weights: Mapping[str, float],
    as_of: datetime,
    windows: Mapping[str, float | None],
    *,
    by: Literal["users", "events"] = "users",
) -> DataFrame:
    """The scores of ``popularity`` in several windows, from one pass.

    Args:
        interactions: As for ``popularity``.
        event_weights: As for ``popularity``.
        as_of: As for ``popularity``.
        windows: Name → days; None: all time.
        by: As for ``popularity``.

    Returns:
        ``(item_idx int, <name> double for each window)`` of the items that were taken in one of them.
    """
    import pyspark.sql.functions as F

    since = {name: None if days is None else as_of - timedelta(days=days) for name, days in windows.items()}
    within = {name: F.lit(True) if first is None else F.col(TS) >= utc(first) for name, first in since.items()}
    taken = counted(interactions, event_weights).where((F.col(TS) < utc(as_of)) & reduce(or_, within.values()))
    if by == "events":
        sums = {name: F.sum(F.when(inside, F.col(WEIGHT)).otherwise(0.0)) for name, inside in within.items()}
    else:
        taken = taken.groupBy(ITEM_IDX, USER_IDX).agg(*[F.count_if(inside).alias(n) for n, inside in within.items()])
        nobody = F.col(USER_IDX).isNull()
        sums = {name: F.sum(F.when(nobody, F.col(name)).otherwise(F.least(name, F.lit(1)))) for name in within}
    return taken.groupBy(ITEM_IDX).agg(*[total.cast("double").alias(name) for name, total in sums.items()])


def popularity_arrays(
    interactions: DataFrame,
    event_weights: Mapping[str, float],
    as_of: datetime,
    windows: Sequence[float | None],
    n_items: int,
    *,
    by: Literal["users", "events"] = "users",
) -> list[Doubles]:
    """``popularities`` on the driver: for each window float64 ``[n_items]``, 0 for an item that was not taken in it."""
    named = {f"{SCORE}_{n}": days for n, days in enumerate(windows)}
    table = popularities(interactions, event_weights, as_of, named, by=by).toArrow()
    idx, arrays = table.column(ITEM_IDX).to_numpy(), []
    for name in named:
        arrays.append(np.zeros(n_items))
        arrays[-1][idx] = table.column(name).to_numpy()
    return arrays


def popularity_matrix(scores: Doubles, taken: Doubles | None = None) -> ItemMatrix:
    """Popularity as an item matrix of one dimension, for ``top_k``.

    Args:
        scores: float64 ``[n_items]``, of ``popularity_arrays``.
        taken: The same over all time where a list may hold whatever was ever taken; by default it may hold the items
            with a score.
    """
    eligible = (scores if taken is None else taken) > 0
    return ItemMatrix(scores.astype(np.float32)[:, None], None, eligible)


def fallback_matrix(ever: Doubles, recent: Doubles) -> ItemMatrix:
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
