"""Support: the fixed point, and what it removed."""

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from sparkrec.prepare.support import SupportReport, filter_support
from sparkrec.settings.sections import SupportConfig
from tests.prepare.cases import Event, expected_support, frame


def pairs(rows):
    return Counter(tuple(r) for r in rows.select("user_idx", "item_idx").collect())


@pytest.mark.integration
def test_removal_goes_on_until_nothing_is_weak(spark):
    # Item 3 has one event, so user 2 has one left, so item 2 has one left, so user 1 has one left; then all is strong.
    chain = [(2, 3), (2, 2), (1, 2), (1, 1), (0, 0), (0, 0), (0, 1), (3, 1), (3, 0)]
    events = [Event(u, i, 0) for u, i in chain]
    kept, report = filter_support(frame(spark, events), SupportConfig(min_item_events=2, min_user_events=2))
    assert pairs(kept) == Counter([(0, 0), (0, 0), (0, 1), (3, 1), (3, 0)])
    assert report == SupportReport(4, rows_removed=4, items_removed=2, users_removed=2, rows=9, items=4, users=4)


@pytest.mark.integration
def test_anonymous_events_count_for_items_alone(spark):
    events = [Event(None, 1, 0), Event(0, 1, 0), Event(None, 2, 0), Event(1, 3, 0)]
    kept, report = filter_support(frame(spark, events), SupportConfig(min_item_events=2, min_user_events=1))
    assert pairs(kept) == Counter([(None, 1), (0, 1)])
    assert report == SupportReport(1, rows_removed=2, items_removed=2, users_removed=1, rows=4, items=3, users=2)
    kept, _ = filter_support(frame(spark, events), SupportConfig(min_item_events=1, min_user_events=3))
    assert pairs(kept) == Counter([(None, 1), (None, 2)])


def test_without_thresholds_nothing_is_read(spark):
    broken = frame(spark, [Event(0, 1, 0)]).selectExpr("user_idx", "raise_error('read')")
    kept, report = filter_support(broken, SupportConfig(min_item_events=1, min_user_events=0))
    assert kept is broken
    assert report == SupportReport()


@pytest.mark.parametrize(
    ("removed", "much", "said"),
    [
        ((0, 0, 0, 0), False, ""),
        ((2, 9999, 4532, 0), False, "4,532 of 9,066 items (50.0%), 9,999 of 100,004 rows (10.0%)"),
        ((1, 10001, 5570, 0), True, "5,570 of 9,066 items (61.4%), 10,001 of 100,004 rows (10.0%)"),
        ((1, 700, 0, 68), True, "68 of 671 users (10.1%), 700 of 100,004 rows (0.7%)"),
    ],
)
def test_what_was_removed_is_said(removed, much, said):
    report = SupportReport(*removed, rows=100004, items=9066, users=671)
    by = " by prepare.support (min_item_events=5, min_user_events=1)"
    assert report.said(SupportConfig(5, 1)) == (said and said + by)
    assert report.much is much


@pytest.mark.integration
@pytest.mark.parametrize("least", [2, 10])
def test_columns_stay_and_all_may_go(spark, least):
    events = frame(spark, [Event(0, 1, 0), Event(0, 1, 0)])
    kept, report = filter_support(events, SupportConfig(least, least))
    assert kept.columns == events.columns
    assert kept.count() == (2 if least == 2 else 0)
    assert report.rows_removed == 2 - kept.count()


@pytest.mark.integration
@example(seed=1, min_item=3, min_user=2)
@settings(max_examples=1, deadline=None, phases=[Phase.explicit, Phase.generate], derandomize=True,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(seed=st.integers(0, 10**6), min_item=st.integers(1, 3), min_user=st.integers(1, 3))
def test_same_as_one_removal_after_another(spark, seed, min_item, min_user):
    draw, events = random.Random(seed), []
    for case in range(100):
        for _ in range(draw.randint(0, 16)):
            user = draw.choice([None, 0, 1, 2, 3, 4])
            events.append(Event(None if user is None else case * 10 + user, case * 10 + draw.randint(0, 5), 0))
    kept, report = filter_support(frame(spark, events), SupportConfig(min_item, min_user))
    expected = expected_support(events, min_item, min_user)
    assert pairs(kept) == Counter((e.user, e.item) for e in expected)

    def different(rows, column):
        return len({getattr(e, column) for e in rows} - {None})

    assert report.rows_removed == len(events) - len(expected)
    assert report.items_removed == different(events, "item") - different(expected, "item")
    assert report.users_removed == different(events, "user") - different(expected, "user")
