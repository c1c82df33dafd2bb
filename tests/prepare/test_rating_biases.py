"""The mean and the biases of ratings: on Spark as on the ranks, by hand, and without a pair's own."""

import numpy as np
import pytest

from sparkrec.errors import NothingToTrain
from sparkrec.models.ratings.biases import Ratings, fit_biases
from sparkrec.prepare import rating_biases as on_spark
from sparkrec.prepare.shrinkage import shrinkage
from sparkrec.ranks.comm import SingleProcess


def drawn(n_users=40, n_items=30, n=400, seed=0):
    """Distinct pairs whose ratings are 5 + b_u + b_i and noise: deviations 1, 0.5 and 1."""
    rng = np.random.default_rng(seed)
    pair = rng.permutation(n_users * n_items)[:n]
    user, item = pair // n_items, pair % n_items
    b_user, b_item = rng.normal(0, 1.0, n_users), rng.normal(0, 0.5, n_items)
    return Ratings(user, item, 5 + b_user[user] + b_item[item] + rng.normal(0, 1.0, n))


def test_shrinkage_is_the_noise_over_the_variance_of_the_biases():
    assert shrinkage(4.0, 1.0, 0.5) == (2.5, 5.0)
    assert shrinkage(4.0, 0.0, 0.0) == (1000.0, 1000.0)
    fitted = fit_biases([drawn(400, 300, 12_000)], 400, 300, SingleProcess())
    assert fitted.shrunk == pytest.approx((1.0, 4.0), rel=0.4)


@pytest.mark.integration
def test_biases_on_spark_are_those_of_the_ranks(spark, monkeypatch):
    rows, n_users, n_items = drawn(), 40, 30
    monkeypatch.setattr("sparkrec.models.ratings.biases.SWEEPS", on_spark.SWEEPS)
    ranks = fit_biases(
        [Ratings(*(x[:150] for x in rows)), Ratings(*(x[150:] for x in rows))], n_users, n_items, SingleProcess()
    )
    frame = spark.createDataFrame(
        [(int(u), int(i), float(r)) for u, i, r in zip(*rows, strict=True)], "user_idx int, item_idx int, rating double"
    )
    found = on_spark.rating_biases(frame)
    assert (found.mean, found.low, found.high) == pytest.approx((ranks.mean, ranks.low, ranks.high))
    for side, theirs in ((found.users, ranks.user), (found.items, ranks.item)):
        for number, bias in side.collect():
            assert bias == pytest.approx(theirs[number], abs=1e-9)
    new = found.of(spark.createDataFrame([(99, 0)], "user_idx int, item_idx int")).head()
    assert new["user_bias"] is None
    assert new["expected"] == pytest.approx(ranks.mean + ranks.item[0])
    with pytest.raises(NothingToTrain):
        on_spark.rating_biases(frame.where("false"))


def test_what_a_pair_knows_of_itself_is_taken_out():
    rows = drawn()
    fitted = fit_biases([rows], 40, 30, SingleProcess())
    known = fitted.without_own(rows)
    others = np.arange(1, len(rows.user))
    of_user, of_item = (others[x[1:] == x[0]] for x in (rows.user, rows.item))
    left = rows.rating - fitted.mean - fitted.item[rows.item]
    assert known.user_bias[0] == pytest.approx(left[of_user].sum() / (fitted.shrunk[0] + len(of_user)))
    assert (known.user_count[0], known.item_count[0]) == (len(of_user), len(of_item))
    # Its own rating moves the bias that contains it, and hardly the one that does not.
    louder = Ratings(rows.user, rows.item, np.concatenate([rows.rating[:1] + 10, rows.rating[1:]]))
    sums = fitted.user_sum[rows.user[0]] + 10
    with_own = (sums) / (fitted.shrunk[0] + len(of_user) + 1) - fitted.user_sum[rows.user[0]] / (
        fitted.shrunk[0] + len(of_user) + 1
    )
    moved = fit_biases([louder], 40, 30, SingleProcess()).without_own(louder).user_bias[0] - known.user_bias[0]
    assert abs(moved) < 0.25 * with_own
