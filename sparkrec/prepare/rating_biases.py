"""The mean and the regularised biases of ratings: what is expected of a pair before any model of tastes, on Spark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from sparkrec.errors import NothingToTrain
from sparkrec.prepare.shrinkage import shrinkage
from sparkrec.warehouse.tables import ITEM_IDX, RATING, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

USER_BIAS, ITEM_BIAS, EXPECTED = "user_bias", "item_bias", "expected"
SWEEPS = 3


@dataclass(frozen=True)
class RatingBiases:
    """What is expected of a rating: mean + b_u + b_i, 0 for a user or an item without a rating.

    Attributes:
        mean: Of the ratings.
        low: The lowest rating.
        high: The highest.
        users: ``(user_idx int, user_bias double)``, those with a rating.
        items: ``(item_idx int, item_bias double)``, likewise.
    """

    mean: float
    low: float
    high: float
    users: DataFrame
    items: DataFrame

    def of(self, pairs: DataFrame) -> DataFrame:
        """The pairs ``(user_idx, item_idx, …)`` with ``user_bias``, ``item_bias`` (null: none) and ``expected``."""
        joined = pairs.join(self.users, USER_IDX, "left").join(self.items, ITEM_IDX, "left")
        biases = [F.coalesce(F.col(name), F.lit(0.0)) for name in (USER_BIAS, ITEM_BIAS)]
        return joined.withColumn(EXPECTED, self.mean + biases[0] + biases[1])


def rating_biases(ratings: DataFrame) -> RatingBiases:
    """Fits them: b_i = Σ_u (r − μ − b_u) / (λ_i + n_i), then b_u likewise, ``SWEEPS`` times.

    The form is that of Koren 2010 ("Factor in the neighbors", sec. 2.1), swept. λ are no settings: ``shrinkage`` has
    them from the ratings' variances.

    Args:
        ratings: ``(user_idx int, item_idx int, rating float)``, each pair once; read several times.

    Raises:
        NothingToTrain: There is no rating.
    """
    known = ratings.where(F.col(RATING).isNotNull()).select(USER_IDX, ITEM_IDX, F.col(RATING).cast("double"))
    r = F.col(RATING)
    row = known.agg(F.count("*"), F.avg(r), F.var_pop(r), F.min(r), F.max(r)).head()
    if row is None or not row[0]:
        raise NothingToTrain("no ratings", where="user_item", fix="a log whose format declares value")
    _, mean, variance, low, high = row
    above = known.withColumn("e", r - mean)
    users, items = shrinkage(variance, _shared(above, USER_IDX), _shared(above, ITEM_IDX))
    of_users = known.select(USER_IDX).distinct().withColumn(USER_BIAS, F.lit(0.0))
    for _ in range(SWEEPS):
        of_items = _biases(above.join(of_users, USER_IDX), ITEM_IDX, USER_BIAS, ITEM_BIAS, items)
        of_users = _biases(above.join(of_items, ITEM_IDX), USER_IDX, ITEM_BIAS, USER_BIAS, users)
    return RatingBiases(mean, low, high, of_users, of_items)


def _shared(above: DataFrame, key: str) -> float:
    """The variance that the ratings of a user, or of an item, have in common; 0 where it cannot be told."""
    sums = above.groupBy(key).agg(F.count("*").alias("n"), F.sum("e").alias("s"), F.sum(F.col("e") ** 2).alias("q"))
    several = sums.where("n > 1").agg(F.sum((F.col("s") ** 2 - F.col("q")) / (F.col("n") - 1)), F.sum("n")).head()
    return max(several[0] / several[1], 0.0) if several is not None and several[1] else 0.0


def _biases(joined: DataFrame, key: str, other: str, name: str, shrunk: float) -> DataFrame:
    left = F.sum(F.col("e") - F.col(other)) / (F.count("*") + shrunk)
    return joined.groupBy(key).agg(left.alias(name))
