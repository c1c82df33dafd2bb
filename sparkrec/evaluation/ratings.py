"""Errors of predicted ratings, and which ratings are held out at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparkrec.errors import InvariantError
from sparkrec.evaluation.values import MetricValue
from sparkrec.settings.sections import EvaluationConfig
from sparkrec.warehouse.tables import ITEM_IDX, RATING, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

PREDICTED, KNOWN = "predicted", "known"
_PARTS = 1_000_000


def held_out_at_random(config: EvaluationConfig) -> Column:
    """Whether a pair ``(user_idx, item_idx)`` is held out where ``evaluation.ratings`` is ``random``: by a hash."""
    import pyspark.sql.functions as F

    place = F.pmod(F.xxhash64(USER_IDX, ITEM_IDX, F.lit(config.ratings_seed)), F.lit(_PARTS))
    return place < int(config.ratings_share * _PARTS)


def rating_metrics(predictions: DataFrame, low: float, high: float) -> list[MetricValue]:
    """RMSE and MAE of predictions of held-out ratings, which are cut to the scale.

    Args:
        predictions: ``(rating float, predicted float, known boolean)``; known: user and item have ratings in training.
        low: The lowest rating of the scale.
        high: The highest.

    Returns:
        ``rmse`` and ``mae`` over all ratings, ``rmse_warm`` and ``mae_warm`` over the known pairs, ``rmse_cold`` and
        ``mae_cold`` over the others (absent when there is none); the ``n`` tell how many they are.

    Raises:
        InvariantError: Nothing is held out, or a rating or a prediction is null or not a number.
    """
    import pyspark.sql.functions as F

    cut = F.least(F.greatest(F.col(PREDICTED).cast("double"), F.lit(float(low))), F.lit(float(high)))
    usable = F.col(PREDICTED).isNotNull() & ~F.isnan(PREDICTED)
    errors = predictions.select(F.when(usable, cut - F.col(RATING)).alias("error"), KNOWN)
    row = _means(errors)
    if not row["n"] or row["missing"]:
        raise InvariantError(f"{row['missing']} of {row['n']} held-out ratings cannot be judged: nothing to judge by")
    values = []
    for part, n in (("", row["n"]), ("_warm", row["n_warm"]), ("_cold", row["n"] - row["n_warm"])):
        if n:
            values += [MetricValue(f"{name}{part}", None, row[f"{name}{part}"], n) for name in ("rmse", "mae")]
    return values


def _means(errors: DataFrame) -> dict[str, Any]:
    import pyspark.sql.functions as F

    error = F.col("error")
    parts = {"": error, "_warm": F.when(F.col(KNOWN), error), "_cold": F.when(~F.col(KNOWN), error)}
    means = [
        one
        for part, of in parts.items()
        for one in (F.sqrt(F.avg(of * of)).alias(f"rmse{part}"), F.avg(F.abs(of)).alias(f"mae{part}"))
    ]
    row = errors.agg(
        F.count("*").alias("n"), F.count_if(KNOWN).alias("n_warm"), F.count_if(error.isNull()).alias("missing"), *means
    ).first()
    return row.asDict()  # type: ignore[union-attr]
