"""Users with more events on a day than a person has."""

from datetime import datetime, timedelta

from sparkrec.prepare.crawlers import Crawlers, suspect, without_crawlers
from sparkrec.warehouse.tables import ID, IDX, ITEM_ID, ITEM_IDX, TS, USER_ID, USER_IDX

NOON = datetime(2024, 1, 1, 12)


def events(spark, *counts):
    """``(user, day, events)`` each."""
    rows = [(user, f"i{n}", NOON + timedelta(days=day, seconds=n)) for user, day, many in counts for n in range(many)]
    return spark.createDataFrame(rows, f"{USER_ID} string, {ITEM_ID} string, {TS} timestamp").coalesce(1)


def test_who_has_too_much_on_a_day_is_left_out_wholly_and_counted(spark):
    log = events(spark, ("bot", 0, 9), ("bot", 1, 1), ("busy", 0, 5), ("busy", 1, 5), (None, 0, 20), ("me", 0, 1))
    kept, found = without_crawlers(log, 5)
    assert found == Crawlers(1, 10, ("bot",))
    assert found.said == "10 events of 1 users by prepare.max_user_events_per_day: bot"
    assert sorted((row[0] or "", row[1]) for row in kept.groupBy(USER_ID).count().collect()) == [
        ("", 20), ("busy", 10), ("me", 1),
    ]  # fmt: skip
    assert without_crawlers(log, None) == (log, Crawlers())
    assert without_crawlers(log, 9) == (log, Crawlers())


def test_days_are_those_of_the_zone(spark):
    log = events(spark, ("night", 0, 4)).selectExpr(USER_ID, ITEM_ID, f"{TS} + interval 11 hours {TS}")  # 23:00 UTC
    later = log.unionByName(log.selectExpr(USER_ID, ITEM_ID, f"{TS} + interval 2 hours {TS}"))
    assert without_crawlers(later, 5)[1].users == 0
    assert without_crawlers(later, 5, "Europe/Berlin")[1].users == 1


def test_who_has_the_most_events_is_named(spark):
    rows = spark.createDataFrame([(7, 1), (7, 2), (3, 1), (None, 1)], f"{USER_IDX} int, {ITEM_IDX} int")
    index = spark.createDataFrame([("bot", 7), ("me", 3)], f"{ID} string, {IDX} int")
    assert suspect(rows, index) == "user bot has 2 events"
