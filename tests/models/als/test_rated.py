"""Explicit ALS over biases: what is learnt, with which λ, and predictions on Spark and without it."""

from datetime import datetime

import numpy as np
import pytest

from sparkrec.models.als.rated import (
    left_by,
    load_biases,
    load_left,
    pair_ratings,
    predictions,
    residuals,
    save_biases,
)
from sparkrec.models.als.settings import AlsConfig
from sparkrec.models.als.train import AlsModel, fit_als, save_als
from sparkrec.prepare.rating_biases import RatingBiases
from sparkrec.settings.config import config_dict
from sparkrec.warehouse.tables import USER_ITEM


def matrix_of(spark, rows):
    return spark.createDataFrame([(u, i, r, 1.0, 1, datetime(2024, 1, 1)) for u, i, r in rows], USER_ITEM.ddl)


def biases_of(spark):
    users = spark.createDataFrame([(0, 0.5), (1, -0.5)], "user_idx int, user_bias double")
    items = spark.createDataFrame([(0, 1.0), (1, 0.0), (2, -1.0)], "item_idx int, item_bias double")
    return RatingBiases(3.0, 1.0, 5.0, users, items)


@pytest.mark.integration
def test_factors_learn_what_is_left_in_its_deviations_with_the_noises_threshold(spark):
    matrix, biases = matrix_of(spark, [(0, 0, 5.0), (0, 1, 3.0), (1, 1, 3.5), (1, 2, 0.5)]), biases_of(spark)
    found = left_by(matrix, biases, None)  # 0.5, -0.5, 1.0 and -1.0 are left
    assert found.deviation == pytest.approx(0.625**0.5)
    assert found.reg == pytest.approx((2 / 4) ** 0.5 + (3 / 4) ** 0.5)
    assert left_by(matrix, biases, 0.25).reg == 0.25
    left = [row["rating"] for row in residuals(matrix, biases, 0.5).orderBy("user_idx", "item_idx").collect()]
    assert left == pytest.approx([1.0, -1.0, 2.0, -2.0])


@pytest.mark.integration
@pytest.mark.parametrize("biased", [True, False])
def test_ratings_are_predicted_alike_on_spark_and_without_it(spark, tmp_path, biased):
    matrix, biases, path = matrix_of(spark, [(0, 0, 5.0), (0, 1, 3.0), (1, 1, 3.5), (1, 2, 0.5)]), biases_of(spark), str(tmp_path)  # fmt: skip  # noqa: E501
    save_biases(biases, left_by(matrix, biases, 0.5) if biased else None, path)
    factors = [
        spark.createDataFrame([(n, [0.5 + n, -1.0]) for n in range(size)], "idx int, vector array<float>")
        for size in (2, 2)
    ]
    save_als(AlsModel(*factors), path, {"settings": config_dict(AlsConfig(feedback="explicit", biases=biased))})
    asked = [(0, 0), (1, 1), (1, 2), (5, 0), (9, 9)]
    pairs = spark.createDataFrame(asked, "user_idx int, item_idx int")
    rows = predictions(spark, path, biased)(pairs).collect()
    on_spark = {(row["user_idx"], row["item_idx"]): row["predicted"] for row in rows}
    unit = 0.625**0.5
    expected = [4.5 + unit * 1.25, 2.5 + unit * 3.25, 1.5, 4.0, 3.0] if biased else [1.25, 3.25, 3.0, 3.0, 3.0]
    assert [on_spark[pair] for pair in asked] == pytest.approx(expected)
    without = pair_ratings(path)(*np.array(asked).T)
    assert without.tolist() == pytest.approx(np.clip(expected, 1.0, 5.0))
    assert load_left(path).reg == (0.5 if biased else 0.0)


@pytest.mark.integration
def test_noise_is_not_learnt_and_taste_is(spark, tmp_path):
    """Two kinds of users and items in noise; then noise alone."""
    rng = np.random.default_rng(0)
    user, item = (axis.ravel() for axis in np.meshgrid(np.arange(40), np.arange(30), indexing="ij"))
    kept = rng.random(len(user)) < 0.5
    taste, noise = (user % 2 - 0.5) * (item % 2 - 0.5) * 8, rng.standard_normal(len(user))
    nothing = RatingBiases(
        0.0, -9.0, 9.0, spark.createDataFrame([], "user_idx int, user_bias double"),
        spark.createDataFrame([], "item_idx int, item_bias double"),
    )  # fmt: skip
    for what, learnt in ((noise + taste, True), (noise, False)):
        rows = list(zip(user[kept].tolist(), item[kept].tolist(), what[kept].tolist(), strict=True))
        matrix = matrix_of(spark, rows)
        left = left_by(matrix, nothing, None)
        config = AlsConfig(feedback="explicit", rank=8, reg=left.reg, user_blocks=1, item_blocks=1)
        model = fit_als(residuals(matrix, nothing, left.deviation), config, str(tmp_path / "checkpoints"))
        save_biases(nothing, left, str(tmp_path / f"model-{learnt}"))
        save_als(model, str(tmp_path / f"model-{learnt}"), {"settings": config_dict(config)})
        found = pair_ratings(str(tmp_path / f"model-{learnt}"))(user[~kept], item[~kept])
        error = np.sqrt(np.mean((found - what[~kept]) ** 2))
        alone = np.sqrt(np.mean(what[~kept] ** 2))
        assert error < (0.7 if learnt else 1.01) * alone
    assert load_biases(spark, str(tmp_path / "model-True")).mean == 0.0
