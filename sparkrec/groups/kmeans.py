"""Groups of users by their vectors, with k-means of MLlib, and what is popular in each group.

Two algorithms: k-means (Lloyd 1982; started by k-means||, Bahmani et al., "Scalable K-Means++", VLDB 2012), and
bisecting k-means, which is hierarchical: the largest cluster is divided in two until there are enough (Steinbach,
Karypis and Kumar, "A Comparison of Document Clustering Techniques", 2000). The number of groups is the one with the
best silhouette (Rousseeuw 1987), by squared Euclidean distance as in MLlib.

MLlib adds up vectors in the order in which tasks end. So that a rerun gives the same groups, vectors are rounded to
multiples of 2^-20, whose sums are exact in doubles, and lie in partitions that depend on the users alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark import StorageLevel
from pyspark.sql import functions as F

from sparkrec.errors import InvariantError, NothingToTrain
from sparkrec.log import log_event
from sparkrec.prepare.cut import utc
from sparkrec.prepare.weights import counted
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.settings.sections import UserGroupsConfig
from sparkrec.warehouse.tables import DISTANCE, GROUP_ID, ITEM_IDX, TS, USER_IDX, VECTOR

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

N_USERS = "n_users"
STEP = 2.0**20  # vectors are rounded to multiples of its inverse
ROWS_PER_PART = 50_000
SILHOUETTE_OF_ONE = 0.0  # nothing tells one group apart (Rousseeuw 1987, section 2, gives 0 to groups of one)

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class UserGroups:
    """Groups of users; the numbers are 0, 1, … by size, the largest first, equal ones in order of their centres.

    Attributes:
        groups: ``(user_idx int, group_id int, distance float)``, the Euclidean distance from the centre. Held by
            the executors alone: write it at once.
        centres: float64 ``[groups, d]``.
        sizes: Users of each.
        silhouettes: Number of groups tried → silhouette, from -1 to 1.
    """

    groups: DataFrame
    centres: FloatArray
    sizes: tuple[int, ...]
    silhouettes: dict[int, float]


def group_users(vectors: DataFrame, config: UserGroupsConfig) -> UserGroups:
    """Groups users; of the numbers of groups that are tried the best silhouette wins, of equal ones the smallest.

    Args:
        vectors: ``(user_idx int, vector array<float or double>)``, each user once; of RFM or of a model.
        config: Method, numbers of groups, users that the silhouette is measured on, seed. A number larger than that
            of the users is not tried.

    Raises:
        UserError: There are fewer users than groups, or a number of groups is below 2.
        InvariantError: A vector is null or not finite.
    """
    finite = F.forall(VECTOR, lambda x: x.isNotNull() & ~F.isnan(x) & (F.abs(x) != float("inf")))
    n_users, n_finite = vectors.agg(F.count("*"), F.count_if(finite)).first()  # type: ignore[misc]
    if n_finite < n_users:
        raise InvariantError(f"{n_users - n_finite} of {n_users} users' vectors are not finite")
    tried = [k for k in sorted(set(config.groups)) if k <= n_users]
    if not tried or tried[0] < 2:
        where, fix = f"user_groups.groups={config.groups}, {n_users} users", "numbers from 2 to that of the users"
        raise NothingToTrain("users cannot be put in so many groups", where=where, fix=fix)
    ready = _ready(vectors, -(-n_users // ROWS_PER_PART)).persist(StorageLevel.MEMORY_AND_DISK)
    sample = _sample(ready, config.sample).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        models = {k: _estimator(config, k).fit(ready) for k in tried}
        silhouettes = {k: _silhouette(model.transform(sample)) for k, model in models.items()}
        best = max(tried, key=lambda k: (silhouettes[k], -k))
        log_event(
            "user_groups",
            method=config.method,
            groups=best,
            **{f"silhouette_{k}": round(s, 4) for k, s in silhouettes.items()},
        )
        groups, centres, sizes = _numbered(models[best].transform(ready), np.array(models[best].clusterCenters()))
        return UserGroups(groups, centres, sizes, silhouettes)
    finally:
        ready.unpersist()
        sample.unpersist()


def _ready(vectors: DataFrame, parts: int) -> DataFrame:
    """``(user_idx, vector array<double>, features)``, rounded, in partitions and an order that the users decide."""
    from pyspark.ml.functions import array_to_vector

    rounded = F.transform(VECTOR, lambda x: F.rint(x.cast("double") * STEP) / STEP)
    rows = vectors.select(USER_IDX, rounded.alias(VECTOR)).repartition(parts, USER_IDX).sortWithinPartitions(USER_IDX)
    return rows.withColumn("features", array_to_vector(F.col(VECTOR)))


def _sample(ready: DataFrame, n: int) -> DataFrame:
    """The same users on each run, in one partition."""
    return ready.orderBy(F.xxhash64(USER_IDX), USER_IDX).limit(n).coalesce(1)


def _estimator(config: UserGroupsConfig, k: int) -> Any:
    from pyspark.ml.clustering import BisectingKMeans, KMeans

    kind = KMeans if config.method == "kmeans" else BisectingKMeans
    return kind(featuresCol="features", predictionCol=GROUP_ID, k=k, seed=config.seed)


def _silhouette(grouped: DataFrame) -> float:
    from pyspark.ml.evaluation import ClusteringEvaluator

    if grouped.select(GROUP_ID).distinct().count() < 2:
        return SILHOUETTE_OF_ONE
    return float(ClusteringEvaluator(featuresCol="features", predictionCol=GROUP_ID).evaluate(grouped))


def _numbered(grouped: DataFrame, centres: FloatArray) -> tuple[DataFrame, FloatArray, tuple[int, ...]]:
    """The groups with their numbers, the centres and sizes in that order; clusters without a user are no groups."""
    counts = {row[GROUP_ID]: row["n"] for row in grouped.groupBy(GROUP_ID).agg(F.count("*").alias("n")).collect()}
    order = sorted(counts, key=lambda cluster: (-counts[cluster], centres[cluster].tolist()))
    rows = [(cluster, number, centres[cluster].tolist()) for number, cluster in enumerate(order)]
    numbers = grouped.sparkSession.createDataFrame(rows, "cluster int, number int, centre array<double>")
    squares = F.zip_with(VECTOR, "centre", lambda x, y: (x - y) * (x - y))
    distance = F.sqrt(F.aggregate(squares, F.lit(0.0), lambda total, x: total + x)).cast("float")
    joined = grouped.withColumnRenamed(GROUP_ID, "cluster").join(F.broadcast(numbers), "cluster", "inner")
    groups = joined.select(USER_IDX, F.col("number").alias(GROUP_ID), distance.alias(DISTANCE)).localCheckpoint()
    return groups, centres[order], tuple(counts[cluster] for cluster in order)


def group_popularity(
    interactions: DataFrame,
    groups: DataFrame,
    event_weights: Mapping[str, float],
    as_of: datetime,
    days: float,
    overall: ItemMatrix,
) -> ItemMatrix:
    """What is popular in each group, for ``top_k`` with ``group_queries``.

    Args:
        interactions: As for ``popularity``.
        groups: ``(user_idx, group_id)``, the groups 0, 1, ….
        event_weights: As for ``popularity``.
        as_of: As for ``popularity``.
        days: Length of the window that ends at ``as_of``.
        overall: What is popular with all: ``popularity.fallback_matrix``.

    Returns:
        Of ``groups + 1`` dimensions, up to the last group of whom somebody took something in the window. An item's
        score is the number of the group's users who took it then, plus a share below 0.5 that orders equal ones as
        ``overall`` does; that share alone (the last dimension) for a user without such a group.
    """
    within = (F.col(TS) < utc(as_of)) & (F.col(TS) >= utc(as_of - timedelta(days=days)))
    taken = counted(interactions, event_weights).where(within).select(USER_IDX, ITEM_IDX).distinct()
    each = taken.join(groups.select(USER_IDX, GROUP_ID), USER_IDX, "inner").groupBy(GROUP_ID, ITEM_IDX)
    table = each.agg(F.count("*").alias(N_USERS)).toArrow()
    item, group, users = (table.column(name).to_numpy() for name in (ITEM_IDX, GROUP_ID, N_USERS))
    n_groups = 1 + int(group.max(initial=-1))
    vectors = np.zeros((len(overall.vectors), n_groups + 1), dtype=np.float32)
    vectors[item, group] = users
    vectors[:, n_groups] = 0.5 * overall.vectors[:, 0] / (overall.vectors.max(initial=0.0) + 1.0)
    return ItemMatrix(vectors, None, overall.eligible)


def group_queries(keys: DataFrame, groups: DataFrame, n_groups: int, on: str = USER_IDX) -> DataFrame:
    """Queries for ``group_popularity``: one-hot vectors of the users' groups, and of none.

    Args:
        keys: With ``user_idx``, which may be null.
        groups: ``(user_idx, group_id)``.
        n_groups: Number of groups.
        on: The column of both that tells users apart.

    Returns:
        The columns of ``keys`` and ``vector array<float>`` of ``n_groups + 1``.
    """
    joined = keys.join(groups.select(on, F.col(GROUP_ID).alias("_group")), on, "left")
    one_hot = [F.coalesce((F.col("_group") == g).cast("float"), F.lit(0.0).cast("float")) for g in range(n_groups)]
    return joined.select(*keys.columns, F.array(*one_hot, F.lit(1.0).cast("float")).alias(VECTOR))
