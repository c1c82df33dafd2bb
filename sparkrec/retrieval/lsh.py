"""Items beside items by locality-sensitive hashing: MLlib makes the hashes, Spark's tasks score what shares a bucket.

A table's key is ``hashes`` hashes together, and two rows are candidates of each other where they share the key of one
table at least (Indyk and Motwani, "Approximate Nearest Neighbors: Towards Removing the Curse of Dimensionality", STOC
1998). MLlib's own search takes each hash for a table, which leaves nearly every row a candidate.

``lsh_nearest``      by random projections, floor(r·v / bucket) (Datar et al., "Locality-Sensitive Hashing Scheme Based
                     on p-Stable Distributions", SCG 2004; ``BucketedRandomProjectionLSH``). Vectors have length 1, so
                     that |u - v|² = 2 - 2 cos(u, v): what is near is what has a large cosine.
``minhash_nearest``  by the smallest hash of a set's members (Broder, "On the Resemblance and Containment of Documents",
                     1997; ``MinHashLSH``): two sets share a hash as often as their Jaccard index says.

Candidates are scored exactly. A row with fewer than ``k`` candidates gets a shorter list; ``lsh_recall`` says how many
of the exact lists' items are found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sparkrec.errors import InvariantError
from sparkrec.processes import begin_task
from sparkrec.retrieval.block_search import FloatArray, IntArray, ItemMatrix
from sparkrec.retrieval.similar import unit_vectors
from sparkrec.retrieval.topk import PARTITIONS_PER_CORE, VECTOR, list_batch
from sparkrec.spark.broadcast import broadcast
from sparkrec.spark.collected import collected
from sparkrec.warehouse.tables import IDX, ITEM_IDX, QUERY_IDX, RANK, SCORE

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame, SparkSession

BUCKET_LENGTH, HASH_TABLES, HASHES = 3.0, 48, 10
PAIRS_AT_ONCE = 1 << 21  # candidates that are looked at together; those of one row always are
SCORED_AT_ONCE = 1 << 16
MEMBER = "member"


class Scorer(Protocol):
    """Scores pairs of rows."""

    def __call__(self, some: IntArray, others: IntArray) -> FloatArray:
        """float32 ``[m]``: the scores of the pairs ``(some[i], others[i])``."""


@dataclass(frozen=True)
class _Cosine:
    directions: FloatArray  # [n, d], of length 1

    def __call__(self, some: IntArray, others: IntArray) -> FloatArray:
        scores: FloatArray = np.einsum("md,md->m", self.directions[some], self.directions[others])
        return scores


@dataclass(frozen=True)
class _Jaccard:
    members: Any  # scipy's csr_matrix [n, members] of ones
    sizes: IntArray  # [n]

    def __call__(self, some: IntArray, others: IntArray) -> FloatArray:
        both = np.asarray(self.members[some].multiply(self.members[others]).sum(axis=1)).ravel()
        return (both / (self.sizes[some] + self.sizes[others] - both)).astype(np.float32)


@dataclass(frozen=True)
class _Tables:
    """Rows by bucket: of table t the rows in order of their buckets, and the first place of each bucket.

    ``bucket_of`` is int32 ``[n, tables]``, -1 for a row without one; ``rows[t]`` holds those that may be on a list.
    """

    bucket_of: npt.NDArray[np.int32]
    rows: tuple[npt.NDArray[np.int32], ...]
    first: tuple[IntArray, ...]

    @staticmethod
    def build(bucket_of: npt.NDArray[np.int32], shown: npt.NDArray[np.bool_]) -> _Tables:
        rows, first = [], []
        for buckets in bucket_of.T:
            usable = np.flatnonzero(shown & (buckets >= 0)).astype(np.int32)
            order = usable[np.argsort(buckets[usable], kind="stable")]
            rows.append(order)
            first.append(np.searchsorted(buckets[order], np.arange(buckets.max(initial=-1) + 2)))
        return _Tables(bucket_of, tuple(rows), tuple(first))

    def n_candidates(self, queries: IntArray) -> IntArray:
        """For each query row the candidates of all tables, those found twice counted twice."""
        total = np.zeros(len(queries), dtype=np.int64)
        for buckets, first in zip(self.bucket_of[queries].T, self.first, strict=True):
            total += first[buckets + 1] - first[buckets]
        return total

    def candidates(self, queries: IntArray) -> tuple[IntArray, IntArray]:
        """Pairs (place among the queries, candidate row), each once, in this order; no row is its own."""
        n, keys = len(self.bucket_of), []
        for buckets, rows, first in zip(self.bucket_of[queries].T, self.rows, self.first, strict=True):
            low, sizes = first[buckets], first[buckets + 1] - first[buckets]
            place = np.repeat(np.arange(len(queries)), sizes)
            at = np.arange(len(place)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + low[place]
            keys.append(place * n + rows[at])
        place, found = np.divmod(np.unique(np.concatenate(keys)), n)
        others = found != queries[place]
        return place[others], found[others]


def lsh_nearest(
    spark: SparkSession,
    rows: ItemMatrix,
    *,
    k: int,
    bucket_length: float = BUCKET_LENGTH,
    hash_tables: int = HASH_TABLES,
    hashes: int = HASHES,
    seed: int = 1,
    excluded: IntArray | None = None,
) -> DataFrame:
    """As ``similar.nearest``, of the candidates alone: lists may lack items of the exact ones.

    Args:
        spark: The session.
        rows: As for ``nearest``.
        k: Length of the lists.
        bucket_length: Width of a bucket, in units of 1 / √d, about the deviation of a direction's projection: so one
            setting serves vectors of all widths. Wider buckets hold more candidates.
        hash_tables: Tables: more find more candidates.
        hashes: Hashes of a table's key: more leave fewer candidates.
        seed: Of the projections.
        excluded: Rows that get a list, but are on none.

    Returns:
        ``(query_idx int, item_idx int, rank int, score float)``: the exact cosine, ties by the smaller row.
    """
    directions, eligible = unit_vectors(rows)
    numbers = np.flatnonzero(eligible)
    shown = eligible.copy()
    if excluded is not None:
        shown[excluded[excluded < len(shown)]] = False
    keys = _projection_keys(spark, directions, numbers, bucket_length, hash_tables * hashes, seed)
    bucket_of = np.full((len(directions), hash_tables), -1, dtype=np.int32)
    bucket_of[numbers] = _buckets(keys, hash_tables)
    return _lists(spark, numbers, _Tables.build(bucket_of, shown), _Cosine(directions), k)


def minhash_nearest(
    spark: SparkSession,
    sets: DataFrame,
    *,
    k: int,
    hash_tables: int = HASH_TABLES,
    hashes: int = 2,
    seed: int = 1,
    excluded: IntArray | None = None,
) -> DataFrame:
    """Items beside items by the sets of users or baskets that took them; the score is the exact Jaccard index.

    The sets are sent to every executor: four bytes a member. Items without a common member are never on a list.

    Args:
        spark: The session.
        sets: ``(item_idx int, member int from 0)``, distinct, for example of users.
        k: Length of the lists.
        hash_tables: As for ``lsh_nearest``.
        hashes: As for ``lsh_nearest``; two sets with the Jaccard index j are candidates with the chance
            1 - (1 - j^hashes)^hash_tables.
        seed: Of the hash functions.
        excluded: ``item_idx`` that get a list, but are on none.

    Returns:
        ``(query_idx int, item_idx int, rank int, score float)``, ties by the smaller item.
    """
    table = collected(sets.select(ITEM_IDX, MEMBER), 9, "members of sets", "take fewer")
    items, members = (table.column(name).to_numpy().astype(np.int64) for name in (ITEM_IDX, MEMBER))
    if not len(items):
        return spark.createDataFrame([], f"{QUERY_IDX} int, {ITEM_IDX} int, {RANK} int, {SCORE} float")
    matrix = sparse.csr_matrix((np.ones(len(items), dtype=np.float32), (items, members)))
    if matrix.nnz < len(items) or matrix.data.max() > 1:
        raise InvariantError("a set holds a member twice")
    numbers = np.unique(items)
    shown = np.ones(matrix.shape[0], dtype=np.bool_)
    if excluded is not None:
        shown[excluded[excluded < len(shown)]] = False
    keys = _minhash_keys(spark, matrix, numbers, hash_tables * hashes, seed)
    bucket_of = np.full((matrix.shape[0], hash_tables), -1, dtype=np.int32)
    bucket_of[numbers] = _buckets(keys, hash_tables)
    scorer = _Jaccard(matrix, np.diff(matrix.indptr).astype(np.int64))
    return _lists(spark, numbers, _Tables.build(bucket_of, shown), scorer, k)


def lsh_recall(approximate: DataFrame, exact: DataFrame) -> float:
    """The share of the exact lists' items that are in the approximate lists of the same rows; 1 where there are none.

    Args:
        approximate: ``(query_idx, item_idx)``.
        exact: ``(query_idx, item_idx)``, of ``similar.nearest``.
    """
    import pyspark.sql.functions as F

    hits = approximate.select(QUERY_IDX, ITEM_IDX, F.lit(1).alias("hit"))
    row = (
        exact.join(hits, [QUERY_IDX, ITEM_IDX], "left")
        .agg(F.count("*").alias("n"), F.count("hit").alias("hits"))
        .head()
    )
    assert row is not None  # an aggregate without groups has one row
    return float(row["hits"] / row["n"]) if row["n"] else 1.0


def _projection_keys(
    spark: SparkSession, directions: FloatArray, numbers: IntArray, bucket_length: float, n_hashes: int, seed: int
) -> IntArray:
    """int64 ``[len(numbers), n_hashes]``, by MLlib."""
    import pyarrow as pa
    import pyspark.sql.functions as F
    from pyspark.ml.feature import BucketedRandomProjectionLSH
    from pyspark.ml.functions import array_to_vector

    n, dim = len(numbers), directions.shape[1]
    if not n:
        return np.zeros((0, n_hashes), dtype=np.int64)
    ends = pa.array(np.arange(n + 1, dtype=np.int64) * dim)
    lists = pa.LargeListArray.from_arrays(ends, pa.array(directions[numbers].ravel()))
    frame = spark.createDataFrame(pa.table({IDX: pa.array(np.arange(n)), VECTOR: lists}))
    frame = frame.select(IDX, array_to_vector(F.col(VECTOR)).alias("features"))
    hasher = BucketedRandomProjectionLSH(
        inputCol="features",
        outputCol="hashes",
        bucketLength=bucket_length / math.sqrt(dim),
        numHashTables=n_hashes,
        seed=seed,
    )
    return _collected(hasher.fit(frame).transform(frame), n, n_hashes)


def _minhash_keys(spark: SparkSession, matrix: Any, numbers: IntArray, n_hashes: int, seed: int) -> IntArray:
    """int64 ``[len(numbers), n_hashes]``, by MLlib."""
    import pyarrow as pa
    import pyspark.sql.functions as F
    from pyspark.ml.feature import MinHashLSH
    from pyspark.ml.linalg import SparseVector, VectorUDT

    n, width = len(numbers), matrix.shape[1]
    chosen = matrix[numbers].sorted_indices()
    lists = pa.LargeListArray.from_arrays(
        pa.array(chosen.indptr.astype(np.int64)), pa.array(chosen.indices.astype(np.int32))
    )
    frame = spark.createDataFrame(pa.table({IDX: pa.array(np.arange(n)), "members": lists}))
    as_vector = F.udf(lambda members: SparseVector(width, members, np.ones(len(members))), VectorUDT())
    frame = frame.select(IDX, as_vector("members").alias("features"))
    hasher = MinHashLSH(inputCol="features", outputCol="hashes", numHashTables=n_hashes, seed=seed)
    return _collected(hasher.fit(frame).transform(frame), n, n_hashes)


def _collected(hashed: DataFrame, n: int, n_hashes: int) -> IntArray:
    """The hashes int64 ``[n, n_hashes]``, in order of ``idx``."""
    import pyspark.sql.functions as F
    from pyspark.ml.functions import vector_to_array

    one: list[Column] = [
        F.get(vector_to_array(F.get("hashes", F.lit(j))), F.lit(0)).cast("bigint") for j in range(n_hashes)
    ]
    keys_of = hashed.select(IDX, F.array(*one).alias("keys"))
    table = collected(keys_of, 8 * n_hashes + 9, "items' hashes", "set topk.similar_index=exact")
    keys = np.empty((n, n_hashes), dtype=np.int64)
    keys[table.column(IDX).to_numpy()] = table.column("keys").combine_chunks().flatten().to_numpy().reshape(n, n_hashes)
    return keys


def _buckets(keys: IntArray, hash_tables: int) -> IntArray:
    """Numbers of the buckets, int64 ``[n, hash_tables]``: equal where all hashes of a table are.

    A table's hashes are added up with fixed random factors, modulo 2^64. Where two sums should meet by chance, a bucket
    holds further candidates, which are scored as any.
    """
    hashes = keys.shape[1] // hash_tables
    parts = keys.reshape(len(keys), hash_tables, hashes).astype(np.uint64)
    factors = np.random.default_rng(0).integers(1 << 63, size=hashes, dtype=np.uint64) | 1
    sums = (parts * factors).sum(axis=2, dtype=np.uint64)
    return np.column_stack([np.unique(column, return_inverse=True)[1] for column in sums.T])


def _lists(spark: SparkSession, numbers: IntArray, tables: _Tables, scorer: Scorer, k: int) -> DataFrame:
    import pyarrow as pa

    parts = PARTITIONS_PER_CORE * spark.sparkContext.defaultParallelism
    queries = spark.createDataFrame(pa.table({QUERY_IDX: pa.array(numbers.astype(np.int32))})).repartition(
        parts, QUERY_IDX
    )
    shared = broadcast(spark, (tables, scorer))
    schema = f"{QUERY_IDX} int, {ITEM_IDX} int, {RANK} int, {SCORE} float"
    return queries.mapInArrow(_searcher(shared, k), schema)


def _searcher(shared: Any, k: int) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        begin_task()
        tables, scorer = shared.value
        for batch in batches:
            queries = batch.column(QUERY_IDX).to_numpy().astype(np.int64)
            work = np.cumsum(tables.n_candidates(queries))
            for part in np.split(np.arange(len(queries)), np.flatnonzero(np.diff(work // PAIRS_AT_ONCE)) + 1):
                if len(part):
                    scores, found = best_candidates(tables, scorer, queries[part], k)
                    yield list_batch(batch, [QUERY_IDX], int(part[0]), scores, found)

    return search


def best_candidates(tables: _Tables, scorer: Scorer, queries: IntArray, k: int) -> tuple[FloatArray, IntArray]:
    """Scores float32 and rows int64 ``[b, k]`` by ``(-score, row)``; ``-inf`` where there is no further candidate."""
    place, found = tables.candidates(queries)
    parts = [slice(low, low + SCORED_AT_ONCE) for low in range(0, len(place), SCORED_AT_ONCE)]
    nothing = np.zeros(0, dtype=np.float32)
    scored = np.concatenate([nothing, *(scorer(queries[place[part]], found[part]) for part in parts)])
    order = np.lexsort((found, -scored, place))
    place, found, scored = place[order], found[order], scored[order]
    sizes = np.bincount(place, minlength=len(queries))
    rank = np.arange(len(place)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = rank < k
    scores, best = np.full((len(queries), k), -np.inf, dtype=np.float32), np.zeros((len(queries), k), dtype=np.int64)
    scores[place[kept], rank[kept]], best[place[kept], rank[kept]] = scored[kept], found[kept]
    return scores, best
