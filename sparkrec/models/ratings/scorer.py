"""The users' lists: items with enough ratings by the rating that is foreseen, with what is popular added."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkrec.models.ratings.serve import load_served
from sparkrec.models.scorer import Wanted
from sparkrec.processes import begin_task
from sparkrec.retrieval.block_search import FloatArray, IntArray, select
from sparkrec.retrieval.topk import list_batch, prepared_queries, seen_positions
from sparkrec.spark.broadcast import broadcast
from sparkrec.warehouse.tables import USER_IDX

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

USER = "_user"
_PAIRS_AT_ONCE = 262_144


@dataclass(frozen=True)
class RatingScorer:
    """Scores of every candidate for every user.

    Attributes:
        path: The model's folder, reached by the executors.
        items: int64, the candidates, ascending.
        n_index: Size of the index of items.
        scale: Deviation of what the biases leave of a rating, the unit of what is added.
        kappa: Deviations of its prediction that are added to a score.
        added: float32 ``[n_index]``, added to the predicted ratings; None: nothing.
    """

    path: str
    items: IntArray
    n_index: int
    scale: float = 1.0
    kappa: float = 0.0
    added: FloatArray | None = None

    @property
    def n_items(self) -> int:
        """See ``Scorer``."""
        return len(self.items)

    def with_prior(self, popular: FloatArray, times: float, plus: float) -> RatingScorer:
        """See ``TakesPrior``: predicted rating + plus · σ · ln(p + 1); nothing is multiplied."""
        return replace(self, added=(plus * self.scale * np.log1p(popular)).astype(np.float32))

    def best(self, users: DataFrame, wanted: Wanted) -> DataFrame:
        """See ``Scorer``; a user without a rating has no list."""
        keys = list(wanted.key)
        named = users.withColumn(USER, users[USER_IDX])
        prepared, schema = prepared_queries(named, wanted.seen, keys, columns=(USER,))
        items = self.items[~np.isin(self.items, wanted.excluded)]
        position_of = np.full(self.n_index, -1, dtype=np.int64)
        position_of[items] = np.arange(len(items))
        added = None if self.added is None else self.added[items]
        what = broadcast(users.sparkSession, (items, position_of, added))
        path, k, kappa = self.path, wanted.k, self.kappa

        def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            import torch

            begin_task()
            torch.set_num_threads(1)
            served = load_served(path)
            for batch in batches:
                yield from _lists(served, batch, keys, what.value, k, kappa)

        return prepared.mapInArrow(search, schema)


def _lists(
    served: Any, batch: pa.RecordBatch, keys: list[str], what: Any, k: int, kappa: float = 0.0
) -> Iterator[pa.RecordBatch]:
    """The lists of a batch of users, some at a time."""
    items, position_of, added = what
    users = batch.column(USER).to_numpy().astype(np.int64)
    rows, positions = seen_positions(batch, position_of)
    at_once = max(1, _PAIRS_AT_ONCE // max(1, len(items)))
    known = (users < len(served.user_count)) & (served.user_count[np.minimum(users, len(served.user_count) - 1)] > 0)
    for low in range(0, len(users) if len(items) else 0, at_once):
        mine = users[low : low + at_once]
        pairs = np.repeat(mine, len(items)), np.tile(items, len(mine))
        scores = served.predict(*pairs) + (kappa * served.deviation(*pairs) if kappa else 0.0)
        scores = scores.reshape(len(mine), -1).astype(np.float32)
        if added is not None:
            scores = scores + added
        first, last = np.searchsorted(rows, [low, low + len(mine)])
        scores[rows[first:last] - low, positions[first:last]] = -np.inf
        scores[~known[low : low + len(mine)]] = -np.inf
        best, found = select(scores, k)
        yield list_batch(batch, keys, low, best, items[found])
