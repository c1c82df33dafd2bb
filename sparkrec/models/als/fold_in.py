"""Users and items that came after the training of ALS: their factors, the others' held fixed.

The step that MLlib takes in each half of an iteration, for a few rows. For a user with the weights w over the items i,
and the items' factors y_i as they are:

    implicit:  (Σ_all y y' + Σ_i α w_i y_i y_i' + λ n I) x = Σ_i (1 + α w_i) y_i     n: the w_i above 0
    explicit:  (Σ_i y_i y_i' + λ n I) x = Σ_i r_i y_i                               n: all ratings

(Hu, Koren, Volinsky 2008, eq. 4; Zhou et al. 2008, eq. 3, with ALS-WR's n.) An item's from its users likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparkrec.models.als.settings import AlsConfig
from sparkrec.models.als.train import VECTOR
from sparkrec.processes import begin_task
from sparkrec.warehouse.tables import CONFIDENCE, IDX, RATING

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

Matrix = npt.NDArray[np.float64]
_SWEEPS, _CLOSE = 10_000, 1e-10


def fold_in(user_item: DataFrame, factors: DataFrame, config: AlsConfig, *, new: str, known: str) -> DataFrame:
    """Factors of new users from the items that they took, or of new items from their users.

    Args:
        user_item: In the columns of ``tables.USER_ITEM``: the rows of the new ones.
        factors: ``(idx int, vector array<float>[rank])`` of the other side, as trained.
        config: As trained with.
        new: The column of those that want factors: ``user_idx`` or ``item_idx``.
        known: The other one.

    Returns:
        ``(idx int, vector array<float>[rank])``; none for whom nothing known is left.
    """
    import pyspark.sql.functions as F

    value = RATING if config.feedback == "explicit" else CONFIDENCE
    rows = user_item.where(F.col(value).isNotNull()).select(new, known, F.col(value).cast("double").alias("value"))
    joined = rows.join(factors.withColumnRenamed(IDX, known), known, "inner").select(new, "value", VECTOR)
    gram = _gram(factors, config.rank) if config.feedback == "implicit" else np.zeros((config.rank, config.rank))

    def solve(group: pa.Table) -> pa.Table:
        import pyarrow as pa

        begin_task()
        vectors = group.column(VECTOR).combine_chunks().flatten().to_numpy().reshape(len(group), -1)
        x = solved(vectors.astype(np.float64), group.column("value").to_numpy(), gram, config)
        return pa.table({
            IDX: group.column(new).slice(0, 1).cast(pa.int32()),
            VECTOR: pa.array([x.astype(np.float32)], pa.list_(pa.float32())),
        })  # fmt: skip

    return joined.groupBy(new).applyInArrow(solve, f"{IDX} int, {VECTOR} array<float>")


def solved(vectors: Matrix, values: Matrix, gram: Matrix, config: AlsConfig) -> Matrix:
    """The factors of one row.

    Args:
        vectors: float64 ``[n, rank]``: the factors of what it took.
        values: float64 ``[n]``: weights (implicit) or ratings.
        gram: float64 ``[rank, rank]``: Σ y y' over the whole other side; zeros for explicit feedback.
        config: As trained with.

    Returns:
        float64 ``[rank]``.
    """
    if config.feedback == "implicit":
        extra = config.alpha * np.abs(values)
        left, right = gram + (vectors.T * extra) @ vectors, vectors.T @ np.where(values > 0, 1.0 + extra, 0.0)
        n = int((values > 0).sum())
    else:
        left, right, n = vectors.T @ vectors, vectors.T @ values, len(values)
    left = left + config.reg * n * np.eye(len(left))
    return _nonnegative(left, right) if config.nonnegative else np.linalg.lstsq(left, right, rcond=None)[0]


def _nonnegative(left: Matrix, right: Matrix) -> Matrix:
    """The x >= 0 that makes x'Ax / 2 - b'x smallest, by coordinate descent."""
    x = np.zeros(len(right))
    for _ in range(_SWEEPS):
        moved = 0.0
        for j in range(len(x)):
            if left[j, j] > 0:
                better = max(0.0, x[j] - (left[j] @ x - right[j]) / left[j, j])
                moved, x[j] = max(moved, abs(better - x[j])), better
        if moved <= _CLOSE * max(1.0, float(np.abs(x).max())):
            break
    return x


def _gram(factors: DataFrame, rank: int) -> Matrix:
    """float64 ``[rank, rank]``: Σ y y', summed up on the executors."""
    import pyspark.sql.functions as F

    def add_up(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        begin_task()
        total = np.zeros((rank, rank))
        for batch in batches:
            vectors = batch.column(0).flatten().to_numpy().reshape(len(batch), -1).astype(np.float64)
            total += vectors.T @ vectors
        yield pa.RecordBatch.from_arrays([pa.array(range(rank * rank)), pa.array(total.ravel())], names=["at", "sum"])

    parts = factors.select(VECTOR).mapInArrow(add_up, "at bigint, sum double")
    found = parts.groupBy("at").agg(F.sum("sum").alias("sum")).toArrow()
    gram = np.zeros(rank * rank)
    gram[found.column("at").to_numpy()] = found.column("sum").to_numpy()
    return gram.reshape(rank, rank)
