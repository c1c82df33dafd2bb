"""One user, one session and one basket with a million events each go through all transforms."""

from datetime import UTC, datetime

import pytest
from pyspark.sql import functions as F

from sparkrec.prepare.copurchase import copurchase
from sparkrec.prepare.index import assert_dense, new_ids
from sparkrec.prepare.interactions import interactions
from sparkrec.prepare.sessions import sessions
from sparkrec.prepare.support import filter_support
from sparkrec.prepare.user_item import user_item
from sparkrec.settings.sections import BasketsConfig, SessionsConfig, SupportConfig, UserItemConfig

MILLION = 1_000_000
USERS, EACH = 200, 50


@pytest.fixture(scope="module")
def events(spark):
    """A robot with a million events a second apart, on 50,000 items, among 200 users with 50 each."""
    n = F.col("id") - MILLION
    robot = F.col("id") < MILLION
    minute = F.floor(n / USERS)
    user = F.when(robot, F.lit("robot")).otherwise(F.concat(F.lit("u"), (n % USERS).cast("string")))
    return spark.range(MILLION + USERS * EACH, numPartitions=4).select(
        user.alias("user_id"),
        F.concat(F.lit("i"), (F.col("id") % 50_000).cast("string")).alias("item_id"),
        F.lit("buy").alias("event_type"),
        F.timestamp_seconds(1_320_000_000 + F.when(robot, F.col("id")).otherwise(minute * 60)).alias("ts"),
        F.lit(1.0).alias("value"),
        F.lit(1.0).alias("quantity"),
        F.lit(1.0).alias("price"),
        F.when(robot, F.lit("one")).otherwise(user).alias("log_session_id"),
        F.when(robot, F.lit("one")).otherwise(user).alias("basket_id"),
        F.lit(None).cast("bigint").alias("event_order"),
    )


@pytest.mark.slow
@pytest.mark.usefixtures("generated_code")
def test_a_million_events_of_one(spark, events):
    users, _ = new_ids(events.select(F.col("user_id").alias("id")), None)
    items, _ = new_ids(events.select(F.col("item_id").alias("id")), None)
    assert_dense(items)
    rows = interactions(events, users, items).persist()
    try:
        kept, report = filter_support(rows, SupportConfig(min_item_events=2, min_user_events=2))
        assert report.rows_removed == 0
        for by in ("gap", "session_id"):
            lengths = sessions(kept, SessionsConfig(by=by), ("buy",)).select(F.size("items").alias("n"))
            found = {r["n"]: r["count"] for r in lengths.groupBy("n").count().collect()}
            assert found[200] == MILLION // 200
            assert sum(n * count for n, count in found.items()) == MILLION + USERS * EACH
        long = copurchase(kept, BasketsConfig(by="basket_id"), ("buy",)).select(F.size("items").alias("n"))
        assert {r["n"]: r["count"] for r in long.groupBy("n").count().collect()} == {1000: 1, EACH: USERS}
        windows = copurchase(kept, BasketsConfig(), ("buy",)).where(F.size("items") == 1000).count()
        assert windows == MILLION // 86_400 + 1
        as_of = datetime(2030, 1, 1, tzinfo=UTC)
        matrix = user_item(kept, UserItemConfig(half_life_days=30.0), {"buy": 1.0}, as_of)
        assert matrix.agg(F.sum("n_events")).head()[0] == MILLION + USERS * EACH
    finally:
        rows.unpersist()
