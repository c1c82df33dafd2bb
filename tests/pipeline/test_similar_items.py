"""The items beside items and the users beside users, published with the users' lists; lists by an index."""

import polars as pl
import pytest

from sparkrec.errors import UserError
from sparkrec.warehouse import query
from sparkrec.warehouse.location import Warehouse
from tests.nights import most_listed

pytestmark = pytest.mark.slow


CHANGED = (
    "topk.k=3", "topk.similar_items=true", "topk.similar_users=true", "evaluation.k=[5, 20]",
)  # fmt: skip


@pytest.fixture(scope="module")
def changed(spark, night, tmp_path_factory):
    """A copy of the shared night, run again with shorter and more lists, without what it listed for most users."""
    place = night.copied_to(tmp_path_factory.mktemp("changed") / "warehouse")
    assert place.run(spark, place.last, *CHANGED, f"topk.exclude=['title={most_listed(night)[0]}']") == 0
    return place


def test_a_changed_setting_runs_its_stage_and_what_follows_from_it(night, changed):
    rows, before = changed.table("runs").sort("ended_at").tail(8), night.versions()
    assert rows.filter(pl.col("status") == "done")["stage"].to_list() == ["evaluate", "topk"]  # nothing is trained
    assert {name for name, version in changed.versions().items() if version != before.get(name)} == {
        "topk_als", "topk_als_items", "topk_als_users", "topk_gru", "topk_two_tower", "topk_two_tower_items",
        "topk_two_tower_users", "metrics", "current", "runs",
    }  # fmt: skip
    assert set(changed.table("metrics")["k"].drop_nulls()) == {5, 20}
    assert changed.table("topk_als")["rank"].max() == 3


def test_what_is_sold_out_is_on_no_list_but_still_has_one_of_its_own(night, changed):
    _, gone = most_listed(night)
    for model in ("als", "gru", "two_tower"):
        lists = lists_of(changed, model)
        assert gone not in lists["item_id"]
        assert set(lists.group_by("user_id", *(["key_type"] if model == "gru" else [])).len()["len"]) == {3}
    beside = changed.table("topk_als_items")
    assert gone in beside["item_id"]
    assert gone not in beside["similar_item_id"]


@pytest.mark.parametrize("model", ["als", "two_tower"])
def test_a_night_publishes_the_items_beside_each_item(changed, model):
    lists, users = changed.table(f"topk_{model}_items"), lists_of(changed, model)
    assert set(users.filter(pl.col("source") == "model")["item_id"]) <= set(lists["item_id"])
    assert lists.filter(pl.col("item_id") == pl.col("similar_item_id")).height == 0
    assert lists.select("item_id", "rank").n_unique() == lists.height
    assert set(lists.group_by("item_id").len()["len"]) == {3}
    assert lists["model_version"].unique().to_list() == users["model_version"].unique().to_list()
    found = query.similar(Warehouse(str(changed.warehouse)), model, lists["item_id"][0], k=2)
    assert found["rank"].to_list() == [1, 2]
    assert found["score"].is_sorted(descending=True)
    assert found["title"].null_count() == 0


@pytest.mark.parametrize("model", ["als", "two_tower"])
def test_a_night_publishes_the_users_beside_each_user(changed, model):
    lists = changed.table(f"topk_{model}_users")
    assert lists.filter(pl.col("user_id") == pl.col("similar_user_id")).height == 0
    assert set(lists.group_by("user_id").len()["len"]) == {3}
    listed = lists_of(changed, model).filter(pl.col("source") == "model")
    assert set(listed["user_id"]) <= set(lists["user_id"])
    found = query.similar_users(Warehouse(str(changed.warehouse)), model, lists["user_id"][0], k=2)
    assert found["rank"].to_list() == [1, 2]
    assert found["score"].is_sorted(descending=True)


def test_lists_that_there_are_not_are_said(changed):
    warehouse = Warehouse(str(changed.warehouse))
    with pytest.raises(UserError, match="no als list of this item"):
        query.similar(warehouse, "als", "' or 1=1")
    with pytest.raises(UserError, match="unknown model"):
        query.similar(warehouse, "gru", most_listed(changed)[1])


def test_lists_by_an_index(spark, night, tmp_path):
    place = night.copied_to(tmp_path / "warehouse")
    exact = {model: ranked(place, model) for model in ("als", "gru")}
    assert place.run(spark, place.last, "models=[als,gru]", "topk.index=hnsw", only=("topk",)) == 0
    assert said(place).count("recall of hnsw 1.0000") == 2
    for model in ("als", "gru"):  # so few items that the index finds them all
        assert ranked(place, model).equals(exact[model])

    # An index that finds too little is refused, and says so.
    hasty = ["topk.index=ivf", "topk.ivf_cells=12", "topk.ivf_probes=1", "topk.min_recall=1.0"]
    assert place.run(spark, place.last, "models=[als]", *hasty, only=("topk",)) == 0
    assert "below topk.min_recall=1.0: exact lists" in said(place)
    assert ranked(place, "als").equals(exact["als"])


def test_a_night_of_two_towers_with_attention_and_weights_of_its_own(spark, night, tmp_path):
    place = night.copied_to(tmp_path / "warehouse")
    more = ["two_tower.half_life_days=20", "two_tower.history_pooling=attention", "two_tower.debias=0.3"]
    assert place.run(spark, place.last, "models=[two_tower]", "evaluation.refit=false", *more) == 0
    # A snapshot of other weights is not used again.
    snapshot = place.warehouse / "snapshots/two_tower" / str(place.last) / "holdout"
    assert pl.read_parquet(str(snapshot / "data/*.parquet"))["weight"].n_unique() > 2
    lists, before = lists_of(place, "two_tower"), lists_of(night, "two_tower")
    assert set(lists["user_id"]) == set(before["user_id"])
    assert set(lists.group_by("user_id").len()["len"]) == {5}
    assert lists["model_version"].unique().to_list() != before["model_version"].unique().to_list()


def lists_of(place, model):
    return place.table(f"topk_{model}")


def ranked(place, model):
    return lists_of(place, model).select("user_id", "rank", "item_id").sort("user_id", "rank")


def said(place):
    ended = place.table("runs").filter((pl.col("stage") == "topk") & (pl.col("status") == "done")).sort("ended_at")
    return ended["message"][-1]
