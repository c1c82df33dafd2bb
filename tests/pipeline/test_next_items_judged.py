"""Sessions, baskets and items: judged as their lists are published, by hand and list by list."""

from dataclasses import replace
from datetime import UTC, timedelta

import numpy as np
import polars as pl
import pytest
import yaml
from pyspark.sql import functions as F

from sparkrec.models import OURS
from sparkrec.models.night import Inputs
from sparkrec.models.program import program
from sparkrec.models.rules.mining import load_rules
from sparkrec.models.scorer import Wanted
from sparkrec.pipeline.lists import completed, embeddings, session_lists, session_model
from sparkrec.pipeline.nightly import night_of
from sparkrec.retrieval.similar import nearest
from sparkrec.settings.config import conf_dir, load_config
from sparkrec.warehouse.cards import HOLDOUT, part_path, read_card
from sparkrec.warehouse.tables import SESSIONS
from tests.judged import both_ways
from tests.pipeline import test_judged_and_published as of_users

pytestmark = pytest.mark.slow

SESSION_MODELS = ("gru", "session_neighbours", "session_hybrid")
ITEM_MODELS = ("prod2vec", "meta_prod2vec", "content2vec", "copurchase_counts")
OTHER_USER_MODELS = ("implicit_mf", "hybrid")
K = 10
NOTHING = np.zeros(0, dtype=np.int64)


@pytest.fixture(scope="module")
def judging(spark, products):
    """The night as its stages see it: ``(night, inputs)``."""
    night = night_of(spark, load_config(None, products.settings()), products.last)
    return night, Inputs(night, products.versions())


def cutoff_of(judging, model):
    night, _ = judging
    return read_card(night.warehouse, model, night.run_date).cutoff.replace(tzinfo=UTC)


def taken_by(products):
    """User → ``(first time, item)`` of what was bought."""
    bought = products.table("interactions").filter(pl.col("event_type") == "purchase").drop_nulls("user_idx")
    first = bought.group_by("user_idx", "item_idx").agg(pl.col("ts").min())
    found = {}
    for user, item, when in first.iter_rows():
        found.setdefault(user, []).append((when, item))
    return found


def held_out(products, table, begins, cutoff):
    """``(items, what the user had before)`` of sessions or baskets from the cutoff on; all of them have support."""
    of = products.table("interactions").filter(pl.col("event_type") == "purchase")["item_idx"].value_counts()
    assert of["count"].min() >= 5
    taken = taken_by(products)
    later = products.table(table).filter(pl.col(begins) >= cutoff)
    for user, begin, items in later.select("user_idx", begins, "items").iter_rows():
        yield items, {item for when, item in taken.get(user, ()) if when < begin}


def popular(products, cutoff, n_items):
    """float64 [n_items]: how often each was bought in the 14 days before the cutoff."""
    rows = products.table("interactions").filter(
        (pl.col("event_type") == "purchase") & pl.col("ts").is_between(cutoff - timedelta(days=14), cutoff, "left")
    )
    return np.bincount(rows["item_idx"].to_numpy(), minlength=n_items).astype(float)


def recall_by_hand(cases, scores, ranked, new):
    """Recall@K of scores, and how many are judged: the next of the ranked items, or of those new to the user."""
    hits, n = 0, 0
    for items, had in cases:
        known = [item for item in items if ranked[item]]
        for place in range(1, len(known)):
            before = {*had, *known[:place]} if new else set()
            if known[place] not in before:
                others = [item for item in np.flatnonzero(ranked).tolist() if item not in before]
                rank = sum(scores[item] >= scores[known[place]] for item in others)
                hits, n = hits + (rank <= K), n + 1
    return hits / n, n


@pytest.fixture(scope="module")
def again(spark, products, tmp_path_factory):
    """The night judged and published for a shop that recommends items again, by a gate that nothing passes."""
    folder = tmp_path_factory.mktemp("again")
    declared = yaml.safe_load((conf_dir() / "formats" / "invoices.yaml").read_text())
    fmt = folder / "invoices.yaml"
    fmt.write_text(yaml.safe_dump({**declared, "recommend_seen": True}))
    place = products.copied_to(folder / "warehouse")
    strict = ("gate.enabled=true", f"gate.k={K}", "gate.below_popularity=-50", "user_groups.enabled=false")
    models = "models=[session_neighbours,rules,prod2vec]"
    return place, place.run(spark, place.last, *strict, models, f"logs.format={fmt}", only=("evaluate", "topk"))


def recall_of(place, model, split):
    rows = place.table("metrics").filter(
        (pl.col("model") == model) & (pl.col("split") == split) & (pl.col("k") == K) & (pl.col("metric") == "recall")
    )
    return rows.select("value", "n").row(0) if rows.height else None


def test_next_items_are_judged_by_hand_both_ways(judging, products, again):
    night, _ = judging
    place, _ = again
    card = read_card(night.warehouse, "session_neighbours", night.run_date)
    cutoff, trained = cutoff_of(judging, "session_neighbours"), session_model(night, card, HOLDOUT).trained
    cases, scores = [*held_out(products, "sessions", "start_ts", cutoff)], popular(products, cutoff, card.n_items)
    new, all_of_it = (recall_by_hand(cases, scores, trained, only_new) for only_new in (True, False))
    assert new[1] < all_of_it[1]
    name = "popularity_recent"
    assert recall_of(products, name, "holdout_sessions") == pytest.approx(new)
    assert recall_of(products, name, "holdout_sessions_with_taken") is None
    assert recall_of(place, name, "holdout_sessions") == pytest.approx(new)
    assert recall_of(place, name, "holdout_sessions_with_taken") == pytest.approx(all_of_it)
    for split, (_, n) in {"holdout_sessions": new, "holdout_sessions_with_taken": all_of_it}.items():
        assert recall_of(place, "session_neighbours", split)[1] == n

    cutoff = cutoff_of(judging, "rules")
    cases, scores = [*held_out(products, "copurchase", "ts", cutoff)], popular(products, cutoff, card.n_items)
    new, all_of_it = (recall_by_hand(cases, scores, scores > 0, only_new) for only_new in (True, False))
    assert new[1] < all_of_it[1]
    assert recall_of(products, name, "holdout_baskets") == pytest.approx(new)
    assert recall_of(products, name, "holdout_baskets_with_taken") == pytest.approx(all_of_it)  # of models of items
    assert recall_of(products, "prod2vec", "holdout_baskets_with_taken")[1] == all_of_it[1]
    assert recall_of(products, "prod2vec", "holdout_baskets") is None
    assert recall_of(products, "rules", "holdout_baskets_with_taken") is None
    assert recall_of(place, "rules", "holdout_baskets_with_taken")[1] == all_of_it[1]
    assert recall_of(place, "rules", "holdout_baskets") == pytest.approx(
        recall_of(products, "rules", "holdout_baskets")
    )


def test_rules_are_judged_by_hand_on_what_is_new_to_the_user(spark, judging, products):
    night, _ = judging
    cutoff = cutoff_of(judging, "rules")
    rules = load_rules(spark, part_path(night.warehouse, "rules", night.run_date, HOLDOUT)).rules.collect()
    ranked = popular(products, cutoff, products.table("item_index").height) > 0
    hits, n = 0, 0
    for items, had in held_out(products, "copurchase", "ts", cutoff):
        known = [item for item in items if ranked[item]]
        for place in range(1, len(known)):
            if known[place] in had:
                continue
            begun, best = {*known[:place]}, {}
            for rule in rules:
                if {*rule["antecedent"]} <= begun and rule["consequent"] not in begun | had:
                    mine = (rule["confidence"], rule["lift"])
                    best[rule["consequent"]] = max(best.get(rule["consequent"], mine), mine)
            listed = sorted(best, key=lambda item: (-best[item][0], -best[item][1], item))[:K]
            hits, n = hits + (known[place] in listed), n + 1
    assert hits > 0
    assert recall_of(products, "rules", "holdout_baskets") == pytest.approx((hits / n, n))


def test_the_gate_goes_by_what_is_published_of_sessions_and_baskets(again):
    place, code = again
    assert code == 3
    said = place.table("runs").filter(pl.col("stage") == "topk").sort("ended_at")["message"][-1]
    for model, kind in (("session_neighbours", "sessions"), ("rules", "baskets"), ("prod2vec", "baskets")):
        recall = recall_of(place, model, f"holdout_{kind}_with_taken")[0]
        assert f"{model} held back: recall@{K} {recall:.4f} is more than -5000% below recent popularity's" in said


def ids(products, table):
    return products.table(table).select(pl.col("id"), pl.col("idx"))


@pytest.mark.parametrize("model", SESSION_MODELS)
def test_an_item_of_a_published_list_has_its_place_where_sessions_are_judged(spark, judging, products, model):
    """A session goes on with an item of its list: the rank that it is judged by is its place there."""
    night, inputs = judging
    card = replace(read_card(night.warehouse, model, night.run_date), parts=(HOLDOUT,))
    cutoff = cutoff_of(judging, model)
    made = session_lists(night, inputs, card, NOTHING).rows.toPandas()
    listed = pl.from_pandas(made).select("user_id", "key_type", "item_idx", "rank")
    numbers = ids(products, "user_index").rename({"id": "user_id", "idx": "user_idx"})
    users = listed.filter(pl.col("key_type") == "user").join(numbers, "user_id")
    newest = products.table("sessions").sort("start_ts", "session_id").group_by("user_idx").last()
    current = users.join(newest.filter(pl.col("start_ts") >= cutoff), "user_idx")  # none of them was trained on
    assert current["session_id"].n_unique() > 5
    taken = taken_by(products)
    rows = [
        (f"{row['session_id']}>{row['item_idx']}", row["user_idx"], row["start_ts"], [*row["items"], row["item_idx"]],
         [item for when, item in taken[row["user_idx"]] if when < row["start_ts"]])
        for row in current.iter_rows(named=True)
    ]  # fmt: skip
    schema = "session_id string, user_idx int, start_ts timestamp, items array<int>, seen array<int>"
    asked = spark.createDataFrame(rows, schema)
    ranks = session_model(night, card, HOLDOUT).next_item_ranks(asked, inputs.read(SESSIONS), "standard")
    last = ranks.groupBy("session_id").agg(F.max_by("new_rank", "position").alias("found")).collect()
    found = {row["session_id"]: row["found"] for row in last}
    expected = {f"{s}>{item}": rank for s, item, rank in current.select("session_id", "item_idx", "rank").iter_rows()}
    assert found.keys() == expected.keys()
    ties = sum(found[name] != rank for name, rank in expected.items())
    assert ties <= 0.02 * len(expected), (ties, len(expected))
    assert all(found[name] <= rank for name, rank in expected.items())  # equal scores have the best of their places


@pytest.mark.parametrize("model", ITEM_MODELS)
def test_lists_of_items_are_those_that_would_be_judged(spark, judging, products, model):
    night, _ = judging
    card = read_card(night.warehouse, model, night.run_date)
    longest, counted = max(night.config.evaluation.k), program(model).partners
    if counted is None:
        vectors, contexts = embeddings(night, card, card.served_part)
        lists = nearest(spark, vectors, k=longest, among=contexts)
    else:
        lists = counted(night, card, card.served_part, longest, None)
    judged = pl.from_pandas(lists.toPandas())
    names = ids(products, "item_index").with_columns(pl.col("idx").cast(pl.Int32))
    published = products.table(f"topk_{model}_items").join(names, left_on="item_id", right_on="id")
    published = published.join(names, left_on="similar_item_id", right_on="id", suffix="_similar")
    both = published.join(judged, left_on=["idx", "rank"], right_on=["query_idx", "rank"])
    assert both.height == published.height == judged.filter(pl.col("rank") <= night.config.topk.k).height > 100
    assert both["idx_similar"].to_list() == both["item_idx"].to_list()


def test_lists_of_baskets_are_those_that_would_be_judged(spark, judging, products):
    night, _ = judging
    card = read_card(night.warehouse, "rules", night.run_date)
    taken, baskets = taken_by(products), products.table("copurchase").sort("ts", "basket_id")
    newest = baskets.drop_nulls("user_idx").group_by("user_idx").last()
    cases = [(user, f"{user}#9", items) for user, items in newest.select("user_idx", "items").iter_rows()]
    had = [(user, item) for user, _, items in cases for when, item in taken[user] if item not in items]
    wanted = Wanted(("basket_id", "case"), night.config.topk.k, night.config.topk,
                    spark.createDataFrame(had, "basket_id int, item_idx int"))  # fmt: skip
    asked = spark.createDataFrame(cases, "basket_id int, case string, items array<int>")
    judged = pl.from_pandas(completed(night, card, card.served_part, asked, wanted).toPandas())
    users, items = (
        ids(products, name).with_columns(pl.col("idx").cast(pl.Int32)) for name in ("user_index", "item_index")
    )
    published = products.table("topk_rules").filter((pl.col("source") == "model") & (pl.col("key_type") == "user"))
    published = published.join(users, left_on="user_id", right_on="id").join(
        items, left_on="item_id", right_on="id", suffix="_item"
    )
    both = published.join(judged, left_on=["idx", "rank"], right_on=["basket_id", "rank"])
    assert both.height == published.height == judged.height > 50
    assert both["idx_item"].to_list() == both["item_idx"].to_list()


@pytest.mark.parametrize("model", OTHER_USER_MODELS)
def test_the_other_lists_for_users_are_those_that_would_be_judged(spark, products, model):
    published, judged = both_ways(spark, products, model)
    assert len(published) > 300
    assert published == judged


def test_no_model_is_left_out_of_these_comparisons():
    elsewhere = {"ratings"}  # test_ratings_night
    here = {*SESSION_MODELS, *ITEM_MODELS, "rules", *OTHER_USER_MODELS}
    assert {*of_users.MODELS, *here, *elsewhere} == {model.name for model in OURS}
