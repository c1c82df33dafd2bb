"""Events with numbers in place of ids: none lost, none without a number."""

from datetime import UTC, date, datetime

import pytest
from pyspark.sql import functions as F

from sparkrec.errors import InvariantError
from sparkrec.prepare.cut import as_of, day_of, micros, until, utc
from sparkrec.prepare.features import coded_types, new_codes, type_values
from sparkrec.prepare.interactions import assert_indexed, interactions
from sparkrec.warehouse.tables import EVENTS, FEATURE_INDEX, INTERACTIONS

ROWS = [("u", "a"), (None, "b"), ("v", "a"), ("u", "b"), ("u", "a")]


def events(spark, rows):
    given = spark.createDataFrame(rows, "user_id string, item_id string")
    known = {"event_type": "'view'", "ts": "timestamp_micros(5)", "value": "1.5D", "quantity": "2D", "price": "3D",
             "log_session_id": "'s'", "basket_id": "'k'"}  # fmt: skip
    columns = [
        F.col(c.name)
        if c.name in ("user_id", "item_id")
        else F.expr(known.get(c.name, "null")).cast(c.type).alias(c.name)
        for c in EVENTS.columns
    ]
    return given.select(*columns)


@pytest.fixture(scope="module")
def users(spark):
    return spark.createDataFrame([("u", 0), ("v", 1), ("unused", 2)], "id string, idx int")


@pytest.fixture(scope="module")
def items(spark):
    return spark.createDataFrame([("b", 0), ("a", 1)], "id string, idx int")


@pytest.mark.integration
@pytest.mark.parametrize("broadcast", [True, False])
def test_each_event_once(spark, users, items, broadcast):
    before = spark.conf.get("spark.sql.autoBroadcastJoinThreshold")
    spark.conf.set("spark.sql.autoBroadcastJoinThreshold", before if broadcast else "-1")
    try:
        found = interactions(events(spark, ROWS), users, items)
        pairs = sorted(found.select("user_idx", "item_idx").collect(), key=str)
    finally:
        spark.conf.set("spark.sql.autoBroadcastJoinThreshold", before)
    assert pairs == sorted([(0, 1), (None, 0), (1, 1), (0, 0), (0, 1)], key=str)
    assert [(f.name, f.dataType.simpleString()) for f in found.schema] == [
        (c.name, c.type) for c in INTERACTIONS.columns
    ]
    kept = found.select("event_type", F.unix_micros("ts"), "value", "quantity", "price", "log_session_id", "basket_id")
    assert tuple(kept.head()) == ("view", 5, 1.5, 2.0, 3.0, "s", "k")


@pytest.mark.integration
def test_types_that_make_sessions_have_codes_that_never_change(spark, users, items):
    known = spark.createDataFrame([("event.type", "view", 1), ("item.view", "buy", 7)], FEATURE_INDEX.ddl)
    assert coded_types(["view"]) == coded_types(["view", "view"]) == ()
    types = coded_types(["view", "buy"])
    rows, count = new_codes(type_values(spark, types), known)
    assert [tuple(row) for row in rows.collect()] == [("event.type", "buy", 2)]
    assert count == 1
    codes = known.union(rows)
    given = events(spark, ROWS).withColumn(
        "event_type", F.when(F.col("item_id") == "b", "buy").when(F.col("user_id") == "v", "other").otherwise("view")
    )
    found = interactions(given, users, items, codes, types).select("event_type", "event_type_idx").distinct()
    assert dict(found.collect()) == {"view": 1, "buy": 2, "other": None}
    plain = interactions(given, users, items, codes).select("event_type_idx").distinct()
    assert [row[0] for row in plain.collect()] == [None]
    with pytest.raises(Exception, match="event_type without a number: buy"):
        interactions(given, users, items, known, types).collect()


@pytest.mark.integration
@pytest.mark.parametrize(("row", "column"), [(("stranger", "a"), "user_id"), (("u", "novelty"), "item_id")])
def test_an_id_without_a_number(spark, users, items, row, column):
    bad = events(spark, [*ROWS, row])
    with pytest.raises(InvariantError, match=f"{column} without a number.*(stranger|novelty)"):
        assert_indexed(bad, users, items)
    with pytest.raises(Exception, match=f"{column} without a number"):
        interactions(bad, users, items).collect()
    assert_indexed(events(spark, ROWS), users, items)


def test_the_night_ends_at_midnight_utc(spark):
    assert as_of(date(2011, 12, 9)) == datetime(2011, 12, 10, tzinfo=UTC)
    assert micros(datetime(2011, 12, 10)) == micros(datetime(2011, 12, 10, tzinfo=UTC)) == 1_323_475_200_000_000
    moment = spark.range(1).select(F.unix_micros(utc(as_of(date(2011, 12, 9))))).head()
    assert moment is not None
    assert moment[0] == 1_323_475_200_000_000
    days = spark.createDataFrame([(date(2011, 12, d),) for d in (8, 9, 10)], "event_date date")
    assert {r[0].day for r in until(days, date(2011, 12, 9)).collect()} == {8, 9}


def test_the_night_ends_at_midnight_of_the_logs_time_zone(spark):
    """In New York a day of 23 hours, and in each zone the days of its own clocks."""
    ends = [as_of(date(2011, 3, day), "America/New_York") for day in (12, 13)]
    assert ends == [datetime(2011, 3, 13, 5, tzinfo=UTC), datetime(2011, 3, 14, 4, tzinfo=UTC)]
    times = ["2011-03-13 04:59:59", "2011-03-13 05:00:00", "2011-03-14 03:59:59", "2011-03-14 04:00:00"]
    given = spark.createDataFrame([(time,) for time in times], "at string")
    events = given.select(F.to_timestamp("at").alias("ts"), F.to_date("at").alias("event_date"))
    days = day_of("ts", "America/New_York").alias("local")
    night = F.col("ts") < utc(ends[0])
    found = until(events, date(2011, 3, 13), "America/New_York").select(days, night.alias("first"))
    assert sorted(tuple(r) for r in found.collect()) == [
        (date(2011, 3, 12), True),
        (date(2011, 3, 13), False),
        (date(2011, 3, 13), False),
    ]
