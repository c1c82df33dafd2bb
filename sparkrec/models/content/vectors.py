"""Content-based lists: the items whose vectors are like those of what the user took.

A user's profile is the mean of the vectors of the items taken, weighted by the events and by their age (Pazzani,
Billsus, "Content-Based Recommendation Systems", The Adaptive Web 2007, section 10.3; Rocchio's rule without negative
examples):

    p_u = Σ_i w_ui x_i / Σ_i w_ui,   w_ui = Σ over events e of u with i of weight(type of e) · 2^(-age of e / half-life)

over the items i that have a vector. x_i are its vectors of the given names one after another, each of length 1, zeros
for a name that it lacks; so <p_u, x_i> is the weighted mean of the sums of the cosines, name by name. An item needs a
vector, not a buyer, to be on a list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from sparkrec.errors import InvariantError, UserError
from sparkrec.models.neighbours.nearest import profiles as taken_items
from sparkrec.prepare.counts import Counts, observed
from sparkrec.processes import begin_task
from sparkrec.retrieval.block_search import FloatArray, ItemMatrix
from sparkrec.retrieval.sparse import Doubles, cuts, query_entries
from sparkrec.spark.broadcast import broadcast
from sparkrec.spark.collected import collected
from sparkrec.warehouse.tables import ITEM_IDX, NAME, USER_IDX, VECTOR

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

ENTRIES_AT_ONCE = 1 << 16  # pairs of a user and an item


def content_matrix(item_vectors: DataFrame, names: Sequence[str], n_items: int) -> ItemMatrix:
    """The items' vectors, for ``topk.top_k``; an item without any is not eligible.

    Args:
        item_vectors: In the columns of ``tables.ITEM_VECTORS``.
        names: Which of them, in the order in which they stand; none: all there are, by name.
        n_items: Size of the index of items.

    Raises:
        UserError: There are no vectors of a name, or none at all, or more than the driver takes.
        InvariantError: The vectors of a name differ in width, an item has two of them or is outside of the index.
    """
    import pyarrow.compute as pc
    import pyspark.sql.functions as F

    row_bytes = 4 * F.size(VECTOR) + 32
    table = collected(item_vectors.select(ITEM_IDX, NAME, VECTOR), row_bytes, "vectors of items", "name fewer vectors")
    there = sorted(pc.unique(table.column(NAME)).to_pylist())
    lacking = [name for name in names if name not in there]
    if lacking or not there:
        known = f"choose among {', '.join(there)}, or " if there else ""
        raise UserError("no item vectors of this name", where=f"content.vectors={list(names)}",
                        fix=f"{known}see prepare.text and prepare.image")  # fmt: skip
    parts = [_of_name(table.filter(pc.equal(table.column(NAME), name)), name, n_items) for name in names or there]
    vectors = np.concatenate(parts, axis=1)
    return ItemMatrix(vectors, None, vectors.any(axis=1))


def save_content(items: ItemMatrix, path: str, meta: dict[str, Any]) -> None:
    """Writes the items' vectors as safetensors, and then ``model.json``."""
    import torch

    from sparkrec.ranks.checkpoint import save_model

    eligible = np.zeros(len(items.vectors), dtype=np.bool_)
    eligible[items.positions()] = True
    save_model(path, {"vectors": torch.from_numpy(items.vectors), "eligible": torch.from_numpy(eligible)}, meta)


def load_content(path: str) -> ItemMatrix:
    """What ``save_content`` was given.

    Raises:
        UserError: There is no such model, or it is damaged.
    """
    from sparkrec.ranks.checkpoint import load_model

    weights, _ = load_model(path)
    return ItemMatrix(weights["vectors"].numpy(), None, weights["eligible"].numpy())


def profiles(
    interactions: DataFrame,
    items: ItemMatrix,
    half_life_days: float | None,
    event_weights: Mapping[str, float],
    as_of: datetime,
    counts: Counts | None = None,
) -> DataFrame:
    """The users' profiles as of a time: queries for the ``content_matrix``.

    Args:
        interactions: In the columns of ``tables.INTERACTIONS``; events of nobody do not count.
        items: Of ``content_matrix``; it is broadcast.
        half_life_days: Days in which the weight of an event halves; None: never.
        event_weights: Weight by event type; a type that is absent weighs 0.
        as_of: UTC; events from then on do not count.
        counts: Counts ``users`` (who took something) and ``users_without_vector``: those who took nothing that has
            a vector, and who have no row.

    Returns:
        ``(user_idx int, vector array<float>)``.
    """
    import pyspark.sql.functions as F

    taken = taken_items(interactions, event_weights, as_of, half_life_days)
    shared = broadcast(interactions.sparkSession, items)
    schema = f"{USER_IDX} int, {VECTOR} array<float>"
    users = taken.mapInArrow(_averager(shared), schema)
    lacking = F.col(VECTOR).isNull()
    users = observed(users, counts, users=F.count(F.lit(1)), users_without_vector=F.count_if(lacking))
    return users.where(~lacking)


def _averager(shared: Any) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """What a worker makes of the users' items; ``shared`` is a broadcast ``ItemMatrix``."""

    def average(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        begin_task()
        vectors, known = shared.value.vectors, shared.value.positions()
        has = np.zeros(len(vectors))
        has[known] = 1.0
        for batch in batches:
            entries = query_entries(batch, len(vectors))[0]
            for run in cuts(np.diff(entries.indptr), ENTRIES_AT_ONCE):
                means, total = weighted_means(entries[run], vectors, has)
                ends = pa.array(np.arange(len(means) + 1, dtype=np.int32) * means.shape[1])
                lists = pa.ListArray.from_arrays(ends, pa.array(means.ravel()), mask=pa.array(total == 0))
                users = batch.column(USER_IDX).slice(run.start, len(means))
                yield pa.RecordBatch.from_arrays([users, lists], names=[USER_IDX, VECTOR])

    return average


def weighted_means(entries: csr_matrix, vectors: FloatArray, has: Doubles) -> tuple[FloatArray, Doubles]:
    """Means of vectors, in double precision and in order of the entries.

    Args:
        entries: float64 ``[b, n]``: the weights.
        vectors: float32 ``[n, d]``.
        has: float64 ``[n]``: 1 where there is a vector, 0 elsewhere.

    Returns:
        float32 ``[b, d]``, and the sums of the weights that counted, float64 ``[b]``.
    """
    used, places = np.unique(entries.indices, return_inverse=True)
    weights = csr_matrix((entries.data, places, entries.indptr), shape=(entries.shape[0], len(used)))
    total = weights @ has[used]
    sums = weights @ vectors[used].astype(np.float64)
    return (sums / np.where(total > 0, total, 1.0)[:, None]).astype(np.float32), total


def _of_name(table: pa.Table, name: str, n_items: int) -> FloatArray:
    """The vectors of one name with length 1, float32 ``[n_items, width]``; zeros for an item without one."""
    items, lists = table.column(ITEM_IDX).to_numpy(), table.column(VECTOR).combine_chunks()
    widths = np.diff(lists.offsets.to_numpy())
    if widths.min() != widths.max() or lists.null_count:
        raise InvariantError(f"vectors {name} have {widths.min()} to {widths.max()} elements")
    if len(np.unique(items)) < len(items) or items.min() < 0 or items.max() >= n_items:
        raise InvariantError(f"vectors {name} are not one for each item of {n_items}")
    rows = lists.flatten().to_numpy().reshape(len(items), -1).astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    vectors = np.zeros((n_items, rows.shape[1]), dtype=np.float32)
    vectors[items] = rows / np.where(lengths > 0, lengths, 1.0)
    return vectors
