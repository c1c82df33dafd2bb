"""Which earlier model a night's GRU begins with, and that it is on record."""

import dataclasses
import json
from datetime import UTC, date, datetime, timedelta

import pytest
import torch

from sparkrec import store
from sparkrec.config import Config, GruConfig, WarehouseConfig, config_dict, load_config
from sparkrec.pipeline.models import FULL, HOLDOUT, ModelCard, part_path, read_card, write_card
from sparkrec.pipeline.night import Night
from sparkrec.pipeline.nightly import Choice, run_nightly
from sparkrec.pipeline.warm_start import Earlier, begin_with, earlier_models
from sparkrec.tables import topk_table
from sparkrec.training.checkpoint import save_model
from tests.nights import make_place

CONFIG = GruConfig(layers=[4], warm_start=True)
TONIGHT = date(2024, 1, 9)


def a_night(spark, warehouse, config=CONFIG, run_date=TONIGHT):
    settings = Config(warehouse=WarehouseConfig(str(warehouse)), gru=config)
    return Night(spark=spark, config=settings, fmt=None, run_date=run_date, run_id="x", code_version="y")


def train(night, config=CONFIG, parts=(HOLDOUT, FULL), version="v"):
    """A model with weights of its own."""
    for part in parts:
        path = part_path(night.warehouse, "gru", night.run_date, part)
        save_model(path, {"bias": torch.rand(3)}, {"config": config_dict(config), "n_items": 3})
    cutoff = datetime(2024, 1, 1, tzinfo=UTC)
    write_card(night.warehouse, night.run_date, ModelCard("gru", version, cutoff, parts, 0, 3, {}))


def publish(night, version="v"):
    """A list made by the night's model."""
    rows = [(night.run_date, "u", "user", 1, "i", 1.0, version)]
    lists = night.spark.createDataFrame(rows, topk_table("gru").ddl)
    store.replace_night(lists, night.warehouse, topk_table("gru"), night.run_date)


def test_the_latest_earlier_published_model_of_these_settings_comes_first(spark, tmp_path):
    def on(day, config=CONFIG):
        return a_night(spark, tmp_path, config, date(2024, 1, day))

    tonight = a_night(spark, tmp_path)
    assert earlier_models(tonight) == []
    train(on(3))
    publish(on(3))
    train(on(4), dataclasses.replace(CONFIG, warm_start=False, epochs=9))  # how it began and ended may differ
    publish(on(4))
    train(on(5), dataclasses.replace(CONFIG, layers=[5]))
    publish(on(5))
    train(on(6), parts=(HOLDOUT,))  # no model of everything
    publish(on(6))
    train(on(7))  # held back
    train(on(8), version="trained anew since")
    publish(on(8))
    train(on(9))  # this very night, when it is run again
    publish(on(9))
    train(on(10))  # a later night, when this one is run again after it
    publish(on(10))
    found = earlier_models(tonight)
    assert [m.run_date.day for m in found] == [4, 3]
    train(on(4))
    assert earlier_models(tonight)[0].weights != found[0].weights  # so the stage's settings differ, and it runs again
    assert earlier_models(on(9, dataclasses.replace(CONFIG, warm_start=False))) == []


def test_a_holdout_model_begins_with_one_that_has_not_seen_its_truth():
    models = [Earlier(date(2024, 1, day), f"v{day}", "", "") for day in (8, 4, 3)]
    assert begin_with(models, datetime(2024, 1, 10, tzinfo=UTC)).version == "v8"
    cutoff = datetime(2024, 1, 5, tzinfo=UTC)  # night 4 saw the events before it
    assert begin_with(models, cutoff).version == "v4"
    assert begin_with(models, cutoff - timedelta(seconds=1)).version == "v3"
    assert begin_with(models, cutoff - timedelta(days=3)) is None


@pytest.mark.slow
def test_nights_that_begin_with_the_night_before(spark, tmp_path):
    place = make_place(tmp_path)
    first, second = place.last - timedelta(days=4), place.last
    config = load_config(None, place.settings("models=[gru]", "gru.warm_start=true"))
    stages = Choice(only=("ingest", "index", "prepare", "train_gru", "topk"))  # a model is published by topk
    for night in (first, second):
        assert run_nightly(config, night.isoformat(), stages, spark=spark) == 0
    warehouse = a_night(spark, place.warehouse).warehouse
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
    run_nightly(config, second.isoformat(), stages, spark=spark)
    runs = place.table("runs").sort("ended_at").tail(5)
    assert runs["status"].unique().to_list() == ["skipped"]
    assert {k: v for k, v in place.versions().items() if k != "runs"} == {
        k: v for k, v in before.items() if k != "runs"
    }
