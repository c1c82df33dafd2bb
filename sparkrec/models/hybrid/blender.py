"""A hybrid: the union of several models' candidates, ranked by a classifier that has seen what users took of such.

The second stage of a two-stage recommender (Covington, Adams, Sargin: "Deep Neural Networks for YouTube
Recommendations", RecSys 2016, sec. 4): the models propose, MLlib's logistic regression or gradient-boosted trees, or a
network (``network``), decide, by the items' ranks in the models' lists, recent popularity's among them, and where asked
for by what is known of the item and of the user's activity. The classifier learns from a time that none of the models
had seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import reduce
from typing import TYPE_CHECKING, Any

from sparkrec.errors import NothingToTrain, UserError
from sparkrec.models.hybrid.serve import NetworkBlender
from sparkrec.models.hybrid.settings import HybridConfig
from sparkrec.models.hybrid.train import LABEL
from sparkrec.models.popularity.counts import popularities
from sparkrec.prepare.cut import micros, utc
from sparkrec.prepare.user_item import MICROS_PER_DAY
from sparkrec.prepare.weights import counted
from sparkrec.storage import files
from sparkrec.warehouse.tables import ITEM_IDX, RANK, SCORE, TS, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

BLENDER, MODEL_FILE = "blender", "model.json"
FEATURES, MARGIN = "features", "rawPrediction"
WINDOWS_DAYS = (1.0, 7.0, 30.0, None)  # of the items' popularity; None: all time
PARTITIONS_PER_CORE = 2
UNLISTED = 1.5  # the rank, by the list's length, that an item which is not on it is taken to have


def candidates(lists: Mapping[str, DataFrame], longest: int) -> DataFrame:
    """The union of the models' lists, a row for each pair.

    Args:
        lists: Model → ``(user_idx int, item_idx int, rank int, score float)``.
        longest: How long a list may be.

    Returns:
        ``(user_idx, item_idx)`` and for each model ``<model>_log_rank`` = ln(1.5 longest / rank), 0 where it does not
        list the item. A score says no more: its scale is another for each user, and a list's range hangs on its end.
    """
    import pyspark.sql.functions as F

    rows = reduce(
        lambda a, b: a.unionByName(b),
        [one.select(USER_IDX, ITEM_IDX, RANK).withColumn("_model", F.lit(name)) for name, one in lists.items()],
    )
    placed = {name: F.max(F.when(F.col("_model") == name, F.log(UNLISTED * longest / F.col(RANK)))) for name in lists}
    columns = [F.coalesce(found, F.lit(0.0)).alias(f"{name}_log_rank") for name, found in placed.items()]
    return rows.groupBy(USER_IDX, ITEM_IDX).agg(*columns)


def candidate_features(models: Sequence[str]) -> list[str]:
    """Names of the features that ``candidates`` makes."""
    return [f"{name}_log_rank" for name in models]


def context_features() -> list[str]:
    """Names of the features that ``with_context`` adds."""
    windows = ["users_ever" if days is None else f"users_{days:g}d" for days in WINDOWS_DAYS]
    return [*windows, "item_age", "item_recency", "user_events", "user_recency"]


def with_context(
    rows: DataFrame, interactions: DataFrame, event_weights: Mapping[str, float], as_of: datetime
) -> DataFrame:
    """Adds what is known of the items and the users before a time; all of it as ln(1 + x).

    Args:
        rows: ``(user_idx, item_idx, …)``.
        interactions: In the columns of ``tables.INTERACTIONS``.
        event_weights: Weight by event type; events without one do not count.
        as_of: Events from this time on are not seen, UTC.

    Returns:
        The rows with ``users_<window>``: users who took the item within it; ``item_age`` and ``item_recency``: days
        since it was first and last taken; ``user_events``, and ``user_recency``: days since the user's last one.
    """
    import pyspark.sql.functions as F

    taken = counted(interactions, event_weights).where(F.col(TS) < utc(as_of))
    times = (_days(F.min(TS), as_of).alias("item_age"), _days(F.max(TS), as_of).alias("item_recency"))
    windows = dict(zip(context_features(), WINDOWS_DAYS, strict=False))
    popular = popularities(interactions, event_weights, as_of, windows)
    items = taken.groupBy(ITEM_IDX).agg(*times).join(popular, ITEM_IDX, "left")
    known = taken.where(F.col(USER_IDX).isNotNull()).groupBy(USER_IDX)
    users = known.agg(F.count("*").alias("user_events"), _days(F.max(TS), as_of).alias("user_recency"))
    joined = rows.join(F.broadcast(items), ITEM_IDX, "left").join(users, USER_IDX, "left")
    logs = {name: F.log1p(F.coalesce(F.col(name), F.lit(0.0)).cast("double")) for name in context_features()}
    return joined.withColumns(logs)


def fit_blender(rows: DataFrame, taken: DataFrame, names: Sequence[str], config: HybridConfig) -> tuple[Any, int, int]:
    """Learns which candidates users take.

    Args:
        rows: Candidates with their features.
        taken: ``(user_idx, item_idx)``, distinct: what the users took after the candidates were made.
        names: The features, in order.
        config: The classifier's settings.

    Returns:
        The fitted classifier of MLlib, the number of candidates, and how many of them were taken.

    Raises:
        UserError: None or all of the candidates were taken: there is nothing to learn.
    """
    from pyspark import StorageLevel

    rows = _in_order(labelled(rows, taken))
    examples = _assembled(rows, names).select(LABEL, FEATURES).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        n, hits = counted_hits(examples)
        return _estimator(config).fit(examples), n, hits
    finally:
        examples.unpersist()


def labelled(rows: DataFrame, taken: DataFrame) -> DataFrame:
    """The candidates of users who took something, with ``label double``: 1 where it was the candidate.

    Args:
        rows: Candidates with their features.
        taken: ``(user_idx, item_idx)``, distinct.
    """
    import pyspark.sql.functions as F

    truth = taken.select(USER_IDX, ITEM_IDX, F.lit(1.0).alias(LABEL))
    judged = rows.join(truth.select(USER_IDX).distinct(), USER_IDX, "left_semi")
    return judged.join(truth, [USER_IDX, ITEM_IDX], "left").fillna(0.0, LABEL)


def counted_hits(examples: DataFrame) -> tuple[int, int]:
    """The number of labelled candidates, and how many of them were taken.

    Raises:
        NothingToTrain: None or all of them.
    """
    import pyspark.sql.functions as F

    n, hits = examples.agg(F.count("*"), F.coalesce(F.sum(LABEL), F.lit(0.0))).first()  # type: ignore[misc]
    if not 0 < hits < n:
        raise NothingToTrain(
            "nothing for the hybrid to learn from",
            where=f"{n} candidates, {int(hits)} of them taken",
            fix="a longer hold-out (evaluation.holdout_days), or more hybrid.candidates",
        )
    return int(n), int(hits)


def blended(blender: Any, rows: DataFrame, names: Sequence[str], k: int) -> DataFrame:
    """The best candidates of each user by the classifier's margin, ties by the smaller item.

    Args:
        blender: From ``fit_blender`` or ``load_blender``, or a ``serve.NetworkBlender``.
        rows: Candidates with their features.
        names: The features, in the order that the blender was fitted with.
        k: Length of the lists.

    Returns:
        ``(user_idx int, item_idx int, rank int, score float)``; the score is the log-odds, or the trees' sum.
    """
    import pyspark.sql.functions as F
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import Window

    if isinstance(blender, NetworkBlender):
        return blender.lists(rows, names, k)
    scored = blender.transform(_assembled(rows, names))
    scores = scored.select(USER_IDX, ITEM_IDX, vector_to_array(F.col(MARGIN))[1].cast("float").alias(SCORE))
    best = Window.partitionBy(USER_IDX).orderBy(F.desc(SCORE), ITEM_IDX)
    ranked = scores.withColumn(RANK, F.row_number().over(best)).where(F.col(RANK) <= k)
    return ranked.select(USER_IDX, ITEM_IDX, RANK, SCORE)


def save_blender(blender: Any, path: str, meta: Mapping[str, Any]) -> None:
    """Writes the classifier in MLlib's own format (JSON and Parquet), and then ``model.json``."""
    blender.write().overwrite().save(files.join(path, BLENDER))
    files.write_json(files.join(path, MODEL_FILE), dict(meta))


def read_meta(path: str) -> dict[str, Any]:
    """The ``meta`` of a stored blender, whose ``blender`` says of which kind it is.

    Raises:
        UserError: There is none.
    """
    if not files.exists(files.join(path, MODEL_FILE)):
        raise UserError("no hybrid", where=path, fix="run train_hybrid first")
    meta: dict[str, Any] = files.read_json(files.join(path, MODEL_FILE))
    return meta


def load_blender(path: str) -> tuple[Any, dict[str, Any]]:
    """Reads what ``save_blender`` wrote: the classifier and its ``meta``.

    Raises:
        UserError: There is none.
    """
    from pyspark.ml.classification import GBTClassificationModel, LogisticRegressionModel

    meta = read_meta(path)
    kind = GBTClassificationModel if meta["blender"] == "trees" else LogisticRegressionModel
    return kind.load(files.join(path, BLENDER)), meta


def _days(time: Column, as_of: datetime) -> Column:
    import pyspark.sql.functions as F

    return (F.lit(micros(as_of)) - F.unix_micros(time)) / MICROS_PER_DAY


def _in_order(rows: DataFrame) -> DataFrame:
    """The same rows in the same partitions and order whatever came before, so that reruns learn the same."""
    parts = PARTITIONS_PER_CORE * rows.sparkSession.sparkContext.defaultParallelism
    return rows.repartition(parts, USER_IDX).sortWithinPartitions(USER_IDX, ITEM_IDX)


def _assembled(rows: DataFrame, names: Sequence[str]) -> DataFrame:
    from pyspark.ml.feature import VectorAssembler

    return VectorAssembler(inputCols=list(names), outputCol=FEATURES).transform(rows)


def _estimator(config: HybridConfig) -> Any:
    from pyspark.ml.classification import GBTClassifier, LogisticRegression

    if config.blender == "logistic":
        return LogisticRegression(labelCol=LABEL, featuresCol=FEATURES, regParam=config.reg, maxIter=100)
    return GBTClassifier(
        labelCol=LABEL, featuresCol=FEATURES, maxIter=config.trees, maxDepth=config.depth, stepSize=config.step,
        seed=config.seed, minInstancesPerNode=20,
    )  # fmt: skip
