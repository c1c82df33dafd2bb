"""The items beside items and the users beside users, published with the users' lists; lists by an index."""

import polars as pl
import pytest

from sparkrec import query
from sparkrec.errors import UserError
from sparkrec.store import Warehouse

pytestmark = pytest.mark.slow


def test_a_night_publishes_the_items_beside_each_item(spark, night, tmp_path):
    place = night.copied_to(tmp_path / "warehouse")
    before = place.versions()
    assert place.run(spark, place.last, "topk.similar_items=true") == 0
    assert {name for name, version in place.versions().items() if version != before.get(name)} == {
        "topk_als", "topk_als_items", "topk_gru", "topk_two_tower", "topk_two_tower_items", "current", "runs",
    }  # fmt: skip
    for model in ("als", "two_tower"):
        lists = place.table(f"topk_{model}_items")
        shown = set(place.table(f"topk_{model}").filter(pl.col("source") == "model")["item_id"])
        assert shown <= set(lists["item_id"])
        assert lists.filter(pl.col("item_id") == pl.col("similar_item_id")).height == 0
        assert lists.select("item_id", "rank").n_unique() == lists.height
        assert set(lists.group_by("item_id").len()["len"]) == {5}
        assert (
            lists["model_version"].unique().to_list()
            == place.table(f"topk_{model}")["model_version"].unique().to_list()
        )

        item = lists["item_id"][0]
        found = query.similar(Warehouse(str(place.warehouse)), model, item, k=3)
        assert found["rank"].to_list() == [1, 2, 3]
        assert found["score"].is_sorted(descending=True)
        assert found["title"].null_count() == 0
    # What is sold out is on no list, but still has one of its own.
    titles = place.table("items").select("id", "title")
    shown = place.table("topk_als").filter(pl.col("source") == "model").join(titles, left_on="item_id", right_on="id")
    title = shown["title"].value_counts(sort=True)["title"][0]
    (gone,) = titles.filter(pl.col("title") == title)["id"]
    assert place.run(spark, place.last, "topk.similar_items=true", f"topk.exclude=['title={title}']") == 0
    for model in ("als", "gru", "two_tower"):
        lists = place.table(f"topk_{model}")
        assert gone not in lists["item_id"]
        assert set(lists.group_by("user_id", *(["key_type"] if model == "gru" else [])).len()["len"]) == {5}
    beside = place.table("topk_als_items")
    assert gone in beside["item_id"]
    assert gone not in beside["similar_item_id"]
    before = place.versions()
    with pytest.raises(UserError, match="no such attribute of items"):
        place.run(spark, place.last, "topk.exclude=['colour=red']")
    assert place.versions() == before

    with pytest.raises(UserError, match="no als list of this item"):
        query.similar(Warehouse(str(place.warehouse)), "als", "' or 1=1")
    with pytest.raises(UserError, match="unknown model"):
        query.similar(Warehouse(str(place.warehouse)), "gru", item)


def test_similar_users_a_second_head_and_lists_by_an_index(spark, night, tmp_path):
    place = night.copied_to(tmp_path / "warehouse")
    exact = {model: _lists(place, model) for model in ("als", "gru")}
    more = ["topk.similar_users=true", "topk.index=hnsw", "two_tower.half_life_days=20"]
    more += ["two_tower.second_head=rating", "two_tower.history_pooling=attention", "two_tower.debias=0.3"]
    before = place.versions()
    with pytest.raises(UserError, match="the log has no ratings to learn"):
        place.run(spark, place.last, *more)
    assert place.versions() == before
    more.remove("two_tower.second_head=rating")
    assert place.run(spark, place.last, *more) == 0
    assert "recall of hnsw 1.0000" in _said(place)
    for model in ("als", "gru"):  # so few items that the index finds them all
        assert _lists(place, model).equals(exact[model])

    # A snapshot of other weights is not used again.
    changed = pl.read_parquet(str(place.warehouse / "snapshots/two_tower" / str(place.last) / "full/data/*.parquet"))
    assert changed["weight"].n_unique() > 2
    for model in ("als", "two_tower"):
        lists = place.table(f"topk_{model}_users")
        assert lists.filter(pl.col("user_id") == pl.col("similar_user_id")).height == 0
        assert set(lists.group_by("user_id").len()["len"]) == {5}
        assert set(place.table(f"topk_{model}").filter(pl.col("source") == "model")["user_id"]) <= set(lists["user_id"])
        user = lists["user_id"][0]
        found = query.similar_users(Warehouse(str(place.warehouse)), model, user, k=3)
        assert found["rank"].to_list() == [1, 2, 3]
        assert found["score"].is_sorted(descending=True)

    # An index that finds too little is refused, and says so.
    hasty = ["topk.index=ivf", "topk.ivf_cells=12", "topk.ivf_probes=1", "topk.min_recall=1.0"]
    assert place.run(spark, place.last, *more, *hasty) == 0
    assert "below topk.min_recall=1.0: exact lists" in _said(place)
    assert _lists(place, "als").equals(exact["als"])


def _lists(place, model):
    return place.table(f"topk_{model}").select("user_id", "rank", "item_id").sort("user_id", "rank")


def _said(place):
    ended = place.table("runs").filter((pl.col("stage") == "topk") & (pl.col("status") == "done")).sort("ended_at")
    return ended["message"][-1]
