"""Baskets: by the log's id or by window, distinct items in order of purchase."""

import random
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from sparkrec.prepare.copurchase import copurchase
from sparkrec.prepare.counts import Counts
from sparkrec.settings.sections import BasketsConfig
from sparkrec.warehouse.tables import COPURCHASE
from tests.prepare.cases import Event, expected_baskets, found_baskets, frame

HOUR = 3600
BUY = ("buy",)


def buy(user, item, at, basket=None):
    return Event(user, item, at, kind="buy", basket=basket)


def run(spark, events, config):
    counts = Counts()
    return found_baskets(copurchase(frame(spark, events), config, BUY, counts)), counts.get()


def test_window_is_cut_from_the_first_purchase_of_a_chain(spark):
    events = [
        buy(3, 9, 0), buy(3, 2, 20 * HOUR), buy(3, 9, 21 * HOUR),  # the first window: 9 2
        buy(3, 5, 24 * HOUR), buy(3, 4, 47 * HOUR),  # the second, from 24 h, within the same chain
        buy(3, 7, 71 * HOUR), buy(3, 6, 71 * HOUR), buy(3, 8, 73 * HOUR),  # 24 h after the last: a new chain
        buy(None, 1, 0), buy(None, 2, 0), Event(3, 8, HOUR, kind="return"), buy(4, 1, 0), buy(4, 1, HOUR),
    ]  # fmt: skip
    found, counts = run(spark, events, BasketsConfig())
    assert found == {
        "3-1320000000000000#0": (3, 0, [9, 2], 21 * HOUR),
        "3-1320086400000000#0": (3, 24 * HOUR, [5, 4], 47 * HOUR),
        "3-1320255600000000#0": (3, 71 * HOUR, [6, 7, 8], 73 * HOUR),
    }
    assert counts == {
        "purchases": 12, "anonymous": 2, "small_baskets": 1, "small_purchases": 2, "cut_items": 0, "cut_purchases": 0,
        "baskets": 3, "basket_purchases": 8,
    }  # fmt: skip


def test_baskets_of_the_log(spark):
    events = [
        buy(None, 3, 0, "A"), buy(None, 1, 0, "A"),  # anonymous, equal times
        buy(5, 7, 0, "B"), buy(5, 2, 900 * HOUR, "B"), buy(5, 7, 901 * HOUR, "B"),  # no window inside
        buy(5, 1, 0, "1"), buy(5, 2, 0, "1"), buy(6, 3, 5, "1"), buy(6, 4, 5, "1"),  # numbered for each user
        buy(7, 1, 0), buy(7, 2, 30), buy(None, 2, 30),  # without an id: by window, or nobody's
    ]  # fmt: skip
    found, counts = run(spark, events, BasketsConfig(by="basket_id"))
    assert found == {
        "A": (None, 0, [1, 3], 0),
        "B": (5, 0, [7, 2], 901 * HOUR),
        "1": (5, 0, [1, 2], 0),
        "1#p0u6": (6, 5, [3, 4], 5),
        "7-1320000000000000#0": (7, 0, [1, 2], 30),
    }
    assert counts["anonymous"] == 1


def test_a_long_basket_keeps_its_first_items(spark):
    events = [buy(0, item, at, "A") for at, item in enumerate([5, 4, 5, 3, 2, 3])]
    found, counts = run(spark, events, BasketsConfig(by="basket_id", max_items=2))
    assert found == {"A": (0, 0, [5, 4], 5)}
    assert (counts["cut_items"], counts["cut_purchases"], counts["basket_purchases"]) == (2, 3, 3)


def test_columns_and_types(spark):
    got = copurchase(frame(spark, []), BasketsConfig(), BUY)
    assert [(f.name, f.dataType.simpleString()) for f in got.schema] == [(c.name, c.type) for c in COPURCHASE.columns]


def purchases(seed):
    """Purchases of 100 cases, each with two users and log ids of its own; many ties."""
    draw, events = random.Random(seed), []
    for case in range(100):
        for _ in range(draw.randint(0, 14)):
            user = draw.choice([None, 2 * case, 2 * case, 2 * case + 1])
            basket = draw.choice([None, f"{case}", f"{case}#"])
            bought = buy(user, draw.randint(0, 4), draw.randint(0, 40) * HOUR // 2, basket)
            events.append(bought._replace(order=draw.choice([None, None, 3, 2, 1])))
    return events


@pytest.mark.integration
@example(seed=1, by="window", hours=2.5, min_items=2, max_items=3)
@example(seed=2, by="basket_id", hours=6.0, min_items=1, max_items=2)
@settings(max_examples=1, deadline=None, phases=[Phase.explicit, Phase.generate], derandomize=True,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(
    seed=st.integers(0, 10**6),
    by=st.sampled_from(["window", "basket_id"]),
    hours=st.sampled_from([1.0, 2.5, 6.0]),
    min_items=st.integers(1, 3),
    max_items=st.integers(1, 4),
)
def test_same_as_one_purchase_after_another(spark, seed, by, hours, min_items, max_items):
    config, events = BasketsConfig(by, hours, min_items, max_items), purchases(seed)
    found, counts = run(spark, events, config)
    expected, expected_counts = expected_baskets(events, config, BUY)
    assert found == expected
    assert counts == {key: expected_counts[key] for key in counts}
    parts = ("anonymous", "small_purchases", "cut_purchases", "basket_purchases")
    assert counts["purchases"] == sum(counts[k] for k in parts)


def test_items_of_one_time_are_in_no_order_of_their_numbers(spark):
    """Else who guesses the next number, which is the next id in the alphabet, would look clever."""
    events = [Event(u, item, 1000 * u, "buy") for u in range(40) for item in range(10)]
    baskets = copurchase(frame(spark, events).repartition(5), BasketsConfig(), BUY)
    rows = {row["user_idx"]: row["items"] for row in baskets.collect()}
    again = copurchase(frame(spark, events[::-1]), BasketsConfig(), BUY)
    assert {row["user_idx"]: row["items"] for row in again.collect()} == rows
    assert all(sorted(items) == list(range(10)) for items in rows.values())
    following = sum(b == a + 1 for items in rows.values() for a, b in pairwise(items))
    assert following < 2 * 40 * 9 / 10  # 36 of 360 expected
    assert len({tuple(items) for items in rows.values()}) > 30
