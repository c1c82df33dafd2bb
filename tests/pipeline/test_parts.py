"""What the stages share: rows with support, and what is asked but once."""

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import pytest

from sparkrec.errors import NothingToTrain, UserError
from sparkrec.models.night import Found
from sparkrec.models.parts import Part, pretrained_part, supported, user_item_of
from sparkrec.pipeline.judge import Held
from sparkrec.pipeline.lists import current
from sparkrec.prepare.support import filter_support
from sparkrec.settings.config import Config
from sparkrec.settings.sections import PrepareConfig, SupportConfig
from sparkrec.warehouse.cards import ModelCard, write_card
from sparkrec.warehouse.location import Warehouse

ROWS = [(1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (3, 2), (None, 0), (None, 3), (4, 4)]


@pytest.mark.integration
@pytest.mark.parametrize(("items", "users"), [(1, 1), (2, 1), (3, 1), (1, 2), (1, 3), (2, 2), (3, 2), (99, 1)])
def test_rows_with_support_are_those_that_the_filter_keeps(spark, items, users):
    when = datetime(2024, 1, 1)
    rows = spark.createDataFrame([(u, i, when) for u, i in ROWS], "user_idx int, item_idx int, ts timestamp")
    config = SupportConfig(min_item_events=items, min_user_events=users)
    kept, expected = supported(rows, config), filter_support(rows, config)[0]
    assert kept.columns == rows.columns
    assert sorted(map(str, kept.collect())) == sorted(map(str, expected.collect()))


@pytest.mark.integration
@pytest.mark.parametrize("name", ["holdout", "full", "random"])
def test_who_asks_for_every_pair_gets_those_without_support_too(spark, name):
    when, later = datetime(2024, 1, 1), datetime(2024, 1, 3)
    pairs = [(user, item, when) for user in range(20) for item in range(3) if item < 2 or user < 2] + [(0, 3, later)]
    rows = spark.createDataFrame(pairs, "user_idx int, item_idx int, ts timestamp").selectExpr(
        "*", "'review' event_type", "5.0D value", "1.0D quantity", "cast(null as bigint) event_order"
    )
    config = Config(prepare=PrepareConfig(support=SupportConfig(min_item_events=5)))
    night = SimpleNamespace(config=config, fmt=SimpleNamespace(event_weights={"review": 1.0}))
    inputs = SimpleNamespace(read=lambda table: rows)
    part = Part(name, datetime(2024, 1, 2 if name == "holdout" else 4, tzinfo=UTC))
    items = {row[0] for row in user_item_of(night, inputs, part, every=True).select("item_idx").distinct().collect()}
    assert items == ({0, 1, 2} if name == "holdout" else {0, 1, 2, 3})
    if name == "holdout":
        kept = user_item_of(night, inputs, part)
        assert {row[0] for row in kept.select("item_idx").distinct().collect()} == {0, 1}


def test_vectors_that_have_seen_what_a_model_is_judged_on_are_refused(tmp_path):
    at, day = datetime(2024, 1, 9, tzinfo=UTC), date(2024, 1, 11)
    night = SimpleNamespace(warehouse=Warehouse(str(tmp_path)), run_date=day)
    write_card(night.warehouse, day, ModelCard("prod2vec", "v", at, ("holdout", "full"), 1, 1, {}))
    held_out, full = Part("holdout", at), Part("full", at)
    assert pretrained_part(night, "prod2vec", held_out, at).endswith("models/prod2vec/2024-01-11/holdout")
    earlier = at - timedelta(days=1)
    with pytest.raises(UserError, match="has seen what the model is judged on"):
        pretrained_part(night, "prod2vec", held_out, earlier)
    assert pretrained_part(night, "prod2vec", full, earlier)
    with pytest.raises(NothingToTrain, match="no part blend"):
        pretrained_part(night, "prod2vec", Part("blend", at), at)


@pytest.mark.integration
def test_what_went_on_until_the_nights_day_is_current_and_so_is_the_last_of_each_user(spark):
    """Across midnight: current on both nights, and by the second with all that is in it."""
    begun, over = datetime(2024, 1, 1, 23, 50), datetime(2024, 1, 2, 0, 10)
    rows = [
        ("before", None, begun, begun), ("across", None, begun, over), ("after", None, over, over),
        ("last week's", 1, datetime(2023, 12, 24), datetime(2023, 12, 25)), ("last", 1, begun, over),
    ]  # fmt: skip
    sessions = spark.createDataFrame(rows, "session_id string, user_idx int, start_ts timestamp, end_ts timestamp")
    baskets = sessions.withColumnsRenamed({"session_id": "basket_id", "start_ts": "ts"})
    days = {(2, None): ["across", "after", "last"], (1, "America/New_York"): ["across", "after", "before", "last"]}
    for (day, zone), expected in days.items():
        asked = date(2024, 1, day), zone
        for found in (current(sessions, *asked), current(baskets, *asked)):
            assert sorted(row[0] for row in found.collect()) == expected
    known = sessions.where("end_ts < '2024-01-02'")
    assert sorted(row[0] for row in current(known, date(2024, 1, 1)).collect()) == ["before", "last week's"]


@pytest.mark.parametrize(
    ("held", "too_little"), [((2, 5), True), ((19, 99), True), ((99, 29), True), ((20, 30), False)]
)
def test_what_the_shipped_settings_take_for_too_little_to_judge_on(held, too_little):
    """Of 100,004 ratings over 21 years the last week holds out five of two users: metrics of them say nothing."""
    assert Held(*held).too_little(SimpleNamespace(config=Config())) is too_little


def test_what_was_found_is_not_asked_again_and_rows_are_kept_until_released(spark):
    found, asked = Found(), []

    def rows():
        asked.append("rows")
        return spark.range(3)

    kept = found.kept("rows", rows)
    assert found.kept("rows", rows) is kept
    assert asked == ["rows"]
    assert kept.is_cached
    assert found.once(("size", 1), lambda: 7) == found.once(("size", 1), lambda: 8) == 7
    assert found.once(("size", 2), lambda: 8) == 8
    found.release()
    assert not kept.is_cached
    assert found.once(("size", 1), lambda: 8) == 8
