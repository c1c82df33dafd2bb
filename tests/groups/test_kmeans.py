from datetime import UTC, datetime

import numpy as np
import pytest

from sparkrec.errors import InvariantError, UserError
from sparkrec.groups.kmeans import group_popularity, group_queries, group_users
from sparkrec.models.popularity.counts import fallback_matrix, popularity_arrays
from sparkrec.retrieval.topk import top_k
from sparkrec.settings.sections import UserGroupsConfig

PLANTED = {(0.0, 10.0): 14, (-10.0, 0.0): 9, (10.0, -5.0): 6}


def planted(spark):
    """Users around three centres; the number of a user says nothing of its centre."""
    rng = np.random.default_rng(3)
    vectors = np.concatenate([rng.normal(centre, 0.5, (n, 2)) for centre, n in PLANTED.items()])
    users = rng.permutation(len(vectors))
    rows = [(int(u), v) for u, v in zip(users, vectors.tolist(), strict=True)]
    return spark.createDataFrame(rows, "user_idx int, vector array<double>"), dict(rows)


def silhouette(vectors, groups):
    """Rousseeuw's, by squared Euclidean distance."""
    users, total = list(vectors), 0.0
    points = np.array([vectors[u] for u in users])
    group = np.array([groups[u] for u in users])
    squares = ((points[:, None] - points) ** 2).sum(axis=2)
    for i, mine in enumerate(group):
        if (group == mine).sum() > 1:
            a = squares[i, group == mine].sum() / ((group == mine).sum() - 1)
            b = min(squares[i, group == other].mean() for other in set(group.tolist()) - {mine})
            total += (b - a) / max(a, b)
    return total / len(users)


@pytest.mark.integration
@pytest.mark.parametrize("method", ["kmeans", "bisecting"])
def test_planted_groups_are_found_and_numbered_by_size(spark, method):
    frame, vectors = planted(spark)
    found = group_users(frame, UserGroupsConfig(method=method, groups=[4, 2, 3]))
    assert found.sizes == (14, 9, 6)
    assert found.centres == pytest.approx(np.array(list(PLANTED)), abs=0.5)
    assert max(found.silhouettes, key=found.silhouettes.get) == 3
    assert found.silhouettes.keys() == {2, 3, 4}
    rows = {r["user_idx"]: r for r in found.groups.collect()}
    assert rows.keys() == vectors.keys()
    for user, vector in vectors.items():
        own = found.centres[rows[user]["group_id"]]
        assert np.abs(own - vector).max() < 2.5  # its own planted centre, not another
        assert rows[user]["distance"] == pytest.approx(np.linalg.norm(own - vector), abs=1e-5)
    groups = {user: row["group_id"] for user, row in rows.items()}
    assert found.silhouettes[3] == pytest.approx(silhouette(vectors, groups), abs=1e-9)


@pytest.mark.integration
def test_groups_do_not_depend_on_the_order_of_the_users(spark):
    rng = np.random.default_rng(5)
    rows = [(u, v) for u, v in enumerate(rng.normal(size=(300, 3)).astype(np.float32).tolist())]  # no groups to find
    config = UserGroupsConfig(groups=[3, 5], sample=100)
    found = []
    for parts in (1, 5):
        shuffled = [rows[i] for i in rng.permutation(len(rows))]
        frame = spark.createDataFrame(shuffled, "user_idx int, vector array<float>").repartition(parts)
        grouped = group_users(frame, config)
        found.append((sorted(grouped.groups.collect()), grouped.centres.tolist(), grouped.sizes, grouped.silhouettes))
    assert found[0] == found[1]


@pytest.mark.integration
def test_groups_of_one_size_are_in_order_of_their_centres_and_fewer_win_ties(spark):
    rows = [(user, [x, 1.0]) for user, x in enumerate([5.0, -5.0, 5.0, -5.0])]
    frame = spark.createDataFrame(rows, "user_idx int, vector array<double>")
    found = group_users(frame, UserGroupsConfig(groups=[3, 2, 9]))  # nine groups of four users are not tried
    assert found.silhouettes == pytest.approx({2: 1.0, 3: 1.0})
    assert found.silhouettes[2] == found.silhouettes[3]  # the third group would be empty
    assert found.centres.tolist() == [[-5.0, 1.0], [5.0, 1.0]]
    assert {r["user_idx"]: (r["group_id"], r["distance"]) for r in found.groups.collect()} == {
        0: (1, 0.0), 1: (0, 0.0), 2: (1, 0.0), 3: (0, 0.0),
    }  # fmt: skip


def test_fewer_users_than_groups_are_refused(spark):
    frame = spark.createDataFrame([(1, [0.0]), (2, [1.0])], "user_idx int, vector array<double>")
    with pytest.raises(UserError, match=r"groups=\[3, 4\], 2 users"):
        group_users(frame, UserGroupsConfig(groups=[3, 4]))
    with pytest.raises(UserError, match="numbers from 2"):
        group_users(frame, UserGroupsConfig(groups=[1, 2]))


def test_a_vector_that_is_not_finite_is_a_defect(spark):
    rows = [(1, [0.0]), (2, [1.0]), (3, [float("nan")]), (4, [float("-inf")]), (5, None), (6, [None])]
    frame = spark.createDataFrame(rows, "user_idx int, vector array<float>")
    with pytest.raises(InvariantError, match="4 of 6 users' vectors are not finite"):
        group_users(frame, UserGroupsConfig(groups=[2]))


AS_OF = datetime(2020, 1, 31, tzinfo=UTC)


def interactions(spark):
    recent, old = datetime(2020, 1, 30), datetime(2019, 12, 1)
    rows = [
        (1, 0, "buy", recent), (1, 0, "buy", recent), (2, 0, "buy", recent),  # group 0: item 0 by two users
        (1, 1, "buy", recent),  # by one
        (2, 2, "buy", old),  # not in the window
        (3, 1, "buy", recent), (4, 1, "buy", recent), (5, 1, "buy", recent), (4, 3, "buy", recent),  # group 1
        (9, 3, "buy", recent), (8, 3, "buy", recent), (None, 3, "buy", recent),  # of no group
        (3, 4, "return", recent),
        (1, 5, "buy", datetime(2020, 2, 1)),
    ]  # fmt: skip
    return spark.createDataFrame(rows, "user_idx int, item_idx int, event_type string, ts timestamp")


def overall(spark):
    return fallback_matrix(*popularity_arrays(interactions(spark), {"buy": 1.0}, AS_OF, (None, 7.0), 7))


@pytest.mark.integration
def test_users_are_given_what_is_popular_in_their_group_and_then_with_all(spark):
    groups = spark.createDataFrame([(1, 0, 0.1), (2, 0, 0.1), (3, 1, 0.1), (4, 1, 0.1), (5, 1, 0.1)],
                                   "user_idx int, group_id int, distance float")  # fmt: skip
    items = group_popularity(interactions(spark), groups, {"buy": 1.0, "return": 0.0}, AS_OF, 7.0, overall(spark))
    assert items.vectors.shape == (7, 3)
    assert items.vectors[:, :2].tolist() == [[2, 0], [1, 3], [0, 0], [0, 1], [0, 0], [0, 0], [0, 0]]
    assert items.eligible.tolist() == [True, True, True, True, False, False, False]
    # Of all users: item 3 by four, item 1 by four, item 0 by two, item 2 by one, but not in the window.
    share = 0.5 / (4 + 1)
    assert items.vectors[:4, 2] == pytest.approx([2 * share, 4 * share, 1 / 5 * share, 4 * share])
    keys = spark.createDataFrame([("a", 1), ("b", 3), ("c", 9), ("d", None)], "user_id string, user_idx int")
    queries = group_queries(keys, groups, 2)
    assert queries.columns == ["user_id", "user_idx", "vector"]
    lists = {}
    for row in top_k(queries, items, key="user_id", k=4).orderBy("user_id", "rank").collect():
        lists.setdefault(row["user_id"], []).append(row["item_idx"])
    assert lists == {"a": [0, 1, 3, 2], "b": [1, 3, 0, 2], "c": [1, 3, 0, 2], "d": [1, 3, 0, 2]}


def test_popularity_of_no_groups_is_that_of_all(spark):
    none = spark.createDataFrame([], "user_idx int, group_id int")
    items = group_popularity(interactions(spark), none, {"buy": 1.0}, AS_OF, 7.0, overall(spark))
    assert items.vectors.shape == (7, 1)
    assert np.argsort(-items.vectors[:4, 0], kind="stable").tolist() == [1, 3, 0, 2]
