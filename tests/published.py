"""Nights with small models of random weights and lists of one row, for tests of what nights take from one another."""

from datetime import UTC, datetime

import torch

from sparkrec.models.gru.settings import GruConfig
from sparkrec.models.night import Night
from sparkrec.ranks.checkpoint import save_model
from sparkrec.settings.config import Config, config_dict
from sparkrec.settings.sections import MaintenanceConfig, WarehouseConfig
from sparkrec.warehouse import store
from sparkrec.warehouse.cards import FULL, HOLDOUT, ModelCard, part_path, write_card
from sparkrec.warehouse.tables import ITEM_INDEX, topk_table


def a_night(spark, warehouse, config, run_date, maintenance=None):
    settings = Config(
        warehouse=WarehouseConfig(str(warehouse)), gru=config, maintenance=maintenance or MaintenanceConfig()
    )
    return Night(spark=spark, config=settings, fmt=None, run_date=run_date, run_id="x", code_version="y")


def train(night, config=None, parts=(HOLDOUT, FULL), version="v", inputs=None, warm_nights=0):
    """A model with weights of its own."""
    for part in parts:
        path = part_path(night.warehouse, "gru", night.run_date, part)
        described = {"config": config_dict(config or night.config.gru), "n_items": 3}
        save_model(path, {"bias": torch.rand(3)}, described)
    cutoff = datetime(2024, 1, 1, tzinfo=UTC)
    index_id = store.table_id(night.spark, night.warehouse, ITEM_INDEX)
    card = ModelCard("gru", version, cutoff, parts, 0, 3, inputs or {}, warm_nights, index_id)
    write_card(night.warehouse, night.run_date, card)


def publish(night, version="v"):
    """A list made by the night's model."""
    rows = [(night.run_date, "u", "user", 1, "i", 1.0, version, "model")]
    lists = night.spark.createDataFrame(rows, topk_table("gru").ddl).coalesce(1)
    store.replace_night(lists, night.warehouse, topk_table("gru"), night.run_date)


def small_gru(**settings):
    return GruConfig(layers=[4], warm_start=True, **settings)
