"""Settings that find themselves, on a real warehouse."""

import json
from datetime import UTC, datetime

import polars as pl
import pytest

from sparkrec.errors import UserError
from sparkrec.pipeline.tune_stage import ranges
from sparkrec.report.gather import gather
from sparkrec.report.page import page
from sparkrec.settings.checks import tune_nights
from sparkrec.settings.config import config_with, load_config, own_settings
from sparkrec.warehouse import store
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import TUNED

QUICK = ("models=[item_neighbours]", "tune=first", "tune_minutes=0.3", "gate.k=10")


def test_how_often_settings_are_tried():
    texts = ("off", "False", "first", "weekly", "every 3 nights", "Every 1 night")
    assert [tune_nights(text) for text in texts] == [None, None, 0, 7, 3, 1]
    assert load_config(None, ["tune=off"]).tune.lower() in ("off", "false")  # YAML takes off for false
    for wrong in ("daily", "every 0 nights", "every night"):
        with pytest.raises(UserError, match=f"tune={wrong} .one of off, first, weekly, every N nights"):
            load_config(None, [f"tune={wrong}"])


@pytest.mark.integration
def test_settings_that_somebody_has_set_are_not_tried():
    config = load_config(None, ["logs.format=invoices", "als.rank=32"])
    assert "als.rank" not in ranges(config, "als")
    assert {"als.reg", "als.alpha", "prior.als_added"} <= ranges(config, "als").keys()  # the format's are shipped, too
    assert own_settings(config) == {"als.rank"}
    assert ranges(config, "als").keys().isdisjoint(ranges(config, "item_neighbours"))


def test_other_values_are_held_to_the_same_bounds():
    config = load_config(None, [])
    assert config_with(config, {"als.rank": 7, "prior.als": 0.5}).als.rank == 7
    with pytest.raises(UserError, match=r"als\.rank=0"):
        config_with(config, {"als.rank": 0})


@pytest.mark.slow
def test_settings_are_tried_once_and_what_is_taken_over_is_used(spark, later, tmp_path):
    place = later.place.copied_to(tmp_path / "warehouse")
    assert place.run(spark, later.second, *QUICK, only=("tune",)) == 0
    row = place.table("tuned").row(0, named=True)
    assert (row["model"], row["run_date"], row["validation_date"]) == ("item_neighbours", later.second, later.first)
    assert row["metric"] == "recall@10"
    assert row["n_tried"] >= 1
    assert row["value"] >= row["value_before"]
    assert row["low"] <= row["value"] - row["value_before"] <= row["high"]
    assert row["taken"] == (row["low"] > 0)
    tried = place.table("searches").filter((pl.col("metric") == "recall") & (pl.col("k") == 10))
    mine = tried.filter(pl.col("searched_at") == row["tuned_at"])
    assert mine.height == row["n_tried"]
    assert mine["value"].max() == pytest.approx(row["value"])
    assert not (place.warehouse / "_search").exists() or not list((place.warehouse / "_search").iterdir())

    assert place.run(spark, later.second, *QUICK, only=("tune",)) == 0  # the first time was enough
    assert place.table("tuned").height == 1
    html = page(gather(Warehouse(str(place.warehouse)), later.second.isoformat()))
    assert "Settings found" in html
    assert f"recall@10 {row['value']:.4f}" in " ".join(html.split())

    taken = (datetime.now(UTC), later.second, later.first, "item_neighbours",
             json.dumps({"item_neighbours.neighbours": 7, "prior.item_neighbours": 0.5}),
             "recall@10", 0.2, 0.1, 0.05, 0.15, True, 9, 0, 1.0)  # fmt: skip
    store.append(spark.createDataFrame([taken], TUNED.ddl), Warehouse(str(place.warehouse)), TUNED)

    def used(*more):
        assert place.run(spark, later.second, *QUICK, *more, only=("train_item_neighbours",), force=True) == 0
        runs = place.table("runs").filter(pl.col("stage") == "train_item_neighbours").sort("ended_at")
        config = json.loads(runs["config"][-1])
        return config["item_neighbours"]["neighbours"], config["prior"]["item_neighbours"]

    assert used() == (7, 0.5)
    assert used("item_neighbours.neighbours=9") == (9, 0.5)  # what somebody sets stays
    assert used("tune=off") == (500, 1.0)
