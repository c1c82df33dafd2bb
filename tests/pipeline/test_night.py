"""A whole night on the real stack: what a user finds in the tables afterwards."""

import json

import polars as pl
import pytest

from sparkrec.warehouse.tables import TABLES

pytestmark = pytest.mark.slow


def test_every_table_has_the_declared_columns(night):
    present = {name: table for name, table in TABLES.items() if (night.warehouse / name / "_delta_log").is_dir()}
    lists = {name for name in TABLES if name.startswith("topk_")} - {"topk_als", "topk_gru", "topk_two_tower"}
    others = {"searches", "tuned", "image_vectors", "rating_calibration", "rules"}
    not_asked_for = others | {"user_groups", "user_group_profiles"} | lists
    assert set(TABLES) - set(present) == not_asked_for
    for table in present.values():
        found = night.table(table.name).columns
        if table.open:
            assert found[: len(table.columns)] == table.column_names
        else:
            assert found == table.column_names


def test_runs_account_for_every_row(night):
    ingest = night.table("runs").filter(pl.col("stage") == "ingest").row(0, named=True)
    assert ingest["rows_in"] == ingest["rows_out"] + ingest["rows_quarantined"] + ingest["rows_duplicate"]
    assert ingest["rows_out"] == night.table("events").height
    assert ingest["rows_quarantined"] == night.table("quarantine").height


def test_runs_name_the_versions_that_each_stage_read(night):
    rows = {r["stage"]: r for r in night.table("runs").iter_rows(named=True)}
    assert set(rows) == {
        "ingest", "index", "prepare", "train_als", "train_gru", "train_two_tower", "evaluate", "topk",
    }  # fmt: skip
    assert {r["status"] for r in rows.values()} == {"done"}
    prepared, trained = json.loads(rows["prepare"]["outputs"]), json.loads(rows["train_als"]["inputs"])
    assert trained["user_item"] == prepared["user_item"]
    published = json.loads(rows["train_als"]["outputs"])["models/als"]
    assert json.loads(rows["topk"]["inputs"])["models/als"] == published
    assert night.table("topk_als")["model_version"].unique().to_list() == [published]


@pytest.mark.parametrize("index", ["user_index", "item_index"])
def test_ids_are_dense(night, index):
    table = night.table(index)
    assert sorted(table["idx"].to_list()) == list(range(table.height))
    assert table["id"].n_unique() == table.height


@pytest.mark.parametrize("model", ["als", "gru", "two_tower"])
def test_lists_are_whole_ranked_and_without_seen_items(night, model):
    lists = night.table(f"topk_{model}")
    grouped = lists.sort("rank").group_by("user_id", *(["key_type"] if model == "gru" else []), maintain_order=True)
    for _, one in grouped:
        assert one["rank"].to_list() == list(range(1, one.height + 1))
        for source in ("model", "popularity"):
            scores = one.filter(pl.col("source") == source)["score"].to_list()
            assert scores == sorted(scores, reverse=True)
        assert one["source"].is_sorted()  # what the model has comes first
        assert one["item_id"].n_unique() == one.height
        assert one.height == 5
    users = lists.filter(pl.col("key_type") == "user") if model == "gru" else lists
    bought = night.table("events").filter(pl.col("event_type") == "purchase").select("user_id", "item_id")
    assert users.join(bought, on=["user_id", "item_id"], how="semi").height == 0


def test_every_user_with_interactions_has_a_list(night):
    buyers = night.table("events").filter((pl.col("event_type") == "purchase") & pl.col("user_id").is_not_null())
    expected = set(buyers["user_id"])
    for model in ("als", "two_tower"):
        assert set(night.table(f"topk_{model}")["user_id"]) == expected


def test_models_stand_beside_popularity_in_metrics(night):
    metrics = night.table("metrics")
    recall = metrics.filter(pl.col("metric") == "recall")
    users = recall.filter(pl.col("split") == "holdout_users")
    sessions = recall.filter(pl.col("split") == "holdout_sessions")
    assert set(users["model"]) == {"als", "two_tower", "popularity", "popularity_recent"}
    assert set(sessions["model"]) == {"gru", "popularity", "popularity_recent"}
    for split in (users, sessions):
        assert split["n"].n_unique() == 1  # all judged on the same cases
        assert split["n"].min() > 20
    assert metrics["value"].is_nan().sum() == 0


def test_model_folders_hold_safetensors_and_what_they_were_made_from(night):
    for model in ("gru", "two_tower"):
        for part in ("holdout", "full"):
            folder = night.warehouse / "models" / model / night.last.isoformat() / part
            card = json.loads((folder / "model.json").read_text())
            assert (folder / "weights.safetensors").stat().st_size > 1000
            assert "interactions" in card["inputs"] or "sessions" in card["inputs"]
            assert not list(folder.glob("*.p*kl*"))


def test_items_have_vectors_of_their_titles(night):
    vectors = night.table("item_vectors")
    prepared = json.loads(night.table("runs").filter(pl.col("stage") == "prepare").row(0, named=True)["message"])
    assert vectors["name"].unique().to_list() == ["text_word2vec"]
    assert vectors.height + prepared["item_vectors"]["without_text_word2vec"] == night.table("item_index").height
    assert vectors.height > 0.9 * night.table("item_index").height
