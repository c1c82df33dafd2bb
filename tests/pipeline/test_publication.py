"""Which night of a model is current, when all models are published and when some are."""

from datetime import UTC, date, datetime

from sparkrec.pipeline.models import FULL, ModelCard
from sparkrec.pipeline.publication import current_lists, make_current
from tests.published import a_night, small_gru

FIRST, SECOND = date(2024, 1, 1), date(2024, 1, 2)


def card(model, version):
    return ModelCard(model, version, datetime(2024, 1, 1, tzinfo=UTC), (FULL,), 0, 3, {})


def current(night):
    return {model: (at.run_date, at.model_version) for model, at in current_lists(night).items()}


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
