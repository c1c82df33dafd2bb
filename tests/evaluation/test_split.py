import random
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from sparkrec.errors import UserError
from sparkrec.evaluation.split import exact_quantile, holdout_users, known_items_only, resolve_cutoff
from sparkrec.settings.sections import EvaluationConfig

AS_OF = datetime(2020, 2, 1, tzinfo=UTC)


def frame(spark, times):
    return spark.createDataFrame([(t,) for t in times], "ts timestamp")


@pytest.mark.integration
def test_the_first_setting_that_is_set_counts(spark):
    times = frame(spark, [datetime(2020, 1, d) for d in range(1, 12)])
    cutoff = resolve_cutoff(times, "ts", EvaluationConfig(cutoff="2020-01-05", holdout_quantile=0.5), AS_OF)
    assert cutoff == datetime(2020, 1, 5, tzinfo=UTC)
    zoned = EvaluationConfig(cutoff="2020-01-05T02:00:00+02:00")
    assert resolve_cutoff(times, "ts", zoned, AS_OF) == datetime(2020, 1, 5, tzinfo=UTC)
    half = resolve_cutoff(times, "ts", EvaluationConfig(holdout_quantile=0.5, holdout_days=1), AS_OF)
    assert half == datetime(2020, 1, 6, tzinfo=UTC)
    assert resolve_cutoff(times, "ts", EvaluationConfig(holdout_days=2.5), AS_OF) == AS_OF - timedelta(days=2.5)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"cutoff": "next Monday"}, "not a timestamp"),
        ({"cutoff": "2020-02-01"}, "hold-out is empty"),
        ({"holdout_quantile": 1.5}, "within 0 and 1"),
        ({"holdout_days": 0.0}, "hold-out is empty"),
    ],
)
def test_a_cutoff_that_cannot_be_is_refused(spark, settings, line):
    with pytest.raises(UserError, match=line):
        resolve_cutoff(frame(spark, [datetime(2020, 1, 1)]), "ts", EvaluationConfig(**settings), AS_OF)


def test_no_events_is_refused(spark):
    with pytest.raises(UserError, match="no events"):
        exact_quantile(frame(spark, [None]), "ts", 0.5)


@pytest.mark.integration
@pytest.mark.parametrize("q", [0.37, 1.0])
def test_the_quantile_splits_as_the_interpolated_one(spark, q):
    rng = random.Random(7)
    start = datetime(1969, 1, 1)
    times = [start + timedelta(microseconds=rng.randrange(10**15)) for _ in range(50)]
    times += [start + timedelta(days=rng.randrange(20)) for _ in range(51)]  # many equal
    cutoff = exact_quantile(frame(spark, times), "ts", q).replace(tzinfo=None)
    seconds = np.array([(t - start).total_seconds() for t in times])
    assert sum(t < cutoff for t in times) == (seconds < np.quantile(seconds, q)).sum()
    assert cutoff in times


@pytest.mark.integration
def test_truth_is_what_known_users_first_took_after_the_cutoff(spark, caplog):
    cutoff = datetime(2020, 1, 10, tzinfo=UTC)
    rows = [
        (1, 10, "buy", 1), (2, 11, "buy", 2), (1, 12, "view", 3), (3, 13, "look", 3),
        (1, 11, "buy", 10),  # at the cutoff: held out
        (1, 11, "buy", 11),  # again: once in the truth
        (1, 10, "buy", 12),  # taken before
        (2, 12, "view", 13),
        (2, 99, "buy", 13),  # an item that is new
        (7, 10, "buy", 14),  # a user who is new
        (3, 10, "buy", 14),  # known by an event without weight alone: new
        (2, 13, "buy", 14),  # an item known by an event without weight alone: new
        (None, 10, "buy", 15),
        (2, 10, "look", 15),
        (2, 10, "buy", 32),  # as of: not yet
    ]  # fmt: skip
    stamped = [(u, i, kind, datetime(2019, 12, 31) + timedelta(days=day)) for u, i, kind, day in rows]
    events = spark.createDataFrame(stamped, "user_idx int, item_idx int, event_type string, ts timestamp")
    held_out = holdout_users(events, cutoff, AS_OF, {"buy": 1.0, "view": 0.1, "look": 0.0}, cold_below=2)
    truth = held_out.pairs
    assert held_out.users == truth.select("user_idx").distinct().count()
    assert held_out.n_pairs == truth.count()
    assert held_out.again is None
    wide = holdout_users(events, cutoff, AS_OF, {"buy": 1.0, "view": 0.1}, cold_below=2, again=True)
    assert sorted(tuple(row) for row in wide.again.collect()) == [(1, 10), (1, 11), (2, 12)]  # 10 had been taken before
    assert (wide.again_users, wide.n_again, wide.users, wide.n_pairs) == (2, 3, 2, 2)
    assert sorted(map(tuple, wide.pairs.collect())) == sorted(map(tuple, truth.collect()))
    assert sorted(tuple(row) for row in truth.collect()) == [
        (1, 11, ["holdout_frequent_users", "holdout_cold_items"]),  # took 10 and 12 before; 11 had one user
        (2, 12, ["holdout_cold_users", "holdout_cold_items"]),
    ]
    truth.unpersist()


def test_judged_sessions_lose_unknown_items_and_then_the_short_ones(spark):
    rows = [("b", [4, 1]), ("c", [3, 9, 1, 3]), ("d", [9, 1]), ("e", [])]
    sessions = spark.createDataFrame(rows, "session_id string, items array<int>")
    catalogue = spark.createDataFrame([(1,), (3,)], "item_idx int")
    judged = known_items_only(sessions, catalogue).collect()
    assert [(row["session_id"], row["items"]) for row in judged] == [("c", [3, 1, 3])]
