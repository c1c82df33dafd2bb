import pytest

from sparkrec.errors import InvariantError
from sparkrec.evaluation.ratings import rating_metrics


def test_cold_pairs_are_predicted_by_the_fallback_and_counted(spark):
    users = spark.createDataFrame([(0, [1.0, 2.0]), (1, [0.0, 1.0])], "idx int, vector array<float>")
    items = spark.createDataFrame([(5, [1.0, 1.0])], "idx int, vector array<float>")
    rows = [(0, 5, 5.0), (1, 5, 2.0), (9, 5, 4.0), (0, 6, 3.0)]
    held_out = spark.createDataFrame(rows, "user_idx int, item_idx int, rating float")
    values = {v.metric: (v.value, v.n) for v in rating_metrics(held_out, users, items, 3.5)}
    # errors: 3 - 5, 1 - 2, 3.5 - 4, 3.5 - 3
    assert values == {
        "rmse": (pytest.approx(((4 + 1 + 0.25 + 0.25) / 4) ** 0.5), 4),
        "mae": (pytest.approx((2 + 1 + 0.5 + 0.5) / 4), 4),
        "rmse_warm": (pytest.approx(2.5**0.5), 2),
        "mae_warm": (pytest.approx(1.5), 2),
    }
    with pytest.raises(InvariantError):
        rating_metrics(held_out.where("false"), users, items, 3.5)
