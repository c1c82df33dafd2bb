"""ALS with weighted-λ regularisation (ALS-WR), by Spark MLlib.

MLlib scales the regularisation by counts, so it is ALS-WR (Zhou, Wilkinson, Schreiber, Pan: "Large-scale Parallel
Collaborative Filtering for the Netflix Prize", AAIM 2008, eq. 3):

    explicit:  Σ_(u,i) (r_ui - x_u·y_i)²  +  λ (Σ_u n_u |x_u|² + Σ_i n_i |y_i|²)

with ``n_u``, ``n_i`` the numbers of ratings of user u and item i. Implicit feedback (Hu, Koren, Volinsky:
"Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, eq. 3) with the same scaling, ``n`` then
counting the interactions above zero:

    implicit:  Σ_u Σ_i c_ui (p_ui - x_u·y_i)²  +  λ (Σ_u n_u |x_u|² + Σ_i n_i |y_i|²)
               c_ui = 1 + α w_ui,   p_ui = 1 where w_ui > 0 else 0

A ``reg`` found for a library without this scaling (there typically 1 … 100) is not comparable: here 0.01 … 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sparkrec.errors import InvariantError, NothingToTrain, UserError
from sparkrec.log import log_event
from sparkrec.models.als.settings import AlsConfig
from sparkrec.spark.session import task_slots
from sparkrec.storage import files
from sparkrec.warehouse.tables import CONFIDENCE, IDX, ITEM_IDX, RATING, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

VECTOR = "vector"
USER_FACTORS, ITEM_FACTORS, MODEL_FILE = "user_factors", "item_factors", "model.json"


@dataclass(frozen=True)
class AlsModel:
    """Factors ``(idx int, vector array<float>[rank])`` of the users and items of the training matrix.

    ``meta`` is what ``save_als`` was given: the configuration and the versions of the inputs.
    """

    user_factors: DataFrame
    item_factors: DataFrame
    meta: dict[str, Any] = field(default_factory=dict)


def fit_als(user_item: DataFrame, config: AlsConfig, checkpoint_dir: str) -> AlsModel:
    """Fits ALS-WR.

    The factors are held by the executors (memory and disk) and nowhere else: save them at once. An executor lost
    before that fails the stage, as its checkpoints are gone.

    Args:
        user_item: In the columns of ``tables.USER_ITEM``; explicit feedback uses ``rating``, implicit
            ``confidence``.
        config: Rank, regularisation, blocks and so on.
        checkpoint_dir: A folder that all executors reach; what is written there is removed at the end. Without
            one MLlib ignores ``checkpoint_interval`` silently, and many iterations overflow the stack.

    Raises:
        UserError: The matrix is empty, or feedback is explicit and a rating is missing.
    """
    import pyspark.sql.functions as F
    from pyspark import StorageLevel

    value = RATING if config.feedback == "explicit" else CONFIDENCE
    ratings = user_item.select(USER_IDX, ITEM_IDX, F.col(value).cast("float").alias(value))
    ratings = ratings.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        n_rows = _check(ratings, value, config.feedback)
        config = _with_blocks(ratings.sparkSession, config)
        log_event(
            "als", rows=n_rows, feedback=config.feedback, rank=config.rank, blas=blas_name(ratings.sparkSession),
            user_blocks=config.user_blocks, item_blocks=config.item_blocks,
        )  # fmt: skip
        with checkpoints(ratings.sparkSession, checkpoint_dir):
            model = _estimator(config, value).fit(ratings)
        return AlsModel(_factors(model.userFactors), _factors(model.itemFactors))
    finally:
        ratings.unpersist()


def save_als(model: AlsModel, path: str, meta: dict[str, Any]) -> None:
    """Writes the factors as Parquet and then ``model.json``, which makes the folder a model."""
    model.user_factors.write.mode("overwrite").parquet(files.join(path, USER_FACTORS))
    model.item_factors.write.mode("overwrite").parquet(files.join(path, ITEM_FACTORS))
    files.write_json(files.join(path, MODEL_FILE), meta)


def load_als(spark: SparkSession, path: str) -> AlsModel:
    """Reads what ``save_als`` wrote.

    Raises:
        UserError: There is no model.
    """
    if not files.exists(files.join(path, MODEL_FILE)):
        raise UserError("no ALS model", where=path, fix="run train_als first")
    meta = files.read_json(files.join(path, MODEL_FILE))
    reader = spark.read.schema(f"{IDX} int, {VECTOR} array<float>")  # one that is told needs no job to find it
    parts = [reader.parquet(files.join(path, name)) for name in (USER_FACTORS, ITEM_FACTORS)]
    return AlsModel(parts[0], parts[1], meta)


def blas_name(spark: SparkSession) -> str:
    """The BLAS class that MLlib uses: JNIBLAS is native, VectorBLAS and the like are Java."""
    linalg: Any = spark._jvm.org.apache.spark.ml.linalg  # type: ignore[union-attr]
    scala_object = getattr(getattr(linalg, "BLAS$"), "MODULE$")
    return str(scala_object.nativeBLAS().getClass().getSimpleName())


@contextmanager
def checkpoints(spark: SparkSession, folder: str) -> Iterator[None]:
    """Sets the checkpoint directory, makes sure that it is in force, and removes its files at the end."""
    context = spark.sparkContext
    context.setCheckpointDir(folder)
    in_force = context.getCheckpointDir()
    if not in_force:
        raise InvariantError(f"checkpoint directory {folder} is not in force")
    try:
        yield
    finally:
        _remove(spark, in_force)


def _remove(spark: SparkSession, folder: str) -> None:
    path = spark._jvm.org.apache.hadoop.fs.Path(folder)  # type: ignore[union-attr]
    path.getFileSystem(spark._jsc.hadoopConfiguration()).delete(path, True)


def _check(ratings: DataFrame, value: str, feedback: str) -> int:
    import pyspark.sql.functions as F

    usable = F.col(value).isNotNull() & ~F.isnan(value)
    total, missing = ratings.agg(F.count("*"), F.count_if(~usable)).first()  # type: ignore[misc]
    if not total:
        raise NothingToTrain(
            "no interactions to train ALS on", where="user_item", fix="check prepare.support, and that users are known"
        )
    if missing:
        raise UserError(
            f"{missing} of {total} interactions have no {value}",
            where=f"als.feedback={feedback}",
            fix="als.feedback=implicit, or ingest a log with ratings",
        )
    return int(total)


def _with_blocks(spark: SparkSession, config: AlsConfig) -> AlsConfig:
    """The settings with the blocks that are left to the cluster: two for each task slot."""
    blocks = 2 * task_slots(spark)
    return replace(config, user_blocks=config.user_blocks or blocks, item_blocks=config.item_blocks or blocks)


def _estimator(config: AlsConfig, value: str) -> Any:
    from pyspark.ml.recommendation import ALS

    return ALS(
        userCol=USER_IDX,
        itemCol=ITEM_IDX,
        ratingCol=value,
        implicitPrefs=config.feedback == "implicit",
        rank=config.rank,
        maxIter=config.iterations,
        regParam=config.reg,
        alpha=config.alpha,
        nonnegative=config.nonnegative,
        numUserBlocks=config.user_blocks,
        numItemBlocks=config.item_blocks,
        checkpointInterval=config.checkpoint_interval,
        seed=config.seed,
    )


def _factors(factors: DataFrame) -> DataFrame:
    import pyspark.sql.functions as F

    return factors.select(F.col("id").alias(IDX), F.col("features").alias(VECTOR))
