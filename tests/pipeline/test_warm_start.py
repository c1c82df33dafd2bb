"""Which earlier model a night's training begins with, and that it is on record."""

import dataclasses
import json
import shutil
from datetime import UTC, date, datetime, timedelta

import pytest

from sparkrec.models.publication import make_current
from sparkrec.models.warm_start import Earlier, earlier_models, latest_before, warm_start_of
from sparkrec.warehouse import store
from sparkrec.warehouse.cards import FULL, HOLDOUT, read_card
from sparkrec.warehouse.ledger import Ledger, RunRow, StageResult
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.rollback import rollback
from sparkrec.warehouse.tables import ITEM_INDEX
from tests.nights import TRAIN_WARM, WARM
from tests.published import a_night, publish, small_gru, train

CONFIG = small_gru()
TONIGHT = date(2024, 1, 9)
MODELS = ("gru", "two_tower")


@pytest.mark.integration
def test_the_latest_earlier_published_model_of_these_settings_comes_first(spark, tmp_path):
    def on(day, config=CONFIG):
        return a_night(spark, tmp_path, config, date(2024, 1, day))

    tonight = a_night(spark, tmp_path, CONFIG, TONIGHT)
    assert earlier_models(tonight, "gru") == []
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
    found = earlier_models(tonight, "gru")
    assert [m.run_date.day for m in found] == [4, 3]
    train(on(4))
    # The stage's settings differ, and it runs again.
    assert earlier_models(tonight, "gru")[0].weights != found[0].weights
    assert earlier_models(on(9, dataclasses.replace(CONFIG, warm_start=False)), "gru") == []
    make_current(on(10), [read_card(tonight.warehouse, "gru", date(2024, 1, 10))])
    rollback(tonight.warehouse, "2024-01-03")
    assert [m.run_date.day for m in earlier_models(tonight, "gru")] == [3]  # those after it were passed over


def test_a_holdout_model_begins_with_one_that_has_not_seen_its_truth():
    models = [Earlier(date(2024, 1, day), f"v{day}", "", "") for day in (8, 4, 3)]
    assert latest_before(models, datetime(2024, 1, 10, tzinfo=UTC)).version == "v8"
    cutoff = datetime(2024, 1, 5, tzinfo=UTC)  # night 4 saw the events before it
    assert latest_before(models, cutoff).version == "v4"
    assert latest_before(models, cutoff - timedelta(seconds=1)).version == "v3"
    assert latest_before(models, cutoff - timedelta(days=3)) is None


@pytest.mark.integration
def test_a_model_of_items_that_were_numbered_anew_is_not_begun_with(spark, tmp_path):
    def on(day):
        return a_night(spark, tmp_path, CONFIG, date(2024, 1, day))

    def number(*ids):
        rows = spark.createDataFrame([(one, n) for n, one in enumerate(ids)], ITEM_INDEX.ddl)
        store.append(rows, on(3).warehouse, ITEM_INDEX)

    number("a", "b", "c")
    train(on(3))
    publish(on(3))
    assert [model.run_date.day for model in earlier_models(on(4), "gru")] == [3]
    shutil.rmtree(tmp_path / ITEM_INDEX.name)
    assert earlier_models(on(4), "gru") == []
    number("c", "b", "a")  # the same version number as before
    assert earlier_models(on(4), "gru") == []
    train(on(4))
    publish(on(4))
    assert [model.run_date.day for model in earlier_models(on(5), "gru")] == [4]


@pytest.mark.integration
def test_every_few_nights_training_begins_from_scratch(spark, tmp_path):
    def on(day, every):
        return a_night(spark, tmp_path, small_gru(full_retrain_nights=every), date(2024, 1, day))

    assert warm_start_of(on(1, 3), "gru").warm_nights == 0
    decided = []
    for day in range(1, 8):
        begin = warm_start_of(on(day, 3), "gru")
        decided.append((begin.warm_nights, begin.full_retrain))
        train(on(day, 3), warm_nights=begin.warm_nights)
        publish(on(day, 3))
    full = (0, "every 3 nights")
    assert decided == [(0, ""), (1, ""), (2, ""), full, (1, ""), (2, ""), full]
    again = [warm_start_of(on(day, 3), "gru") for day in range(1, 8)]
    assert [(begin.warm_nights, begin.full_retrain) for begin in again] == decided
    assert warm_start_of(on(8, 1), "gru").full_retrain == "every 1 nights"
    assert warm_start_of(on(4, 0), "gru").warm_nights == 3  # never for their number
    assert again[1].settings(on(2, 3)) != again[3].settings(on(4, 3)) == (full[1], [])


@pytest.mark.integration
def test_training_begins_from_scratch_when_the_gate_held_the_last_night_back(spark, tmp_path):
    def on(day):
        return a_night(spark, tmp_path, CONFIG, date(2024, 1, day))

    def judged(day, outputs, held_back=(), hour=1):
        at, night = datetime(2024, 1, day + 1, hour), on(day)
        result = StageResult(outputs=outputs, held_back=held_back)
        row = RunRow("r", night.run_date, "topk", result.status, at, at, {"models/gru": "v"}, "h", "{}", "c", result)
        Ledger(night.warehouse, night.run_date).record(row)

    train(on(3))
    publish(on(3))
    judged(3, {"topk_gru": 1})
    assert warm_start_of(on(4), "gru").full_retrain == ""
    judged(4, {"topk_als": 1}, ("gru",))
    begin = warm_start_of(on(5), "gru")
    assert (begin.models, begin.full_retrain) == ((), "the gate held back the model of 2024-01-04")
    judged(5, {"topk_gru": 2}, ("als",))  # another model
    assert [model.run_date.day for model in warm_start_of(on(6), "gru").models] == [3]
    assert warm_start_of(on(5), "gru").full_retrain == begin.full_retrain  # when it is run again
    judged(4, {"topk_gru": 3}, hour=2)  # with a milder gate the night was published after all
    assert warm_start_of(on(5), "gru").full_retrain == ""


@pytest.mark.integration
def test_only_the_models_that_training_begins_with_decide_whether_it_runs_again(spark, tmp_path):
    def on(day):
        return a_night(spark, tmp_path, CONFIG, date(2024, 1, day))

    for day in (1, 2, 9, 17):
        train(on(day))
        publish(on(day))
    tonight, weights = on(18), {model.run_date.day: model.weights for model in earlier_models(on(18), "gru")}
    # The hold-out begins on the 12th.
    assert warm_start_of(tonight, "gru").settings(tonight) == ("", [weights[17], weights[9]])


@pytest.mark.slow
def test_nights_that_begin_with_the_night_before(spark, later, tmp_path):
    place = later.place.copied_to(tmp_path / "warehouse")
    warehouse = Warehouse(str(place.warehouse))
    for model in MODELS:
        cards = [read_card(warehouse, model, night) for night in (later.first, later.second)]
        assert not [key for key in cards[0].inputs if key.startswith("models/")]
        version = cards[0].model_version
        assert {k: v for k, v in cards[1].inputs.items() if k.startswith("models/")} == {
            f"models/{model}/full": version,
            f"models/{model}/holdout": version,  # the cutoff is three days back, and so is the first night
        }
        folder = place.warehouse / "models" / model
        told = {
            (night, part): json.loads((folder / str(night) / part / "model.json").read_text())
            for night in (later.first, later.second)
            for part in (FULL, HOLDOUT)
        }
        assert told[later.second, FULL]["warm_start"] == told[later.first, FULL]["weights_sha256"]
        assert told[later.second, HOLDOUT]["warm_start"] == told[later.first, FULL]["weights_sha256"]
        assert told[later.second, FULL]["history"][0]["loss"] < told[later.first, FULL]["history"][0]["loss"]
        assert [card.warm_nights for card in cards] == [0, 1]
    before = place.versions()
    place.run(spark, later.second, *WARM, only=TRAIN_WARM)
    assert last_runs(place, 3)["status"].unique().to_list() == ["skipped"]
    assert {k: v for k, v in place.versions().items() if k != "runs"} == {
        k: v for k, v in before.items() if k != "runs"
    }

    every = [f"{model}.full_retrain_nights=1" for model in MODELS]
    for status in ("done", "skipped"):
        place.run(spark, later.second, *WARM, *every, "evaluation.refit=false", only=TRAIN_WARM[:2])
        runs = last_runs(place, 2)
        assert runs["status"].to_list() == [status, status]
        if status == "done":
            assert all("trained from scratch: every 1 nights" in message for message in runs["message"])
    for model in MODELS:
        card = read_card(warehouse, model, later.second)
        assert (card.warm_nights, card.full_retrain) == (0, "every 1 nights")
        assert not [key for key in card.inputs if key.startswith("models/")]


def last_runs(place, n):
    return place.table("runs").sort("ended_at").tail(n)
