import numpy as np
import pytest
from scipy.optimize import nnls

from sparkrec.models.als.fold_in import fold_in, solved
from sparkrec.models.als.settings import AlsConfig
from sparkrec.models.als.train import fit_als

SCHEMA = "user_idx int, item_idx int, rating float, confidence float"


def vectors(frame):
    return {row["idx"]: np.array(row["vector"]) for row in frame.collect()}


@pytest.mark.integration
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("feedback", ["implicit", "explicit"])
def test_a_user_that_als_was_trained_on_is_given_its_own_factors(spark, tmp_path, feedback, nonnegative):
    draw = np.random.default_rng(3)
    rows = [
        (user, item, float(draw.integers(1, 6)), float(draw.integers(1, 4)))
        for user in range(15)
        for item in range(11)
        if draw.random() < 0.4
    ]
    matrix = spark.createDataFrame(rows, SCHEMA)
    config = AlsConfig(
        feedback=feedback,
        rank=3,
        iterations=2,
        reg=0.1,
        alpha=2.0,
        nonnegative=nonnegative,
        user_blocks=2,
        item_blocks=2,
    )
    model = fit_als(matrix, config, str(tmp_path))
    again = fold_in(matrix, model.item_factors, config, new="user_idx", known="item_idx")
    assert [f.simpleString() for f in again.schema] == ["idx:int", "vector:array<float>"]
    theirs, ours = vectors(model.user_factors), vectors(again)  # the users' half of an iteration comes last
    assert ours.keys() == theirs.keys()
    for user, vector in theirs.items():
        assert ours[user] == pytest.approx(vector, abs=2e-3), user


def test_new_items_come_from_their_users_and_who_took_nothing_known_gets_nothing(spark):
    users = spark.createDataFrame([(0, [1.0, 0.0]), (1, [1.0, 2.0])], "idx int, vector array<float>")
    config = AlsConfig(feedback="explicit", rank=2, reg=0.5)
    rows = [(0, 7, 4.0, None), (1, 7, 2.0, None), (9, 8, 5.0, None), (0, 6, None, None)]
    found = vectors(fold_in(spark.createDataFrame(rows, SCHEMA), users, config, new="item_idx", known="user_idx"))
    # (Σ y y' + λ n I) x = Σ r y with y = (1, 0), (1, 2), λ n = 1
    assert found.keys() == {7}
    assert found[7] == pytest.approx(np.linalg.solve([[3.0, 2.0], [2.0, 5.0]], [6.0, 4.0]), abs=1e-6)


def test_nonnegative_factors_are_the_best_that_are_not_negative():
    draw = np.random.default_rng(5)
    for _ in range(20):
        y, r = draw.normal(size=(6, 4)), draw.normal(size=6)
        config = AlsConfig(feedback="explicit", rank=4, reg=1e-9, nonnegative=True)
        assert solved(y, r, np.zeros((4, 4)), config) == pytest.approx(nnls(y, r)[0], abs=1e-4)
