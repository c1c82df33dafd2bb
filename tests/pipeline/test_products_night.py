"""A night of products beside products, neighbours, groups and the hybrid: what a user finds afterwards."""

import json

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from sparkrec.errors import UserError
from sparkrec.pipeline.nightly import plan_nightly
from sparkrec.settings.config import load_config
from sparkrec.warehouse import query
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import TABLES

pytestmark = pytest.mark.slow

SESSION_MODELS = ("gru", "session_neighbours", "session_hybrid")
USER_MODELS = ("item_neighbours", "user_neighbours", "content", "implicit_mf", "hybrid")
ITEM_MODELS = ("prod2vec", "meta_prod2vec", "content2vec", "copurchase_counts")


def test_every_list_is_whole_ranked_and_without_seen_items(products):
    bought = products.table("events").filter(pl.col("event_type") == "purchase").select("user_id", "item_id")
    for model in (*USER_MODELS, *SESSION_MODELS, "rules"):
        lists = products.table(f"topk_{model}")
        assert lists.columns == TABLES[f"topk_{model}"].column_names
        key = [name for name in ("user_id", "key_type") if name in lists.columns]
        assert set(lists.group_by(key).len()["len"]) == {5}
        assert lists.select(*key, "item_id").n_unique() == lists.height
        assert lists.filter(pl.col("source") == "model").height > 0
        users = lists.filter(pl.col("key_type") == "user") if "key_type" in lists.columns else lists
        assert users.join(bought, on=["user_id", "item_id"], how="semi").height == 0, model


def test_every_user_has_a_list_of_every_user_model(products):
    buyers = products.table("events").filter((pl.col("event_type") == "purchase") & pl.col("user_id").is_not_null())
    for model in USER_MODELS:
        assert set(products.table(f"topk_{model}")["user_id"]) == set(buyers["user_id"])


def test_the_hybrid_lists_what_the_models_propose(products):
    lists = products.table("topk_hybrid").filter(pl.col("source") == "model")
    known = set(products.table("item_index")["id"])
    assert set(lists["item_id"]) <= known
    said = products.table("runs").filter(pl.col("stage") == "train_hybrid")["message"][0]
    assert said.startswith("holdout: ")
    assert "candidates taken" in said


def test_items_lie_beside_items(products):
    for model in (*ITEM_MODELS, "item_neighbours", "content", "implicit_mf"):
        lists = products.table(f"topk_{model}_items")
        assert lists.filter(pl.col("item_id") == pl.col("similar_item_id")).height == 0
        assert lists.select("item_id", "rank").n_unique() == lists.height
        found = query.similar(Warehouse(str(products.warehouse)), model, lists["item_id"][0], k=3)
        assert found["rank"].to_list() == [1, 2, 3]
    users = products.table("topk_user_neighbours_users")
    assert users.filter(pl.col("user_id") == pl.col("similar_user_id")).height == 0
    with pytest.raises(UserError, match="unknown model"):
        query.topk(Warehouse(str(products.warehouse)), "prod2vec", "1")


def test_lists_of_what_is_bought_together_are_by_the_vectors_and_the_contexts(products):
    lists, numbers = products.table("topk_prod2vec_items"), products.table("item_index").select("id", "idx")
    (path,) = products.warehouse.glob(f"models/prod2vec/{products.last}/full/weights.safetensors")
    weights = load_file(path)
    rows = lists.join(numbers, left_on="item_id", right_on="id").join(numbers, left_on="similar_item_id", right_on="id")
    of, other = rows["idx"].to_numpy(), rows["idx_right"].to_numpy()
    inner = (weights["vectors"][of] * weights["contexts"][other]).sum(axis=1)
    assert rows.height == lists.height > 0
    assert rows["score"].to_numpy() == pytest.approx(1 / (1 + np.exp(-inner)), abs=1e-5)
    ranked = lists.sort("item_id", "rank").group_by("item_id").agg("score")
    assert all(scores == sorted(scores, reverse=True) for scores in ranked["score"].to_list())


def test_models_are_judged_on_what_their_lists_are_for(products):
    recall = products.table("metrics").filter((pl.col("metric") == "recall") & (pl.col("k") == 20))
    baselines = {"popularity", "popularity_recent"}
    judged = {
        "holdout_users": {*USER_MODELS, *baselines},
        "holdout_sessions": {*SESSION_MODELS, *baselines},
        "holdout_baskets": {"rules", *baselines},
        "holdout_baskets_with_taken": {*ITEM_MODELS, *baselines},
    }
    for split, models in judged.items():
        rows = recall.filter(pl.col("split") == split)
        assert set(rows["model"]) == models
        assert rows["n"].n_unique() == 1  # all judged on the same cases
        assert rows["n"].min() > 20


def test_rules_are_published_with_what_they_rest_on(products):
    rules = products.table("rules")
    assert rules.columns == TABLES["rules"].column_names
    assert rules.height > 0
    assert rules.select("antecedent", "consequent").n_unique() == rules.height
    n = products.table("copurchase").height
    off = (rules["support"] * n - rules["n_baskets"]).abs().max()
    assert off < 1e-6


def test_users_are_in_groups_that_have_profiles(products):
    groups, profiles = products.table("user_groups"), products.table("user_group_profiles")
    sizes = dict(groups.group_by("group_id").len().iter_rows())
    assert dict(profiles.select("group_id", "size").iter_rows()) == sizes
    assert [sizes[g] for g in sorted(sizes)] == sorted(sizes.values(), reverse=True)
    assert profiles["share"].sum() == pytest.approx(1.0)
    assert all("users" in text for text in profiles["summary"])
    buyers = products.table("events").filter((pl.col("event_type") == "purchase") & pl.col("user_id").is_not_null())
    assert set(groups["user_id"]) == set(buyers["user_id"])


def test_the_same_night_again_does_nothing(spark, products):
    config = load_config(None, products.settings(*products.more))
    plan = plan_nightly(config, products.last.isoformat(), spark=spark)
    assert [(name, why) for name, runs, why in plan if runs] == []


def test_the_stages_read_the_models_that_they_build_on(products):
    rows = {r["stage"]: r for r in products.table("runs").iter_rows(named=True)}
    hybrid = json.loads(rows["train_hybrid"]["inputs"])
    models = ("copurchase_counts", "item_neighbours", "user_neighbours", "content", "implicit_mf")
    assert {name for name in hybrid if name.startswith("models/")} == {f"models/{m}" for m in models}
    both = json.loads(rows["train_session_hybrid"]["inputs"])
    assert {name for name in both if name.startswith("models/")} == {"models/gru", "models/session_neighbours"}
    assert "models/prod2vec" in json.loads(rows["train_content2vec"]["inputs"])


def test_a_network_may_blend_by_the_models_embeddings(spark, products, tmp_path):
    place = products.copied_to(tmp_path / "warehouse")
    settings = ("models=[item_neighbours,content,hybrid]", "hybrid.blender=network", "hybrid.epochs=2")
    assert place.run(spark, place.last, *settings, only=("train_hybrid", "topk")) == 0
    folder = place.warehouse / "models" / "hybrid" / place.last.isoformat() / "full"
    described = json.loads((folder / "model.json").read_text())
    assert described["vectors"] == ["content"]
    assert len(described["history"]) == 2
    said = place.table("runs").filter(pl.col("stage") == "train_hybrid").sort("started_at")["message"][-1]
    assert "content turned to a cosine of 1.00" in said
    lists = place.table("topk_hybrid").filter(pl.col("source") == "model")
    assert set(lists["model_version"]) != set(products.table("topk_hybrid")["model_version"])
    assert lists.height > 0
