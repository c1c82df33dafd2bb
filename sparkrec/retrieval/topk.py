"""Top-K by inner product: one exact engine for every factor model, on Spark.

``score(query, item) = <query, item> + bias(item)``. The item matrix is broadcast once; queries are streamed
through ``mapInArrow``, block by block, into :mod:`sparkrec.retrieval.block_search`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkrec.errors import InvariantError
from sparkrec.processes import begin_task
from sparkrec.retrieval.block_search import FloatArray, IntArray, ItemIndex, ItemMatrix, search_block
from sparkrec.spark.broadcast import broadcast
from sparkrec.spark.collected import collected
from sparkrec.warehouse.tables import IDX, ITEM_IDX, RANK, SCORE

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, Observation
    from pyspark.sql.types import StructType

VECTOR, SEEN = "vector", "seen"


PARTITIONS_PER_CORE = 4


PASS_MB = 1024  # of item vectors that a worker holds


def item_matrix(factors: DataFrame, n_items: int) -> ItemMatrix:
    """Collects item vectors to the driver; an item without one is not eligible.

    Args:
        factors: ``(idx int, vector array<float>)``, each ``idx`` once.
        n_items: Size of the catalogue: ``idx`` is below it.

    Raises:
        UserError: They are more than the driver takes.
        InvariantError: A number is there twice or outside of the catalogue.
    """
    import pyspark.sql.functions as F

    row_bytes = 4 * F.size(VECTOR) + 9
    table = collected(factors.select(IDX, VECTOR), row_bytes, "vectors", "take fewer dimensions")
    idx = table.column(IDX).to_numpy()
    if len(idx) and (idx.min() < 0 or idx.max() >= n_items or len(np.unique(idx)) < len(idx)):
        raise InvariantError(f"item numbers are not distinct within 0 … {n_items - 1}")
    rows = _vectors(table.column(VECTOR).combine_chunks(), None)
    vectors = np.zeros((n_items, rows.shape[1]), dtype=np.float32)
    vectors[idx] = rows
    eligible = np.zeros(n_items, dtype=np.bool_)
    eligible[idx] = True
    return ItemMatrix(vectors, None, eligible)


def top_k(
    queries: DataFrame,
    items: ItemMatrix,
    *,
    key: str | Sequence[str],
    k: int,
    seen: DataFrame | None = None,
    block_mb: int = 64,
    pass_mb: int = PASS_MB,
    partitions: int | None = None,
    observation: Observation | None = None,
) -> DataFrame:
    """The best ``k`` items of each query, exactly, by ``(-score, item_idx)``.

    A score that is not finite fails the job with an ``InvariantError`` from the worker. A query with fewer than
    ``k`` items left gets fewer rows, one with none gets no row: pass ``observation`` to have them counted.

    Args:
        queries: The key columns, ``vector array<float>`` of the items' dimension, and optionally
            ``seen array<int>``: the items to leave out.
        items: What is searched; it is broadcast.
        key: The column or columns that identify a query; all are kept in the lists.
        k: Length of the lists.
        seen: ``(key columns or some of them, item_idx)``: pairs to leave out. Null keys and items outside of the
            matrix are ignored.
        block_mb: Memory of a block of scores, per worker process.
        pass_mb: Memory of the item vectors that a worker process holds. Where there are more, the items are searched
            in passes, and the best of all passes are kept: the lists are the same.
        partitions: Partitions of the queries; four for each core by default.
        observation: After an action on the lists holds ``rows``, ``lists`` (queries with a row) and ``full_lists``.

    Returns:
        ``(key…, item_idx int, rank int, score float)``, ranks from 1.
    """
    keys = [key] if isinstance(key, str) else list(key)
    prepared, schema = prepared_queries(queries, seen, keys, partitions)
    indexes = [
        broadcast(queries.sparkSession, ItemIndex.build(part, k, block_mb)) for part in in_passes(items, pass_mb)
    ]
    passes = [prepared.mapInArrow(_searcher(index, keys), schema) for index in indexes]
    return observed(merged(passes, keys, k), k, observation)


def merged(passes: Sequence[DataFrame], keys: Sequence[str], k: int) -> DataFrame:
    """The best ``k`` rows of each query among the lists of all passes, by ``(-score, item_idx)``."""
    import pyspark.sql.functions as F
    from pyspark.sql import DataFrame, Window

    lists = reduce(DataFrame.union, passes)
    if len(passes) == 1:
        return lists
    best = Window.partitionBy(*keys).orderBy(F.desc(SCORE), ITEM_IDX)
    return lists.withColumn(RANK, F.row_number().over(best)).where(F.col(RANK) <= k)


def observed(lists: DataFrame, k: int, observation: Observation | None) -> DataFrame:
    """The lists, with ``rows``, ``lists`` and ``full_lists`` observed where somebody counts."""
    import pyspark.sql.functions as F

    if observation is None:
        return lists
    full = F.count_if(F.col(RANK) == k)
    return lists.observe(observation, F.count("*").alias("rows"), F.count_if(F.col(RANK) == 1).alias("lists"),
                         full.alias("full_lists"))  # fmt: skip


def in_passes(items: ItemMatrix, pass_mb: int) -> list[ItemMatrix]:
    """The items cut into parts whose eligible vectors take ``pass_mb`` each; at least one part."""
    positions, width = items.positions(), items.vectors.shape[1] + (items.bias is not None)
    at_once = max(1, pass_mb * 2**20 // (4 * max(1, width)))
    if len(positions) <= at_once:
        return [items]
    parts = []
    for low in range(0, len(positions), at_once):
        eligible = np.zeros(len(items.vectors), dtype=np.bool_)
        eligible[positions[low : low + at_once]] = True
        parts.append(ItemMatrix(items.vectors, items.bias, eligible))
    return parts


def prepared_queries(
    queries: DataFrame,
    seen: DataFrame | None,
    keys: list[str],
    partitions: int | None = None,
    columns: Sequence[str] = (VECTOR,),
) -> tuple[DataFrame, StructType]:
    """What a search walks, ``(key…, columns…, seen array<int>)``, and the schema of the lists that it makes.

    Arguments as for ``top_k``; ``columns`` are what a query is made of.
    """
    from pyspark.sql.types import FloatType, IntegerType, StructType

    parts = partitions or PARTITIONS_PER_CORE * queries.sparkSession.sparkContext.defaultParallelism
    # The same rows in the same order make the same blocks, so that reruns agree to the last bit.
    prepared = _with_seen(queries, seen, keys, parts).select(*keys, *columns, SEEN).sortWithinPartitions(*keys)
    schema = StructType([queries.schema[name] for name in keys])
    return prepared, schema.add(ITEM_IDX, IntegerType()).add(RANK, IntegerType()).add(SCORE, FloatType())


def _with_seen(queries: DataFrame, seen: DataFrame | None, keys: list[str], parts: int) -> DataFrame:
    """Queries in ``parts`` partitions by key, with the items that each has seen as an array."""
    import pyspark.sql.functions as F

    nothing = F.array().cast("array<int>")
    if seen is None:
        column = F.coalesce(F.col(SEEN).cast("array<int>"), nothing) if SEEN in queries.columns else nothing
        return queries.withColumn(SEEN, column).repartition(parts, *keys)
    on = [name for name in keys if name in seen.columns]
    if SEEN in queries.columns or not on:
        raise InvariantError(f"seen items come as a column or as a table with a column of {keys}, not both or none")
    known = seen.select(*on, ITEM_IDX).dropna().repartition(parts, *on)
    grouped = known.groupBy(*on).agg(F.collect_list(F.col(ITEM_IDX).cast("int")).alias(SEEN))
    joined = queries.repartition(parts, *on).join(grouped, on=on, how="left")
    return joined.withColumn(SEEN, F.coalesce(F.col(SEEN), nothing))


def _searcher(index: Any, keys: list[str]) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """What a worker does with the stream of query batches; ``index`` is a broadcast ``ItemIndex``."""

    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext
        from threadpoolctl import threadpool_limits

        begin_task()
        context = TaskContext.get()
        with threadpool_limits(limits=context.cpus() if context else 1):  # workers x threads <= cores
            scratch = index.value.scratch()
            for batch in batches:
                yield from _search_batch(index.value, batch, keys, scratch)

    return search


def _search_batch(
    index: ItemIndex, batch: pa.RecordBatch, keys: list[str], scratch: FloatArray
) -> Iterator[pa.RecordBatch]:
    vectors = query_vectors(batch, index.dim, index.biased)
    rows, positions = seen_positions(batch, index.position_of)
    for low in range(0, len(vectors), index.rows):
        block = vectors[low : low + index.rows]
        first, last = np.searchsorted(rows, [low, low + len(block)])
        scores, found = search_block(index, block, rows[first:last] - low, positions[first:last], scratch)
        yield list_batch(batch, keys, low, scores, index.item_of[found])


def list_batch(batch: pa.RecordBatch, keys: list[str], low: int, scores: FloatArray, items: IntArray) -> pa.RecordBatch:
    """Lists as rows.

    Args:
        batch: With the key columns of the queries.
        keys: Their names.
        low: Row of the first query in ``batch``.
        scores: float32 ``[b, k]`` in the order of the lists; ``-inf`` where there is no further item.
        items: int64 ``[b, k]``, the ``item_idx``.
    """
    import pyarrow as pa

    row, rank = np.nonzero(scores > -np.inf)
    columns = [batch.column(name).take(pa.array(row + low)) for name in keys]
    columns += [pa.array(items[row, rank].astype(np.int32)), pa.array((rank + 1).astype(np.int32))]
    return pa.RecordBatch.from_arrays([*columns, pa.array(scores[row, rank])], names=[*keys, ITEM_IDX, RANK, SCORE])


def _vectors(column: pa.Array, dim: int | None) -> FloatArray:
    """A column of equally long, non-null lists as float32 ``[n, dim]``."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(column)
    bounds = pc.min_max(lengths).as_py()
    if dim is None:
        dim = bounds["max"] or 0
    if len(column) and (lengths.null_count or (bounds["min"], bounds["max"]) != (dim, dim)):
        raise InvariantError(f"vectors must have {dim} elements: found {bounds} and {lengths.null_count} nulls")
    flat = column.flatten()
    if flat.null_count:
        raise InvariantError("a vector has a null element")
    values: FloatArray = np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float32)
    return values.reshape(len(column), dim)


def query_vectors(batch: pa.RecordBatch, dim: int, biased: bool) -> FloatArray:
    """The queries of a batch, float32 ``[n, dim]``, with a column of ones behind them where items have a bias.

    Raises:
        InvariantError: One is not finite, or has another dimension.
    """
    vectors = _vectors(batch.column(VECTOR), dim)
    if not np.isfinite(vectors).all():
        raise InvariantError("a query vector is not finite")
    return np.concatenate([vectors, np.ones((len(vectors), 1), dtype=np.float32)], axis=1) if biased else vectors


def seen_positions(batch: pa.RecordBatch, position_of: IntArray) -> tuple[IntArray, IntArray]:
    """Rows and positions of the seen pairs, rows ascending; items outside of the search are dropped.

    Args:
        batch: With the column ``seen``.
        position_of: ``item_idx`` → position, -1 for one that is not searched.
    """
    import pyarrow.compute as pc

    column = batch.column(SEEN)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(column)), lengths)
    items = column.flatten().to_numpy(zero_copy_only=False)
    inside = (items >= 0) & (items < len(position_of))
    rows, positions = rows[inside], position_of[items[inside]]
    searched = positions >= 0
    return rows[searched], positions[searched]
