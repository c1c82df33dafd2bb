import math

import numpy as np
import pytest

from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.retrieval.similar import nearest


def test_neighbours_are_the_smallest_angles_and_no_item_is_its_own(spark):
    vectors = np.array([[2.0, 0.0], [3.0, 3.0], [0.0, 5.0], [0.0, 0.0], [-1.0, 0.0], [1.0, 0.1]], dtype=np.float32)
    items = ItemMatrix(vectors, np.full(6, 9.0, dtype=np.float32), np.array([True, True, True, True, True, False]))
    found = {}
    for row in nearest(spark, items, k=2).orderBy("query_idx", "rank").collect():
        found.setdefault(row["query_idx"], []).append((row["rank"], row["item_idx"], row["score"]))
    half = math.sqrt(0.5)
    assert found == {
        0: [(1, 1, pytest.approx(half)), (2, 2, pytest.approx(0.0, abs=1e-6))],
        1: [(1, 0, pytest.approx(half)), (2, 2, pytest.approx(half))],  # equal angles: the smaller number first
        2: [(1, 1, pytest.approx(half)), (2, 0, pytest.approx(0.0, abs=1e-6))],
        4: [(1, 2, pytest.approx(0.0, abs=1e-6)), (2, 1, pytest.approx(-half))],
    }  # the zero vector and the item that may not be shown are nowhere
