import pytest

from sparkrec.errors import InvariantError
from sparkrec.evaluation.ratings import calibration, held_out_at_random, rating_bins, rating_metrics
from sparkrec.settings.sections import EvaluationConfig


def test_errors_of_all_of_known_and_of_cold_pairs_are_told_apart(spark):
    rows = [(5.0, 3.0, True), (2.0, 1.0, True), (4.0, 3.5, False), (3.0, 9.0, False)]
    predictions = spark.createDataFrame(rows, "rating float, predicted float, known boolean")
    bins = rating_bins(predictions, 1.0, 5.0)
    values = {v.metric: (v.value, v.n) for v in rating_metrics(bins)}
    # errors: -2, -1, -0.5, and 5 - 3: the scale ends at 5
    assert values == {
        "rmse": (pytest.approx(((4 + 1 + 0.25 + 4) / 4) ** 0.5), 4),
        "mae": (pytest.approx((2 + 1 + 0.5 + 2) / 4), 4),
        "rmse_warm": (pytest.approx(2.5**0.5), 2),
        "mae_warm": (pytest.approx(1.5), 2),
        "rmse_cold": (pytest.approx((4.25 / 2) ** 0.5), 2),
        "mae_cold": (pytest.approx(1.25), 2),
    }
    # parts of 0.2: at 3.0 and 1.0, 3.5; at the upper end the last one, of 4.8 to 5.0
    assert calibration(bins) == [(0, 1.0, 2.0, 1), (10, 3.0, 5.0, 1), (12, 3.5, 4.0, 1), (19, 5.0, 3.0, 1)]
    for wrong in ("false", "predicted > 9 or rating = 5"):
        bad = predictions.selectExpr("rating", "if(rating = 5, float('nan'), predicted) predicted", "known")
        with pytest.raises(InvariantError):
            rating_bins(bad.where(wrong), 1.0, 5.0)


def test_a_share_of_the_pairs_is_drawn_by_the_seed(spark):
    pairs = spark.range(2000).selectExpr("cast(id % 50 as int) user_idx", "cast(id div 50 as int) item_idx")
    drawn = [
        {tuple(row) for row in pairs.where(held_out_at_random(EvaluationConfig(ratings_seed=s))).collect()}
        for s in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert 300 < len(drawn[0]) < 500
