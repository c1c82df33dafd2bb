"""Rows that come to the driver: what it does not take is refused before Spark fails, and is not counted for nothing."""

from datetime import date

import pytest
from pyspark.sql import functions as F

from sparkrec.errors import UserError
from sparkrec.models.content.vectors import content_matrix
from sparkrec.models.session_neighbours.nearest import trained_sessions
from sparkrec.pipeline.nightly import run_stage
from sparkrec.pipeline.stage import Stage
from sparkrec.retrieval.lsh import minhash_nearest
from sparkrec.retrieval.sparse import sparse_matrix
from sparkrec.retrieval.topk import item_matrix
from sparkrec.spark.collected import LIMIT, collected, limit_bytes, outgrown
from sparkrec.spark.session import jobs_started
from sparkrec.warehouse.ledger import Ledger, StageResult
from tests.published import a_night, small_gru


@pytest.fixture
def megabyte(spark):
    """A driver that takes a megabyte, as Spark itself sees it."""
    conf = spark.sparkContext._jsc.sc().conf()
    before = limit_bytes(spark)
    conf.set(LIMIT, "1m")
    yield
    conf.set(LIMIT, str(before))


def pairs(spark, n):
    return spark.range(n).selectExpr("int(id % 1000) AS row", "int(id div 1000) AS column", "float(1) AS value")


def sessions(spark, n):
    return spark.range(n).selectExpr(
        "string(id) AS session_id", "int(id) AS user_idx", "timestamp_seconds(id) AS start_ts", "array(1, 2) AS items"
    )


def vectors(spark, n):
    return spark.range(n).selectExpr("int(id) AS idx", "array_repeat(float(id), 64) AS vector")


def test_what_outgrows_the_driver_is_one_line_that_says_what_to_do(spark, megabyte):
    with pytest.raises(Exception, match=f"bigger than {LIMIT}") as raw:
        pairs(spark, 200_000).toArrow()
    assert outgrown(raw.value)
    assert not outgrown(ValueError("something else"))
    with pytest.raises(UserError) as refused:
        sparse_matrix(pairs(spark, 100_000), "row", "column", "value", (1000, 1000))
    assert str(refused.value) == (
        f"more than the driver takes: 100000 pairs of row and column of 1 MiB, {LIMIT}=1m "
        f"(raise {LIMIT} and the driver's memory, or raise prepare.support)"
    )
    with pytest.raises(UserError, match=r"40000 sessions that vote of 1 MiB.*prepare\.sessions"):
        trained_sessions(sessions(spark, 40_000), 3)
    with pytest.raises(UserError, match="5000 vectors of 1 MiB"):
        item_matrix(vectors(spark, 5000), 5000)
    named = vectors(spark, 5000).selectExpr("idx AS item_idx", "'text' AS name", "vector")
    with pytest.raises(UserError, match="5000 vectors of items of 1 MiB"):
        content_matrix(named, (), 5000)
    sets = pairs(spark, 200_000).selectExpr("row AS item_idx", "column AS member")
    with pytest.raises(UserError, match="200000 members of sets of 1 MiB"):
        minhash_nearest(spark, sets, k=1, hash_tables=1, hashes=1)


def test_what_the_driver_takes_comes_whole(spark, megabyte):
    assert sparse_matrix(pairs(spark, 50_000), "row", "column", "value", (1000, 1000)).nnz == 50_000
    assert trained_sessions(sessions(spark, 20_000), 3).items.shape == (20_000, 3)
    assert item_matrix(vectors(spark, 2000), 2000).vectors.shape == (2000, 64)


def test_a_stage_that_spark_ends_for_it_all_the_same_is_one_line(spark, megabyte, tmp_path):
    """Of rows that nobody counted first."""
    night = a_night(spark, tmp_path, small_gru(), date(2024, 1, 1))

    def collect(night, _):
        return StageResult(rows_out=pairs(night.spark, 200_000).toArrow().num_rows)

    with pytest.raises(UserError) as refused:
        run_stage(night, Stage("big", (), lambda _: (), collect), Ledger(night.warehouse, night.run_date))
    assert str(refused.value) == f"more than the driver takes: stage big (raise {LIMIT} and the driver's memory)"


def test_what_is_small_beside_the_limit_is_not_counted(spark, megabyte):
    few, many = spark.range(100), spark.range(100_000)
    begun = [jobs_started(spark)]
    assert collected(few, 9, "numbers", "").num_rows == 100
    begun.append(jobs_started(spark))
    assert collected(many, F.lit(9), "numbers", "").num_rows == 100_000
    begun.append(jobs_started(spark))
    alone = few.toArrow(), jobs_started(spark) - begun[2]
    assert begun[1] - begun[0] == alone[1] < begun[2] - begun[1]
