"""What a night refuses, and the lists of a batch of users by hand."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from sparkrec.errors import UserError
from sparkrec.models.ratings.program import check
from sparkrec.models.ratings.scorer import USER, _lists
from sparkrec.retrieval.topk import SEEN
from sparkrec.settings.config import load_config
from sparkrec.settings.format_files import load_format


@pytest.mark.parametrize(
    ("fmt", "settings", "what"),
    [
        ("invoices", ["models=[ratings]"], "the log has no ratings to learn"),
        ("ratings", ["models=[ratings]", "ratings.network=text"], "the log has no reviews to read"),
        ("reviews", ["models=[ratings]", "ratings.network=word2vec_mlp"], "it reads the vectors of prod2vec"),
    ],
)
def test_a_network_that_a_night_cannot_serve_is_refused(fmt, settings, what):
    with pytest.raises(UserError, match=what):
        check(load_config(None, settings), load_format(fmt))
    check(load_config(None, ["models=[prod2vec,ratings]", "ratings.network=word2vec_mlp"]), load_format("reviews"))


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (["ratings.nonnegative=true"], "only factors can be held above 0"),
        (["ratings.network=text", "ratings.words=4"], "a filter spans more words than are read"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, what):
    with pytest.raises(UserError, match=what):
        load_config(None, settings)


@dataclasses.dataclass
class Table:
    """A model that predicts what a table says."""

    ratings: np.ndarray
    user_count: np.ndarray

    def predict(self, user, item):
        return self.ratings[user, item].astype(np.float32)


def test_lists_leave_out_what_was_seen_and_users_without_a_rating():
    table = Table(np.array([[1.0, 5.0, 3.0, 4.0], [2.0, 2.0, 9.0, 1.0], [1.0, 1.0, 1.0, 1.0]]), np.array([2, 1, 0]))
    items, position_of = np.array([0, 1, 3]), np.array([0, 1, -1, 2])  # 2 is no candidate
    seen = pa.array([[1, 2], [], []], pa.list_(pa.int32()))
    columns = [pa.array(["a", "b", "c"]), pa.array([0, 1, 2], pa.int32()), seen]
    batch = pa.RecordBatch.from_arrays(columns, names=["user_id", USER, SEEN])
    added = np.array([0.0, 0.0, 0.5], np.float32)
    rows = [
        row for part in _lists(table, batch, ["user_id"], (items, position_of, added), 2) for row in part.to_pylist()
    ]
    assert [tuple(row.values()) for row in rows] == [
        ("a", 3, 1, 4.5),
        ("a", 0, 2, 1.0),
        ("b", 0, 1, 2.0),
        ("b", 1, 2, 2.0),
    ]
