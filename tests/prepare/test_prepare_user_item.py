"""The user-item matrix: ratings, weights, age."""

import math
from collections import defaultdict
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sparkrec.prepare.counts import Counts
from sparkrec.prepare.user_item import debiased, user_item
from sparkrec.settings.sections import UserItemConfig
from sparkrec.warehouse.tables import USER_ITEM
from tests.prepare.cases import BASE, Event, frame, second

DAY = 86_400
WEIGHTS = {"view": 1.0, "buy": 4.0, "return": 0.0}
AS_OF = datetime.fromtimestamp(BASE + 10 * DAY, tz=UTC)


def run(spark, events, config=None, counts=None):
    rows = user_item(frame(spark, events), config or UserItemConfig(), WEIGHTS, AS_OF, counts)
    found = rows.select("user_idx", "item_idx", "rating", "confidence", "n_events", second("last_ts")).collect()
    assert len({(r[0], r[1]) for r in found}) == len(found)
    return {(r[0], r[1]): tuple(r[2:]) for r in found}


def test_weights_halve_with_age(spark):
    events = [
        Event(0, 1, 10 * DAY - 1, "view"),  # the last second before the cut
        Event(0, 1, 6 * DAY, "buy", 2.0),  # 4 days old: two half-lives
        Event(0, 2, 0, "view"),  # 10 days
        Event(0, 1, 10 * DAY, "buy", 9.0),  # too late
        Event(None, 1, 0, "buy"), Event(0, 1, 0, "return", 1.0), Event(0, 3, 0, "unheard of"),
    ]  # fmt: skip
    counts = Counts()
    found = run(spark, events, UserItemConfig(half_life_days=2.0), counts)
    assert found.keys() == {(0, 1), (0, 2)}
    assert found[0, 1] == (2.0, pytest.approx(1 + 4 / 4, rel=1e-5), 2, 10 * DAY - 1)
    assert found[0, 2] == (None, pytest.approx(2**-5, rel=1e-5), 1, 0)
    assert counts.get() == {"events": 7, "late": 1, "anonymous": 1, "weightless": 2, "used": 3}
    assert run(spark, events)[0, 1][1] == 5.0


def test_rating_is_the_last_one_or_the_mean(spark):
    events = [
        Event(0, 1, 1, "view", 5.0), Event(0, 1, 2, "view", 2.0), Event(0, 1, 2, "view", 3.0), Event(0, 1, 3, "view"),
        Event(1, 1, 1, "view", -1.0), Event(1, 1, 0, "view", 4.0),
    ]  # fmt: skip
    assert {pair: row[0] for pair, row in run(spark, events).items()} == {(0, 1): 3.0, (1, 1): -1.0}
    mean = run(spark, events, UserItemConfig(rating="mean"))
    assert {pair: row[0] for pair, row in mean.items()} == {(0, 1): pytest.approx(10 / 3), (1, 1): 1.5}


@pytest.mark.integration
def test_popular_items_weigh_less_and_the_mean_stays(spark):
    schema = "user_idx int, item_idx int, rating float, confidence float, n_events int, last_ts timestamp"
    rows = [(user, 7, None, 2.0, 1, None) for user in range(4)] + [(0, 8, 3.0, 1.0, 1, None)]
    matrix = spark.createDataFrame(rows, schema)
    assert debiased(matrix, 0.0) is matrix
    found = debiased(matrix, 0.5)
    assert found.columns == matrix.columns
    by_item = {row["item_idx"]: row["confidence"] for row in found.collect()}
    mean = (4 * 4**-0.5 + 1) / 5
    assert by_item == {7: pytest.approx(2 * 4**-0.5 / mean), 8: pytest.approx(1 / mean)}
    assert found.count() == 5


def test_columns_and_types(spark):
    got = user_item(frame(spark, []), UserItemConfig(), {}, AS_OF)
    assert [(f.name, f.dataType.simpleString()) for f in got.schema] == [(c.name, c.type) for c in USER_ITEM.columns]


@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.generate], derandomize=True,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(
    drawn=st.lists(
        st.tuples(
            st.sampled_from([None, 0, 1, 2, 3]),
            st.integers(0, 3),
            st.integers(0, 12).map(lambda d: d * DAY),
            st.sampled_from([*WEIGHTS, "other"]),
            st.sampled_from([None, 1.0, 2.0, 5.0]),
            st.sampled_from([None, 1, 2]),
        ),
        min_size=50,
        max_size=200,
    ),
    rating=st.sampled_from(["last", "mean"]),
    half_life=st.sampled_from([None, 3.0]),
)
def test_same_as_a_plain_sum(spark, drawn, rating, half_life):
    events = [Event(u, i, at, kind, value, order=order) for u, i, at, kind, value, order in drawn]
    of_pair = defaultdict(list)
    for e in events:
        if e.user is not None and e.second < 10 * DAY and WEIGHTS.get(e.kind, 0) > 0:
            of_pair[e.user, e.item].append(e)
    found = run(spark, events, UserItemConfig(rating, half_life))
    assert found.keys() == of_pair.keys()
    for pair, members in of_pair.items():
        rated = sorted((e.second, e.order or 0, e.value) for e in members if e.value is not None)
        values = [value for *_, value in rated]
        expected = None if not rated else values[-1] if rating == "last" else math.fsum(values) / len(values)
        decay = [2 ** -((10 * DAY - e.second) / DAY / half_life) if half_life else 1.0 for e in members]
        confidence = math.fsum(w * WEIGHTS[e.kind] for w, e in zip(decay, members, strict=True))
        assert found[pair] == (
            expected if expected is None else pytest.approx(expected, rel=1e-6),
            pytest.approx(confidence, rel=1e-6),
            len(members),
            max(e.second for e in members),
        )
