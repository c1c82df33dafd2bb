"""A night of models that predict ratings: judged beside the mean and the biases, published, and asked for pairs."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from sparkrec.cli import main
from sparkrec.errors import UserError
from sparkrec.models.predict import predict
from sparkrec.models.program import program
from sparkrec.report.gather import gather
from sparkrec.report.page import page
from sparkrec.warehouse.location import Warehouse
from tests.judged import both_ways
from tests.nights import make_place

pytestmark = pytest.mark.slow

MORE = (
    "models=[als,ratings]",
    "als.feedback=explicit",
    "ratings.min_support=20",
    "ratings.epochs=2",
    "ratings.hidden=[8]",
    "evaluation.ratings=random",
    "evaluation.refit=false",
    "prepare.text.method=none",
)


@pytest.fixture(scope="module")
def rated(spark, tmp_path_factory):
    place = make_place(tmp_path_factory.mktemp("rated"), "ratings", days=8, events=3000, more=MORE)
    assert place.run(spark, place.last) == 0
    return place


def test_ratings_are_judged_beside_the_mean_and_the_biases(rated):
    judged = rated.table("metrics").filter(pl.col("split") == "holdout_ratings")
    rmse = dict(judged.filter(pl.col("metric") == "rmse").select("model", "value").iter_rows())
    assert set(rmse) == {"als", "ratings", "rating_mean", "rating_biases"}
    n = judged.filter(pl.col("metric") == "rmse")["n"].unique().to_list()
    pairs = rated.table("user_item").height
    assert len(n) == 1
    assert 0.1 * pairs < n[0] < 0.3 * pairs
    (part,) = rated.warehouse.glob("models/ratings/*/random/weights.safetensors")
    assert int(load_file(part)["user_count"].sum()) == pairs - n[0]  # it has not seen what it is judged on
    assert rmse["rating_biases"] < rmse["rating_mean"]
    assert rmse["ratings"] < rmse["rating_mean"] * 1.01
    assert rmse["als"] < rmse["rating_biases"] * 1.005  # factors of so few ratings learn next to nothing
    assert {"mae", "rmse_warm", "mae_warm"} <= set(judged.filter(pl.col("model") == "ratings")["metric"])
    assert rated.table("metrics").filter(pl.col("split") == "holdout_users")["model"].unique().len() == 4


def test_predictions_are_kept_beside_the_ratings(rated):
    kept, metrics = rated.table("rating_calibration"), rated.table("metrics")
    n = metrics.filter(pl.col("metric") == "rmse").select("model", pl.col("n").alias("judged"))
    mean = (pl.col("n") * pl.col("rating")).sum() / pl.col("n").sum()
    sums = kept.group_by("model").agg(pl.col("n").sum(), mean.alias("rating"))
    both = sums.join(n, "model")
    assert both.height == sums.height == 4
    assert both["n"].to_list() == both["judged"].to_list()
    assert both["rating"].max() == pytest.approx(both["rating"].min())  # of the same ratings
    assert "held-out ratings by what was predicted" in page(gather(Warehouse(str(rated.warehouse))))


def test_lists_hold_items_with_enough_ratings_that_the_user_has_not_rated(rated):
    lists = rated.table("topk_ratings").filter(pl.col("source") == "model")
    assert lists.height > 0
    events = rated.table("events").select("user_id", "item_id").unique()
    assert lists.join(events, on=["user_id", "item_id"], how="semi").height == 0
    often = events.group_by("item_id").len().filter(pl.col("len") >= 20)
    assert set(lists["item_id"]) <= set(often["item_id"])
    ranked = lists.sort("user_id", "rank").group_by("user_id").agg("score")
    assert all(scores == sorted(scores, reverse=True) for scores in ranked["score"].to_list())


def test_lists_are_those_that_would_be_judged(spark, rated):
    published, judged = both_ways(spark, rated, "ratings")
    assert len(published) > 0
    assert published == judged


def test_what_is_trained_is_tuned_by_errors_and_what_follows_by_lists(spark, rated, tmp_path):
    place = rated.copied_to(tmp_path / "warehouse")
    fixed = ("ratings.network=mf", "ratings.dim=4", "ratings.dropout=0.0", "ratings.reg=0.2", "gate.k=10")
    assert (
        place.run(spark, place.last, "models=[ratings]", "tune=first", "tune_minutes=0.2", *fixed, only=("tune",)) == 0
    )
    rows = {row["metric"]: row for row in place.table("tuned").iter_rows(named=True)}
    assert rows.keys() == {"rmse", "recall@10"}
    errors, lists = rows["rmse"], rows["recall@10"]
    assert json.loads(errors["settings"]).keys() == {"ratings.learning_rate"}
    assert json.loads(lists["settings"]).keys() == {"prior.ratings"}
    assert errors["value"] <= errors["value_before"]
    assert errors["low"] - 1e-9 <= errors["value_before"] ** 2 - errors["value"] ** 2 <= errors["high"] + 1e-9
    tried = place.table("searches").filter(pl.col("metric") == "rmse")
    assert set(tried["split"]) == {"holdout_ratings"}
    assert tried["value"].min() == pytest.approx(errors["value"])
    text = " ".join(page(gather(Warehouse(str(place.warehouse)))).split())
    assert f"reached rmse {errors['value']:.4f}" in text
    assert "mean squared error lower by" in text


def test_pairs_are_predicted_without_spark(rated, tmp_path, capsys):
    known = rated.table("events").select("user_id", "item_id").unique().sort("user_id", "item_id").head(20)
    file, warehouse = tmp_path / "pairs.csv", Warehouse(str(rated.warehouse))
    lines = ["user,item", *(f"{u},{i}" for u, i in known.iter_rows()), "nobody,nothing"]
    file.write_text("\n".join(lines))
    scale = rated.table("events")["value"]
    for model in ("ratings", "als"):
        found = predict(warehouse, model, file)
        assert found.select("user_id", "item_id").head(20).equals(known)
        assert found["known"].to_list() == [True] * 20 + [False]
        assert found["predicted"].is_between(scale.min(), scale.max()).all()
        assert found["predicted"].n_unique() > 10
    sure = dataclasses.replace(program("ratings"), pair_deviations=lambda _: lambda user, item: np.abs(user) / 100)
    with pytest.MonkeyPatch.context() as patch:  # of a model that knows it; this one does not
        patch.setattr("sparkrec.models.predict.program", lambda name: sure if name == "ratings" else program(name))
        found = predict(warehouse, "ratings", file)
    assert found.columns == ["user_id", "item_id", "predicted", "deviation", "known"]
    assert found["deviation"][-1] == pytest.approx(0.01)
    setting = f"warehouse.path={rated.warehouse}"
    assert main(["predict", "--pairs", str(file), "--model", "ratings", "--format", "csv", setting]) == 0
    assert capsys.readouterr().out.startswith("user_id,item_id,predicted,known\n")
    for text, what in (("a,b,c\n", "a row is no pair"), ("user,item\n", "no pairs")):
        file.write_text(text)
        with pytest.raises(UserError, match=what):
            predict(warehouse, "ratings", file)
    with pytest.raises(UserError, match="unknown model that predicts ratings"):
        predict(warehouse, "gru", file)
