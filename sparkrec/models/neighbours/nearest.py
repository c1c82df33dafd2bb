"""Item-based and user-based collaborative filtering by nearest neighbours, exact.

Two items are alike as far as the same users took them, two users as far as they took the same items (Sarwar et al.,
"Item-based Collaborative Filtering Recommendation Algorithms", WWW 2001; Herlocker et al., "An Algorithmic Framework
for Performing Collaborative Filtering", SIGIR 1999). Of the matrix w of confidences a row is made for each item (of
user-based filtering: each user), here d, over the users t that took it; the rows are weighted, and the similarity is
their inner product:

    cosine   x_dt = w_dt / |w_d|
    tfidf    x_dt = √w_dt · idf_t, of length 1                                    idf_t = ln N - ln(1 + n_t)
    bm25     x_dt = w_dt (k1 + 1) / (k1 (1 - b + b s_d / s̄) + w_dt) · idf_t       s_d = Σ_t w_dt, s̄ its mean
             (Robertson, Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, eq. 3.15)
    jaccard  |A ∩ B| / |A ∪ B| of the sets of users

N is the number of rows that there are, n_t the number of those that have t. These are the weights of the library
``implicit`` (github.com/benfred/implicit, ``nearest_neighbours.py``), whose lists come out, up to ties: with items that
nobody took in its matrix, N and s̄ would count them, too; here they never do. A similarity is multiplied by
n / (n + shrinkage), n being what both rows have in common (Bell, Koren, "Improved Neighborhood-based Collaborative
Filtering", KDD Cup 2007).

As in ``implicit``, **an item is a neighbour of its own**: it stands among the ``neighbours`` kept of it where its
similarity with itself is high enough, and it counts when lists are made. This matters only where a list may hold what
was taken. What lies beside an item (``similar``) is without itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkrec.errors import InvariantError, NothingToTrain, UserError
from sparkrec.log import log_event
from sparkrec.models.neighbours.settings import ItemNeighboursConfig, UserNeighboursConfig
from sparkrec.prepare.cut import utc
from sparkrec.prepare.user_item import MICROS_PER_DAY
from sparkrec.prepare.weights import WEIGHT, counted
from sparkrec.retrieval.block_search import FloatArray, IntArray
from sparkrec.retrieval.sparse import INDICES, WEIGHTS, Doubles, SparseMatrix, sparse_matrix, sparse_top_k
from sparkrec.retrieval.topk import PASS_MB
from sparkrec.storage import files
from sparkrec.warehouse.tables import CONFIDENCE, ITEM_IDX, QUERY_IDX, RANK, SCORE, TS, USER_IDX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pyspark.sql import DataFrame, SparkSession
    from scipy.sparse import csr_matrix

NEIGHBOUR_IDX = "neighbour_idx"
NEIGHBOURS, MODEL_FILE = "neighbours", "model.json"
Config = ItemNeighboursConfig | UserNeighboursConfig


def item_neighbours(
    matrix: DataFrame,
    n_users: int,
    n_items: int,
    config: ItemNeighboursConfig,
    *,
    block_mb: int = 64,
    pass_mb: int = PASS_MB,
) -> DataFrame:
    """The nearest items of each item.

    Args:
        matrix: In the columns of ``tables.USER_ITEM``; pairs whose confidence is not above 0 do not count.
        n_users: Size of the index of users.
        n_items: Size of the index of items.
        config: Similarity, number of neighbours, shrinkage.
        block_mb: Memory of a block of products, per worker process.
        pass_mb: Memory of the matrix that a worker process holds at once.

    Returns:
        ``(item_idx int, neighbour_idx int, score float)``, score > 0, at most ``config.neighbours`` rows for each
        item, itself maybe among them; of equal scores the smaller number.

    Raises:
        UserError: There is no interaction.
    """
    counts = _counts(matrix, ITEM_IDX, USER_IDX, (n_items, n_users))
    return _neighbours(matrix.sparkSession, counts, ITEM_IDX, config, block_mb, pass_mb)


def user_neighbours(
    matrix: DataFrame,
    n_users: int,
    n_items: int,
    config: UserNeighboursConfig,
    *,
    block_mb: int = 64,
    pass_mb: int = PASS_MB,
) -> DataFrame:
    """The nearest users of each user; arguments and errors as for ``item_neighbours``.

    Returns:
        ``(user_idx int, neighbour_idx int, score float)``.
    """
    counts = _counts(matrix, USER_IDX, ITEM_IDX, (n_users, n_items))
    return _neighbours(matrix.sparkSession, counts, USER_IDX, config, block_mb, pass_mb)


def profiles(
    interactions: DataFrame, event_weights: Mapping[str, float], as_of: datetime, half_life_days: float | None
) -> DataFrame:
    """What each user took before a time, and how lately: queries of ``item_neighbour_lists``.

    w_ui = Σ over events e of u with i of weight(type of e) · 2^(-days from e to the user's last event / half-life).
    As only the proportions of a user's weights matter, they count from the user's last event, and do not vanish where
    that is long ago. Users who came after the fit are as good as others.

    Args:
        interactions: In the columns of ``tables.INTERACTIONS``; events of nobody do not count.
        event_weights: Weight by event type; a type that is absent weighs 0.
        as_of: UTC; events from then on do not count.
        half_life_days: Days in which the weight of an event halves; None: never.

    Returns:
        ``(user_idx int, indices array<int>, weights array<double>)``.
    """
    import pyspark.sql.functions as F
    from pyspark.sql import Window

    events = counted(interactions, event_weights).where((F.col(TS) < utc(as_of)) & F.col(USER_IDX).isNotNull())
    weight = F.col(WEIGHT)
    if half_life_days is not None:
        last = F.max(F.unix_micros(TS)).over(Window.partitionBy(USER_IDX))
        days = (last - F.unix_micros(TS)) / F.lit(float(MICROS_PER_DAY))
        weight = weight * F.pow(F.lit(2.0), -days / F.lit(float(half_life_days)))
    weights = F.array_sort(F.collect_list(WEIGHT))  # in this order the sum is always the same
    total = F.aggregate(weights, F.lit(0.0), lambda total, w: total + w)
    pairs = events.withColumn(WEIGHT, weight).groupBy(USER_IDX, ITEM_IDX).agg(total.alias(WEIGHT))
    return _entries(pairs, USER_IDX, ITEM_IDX, WEIGHT)


def matrix_profiles(matrix: DataFrame) -> DataFrame:
    """The same of a user-item matrix: ``(user_idx int, indices array<int>, weights array<double>)``.

    Args:
        matrix: In the columns of ``tables.USER_ITEM``; pairs whose confidence is 0 do not count.
    """
    import pyspark.sql.functions as F

    return _entries(matrix.where(F.col(CONFIDENCE) > 0), USER_IDX, ITEM_IDX, CONFIDENCE)


def item_neighbour_lists(
    profiles: DataFrame,
    neighbours: DataFrame,
    n_items: int,
    *,
    key: str | Sequence[str],
    k: int,
    seen: DataFrame | None = None,
    without: IntArray | None = None,
    factors: FloatArray | None = None,
    block_mb: int = 64,
    pass_mb: int = PASS_MB,
) -> DataFrame:
    """The best items of each user: ``score(u, i) = Σ_j w_uj sim(j, i)`` over what the user took, i near j.

    Args:
        profiles: The key columns, ``indices array<int>`` (items), ``weights`` (of floats or doubles) and optionally
            ``seen array<int>``: of ``profiles``, for example. Items that have no neighbours do not count.
        neighbours: Of ``item_neighbours``.
        n_items: Size of the index of items.
        key: The column or columns that tell users apart.
        k: Length of the lists.
        seen: ``(key columns or some of them, item_idx)``: pairs to leave out.
        without: Items that no list may hold.
        factors: What the scores of each item are multiplied by, float32 ``[n_items]``, above 0: a popularity prior.
        block_mb: Memory of a block of products, per worker process.
        pass_mb: Memory of the neighbours that a worker process holds at once.

    Returns:
        ``(key…, item_idx int, rank int, score float)``, score > 0.
    """
    values = sparse_matrix(neighbours, ITEM_IDX, NEIGHBOUR_IDX, SCORE, (n_items, n_items))
    near = SparseMatrix(values).times(factors).without(without)
    return sparse_top_k(profiles, near, key=key, k=k, seen=seen, block_mb=block_mb, pass_mb=pass_mb)


def user_neighbour_lists(
    users: DataFrame,
    neighbours: DataFrame,
    matrix: DataFrame,
    n_users: int,
    n_items: int,
    *,
    key: str | Sequence[str],
    k: int,
    seen: DataFrame | None = None,
    without: IntArray | None = None,
    factors: FloatArray | None = None,
    block_mb: int = 64,
    pass_mb: int = PASS_MB,
) -> DataFrame:
    """The best items of each user: ``score(u, i) = Σ_v sim(u, v) w_vi`` over the user's neighbours.

    A user who came after the fit has no neighbours and gets no list until the next one.

    Args:
        users: The key columns, ``user_idx`` among them or beside them, and optionally ``seen array<int>``; a row for
            each user who wants a list.
        neighbours: Of ``user_neighbours``.
        matrix: What the neighbours took, in the columns of ``tables.USER_ITEM``, as of the time when lists are made.
        n_users: Size of the index of users, with those who came after the fit.
        n_items: Size of the index of items.
        key: As for ``item_neighbour_lists``.
        k: As for ``item_neighbour_lists``.
        seen: As for ``item_neighbour_lists``.
        without: As for ``item_neighbour_lists``.
        factors: As for ``item_neighbour_lists``.
        block_mb: As for ``item_neighbour_lists``.
        pass_mb: Memory of the matrix that a worker process holds at once.

    Returns:
        ``(key…, item_idx int, rank int, score float)``, score > 0.
    """
    values = sparse_matrix(matrix, USER_IDX, ITEM_IDX, CONFIDENCE, (n_users, n_items))
    queries = users.join(_entries(neighbours, USER_IDX, NEIGHBOUR_IDX, SCORE), USER_IDX, "inner")
    taken = SparseMatrix(values).times(factors).without(without)
    return sparse_top_k(queries, taken, key=key, k=k, seen=seen, block_mb=block_mb, pass_mb=pass_mb)


def similar(neighbours: DataFrame, k: int, excluded: IntArray | None = None) -> DataFrame:
    """Items beside items, or users beside users: the kept neighbours without itself.

    Args:
        neighbours: Of ``item_neighbours`` or ``user_neighbours``.
        k: Length of the lists; there are no more than the model keeps.
        excluded: Numbers that get a list, but are on none.

    Returns:
        ``(query_idx int, item_idx int, rank int, score float)`` as of ``retrieval.similar.nearest``; the score is the
        similarity, which is within 0 … 1 but for bm25.
    """
    import pyspark.sql.functions as F
    from pyspark.sql import Window

    whose = next(name for name in neighbours.columns if name in (ITEM_IDX, USER_IDX))
    others = neighbours.select(F.col(whose).alias(QUERY_IDX), F.col(NEIGHBOUR_IDX).alias(ITEM_IDX), SCORE)
    others = others.where(F.col(QUERY_IDX) != F.col(ITEM_IDX))
    if excluded is not None and len(excluded):
        hidden = neighbours.sparkSession.createDataFrame([(int(i),) for i in excluded], f"{ITEM_IDX} int")
        others = others.join(F.broadcast(hidden), ITEM_IDX, "left_anti")
    nearest = Window.partitionBy(QUERY_IDX).orderBy(F.desc(SCORE), ITEM_IDX)
    ranked = others.withColumn(RANK, F.row_number().over(nearest)).where(F.col(RANK) <= k)
    return ranked.select(QUERY_IDX, ITEM_IDX, RANK, SCORE)


def save_neighbours(neighbours: DataFrame, path: str, meta: dict[str, Any]) -> None:
    """Writes the neighbours as Parquet and then ``model.json``, which makes the folder a model."""
    neighbours.write.mode("overwrite").parquet(files.join(path, NEIGHBOURS))
    files.write_json(files.join(path, MODEL_FILE), meta)


def load_neighbours(spark: SparkSession, path: str, whose: str) -> tuple[DataFrame, dict[str, Any]]:
    """What ``save_neighbours`` was given.

    Args:
        spark: The session.
        path: The model's folder.
        whose: ``item_idx`` or ``user_idx``: whose neighbours they are.

    Raises:
        UserError: There is no model.
    """
    where = files.join(path, MODEL_FILE)
    if not files.exists(where):
        raise UserError("no model of neighbours", where=path, fix="run the model's training stage first")
    rows = spark.read.schema(f"{whose} int, {NEIGHBOUR_IDX} int, {SCORE} float").parquet(files.join(path, NEIGHBOURS))
    return rows, files.read_json(where)


@dataclass(frozen=True)
class PairScore:
    """What becomes of a pair's sum of products, see ``retrieval.sparse``.

    Attributes:
        jaccard: The similarity is Jaccard's, whatever the sum.
        shrinkage: What it is shrunk by.
    """

    jaccard: bool
    shrinkage: float

    def __call__(self, sums: Doubles, common: Doubles, own: IntArray, theirs: IntArray) -> Doubles:
        """The scores, float64 ``[n]``."""
        scores: Doubles = common / (own + theirs - common) if self.jaccard else sums
        support: Doubles = common / (common + self.shrinkage)
        return scores * support


def _neighbours(
    spark: SparkSession, counts: csr_matrix, whose: str, config: Config, block_mb: int, pass_mb: int
) -> DataFrame:
    import pyspark.sql.functions as F

    rows = weighted(counts, config)
    jaccard = config.similarity == "jaccard"
    score = PairScore(jaccard, config.shrinkage) if jaccard or config.shrinkage else None
    others = SparseMatrix(rows.T.tocsr())
    lists = sparse_top_k(_row_queries(spark, rows), others, key=QUERY_IDX, k=config.neighbours, pair_score=score,
                         block_mb=block_mb, pass_mb=pass_mb)  # fmt: skip
    return lists.select(F.col(QUERY_IDX).alias(whose), F.col(ITEM_IDX).alias(NEIGHBOUR_IDX), SCORE)


def _counts(matrix: DataFrame, row: str, column: str, shape: tuple[int, int]) -> csr_matrix:
    """The confidences above 0 as float64 [row, column]."""
    counts = sparse_matrix(matrix, row, column, CONFIDENCE, shape)
    n_pairs = counts.nnz
    if not np.isfinite(counts.data).all() or (counts.data < 0).any():
        raise InvariantError("a confidence is negative or not finite")
    counts.eliminate_zeros()
    log_event("neighbours", of=row, pairs=counts.nnz, pairs_without_weight=n_pairs - counts.nnz)
    if not counts.nnz:
        raise NothingToTrain(
            "no interactions to find neighbours by",
            where="user_item",
            fix="check prepare.support, and that users are known",
        )
    return counts


def weighted(counts: csr_matrix, config: Config) -> csr_matrix:
    """The rows as they are compared.

    Args:
        counts: float64 ``[rows, columns]``, entries above 0.
        config: Similarity, and k1 and b of BM25.

    Returns:
        float64, of the same entries.

    Raises:
        InvariantError: There is no such similarity.
    """
    from scipy.sparse import csr_matrix

    row, w = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr)), counts.data
    n = int((np.diff(counts.indptr) > 0).sum())
    idf = np.log(n) - np.log1p(np.bincount(counts.indices, minlength=counts.shape[1]))[counts.indices]
    if config.similarity == "bm25":
        sums = np.bincount(row, w, counts.shape[0])
        norm = config.bm25_k1 * (1.0 - config.bm25_b + config.bm25_b * sums / (sums.sum() / n))
        w = w * (config.bm25_k1 + 1.0) / (norm[row] + w) * idf
    elif config.similarity == "tfidf":
        w = _of_length_one(row, np.sqrt(w) * idf, counts.shape[0])
    elif config.similarity == "cosine":
        w = _of_length_one(row, w, counts.shape[0])
    elif config.similarity == "jaccard":
        w = np.ones_like(w)
    else:
        raise InvariantError(f"no similarity {config.similarity}")
    return csr_matrix((w, counts.indices, counts.indptr), counts.shape)


def _of_length_one(row: IntArray, w: Doubles, n_rows: int) -> Doubles:
    lengths = np.sqrt(np.bincount(row, w**2, n_rows))[row]
    scaled: Doubles = np.divide(w, lengths, out=np.zeros_like(w), where=lengths > 0)
    return scaled


def _row_queries(spark: SparkSession, rows: csr_matrix) -> DataFrame:
    """``(query_idx int, indices array<int>, weights array<double>)``: the rows that have an entry."""
    import pyarrow as pa

    numbers = np.flatnonzero(np.diff(rows.indptr)).astype(np.int32)
    ends = pa.array(np.append(rows.indptr[numbers], rows.nnz).astype(np.int64))
    indices = pa.LargeListArray.from_arrays(ends, pa.array(rows.indices.astype(np.int32)))
    weights = pa.LargeListArray.from_arrays(ends, pa.array(rows.data))
    return spark.createDataFrame(pa.table({QUERY_IDX: pa.array(numbers), INDICES: indices, WEIGHTS: weights}))


def _entries(rows: DataFrame, key: str, index: str, weight: str) -> DataFrame:
    """``(key, indices array<int>, weights array<double>)``, entries in order of the index."""
    import pyspark.sql.functions as F

    pairs = F.sort_array(F.collect_list(F.struct(F.col(index).alias("i"), F.col(weight).alias("w"))))
    grouped = rows.groupBy(key).agg(pairs.alias("pairs"))
    return grouped.select(key, F.col("pairs.i").alias(INDICES), F.col("pairs.w").cast("array<double>").alias(WEIGHTS))
