"""Items beside items, users beside users: the nearest vectors, from the same engine as the users' lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparkrec.errors import InvariantError
from sparkrec.retrieval.block_search import FloatArray, IntArray, ItemMatrix
from sparkrec.retrieval.topk import PASS_MB, VECTOR, top_k
from sparkrec.warehouse.tables import ITEM_IDX, QUERY_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def nearest(
    spark: SparkSession,
    rows: ItemMatrix,
    *,
    k: int,
    among: ItemMatrix | None = None,
    excluded: IntArray | None = None,
    only: IntArray | None = None,
    block_mb: int = 64,
    pass_mb: int = PASS_MB,
) -> DataFrame:
    """For each eligible row the ``k`` others whose vectors make the smallest angles, or largest products, with its own.

    Args:
        spark: The session.
        rows: Vectors of a model's items or users. A row whose vector is zero has no direction: it gets no list and is
            on none. The bias plays no part.
        k: Length of the lists.
        among: Other vectors of the same rows: the best are those with the largest inner product of the row's vector
            and the other's one here. None: the smallest angles between the rows' own.
        excluded: Rows that get a list, but are on none.
        only: The rows that get one; None: all.
        block_mb: Memory of a block of scores, per worker process.
        pass_mb: Memory of the vectors that a worker searches at once.

    Returns:
        ``(query_idx int, item_idx int, rank int, score float)``, the first two row numbers: the cosine, within -1 … 1,
        or the inner product; ties by the smaller row.

    Raises:
        InvariantError: The two do not have the same rows.
    """
    import pyarrow as pa

    directions, eligible = unit_vectors(rows)
    matrix = ItemMatrix(directions, None, eligible)
    if among is not None:
        if among.vectors.shape != rows.vectors.shape:
            raise InvariantError(f"vectors of {rows.vectors.shape}, to be held against {among.vectors.shape}")
        directions, matrix = rows.vectors, among
    asked = eligible if only is None else eligible & np.isin(np.arange(len(eligible)), only)
    numbers = np.flatnonzero(asked).astype(np.int32)
    ends = np.arange(len(numbers) + 1, dtype=np.int64) * directions.shape[1]
    lists = pa.LargeListArray.from_arrays(pa.array(ends), pa.array(directions[numbers].ravel()))
    queries = spark.createDataFrame(pa.table({QUERY_IDX: pa.array(numbers), VECTOR: lists}))
    itself = spark.createDataFrame(pa.table({QUERY_IDX: pa.array(numbers), ITEM_IDX: pa.array(numbers)}))
    matrix = matrix if excluded is None else matrix.without(excluded)
    return top_k(queries, matrix, key=QUERY_IDX, k=k, seen=itself, block_mb=block_mb, pass_mb=pass_mb)


def unit_vectors(rows: ItemMatrix) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """The vectors at length 1, float32 ``[n, d]``, and which rows are eligible and have a direction, bool ``[n]``."""
    lengths = np.linalg.norm(rows.vectors.astype(np.float64), axis=1)
    eligible = lengths > 0
    if rows.eligible is not None:
        eligible &= rows.eligible
    return (rows.vectors / np.where(lengths > 0, lengths, 1.0)[:, None]).astype(np.float32), eligible
