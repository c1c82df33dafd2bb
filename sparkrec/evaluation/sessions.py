"""Metrics of next-item prediction in sessions, and popularity under the same protocol.

For each next event the model ranks all items; ``rank`` is the place of the true one, among equal scores the last one
unless asked otherwise (``rank_of``). Recall@k is the share of events with rank ≤ k, MRR@k the mean of 1 / rank, 0
beyond k (Hidasi et al. 2016, "Session-based recommendations with recurrent neural networks", sec. 4).

Where lists hold what is new to the user alone, only such events are judged, among the items that are new by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from sparkrec.errors import InvariantError
from sparkrec.evaluation.session_events import NEW_RANK, Taken, flat_lists, known_items
from sparkrec.evaluation.values import MetricValue
from sparkrec.processes import begin_task
from sparkrec.retrieval.sparse import cuts
from sparkrec.retrieval.topk import SEEN
from sparkrec.settings.sections import PER_SESSION
from sparkrec.spark.broadcast import broadcast
from sparkrec.warehouse.tables import ITEMS, RANK, SESSION_ID

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame


K = TypeVar("K")
Doubles = npt.NDArray[np.float64]
_MODEL = "model"
_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")  # at least as high; higher
NEXT_ITEM_METRICS = ("recall", "mrr", "ndcg")
_TAKEN_AT_ONCE = 2_000_000  # pairs of an event and an item that had been taken before it


def session_metrics(ranks: DataFrame, ks: Sequence[int]) -> list[MetricValue]:
    """Recall@k, MRR@k and NDCG@k of one model; see ``all_session_metrics``."""
    return all_session_metrics({_MODEL: ranks}, ks)[_MODEL]


def all_session_metrics(ranks: Mapping[K, DataFrame], ks: Sequence[int]) -> dict[K, list[MetricValue]]:
    """Recall@k, MRR@k and NDCG@k of several models, by event and by session, in one pass over all their ranks.

    With one relevant item the ideal gain is 1, so NDCG@k is the mean of 1 / log2(1 + rank), 0 beyond k. By session
    (``recall_per_session``, …) it is the mean over sessions of their events' mean: one long session weighs as a short
    one.

    Args:
        ranks: Name, or whatever tells them apart → ``(rank)``, a number for each predicted event, from 1, and
            optionally ``session_id``: without it there is nothing by session.
        ks: Cut-offs.

    Raises:
        InvariantError: There is no event, or a rank is null or below 1.
    """
    import pyspark.sql.functions as F

    by_session = all(SESSION_ID in one.columns for one in ranks.values())
    group = [_MODEL, SESSION_ID] if by_session else [_MODEL]
    parts = [
        one.select(F.lit(n).alias(_MODEL), *group[1:], F.col(RANK).cast("double").alias(RANK))
        for n, one in enumerate(ranks.values())
    ]
    names = [f"{metric}_{k}" for k in ks for metric in NEXT_ITEM_METRICS]
    sums = [F.sum(gain(metric, k)).alias(f"{metric}_{k}") for k in ks for metric in NEXT_ITEM_METRICS]
    wrong = F.count_if(F.col(RANK).isNull() | (F.col(RANK) < 1)).alias("wrong")
    summed = reduce(lambda some, more: some.unionByName(more), parts).groupBy(*group)
    sessions = summed.agg(F.count("*").alias("n"), wrong, *sums)
    means = [(F.sum(name) / F.sum("n")).alias(name) for name in names]
    means += [F.avg(F.col(name) / F.col("n")).alias(f"per_session {name}") for name in names]
    counts = [F.sum("n").alias("n"), F.sum("wrong").alias("wrong"), F.count("*").alias("sessions")]
    rows = sessions.groupBy(_MODEL).agg(*counts, *means).collect()
    keys = list(ranks)
    found = {keys[row[_MODEL]]: row for row in rows}
    if set(found) != set(ranks):
        raise InvariantError("no event to predict after the cutoff: nothing to judge by")
    for row in rows:
        if row["wrong"]:
            raise InvariantError(f"{row['wrong']} of {row['n']} ranks are null or below 1")
    values: dict[K, list[MetricValue]] = {}
    for key, row in found.items():
        by = [("", "", row["n"])] + ([(PER_SESSION, "per_session ", row["sessions"])] if by_session else [])
        values[key] = [
            MetricValue(f"{metric}{ending}", k, row[f"{column}{metric}_{k}"], n)
            for ending, column, n in by
            for k in ks
            for metric in NEXT_ITEM_METRICS
        ]
    return {key: values[key] for key in ranks}


def gain(metric: str, k: int) -> Column:
    """What an event adds to a metric, by its ``rank``: ``recall``, ``mrr`` or ``ndcg``."""
    import pyspark.sql.functions as F

    full = {
        "recall": F.lit(1.0),
        "mrr": F.try_divide(F.lit(1.0), F.col(RANK)),
        "ndcg": F.try_divide(F.lit(1.0), F.log2(1.0 + F.col(RANK))),
    }
    return F.when(F.col(RANK) <= k, full[metric]).otherwise(0.0)


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
        sessions: Test sessions ``(items array<int>)``; each item but the first is predicted. Optionally ``seen
            array<int>``: what the user had taken before.
        scores: float64 ``[n_items]``.
        among: Bool ``[n_items]``: the catalogue, the items that are ranked.
        ties: See ``rank_of``.

    Returns:
        ``(session_id string, rank double)``, and with ``seen`` ``new_rank double``: among what neither ``seen`` nor the
        session holds by then, null where the item is none of these. An item outside of the catalogue stands after all
        of it.
    """
    given = [name for name in (SESSION_ID, ITEMS, SEEN) if name in sessions.columns]
    sent = broadcast(sessions.sparkSession, (scores, among))

    def ranks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        begin_task()
        for batch in batches:
            yield _popularity_ranks(batch, *sent.value, ties)

    named = f"{SESSION_ID} string, " if SESSION_ID in given else ""
    schema = f"{named}{RANK} double" + (f", {NEW_RANK} double" if SEEN in given else "")
    return sessions.select(*given).mapInArrow(ranks, schema)


def _popularity_ranks(
    batch: pa.RecordBatch, scores: Doubles, among: npt.NDArray[np.bool_], ties: str
) -> pa.RecordBatch:
    """See ``popularity_ranks``."""
    import pyarrow as pa

    flat, lengths = flat_lists(batch.column(ITEMS))
    session = np.repeat(np.arange(len(lengths)), lengths)
    begin = np.repeat(np.cumsum(lengths) - lengths, lengths)
    event = np.flatnonzero(np.arange(len(flat)) > begin)
    session, begin, items = session[event], begin[event], flat[event]
    ranked = known_items(items, np.ones(len(items), dtype=np.int64), among)[1] > 0
    own = np.where(ranked, scores[np.where(ranked, items, 0)], -np.inf)
    ordered = np.sort(scores[among])
    counts = [len(ordered) - np.searchsorted(ordered, own, side) for side in _SIDES]

    def places(at_least: Any, more: Any) -> Doubles:
        found = rank_of(at_least, more, ties)
        return np.where(ranked, found, more + 1.0)

    columns, names = [pa.array(places(*counts))], [RANK]
    if SESSION_ID in batch.schema.names:
        columns, names = [batch.column(SESSION_ID).take(pa.array(session)), *columns], [SESSION_ID, *names]
    taken = Taken.of(batch, among)
    if taken is not None:
        new = taken.new(flat, lengths)[event]
        for part in cuts(taken.lengths[session] + event - begin, _TAKEN_AT_ONCE):
            rows, theirs = taken.before(flat, session[part], begin[part], event[part])
            listed = among[theirs.clip(max=len(among) - 1)] & (theirs < len(among))
            rows, before = rows[listed], scores[theirs[listed]]
            for count, reached in zip(counts, (before >= own[part][rows], before > own[part][rows]), strict=True):
                count[part] -= np.bincount(rows[reached], minlength=part.stop - part.start)
        columns.append(pa.array(np.where(new, places(*counts), np.nan), from_pandas=True))
        names.append(NEW_RANK)
    return pa.RecordBatch.from_arrays(columns, names=names)
