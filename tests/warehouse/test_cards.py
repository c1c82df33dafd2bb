"""The cards of models: what is written is read, and what cannot be read is one line."""

import json
from datetime import UTC, date, datetime

import pytest

from sparkrec.errors import UserError
from sparkrec.warehouse.cards import CARD, ModelCard, read_card, write_card
from sparkrec.warehouse.location import Warehouse

NIGHT = date(2024, 1, 2)
WRITTEN = ModelCard("als", "v", datetime(2024, 1, 1, tzinfo=UTC), ("holdout", "full"), 3, 4, {"interactions": 7})


@pytest.fixture
def card(tmp_path):
    write_card(Warehouse(str(tmp_path)), NIGHT, WRITTEN)
    return tmp_path / "models" / "als" / str(NIGHT) / CARD


def test_a_card_is_read_as_it_was_written(tmp_path, card):
    assert read_card(Warehouse(str(tmp_path)), "als", NIGHT) == WRITTEN
    with pytest.raises(UserError, match="has not been trained"):
        read_card(Warehouse(str(tmp_path)), "gru", NIGHT)


@pytest.mark.parametrize(
    "changed",
    [
        lambda values: {**values, "of_a_newer_version": 1},
        lambda values: {key: value for key, value in values.items() if key != "n_users"},
        lambda values: {key: value for key, value in values.items() if key != "cutoff"},
        lambda values: {**values, "cutoff": "yesterday"},
        lambda values: [values],
    ],
)
def test_a_card_of_another_version_is_one_line(tmp_path, card, changed):
    card.write_text(json.dumps(changed(json.loads(card.read_text()))))
    with pytest.raises(UserError, match="of another version of sparkrec") as refused:
        read_card(Warehouse(str(tmp_path)), "als", NIGHT)
    assert str(card) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_lost_lock_makes_no_model(tmp_path):
    def lost():
        raise UserError("the lock was lost")

    with pytest.raises(UserError, match="lost"):
        write_card(Warehouse(str(tmp_path), lost), NIGHT, WRITTEN)
    assert not list(tmp_path.iterdir())
