"""Errors of predicted ratings, and which ratings are held out at random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sparkrec.errors import InvariantError
from sparkrec.evaluation.values import MetricValue
from sparkrec.settings.sections import EvaluationConfig
from sparkrec.warehouse.tables import ITEM_IDX, RATING, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

PREDICTED, KNOWN = "predicted", "known"
BINS = 20  # of a calibration
_PARTS = 1_000_000


def held_out_at_random(config: EvaluationConfig) -> Column:
    """Whether a pair ``(user_idx, item_idx)`` is held out where ``evaluation.ratings`` is ``random``: by a hash."""
    import pyspark.sql.functions as F

    place = F.pmod(F.xxhash64(USER_IDX, ITEM_IDX, F.lit(config.ratings_seed)), F.lit(_PARTS))
    return place < int(config.ratings_share * _PARTS)


class Bin(NamedTuple):
    """Held-out ratings of which about the same was predicted; n of them."""

    place: int  # from 0, of BINS equal parts of the scale
    known: bool  # user and item have ratings in training
    n: int
    squares: float  # of the errors, summed
    absolute: float  # likewise
    predicted: float  # summed
    rating: float  # summed


def rating_bins(predictions: DataFrame, low: float, high: float) -> list[Bin]:
    """Held-out ratings by what was predicted, cut to the scale, in one pass.

    Args:
        predictions: ``(rating float, predicted float, known boolean)``; known: user and item have ratings in training.
        low: The lowest rating of the scale.
        high: The highest.

    Raises:
        InvariantError: Nothing is held out, or a rating or a prediction is null or not a number.
    """
    import pyspark.sql.functions as F

    usable = F.col(PREDICTED).isNotNull() & ~F.isnan(PREDICTED) & F.col(RATING).isNotNull()
    cut = F.least(F.greatest(F.col(PREDICTED).cast("double"), F.lit(float(low))), F.lit(float(high)))
    place = F.floor((cut - F.lit(float(low))) * (BINS / max(high - low, 1e-12)))
    rows = predictions.select(
        F.when(usable, F.least(place, F.lit(BINS - 1))).cast("int").alias("place"),
        KNOWN, cut.alias("cut"), F.col(RATING).cast("double").alias(RATING), (cut - F.col(RATING)).alias("error"),
    )  # fmt: skip
    sums = [
        F.sum(one).alias(name)
        for name, one in (
            ("squares", F.col("error") * F.col("error")),
            ("absolute", F.abs("error")),
            ("predicted", F.col("cut")),
            ("rating", F.col(RATING)),
        )
    ]
    found = [Bin(*row) for row in rows.groupBy("place", KNOWN).agg(F.count("*").alias("n"), *sums).collect()]
    missing = sum(one.n for one in found if one.place is None)
    if missing or not found:
        n = sum(one.n for one in found)
        raise InvariantError(f"{missing} of {n} held-out ratings cannot be judged: nothing to judge by")
    return sorted(found)


def rating_metrics(bins: Sequence[Bin]) -> list[MetricValue]:
    """RMSE and MAE of predictions of held-out ratings.

    Args:
        bins: Of ``rating_bins``.

    Returns:
        ``rmse`` and ``mae`` over all ratings, ``rmse_warm`` and ``mae_warm`` over the known pairs, ``rmse_cold`` and
        ``mae_cold`` over the others (absent when there is none); the ``n`` tell how many they are.
    """
    values = []
    for part, mine in (
        ("", list(bins)),
        ("_warm", [one for one in bins if one.known]),
        ("_cold", [one for one in bins if not one.known]),
    ):
        if n := sum(one.n for one in mine):
            rmse = (math.fsum(one.squares for one in mine) / n) ** 0.5
            values.append(MetricValue(f"rmse{part}", None, rmse, n))
            values.append(MetricValue(f"mae{part}", None, math.fsum(one.absolute for one in mine) / n, n))
    return values


class Calibrated(NamedTuple):
    """What was rated where about the same was predicted."""

    place: int  # of BINS equal parts of the scale, from 0
    predicted: float  # mean
    rating: float  # mean
    n: int


def calibration(bins: Sequence[Bin]) -> list[Calibrated]:
    """The mean prediction and the mean rating of each part of the scale that something was predicted in."""
    found = []
    for place in sorted({one.place for one in bins}):
        mine = [one for one in bins if one.place == place]
        n = sum(one.n for one in mine)
        predicted, rating = (math.fsum(getattr(one, what) for one in mine) / n for what in ("predicted", "rating"))
        found.append(Calibrated(place, predicted, rating, n))
    return found
