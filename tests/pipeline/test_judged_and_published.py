"""What a night publishes is what it judged: each model of users from one part, at one time, both ways."""

from datetime import UTC

import numpy as np
import polars as pl
import pytest
import yaml
from pyspark.sql import functions as F

from sparkrec.models.night import Inputs
from sparkrec.models.scorer import Wanted
from sparkrec.models.scorers import model_scorer, seen_pairs, user_scorer
from sparkrec.models.two_tower.serve import load_served
from sparkrec.pipeline.nightly import night_of
from sparkrec.retrieval.topk import SEEN
from sparkrec.settings.config import conf_dir, load_config
from sparkrec.warehouse.cards import HOLDOUT, read_card
from tests.nights import make_place

pytestmark = pytest.mark.slow

LEAST = {"user_neighbours": 200}  # rows; few users of so small a log have neighbours
MODELS = ("als", "two_tower", "item_neighbours", "user_neighbours", "content")
SUPPORT = 20  # events of an item; some have fewer


@pytest.fixture(scope="module")
def place(spark, tmp_path_factory):
    """A night without a refit, a week after the cutoff, of items without features."""
    folder = tmp_path_factory.mktemp("judged")
    declared = yaml.safe_load((conf_dir() / "formats" / "invoices.yaml").read_text())
    fmt = folder / "invoices.yaml"
    fmt.write_text(yaml.safe_dump({**declared, "item_features": []}))
    made = make_place(folder, "invoices", more=(
        f"logs.format={fmt}", f"models=[{','.join(MODELS)}]", "evaluation.refit=false", "evaluation.holdout_days=7",
        f"prepare.support.min_item_events={SUPPORT}", "prior.als=0.5", "prior.two_tower=0.5",
        "two_tower.windows_days=[1.0,3.0]", "two_tower.n_sample=10",
    ))  # fmt: skip
    assert made.run(spark, made.last) == 0
    return made


@pytest.fixture(scope="module")
def judging(spark, place):
    """The night as its stages see it: ``(night, inputs)``."""
    night = night_of(spark, load_config(None, place.settings()), place.last)
    return night, Inputs(night, place.versions())


def times_of(place, before):
    """``(item, time)`` of what known users took before a time."""
    rows = place.table("interactions").filter(
        pl.col("user_idx").is_not_null() & (pl.col("event_type") == "purchase") & (pl.col("ts") < before)
    )
    return rows.select("item_idx", "ts")


def supported(place, before):
    counts = place.table("interactions").filter(pl.col("ts") < before)["item_idx"].value_counts()
    return set(counts.filter(pl.col("count") >= SUPPORT)["item_idx"])


@pytest.mark.parametrize("model", MODELS)
def test_lists_are_those_that_would_be_judged_at_their_time(place, judging, model):
    night, inputs = judging
    card = read_card(night.warehouse, model, night.run_date)
    assert card.served_part == HOLDOUT
    scorer = user_scorer(night, inputs, card, HOLDOUT, night.as_of)
    taken = seen_pairs(night, inputs, night.as_of).groupBy("user_idx").agg(F.collect_list("item_idx").alias(SEEN))
    judged = scorer.best(taken, Wanted(("user_idx",), night.config.topk.k, night.config.topk)).toPandas()
    judged = pl.from_pandas(judged)
    numbers = place.table("item_index").select(pl.col("id").alias("item_id"), pl.col("idx").alias("item_idx"))
    users = place.table("user_index").select(pl.col("id").alias("user_id"), pl.col("idx").alias("user_idx"))
    published = place.table(f"topk_{model}").filter(pl.col("source") == "model").join(numbers, "item_id")
    both = published.join(users, "user_id").join(judged, on=["user_idx", "rank"], suffix="_judged")
    assert both.height == published.height == judged.height > LEAST.get(model, 300)
    assert both["item_idx"].to_list() == both["item_idx_judged"].to_list()
    assert both["score"].to_list() == pytest.approx(both["score_judged"].to_list(), rel=1e-5)


@pytest.fixture(scope="module")
def again(spark, place, tmp_path_factory):
    """The night judged and published once more for a shop that recommends items again; the exit code."""
    folder = tmp_path_factory.mktemp("again")
    declared = yaml.safe_load((place.warehouse.parent / "invoices.yaml").read_text())
    fmt = folder / "invoices.yaml"
    fmt.write_text(yaml.safe_dump({**declared, "recommend_seen": True}))
    other = place.copied_to(folder / "warehouse")
    strict = ("gate.enabled=true", "gate.k=10", "gate.below_popularity=-50", "models=[als]", f"logs.format={fmt}")
    return other, other.run(spark, other.last, *strict, only=("evaluate", "topk"))


def test_lists_that_may_hold_what_users_had_are_judged_so_too_and_by_the_gate(spark, place, judging, again):
    other, code = again
    night, inputs = judging
    card = read_card(night.warehouse, "als", night.run_date)
    cutoff = card.cutoff.replace(tzinfo=UTC)
    rows = place.table("interactions").filter(
        pl.col("user_idx").is_not_null() & (pl.col("event_type") == "purchase")
    ).select("user_idx", "item_idx", "ts")  # fmt: skip
    before, after = rows.filter(pl.col("ts") < cutoff), rows.filter(pl.col("ts") >= cutoff)
    truth = (
        after.select("user_idx", "item_idx").unique().join(before, "user_idx", "semi").join(before, "item_idx", "semi")
    )
    repeated = truth.join(before, ["user_idx", "item_idx"], "semi")
    assert 0 < repeated.height < truth.height
    users = spark.createDataFrame(truth.select("user_idx").unique().rows(), "user_idx int")
    scorer = user_scorer(night, inputs, card, HOLDOUT, card.cutoff)
    lists = pl.from_pandas(scorer.best(users, Wanted(("user_idx",), 10, night.config.topk)).toPandas())
    hits = lists.join(truth, ["user_idx", "item_idx"]).group_by("user_idx").len("hits")
    each = truth.group_by("user_idx").len("wanted").join(hits, "user_idx", "left").fill_null(0)
    recall = (each["hits"] / each["wanted"].clip(upper_bound=10)).mean()

    metrics = other.table("metrics").filter((pl.col("model") == "als") & (pl.col("k") == 10))
    of = {split: part for (split,), part in metrics.group_by("split")}
    (row,) = of["holdout_users_with_taken"].filter(pl.col("metric") == "recall").rows(named=True)
    assert (row["value"], row["n"]) == (pytest.approx(recall), each.height)
    without = place.table("metrics").filter((pl.col("model") == "als") & (pl.col("k") == 10))
    without = without.filter(pl.col("split") == "holdout_users").sort("metric")
    assert of["holdout_users"].sort("metric")["value"].to_list() == pytest.approx(without["value"].to_list())
    assert without.filter(pl.col("metric") == "recall")["value"][0] != pytest.approx(recall)

    assert code == 3
    said = other.table("runs").filter(pl.col("stage") == "topk").sort("ended_at")["message"][-1]
    assert f"als held back: recall@10 {recall:.4f} is more than -5000% below recent popularity's" in said


def momentum_at(place, when, windows, n_items):
    """float32 [n_items, windows + 1], by hand: log counts in the days before, and log days since the first event."""
    rows = times_of(place, when).filter(pl.col("item_idx").is_in(list(supported(place, when))))
    found = np.zeros((n_items, len(windows) + 1), np.float32)
    for (item,), one in rows.group_by("item_idx"):
        days = np.array([(when - ts).total_seconds() / 86_400 for ts in one["ts"]])
        found[item, :-1] = [np.log1p((days <= window).sum()) for window in windows]
        found[item, -1] = np.log1p(np.ceil(days.max()))
    return found


def test_the_two_towers_items_have_the_momentum_of_the_time_that_lists_are_for(place, judging):
    night, inputs = judging
    card = read_card(night.warehouse, "two_tower", night.run_date)
    shape = load_served(f"{night.warehouse.model_path('two_tower', night.run_date)}/{HOLDOUT}").shape
    found = {}
    for when in (card.cutoff, night.as_of):
        scorer = model_scorer(night, inputs, card, HOLDOUT, when)
        found[when] = scorer.items.vectors[:, shape.dim :]
        expected = momentum_at(place, when.replace(tzinfo=UTC), shape.windows_days, card.n_items)
        np.testing.assert_allclose(found[when], expected, rtol=1e-5)
    assert not np.allclose(found[card.cutoff], found[night.as_of])


def test_two_towers_list_items_that_they_learnt_something_of(place, judging):
    night, _ = judging
    card = read_card(night.warehouse, "two_tower", night.run_date)
    cutoff = card.cutoff.replace(tzinfo=UTC)
    learnt = supported(place, cutoff)
    numbers = place.table("item_index")
    ids = dict(zip(numbers["idx"], numbers["id"], strict=True))
    listed = place.table("topk_two_tower").filter(pl.col("source") == "model")
    assert set(listed["item_id"]) <= {ids[item] for item in learnt}
    assert len(set(times_of(place, cutoff)["item_idx"]) - learnt) > 5  # there are others that somebody took
