import logging

import numpy as np
import pytest

from sparkrec.errors import UserError
from sparkrec.models.als.settings import AlsConfig
from sparkrec.models.als.train import blas_name, checkpoints, fit_als, load_als, save_als
from sparkrec.retrieval.topk import item_matrix, top_k

SCHEMA = "user_idx int, item_idx int, rating float, confidence float"
SMALL = {"rank": 2, "iterations": 6, "user_blocks": 2, "item_blocks": 2, "checkpoint_interval": 2, "reg": 0.05}
N_USERS, N_ITEMS = 12, 10


def checkerboard(spark, *, explicit):
    """Users take items of their own parity; each leaves out one, which is to be recommended first.

    Explicit: the other group's items are rated too, low.
    """
    rows = []
    for user in range(N_USERS):
        for item in range(N_ITEMS):
            own = user % 2 == item % 2
            if item == left_out(user) or not (own or explicit):
                continue
            rows.append((user, item, 5.0 if own else 1.0, 3.0))
    return spark.createDataFrame(rows, SCHEMA)


def left_out(user):
    return (user % 2) + 2 * ((user // 2) % (N_ITEMS // 2))


@pytest.mark.integration
@pytest.mark.parametrize("feedback", ["implicit", "explicit"])
def test_users_are_given_the_items_of_their_group(spark, tmp_path, caplog, feedback):
    matrix = checkerboard(spark, explicit=feedback == "explicit")
    config = AlsConfig(feedback=feedback, alpha=10.0, **SMALL)
    with caplog.at_level(logging.INFO, logger="sparkrec"):
        logging.getLogger("sparkrec").propagate = True
        fitted = fit_als(matrix, config, str(tmp_path / "checkpoints"))
    assert f"blas={blas_name(spark)}" in caplog.text
    assert not any(path.is_file() for path in (tmp_path / "checkpoints").rglob("*"))
    save_als(fitted, str(tmp_path / "model"), {"settings": {"rank": 2}})
    model = load_als(spark, str(tmp_path / "model"))
    assert model.meta == {"settings": {"rank": 2}}
    assert [f.simpleString() for f in model.item_factors.schema] == ["idx:int", "vector:array<float>"]
    items = item_matrix(model.item_factors, N_ITEMS + 1)
    assert items.vectors.shape == (N_ITEMS + 1, 2)
    assert not items.eligible[N_ITEMS]
    queries = model.user_factors.withColumnRenamed("idx", "user_idx")
    seen = matrix.select("user_idx", "item_idx")
    lists = top_k(queries, items, key="user_idx", k=1, seen=seen, partitions=1).collect()
    assert {row["user_idx"]: row["item_idx"] for row in lists} == {u: left_out(u) for u in range(N_USERS)}
    score = np.array([row["score"] for row in lists])
    assert (np.abs(score - (5.0 if feedback == "explicit" else 1.0)) < 0.35).all(), score


def test_the_checkpoint_directory_is_in_force_and_its_files_go(spark, tmp_path):
    with checkpoints(spark, str(tmp_path)):
        assert spark.sparkContext.getCheckpointDir().startswith(f"file:{tmp_path}")
        spark.range(3).checkpoint()
        assert any(path.is_file() for path in tmp_path.rglob("*"))
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.integration
def test_regularisation_scales_with_counts(spark, tmp_path):
    """Rank 1, one item, n equal ratings r: x = y·r / (y² + λ) for each user, y = n·x·r / (n·x² + n·λ).

    With the count in the item's term the fixed point does not depend on n; without it, it would grow with n.
    """
    rows = [(user, 0, 2.0, 1.0) for user in range(8)]
    config = AlsConfig(feedback="explicit", rank=1, iterations=10, reg=0.5, user_blocks=1, item_blocks=1)
    model = fit_als(spark.createDataFrame(rows, SCHEMA), config, str(tmp_path))
    x, y = (frame.first()["vector"][0] for frame in (model.user_factors, model.item_factors))
    # x = 2y/(y²+λ), y = 2x/(x²+λ)  =>  x = y, x² = 2 - λ
    assert x * y == pytest.approx(1.5, abs=0.01)


def test_what_cannot_be_trained_on_is_refused(spark, tmp_path):
    rows = [(0, 0, None, 1.0), (0, 1, 3.0, 1.0), (1, 0, float("nan"), 1.0)]
    frame = spark.createDataFrame(rows, SCHEMA)
    with pytest.raises(UserError, match="2 of 3 interactions have no rating"):
        fit_als(frame, AlsConfig(feedback="explicit"), str(tmp_path))
    with pytest.raises(UserError, match="no interactions"):
        fit_als(frame.where("false"), AlsConfig(), str(tmp_path))
    with pytest.raises(UserError, match="no ALS model"):
        load_als(spark, str(tmp_path / "nowhere"))
