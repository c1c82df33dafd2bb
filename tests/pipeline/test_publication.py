"""Which night of a model is current, when all models are published and when some are."""

from datetime import UTC, date, datetime

import pytest

from sparkrec.models.publication import current_lists, held_back_before, make_current, nights_held_back
from sparkrec.warehouse import store
from sparkrec.warehouse.cards import FULL, ModelCard
from sparkrec.warehouse.tables import RUNS
from tests.published import a_night, small_gru

FIRST, SECOND = date(2024, 1, 1), date(2024, 1, 2)


def card(model, version):
    return ModelCard(model, version, datetime(2024, 1, 1, tzinfo=UTC), (FULL,), 0, 3, {})


def current(night):
    return {model: (at.run_date, at.model_version) for model, at in current_lists(night).items()}


@pytest.mark.integration
def test_pointers_of_models_that_are_not_published_stay(spark, tmp_path):
    first, second = (a_night(spark, tmp_path, small_gru(), day) for day in (FIRST, SECOND))
    make_current(first, [card("als", "a1"), card("gru", "g1")])
    assert current(first) == {"als": (FIRST, "a1"), "gru": (FIRST, "g1")}
    make_current(second, [card("gru", "g2")])
    assert current(second) == {"als": (FIRST, "a1"), "gru": (SECOND, "g2")}
    make_current(first, [card("als", "a3"), card("gru", "g3")])  # the first night again: gru's later lists stay current
    assert current(first) == {"als": (FIRST, "a3"), "gru": (SECOND, "g2")}
    make_current(second, [card("als", "a4"), card("gru", "g4"), card("rules", "r4")])
    assert current(second) == {"als": (SECOND, "a4"), "gru": (SECOND, "g4"), "rules": (SECOND, "r4")}


@pytest.mark.integration
def test_nights_that_were_held_back_in_a_row_are_counted_as_each_ended(spark, tmp_path):
    def run(day, hour, status, outputs, model="als", stage="topk"):
        at = datetime(2024, 2, 1, hour, tzinfo=UTC)
        told = {"inputs": f'{{"models/{model}": "v"}}', "outputs": outputs}
        night = ("r", date(2024, 1, day), stage, status, at, at, *told.values(), "h", "{}", "c")
        return (*night, *[None] * (len(RUNS.columns) - len(night)))

    out, kept = '{"topk_als": 3}', "{}"
    rows = [
        run(1, 1, "held_back", kept),
        run(2, 2, "done", out),
        run(3, 3, "held_back", kept),
        run(4, 4, "done", out),
        run(4, 5, "held_back", kept),  # a stricter gate, later
        run(5, 6, "held_back", kept, model="gru"),
        run(6, 7, "held_back", kept),
        run(7, 8, "held_back", kept),
        run(7, 9, "done", out),  # a milder one
        run(7, 10, "skipped", kept),
    ]
    nights = {day: a_night(spark, tmp_path, small_gru(), date(2024, 1, day)) for day in range(1, 9)}
    assert nights_held_back(nights[1], "als") == 0
    store.append(spark.createDataFrame(rows, RUNS.ddl).coalesce(1), nights[1].warehouse, RUNS)
    assert [nights_held_back(night, "als") for night in nights.values()] == [0, 1, 0, 1, 2, 2, 3, 0]
    assert held_back_before(nights[7], "als") == date(2024, 1, 6)
    assert held_back_before(nights[8], "als") is None
