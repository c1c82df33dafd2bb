"""Which earlier model a night's GRU begins with, and that it is on record."""

import dataclasses
import json
from datetime import UTC, date, datetime, timedelta

import pytest
import torch

from sparkrec.config import Config, EvaluationConfig, GruConfig, WarehouseConfig, config_dict
from sparkrec.pipeline.models import FULL, HOLDOUT, ModelCard, part_path, read_card, write_card
from sparkrec.pipeline.night import Night
from sparkrec.pipeline.warm_start import begin_with, earlier_models
from sparkrec.training.checkpoint import save_model
from tests.nights import make_place

CONFIG = GruConfig(layers=[4], warm_start=True)
TONIGHT = date(2024, 1, 9)


def a_night(warehouse, config=CONFIG, run_date=TONIGHT):
    settings = Config(warehouse=WarehouseConfig(str(warehouse)), gru=config, evaluation=EvaluationConfig())
    return Night(spark=None, config=settings, fmt=None, run_date=run_date, run_id="x", code_version="y")


def publish(warehouse, day, config=CONFIG, parts=(HOLDOUT, FULL), card=True):
    """A model of a night, with weights of its own."""
    night = a_night(warehouse, run_date=date(2024, 1, day))
    for part in parts:
        path = part_path(night.warehouse, "gru", night.run_date, part)
        save_model(path, {"bias": torch.rand(3)}, {"config": config_dict(config), "n_items": 3})
    if card:
        cutoff = datetime(2024, 1, day, tzinfo=UTC)
        write_card(night.warehouse, night.run_date, ModelCard("gru", f"v{day}", cutoff, parts, 0, 3, {}))


def test_the_latest_earlier_model_of_these_settings_comes_first(tmp_path):
    publish(tmp_path, 3)
    publish(tmp_path, 4, dataclasses.replace(CONFIG, warm_start=False, epochs=9))  # how it began and ended may differ
    publish(tmp_path, 5, dataclasses.replace(CONFIG, layers=[5]))
    publish(tmp_path, 6, parts=(HOLDOUT,))  # no model of everything
    publish(tmp_path, 7, card=False)  # broken off
    publish(tmp_path, 9)  # this very night, when it is run again
    publish(tmp_path, 10)  # a later night, when this one is run again after it
    (tmp_path / "models" / "gru" / "not a day").mkdir()
    assert [m.version for m in earlier_models(a_night(tmp_path))] == ["v4", "v3"]
    assert earlier_models(a_night(tmp_path, dataclasses.replace(CONFIG, warm_start=False))) == []
    assert earlier_models(a_night(tmp_path / "new")) == []


def test_a_holdout_model_begins_with_one_that_has_not_seen_its_truth(tmp_path):
    for day in (3, 4, 8):
        publish(tmp_path, day)
    models = earlier_models(a_night(tmp_path))
    as_of = datetime(2024, 1, 10, tzinfo=UTC)
    assert begin_with(models, as_of).version == "v8"
    cutoff = datetime(2024, 1, 5, tzinfo=UTC)  # night 4 saw the events before it
    assert begin_with(models, cutoff).version == "v4"
    assert begin_with(models, cutoff - timedelta(seconds=1)).version == "v3"
    assert begin_with(models, cutoff - timedelta(days=3)) is None


def test_a_model_trained_anew_is_another_one(tmp_path):
    publish(tmp_path, 3)
    (before,) = earlier_models(a_night(tmp_path))
    publish(tmp_path, 3)
    (after,) = earlier_models(a_night(tmp_path))
    assert before.weights != after.weights  # so that the stage's settings differ, and it runs again


@pytest.mark.slow
def test_nights_that_begin_with_the_night_before(spark, tmp_path):
    place = make_place(tmp_path)
    first, second = place.last - timedelta(days=4), place.last
    settings = ["models=[gru]", "gru.warm_start=true"]
    for night in (first, second):
        assert place.run(spark, night, *settings) == 0
    warehouse = a_night(place.warehouse).warehouse
    cards = [read_card(warehouse, "gru", night) for night in (first, second)]
    assert not [key for key in cards[0].inputs if key.startswith("models/")]
    version = cards[0].model_version
    assert {k: v for k, v in cards[1].inputs.items() if k.startswith("models/")} == {
        "models/gru/full": version,
        "models/gru/holdout": version,  # the cutoff is three days back, the first night four
    }
    told = {
        (night, part): json.loads((place.warehouse / "models/gru" / str(night) / part / "model.json").read_text())
        for night in (first, second)
        for part in (FULL, HOLDOUT)
    }
    assert told[second, FULL]["warm_start"] == told[first, FULL]["weights_sha256"]
    assert told[second, HOLDOUT]["warm_start"] == told[first, FULL]["weights_sha256"]
    assert told[second, FULL]["history"][0]["loss"] < told[first, FULL]["history"][0]["loss"]
    before = place.versions()
    place.run(spark, second, *settings)
    runs = place.table("runs").sort("ended_at").tail(6)
    assert runs["status"].unique().to_list() == ["skipped"]
    assert {k: v for k, v in place.versions().items() if k != "runs"} == {
        k: v for k, v in before.items() if k != "runs"
    }
