"""A hybrid of what comes next in a session: the GRU's scores, and the votes of the sessions that were alike.

A weighted hybrid (Burke, "Hybrid Recommender Systems: Survey and Experiments", UMUAI 2002, sec. 3.1). After an event

    score(i) = (g(i) - mean g) / deviation of g + votes_weight · (v(i) / max v) ** power

g being the GRU's score, its mean and deviation those over the items that it was trained on, and v the votes of
``models.session_neighbours``, where items of the session itself count ``own_items`` of theirs: the GRU knows better
which of these come again. The two err apart: the GRU puts the right item first more often, the neighbours have it
somewhere on the list more often (Ludewig, Jannach, "Evaluation of Session-based Recommendation Algorithms", UMUAI 2018,
find the same). Nothing is trained for it: what it needs are the night's two models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkrec.errors import InvariantError
from sparkrec.evaluation.session_events import flat_lists, known_items
from sparkrec.models.session_hybrid.settings import SessionHybridConfig
from sparkrec.models.session_neighbours.nearest import NUMBER, numbered
from sparkrec.models.session_neighbours.settings import SessionNeighboursConfig
from sparkrec.models.session_neighbours.votes import Index, LookedAt, TrainedSessions, looked_at, user_numbers
from sparkrec.processes import begin_task
from sparkrec.retrieval.block_search import FloatArray, IntArray, ItemMatrix, select
from sparkrec.retrieval.topk import VECTOR, list_batch, prepared_queries, query_vectors, seen_positions
from sparkrec.spark.broadcast import broadcast
from sparkrec.storage import files
from sparkrec.warehouse.tables import ITEMS, USER_IDX

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame


MODEL_FILE = "model.json"


@dataclass(frozen=True)
class SessionHybrid:
    """What the GRU's scores are blended with, as it travels to the workers."""

    index: Index
    config: SessionHybridConfig

    @staticmethod
    def build(
        trained: TrainedSessions,
        neighbours: SessionNeighboursConfig,
        config: SessionHybridConfig,
        block_mb: int = 64,
    ) -> SessionHybrid:
        """Lays the neighbours' sessions out.

        Args:
            trained: The sessions that vote.
            neighbours: How; its ``own_items`` and ``decay`` play no part.
            config: The blend.
            block_mb: Memory of a block of votes.
        """
        neighbours = replace(neighbours, decay=config.decay)
        return SessionHybrid(Index.build(trained, neighbours, config.own_items, block_mb), config)

    def looked_at(
        self, flat: IntArray, begins: IntArray, ends: IntArray, users: IntArray, itself: IntArray | None = None
    ) -> LookedAt:
        """The events of sessions whose neighbours vote: see ``votes.looked_at``."""
        return looked_at(flat, begins, ends, users, self.index.config.last_items, itself)

    def after(
        self, scores: FloatArray, items: IntArray, flat: IntArray, begins: IntArray, ends: IntArray, users: pa.Array
    ) -> FloatArray:
        """See ``models.gru.states.Blend``."""
        return self.blended(scores, items, self.looked_at(flat, begins, ends, user_numbers(users)))

    def blended(self, scores: FloatArray, items: IntArray, asked: LookedAt) -> FloatArray:
        """The scores of both.

        Args:
            scores: float32 ``[b, m]``: the GRU's, finite.
            items: int64 ``[m]``: the items that they are of.
            asked: The events that came before, of b sessions.

        Returns:
            float32 ``[b, m]``.
        """
        if len(asked.lengths) != len(scores):
            raise InvariantError(f"{len(scores)} rows of scores, {len(asked.lengths)} sessions")
        deviation = scores.std(axis=1, keepdims=True)
        blended = (scores - scores.mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1.0)
        column = np.full(self.index.votes.shape[1], -1, dtype=np.int64)
        column[items] = np.arange(len(items))
        for block, votes in self.index.scores(asked):
            rows, columns = np.repeat(np.arange(votes.shape[0]), np.diff(votes.indptr)), column[votes.indices]
            most = np.zeros(votes.shape[0])
            np.maximum.at(most, rows, votes.data)
            counted = (votes.data > 0) & (columns >= 0)
            rows, columns = rows[counted], columns[counted]
            share = votes.data[counted] / most[rows]
            blended[block.start + rows, columns] += self.config.votes_weight * share**self.config.power
        result: FloatArray = blended.astype(np.float32)
        return result


def session_hybrid_lists(
    current: DataFrame,
    items: ItemMatrix,
    hybrid: SessionHybrid,
    *,
    key: str | Sequence[str],
    k: int,
    seen: DataFrame | None = None,
    without: IntArray | None = None,
    block_mb: int = 64,
    partitions: int | None = None,
) -> DataFrame:
    """The best items after the last event of each current session, by ``(-score, item_idx)``.

    Args:
        current: The key columns, ``session_id``, ``vector array<float>`` (the GRU's state), ``user_idx int`` and
            ``items array<int>`` in order of time, of which those that are not ranked are passed over. A session among
            those that vote does not vote for itself.
        items: The GRU's side of the items; those that are not eligible are not ranked.
        hybrid: The blend; it is broadcast.
        key: The column or columns that tell sessions apart; all are kept in the lists.
        k: Length of the lists.
        seen: ``(key columns or some of them, item_idx)``: pairs to leave out, as for ``topk.top_k``.
        without: Items that no list may hold. They count for the mean and the deviation, so that the other items'
            scores are what they are without this.
        block_mb: Memory of a block of scores, per worker process.
        partitions: Partitions of the sessions; four for each core by default.

    Returns:
        ``(key…, item_idx int, rank int, score float)``, ranks from 1.
    """
    keys = [key] if isinstance(key, str) else list(key)
    columns = (VECTOR, ITEMS, USER_IDX, NUMBER)
    prepared, schema = prepared_queries(numbered(current), seen, keys, partitions, columns)
    ranked = items.positions()
    bias = None if items.bias is None else items.bias[ranked]
    forbidden = np.isin(ranked, without) if without is not None else np.zeros(len(ranked), dtype=np.bool_)
    search = _Search(items.vectors[ranked], bias, ranked, items.position_of(), forbidden, hybrid, k, block_mb)
    sent = broadcast(current.sparkSession, search)

    def lists(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        begin_task()
        for batch in batches:
            yield from sent.value.lists(batch, keys)

    return prepared.mapInArrow(lists, schema)


def save_session_hybrid(path: str, meta: dict[str, Any]) -> None:
    """Writes ``model.json``, which makes the folder a model; the weights are those of the models that it blends."""
    files.write_json(files.join(path, MODEL_FILE), meta)


@dataclass(frozen=True)
class _Search:
    """What a worker needs for the lists."""

    vectors: FloatArray  # [m, d]
    bias: FloatArray | None  # [m]
    ranked: IntArray  # [m], item_idx
    position_of: IntArray  # item_idx → column, -1 where it is not ranked
    forbidden: np.ndarray  # bool [m]
    hybrid: SessionHybrid
    k: int
    block_mb: int

    def lists(self, batch: pa.RecordBatch, keys: list[str]) -> Iterator[pa.RecordBatch]:
        """The lists of a batch of sessions, block by block."""
        queries = query_vectors(batch, self.vectors.shape[1], biased=False)
        rows, columns = seen_positions(batch, self.position_of)
        flat, lengths = known_items(*flat_lists(batch.column(ITEMS)), self.position_of >= 0)
        ends, users = np.cumsum(lengths), user_numbers(batch.column(USER_IDX))
        itself = self.hybrid.index.places(batch.column(NUMBER).to_numpy())
        at_once = max(1, self.block_mb * 2**20 // (8 * max(1, len(self.ranked))))
        for low in range(0, len(queries), at_once):
            block = slice(low, min(low + at_once, len(queries)))
            scores = queries[block] @ self.vectors.T
            if self.bias is not None:
                scores += self.bias
            asked = self.hybrid.looked_at(flat, (ends - lengths)[block], ends[block], users[block], itself[block])
            scores = self.hybrid.blended(scores, self.ranked, asked)
            scores[:, self.forbidden] = -np.inf
            first, last = np.searchsorted(rows, [block.start, block.stop])
            scores[rows[first:last] - low, columns[first:last]] = -np.inf
            kept, found = select(scores, self.k)
            yield list_batch(batch, keys, low, kept, self.ranked[found])
