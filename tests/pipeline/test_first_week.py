"""The first nights of a log that is younger than its hold-out, and models that nothing can be said of."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from sparkrec.models.publication import STAND_IN
from tests.nights import GATED, Place, make_place

pytestmark = pytest.mark.slow

LENIENT = ("gate.enabled=true", "gate.k=10", "gate.below_popularity=1.0", "gate.below_last=1.0")


@pytest.fixture(scope="module")
def young(spark, tmp_path_factory):
    """The third night of a shop with the shipped hold-out: the place, and the exit code. Tests may run ``topk`` on."""
    place = make_place(
        tmp_path_factory.mktemp("young"), days=3, events=900,
        more=("models=[als,gru,hybrid,prod2vec]", "prod2vec.dim=4", *LENIENT, "evaluation.holdout_days=7"),
    )  # fmt: skip
    return place, place.run(spark, place.last)


def message(place, stage):
    return place.table("runs").filter(pl.col("stage") == stage).sort("ended_at")["message"][-1]


def sources(place, model):
    return set(place.table(f"topk_{model}")["source"])


def test_the_third_night_of_a_shop_says_that_nothing_is_judged_and_publishes_what_is_popular(young):
    place, code = young
    assert code == 0
    told = message(place, "topk").split("; ")
    why = "NOT JUDGED (the log begins at 2024-01-01"
    assert [why in one for one in told] == [True, True, False, True], told
    assert "hybrid: " in told[2]
    assert "NOT JUDGED (no model of the night has the parts" in told[2]
    assert ["recent popularity in its place" in one for one in told] == [True, True, True, False]
    assert message(place, "evaluate").count("NOT JUDGED") == 4
    assert set(place.table("metrics")["metric"]) == {"not_judged"}
    known = place.table("interactions").drop_nulls("user_idx")["user_idx"].n_unique()
    for model in ("als", "gru", "hybrid"):
        assert sources(place, model) == {"popularity"}
        assert set(place.table(f"topk_{model}")["model_version"]) == {f"{place.last}{STAND_IN}"}
    assert place.table("topk_als")["user_id"].n_unique() == known
    assert not (place.warehouse / "topk_prod2vec_items").exists()  # nothing goes with an item by popularity
    assert set(place.table("current")["model"]) == {"als", "gru", "hybrid"}


def test_where_the_configuration_allows_it_models_are_published_without_a_judgement(spark, young):
    place, _ = young
    assert place.run(spark, place.last, "gate.unjudged=model", only=("topk",)) == 0
    assert "model" in sources(place, "als")
    assert "model" in sources(place, "gru")
    assert sources(place, "hybrid") == {"popularity"}  # it needs a part that nobody could train
    assert (place.warehouse / "topk_prod2vec_items").exists()
    assert "NOT JUDGED" in message(place, "topk")


def test_a_model_that_nobody_is_held_out_for_does_not_end_the_night_of_the_others(spark, night, tmp_path):
    place = night.copied_to(tmp_path / "warehouse")
    wanted = ("models=[als,gru]", *LENIENT, "gate.min_users_share=0.5", "evaluation.min_users=40")
    assert place.run(spark, place.last, *wanted, only=("evaluate", "topk")) == 0
    metrics = place.table("metrics")
    (row,) = metrics.filter(pl.col("model") == "als").rows(named=True)
    before = night.table("metrics").filter((pl.col("model") == "als") & (pl.col("split") == "holdout_users"))
    assert (row["metric"], row["n"], row["value"] > row["n"]) == ("not_judged", before["n"][0], True)
    assert f"als NOT JUDGED: {row['n']} users with {row['value']:.0f} items" in message(place, "evaluate")
    ours, theirs = (t.filter(pl.col("model") == "gru").sort("metric", "k") for t in (metrics, night.table("metrics")))
    assert ours["value"].to_list() == pytest.approx(theirs["value"].to_list())
    assert sources(place, "als") == {"popularity"}
    assert "model" in sources(place, "gru")


def test_popularity_takes_the_place_of_no_lists_that_a_judged_model_made(spark, later, tmp_path):
    place = later.place.copied_to(tmp_path / "warehouse")
    before = place.table("topk_als").sort("run_date", "user_id", "rank")
    only = ("prepare", "train_als", "evaluate", "topk")
    assert place.run(spark, later.second, *GATED, "evaluation.min_pairs=100000", only=only) == 3
    assert "als held back: NOT JUDGED (" in message(place, "topk")
    assert place.table("topk_als").sort("run_date", "user_id", "rank").equals(before)


def test_visitors_without_a_name_leave_als_nothing_and_the_gru_its_night(spark, tmp_path):
    """In Tokyo, where each of the three days begins in the afternoon of the UTC day before it."""
    (tmp_path / "log").mkdir()
    start = datetime(2023, 12, 31, 20, tzinfo=UTC)
    rows = [
        (f"s{day}-{n}", f"i{(n + step * (1 + n % 2)) % 12}",
         int((start + timedelta(days=day, minutes=10 * n + step)).timestamp()))
        for day in range(3) for n in range(40) for step in range(4)
    ]  # fmt: skip
    pl.DataFrame(rows, schema=["session_id", "item_id", "ts"], orient="row").write_csv(tmp_path / "log" / "all.csv")
    settings = (
        "models=[als,gru]",
        *LENIENT,
        "evaluation.holdout_days=1",
        "prepare.text.method=none",
        "logs.timezone=Asia/Tokyo",
    )
    place = Place(tmp_path / "log", tmp_path / "warehouse", "sessions", date(2024, 1, 1), 3, settings)
    assert place.run(spark, place.last) == 0
    als, gru = message(place, "topk").split("; ")
    assert als.startswith("als: no lists, NOT JUDGED (no interactions to train ALS on")
    assert gru.startswith("gru: 40 lists")
    assert sources(place, "gru") == {"model"}
    assert place.table("sessions").group_by("start_date").len().sort("start_date").rows() == [
        (date(2024, 1, day), 40) for day in (1, 2, 3)
    ]
    assert {"recall", "mrr"} <= set(place.table("metrics").filter(pl.col("model") == "gru")["metric"])
    by_quantile = replace(place, more=(*settings, "evaluation.holdout_quantile=0.7"))
    assert by_quantile.run(spark, place.last, only=("train_als",)) == 0  # there is no event to take a quantile of
