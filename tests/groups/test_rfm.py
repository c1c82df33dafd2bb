import math
from datetime import UTC, datetime

import pytest

from sparkrec.errors import UserError
from sparkrec.groups.rfm import rfm_scaling, rfm_values, rfm_vectors

AS_OF = datetime(2020, 1, 31, tzinfo=UTC)
WEIGHTS = {"buy": 2.0, "view": 0.5, "return": 0.0}
SCHEMA = "user_idx int, item_idx int, event_type string, ts timestamp, value double, quantity double"


def rows():
    return [
        (1, 0, "buy", datetime(2020, 1, 30), 5.0, 3.0),
        (1, 1, "buy", datetime(2020, 1, 1), 5.0, 4.0),
        (1, 1, "return", datetime(2020, 1, 30, 12), 5.0, 4.0),  # weighs nothing
        (1, 1, "buy", datetime(2020, 1, 31), 5.0, 4.0),  # exactly as of: not yet
        (2, 0, "view", datetime(2020, 1, 27, 12), None, None),
        (2, 0, "buy", datetime(2020, 1, 27, 12), None, None),
        (None, 0, "buy", datetime(2020, 1, 30), None, 9.0),
    ]


def table(frame):
    return {r["user_idx"]: (r["recency_days"], r["frequency"], r["value"]) for r in frame.collect()}


def test_recency_frequency_and_value_by_hand(spark):
    found = rfm_values(spark.createDataFrame(rows(), SCHEMA), WEIGHTS, AS_OF)
    # Without prices the value is in units, and where a row has none, in weights.
    assert table(found) == {1: (1.0, 2.0, 7.0), 2: (3.5, 2.0, 2.5)}


def test_values_are_money_where_the_log_has_prices(spark):
    prices = [1.255, 10.0, 10.0, 10.0, 0.1, None, 3.0]
    priced = [(*row, price) for row, price in zip(rows(), prices, strict=True)]
    found = rfm_values(spark.createDataFrame(priced, SCHEMA + ", price double"), WEIGHTS, AS_OF)
    assert table(found) == {1: (1.0, 2.0, 3 * 1.255 + 40.0 + 0.005), 2: (3.5, 2.0, 2.1)}  # two decimals: 43.77


@pytest.mark.integration
def test_vectors_are_logarithms_in_deviations_from_the_mean(spark):
    values = spark.createDataFrame(
        [(1, 0.0, 3.0, 9.0), (2, 7.0, 3.0, 9.0), (3, 1.0, 3.0, 99.0)],
        "user_idx int, recency_days double, frequency double, value double",
    )
    scaling = rfm_scaling(values)
    ln2 = math.log(2)
    assert scaling.means == pytest.approx((4 / 3 * ln2, 2 * ln2, 4 / 3 * math.log(10)), abs=1e-6)
    # ln(1 + x) is 0, 3, 1 times ln 2: of variance 14/9; and 1, 1, 2 times ln 10: of 2/9.
    expected = (math.sqrt(14 / 9) * ln2, 0.0, math.sqrt(2 / 9) * math.log(10))
    assert scaling.deviations == pytest.approx(expected, abs=1e-6)
    vectors = {r["user_idx"]: r["vector"] for r in rfm_vectors(values, scaling).collect()}
    assert vectors[2] == pytest.approx([5 / 3 / math.sqrt(14 / 9), 0.0, -1 / 3 / math.sqrt(2 / 9)], abs=1e-5)
    assert rfm_scaling(values.repartition(3)) == scaling
    with pytest.raises(UserError, match="no users to group"):
        rfm_scaling(values.where("false"))
