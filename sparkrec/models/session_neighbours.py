"""Session-based nearest neighbours, exact: what the sessions had that are most like the current one (V-SKNN).

Ludewig, Jannach, "Evaluation of Session-based Recommendation Algorithms" (UMUAI 2018), section 3.2, and the authors'
framework session-rec, with one decay for both its places. Of the current session the last ``last_items`` events are
looked at, n of them; the item of the event that is the s-th from the end, at its last occurrence, weighs d(s):

    linear     (n - s + 1) / n
    quadratic  ((n - s + 1) / n)²
    harmonic   1 / s
    same       1

A trained session N is as near as the cosine of the weights with the set of its items,
Σ_(i in both) d(s_i) / (|d| √|N|), times ``same_user`` where it is one of the same user's: people come back to what
they did before. Of the nearest ``neighbours`` sessions, or those among the ``sample`` most recent that share an item,

    score(i) = idf(i) ** power · Σ_(N with i) sim(N) · d(s of the last item that N shares)

with idf(i) = ln(trained sessions / trained sessions with i). Equal similarities go to the later session, equal scores
to the smaller item. All neighbours have items of the session itself, so that these come first where they may be shown;
where a session seldom returns to an item, ``own_items`` below 1 takes them back: their scores are multiplied by it.

All of it is two products of sparse matrices, as in ``retrieval.sparse``, so nothing depends on blocks or partitions.
The last shared item comes from a product, too: with the weights 4^(n - s) the sum's leading bit is that item's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from sparkrec import files
from sparkrec.broadcast import broadcast
from sparkrec.config import SessionNeighboursConfig
from sparkrec.errors import InvariantError, UserError
from sparkrec.evaluation.session_events import flat_lists, known_items
from sparkrec.evaluation.sessions import rank_of
from sparkrec.processes import begin_task
from sparkrec.retrieval.block_search import FloatArray, IntArray
from sparkrec.retrieval.sparse import (
    Doubles,
    best,
    best_entries,
    block_entries,
    cuts,
    product_blocks,
    row_entries,
    without_seen,
)
from sparkrec.retrieval.topk import list_batch, prepared_queries, seen_positions
from sparkrec.tables import ITEM_IDX, ITEMS, SESSION_ID, START_TS, USER_IDX

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

TRAINED, MODEL_FILE = "sessions", "model.json"
LONGEST = 500  # events: 4 to this power is a double
EVENTS_AT_ONCE = 50_000  # of sessions, where each event is predicted


@dataclass(frozen=True)
class TrainedSessions:
    """The sessions that vote.

    Attributes:
        items: float64 ``[sessions, n_items]``, 1 where the session has the item; the latest session is number 0.
        users: int64 ``[sessions]``, below 0 where the session is anonymous.
    """

    items: csr_matrix
    users: IntArray

    @property
    def trained(self) -> npt.NDArray[np.bool_]:
        """Bool [n_items]: the items that some session has. Only these are ranked."""
        known: npt.NDArray[np.bool_] = np.bincount(self.items.indices, minlength=self.items.shape[1]) > 0
        return known


def trained_sessions(sessions: DataFrame, n_items: int) -> TrainedSessions:
    """Collects the sessions to the driver.

    Args:
        sessions: Columns session_id, user_idx, start_ts and items of ``tables.SESSIONS``.
        n_items: Size of the index of items.

    Raises:
        UserError: There is no session.
        InvariantError: An item is outside of the index.
    """
    import pyspark.sql.functions as F

    table = sessions.orderBy(F.desc(START_TS), F.desc(SESSION_ID)).select(ITEMS, USER_IDX).toArrow()
    if not len(table):
        raise UserError("no sessions to find neighbours among", where="sessions", fix="check prepare.sessions")
    flat, lengths = flat_lists(table.column(ITEMS).combine_chunks())
    if len(flat) and (flat.min() < 0 or flat.max() >= n_items):
        raise InvariantError(f"items of sessions are not within 0 … {n_items - 1}")
    rows = np.repeat(np.arange(len(lengths)), lengths)
    items = csr_matrix((np.ones(len(flat)), (rows, flat)), shape=(len(lengths), n_items))
    items.sum_duplicates()
    items.data[:] = 1.0
    return TrainedSessions(items, user_numbers(table.column(USER_IDX).combine_chunks()))


def save_session_neighbours(sessions: DataFrame, path: str, meta: dict[str, Any]) -> None:
    """Writes the sessions as Parquet and then ``model.json``, which makes the folder a model."""
    kept = sessions.select(SESSION_ID, USER_IDX, START_TS, ITEMS)
    kept.write.mode("overwrite").parquet(files.join(path, TRAINED))
    files.write_json(files.join(path, MODEL_FILE), meta)


def load_session_neighbours(spark: SparkSession, path: str) -> tuple[DataFrame, dict[str, Any]]:
    """What ``save_session_neighbours`` was given, for ``trained_sessions``.

    Raises:
        UserError: There is no model.
    """
    where = files.join(path, MODEL_FILE)
    if not files.exists(where):
        raise UserError("no model of session neighbours", where=path, fix="run the model's training stage first")
    return spark.read.parquet(files.join(path, TRAINED)), files.read_json(where)


def session_neighbour_lists(
    current: DataFrame,
    trained: TrainedSessions,
    config: SessionNeighboursConfig,
    *,
    key: str | Sequence[str],
    k: int,
    seen: DataFrame | None = None,
    without: IntArray | None = None,
    own_items: float = 1.0,
    block_mb: int = 64,
    partitions: int | None = None,
) -> DataFrame:
    """The best items after the last event of each current session.

    Items that no trained session has are passed over. A session that is itself among the trained ones is a neighbour
    like others, and votes for what it holds.

    Args:
        current: The key columns, ``items array<int>`` in order of time, ``user_idx int``, and optionally
            ``seen array<int>``.
        trained: The sessions that vote; they are broadcast, and take 24 bytes for each item of each session.
        config: Neighbours, sample, decay, idf.
        key: The column or columns that tell sessions apart; all are kept in the lists.
        k: Length of the lists.
        seen: ``(key columns or some of them, item_idx)``: pairs to leave out, as for ``topk.top_k``.
        without: Items that no list may hold.
        own_items: What the scores of the session's own items are multiplied by, from 0.
        block_mb: Memory of a block of products, per worker process.
        partitions: Partitions of the queries; four for each core by default.

    Returns:
        ``(key…, item_idx int, rank int, score float)``, score > 0; none for a session of unknown items alone.
    """
    keys = [key] if isinstance(key, str) else list(key)
    prepared, schema = prepared_queries(current, seen, keys, partitions, (ITEMS, USER_IDX))
    index = broadcast(current.sparkSession, Index.build(trained, config, own_items, block_mb, without))

    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        begin_task()
        for batch in batches:
            yield from _batch_lists(index.value, batch, keys, k)

    return prepared.mapInArrow(search, schema)


def next_item_ranks(
    sessions: DataFrame,
    trained: TrainedSessions,
    config: SessionNeighboursConfig,
    ties: str = "conservative",
    own_items: float = 1.0,
    block_mb: int = 64,
) -> DataFrame:
    """The rank of each next event's item among all trained items; items that no neighbour has score 0, and tie.

    Events of items that were not trained are removed first, then sessions of fewer than two events;
    ``evaluation.session_events.left_out`` counts both.

    Args:
        sessions: Columns session_id, user_idx and items of ``tables.SESSIONS``.
        trained: The sessions that vote; they are broadcast.
        config: Neighbours, sample, decay, idf.
        ties: The item's place among equal scores, see ``evaluation.sessions.rank_of``.
        own_items: As for ``session_neighbour_lists``.
        block_mb: Memory of a block of products, per worker process.

    Returns:
        session_id string, position int (of the predicted event among the session's remaining ones, from 1),
        item_idx int, rank double (from 1).
    """
    index = broadcast(sessions.sparkSession, Index.build(trained, config, own_items, block_mb))

    def ranks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        begin_task()
        for batch in batches:
            yield from _batch_ranks(index.value, batch, ties)

    schema = f"{SESSION_ID} string, position int, {ITEM_IDX} int, rank double"
    return sessions.select(SESSION_ID, USER_IDX, ITEMS).mapInArrow(ranks, schema)


# ---- inside of the Python workers ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LookedAt:
    """The events of b current sessions that count: each item of a session once, at its last occurrence.

    Attributes:
        rows: int64 ``[m]``: the session, ascending.
        items: int64 ``[m]``.
        steps: int64 ``[m]``: 1 for the last event of the session, 2 for the one before …
        lengths: int64 ``[b]``: events looked at, repeats among them.
        users: int64 ``[b]``: the sessions' users, below 0 where they are anonymous.
    """

    rows: IntArray
    items: IntArray
    steps: IntArray
    lengths: IntArray
    users: IntArray


def user_numbers(users: pa.Array) -> IntArray:
    """int64: the users, -1 where there is none."""
    numbers: IntArray = users.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers


def looked_at(flat: IntArray, begins: IntArray, ends: IntArray, users: IntArray, last_items: int) -> LookedAt:
    """The last events of sessions.

    Args:
        flat: Items of all sessions one after another.
        begins: int64 ``[b]``: the place of each session's first event.
        ends: int64 ``[b]``: the place behind its last one.
        users: int64 ``[b]``: of ``user_numbers``.
        last_items: How many are looked at.
    """
    lengths = np.minimum(ends - begins, last_items)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    steps = 1 + np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    items = flat[ends[rows] - steps].astype(np.int64)
    span = int(items.max(initial=0)) + 1
    first = np.sort(np.unique(rows * span + items, return_index=True)[1])  # the last occurrence has the smallest step
    return LookedAt(rows[first], items[first], steps[first], lengths, users)


def decayed(steps: IntArray, lengths: IntArray, decay: str) -> Doubles:
    """d(s), the weight of the event that is the s-th from the end of n.

    Args:
        steps: s, from 1.
        lengths: n.
        decay: linear | quadratic | harmonic | same.
    """
    left = (lengths - steps + 1) / lengths
    weights = {"linear": left, "quadratic": left**2, "harmonic": 1.0 / steps, "same": np.ones(len(steps))}
    if decay not in weights:
        raise InvariantError(f"no decay {decay}")
    return weights[decay]


@dataclass(frozen=True)
class Index:
    """The trained sessions, as they travel to the workers."""

    sessions_of: csr_matrix  # float64 [n_items, sessions], ones
    votes: csr_matrix  # float64 [sessions, n_items], idf ** power
    sizes: IntArray  # [sessions], items of each
    users: IntArray  # [sessions]
    trained: npt.NDArray[np.bool_]  # [n_items]
    config: SessionNeighboursConfig
    own_items: float  # what the scores of the session's own items are multiplied by
    at_once: int  # entries of a block's product

    @staticmethod
    def build(
        trained: TrainedSessions,
        config: SessionNeighboursConfig,
        own_items: float = 1.0,
        block_mb: int = 64,
        without: IntArray | None = None,
    ) -> Index:
        """Counts and turns the sessions; items of ``without`` get no votes."""
        if config.last_items > LONGEST:
            raise UserError(f"at most {LONGEST} items of a session can be looked at",
                            where=f"session_neighbours.last_items={config.last_items}")  # fmt: skip
        n_sessions, n_items = trained.items.shape
        counts = np.bincount(trained.items.indices, minlength=n_items)
        idf = np.log(n_sessions / np.maximum(counts, 1)) ** config.idf
        if without is not None:
            idf[without[without < n_items]] = 0.0
        data = idf[trained.items.indices]
        votes = csr_matrix((data, trained.items.indices, trained.items.indptr), trained.items.shape)
        of_items, at_once = trained.items.T.tocsr(), block_entries(block_mb)
        sizes = np.diff(votes.indptr)
        return Index(of_items, votes, sizes, trained.users, counts > 0, config, own_items, at_once)

    def scores(self, asked: LookedAt) -> Iterator[tuple[slice, csr_matrix]]:
        """Runs of sessions, and the scores of the items for them: float64 ``[run, n_items]``."""
        n = len(asked.lengths)
        shape, lengths = (n, self.votes.shape[1]), asked.lengths[asked.rows]
        weights = decayed(asked.steps, lengths, self.config.decay)
        weights /= np.sqrt(np.bincount(asked.rows, weights**2, n))[asked.rows]
        similar = row_entries(asked.rows, asked.items, weights, shape)
        latest = row_entries(asked.rows, asked.items, 4.0 ** (lengths - asked.steps), shape)
        for block in product_blocks(similar, self.sessions_of, self.at_once):
            near = self.neighbours(similar[block], latest[block], asked.lengths[block], asked.users[block])
            for run in product_blocks(near, self.votes, self.at_once):
                scores = near[run] @ self.votes
                if self.own_items != 1.0:
                    own = similar[block][run] > 0
                    scores = scores - scores.multiply(own) * (1.0 - self.own_items)
                yield slice(block.start + run.start, block.start + run.stop), scores

    def neighbours(self, similar: csr_matrix, latest: csr_matrix, lengths: IntArray, users: IntArray) -> csr_matrix:
        """The votes' weights of the nearest sessions, float64 ``[b, sessions]``: sim(N) · d(s of the last shared).

        Args:
            similar: float64 ``[b, n_items]``: d(s) / |d|.
            latest: float64 ``[b, n_items]``: 4^(n - s), of the same entries.
            lengths: int64 ``[b]``: n.
            users: int64 ``[b]``.
        """
        product, shared = similar @ self.sessions_of, latest @ self.sessions_of
        if not np.array_equal(product.indices, shared.indices):
            raise InvariantError("two products of matrices with the same entries have them in different places")
        cosine = product.data / np.sqrt(self.sizes[product.indices])
        cosine[~_newest(product, self.config.sample)] = 0.0
        if self.config.same_user != 1.0:
            asks = np.repeat(users, np.diff(product.indptr))
            cosine[(asks >= 0) & (asks == self.users[product.indices])] *= self.config.same_user
        ranked = csr_matrix((cosine, product.indices, product.indptr), product.shape)
        rows, entries = best_entries(ranked, self.config.neighbours)
        exponent = (np.frexp(shared.data[entries])[1] - 1) // 2  # 4^e <= sum < 2 · 4^e
        decay = decayed(lengths[rows] - exponent, lengths[rows], self.config.decay)
        return row_entries(rows, product.indices[entries], cosine[entries] * decay, product.shape)


def _newest(product: csr_matrix, sample: int) -> npt.NDArray[np.bool_]:
    """Which entries are among the ``sample`` smallest columns of their row; all where ``sample`` is 0."""
    newest = np.ones(product.nnz, dtype=np.bool_)
    ends = product.indptr
    for row in np.flatnonzero(np.diff(ends) > sample) if sample else ():
        columns = product.indices[ends[row] : ends[row + 1]]
        newest[ends[row] : ends[row + 1]] = columns <= np.partition(columns, sample - 1)[sample - 1]
    return newest


def _batch_lists(index: Index, batch: pa.RecordBatch, keys: list[str], k: int) -> Iterator[pa.RecordBatch]:
    """``(key…, item_idx, rank, score)`` for sessions."""
    flat, lengths = known_items(*flat_lists(batch.column(ITEMS)), index.trained)
    rows, items = seen_positions(batch, np.arange(len(index.trained)))
    ends, users = np.cumsum(lengths), user_numbers(batch.column(USER_IDX))
    for block, scores in index.scores(looked_at(flat, ends - lengths, ends, users, index.config.last_items)):
        first, last = np.searchsorted(rows, [block.start, block.stop])
        allowed = without_seen(scores, rows[first:last] - block.start, items[first:last])
        yield list_batch(batch, keys, block.start, *best(allowed, k))


def _batch_ranks(index: Index, batch: pa.RecordBatch, ties: str) -> Iterator[pa.RecordBatch]:
    """``(session_id, position, item_idx, rank)`` for sessions, some of them at once."""
    import pyarrow as pa

    flat, lengths = known_items(*flat_lists(batch.column(ITEMS)), index.trained)
    ends, users = np.cumsum(lengths), user_numbers(batch.column(USER_IDX))
    for part in cuts(lengths, EVENTS_AT_ONCE):
        session = np.repeat(np.arange(part.start, part.stop), lengths[part])
        event = np.arange(ends[part.start] - lengths[part.start], ends[part.stop - 1])
        begin = (ends - lengths)[session]
        target = event > begin  # all but the first of each session
        session, event, begin = session[target], event[target], begin[target]
        found = np.zeros(len(event))
        asked = looked_at(flat, begin, event, users[session], index.config.last_items)
        for block, scores in index.scores(asked):
            found[block] = ranks_of(scores, flat[event[block]], int(index.trained.sum()), ties)
        columns = [batch.column(SESSION_ID).take(pa.array(session))]
        columns += [pa.array(c.astype(np.int32)) for c in (event - begin, flat[event])]
        yield pa.RecordBatch.from_arrays([*columns, pa.array(found)], names=[SESSION_ID, "position", ITEM_IDX, "rank"])


def ranks_of(scores: csr_matrix, items: IntArray, n_ranked: int, ties: str) -> FloatArray:
    """The ranks of items by their scores among all that are ranked.

    Args:
        scores: float64 ``[b, n_items]``, none below 0, of ranked items alone; what has no entry scores 0.
        items: int64 ``[b]``.
        n_ranked: Number of items that are ranked.
        ties: See ``evaluation.sessions.rank_of``.
    """
    n = len(items)
    rows, values = np.repeat(np.arange(n), np.diff(scores.indptr)), scores.data.astype(np.float32)
    own = np.zeros(n, dtype=np.float32)
    mine = scores.indices == items[rows]
    own[rows[mine]] = values[mine]
    more = np.bincount(rows[values > own[rows]], minlength=n)
    reached = np.bincount(rows[values >= own[rows]], minlength=n)
    ranks: FloatArray = rank_of(np.where(own > 0, reached, n_ranked), more, ties)
    return ranks
