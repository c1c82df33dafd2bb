"""Top-K by an approximate index of faiss, and how many of the exact lists' items it finds.

HNSW: Malkov and Yashunin, "Efficient and Robust Approximate Nearest Neighbor Search Using Hierarchical Navigable Small
World Graphs" (2018). IVF: Jégou, Douze and Schmid, "Product Quantization for Nearest Neighbor Search" (2011), section
IV, with flat cells. Both by inner product, in the library faiss (github.com/facebookresearch/faiss), which is needed
by the driver and the executors only where one of them is asked for.

The index finds candidates; seen items leave the list, the others are scored by a sum of fixed order. A query that the
index finds too few items for is searched whole, so that no list is short for the index's sake.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparkrec.errors import InvariantError, UserError
from sparkrec.processes import begin_task
from sparkrec.retrieval.block_search import MARGIN, FloatArray, IntArray, ItemMatrix
from sparkrec.retrieval.topk import list_batch, prepared_queries, query_vectors, seen_positions, top_k
from sparkrec.settings.sections import TopKConfig
from sparkrec.spark.broadcast import broadcast
from sparkrec.warehouse.tables import ITEM_IDX

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark import Broadcast
    from pyspark.sql import DataFrame, SparkSession

BLOCK = 4096  # queries of a block
AT_ONCE = 64  # queries that are searched at once, with the same number of candidates
SAMPLE = 1000  # queries whose exact lists the recall is measured on
SEED = 1


@dataclass(frozen=True)
class _Index:
    """A built index, as it travels to the workers; position p of the index is item ``item_of[p]``."""

    stored: npt.NDArray[np.uint8]
    matrix: FloatArray  # [positions, dim, one more with a bias]
    item_of: IntArray
    position_of: IntArray  # item_idx -> position, -1 where not eligible
    dim: int
    biased: bool


def approximate_index(spark: SparkSession, items: ItemMatrix, settings: TopKConfig) -> Broadcast[_Index]:
    """The index that ``settings.index`` names, built on the driver and sent to the executors.

    Raises:
        UserError: faiss is not installed.
    """
    return broadcast(spark, _build(items, settings))


def approximate_top_k(
    queries: DataFrame,
    index: Broadcast[_Index],
    *,
    key: str | Sequence[str],
    k: int,
    seen: DataFrame | None = None,
) -> DataFrame:
    """As ``topk.top_k``, by an index: the lists may lack items of the exact ones.

    Args:
        queries: As for ``top_k``.
        index: Of ``approximate_index``.
        key: The column or columns that identify a query.
        k: Length of the lists.
        seen: As for ``top_k``.
    """
    keys = [key] if isinstance(key, str) else list(key)
    prepared, schema = prepared_queries(queries, seen, keys)
    return prepared.mapInArrow(_searcher(index, keys, k), schema)


def measured_recall(
    queries: DataFrame,
    items: ItemMatrix,
    index: Broadcast[_Index],
    *,
    key: str | Sequence[str],
    settings: TopKConfig,
    seen: DataFrame | None = None,
    sample: int = SAMPLE,
) -> float:
    """The share of the exact lists' items that the index finds, over a sample of the queries.

    Args:
        queries: As for ``top_k``.
        items: As for ``top_k``.
        index: Of these items.
        key: The column or columns that identify a query.
        settings: k and the memory of the exact search.
        seen: As for ``top_k``.
        sample: Queries at most; the same ones for the same keys.
    """
    import pyspark.sql.functions as F

    keys = [key] if isinstance(key, str) else list(key)
    chosen = queries.orderBy(F.xxhash64(*keys), *keys).limit(sample).persist()
    few = None
    if seen is not None:
        on = [name for name in keys if name in seen.columns]
        few = seen.join(chosen.select(*on).distinct(), on, "left_semi")
    exact = top_k(chosen, items, key=keys, k=settings.k, seen=few, block_mb=settings.block_mb, pass_mb=settings.pass_mb)
    lists = approximate_top_k(chosen, index, key=keys, k=settings.k, seen=few)
    found = exact.join(lists.select(*keys, ITEM_IDX, F.lit(1).alias("_hit")), [*keys, ITEM_IDX], "left")
    row = found.agg(F.count("*").alias("n"), F.count("_hit").alias("hits")).head()
    chosen.unpersist()
    assert row is not None  # an aggregate without groups has one row
    return float(row["hits"] / row["n"]) if row["n"] else 1.0


def require_faiss(kind: str) -> Any:
    """The library.

    Raises:
        UserError: It is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        fix = "pip install 'sparkrec[approximate]' on the driver and the executors, or set topk.index=exact"
        raise UserError("faiss is not installed", where=f"topk.index={kind}", fix=fix) from error
    return faiss


def _build(items: ItemMatrix, settings: TopKConfig) -> _Index:
    faiss = require_faiss(settings.index)
    item_of = items.positions()
    matrix = items.vectors[item_of]
    if items.bias is not None:
        matrix = np.concatenate([matrix, items.bias[item_of, None]], axis=1)
    matrix = np.ascontiguousarray(matrix, dtype=np.float32)
    n, width = matrix.shape
    if settings.index == "hnsw":
        index = faiss.IndexHNSWFlat(width, settings.hnsw_neighbours, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efSearch = settings.hnsw_search
    else:
        cells = min(settings.ivf_cells or round(4 * math.sqrt(n)), max(1, n))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = SEED
        index.cp.min_points_per_centroid = 1  # small catalogues are no reason for a warning
        index.nprobe = min(settings.ivf_probes, cells)
        if n:
            index.train(matrix)
    if n:
        index.add(matrix)
    dim, biased = items.vectors.shape[1], items.bias is not None
    return _Index(faiss.serialize_index(index), matrix, item_of, items.position_of(), dim, biased)


def _searcher(index: Any, keys: list[str], k: int) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """What a worker does with the stream of query batches; ``index`` is a broadcast ``_Index``."""

    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import faiss
        from pyspark import TaskContext
        from threadpoolctl import threadpool_limits

        begin_task()
        context = TaskContext.get()
        threads = context.cpus() if context else 1
        faiss.omp_set_num_threads(threads)
        with threadpool_limits(limits=threads):
            opened = faiss.deserialize_index(index.value.stored)  # of this run's own broadcast
            for batch in batches if len(index.value.item_of) else ():
                vectors = query_vectors(batch, index.value.dim, index.value.biased)
                rows, positions = seen_positions(batch, index.value.position_of)
                for low in range(0, len(vectors), BLOCK):
                    block = vectors[low : low + BLOCK]
                    first, last = np.searchsorted(rows, [low, low + len(block)])
                    seen = rows[first:last] - low, positions[first:last]
                    scores, found = search_block(opened, index.value.matrix, block, *seen, k)
                    yield list_batch(batch, keys, low, scores, index.value.item_of[found])

    return search


def search_block(
    opened: Any, matrix: FloatArray, vectors: FloatArray, rows: IntArray, positions: IntArray, k: int
) -> tuple[FloatArray, IntArray]:
    """The best positions for a block of queries.

    Args:
        opened: A faiss index over ``matrix``.
        matrix: float32 ``[n, d]``.
        vectors: float32 ``[b, d]``.
        rows: Rows of the pairs to leave out, ascending.
        positions: Their positions.
        k: Length of the lists.

    Returns:
        Scores float32 and positions int64 ``[b, k]``, ordered by ``(-score, position)``; ``-inf`` where a query has no
        further item.
    """
    n, b = len(matrix), len(vectors)
    scores, best = np.full((b, k), -np.inf, dtype=np.float32), np.zeros((b, k), dtype=np.int64)
    if not b:
        return scores, best
    taken = np.bincount(rows, minlength=b)
    left_out = rows * n + positions
    # Those who have seen much need more candidates: together, so that one of them does not make all others dear.
    for part in np.array_split(np.argsort(taken, kind="stable"), max(1, -(-b // AT_ONCE))):
        fetch = int(min(n, k + MARGIN + taken[part].max()))
        found = opened.search(vectors[part], fetch)[1]
        usable = (found >= 0) & ~np.isin(part[:, None] * n + found, left_out)
        exact = np.einsum("bfd,bd->bf", matrix[np.maximum(found, 0)], vectors[part])
        exact = _checked(np.where(usable, exact, -np.inf))
        order = np.lexsort((found, -exact), axis=1)[:, :k]
        width = order.shape[1]
        scores[part, :width] = np.take_along_axis(exact, order, axis=1)
        best[part, :width] = np.take_along_axis(found, order, axis=1)
    short = np.flatnonzero((scores > -np.inf).sum(axis=1) < np.minimum(k, n - taken))
    for row in short.tolist():  # few: the index has not reached enough items
        left = np.setdiff1d(np.arange(n), positions[rows == row])
        exact = _checked(np.einsum("md,d->m", matrix[left], vectors[row]))
        chosen = np.lexsort((left, -exact))[:k]
        scores[row, : len(chosen)], best[row, : len(chosen)] = exact[chosen], left[chosen]
    return scores, best


def _checked(scores: FloatArray) -> FloatArray:
    if np.isnan(scores).any() or np.isposinf(scores).any():
        raise InvariantError("a score is not finite")
    return scores
