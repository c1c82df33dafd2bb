"""Ratings predicted by explicit ALS: the mean, the biases of user and item, and the factors of what these leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sparkrec.evaluation.ratings import PREDICTED
from sparkrec.models.als.train import ITEM_FACTORS, MODEL_FILE, USER_FACTORS, VECTOR, load_als
from sparkrec.prepare.rating_biases import EXPECTED, ITEM_BIAS, USER_BIAS, RatingBiases
from sparkrec.storage import files
from sparkrec.warehouse.tables import IDX, ITEM_IDX, RATING, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

USER_BIASES, ITEM_BIASES, SCALE, LEFT = "user_biases", "item_biases", "scale.json", "left.json"


class Left(NamedTuple):
    """What the biases leave of the ratings.

    Attributes:
        deviation: Of it; the unit of what the factors learn.
        reg: The λ that they are learnt with.
    """

    deviation: float = 1.0
    reg: float = 0.0


def residuals(matrix: DataFrame, biases: RatingBiases, deviation: float = 1.0) -> DataFrame:
    """The user-item matrix with what the biases leave of each rating, in such deviations, in its place."""
    import pyspark.sql.functions as F

    left = ((F.col(RATING) - F.col(EXPECTED)) / F.lit(deviation)).cast("float")
    return biases.of(matrix).withColumn(RATING, left).select(*matrix.columns)


def left_by(matrix: DataFrame, biases: RatingBiases, residual_reg: float | None) -> Left:
    """The deviation of what the biases leave, and the λ for it.

    ALS-WR's penalty is λ times a trace norm weighted by the square roots of the counts (Srebro, Salakhutdinov,
    "Collaborative Filtering in a Non-Uniform World: Learning with the Weighted Trace Norm", NIPS 2010): factors are 0
    where λ is at least the largest singular value of E_ui / √(n_u n_i), E what the biases leave in deviations. Were it
    noise, that would be about √(users / ratings) + √(items / ratings), with the means of the counts for each (Davidson,
    Szarek, "Local Operator Theory, Random Matrices and Banach Spaces", 2001, theorem II.13).

    Args:
        matrix: In the columns of ``tables.USER_ITEM``, all with a rating.
        biases: Fitted to it.
        residual_reg: λ, where it is set.
    """
    import pyspark.sql.functions as F

    counts = F.count("*"), F.count_distinct(USER_IDX), F.count_distinct(ITEM_IDX), F.stddev_pop(RATING)
    n, users, items, deviation = residuals(matrix, biases).agg(*counts).first()  # type: ignore[misc]
    reg = (users / n) ** 0.5 + (items / n) ** 0.5 if residual_reg is None else residual_reg
    return Left(max(deviation, 1e-6), reg)


def save_biases(biases: RatingBiases, left: Left | None, path: str) -> None:
    """Writes them into a model's folder: Parquet for users and items, JSON for the scale and for what they leave.

    Args:
        biases: The biases.
        left: Where the factors are of that; None: they are of the ratings.
        path: The folder.
    """
    biases.users.coalesce(1).write.mode("overwrite").parquet(files.join(path, USER_BIASES))
    biases.items.coalesce(1).write.mode("overwrite").parquet(files.join(path, ITEM_BIASES))
    files.write_json(files.join(path, SCALE), {"mean": biases.mean, "low": biases.low, "high": biases.high})
    if left is not None:
        files.write_json(files.join(path, LEFT), left._asdict())


def load_biases(spark: SparkSession, path: str) -> RatingBiases:
    """Reads what ``save_biases`` wrote."""
    scale = files.read_json(files.join(path, SCALE))
    users = spark.read.schema(f"{USER_IDX} int, {USER_BIAS} double").parquet(files.join(path, USER_BIASES))
    items = spark.read.schema(f"{ITEM_IDX} int, {ITEM_BIAS} double").parquet(files.join(path, ITEM_BIASES))
    return RatingBiases(scale["mean"], scale["low"], scale["high"], users, items)


def load_left(path: str) -> Left:
    """Likewise; of a model whose factors are of the ratings, or of an earlier version, the unit is 1."""
    where = files.join(path, LEFT)
    return Left(**files.read_json(where)) if files.exists(where) else Left()


def predictions(spark: SparkSession, path: str, biased: bool) -> Callable[[DataFrame], DataFrame]:
    """What appends ``predicted float`` to pairs ``(user_idx, item_idx, …)``.

    A pair of which one side has no factors is predicted by the biases; without biases by the mean.
    """
    import pyspark.sql.functions as F

    model, biases, unit = load_als(spark, path), load_biases(spark, path), load_left(path).deviation
    users = model.user_factors.select(F.col(IDX).alias(USER_IDX), F.col(VECTOR).alias("u"))
    items = model.item_factors.select(F.col(IDX).alias(ITEM_IDX), F.col(VECTOR).alias("v"))

    def predict(pairs: DataFrame) -> DataFrame:
        joined = pairs.join(users, USER_IDX, "left").join(items, ITEM_IDX, "left")
        products = F.zip_with("u", "v", lambda x, y: x.cast("double") * y)
        dot = F.aggregate(products, F.lit(0.0), lambda total, value: total + value)
        warm = F.col("u").isNotNull() & F.col("v").isNotNull()
        if not biased:
            return joined.withColumn(PREDICTED, F.when(warm, dot).otherwise(biases.mean)).drop("u", "v")
        both = biases.of(joined.withColumn("dot", F.when(warm, dot).otherwise(0.0)).drop(*_BIASES))
        columns = [F.col(name) for name in pairs.columns if name not in _BIASES]
        return both.select(*columns, (F.col(EXPECTED) + F.col("dot") * F.lit(unit)).alias(PREDICTED))

    return predict


_BIASES = (USER_BIAS, ITEM_BIAS, EXPECTED)


def pair_ratings(path: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The same without Spark, for pairs as arrays: only the rows that these need are read."""
    scale: dict[str, float] = files.read_json(files.join(path, SCALE))
    settings: dict[str, Any] = files.read_json(files.join(path, MODEL_FILE)).get("settings", {})
    biased = settings.get("biases", False) and not settings.get("nonnegative", False)
    unit = load_left(path).deviation

    def predict(user: np.ndarray, item: np.ndarray) -> np.ndarray:
        u, v = _rows(path, USER_FACTORS, IDX, VECTOR, user), _rows(path, ITEM_FACTORS, IDX, VECTOR, item)
        found = np.array([np.dot(u[a], v[b]) if a in u and b in v else np.nan for a, b in zip(user, item, strict=True)])
        if biased:
            of_users = _rows(path, USER_BIASES, USER_IDX, USER_BIAS, user)
            of_items = _rows(path, ITEM_BIASES, ITEM_IDX, ITEM_BIAS, item)
            both = [of_users.get(a, 0.0) + of_items.get(b, 0.0) for a, b in zip(user, item, strict=True)]
            found = scale["mean"] + np.array(both) + unit * np.nan_to_num(found)
        found = np.where(np.isnan(found), scale["mean"], found)
        return np.clip(found, scale["low"], scale["high"]).astype(np.float32)

    return predict


def _rows(path: str, name: str, key: str, value: str, wanted: np.ndarray) -> dict[int, Any]:
    """The values of some numbers."""
    import pyarrow.parquet as pq

    filesystem, inside = files.resolve(files.join(path, name))
    table = pq.read_table(inside, filters=[(key, "in", np.unique(wanted).tolist())], filesystem=filesystem)
    values = table.column(value).to_pylist()
    return {
        number: np.asarray(one, dtype=np.float64) if isinstance(one, list) else one
        for number, one in zip(table.column(key).to_pylist(), values, strict=True)
    }
