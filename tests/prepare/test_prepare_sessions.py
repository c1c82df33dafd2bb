"""Sessions: cut by inactivity or by the log's id, collapsed, split, long enough."""

import random
from datetime import date

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from sparkrec.prepare.counts import Counts
from sparkrec.prepare.sessions import sessions
from sparkrec.settings.sections import SessionsConfig
from sparkrec.warehouse.tables import SESSIONS
from tests.prepare.cases import Event, expected_sessions, found_sessions, found_types, frame

GAP = 30 * 60


def run(spark, events, config, kinds=("view",)):
    counts = Counts()
    return found_sessions(sessions(frame(spark, events), config, kinds, counts)), counts.get()


def test_gap_is_more_than_the_minutes_and_other_types_do_not_count(spark):
    events = [
        Event(7, 1, 0),
        Event(7, 2, GAP),  # exactly the gap: the same session
        Event(7, 9, GAP + 5, kind="cancellation"),
        Event(7, 3, 2 * GAP + 1),  # a second more than the gap
        Event(7, 4, 2 * GAP + 1),  # equal times: by item
        Event(None, 5, 10),
        Event(8, 5, 10),
    ]
    found, counts = run(spark, events, SessionsConfig())
    assert found == {
        "7-1320000000000000#0": (7, 0, GAP, [1, 2], [0, GAP]),
        "7-1320003601000000#0": (7, 2 * GAP + 1, 2 * GAP + 1, [3, 4], [2 * GAP + 1] * 2),
    }
    assert counts == {
        "events": 6, "anonymous": 1, "repeats": 0, "short_sessions": 1, "short_events": 1, "sessions": 2,
        "session_events": 4,
    }  # fmt: skip


@pytest.mark.integration
def test_repeats_collapse_before_splitting_and_before_the_minimum(spark):
    visits = [1, 1, 2, 2, 2, 3, 1, 4, 4]  # 1 2 3 1 4 → 1 2 | 3 1 | 4
    events = [Event(0, item, at) for at, item in enumerate(visits)]
    found, counts = run(spark, events, SessionsConfig(max_length=2))
    assert found == {
        "0-1320000000000000#0": (0, 0, 2, [1, 2], [0, 2]),
        "0-1320000000000000#1": (0, 5, 6, [3, 1], [5, 6]),
    }
    assert (counts["repeats"], counts["short_events"], counts["session_events"]) == (4, 1, 4)
    kept, _ = run(spark, events, SessionsConfig(collapse_repeats=False, max_length=100))
    assert [row[3] for row in kept.values()] == [visits]


@pytest.mark.integration
def test_the_types_of_events_stand_beside_the_items(spark):
    """Of one item at one time the smaller code is the first; where types have no codes there are none."""
    kinds = {"view": 1, "cart": 2}
    visits = [(5, 0, "view"), (5, 1, "cart"), (6, 2, "cart"), (6, 2, "view"), (5, 3, "cart")]
    events = [Event(0, item, at, kind=kind, code=kinds[kind]) for item, at, kind in visits]
    apart = sessions(frame(spark, events), SessionsConfig(collapse_repeats=False), kinds)
    (row,) = apart.select("items", "event_types").collect()
    assert (row["items"], row["event_types"]) == ([5, 5, 6, 6, 5], [1, 2, 1, 2, 2])
    (row,) = sessions(frame(spark, events), SessionsConfig(), kinds).select("items", "event_types").collect()
    assert (row["items"], row["event_types"]) == ([5, 6, 5], [1, 1, 2])
    without = [event._replace(code=None) for event in events]
    assert list(found_types(sessions(frame(spark, without), SessionsConfig(), kinds)).values()) == [None]


def test_repeat_across_a_gap_begins_a_session(spark):
    events = [Event(0, 1, 0), Event(0, 2, 1), Event(0, 2, 10_000), Event(0, 3, 10_001)]
    found, counts = run(spark, events, SessionsConfig())
    assert [row[3] for row in found.values()] == [[1, 2], [2, 3]]
    assert counts["repeats"] == 0


def test_log_sessions_have_one_user_and_unique_ids(spark):
    def a(user, item, at, session):
        return Event(user, item, at, session=session)

    events = [
        a(None, 1, 0, "s"), a(5, 2, 1, "s"), a(None, 3, 90_000, "s"),  # logged in on the way; no gap inside
        a(5, 1, 0, "t"), a(6, 1, 1, "t"), a(5, 2, 2, "t"), a(6, 2, 3, "t"),  # two people
        a(None, 1, 0, "n"), a(None, 2, 1, "n"),  # nobody
        a(5, 1, 0, "t#p0u6"), a(5, 2, 1, "t#p0u6"),  # an id that looks like the part of a user
        a(5, 8, 0, None), a(5, 9, 1, None), a(5, 8, 9000, None), a(5, 9, 9001, None), a(None, 9, 1, None),
    ]  # fmt: skip
    found, counts = run(spark, events, SessionsConfig(by="session_id"))
    assert {key: (row[0], row[3]) for key, row in found.items()} == {
        "s": (5, [1, 2, 3]),
        "t": (5, [1, 2]),
        "t#p0u6": (6, [1, 2]),
        "n": (None, [1, 2]),
        "t#p0u6#p0": (5, [1, 2]),
        "5-1320000000000000#0": (5, [8, 9]),
        "5-1320009000000000#0": (5, [8, 9]),
    }
    assert counts["anonymous"] == 1


@pytest.mark.integration
def test_times_are_utc_around_midnight_and_the_change_of_clocks(spark):
    def at(text):
        return int(spark.sql(f"select unix_seconds(timestamp'{text}Z')").head()[0]) - 1_320_000_000

    # 2011-10-30 01:00 UTC: clocks go back an hour in London; 2023-03-12 10:00 UTC: forward in California.
    texts = ["2011-10-30 00:59:00", "2011-10-30 01:01:00", "2023-03-12 09:59:00", "2023-03-12 10:01:00",
             "2011-12-08 23:59:59", "2011-12-09 00:00:00"]  # fmt: skip
    events = [Event(0, i, at(t)) for i, t in enumerate(texts)]
    frame_ = sessions(frame(spark, events), SessionsConfig(gap_minutes=3), ("view",))
    starts = frame_.select("items", "start_date", F.date_format("start_ts", "yyyy-MM-dd HH:mm:ss").alias("s")).collect()
    assert sorted((r["items"], r["start_date"], r["s"]) for r in starts) == [
        ([0, 1], date(2011, 10, 30), "2011-10-30 00:59:00"),
        ([2, 3], date(2023, 3, 12), "2023-03-12 09:59:00"),
        ([4, 5], date(2011, 12, 8), "2011-12-08 23:59:59"),
    ]
    local = sessions(frame(spark, events[4:]), SessionsConfig(gap_minutes=3), ("view",), zone="Europe/London")
    california = sessions(
        frame(spark, events[:2]), SessionsConfig(gap_minutes=3), ("view",), zone="America/Los_Angeles"
    )
    days = local.unionByName(california).select("items", "start_date").collect()
    assert {tuple(r["items"]): r["start_date"].day for r in days} == {(4, 5): 8, (0, 1): 29}


def test_columns_and_types(spark):
    got = sessions(frame(spark, []), SessionsConfig(by="session_id"), ("view",))
    assert [(f.name, f.dataType.simpleString()) for f in got.schema] == [(c.name, c.type) for c in SESSIONS.columns]


@pytest.mark.parametrize("kinds", [(), ("absent",)])
def test_no_events_give_no_sessions_and_counts_of_zero(spark, kinds):
    found, counts = run(spark, [Event(0, 1, 0), Event(0, 2, 1)], SessionsConfig(), kinds)
    assert found == {}
    assert set(counts.values()) == {0}


@pytest.mark.integration
def test_earlier_sessions_keep_their_ids_when_later_events_arrive(spark):
    events = [Event(0, i, i * 600, session=f"s{i // 4}") for i in range(12)]
    for by in ("gap", "session_id"):
        config = SessionsConfig(by=by, gap_minutes=5 if by == "gap" else 30, min_length=1)
        before, _ = run(spark, events[:6], config)
        after, _ = run(spark, [*events, Event(9, 1, 50_000, session="s0")], config)
        assert set(before) <= set(after)


LOG_IDS = [None, "a", "b", "a#p1", "#", "0-1320000000000000#0"]


def histories(seed):
    """Events of 100 cases, each with two users of its own, anonymous events, and log ids of its own; many ties."""
    draw, events = random.Random(seed), []
    for case in range(100):
        for _ in range(draw.randint(0, 14)):
            user = draw.choice([None, 2 * case, 2 * case, 2 * case + 1])
            log_id = draw.choice(LOG_IDS)
            session = None if log_id is None else f"{case}{log_id}"
            kind, code = draw.choice([("view", 1), ("view", 1), ("cart", 2), ("other", None)])
            at, order = draw.randint(0, 12) * 100, draw.choice([None, None, 3, 2, 1])
            events.append(Event(user, draw.randint(0, 3), at, kind=kind, session=session, order=order, code=code))
    return events


@pytest.mark.integration
@example(seed=1, by="gap", minutes=5.0, min_length=1, max_length=2, collapse=False)
@example(seed=2, by="gap", minutes=2.5, min_length=2, max_length=3, collapse=True)
@example(seed=3, by="session_id", minutes=2.5, min_length=2, max_length=3, collapse=True)
@settings(max_examples=1, deadline=None, phases=[Phase.explicit, Phase.generate], derandomize=True,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(
    seed=st.integers(0, 10**6),
    by=st.sampled_from(["gap", "session_id"]),
    minutes=st.sampled_from([1.0, 2.5, 5.0]),
    min_length=st.integers(1, 3),
    max_length=st.integers(2, 5),
    collapse=st.booleans(),
)
def test_same_as_one_event_after_another(spark, seed, by, minutes, min_length, max_length, collapse):
    config, events = SessionsConfig(by, minutes, min_length, max_length, collapse), histories(seed)
    counted = Counts()
    made = sessions(frame(spark, events), config, ("view", "cart"), counted).persist()
    found, types, counts = found_sessions(made), found_types(made), counted.get()
    expected, expected_counts, expected_types = expected_sessions(events, config, ("view", "cart"))
    assert found == expected
    assert types == expected_types
    assert counts == {key: expected_counts[key] for key in counts}
    assert counts["events"] == sum(counts[k] for k in ("anonymous", "repeats", "short_events", "session_events"))
