"""Items beside items: the nearest vectors by cosine, from the same engine as the users' lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparkrec.retrieval.topk import VECTOR, IntArray, ItemMatrix, top_k
from sparkrec.tables import ITEM_IDX, QUERY_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def similar_items(
    spark: SparkSession, items: ItemMatrix, *, k: int, excluded: IntArray | None = None, block_mb: int = 64
) -> DataFrame:
    """For each eligible item the ``k`` others whose vectors make the smallest angles with its own.

    Args:
        spark: The session.
        items: Vectors of a factor model or of an item tower. An item whose vector is zero has no direction: it gets no
            list and is on none. The bias plays no part.
        k: Length of the lists.
        excluded: ``item_idx`` of items that get a list, but are on none.
        block_mb: Memory of a block of scores, per worker process.

    Returns:
        ``(query_idx int, item_idx int, rank int, score float)``: the cosine, within -1 … 1; ties by the smaller item.
    """
    import pyarrow as pa

    lengths = np.linalg.norm(items.vectors.astype(np.float64), axis=1)
    eligible = lengths > 0
    if items.eligible is not None:
        eligible &= items.eligible
    directions = (items.vectors / np.where(lengths > 0, lengths, 1.0)[:, None]).astype(np.float32)
    rows = np.flatnonzero(eligible).astype(np.int32)
    width = directions.shape[1]
    lists = pa.ListArray.from_arrays(
        pa.array(np.arange(len(rows) + 1, dtype=np.int32) * width), pa.array(directions[rows].ravel())
    )
    queries = spark.createDataFrame(pa.table({QUERY_IDX: pa.array(rows), VECTOR: lists}))
    itself = spark.createDataFrame(pa.table({QUERY_IDX: pa.array(rows), ITEM_IDX: pa.array(rows)}))
    matrix = ItemMatrix(directions, None, eligible)
    matrix = matrix if excluded is None else matrix.without(excluded)
    return top_k(queries, matrix, key=QUERY_IDX, k=k, seen=itself, block_mb=block_mb)
