"""The hybrid: the union of candidates with its features by hand, and a blender that learns what the models cannot."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from math import log, log1p

import pytest
from pyspark.sql import functions as F

from sparkrec.errors import UserError
from sparkrec.models.hybrid import blender as hybrid
from sparkrec.models.hybrid.settings import HybridConfig

AS_OF = datetime(2024, 1, 31, tzinfo=UTC)
LISTS = "user_idx int, item_idx int, rank int, score float"


def lists(spark, *rows):
    return spark.createDataFrame(list(rows), LISTS)


def test_candidates_are_the_union_of_the_lists_with_each_models_view(spark):
    a = lists(spark, (1, 10, 1, 8.0), (1, 11, 2, 4.0), (1, 12, 3, 0.0))
    b = lists(spark, (1, 12, 1, -1.0), (2, 10, 1, 0.5))
    rows = {(r.user_idx, r.item_idx): r.asDict() for r in hybrid.candidates({"a": a, "b": b}, 10).collect()}
    assert set(rows) == {(1, 10), (1, 11), (1, 12), (2, 10)}
    seen = {
        key: [r[c] for c in hybrid.candidate_features(["a", "b"])] for key, r in rows.items()
    }  # a_log_rank, b_log_rank
    first, second, third = (log(15 / rank) for rank in (1, 2, 3))
    assert seen[1, 10] == pytest.approx([first, 0.0])
    assert seen[1, 11] == pytest.approx([second, 0.0])
    assert seen[1, 12] == pytest.approx([third, first])
    assert seen[2, 10] == pytest.approx([0.0, first])


def interactions(spark, *rows):
    values = [
        (user, item, "purchase", AS_OF - timedelta(days=days), None, None, None, None, None)
        for user, item, days in rows
    ]
    schema = (
        "user_idx int, item_idx int, event_type string, ts timestamp, value double, quantity double, price double, "
    )
    return spark.createDataFrame(values, schema + "log_session_id string, basket_id string")


@pytest.mark.integration
def test_context_is_what_was_known_before_the_time(spark):
    known = interactions(spark, (1, 10, 0.5), (2, 10, 3.0), (2, 10, 20.0), (3, 10, 100.0), (1, 11, 40.0), (1, 10, -1.0))
    rows = spark.createDataFrame([(1, 10), (1, 11), (9, 12)], "user_idx int, item_idx int")
    found = {
        (r.user_idx, r.item_idx): [r[c] for c in hybrid.context_features()]
        for r in hybrid.with_context(rows, known, {"purchase": 1.0}, AS_OF).collect()
    }  # users in 1, 7, 30 days and ever, age and recency of the item, events and recency of the user
    logs = {key: [log1p(v) for v in values] for key, values in {
        (1, 10): [1, 2, 2, 3, 100.0, 0.5, 2, 0.5],
        (1, 11): [0, 0, 0, 1, 40.0, 40.0, 2, 0.5],
        (9, 12): [0, 0, 0, 0, 0.0, 0.0, 0, 0.0],
    }.items()}  # fmt: skip
    for key, values in logs.items():
        assert found[key] == pytest.approx(values), key


@pytest.fixture(scope="module")
def planted(spark):
    """Lists of ten items for each user, of which the model ranks high what nobody takes: users take what is popular."""
    n_users = 120
    rows = [(u, i, i + 1, float(10 - i)) for u in range(n_users) for i in range(10)]
    bought = [(500 + n, i, 2.0) for i in range(5, 10) for n in range(4 * i)]
    frame = hybrid.candidates({"m": lists(spark, *rows)}, 10)
    known = interactions(spark, *bought, *[(u, 0, 50.0) for u in range(n_users)])
    taken = spark.createDataFrame([(u, 9 - u % 2) for u in range(0, n_users, 2)], "user_idx int, item_idx int")
    return hybrid.with_context(frame, known, {"purchase": 1.0}, AS_OF).localCheckpoint(), taken


@pytest.mark.integration
@pytest.mark.parametrize("blender", ["logistic", "trees"])
def test_the_blender_learns_what_is_taken_and_serves_it_again(planted, tmp_path, blender):
    rows, taken = planted
    names = [*hybrid.candidate_features(["m"]), *hybrid.context_features()]
    config = HybridConfig(blender=blender, trees=5, depth=2, step=0.5)
    fitted, n, hits = hybrid.fit_blender(rows, taken, names, config)
    assert (n, hits) == (600, 60)  # users who took nothing teach nothing
    hybrid.save_blender(fitted, str(tmp_path / "m"), {"blender": blender, "models": ["m"]})
    served, meta = hybrid.load_blender(str(tmp_path / "m"))
    assert meta["models"] == ["m"]
    assert not list(tmp_path.rglob("*.p*kl*"))
    best = sorted(hybrid.blended(served, rows, names, 3).collect())
    assert {r.item_idx for r in best if r["rank"] == 1} == {9}
    assert Counter(r.user_idx for r in best) == dict.fromkeys(range(120), 3)

    again, _, _ = hybrid.fit_blender(rows.repartition(7, "item_idx"), taken, names, config)
    hybrid.save_blender(again, str(tmp_path / "again"), {"blender": blender})
    again, _ = hybrid.load_blender(str(tmp_path / "again"))
    assert sorted(hybrid.blended(again, rows, names, 3).collect()) == best


@pytest.mark.integration
def test_equal_candidates_are_in_order_of_their_numbers(planted):
    rows, taken = planted
    names = ["same"]
    rows = rows.withColumn("same", F.lit(1.0))
    fitted, _, _ = hybrid.fit_blender(rows, taken, names, HybridConfig(blender="trees", trees=1))
    best = hybrid.blended(fitted, rows, names, 4).where("user_idx = 3").orderBy("rank").collect()
    assert [r.item_idx for r in best] == [0, 1, 2, 3]


def test_nothing_to_learn_from_is_one_line(spark, planted):
    rows, _ = planted
    nobody = spark.createDataFrame([(1, 77)], "user_idx int, item_idx int")
    with pytest.raises(UserError, match="nothing for the hybrid to learn from: 10 candidates, 0 of them taken"):
        hybrid.fit_blender(rows, nobody, ["m_log_rank"], HybridConfig())
