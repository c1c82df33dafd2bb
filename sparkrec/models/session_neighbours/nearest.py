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
to the smaller item. A session is no neighbour of itself. All neighbours have items of the session, so that these come
first where they may be shown; where a session seldom returns to an item, ``own_items`` below 1 takes them back: their
scores are multiplied by it.

How, is in ``models.session_neighbours.votes``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from sparkrec.errors import InvariantError, NothingToTrain, UserError
from sparkrec.evaluation.session_events import NEW_RANK, Taken, flat_lists, known_items
from sparkrec.evaluation.sessions import rank_of
from sparkrec.models.session_neighbours.settings import SessionNeighboursConfig
from sparkrec.models.session_neighbours.votes import Index, TrainedSessions, looked_at, user_numbers
from sparkrec.processes import begin_task
from sparkrec.retrieval.block_search import FloatArray, IntArray
from sparkrec.retrieval.sparse import best, cuts, without_seen
from sparkrec.retrieval.topk import SEEN, list_batch, prepared_queries, seen_positions
from sparkrec.spark.broadcast import broadcast
from sparkrec.spark.collected import collected
from sparkrec.storage import files
from sparkrec.warehouse.tables import ITEM_IDX, ITEMS, SESSION_ID, START_TS, USER_IDX

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

TRAINED, MODEL_FILE = "sessions", "model.json"
EVENTS_AT_ONCE = 50_000  # of sessions, where each event is predicted
NUMBER = "session_number"  # a session's id as 8 bytes


def trained_sessions(sessions: DataFrame, n_items: int) -> TrainedSessions:
    """Collects the sessions to the driver.

    Args:
        sessions: Columns session_id, user_idx, start_ts and items of ``tables.SESSIONS``.
        n_items: Size of the index of items.

    Raises:
        UserError: There is no session, or there are more than the driver takes.
        InvariantError: An item is outside of the index.
    """
    import pyspark.sql.functions as F

    newest = sessions.orderBy(F.desc(START_TS), F.desc(SESSION_ID))
    row_bytes = 4 * F.size(ITEMS) + 20
    fewer = "keep less of the log (ingest), or shorter sessions (prepare.sessions)"
    table = collected(numbered(newest).select(ITEMS, USER_IDX, NUMBER), row_bytes, "sessions that vote", fewer)
    if not len(table):
        raise NothingToTrain("no sessions to find neighbours among", where="sessions", fix="check prepare.sessions")
    flat, lengths = flat_lists(table.column(ITEMS).combine_chunks())
    if len(flat) and (flat.min() < 0 or flat.max() >= n_items):
        raise InvariantError(f"items of sessions are not within 0 … {n_items - 1}")
    rows = np.repeat(np.arange(len(lengths)), lengths)
    items = csr_matrix((np.ones(len(flat)), (rows, flat)), shape=(len(lengths), n_items))
    items.sum_duplicates()
    items.data[:] = 1.0
    numbers = table.column(NUMBER).to_numpy()
    return TrainedSessions(items, user_numbers(table.column(USER_IDX).combine_chunks()), numbers)


def numbered(sessions: DataFrame) -> DataFrame:
    """The sessions with ``session_number bigint``, a hash of the id: that two share one is next to impossible."""
    import pyspark.sql.functions as F

    return sessions.withColumn(NUMBER, F.xxhash64(SESSION_ID))


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
    schema = f"{SESSION_ID} string, {USER_IDX} int, {START_TS} timestamp, {ITEMS} array<int>"
    return spark.read.schema(schema).parquet(files.join(path, TRAINED)), files.read_json(where)


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

    Items that no trained session has are passed over. A session that is itself among the trained ones, as that of a
    night's lists is, does not vote: no session that is judged is among them.

    Args:
        current: The key columns, ``session_id``, ``items array<int>`` in order of time, ``user_idx int``, and
            optionally ``seen array<int>``.
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
    prepared, schema = prepared_queries(numbered(current), seen, keys, partitions, (ITEMS, USER_IDX, NUMBER))
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
        sessions: Columns session_id, user_idx and items of ``tables.SESSIONS``; optionally ``seen array<int>``, see
            ``scorer.SessionModel``.
        trained: The sessions that vote; they are broadcast.
        config: Neighbours, sample, decay, idf.
        ties: The item's place among equal scores, see ``evaluation.sessions.rank_of``.
        own_items: As for ``session_neighbour_lists``.
        block_mb: Memory of a block of products, per worker process.

    Returns:
        session_id string, position int (of the predicted event among the session's remaining ones, from 1),
        item_idx int, rank double (from 1), and with ``seen`` new_rank double.
    """
    index = broadcast(sessions.sparkSession, Index.build(trained, config, own_items, block_mb))

    def ranks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        begin_task()
        for batch in batches:
            yield from _batch_ranks(index.value, batch, ties)

    schema, columns = f"{SESSION_ID} string, position int, {ITEM_IDX} int, rank double", [SESSION_ID, USER_IDX, ITEMS]
    if SEEN in sessions.columns:
        schema, columns = f"{schema}, {NEW_RANK} double", [*columns, SEEN]
    return sessions.select(*columns).mapInArrow(ranks, schema)


# ---- inside of the Python workers ------------------------------------------------------------------------------------


def _batch_lists(index: Index, batch: pa.RecordBatch, keys: list[str], k: int) -> Iterator[pa.RecordBatch]:
    """``(key…, item_idx, rank, score)`` for sessions."""
    itself = index.places(batch.column(NUMBER).to_numpy())
    flat, lengths = known_items(*flat_lists(batch.column(ITEMS)), index.trained)
    row = np.repeat(np.arange(len(lengths)), lengths)
    kept = index.others_have(flat, itself[row])  # what it alone has nobody knows where it is not among the trained
    flat, lengths = flat[kept], np.bincount(row[kept], minlength=len(lengths))
    rows, items = seen_positions(batch, np.arange(len(index.trained)))
    ends, users = np.cumsum(lengths), user_numbers(batch.column(USER_IDX))
    for block, scores in index.scores(looked_at(flat, ends - lengths, ends, users, index.config.last_items, itself)):
        first, last = np.searchsorted(rows, [block.start, block.stop])
        allowed = without_seen(scores, rows[first:last] - block.start, items[first:last])
        yield list_batch(batch, keys, block.start, *best(allowed, k))


def _batch_ranks(index: Index, batch: pa.RecordBatch, ties: str) -> Iterator[pa.RecordBatch]:
    """``(session_id, position, item_idx, rank[, new_rank])`` for sessions, some of them at once."""
    import pyarrow as pa

    flat, lengths = known_items(*flat_lists(batch.column(ITEMS)), index.trained)
    taken, n_ranked = Taken.of(batch, index.trained), int(index.trained.sum())
    new = taken.new(flat, lengths) if taken is not None else None
    ends, users = np.cumsum(lengths), user_numbers(batch.column(USER_IDX))
    for part in cuts(lengths, EVENTS_AT_ONCE):
        session = np.repeat(np.arange(part.start, part.stop), lengths[part])
        event = np.arange(ends[part.start] - lengths[part.start], ends[part.stop - 1])
        begin = (ends - lengths)[session]
        target = event > begin  # all but the first of each session
        session, event, begin = session[target], event[target], begin[target]
        found, of_new = np.zeros(len(event)), np.full(len(event), np.nan)
        asked = looked_at(flat, begin, event, users[session], index.config.last_items)
        for block, scores in index.scores(asked):
            found[block] = ranks_of(scores, flat[event[block]], n_ranked, ties)
            if taken is not None and new is not None:
                rows, items = taken.before(flat, session[block], begin[block], event[block])
                left = n_ranked - np.bincount(rows, minlength=scores.shape[0])
                places = ranks_of(without_seen(scores, rows, items), flat[event[block]], left, ties)
                of_new[block] = np.where(new[event[block]], places, np.nan)
        columns = [batch.column(SESSION_ID).take(pa.array(session))]
        columns += [pa.array(c.astype(np.int32)) for c in (event - begin, flat[event])]
        columns += [pa.array(found)] if new is None else [pa.array(found), pa.array(of_new, from_pandas=True)]
        names = [SESSION_ID, "position", ITEM_IDX, "rank", NEW_RANK]
        yield pa.RecordBatch.from_arrays(columns, names=names[: len(columns)])


def ranks_of(scores: csr_matrix, items: IntArray, n_ranked: int | IntArray, ties: str) -> FloatArray:
    """The ranks of items by their scores among all that are ranked.

    Args:
        scores: float64 ``[b, n_items]``, none below 0, of ranked items alone; what has no entry scores 0, what is
            ``-inf`` is not ranked.
        items: int64 ``[b]``.
        n_ranked: Number of items that are ranked; int64 ``[b]`` where that differs.
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
