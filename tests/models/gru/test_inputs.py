"""What a GRU is trained on, as Spark writes it: rows of sessions or of users, and the items' vectors."""

from datetime import UTC, datetime, timedelta

import pytest

from sparkrec.errors import UserError
from sparkrec.models.gru.settings import GruConfig
from sparkrec.models.gru.train import snapshot_rows
from sparkrec.ranks.item_vectors import read_item_vectors, write_item_vectors

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
SESSIONS = [
    ("late", 7, 9, [1, 2]), ("nobody", None, 2, [3]), ("early", 7, 1, [4, 5]), ("other", 8, 2, [6, 7]),
    ("nobody else", None, 3, [8]),
]  # fmt: skip


@pytest.fixture(scope="module")
def sessions(spark):
    rows = [(name, user, BEGIN + timedelta(hours=at), items) for name, user, at, items in SESSIONS]
    return spark.createDataFrame(rows, "session_id string, user_idx int, start_ts timestamp, items array<int>")


def test_rows_of_users_are_in_order_of_their_first_session_and_then_of_time(sessions):
    plan = snapshot_rows(sessions, GruConfig(network="hierarchical-init"))
    assert plan.group == "user"
    rows = plan.rows.orderBy(*plan.order).collect()
    assert [r["item"] for r in rows] in ([4, 5, 1, 2, 3, 6, 7, 8], [4, 5, 1, 2, 6, 7, 3, 8])  # two begin at once
    users = {r["item"]: r["user"] for r in rows}
    assert users[4] == users[1] == 7
    assert len({users[i] for i in (1, 3, 6, 8)}) == 4  # a session without a user is a user's only one


def test_rows_of_sessions_are_in_order_of_time(sessions):
    plan = snapshot_rows(sessions, GruConfig())
    assert (plan.group, "user" in plan.rows.columns) == ("session", False)
    items = [r["item"] for r in plan.rows.orderBy(*plan.order).collect()]
    assert items in ([4, 5, 3, 6, 7, 8, 1, 2], [4, 5, 6, 7, 3, 8, 1, 2])


def test_vectors_reach_the_ranks_as_they_are(spark, tmp_path):
    rows = [(2, "text", [0.5, 0.25]), (0, "text", [1.0, 0.0]), (0, "image", [3.0]), (1, "sound", [1.0])]
    vectors = spark.createDataFrame(rows, "item_idx int, name string, vector array<float>")
    write_item_vectors(vectors, str(tmp_path), ["image", "text"], "gru.features")
    found = {name: matrix.tolist() for name, matrix in read_item_vectors(str(tmp_path), ["image", "text"], 4).items()}
    assert found == {"image": [[3.0], [0.0], [0.0], [0.0]], "text": [[1.0, 0.0], [0.0, 0.0], [0.5, 0.25], [0.0, 0.0]]}
    assert read_item_vectors(str(tmp_path / "none"), [], 4) == {}


def test_vectors_that_there_are_not_are_said(spark, tmp_path):
    vectors = spark.createDataFrame([(0, "image", [3.0])], "item_idx int, name string, vector array<float>")
    with pytest.raises(UserError, match=r"no item vectors of this name.*: text.*choose among image"):
        write_item_vectors(vectors, str(tmp_path), ["image", "text"], "gru.features")
    with pytest.raises(UserError, match=r"see prepare\.text"):
        write_item_vectors(None, str(tmp_path), ["text"], "gru.features")
