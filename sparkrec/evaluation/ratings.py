"""Errors of predicted ratings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparkrec.errors import InvariantError
from sparkrec.evaluation.values import MetricValue
from sparkrec.warehouse.tables import IDX, ITEM_IDX, RATING, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def rating_metrics(
    held_out: DataFrame, user_factors: DataFrame, item_factors: DataFrame, fallback: float
) -> list[MetricValue]:
    """RMSE and MAE of factor models on held-out ratings.

    Args:
        held_out: ``(user_idx int, item_idx int, rating float)``.
        user_factors: ``(idx int, vector array<float>)``.
        item_factors: ``(idx int, vector array<float>)``.
        fallback: Prediction for a pair whose user or item has no vector: the mean training rating.

    Returns:
        ``rmse`` and ``mae`` over all ratings, cold pairs predicted by ``fallback``; ``rmse_warm`` and ``mae_warm``
        over the pairs with both vectors (absent when there is none); the two ``n`` tell how many were cold.

    Raises:
        InvariantError: Nothing is held out, or a rating is null.
    """
    import pyspark.sql.functions as F

    users = user_factors.select(F.col(IDX).alias(USER_IDX), F.col("vector").alias("u"))
    items = item_factors.select(F.col(IDX).alias(ITEM_IDX), F.col("vector").alias("v"))
    joined = held_out.select(USER_IDX, ITEM_IDX, RATING).join(users, USER_IDX, "left").join(items, ITEM_IDX, "left")
    products = F.zip_with("u", "v", lambda x, y: x.cast("double") * y)
    dot = F.aggregate(products, F.lit(0.0), lambda total, value: total + value)
    warm = F.col("u").isNotNull() & F.col("v").isNotNull()
    errors = joined.select(warm.alias("warm"), (F.when(warm, dot).otherwise(fallback) - F.col(RATING)).alias("error"))
    row = _means(errors)
    if not row["n"] or row["missing"]:
        raise InvariantError(f"{row['missing']} of {row['n']} held-out ratings are null: nothing to judge by")
    values = [MetricValue("rmse", None, row["rmse"], row["n"]), MetricValue("mae", None, row["mae"], row["n"])]
    if row["n_warm"]:
        values.append(MetricValue("rmse_warm", None, row["rmse_warm"], row["n_warm"]))
        values.append(MetricValue("mae_warm", None, row["mae_warm"], row["n_warm"]))
    return values


def _means(errors: DataFrame) -> dict[str, Any]:
    import pyspark.sql.functions as F

    error, warm = F.col("error"), F.when(F.col("warm"), F.col("error"))
    row = errors.agg(
        F.count("*").alias("n"),
        F.count(warm).alias("n_warm"),
        F.count_if(error.isNull()).alias("missing"),
        F.sqrt(F.avg(error * error)).alias("rmse"),
        F.avg(F.abs(error)).alias("mae"),
        F.sqrt(F.avg(warm * warm)).alias("rmse_warm"),
        F.avg(F.abs(warm)).alias("mae_warm"),
    ).first()
    return row.asDict()  # type: ignore[union-attr]
