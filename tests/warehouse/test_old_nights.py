"""Which nights stay."""

from datetime import UTC, date, datetime

from sparkrec.storage import files
from sparkrec.warehouse.cards import ModelCard, write_card
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.old_nights import begun_with, kept_nights, nights_in, remove_model, retention_hours


def day(number):
    return date(2024, 1, number)


def test_the_latest_nights_stay_and_those_that_are_needed():
    nights = [day(n) for n in range(1, 9)]
    assert kept_nights(nights, 3, {day(2)}) == {day(2), day(6), day(7), day(8)}
    assert kept_nights(nights, 0, set()) == set(nights)
    assert kept_nights(nights, 20, set()) == set(nights)


def test_the_retention_is_never_below_the_longest_night():
    assert retention_hours(168, 3.2, 24) == 168
    assert retention_hours(1, 3.2, 24) == 28
    assert retention_hours(0.5, 0, 0) == 1


def test_models_that_kept_ones_began_with_are_known_and_the_card_goes_first(tmp_path):
    warehouse = Warehouse(str(tmp_path))
    begun = {"models/gru/full": "2024-01-04.aa", "models/gru/holdout": "2024-01-02.bb", "sessions": 3}
    for number, inputs in ((3, {}), (4, {"models/gru/full": "2024-01-03.cc"}), (5, begun)):
        write_card(warehouse, day(number), ModelCard("gru", "v", datetime(2024, 1, 1, tzinfo=UTC), (), 1, 1, inputs))
    (tmp_path / "models/gru/2024-01-06").mkdir()
    (tmp_path / "models/gru/_temporary").mkdir()
    assert nights_in(f"{tmp_path}/models/gru") == [day(3), day(4), day(5), day(6)]
    assert begun_with(warehouse, "gru", [day(5), day(6)]) == {day(2), day(4)}
    remove_model(warehouse, "gru", day(5))
    assert not files.exists(warehouse.model_path("gru", day(5)))
    assert nights_in(f"{tmp_path}/nothing") == []
