"""The items beside items, published with the users' lists."""

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
